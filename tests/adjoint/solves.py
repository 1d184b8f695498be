"""Small Diffrax solves of every kind, put together by name, as functions of a dictionary of differentiable inputs."""

import dataclasses
from collections.abc import Callable
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optimistix as optx

Inputs = dict[str, Any]

START = np.array([0.4, -0.7])
INPUTS: Inputs = {
    "args": {"weight": np.array([[0.9, -0.8], [0.7, 0.3]]), "bias": np.array([0.5, -0.3])},
    "y0": START,
    "t0": np.array(0.1),
    "t1": np.array(1.0),
    "dt0": np.array(0.11),
    "ts": np.array([0.15, 0.4, 0.41, 0.93]),
    "control": np.array([[0.0, 0.3], [0.2, -0.4], [0.5, 0.1], [0.4, 0.8]]),
}
"""Everything that may be differentiated. The times are those of every solve."""


def field(t: Any, y: Any, args: Any) -> Any:
    """A forced network."""
    return jnp.tanh(args["weight"] @ y) + args["bias"] * jnp.cos(3 * t)


def decay(t: Any, y: Any, args: Any) -> Any:
    """A stiff, nonlinear decay."""
    del t
    return -4.0 * y - args["bias"] * y**3


def noise(t: Any, y: Any, args: Any) -> Any:
    """State-dependent diffusion with one noise, as a matrix."""
    del t
    return (0.2 + 0.1 * jnp.sin(args["bias"] * y))[:, None]


def additive(t: Any, y: Any, args: Any) -> Any:
    """Diffusion that does not depend on the state."""
    del y
    return (0.3 * args["bias"] * (1 + 0.1 * t))[:, None]


def brownian(levy_area: Any) -> Any:
    """Noise over all times that any solve visits, fine enough for its steps."""
    return diffrax.VirtualBrownianTree(-0.1, 1.2, tol=1e-3, shape=(1,), key=jr.key(4), levy_area=levy_area)


def ode(inputs: Inputs) -> tuple[Any, Any]:
    """One vector field."""
    return diffrax.ODETerm(field), inputs["y0"]


def split(inputs: Inputs) -> tuple[Any, Any]:
    """A nonstiff and a stiff vector field."""
    return diffrax.MultiTerm(diffrax.ODETerm(field), diffrax.ODETerm(decay)), inputs["y0"]


def separable(inputs: Inputs) -> tuple[Any, Any]:
    """Position and velocity, each with its own vector field."""
    terms = diffrax.ODETerm(lambda t, v, args: jnp.tanh(v)), diffrax.ODETerm(field)
    return terms, (inputs["y0"], 0.5 * inputs["y0"])


def controlled(inputs: Inputs) -> tuple[Any, Any]:
    """A vector field driven by an interpolated control, with jumps in its derivative."""
    path = diffrax.LinearInterpolation(jnp.array([0.0, 0.3, 0.7, 1.2]), inputs["control"])

    def matrix(t: Any, y: Any, args: Any) -> Any:
        return jnp.tanh(args["weight"] @ y)[:, None] * args["bias"] + 0.3

    return diffrax.ControlTerm(matrix, path).to_ode(), inputs["y0"]


def stochastic(diffusion: Callable, levy_area: Any = diffrax.BrownianIncrement) -> Callable:
    """Drift and diffusion."""

    def terms(inputs: Inputs) -> tuple[Any, Any]:
        control = diffrax.ControlTerm(diffusion, brownian(levy_area))
        return diffrax.MultiTerm(diffrax.ODETerm(field), control), inputs["y0"]

    return terms


def langevin(inputs: Inputs) -> tuple[Any, Any]:
    """Underdamped Langevin dynamics with differentiable friction."""
    path = diffrax.VirtualBrownianTree(
        -0.1, 1.2, tol=1e-3, shape=(2,), key=jr.key(4), levy_area=diffrax.SpaceTimeTimeLevyArea
    )
    friction = 1.0 + inputs["args"]["bias"] ** 2
    drift = diffrax.UnderdampedLangevinDriftTerm(friction, 0.7, lambda x, args: args["weight"] @ jnp.sin(x))
    diffusion = diffrax.UnderdampedLangevinDiffusionTerm(friction, 0.7, path)
    return diffrax.MultiTerm(drift, diffusion), (inputs["y0"], 0.5 * inputs["y0"])


ROOT_FINDER = diffrax.VeryChord(rtol=1e-4, atol=1e-6)
SPACE_TIME = diffrax.SpaceTimeLevyArea


@dataclasses.dataclass(frozen=True)
class Method:
    """A solver, what it solves, whether it estimates its error, and whether its path is rough."""

    solver: Any
    problem: Callable[[Inputs], tuple[Any, Any]]
    adaptive: bool = True
    rough: bool = False


METHODS: dict[str, Method] = {
    "Euler": Method(diffrax.Euler(), ode, adaptive=False),
    "Heun": Method(diffrax.Heun(), ode),
    "Midpoint": Method(diffrax.Midpoint(), ode),
    "Ralston": Method(diffrax.Ralston(), ode),
    "Bosh3": Method(diffrax.Bosh3(), ode),
    "Tsit5": Method(diffrax.Tsit5(), ode),
    "Dopri5": Method(diffrax.Dopri5(), ode),
    "Dopri8": Method(diffrax.Dopri8(), ode),
    "LeapfrogMidpoint": Method(diffrax.LeapfrogMidpoint(), ode, adaptive=False),
    "ReversibleHeun": Method(diffrax.ReversibleHeun(), ode),
    "SemiImplicitEuler": Method(diffrax.SemiImplicitEuler(), separable, adaptive=False),
    "HalfSolver": Method(diffrax.HalfSolver(diffrax.Euler()), ode),
    "ImplicitEuler": Method(diffrax.ImplicitEuler(root_finder=ROOT_FINDER), ode),
    "Kvaerno3": Method(diffrax.Kvaerno3(root_finder=ROOT_FINDER), ode),
    "Kvaerno5": Method(diffrax.Kvaerno5(root_finder=ROOT_FINDER), ode),
    "KenCarp3": Method(diffrax.KenCarp3(root_finder=ROOT_FINDER), split),
    "KenCarp5": Method(diffrax.KenCarp5(root_finder=ROOT_FINDER), split),
    "Sil3": Method(diffrax.Sil3(root_finder=ROOT_FINDER), split),
    "Tsit5 CDE": Method(diffrax.Tsit5(), controlled),
    "Heun CDE": Method(diffrax.Heun(), controlled),
    "Heun SDE": Method(diffrax.Heun(), stochastic(noise), rough=True),
    "ReversibleHeun SDE": Method(diffrax.ReversibleHeun(), stochastic(noise), rough=True),
    "Euler SDE": Method(diffrax.Euler(), stochastic(additive), adaptive=False, rough=True),
    "EulerHeun": Method(diffrax.EulerHeun(), stochastic(noise), adaptive=False, rough=True),
    "ItoMilstein": Method(diffrax.ItoMilstein(), stochastic(noise), adaptive=False, rough=True),
    "StratonovichMilstein": Method(diffrax.StratonovichMilstein(), stochastic(noise), adaptive=False, rough=True),
    "ShARK": Method(diffrax.ShARK(), stochastic(additive, SPACE_TIME), rough=True),
    "SRA1": Method(diffrax.SRA1(), stochastic(additive, SPACE_TIME), rough=True),
    "SPaRK": Method(diffrax.SPaRK(), stochastic(noise, SPACE_TIME), rough=True),
    "GeneralShARK": Method(diffrax.GeneralShARK(), stochastic(noise, SPACE_TIME), adaptive=False, rough=True),
    "SlowRK": Method(diffrax.SlowRK(), stochastic(noise, SPACE_TIME), adaptive=False, rough=True),
    "SEA": Method(diffrax.SEA(), stochastic(additive, SPACE_TIME), adaptive=False, rough=True),
    "ALIGN": Method(diffrax.ALIGN(0.05), langevin, rough=True),
    "QUICSORT": Method(diffrax.QUICSORT(0.05), langevin, adaptive=False, rough=True),
}


def tolerances(rough: bool, **coefficients: Any) -> Any:
    """An adaptive controller under which a few steps are rejected."""
    rtol, atol, smallest = (1e-2, 1e-3, 0.04) if rough else (1e-3, 1e-5, None)
    return diffrax.PIDController(rtol=rtol, atol=atol, dtmin=smallest, **coefficients)


def constant(inputs: Inputs, rough: bool) -> tuple[Any, Any]:
    """Steps of one size."""
    del rough
    return diffrax.ConstantStepSize(), inputs["dt0"]


def listed(inputs: Inputs, rough: bool) -> tuple[Any, Any]:
    """Steps to given times, which run from t0 to t1."""
    del rough
    between = inputs["t0"] + (inputs["t1"] - inputs["t0"]) * jnp.array([0.2, 0.3, 0.55, 0.8])
    return diffrax.StepTo(jnp.concatenate([inputs["t0"][None], between, inputs["t1"][None]])), None


def integral(inputs: Inputs, rough: bool) -> tuple[Any, Any]:
    """Adaptive, the first step given, and far too large."""
    return tolerances(rough), 4 * inputs["dt0"]


def proportional(inputs: Inputs, rough: bool) -> tuple[Any, Any]:
    """Adaptive, with all three coefficients and the first step chosen by the controller."""
    del inputs
    return tolerances(rough, pcoeff=0.2, icoeff=0.5, dcoeff=0.1), None


def clipped(inputs: Inputs, rough: bool) -> tuple[Any, Any]:
    """Adaptive, with times to step to, a jump, and rejected steps visited again."""
    controller = diffrax.ClipStepSizeController(
        tolerances(rough), step_ts=jnp.array([0.35, 0.8]), jump_ts=jnp.array([0.5]), store_rejected_steps=8
    )
    return controller, 4 * inputs["dt0"]


CONTROLLERS: dict[str, Callable[[Inputs, bool], tuple[Any, Any]]] = {
    "constant": constant,
    "listed": listed,
    "integral": integral,
    "proportional": proportional,
    "clipped": clipped,
}
ADAPTIVE = {"integral", "proportional", "clipped"}


def squared(t: Any, y: Any, args: Any) -> Any:
    """What is saved instead of the state."""
    return {"norm": sum(jnp.sum(x**2) for x in jax.tree.leaves(y)), "scaled": t * args["bias"]}


SAVES: dict[str, Callable[[Inputs], Any]] = {
    "end": lambda inputs: diffrax.SaveAt(t1=True),
    "both ends": lambda inputs: diffrax.SaveAt(t0=True, t1=True),
    "times": lambda inputs: diffrax.SaveAt(ts=inputs["ts"]),
    "steps": lambda inputs: diffrax.SaveAt(steps=True),
    "every other step": lambda inputs: diffrax.SaveAt(steps=2),
    "dense": lambda inputs: diffrax.SaveAt(dense=True),
    "function": lambda inputs: diffrax.SaveAt(t1=True, ts=inputs["ts"], fn=squared),
    "several": lambda inputs: diffrax.SaveAt(
        subs=[diffrax.SubSaveAt(ts=inputs["ts"]), {"a": diffrax.SubSaveAt(steps=True, t0=True, fn=squared)}]
    ),
    "states": lambda inputs: diffrax.SaveAt(t1=True, solver_state=True, controller_state=True, made_jump=True),
}


def height(t: Any, y: Any, args: Any, **kwargs: Any) -> Any:
    """Cross zero at about the middle of every solve."""
    return t - 0.6 + 0.05 * jnp.sum(jax.tree.leaves(y)[0]) + 0.01 * args["bias"][0]


def late(t: Any, y: Any, args: Any, **kwargs: Any) -> Any:
    """Become true after the middle of every solve."""
    return t > 0.55


NEWTON = optx.Newton(1e-8, 1e-8, optx.rms_norm)
EVENTS: dict[str, Any] = {
    "none": None,
    "boolean": diffrax.Event(late),
    "crossing": diffrax.Event(height, root_finder=NEWTON),
    "upward or late": diffrax.Event(
        {"up": height, "late": lambda t, y, args, **kwargs: t > 0.9}, NEWTON, {"up": True, "late": None}
    ),
    "coarse crossing": diffrax.Event(height),
}

MOVING: dict[str, tuple[str, ...]] = {
    "values": ("args", "y0", "control"),
    "start": ("y0",),
    "everything": tuple(INPUTS),
}
"""What is differentiated. Of rough paths the times are not."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cell:
    """One solve: names from the tables above."""

    method: str
    controller: str = "constant"
    save: str = "end"
    event: str = "none"
    moving: str = "values"
    checkpoints: int | None = 3
    max_steps: int | None = 40
    throw: bool = False

    def __str__(self) -> str:
        """Join the names."""
        return "-".join(map(str, dataclasses.astuple(self)))

    @property
    def possible(self) -> bool:
        """Whether Diffrax allows the combination and it makes sense."""
        method = METHODS[self.method]
        if self.controller in ADAPTIVE and not method.adaptive:
            return False
        if self.event in ("crossing", "upward or late") and method.rough:
            return False
        if self.moving == "everything" and (method.rough or self.controller == "clipped"):
            return False
        # A solver with two steps of memory does not interpolate within the state that an event has to look at.
        return not (self.save == "dense" and self.event != "none")

    def inputs(self) -> tuple[Inputs, Inputs]:
        """Part the inputs into those that are differentiated and the rest."""
        names = MOVING[self.moving]
        arrays = jax.tree.map(jnp.asarray, INPUTS)
        return {k: arrays[k] for k in names}, {k: v for k, v in arrays.items() if k not in names}

    def solve(self, adjoint: Any, moving: Inputs, fixed: Inputs) -> tuple[Any, Any]:
        """Solve, and return a scalar that depends on all that came out, and what came out."""
        inputs = {**moving, **fixed}
        method = METHODS[self.method]
        terms, y0 = method.problem(inputs)
        controller, dt0 = CONTROLLERS[self.controller](inputs, method.rough)
        solution = diffrax.diffeqsolve(
            terms,
            method.solver,
            inputs["t0"],
            inputs["t1"],
            dt0,
            y0,
            args=inputs["args"],
            saveat=SAVES[self.save](inputs),
            stepsize_controller=controller,
            adjoint=adjoint,
            event=EVENTS[self.event],
            max_steps=self.max_steps,
            throw=self.throw,
        )
        outputs = [solution.ts, solution.ys, solution.solver_state]
        if self.save == "dense":
            outputs = [jax.vmap(solution.evaluate)(inputs["ts"]), solution.derivative(0.5)]
        seen = solution.stats, solution.result._value, solution.event_mask, solution.made_jump
        return loss(outputs), (outputs, seen)


def loss(outputs: Any) -> Any:
    """Weigh every finite number of a tree differently."""
    total = jnp.zeros(())
    for k, leaf in enumerate(x for x in jax.tree.leaves(outputs) if jnp.issubdtype(jnp.result_type(x), jnp.inexact)):
        weights = jnp.cos(1.0 + k + jnp.arange(leaf.size)).reshape(leaf.shape)
        finite = jnp.isfinite(leaf)
        total = total + jnp.sum(weights * jnp.where(finite, leaf, 0.0) ** 2)
    return total
