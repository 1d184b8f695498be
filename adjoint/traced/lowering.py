"""Calls in the lowered program: of a function of its own, and of one that XLA's CPU backend compiles as one kernel."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.extend.mlir import ir
from jax.extend.mlir.dialects import func, stablehlo

from ..compat import Jaxpr, call, mlir

CALLS = frozenset(["func.call", "call"])
"""What a call is named, with its dialect or without."""
MOST_CONSTANT_OPERATIONS = 100
"""What takes more operations to compute from constants is handed over as it is."""

_FOLDING = """
    abs add and case bitcast_convert broadcast_in_dim ceil compare concatenate constant convert divide floor is_finite
    maximum minimum multiply negate not or reduce remainder reshape return select shift_left shift_right_arithmetic
    shift_right_logical sign slice sqrt subtract xor
"""
_FOLDS = frozenset(f"stablehlo.{name}" for name in _FOLDING.split()) | {"chlo.next_after"}
"""What times, step sizes and counts of steps are made of, where they are known when the program is compiled."""


def emit_call(ctx: Any, jaxpr: Jaxpr, operands: Sequence[Any]) -> tuple[Any, Any, Any]:
    """Lower a jaxpr as a call of a function of its own.

    Args:
        ctx: JAX's lowering context.
        jaxpr: from `trace`, with at least one output.
        operands: MLIR values.

    Returns:
        MLIR values of the results; the operation that calls, None if JAX did not emit a call; the module's functions by
        name.
    """

    def checkpointed_sweep(*args):
        return call(jaxpr, *args)

    results = mlir.lower_fun(lambda *args: jax.jit(checkpointed_sweep)(*args), multiple_results=True)(ctx, *operands)
    first = results[0][0] if isinstance(results[0], list | tuple) else results[0]
    operation = first.owner
    calls = getattr(operation, "name", None) in CALLS
    return results, operation if calls else None, ctx.module_context.symbol_table


def _zero() -> Any:
    elements: Any = ir.DenseElementsAttr
    return elements.get(np.array(0, np.int32))


def replace_by_kernel(operation: Any, ctx: Any) -> list[Any]:
    """Put a call that XLA's CPU backend compiles to one native function in the place of one that it inlines.

    The function takes one tuple, of which it returns an entry: XLA aborts where nothing reads an argument of such a
    function, as happens to constants.

    Args:
        operation: from `emit_call`.
        ctx: JAX's lowering context.

    Returns:
        MLIR values of the results.
    """
    operands, results = list(operation.operands), [result.type for result in operation.results]
    with ir.InsertionPoint(operation):
        operands.append(stablehlo.optimization_barrier([stablehlo.constant(_zero())]))
    kinds = [*results, operands[-1].type]
    bundle = ir.Type.parse(f"tuple<{', '.join(str(operand.type) for operand in operands)}>")
    body, functions = ctx.module_context.module.body, ctx.module_context.symbol_table
    with ir.InsertionPoint(body):
        function = func.FuncOp("checkpointed_kernel", ir.FunctionType.get([bundle], kinds), visibility="private")
    functions.insert(function)  # under a name of its own
    block = function.add_entry_block()
    with ir.InsertionPoint(block):
        (given,), made = block.arguments, {}
        entries = [
            _constant(operand, functions, made) or stablehlo.get_tuple_element(given, k)
            for k, operand in enumerate(operands[:-1])
        ]
        entries.append(stablehlo.get_tuple_element(given, len(operands) - 1))
        inner = func.CallOp(results, operation.attributes["callee"], entries[:-1])
        func.ReturnOp([*inner.results, entries[-1]])
    with ir.InsertionPoint(operation):
        packed = stablehlo.tuple(operands)
        outer = func.CallOp(kinds, ir.FlatSymbolRefAttr.get(function.name.value), [packed])
    names = "xla_cpu_small_call", "inlineable"
    values = map(ir.StringAttr.get, ("true", "false"))
    outer.operation.attributes["mhlo.frontend_attributes"] = ir.DictAttr.get(dict(zip(names, values, strict=True)))
    operation.erase()
    return list(outer.results)[:-1]


def _constant(value: Any, functions: Any, made: dict[Any, Any]) -> Any:
    """Repeat a value where it is read if it follows from constants alone; None for anything else.

    XLA then folds it as it would without the call, so that results are the same to the bit: it multiplies by the
    inverse of a constant where it divides by anything else.

    Args:
        value: an operand of the call.
        functions: the module's, by name.
        made: what was repeated already, by the operation that it repeats.
    """
    seen, waiting = set(), [value]
    while waiting:
        owner = waiting.pop().owner
        if isinstance(owner, ir.Block) or len(seen) >= MOST_CONSTANT_OPERATIONS or not _folds(owner, functions):
            return None
        if owner not in seen:
            seen.add(owner)
            waiting.extend(_read(owner))
    return _repeat(value, made)


def _within(operation: Any) -> list[Any]:
    """List the operations in the regions of an operation, and in theirs."""
    found = [inner.operation for region in operation.regions for block in region for inner in block]
    return [*found, *(deeper for inner in found for deeper in _within(inner))]


def _read(operation: Any) -> list[Any]:
    """List what an operation and those within it read from outside."""
    inside = _within(operation)
    captured = [operand for inner in inside for operand in inner.operands if not _belongs(operand, operation, inside)]
    return [*operation.operands, *captured]


def _belongs(value: Any, operation: Any, inside: list[Any]) -> bool:
    """Return whether a value is made within an operation."""
    owner = value.owner
    if isinstance(owner, ir.Block):
        return owner.owner.operation == operation or owner.owner.operation in inside
    return owner in inside


def _folds(operation: Any, functions: Any) -> bool:
    """Return whether an operation of constants is one: it computes something simple and does nothing else."""
    if operation.name not in CALLS:
        return operation.name in _FOLDS and all(_folds(inner, functions) for inner in _within(operation))
    called = functions[ir.FlatSymbolRefAttr(operation.attributes["callee"]).value]
    body = [inner.operation for block in called.operation.regions[0] for inner in block]
    return all(inner.name in ("func.return", "return") or _folds(inner, functions) for inner in body)


def _repeat(value: Any, made: dict[Any, Any]) -> Any:
    owner = value.owner
    if owner not in made:
        for read in _read(owner):  # first, so that each stands before what reads it
            _repeat(read, made)
        copy = owner.clone()
        inside = _within(copy)
        for operation in (copy, *inside):
            for k, operand in enumerate(operation.operands):
                if not _belongs(operand, copy, inside):
                    operation.operands[k] = _repeat(operand, made)
        made[owner] = copy
    return made[owner].results[list(owner.results).index(value)]


def inline_again(operation: Any) -> None:
    """Let XLA inline a call of a kernel after all."""
    if "mhlo.frontend_attributes" in operation.attributes:
        del operation.attributes["mhlo.frontend_attributes"]


def multiply_out(operation: Any) -> None:
    """Put products and their sums in the place of a matrix product, which XLA may hand to a library."""
    numbers = stablehlo.DotDimensionNumbers(operation.attributes["dot_dimension_numbers"])
    result = operation.results[0]
    sides = [ir.RankedTensorType(operand.type) for operand in operation.operands]
    element = ir.RankedTensorType(result.type).element_type
    batch = list(numbers.lhs_batching_dimensions), list(numbers.rhs_batching_dimensions)
    summed = list(numbers.lhs_contracting_dimensions), list(numbers.rhs_contracting_dimensions)
    free = [[k for k in range(side.rank) if k not in (*batch[n], *summed[n])] for n, side in enumerate(sides)]
    sizes = [sides[0].shape[k] for k in (*batch[0], *free[0])]
    sizes += [sides[1].shape[k] for k in free[1]] + [sides[0].shape[k] for k in summed[0]]
    first_sum = len(sizes) - len(summed[0])
    wide = ir.RankedTensorType.get(sizes, element)
    places: list[dict[int, int]] = []
    for n in (0, 1):
        of_free = len(batch[0]) + (0 if n == 0 else len(free[0]))
        orders = (batch[n], 0), (free[n], of_free), (summed[n], first_sum)
        places.append({dim: start + k for dims, start in orders for k, dim in enumerate(dims)})
    with ir.InsertionPoint(operation), operation.location:
        spread = []
        for side, operand, place in zip(sides, operation.operands, places, strict=True):
            same = stablehlo.convert(ir.RankedTensorType.get(list(side.shape), element), operand)
            spread.append(stablehlo.broadcast_in_dim(wide, same, [place[k] for k in range(side.rank)]))
        scalar = ir.RankedTensorType.get([], element)
        zero = stablehlo.convert(scalar, stablehlo.constant(_zero()))
        dimensions = list(range(first_sum, len(sizes)))
        total = stablehlo.ReduceOp([result.type], [stablehlo.multiply(*spread)], [zero], dimensions)
        adding = total.regions[0].blocks.append(scalar, scalar)
        with ir.InsertionPoint(adding):
            stablehlo.return_([stablehlo.add(*adding.arguments)])
    result.replace_all_uses_with(total.results[0])
    operation.erase()
