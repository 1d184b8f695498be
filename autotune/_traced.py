"""Bytes of a call from its trace alone, without compiling: the traced rung.

Two honest bounds, neither of which is what XLA will plan:

    lower   arguments, outputs, closed-over arrays, and the largest loop carry: what must exist at one moment
    upper   the most that is alive at one moment when the jaxpr is run one equation at a time, each value freed after
            its last use, nothing fused away, loop carries kept once (XLA updates them in place)

Both grow with the checkpoint buffers, which are loop carries, by exactly their size; so the difference of two traces at
two counts is the bytes per checkpoint, without a compile.

Known inefficiency: `upper` counts every elementwise temporary, which XLA fuses away, so a program with large
temporaries outside its loops is overestimated by as much.
"""

import dataclasses
from typing import Any

import jax.numpy as jnp
from jax.extend import core as jex_core

from autotune._compile import constant_bytes


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TracedBytes:
    """Bounds on the bytes of one call, arguments and closed-over arrays (`constants`) included."""

    lower: int
    upper: int
    constants: int


def traced_bytes(closed_jaxpr: Any) -> TracedBytes:
    """Bound the bytes of a traced call.

    Args:
        closed_jaxpr: what `jax.make_jaxpr` or the `trace` of a jitted function gives.
    """
    jaxpr = closed_jaxpr.jaxpr
    constants = constant_bytes(closed_jaxpr)
    held = constants + sum(_bytes(v) for v in jaxpr.invars)
    outputs = sum(_bytes(v) for v in {id(v): v for v in jaxpr.outvars if not _is_literal(v)}.values())
    lower = held + outputs + _largest_carry(jaxpr)
    upper = held + _peak(jaxpr, owned=frozenset())
    return TracedBytes(lower=min(lower, upper), upper=upper, constants=constants)


def _bytes(variable: Any) -> int:
    aval = variable.aval
    try:
        return int(aval.size) * jnp.dtype(aval.dtype).itemsize
    except (AttributeError, TypeError):  # tokens and extended dtypes such as keys
        size = getattr(aval, "size", 0)
        return int(size) * getattr(getattr(aval, "dtype", None), "itemsize", 0)


def _is_literal(variable: Any) -> bool:
    return isinstance(variable, jex_core.Literal)


def _peak(jaxpr: Any, owned: frozenset[int]) -> int:
    """Give the most bytes alive at once inside `jaxpr`, without those that its caller holds.

    Args:
        jaxpr: an open jaxpr; its inputs belong to the caller, but for
        owned: the positions of those that are a loop's carry, which the body may overwrite.
    """
    last_use: dict[Any, int] = {}
    for position, equation in enumerate(jaxpr.eqns):
        for variable in equation.invars:
            if not _is_literal(variable):
                last_use[variable] = position
    for variable in jaxpr.outvars:
        if not _is_literal(variable):
            last_use[variable] = len(jaxpr.eqns)
    ours = {variable for i, variable in enumerate(jaxpr.invars) if i in owned}
    alive = peak = 0
    for position, equation in enumerate(jaxpr.eqns):
        dying = {v for v in equation.invars if not _is_literal(v) and v in ours and last_use[v] == position}
        made = [v for v in equation.outvars if v in last_use]
        # A value that dies here may lend its buffer to one of its size that is made here: in-place updates.
        fresh = _fresh_bytes([_bytes(v) for v in dying], [_bytes(v) for v in made])
        peak = max(peak, alive + fresh + _inner_peak(equation))
        alive += sum(_bytes(v) for v in made) - sum(_bytes(v) for v in dying)
        ours |= set(made)
        peak = max(peak, alive)
        for variable in dying:
            ours.discard(variable)
    return peak


def _fresh_bytes(dying: list[int], made: list[int]) -> int:
    lent = list(dying)
    fresh = 0
    for size in made:
        if size in lent:
            lent.remove(size)
        else:
            fresh += size
    return fresh


def _inner_peak(equation: Any) -> int:
    """Bytes that an equation's inner jaxprs need beyond the equation's own inputs and outputs."""
    parameters = equation.params
    if equation.primitive.name == "while":
        body = parameters["body_jaxpr"].jaxpr
        carry = frozenset(range(parameters["body_nconsts"], len(body.invars)))
        own = sum(_bytes(v) for v in equation.outvars)
        # The carry is the equation's outputs, counted there; inside, only what a pass adds to it counts.
        return max(_peak(parameters["cond_jaxpr"].jaxpr, frozenset()), _beyond(body, carry, own))
    if equation.primitive.name == "scan":
        body = parameters["jaxpr"].jaxpr
        first = parameters["num_consts"]
        carry = frozenset(range(first, first + parameters["num_carry"]))
        return _beyond(body, carry, sum(_bytes(body.invars[i]) for i in carry))
    inner = [_peak(jaxpr, frozenset()) for jaxpr in inner_jaxprs(equation)]
    # The inner jaxpr's results are the equation's outputs, counted once.
    return max(0, max(inner, default=0) - sum(_bytes(v) for v in equation.outvars))


def _beyond(body: Any, carry: frozenset[int], carry_bytes: int) -> int:
    return max(0, _peak_with_carry(body, carry) - carry_bytes)


def _peak_with_carry(body: Any, carry: frozenset[int]) -> int:
    start = sum(_bytes(body.invars[i]) for i in carry)
    return start + _peak(body, carry)


def inner_jaxprs(equation: Any) -> list[Any]:
    """List the open jaxprs among an equation's parameters."""
    found = []
    for parameter in equation.params.values():
        for inner in parameter if isinstance(parameter, tuple | list) else (parameter,):
            if isinstance(inner, jex_core.ClosedJaxpr):
                found.append(inner.jaxpr)
            elif isinstance(inner, jex_core.Jaxpr):
                found.append(inner)
    return found


def _largest_carry(jaxpr: Any) -> int:
    """Bytes of the largest loop carry anywhere inside, together with the carries of the loops around it."""
    largest = 0
    for equation in jaxpr.eqns:
        inner = max((_largest_carry(body) for body in inner_jaxprs(equation)), default=0)
        if equation.primitive.name in ("while", "scan"):
            count = equation.params.get("num_carry", len(equation.outvars))
            inner += sum(_bytes(v) for v in equation.outvars[:count])
        largest = max(largest, inner)
    return largest
