"""Count in jaxprs what one pass of a solve cannot do without: operations, and bytes that it reads and writes.

Every figure is a lower bound, so whatever a compiler might leave out is not counted: what does not change from pass to
pass (it may be computed once, before the loop), equal operations twice, operations on what is only a broadcast, all but
the cheapest branch, and loops of which it is not known how often they run. What is read through a slice or a gather,
and what is updated in place, counts no bytes. A convolution counts one operation for each of its results, since there
are algorithms that multiply less than its definition.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from jax.extend import core as jex_core

import adjoint
from autotune.adjoints import make_adjoint
from autotune.problem.costs import PassCost, StepCosts, least_costs
from autotune.problem.loading import Problem
from autotune.problem.program import trace_cheaply
from autotune.problem.traced import inner_jaxprs, loop_carry, sliced_from
from profiles import AdjointName

MANY_CHECKPOINTS = 2**20
"""So many that a solve is replayed by its accepted steps alone wherever it ever is, which costs the least."""

_ELEMENTWISE = frozenset({
    "add", "sub", "mul", "div", "rem", "max", "min", "exp", "exp2", "log", "log1p", "expm1", "tanh", "sin", "cos",
    "tan", "logistic", "sqrt", "rsqrt", "cbrt", "pow", "integer_pow", "square", "erf", "erfc", "erf_inv", "atan2",
    "sinh", "cosh", "asin", "acos", "atan", "asinh", "acosh", "atanh", "add_any",
})  # fmt: skip
_CALLS = frozenset({
    "jit", "pjit", "closed_call", "core_call", "remat", "remat2", "checkpoint", "custom_jvp_call", "custom_vjp_call",
})  # fmt: skip
_PARTLY = frozenset({
    "slice", "dynamic_slice", "gather", "dynamic_update_slice", "scatter", "scatter-add", "cond", "while",
})  # fmt: skip
"""Equations that need not read all of what they take."""
_KEPT = {"copy": 0, "copy_p": 0, "stop_gradient": 0, "select_if_vmap": 1, "select_if_batched": 1}
"""Equations that hand on what stands at this place, where no lane of a `vmap` may have finished."""
_MADE = _ELEMENTWISE | {
    "dot_general", "conv_general_dilated", "select_n", "reduce_sum", "reduce_max", "reduce_min", "concatenate", "neg",
    "sign", "abs", "convert_element_type", "cumsum",
}  # fmt: skip
"""Equations whose results are values of their own, which have to be written where they are carried on."""


def step_costs(
    problem: Problem, horizon: int | float | None = None, tolerance: float | None = None
) -> StepCosts | None:
    """Trace a problem's call, and count what its passes cost at least.

    Args:
        problem: the loaded problem.
        horizon: what the factory gets as `horizon`.
        tolerance: what the factory gets as `tolerance`.

    Returns:
        The costs; None where no loop of ours is differentiated in the call.

    Raises:
        AutotuneError: the factory or the function raised.
    """
    found: list[adjoint.Pass] = []
    made = make_adjoint(AdjointName.OURS, MANY_CHECKPOINTS)
    with adjoint.observe_passes(found.append):
        trace_cheaply(lambda shapes: problem.make(made, horizon, tolerance, shapes_only=shapes), portable=True)
    return least_costs((one.kind, pass_cost(one.jaxpr, one.moving)) for one in found)


def pass_cost(closed_jaxpr: Any, moving: Sequence[bool]) -> PassCost:
    """Count one pass.

    Args:
        closed_jaxpr: what it computes, without what nobody reads.
        moving: of each input, whether it differs from pass to pass.
    """
    jaxpr = closed_jaxpr.jaxpr
    counted = _operations(jaxpr, moving, moving)
    return PassCost(
        flops=counted.flops,
        matrix_flops=counted.matrix_flops,
        read_bytes=sum(_bytes(variable) for variable in dict.fromkeys(jaxpr.invars) if _is_read(jaxpr, variable)),
        written_bytes=_written(jaxpr),
    )


@dataclasses.dataclass(slots=True)
class _Counted:
    """Operations in a jaxpr, and of its outputs, which move from pass to pass and which vary within an inner loop."""

    flops: float = 0.0
    matrix_flops: float = 0.0
    moves: list[bool] = dataclasses.field(default_factory=list)
    varies: list[bool] = dataclasses.field(default_factory=list)

    def add(self, other: "_Counted", times: int = 1) -> None:
        """Add the operations of a jaxpr inside, so many times."""
        self.flops += times * other.flops
        self.matrix_flops += times * other.matrix_flops


def _operations(jaxpr: Any, moving: Sequence[bool], varying: Sequence[bool]) -> _Counted:
    """Count operations on what moves from pass to pass, and varies in the innermost loop of known length."""
    moves = {variable for variable, flag in zip(jaxpr.invars, moving, strict=True) if flag}
    varies = {variable for variable, flag in zip(jaxpr.invars, varying, strict=True) if flag}
    distinct: dict[Any, float] = {}
    seen: set[Any] = set()
    counted = _Counted()
    for equation in jaxpr.eqns:
        given = [
            [variable in known for variable in equation.invars if not _is_literal(variable)]
            for known in (moves, varies)
        ]
        made = len(equation.outvars)
        inside = _inside(equation, moves, varies)
        if inside is not None:
            counted.add(inside)
        elif all(map(any, given)) and (same := _name(equation)) not in seen:
            seen.add(same)
            counted.add(_own(equation, distinct))
        for known, flags, out in zip(
            (moves, varies), given, (inside.moves, inside.varies) if inside else ([], []), strict=True
        ):
            known.update(v for v, flag in zip(equation.outvars, out or [any(flags)] * made, strict=True) if flag)
    counted.moves, counted.varies = ([_is_in(v, known) for v in jaxpr.outvars] for known in (moves, varies))
    return counted


def _own(equation: Any, distinct: dict[Any, float]) -> _Counted:
    """Count the operations of one equation without a jaxpr inside; `distinct` holds how many values a result has."""
    name, out = equation.primitive.name, equation.outvars[0]
    if name == "broadcast_in_dim":
        distinct[out] = min((distinct.get(v, _size(v)) for v in equation.invars[:1] if not _is_literal(v)), default=1)
    if not jnp.issubdtype(getattr(out.aval, "dtype", bool), jnp.inexact):
        return _Counted()
    if name in _ELEMENTWISE and not _is_trivial(equation):
        distinct[out] = max(distinct.get(v, _size(v)) for v in equation.invars if not _is_literal(v))
        return _Counted(flops=distinct[out] * min(1.0, out.aval.dtype.itemsize / 4) ** 2)
    if name == "dot_general" and out.aval.dtype.itemsize > 1:
        (contracted, _), _ = equation.params["dimension_numbers"]
        depth = math.prod(equation.invars[0].aval.shape[axis] for axis in contracted)
        return _Counted(matrix_flops=2.0 * _size(out) * depth)
    return _Counted(flops=_size(out)) if name == "conv_general_dilated" else _Counted()


def _inside(equation: Any, moves: set[Any], varies: set[Any]) -> _Counted | None:
    """Count the operations of the jaxprs in an equation; None where they are not looked into."""
    name, inner = equation.primitive.name, inner_jaxprs(equation)
    flags = [[_is_in(variable, known) for variable in equation.invars] for known in (moves, varies)]
    if name == "scan":
        return _scanned(equation, inner[0], flags[0])
    if name in _CALLS and inner and len(inner[0].invars) == len(equation.invars):
        return _operations(inner[0], *flags)
    if name == "cond":
        branches = [_operations(one, flags[0][1:], flags[1][1:]) for one in inner]
        least = _Counted(
            flops=min(one.flops for one in branches), matrix_flops=min(one.matrix_flops for one in branches)
        )  # fmt: skip
        least.moves, least.varies = ([any(of)] * len(equation.outvars) for of in flags)
        return least
    return None


def _scanned(equation: Any, body: Any, moving: list[bool]) -> _Counted:
    """Count a loop of known length: what varies in it, as often as it runs."""
    carried = len(loop_carry(equation))
    consts = sliced_from(equation) - carried
    varying = [False] * consts + [True] * (len(moving) - consts)
    while True:
        found = _operations(body, moving, varying)
        wider = [a or b for a, b in zip(moving[consts : consts + carried], found.moves, strict=False)]
        if wider == moving[consts : consts + carried]:
            break
        moving = [*moving[:consts], *wider, *moving[consts + carried :]]
    # What does not move outside is made once for all passes, and what it makes is the same in each.
    total = _Counted(moves=found.moves, varies=[True] * len(equation.outvars))
    total.add(found, equation.params["length"])
    return total


def _is_trivial(equation: Any) -> bool:
    """Return whether a compiler knows the result: one side is zero or one."""
    values = [v.val for v in equation.invars if _is_literal(v)]
    return any(jnp.ndim(value) == 0 and float(abs(value)) in (0.0, 1.0) for value in values)


def _is_read(jaxpr: Any, variable: Any) -> bool:
    """Return whether a pass reads all of a value."""
    for equation in jaxpr.eqns:
        places = [k for k, taken in enumerate(equation.invars) if taken is variable]
        name = equation.primitive.name
        if not places or name in _PARTLY:
            continue
        if name in _KEPT:
            if places[-1] == _KEPT[name] and _is_read(jaxpr, equation.outvars[0]):
                return True
            continue
        inner = inner_jaxprs(equation)
        if not inner:
            return True
        same = len(equation.invars) == len(inner[0].invars)
        if same and any(_is_read(inner[0], inner[0].invars[place]) for place in places):
            return True
    return False


def _written(jaxpr: Any) -> int:
    """Count the bytes of results that are values of their own."""
    made = {v: equation for equation in jaxpr.eqns for v in equation.outvars}
    total = 0
    for variable in {id(v): v for v in jaxpr.outvars}.values():
        equation = None if _is_literal(variable) else made.get(variable)
        while equation is not None and equation.primitive.name in _KEPT:
            source = equation.invars[_KEPT[equation.primitive.name]]
            equation = None if _is_literal(source) else made.get(source)
        if equation is None:
            continue
        inner = inner_jaxprs(equation)
        if equation.primitive.name in _MADE:
            total += _bytes(variable)
        elif equation.primitive.name in _CALLS and inner and len(equation.outvars) == 1:
            total += _written(inner[0])
    return total


def _is_in(variable: Any, known: set[Any]) -> bool:
    return not _is_literal(variable) and variable in known


def _is_literal(variable: Any) -> bool:
    return isinstance(variable, jex_core.Literal)


def _name(equation: Any) -> Any:
    """Name what an equation computes: equal names have equal results."""
    taken = [("literal", str(v.val)) if _is_literal(v) else id(v) for v in equation.invars]
    return equation.primitive.name, tuple(taken), str(equation.params)


def _size(variable: Any) -> int:
    return math.prod(getattr(variable.aval, "shape", ()))


def _bytes(variable: Any) -> int:
    return _size(variable) * getattr(getattr(variable.aval, "dtype", None), "itemsize", 0)
