"""What the random solves are put together from: solvers, fields and controllers, by name.

The simplest entry of a table is its first. Whoever calls what a user wrote is watched: fields, conditions, saving
functions and meters may tell `Log` what they were shown.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import diffrax
import equinox as eqx
import jax
import jax.lax as lax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax.experimental import checkify

START, END, STEP = 0.0, 0.9, 0.1125
"""Of every solve: eight steps of one size."""


class Log:
    """What callbacks and tracing functions were shown, by the name of who was shown it."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.rows: dict[str, list[tuple[float, ...]]] = {}
        self.facts: set[tuple[str, Any]] = set()

    def watch(self, name: str, *values: Any) -> None:
        """Note values when the program runs."""

        def note(*found: Any) -> None:
            row = tuple(float(x) for leaf in found for x in np.ravel(np.asarray(leaf, float)))
            self.rows.setdefault(name, []).append(row)

        jax.debug.callback(note, *values)

    def fact(self, name: str, value: Any) -> None:
        """Note something that is known while tracing."""
        self.facts.add((name, value))


#
# Vector fields: a function of the log makes (t, y, w) -> slope
#


def network(t: Any, y: Any, w: Any) -> Any:
    """A forced map without anything special."""
    return jnp.tanh(w * jnp.stack([y[0] - 0.8 * y[1], 0.7 * y[0] + 0.3 * y[1]])) + 0.3 * jnp.cos(3 * t)


def hosted(t: Any) -> Any:
    """Evaluate a forcing on the host, in 32 bits: a callback's thread may not know that 64 are enabled, and rounds."""

    def evaluate(t: Any) -> Any:
        return np.asarray(np.sin(3 * np.asarray(t, np.float32)), np.float32).astype(float)

    return jax.pure_callback(evaluate, jax.ShapeDtypeStruct((), jnp.float64), t, vmap_method="sequential")


def path(shape: tuple[int, ...], levy_area: Any = diffrax.BrownianIncrement) -> Any:
    """Noise over all times that any solve visits."""
    return diffrax.VirtualBrownianTree(-0.1, 1.3, tol=1e-3, shape=shape, key=jr.key(4), levy_area=levy_area)


def watched(log: Log) -> Callable[..., Any]:
    """Tell what it is shown."""

    def field(t: Any, y: Any, w: Any) -> Any:
        log.watch("field", t, y)
        return network(t, y, w)

    return field


def guarded(log: Log) -> Callable[..., Any]:
    """Raise where it is shown what never is."""

    def field(t: Any, y: Any, w: Any) -> Any:
        y = eqx.error_if(y, ~(jnp.max(jnp.abs(y)) < 50) | ~(t >= -1e-9), "the field was shown a state that never was")
        return network(t, y, w)

    return field


def checked(log: Log) -> Callable[..., Any]:
    """Check what it is shown, for whoever makes checks values."""

    def field(t: Any, y: Any, w: Any) -> Any:
        checkify.check(jnp.max(jnp.abs(y)) < 50, "the field was shown a state that never was")
        return network(t, y, w)

    return field


def branching(log: Log) -> Callable[..., Any]:
    """Branch on the state, and count in a while loop as time goes on."""

    def field(t: Any, y: Any, w: Any) -> Any:
        count = lax.while_loop(lambda k: 0.25 * k < t, lambda k: k + 1.0, jnp.zeros(()))
        bent = lax.cond(y[0] > 0.2, lambda y: jnp.sin(y), lambda y: y - 0.1 * y**2, y)
        return network(t, bent, w) + 0.05 * count

    return field


def clocked(log: Log) -> Callable[..., Any]:
    """Carry a clock that no derivative reads, and show it."""

    def field(t: Any, y: Any, w: Any) -> Any:
        log.watch("clock", y["clock"])
        return {"y": network(t, y["y"], w), "clock": 1.0 + 0.0 * y["clock"]}

    return field


def counting(log: Log) -> Callable[..., Any]:
    """Carry a clock that no derivative reads, and run an inner loop with an effect up to it."""

    def field(t: Any, y: Any, w: Any) -> Any:
        def step(carry: Any) -> Any:
            count, at = carry
            log.watch("inner", at)
            return count + 1, 2.0 * at

        lax.while_loop(lambda c: (c[1] < 4) & (c[0] < 40), step, (0, lax.stop_gradient(y["clock"])))
        return {"y": network(t, y["y"], w), "clock": 0.5 + 0.0 * y["clock"]}

    return field


def closure_free(field: Callable[..., Any]) -> Callable[[Log], Callable[..., Any]]:
    """Make the entry of a field that watches nothing."""
    return lambda log: field


FIELDS: dict[str, Callable[[Log], Callable[..., Any]]] = {
    "plain": closure_free(network),
    "callback of t": closure_free(lambda t, y, w: network(t, y, w) + 0.3 * hosted(t)),
    "Brownian forcing": closure_free(lambda t, y, w: network(t, y, w) + 0.3 * path((2,)).evaluate(t)),
    "watched": watched,
    "guarded": guarded,
    "checked": checked,
    "branching": branching,
    "clocked": clocked,
    "counting": counting,
}
CLOCKED = {"clocked", "counting"}


#
# Solvers
#


class Improved(diffrax.AbstractAdaptiveSolver):
    """A solver of the user's own: Euler's step with Heun's as its error, the last slope as its state."""

    term_structure: ClassVar[Any] = diffrax.AbstractTerm
    interpolation_cls: ClassVar[Any] = diffrax.LocalLinearInterpolation

    def order(self, terms: Any) -> int:
        """One."""
        return 1

    def init(self, terms: Any, t0: Any, t1: Any, y0: Any, args: Any) -> Any:
        """Evaluate the slope at the start."""
        return terms.vf(t0, y0, args)

    def step(
        self, terms: Any, t0: Any, t1: Any, y0: Any, args: Any, solver_state: Any, made_jump: Any
    ) -> tuple[Any, Any, Any, Any, Any]:
        """Step by the last slope."""
        control = terms.contr(t0, t1)
        add = lambda a, b: jax.tree.map(jnp.add, a, b)
        y1 = add(y0, terms.prod(solver_state, control))
        slope = terms.vf(t1, y1, args)
        error = jax.tree.map(lambda a, b: 0.5 * (a - b), terms.prod(slope, control), terms.prod(solver_state, control))
        return y1, error, {"y0": y0, "y1": y1}, slope, diffrax.RESULTS.successful

    def func(self, terms: Any, t0: Any, y0: Any, args: Any) -> Any:
        """Evaluate the field."""
        return terms.vf(t0, y0, args)


class Named(diffrax.Tsit5):
    """A solver that a user derived from one of Diffrax's and gave a field to."""

    threshold: float = 0.55


@dataclasses.dataclass(frozen=True)
class Method:
    """A solver, the kind of problem it solves, whether it estimates its error, and whether its path is rough."""

    solver: Any
    kind: str = "ode"
    adaptive: bool = True
    rough: bool = False


FINDER = diffrax.VeryChord(rtol=1e-6, atol=1e-8)
SPACE_TIME = diffrax.SpaceTimeLevyArea
SOLVERS: dict[str, Method] = {
    "Heun": Method(diffrax.Heun()),
    "Tsit5": Method(diffrax.Tsit5()),
    "Euler": Method(diffrax.Euler(), adaptive=False),
    "Bosh3": Method(diffrax.Bosh3()),
    "Dopri5": Method(diffrax.Dopri5()),
    "Ralston": Method(diffrax.Ralston()),
    "HalfSolver(Tsit5)": Method(diffrax.HalfSolver(diffrax.Tsit5())),
    "HalfSolver(Heun)": Method(diffrax.HalfSolver(diffrax.Heun())),
    "HalfSolver(Euler)": Method(diffrax.HalfSolver(diffrax.Euler())),
    "Improved": Method(Improved()),
    "Named": Method(Named()),
    "LeapfrogMidpoint": Method(diffrax.LeapfrogMidpoint(), adaptive=False),
    "ReversibleHeun": Method(diffrax.ReversibleHeun()),
    "SemiImplicitEuler": Method(diffrax.SemiImplicitEuler(), "separable", adaptive=False),
    "ImplicitEuler": Method(diffrax.ImplicitEuler(root_finder=FINDER)),
    "Kvaerno3": Method(diffrax.Kvaerno3(root_finder=FINDER)),
    "KenCarp3": Method(diffrax.KenCarp3(root_finder=FINDER), "split"),
    "Tsit5 CDE": Method(diffrax.Tsit5(), "control as ODE"),
    "Heun CDE": Method(diffrax.Heun(), "control"),
    "Heun SDE": Method(diffrax.Heun(), "noise", rough=True),
    "EulerHeun": Method(diffrax.EulerHeun(), "noise", adaptive=False, rough=True),
    "ShARK": Method(diffrax.ShARK(), "additive", rough=True),
    "SPaRK": Method(diffrax.SPaRK(), "space-time", rough=True),
    "SEA": Method(diffrax.SEA(), "additive", adaptive=False, rough=True),
}
SIMPLE_KINDS = {"ode"}
"""Kinds of problems whose state may be more than one vector."""


def terms_of(kind: str, field: Callable[..., Any]) -> Any:
    """Make the terms of a problem whose drift is a field of (t, y, w)."""
    drift = diffrax.ODETerm(field)
    spread = lambda t, y, w: (0.2 + 0.1 * jnp.sin(w * y))[:, None]
    if kind == "ode":
        return drift
    if kind == "separable":
        return diffrax.ODETerm(lambda t, v, w: jnp.tanh(v)), drift
    if kind == "split":
        return diffrax.MultiTerm(drift, diffrax.ODETerm(lambda t, y, w: -4.0 * y - w * y**3))
    if kind in ("control", "control as ODE"):
        signal = diffrax.LinearInterpolation(jnp.array([-0.1, 0.3, 0.7, 1.3]), jnp.array([[0.0], [0.2], [0.5], [0.4]]))
        term = diffrax.ControlTerm(lambda t, y, w: field(t, y, w)[:, None], signal)
        return term if kind == "control" else term.to_ode()
    levy = {"noise": diffrax.BrownianIncrement, "additive": SPACE_TIME, "space-time": SPACE_TIME}[kind]
    diffusion = spread if kind != "additive" else lambda t, y, w: (0.2 + 0.05 * w * jnp.ones(2))[:, None]
    return diffrax.MultiTerm(drift, diffrax.ControlTerm(diffusion, path((1,), levy)))


#
# Controllers
#


class Gapped(diffrax.AbstractStepSizeController):
    """A user's own: steps of one size with a gap after each, of which it does not say that there was a jump."""

    gap: float = 0.03

    def wrap(self, direction: Any) -> Any:
        """Keep the direction, which is forward."""
        return self

    def init(self, terms: Any, t0: Any, t1: Any, y0: Any, dt0: Any, *rest: Any) -> Any:
        """Begin with the given step, and keep it."""
        return t0 + dt0, dt0

    def adapt_step_size(self, t0: Any, t1: Any, *rest: Any) -> Any:
        """Begin the next step a little later than this one ended."""
        step = rest[-1]
        return True, t1 + self.gap, t1 + self.gap + step, False, step, diffrax.RESULTS.successful


class Halved(diffrax.AbstractStepSizeController):
    """A user's own around another one: every second step is cut."""

    inner: Any

    def wrap(self, direction: Any) -> Any:
        """Wrap what is inside."""
        return Halved(self.inner.wrap(direction))

    def init(self, *args: Any) -> Any:
        """Count from 0."""
        after, state = self.inner.init(*args)
        return after, (state, jnp.array(0))

    def adapt_step_size(self, *args: Any) -> Any:
        """Cut the step that comes next where the count is odd."""
        *rest, (state, count) = args
        keep, start, stop, jump, state, result = self.inner.adapt_step_size(*rest, state)
        stop = jnp.where(count % 2 == 1, start + 0.6 * (stop - start), stop)
        return keep, start, stop, jump, (state, count + 1), result


def adaptive(rough: bool, **coefficients: Any) -> Any:
    """Make a controller under which a few steps are rejected."""
    rtol, atol, smallest = (1e-2, 1e-3, 0.06) if rough else (1e-3, 1e-5, None)
    return diffrax.PIDController(rtol=rtol, atol=atol, dtmin=smallest, **coefficients)


def clipped(rough: bool) -> Any:
    """Add times to step to, a jump, and rejected steps visited again."""
    return diffrax.ClipStepSizeController(
        adaptive(rough), step_ts=jnp.array([0.35, 0.8]), jump_ts=jnp.array([0.5]), store_rejected_steps=8
    )


CONTROLLERS: dict[str, tuple[Callable[[bool], Any], float | None, bool]] = {
    "constant": (lambda rough: diffrax.ConstantStepSize(), STEP, False),
    "listed": (lambda rough: diffrax.StepTo(jnp.array([START, 0.2, 0.3, 0.55, END])), None, False),
    "integral": (lambda rough: adaptive(rough), 4 * STEP, True),
    "PID": (lambda rough: adaptive(rough, pcoeff=0.2, icoeff=0.5, dcoeff=0.1), None, True),
    "clipped": (clipped, 4 * STEP, True),
    "gapped": (lambda rough: Gapped(), STEP, False),
    "halved": (lambda rough: Halved(adaptive(rough)), 2 * STEP, True),
    "halved constant": (lambda rough: Halved(Gapped(0.0)), STEP, False),
}
"""How each is made, the first step, and whether it needs an estimate of the error."""
