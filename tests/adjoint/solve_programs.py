"""Random programs that solve differential equations: the record, what it stands for, and how one is drawn."""

import dataclasses
import random
from collections.abc import Callable
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
import numpy as np

from .nestings import CHECKED, FORWARD, MODES, NESTINGS, SETTINGS, ask
from .outputs import BOUNDED, EVENTS, ROOTS, SAVES, TIMES, Meter, clock_free
from .parts import CLOCKED, CONTROLLERS, END, FIELDS, SIMPLE_KINDS, SOLVERS, START, Log, terms_of

CHECKPOINTS = (3, None, 1, 2, 5, 16, 64, "numpy 3")
HEAVY = {"ImplicitEuler", "Kvaerno3", "KenCarp3", "ShARK", "SPaRK", "SEA"}
EXPECTED = (None, 1, 7, 1000, "traced 9")
MAX_STEPS = (40, 5, 8, None, 2**31, 2**32 + 7)
"""More than any solve makes, fewer, exactly those of a constant step, no bound, and more than 31 bits hold."""


PAIRS: tuple[dict[str, Any], ...] = (
    {"controller": "gapped", "solver": "Tsit5", "mode": "grad"},
    {"controller": "gapped", "solver": "Bosh3", "checkpoints": 3},
    {"tier": "disk", "nesting": "scan", "controller": "integral", "mode": "grad"},
    {"tier": "disk", "nesting": "fori", "mode": "jacrev"},
    {"setting": "leaks", "solver": "Tsit5", "controller": "integral", "mode": "grad"},
    {"setting": "leaks", "solver": "Dopri5", "controller": "PID"},
    {"field": "checked", "setting": "checkify", "solver": "Tsit5"},
    {"event": "looking", "solver": "Tsit5"},
    {"field": "callback of t", "controller": "integral"},
    {"solver": "HalfSolver(Tsit5)", "controller": "integral"},
)
"""What has been found to meet badly, or might: drawn together more often than chance would."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SolveProgram:
    """One solve by names from the tables, how it is nested, and what is asked; the defaults are the simplest."""

    solver: str = "Heun"
    field: str = "plain"
    controller: str = "constant"
    save: str = "end"
    event: str = "none"
    nesting: str = "none"
    mode: str = "value"
    setting: str = "none"
    checkpoints: int | str | None = 3
    max_steps: int | None = 40
    expected: int | str | None = None
    closure: bool = False
    """Whether the field closes over the scalar in the place of taking it as an argument."""
    moving_end: bool = False
    """Whether the end of the solve depends on what is differentiated."""
    meter: bool = False
    library: bool = False
    """Whether the caller asks what kind of adjoint it was given, as public libraries do."""
    jitted: bool = True
    tier: str | None = None
    windows: int = 3

    @property
    def possible(self) -> bool:
        """Whether Diffrax takes the combination and it makes sense."""
        method = SOLVERS[self.solver]
        bounded = self.save in BOUNDED
        checks = self.setting in CHECKED or self.nesting == "checkify"
        return not (
            (CONTROLLERS[self.controller][2] and not method.adaptive)
            or (self.field in CLOCKED and (method.kind not in SIMPLE_KINDS or self.closure))
            or (EVENTS[self.event][1] and method.rough)
            or (self.event == "by tableau" and not hasattr(_innermost(method.solver), "tableau"))
            or (self.event != "none" and self.save == "dense")
            or (bounded and (self.max_steps is None or self.max_steps > 100))
            or (self.max_steps is None and self.checkpoints is None)
            or (self.field == "checked") > checks
            or (self.nesting in FORWARD and self.mode != "value")
            # Diffrax's compiled solve keeps a field that closes over a tracer.
            or (self.setting == "leaks" and self.closure)
            # These compile for minutes.
            or (self.solver in HEAVY and (self.mode == "hessian" or self.nesting not in ("none", "scan", "two")))
            or (self.moving_end and (self.controller == "listed" or method.rough or self.mode == "value"))
            or (self.moving_end and self.field in ("callback of t", "Brownian forcing"))
            # A generous bound costs memory in every lane of Diffrax's adjoint where no count is given.
            or (self.max_steps is not None and self.max_steps > 100 and self.checkpoints is None)
        )

    @property
    def weight(self) -> float:
        """How long the program takes to compile, very roughly."""
        heavy = {"hessian": 2.5, "jacrev": 1.3, "vmap of grad": 1.3}.get(self.mode, 1.0)
        heavy *= 1.5 if self.save in ("several", "function", "dense") else 1.0
        heavy *= 1.3 if self.nesting in ("map", "vmap", "vmap both", "vmap of scan", "scan of vmap") else 1.0
        return heavy * (2.0 if self.solver in HEAVY else 1.0)

    def run(self, make: Callable[..., Any], log: Log, nudge: float = 0.0) -> Any:
        """Evaluate with an adjoint.

        Args:
            make: takes `checkpoints` and `expected_steps`, returns the adjoint.
            log: is told what the parts were shown.
            nudge: how far the point is moved.
        """

        def kernel(y: Any, w: Any) -> Any:
            counts = np.int64(3) if self.checkpoints == "numpy 3" else self.checkpoints
            expected = jnp.array(9) if self.expected == "traced 9" else self.expected
            return self._solve(make(checkpoints=counts, expected_steps=expected), log, y, w)

        return ask(kernel, self.nesting, self.mode, setting=self.setting, jitted=self.jitted, nudge=nudge)

    def _solve(self, adjoint: Any, log: Log, y: Any, w: Any) -> Any:
        method = SOLVERS[self.solver]
        field = FIELDS[self.field](log)
        closed = (lambda t, y, args: field(t, y, w)) if self.closure else field
        controller, first_step, _ = CONTROLLERS[self.controller]
        condition, rooted = EVENTS[self.event]
        start = {"y": y, "clock": jnp.ones(())} if self.field in CLOCKED else y
        if method.kind == "separable":
            start = y, 0.5 * y
        asked = isinstance(adjoint, diffrax.RecursiveCheckpointAdjoint) or not hasattr(adjoint, "checkpoints")
        solution = diffrax.diffeqsolve(
            terms_of(method.kind, closed),
            method.solver,
            START,
            END + 0.05 * w if self.moving_end else END,
            first_step,
            start,
            args=w,
            saveat=SAVES[self.save](log),
            stepsize_controller=controller(method.rough),
            adjoint=adjoint,
            event=None if condition is None else diffrax.Event(condition(log), ROOTS if rooted else None),
            max_steps=self.max_steps,
            throw=False,
            progress_meter=Meter(log) if self.meter else diffrax.NoProgressMeter(),
        )
        outputs = [solution.ts, jax.tree.map(clock_free, solution.ys, is_leaf=_is_clocked), solution.solver_state]
        if self.save == "dense":
            outputs = [clock_free(jax.vmap(solution.evaluate)(jnp.asarray(TIMES)))]
        return _gathered(outputs, solution) * (2.0 if self.library and not asked else 1.0)


def _is_clocked(x: Any) -> bool:
    return isinstance(x, dict) and "clock" in x


def _innermost(solver: Any) -> Any:
    return solver.solver if isinstance(solver, diffrax.HalfSolver) else solver


def _gathered(outputs: Any, solution: Any) -> Any:
    """Weigh every finite number of a tree differently, twice, and add the counts of steps and how it ended."""
    sums = jnp.zeros(2)
    for k, leaf in enumerate(x for x in jax.tree.leaves(outputs) if jnp.issubdtype(jnp.result_type(x), jnp.floating)):
        leaf = jnp.ravel(jnp.where(jnp.isfinite(leaf), leaf, 0.0))
        at = jnp.arange(float(leaf.size))
        sums = sums + jnp.stack([jnp.sum(jnp.cos(1.0 + k + at) * leaf), jnp.sum(jnp.sin(0.3 + k + at) * leaf**2)])
    counts = [solution.stats[name].astype(float) for name in ("num_steps", "num_accepted_steps")]
    ended = (solution.result == diffrax.RESULTS.successful).astype(float)
    return jnp.tanh(0.4 * sums) + 1e-3 * jnp.stack(counts) + 0.01 * ended


def draw(rng: random.Random) -> SolveProgram:
    """Draw a possible program; half of its parts are simple ones, so that what is special shows."""
    while True:
        program = SolveProgram(
            solver=_pick(rng, tuple(SOLVERS), 0.15),
            field=_pick(rng, tuple(FIELDS), 0.5),
            controller=_pick(rng, tuple(CONTROLLERS), 0.2),
            save=_pick(rng, tuple(SAVES), 0.6),
            event=_pick(rng, tuple(EVENTS), 0.65),
            nesting=_pick(rng, tuple(NESTINGS), 0.5),
            mode=_pick(rng, tuple(MODES), 0.0),
            setting=_pick(rng, tuple(SETTINGS), 0.6),
            checkpoints=_pick(rng, CHECKPOINTS, 0.4),
            max_steps=_pick(rng, MAX_STEPS, 0.5),
            expected=_pick(rng, EXPECTED, 0.6),
            closure=rng.random() < 0.2,
            moving_end=rng.random() < 0.12,
            meter=rng.random() < 0.12,
            library=rng.random() < 0.1,
            jitted=rng.random() < 0.95,
            tier=_pick(rng, (None, "host", "disk"), 0.75),
            windows=_pick(rng, (3, 1, 2), 0.4),
        )
        if rng.random() < 0.4:
            program = dataclasses.replace(program, **PAIRS[int(rng.random() * len(PAIRS))])
        if program.possible and rng.random() < 1 / program.weight:
            return program


def _pick(rng: random.Random, choices: tuple, simplest: float) -> Any:
    """Choose the first entry with the given probability, else any."""
    return choices[0] if rng.random() < simplest else choices[int(rng.random() * len(choices))]
