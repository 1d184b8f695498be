"""What the random solves save, what ends and what watches them, by name; the simplest entry of a table is its first."""

from collections.abc import Callable
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx

from .parts import Log


def clock_free(y: Any) -> Any:
    """Take a clock out of a state."""
    return y["y"] if isinstance(y, dict) else y


def saved(log: Log) -> Callable[..., Any]:
    """Make what is saved instead of the state."""

    def save(t: Any, y: Any, w: Any) -> Any:
        log.watch("save", t)
        return {"norm": sum(jnp.sum(x**2) for x in jax.tree.leaves(clock_free(y))), "scaled": t * w}

    return save


TIMES = np.array([0.05, 0.4, 0.41, 0.87])
SAVES: dict[str, Callable[[Log], Any]] = {
    "end": lambda log: diffrax.SaveAt(t1=True),
    "times": lambda log: diffrax.SaveAt(ts=jnp.asarray(TIMES)),
    "steps": lambda log: diffrax.SaveAt(t0=True, steps=True),
    "every other step": lambda log: diffrax.SaveAt(steps=2),
    "dense": lambda log: diffrax.SaveAt(dense=True),
    "function": lambda log: diffrax.SaveAt(t1=True, ts=jnp.asarray(TIMES), fn=saved(log)),
    "several": lambda log: diffrax.SaveAt(
        subs=[diffrax.SubSaveAt(ts=jnp.asarray(TIMES)), {"a": diffrax.SubSaveAt(steps=True, fn=saved(log))}]
    ),
    "states": lambda log: diffrax.SaveAt(t1=True, solver_state=True, controller_state=True, made_jump=True),
}
BOUNDED = {"steps", "every other step", "dense", "several"}
"""What needs a place for every step that may be made."""


def late(log: Log) -> Callable[..., Any]:
    """End after the middle."""
    return lambda t, y, args, **kwargs: t > 0.55


def height(log: Log) -> Callable[..., Any]:
    """Cross zero about the middle, and tell where it was asked."""

    def condition(t: Any, y: Any, args: Any, **kwargs: Any) -> Any:
        log.watch("condition", t)
        return t - 0.6 + 0.05 * jnp.sum(jax.tree.leaves(clock_free(y))[0]) + 0.01 * args

    return condition


def looking(log: Log) -> Callable[..., Any]:
    """End at a time that depends on what it is shown of the solve."""

    def condition(t: Any, y: Any, args: Any, *, terms: Any, solver: Any, **kwargs: Any) -> Any:
        controller = kwargs["stepsize_controller"]
        log.fact("solver", type(solver).__name__)
        log.fact("controller", type(controller).__name__)
        log.fact("terms", jax.tree.structure(terms).num_leaves)
        log.fact("others", tuple(sorted(kwargs)))
        end = 0.3 if isinstance(solver, diffrax.AbstractRungeKutta | diffrax.HalfSolver) else 0.7
        end = end + 0.1 if isinstance(controller, diffrax.PIDController) else end
        return t > end

    return condition


def by_tableau(log: Log) -> Callable[..., Any]:
    """End at a time that depends on how many stages the solver has, and on fields of its own."""

    def condition(t: Any, y: Any, args: Any, *, solver: Any, **kwargs: Any) -> Any:
        inner: Any = solver.solver if isinstance(solver, diffrax.HalfSolver) else solver
        return t > getattr(inner, "threshold", 0.1 * min(inner.tableau.num_stages, 7))

    return condition


EVENTS: dict[str, tuple[Callable[[Log], Any] | None, bool]] = {
    "none": (None, False),
    "late": (late, False),
    "crossing": (height, True),
    "coarse crossing": (height, False),
    "looking": (looking, False),
    "by tableau": (by_tableau, False),
}
"""The condition, and whether its root is found."""
ROOTS = optx.Newton(1e-8, 1e-8, optx.rms_norm)


class Meter(diffrax.AbstractProgressMeter):
    """A progress meter of the user's own, which tells what it is shown."""

    log: Log = eqx.field(static=True)

    def init(self) -> Any:
        """Count from 0."""
        return jnp.zeros(())

    def step(self, state: Any, progress: Any) -> Any:
        """Count and tell."""
        self.log.watch("meter", progress)
        return state + 1

    def close(self, state: Any) -> None:
        """Tell the count."""
        self.log.watch("meter's end", state)
