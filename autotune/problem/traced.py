"""Bytes of a call from its trace alone, without compiling: the traced rung.

Two honest bounds, neither of which is what XLA will plan:

    lower   arguments and closed-over arrays, with the outputs or the largest loop carry, whichever is more
    upper   the most that is alive at one moment when the jaxpr is run one equation at a time, each value freed after
            its last use, nothing fused away, loop carries kept once (XLA updates them in place)

Both grow with the checkpoint buffers, which are loop carries, by exactly their size; so the difference of two traces at
two counts is the bytes per checkpoint, without a compile.

Known inefficiency: `upper` counts every elementwise temporary, which XLA fuses away, so a program with large
temporaries outside its loops is overestimated by as much.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp
from jax.extend import core as jex_core

import adjoint
from autotune.problem.program import constant_bytes

_ALIGNMENT = 64
"""XLA's buffers begin at multiples of this, so that the smallest value occupies as much."""


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
    # Donated arguments may become outputs or carries in place.
    lower = held + max(0, max(outputs, _largest_carry(jaxpr)) - _donated_bytes(jaxpr))
    upper = held + _peak(jaxpr, owned=frozenset())
    return TracedBytes(lower=min(lower, upper), upper=upper, constants=constants)


def _donated_bytes(jaxpr: Any) -> int:
    return sum(
        _bytes(variable)
        for equation in jaxpr.eqns
        for variable, donated in zip(equation.invars, equation.params.get("donated_invars", ()), strict=False)
        if donated
    )


def _bytes(variable: Any) -> int:
    aval = variable.aval
    try:
        return int(aval.size) * jnp.dtype(aval.dtype).itemsize
    except (AttributeError, TypeError):  # tokens and extended dtypes such as keys
        size = getattr(aval, "size", 0)
        return int(size) * getattr(getattr(aval, "dtype", None), "itemsize", 0)


def _padded(variable: Any) -> int:
    return -(-_bytes(variable) // _ALIGNMENT) * _ALIGNMENT


def _is_literal(variable: Any) -> bool:
    return isinstance(variable, jex_core.Literal)


def _peak(jaxpr: Any, owned: frozenset[int]) -> int:
    """Compute the most bytes alive at once inside `jaxpr`, beyond those alive when it begins.

    Args:
        jaxpr: an open jaxpr; its inputs belong to the caller, but for
        owned: the positions of those that may be freed or overwritten at their last use.
    """
    last_use = _last_uses(jaxpr)
    ours = {variable for i, variable in enumerate(jaxpr.invars) if i in owned}
    alive = peak = 0
    for position, equation in enumerate(jaxpr.eqns):
        dying = {v for v in equation.invars if not _is_literal(v) and v in ours and last_use[v] == position}
        made = [v for v in equation.outvars if v in last_use]
        peak = max(peak, alive + _equation_peak(equation, dying, made))
        alive += sum(map(_padded, made)) - sum(map(_padded, dying))
        peak = max(peak, alive)
        ours = (ours | set(made)) - dying
    return peak


def _last_uses(jaxpr: Any) -> dict[Any, int]:
    last_use: dict[Any, int] = {}
    for position, equation in enumerate(jaxpr.eqns):
        last_use.update({v: position for v in equation.invars if not _is_literal(v)})
    last_use.update({v: len(jaxpr.eqns) for v in jaxpr.outvars if not _is_literal(v)})
    return last_use


def _equation_peak(equation: Any, dying: set[Any], made: list[Any]) -> int:
    """Bound the bytes that one equation needs beyond what is alive before it."""
    name = equation.primitive.name
    if name == "while":
        first = equation.params["cond_nconsts"] + equation.params["body_nconsts"]
        body = equation.params["body_jaxpr"].jaxpr
        carry = frozenset(range(equation.params["body_nconsts"], len(body.invars)))
        return _copied(equation.invars[first:], dying) + _peak(body, carry)
    if name == "scan":
        body = equation.params["jaxpr"].jaxpr
        carried = len(loop_carry(equation))
        consts = sliced_from(equation) - carried
        carry = frozenset(range(consts, consts + carried))
        stacked = sum(map(_padded, equation.outvars[carried:]))
        slices = sum(map(_padded, body.invars[consts + carried :]))
        initial = equation.invars[consts : consts + carried]
        return _copied(initial, dying) + stacked + slices + _peak(body, carry)
    inner = inner_jaxprs(equation)
    if inner:
        # Calls and branches take their last inputs one to one; what dies here may be freed inside already.
        peaks = []
        for jaxpr in inner:
            passed = equation.invars[len(equation.invars) - len(jaxpr.invars) :]
            free = {i for i, v in enumerate(passed) if not _is_literal(v) and v in dying}
            peaks.append(_peak(jaxpr, frozenset(free) if len(passed) == len(jaxpr.invars) else frozenset()))
        return max(peaks)
    return _fresh([_padded(v) for v in dying], [_padded(v) for v in made])


def _copied(initial: Any, dying: set[Any]) -> int:
    """Count the bytes of a loop's carry that do not take over the buffers of the values it begins with."""
    return sum(_padded(v) for v in initial if _is_literal(v) or v not in dying)


def _fresh(dying: list[int], made: list[int]) -> int:
    """Count the bytes of an equation's results, without those that replace a value of the same size that dies here."""
    lent = list(dying)
    fresh = 0
    for size in made:
        if size in lent:
            lent.remove(size)
        else:
            fresh += size
    return fresh


def loop_carry(equation: Any) -> list[Any]:
    """List the carry of a `while` or `scan` equation, as the variables that it leaves.

    A scan's are recognised by their shapes: what is stacked has one axis more outside than in the body. (The names of
    the parameters that count them differ between versions of JAX.)
    """
    outside = list(equation.outvars)
    if equation.primitive.name != "scan":
        return outside
    inside = equation.params["jaxpr"].jaxpr.outvars
    carried = sum(_rank(variable) == _rank(body) for variable, body in zip(outside, inside, strict=True))
    return outside[:carried]


def sliced_from(equation: Any) -> int:
    """Count the operands of a scan that are constants or carry; those that are sliced come after them."""
    inside = equation.params["jaxpr"].jaxpr.invars
    return sum(_rank(variable) == _rank(body) for variable, body in zip(equation.invars, inside, strict=True))


def _rank(variable: Any) -> int:
    return len(getattr(variable.aval, "shape", ()))


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


def same_program(left: Any, right: Any) -> bool:
    """Return whether two open jaxprs apply the same primitives, to the same shapes and dtypes, inside loops too."""
    return list(_shapes(left)) == list(_shapes(right))


def _shapes(jaxpr: Any) -> Iterator[Any]:
    for equation in jaxpr.eqns:
        made = [(getattr(v.aval, "shape", None), str(getattr(v.aval, "dtype", ""))) for v in equation.outvars]
        yield equation.primitive.name, made, [list(_shapes(inner)) for inner in inner_jaxprs(equation)]


def calls_back(closed_jaxpr: Any) -> bool:
    """Return whether anything in a program calls Python while it runs."""
    return _calls_back(closed_jaxpr.jaxpr)


def _calls_back(jaxpr: Any) -> bool:
    return any(
        "callback" in equation.primitive.name or any(map(_calls_back, inner_jaxprs(equation)))
        for equation in jaxpr.eqns
    )


def hands_over(closed_jaxpr: Any) -> bool:
    """Return whether a program keeps anything in a tier: calls back, or places arrays in host memory, inside a loop."""
    return any(_hands_over(equation, looped=False) for equation in closed_jaxpr.jaxpr.eqns)


def _hands_over(equation: Any, *, looped: bool) -> bool:
    name = equation.primitive.name
    if looped and (name == adjoint.HOST_CALL or (name == "device_put" and "Host" in repr(equation.params))):
        return True
    looped = looped or name in ("while", "scan")
    return any(_hands_over(inner, looped=looped) for jaxpr in inner_jaxprs(equation) for inner in jaxpr.eqns)


def _largest_carry(jaxpr: Any) -> int:
    """Count the bytes of the largest loop carry anywhere inside."""
    largest = 0
    for equation in jaxpr.eqns:
        largest = max(largest, *(_largest_carry(body) for body in inner_jaxprs(equation)), 0)
        if equation.primitive.name in ("while", "scan"):
            largest = max(largest, sum(map(_bytes, loop_carry(equation))))
    return largest
