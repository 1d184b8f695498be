"""Explicit Runge-Kutta steps with their stages written out, or in a loop without checkpoints.

Diffrax runs the stages of a step in a loop that is checkpointed like the solve itself, so a reversed step evaluates
every stage twice, reads all slopes for every stage, and pays for the bookkeeping of a loop within a loop. Written out,
a stage reads the slopes that its row of the tableau names, is evaluated once, and leaves XLA straight code to fuse.
The arithmetic is that of the tableau, so results agree to rounding. It costs one copy of the vector field for each
stage in the compiled program, and keeps what every stage of the one reversed step needs. So small states with longer
vector fields get a plain loop over the stages (`MOST_EQUATIONS`), and large vector fields keep Diffrax's
(`LARGEST_FIELD`, `LARGEST_TAPE_BYTES`).

Known inefficiency: under `jax.vmap` Diffrax's loop over the stages holds a gradient of shared values for every lane.
"""

import collections
import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

import diffrax
import equinox as eqx
import jax
import jax.lax as lax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np

from ..compat import unvmap_any
from ..loop.observe import pass_observer
from ..traced.places import zeros
from .compat import tableau_of, vector_field_is_expensive
from .delegating import Delegating

TapeName = Literal["auto", "keep", "recompute"]
"""What a reversed step keeps of its stages."""

LARGEST_FIELD = 300
"""Vector fields whose traced program has more equations than this keep Diffrax's loop, or where the stages are to be
kept all the same, get a plain one."""

MOST_EQUATIONS = 170
"""With more equations than this over all stages they are looped over, where the state is small: a loop over few numbers
costs little, and compiling that many equations takes longer than most solves."""
FEW_ELEMENTS, SMALL_TAPE_BYTES = 16, 8 * 1024
"""A small state has at most so many elements, and needs at most so many bytes for all stages of a reversed step."""

LARGEST_TAPE_STATES = 3
"""A stage is kept for the reversed step where that takes at most this many states' bytes (Diffrax keeps about as much)
..."""
LARGEST_TAPE_BYTES = 60 * 1024
"""... and this many bytes more, over all stages of a step (of one lane: under `jax.vmap` no other is seen here)."""
SMALLEST_SEPARATE = 16
"""From this many elements of the state on, stages are kept from being fused into each other."""


def _combine(y: Any, coefficients: Any, slopes: list[Any]) -> Any:
    """Compute y + sum_j a_j k_j over a PyTree; `y` None stands for zero. Zero coefficients are left out."""
    used = [(float(a), k) for a, k in zip(coefficients, slopes, strict=True) if a != 0]

    def leaf(*leaves):
        base, ks = (leaves[0], leaves[1:]) if y is not None else (None, leaves)
        total = None
        for (a, _), k in zip(used, ks, strict=True):
            term = jnp.asarray(a, k.dtype) * k
            total = term if total is None else total + term
        if base is None:
            return jnp.zeros_like(jtu.tree_leaves(slopes[0])[0]) if total is None else total
        return base if total is None else base + total

    trees = [k for _, k in used]
    if y is None and not trees:
        return jtu.tree_map(jnp.zeros_like, slopes[0])
    return jtu.tree_map(leaf, *([] if y is None else [y]), *trees)


def _opaque_true(t0: Any, t1: Any) -> Any:
    """Compute true in a way that XLA cannot see through on the CPU, where it drops `lax.optimization_barrier`."""
    ordered = lax.platform_dependent(t0, t1, cpu=lambda a, b: a <= b, default=lambda a, b: jnp.full(jnp.shape(a), True))
    return unvmap_any(ordered)


def _apart(true: Any, evaluation: Any, *inputs: Any) -> Any:
    """Evaluate in a computation of its own: XLA fuses nothing into a conditional or out of it."""
    types: list[Any] = []

    def typed(*inputs):
        found = evaluation(*inputs)
        types[:] = [jtu.tree_map(jax.typeof, found)]
        return found

    eqx.filter_eval_shape(typed, *inputs)
    blank = lambda: jtu.tree_map(zeros, types[0])
    return lax.optimization_barrier(lax.cond(true, lambda: evaluation(*inputs), blank))


def _elements(tree: Any) -> int:
    return sum(jnp.size(x) for x in jtu.tree_leaves(tree))


def _bytes(tree: Any) -> int:
    return sum(x.size * x.dtype.itemsize for x in jtu.tree_leaves(tree))


class WrittenOut(Delegating):
    """An explicit Runge-Kutta solver of Diffrax with its stages written out, or looped over plainly.

    The state is the last slope for solvers whose first stage is the last of the step before (FSAL), else None.
    """

    fsal: bool = eqx.field(static=True)
    separate: bool = eqx.field(static=True)
    """Keep XLA from fusing one stage into the next, where a stencil would make it compute the first one many times."""
    rolled: bool = eqx.field(static=True)
    """Loop over the stages, so that the program holds one copy of the vector field instead of one for each stage."""

    def init(self, terms: Any, t0: Any, t1: Any, y0: Any, args: Any) -> Any:
        """Return the slope at the start, or None."""
        del t1
        return terms.vf(t0, y0, args) if self.fsal else None

    def step(
        self, terms: Any, t0: Any, t1: Any, y0: Any, args: Any, solver_state: Any, made_jump: Any
    ) -> tuple[Any, Any, dict[str, Any], Any, Any]:
        """Make one step; see `diffrax.AbstractSolver.step`."""
        tableau = tableau_of(self.solver)
        field = solver_state
        if self.fsal and made_jump is not False:
            field = _fresh_after_jump(terms, t0, y0, args, field, made_jump)
        given = t0, t1, y0, args, terms.contr(t0, t1)
        if self.rolled:
            stacked, yi, field = _rolled(tableau, terms, given, field)
            y1 = yi if tableau.ssal else _weighted(y0, tableau.b_sol, stacked)
            error = _weighted(None, tableau.b_error, stacked)
        else:
            slopes, yi, field = self._stages(tableau, terms, given, field)
            y1 = yi if tableau.ssal else _combine(y0, tableau.b_sol, slopes)
            error = _combine(None, tableau.b_error, slopes)
            stacked = jtu.tree_map(lambda *ks: jnp.stack(ks), *slopes)
        return y1, error, {"y0": y0, "y1": y1, "k": stacked}, field if self.fsal else None, diffrax.RESULTS.successful

    def _stages(self, tableau: Any, terms: Any, given: Any, field: Any) -> tuple[list[Any], Any, Any]:
        """Write the stages out; returns all slopes, the last stage's state, and its vector field."""
        t0, t1, y0, args, control = given
        slopes, yi = [], y0
        apart = functools.partial(_apart, _opaque_true(t0, t1)) if self.separate else lambda f, *inputs: f(*inputs)
        for stage in range(tableau.num_stages):
            c = tableau.c1 if stage == 0 else float(tableau.c[stage - 1])
            ti = t1 if c == 1 else t0 if c == 0 else t0 + jnp.asarray(c, jnp.result_type(t0)) * (t1 - t0)
            yi = _combine(y0, tableau.a_lower[stage - 1], slopes) if stage > 0 else y0
            if self.fsal:
                field = apart(terms.vf, ti, yi, args) if stage > 0 else field
                slopes.append(terms.prod(field, control))
            else:
                slopes.append(apart(terms.vf_prod, ti, yi, args, control))
        return slopes, yi, field


def _weighted(y: Any, weights: Any, slopes: Any) -> Any:
    """Compute y + sum_j a_j k_j over a PyTree of slopes along axis 0; `y` None stands for zero."""

    def leaf(ks, base=None):
        a = jnp.asarray(weights, jnp.finfo(ks.dtype).dtype).reshape((-1,) + (1,) * (ks.ndim - 1))
        total = jnp.sum(a * ks, axis=0)
        return total if base is None else base + total

    return jtu.tree_map(leaf, slopes) if y is None else jtu.tree_map(leaf, slopes, y)


def _rolled(tableau: Any, terms: Any, given: Any, field: Any) -> tuple[Any, Any, Any]:
    """Loop over the stages; returns all slopes along axis 0, the last stage's state, and its vector field."""
    t0, t1, y0, args, control = given
    stages = tableau.num_stages
    rows = np.zeros((stages, stages))
    for stage, row in enumerate(tableau.a_lower, start=1):
        rows[stage, : len(row)] = row
    times = np.array([tableau.c1, *tableau.c])
    first = 0 if field is None else 1

    def following(carry, at):
        slopes, _, _ = carry
        stage, row, c = at
        ti = jnp.where(c == 1, t1, t0 + c.astype(jnp.result_type(t0)) * (t1 - t0))
        yi = _weighted(y0, row, slopes)
        evaluated = terms.vf(ti, yi, args) if first else None
        slope = terms.prod(evaluated, control) if first else terms.vf_prod(ti, yi, args, control)
        slopes = jtu.tree_map(lambda ks, k: lax.dynamic_update_index_in_dim(ks, k, stage, 0), slopes, slope)
        return (slopes, yi, evaluated), None

    struct = y0 if not first else eqx.filter_eval_shape(terms.prod, field, control)
    slopes = jtu.tree_map(lambda x: jnp.zeros((stages, *jnp.shape(x)), jnp.result_type(x)), struct)
    if first:
        slopes = jtu.tree_map(lambda ks, k: ks.at[0].set(k), slopes, terms.prod(field, control))
    at = np.arange(first, stages, dtype=np.int32), rows[first:], times[first:]
    (slopes, yi, field), _ = lax.scan(following, (slopes, y0, field), jtu.tree_map(jnp.asarray, at))
    return slopes, yi, field


def _fresh_after_jump(terms: Any, t0: Any, y0: Any, args: Any, field: Any, made_jump: Any) -> Any:
    """Evaluate the first stage where the vector field has just jumped."""
    return lax.cond(unvmap_any(made_jump), lambda: terms.vf(t0, y0, args), lambda: field)


class _Field(NamedTuple):
    """A vector field's size: equations of its program, whether XLA ends a fusion in it, bytes its transpose needs."""

    equations: int
    breaks_fusion: bool
    kept_bytes: int


_UNFUSED = frozenset({"dot_general", "conv_general_dilated", "fft", "while", "scan", "cond", "sort", "cumsum"})


def _primitives(jaxpr: Any) -> list[str]:
    """List the primitives of a jaxpr and of those inside it."""
    names = []
    for eqn in jaxpr.eqns:
        names.append(eqn.primitive.name)
        for value in jtu.tree_leaves(eqn.params, is_leaf=lambda x: hasattr(x, "eqns")):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                names.extend(_primitives(inner))
    return names


def _measure(terms: Any, t0: Any, y0: Any, args: Any) -> _Field | None:
    """Measure the vector field by tracing it; None where it cannot be differentiated in everything that may be needed.

    Not in the time, which hardly any solve is differentiated in: fields may hold callbacks and noise that depend on it.
    """
    dynamic, static = eqx.partition((y0, args), eqx.is_inexact_array)

    def field(dynamic):
        return eqx.filter(terms.vf(t0, *eqx.combine(dynamic, static)), eqx.is_inexact_array)

    traced = jax.make_jaxpr(field)(dynamic)
    names = _primitives(traced.jaxpr)
    try:
        kept = jtu.tree_leaves(jax.eval_shape(lambda d: jax.vjp(field, d)[1], dynamic))
    except Exception:  # whatever user code raises where it refuses to be differentiated; the solve may never need it
        return None
    # What has the shape of an argument, or of what the field closes over, is taken to be that: parameters, which are
    # there anyway; each counts once.
    leaves = [x for x in jtu.tree_leaves((terms, dynamic)) if eqx.is_array(x)]
    there = {id(x): x for x in [*leaves, *filter(eqx.is_array, traced.consts)]}
    given = collections.Counter((x.shape, x.dtype) for x in there.values())
    own = []
    for x in kept:
        if given[x.shape, x.dtype] > 0:
            given[x.shape, x.dtype] -= 1
        else:
            own.append(x)
    return _Field(len(names), not _UNFUSED.isdisjoint(names), _bytes(own))


def _pays(field: _Field, tableau: Any, y0: Any) -> bool:
    """Return whether a vector field is small enough for its stages to be written out."""
    kept = tableau.num_stages * (field.kept_bytes - LARGEST_TAPE_STATES * _bytes(y0))
    return field.equations <= LARGEST_FIELD and kept <= LARGEST_TAPE_BYTES


class Stages(NamedTuple):
    """The solver that a solve uses, and where its state holds the last slope (None: nowhere)."""

    solver: Any
    last_slope: Callable[[Any], Any] | None


def checked_tape(tape: Any) -> TapeName:
    """Return what `tape` says.

    Raises:
        ValueError: it is no `TapeName`.
    """
    if tape not in get_args(TapeName):
        raise ValueError(f"`tape` must be one of {', '.join(map(repr, get_args(TapeName)))}, got {tape!r}.")
    return tape


def arrange(solver: Any, terms: Any, t0: Any, y0: Any, args: Any, tape: TapeName = "auto") -> Stages:
    """Write out the stages of a solver where that is known to be the same method and pays.

    Args:
        solver: any Diffrax solver.
        terms: the solve's terms.
        t0: start of the solve.
        y0: initial state.
        args: the vector field's arguments.
        tape: "keep" writes them out whatever they take, "recompute" leaves them to Diffrax's checkpointed loop.

    Returns:
        A `WrittenOut`, or the solver as it is: where it is not a plain explicit Runge-Kutta method, where the user has
        chosen how its stages are looped over, where the vector field is large and `tape` is "auto".
    """
    tableau = tableau_of(solver)
    if tableau is None or not jtu.tree_leaves(y0) or vector_field_is_expensive(terms, t0, y0, args):
        return Stages(solver, None)
    shown = pass_observer() is not None  # then what counts is what a step computes, not how fast it is
    field = _measure(terms, t0, y0, args) if tape != "recompute" or shown else None
    if field is None or (tape == "auto" and not shown and not _pays(field, tableau, y0)):
        # Diffrax's state is (first step?, last slope).
        return Stages(solver, (lambda state: state[1]) if tableau.fsal else None)
    stages = tableau.num_stages
    small = _elements(y0) <= FEW_ELEMENTS and stages * field.kept_bytes <= SMALL_TAPE_BYTES
    rolled = (small and stages * field.equations > MOST_EQUATIONS) or field.equations > LARGEST_FIELD
    rolled = rolled and not shown
    separate = _elements(y0) >= SMALLEST_SEPARATE and not field.breaks_fusion and not shown
    return Stages(WrittenOut(solver, tableau.fsal, separate, rolled), (lambda state: state) if tableau.fsal else None)
