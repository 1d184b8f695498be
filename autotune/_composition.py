"""What the bytes of a call are made of, which share the number of checkpoints can change, and what else would help.

The compiled total is parted by what the trace shows: arguments, outputs and closed-over arrays are known exactly; of
the largest loop's carry, buffers whose size changes with the count are checkpoints, buffers shaped like an argument
accumulate its gradient, and buffers shaped like an argument with one more leading axis accumulate a gradient for every
example of a batch. The rest (loop state, saved outputs, temporaries) is what is left of the total.
"""

import collections
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from autotune._adjoints import make_adjoint
from autotune._compile import trace
from autotune._parts import Composition
from autotune._problem import Call, Problem
from autotune._traced import inner_jaxprs, loop_carry
from profiles._records import Measurement

Shape = tuple[int, ...]

_NAMED_BUFFERS = 4


def composition(problem: Problem, row: Measurement) -> Composition | None:
    """Part the compiled bytes of a measured row; traces the problem twice, compiles nothing.

    Args:
        problem: the row's problem.
        row: measured on the compiled rung or further.

    Returns:
        None where the row's total is unknown.
    """
    if row.compiled_bytes is None:
        return None
    here, call = _carry(problem, row, row.checkpoints)
    there, _ = _carry(problem, row, row.checkpoints + 1)
    changing = here - there
    arguments = _argument_shapes(call)
    parts = collections.Counter[str]()
    rest: dict[str, int] = {}
    for (shape, dtype, itemsize), count in here.items():
        size = count * itemsize
        for dimension in shape:
            size *= dimension
        if (shape, dtype, itemsize) in changing:
            parts["checkpoints"] += size
        elif shape in arguments:
            parts["accumulators"] += size
        elif shape[1:] in arguments and shape[1:]:
            parts["per_example"] += size
        else:
            rest[f"{dtype}[{','.join(map(str, shape))}]" + (f" x{count}" if count > 1 else "")] = size
    return _shares(row, row.compiled_bytes, parts, rest)


def _shares(row: Measurement, total: int, parts: Mapping[str, int], rest: Mapping[str, int]) -> Composition:
    """Take the parts out of the total, the surest first, so that together they are the total."""
    left = total
    taken = {}
    exact = {"argument": row.argument_bytes, "output": (row.output_bytes or 0) - (row.alias_bytes or 0),
             "constant": row.constant_bytes}  # fmt: skip
    for name, size in {**exact, "checkpoint": parts["checkpoints"], "accumulator": parts["accumulators"],
                       "per_example": parts["per_example"]}.items():  # fmt: skip
        taken[f"{name}_bytes"] = min(left, max(0, size or 0))
        left -= taken[f"{name}_bytes"]
    largest = sorted(rest.items(), key=lambda item: -item[1])[:_NAMED_BUFFERS]
    return Composition(
        checkpoints=row.checkpoints, total_bytes=total, rest_bytes=left, **taken,
        largest_rest=tuple(f"{text}: {size} bytes" for text, size in largest),
    )  # fmt: skip


def _carry(problem: Problem, row: Measurement, checkpoints: int) -> tuple[collections.Counter, Call]:
    """Trace the call and count the buffers, as (shape, dtype, item size), of its largest loop carry."""
    call = problem.make(make_adjoint(row.adjoint, checkpoints, row.expected_steps), row.horizon, row.tolerance)
    avals = max(_carries(trace(call).jaxpr.jaxpr), key=_total, default=[])
    return collections.Counter((tuple(a.shape), str(a.dtype), a.dtype.itemsize) for a in avals), call


def _carries(jaxpr: Any) -> list[list[Any]]:
    """List the carries of all loops inside, each as its arrays' abstract values."""
    found = []
    for equation in jaxpr.eqns:
        for inner in inner_jaxprs(equation):
            found += _carries(inner)
        if equation.primitive.name in ("while", "scan"):
            found.append([v.aval for v in loop_carry(equation) if hasattr(v.aval, "dtype")])
    return found


def _total(avals: Sequence[Any]) -> int:
    return sum(int(aval.size) * aval.dtype.itemsize for aval in avals)


def _argument_shapes(call: Call) -> set[Shape]:
    return {tuple(leaf.shape) for leaf in jax.tree.leaves(call.args) if hasattr(leaf, "dtype")}
