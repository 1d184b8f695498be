"""A whole sweep as one native function, where XLA's CPU backend can compile it to one.

XLA runs a program on the CPU operation by operation. Each costs tens of nanoseconds, and microseconds where XLA takes
the operations of a computation to be worth a thread pool (more than eight of them, and any array of more than 512
bytes). For small states that is most of a solve's time. A small loop XLA compiles to one function instead, and so it
does a call that says so: `in_one_kernel` puts a sweep into such a call, whose operations stay as they are. On other
platforms, across devices, and where the call holds what XLA cannot compile this way or what gains from being an
operation of its own (`_fits`), it is an ordinary call, which XLA inlines.
"""

import functools
import math
import os
import platform
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import jaxlib.version
from jax.experimental import checkify
from jax.extend.mlir import ir
from jax.extend.mlir.dialects import stablehlo

from ..compat import (
    Jaxpr,
    Primitive,
    ad,
    batching,
    call,
    dead_code_rule,
    let_checks_out,
    mlir,
    on_one_device,
    pruned,
    trace_hoisted,
)
from ..theory.switching import LARGEST_SUM
from .analysis import pick, scatter
from .batching import batched_outputs, vmap_flat
from .lowering import CALLS, emit_call, inline_again, multiply_out, replace_by_kernel

LARGEST_BYTES = 32 * 1024
"""What computes or reads a larger array keeps a thread pool busy, and takes longer than its dispatch."""
LARGEST_MATRIX = 4096
"""Reductions of more than LARGEST_SUM elements may go to a library (YNNPACK takes them from 4096 on), and so may the
product of a matrix of more elements with a vector ..."""
LARGEST_PRODUCT = 1024
"""... and one of two matrices with more multiplications."""
MOST_OPERATIONS = 20_000
"""A larger program takes too long to compile as one function."""

TRIED_VERSIONS = frozenset([(0, 10), (0, 11), (0, 12)])
TRIED_PROCESSORS = frozenset(["x86_64", "amd64"])

_COMPUTING = """
    abs add and atan2 bitcast_convert cbrt ceil clamp compare complex concatenate convert cosine count_leading_zeros
    divide dot_general dynamic_slice exponential exponential_minus_one floor gather imag is_finite log log_plus_one
    logistic maximum minimum multiply negate not or pad popcnt power real reduce reduce_precision reduce_window
    remainder reverse round_nearest_afz round_nearest_even rsqrt scatter select shift_left shift_right_arithmetic
    shift_right_logical sign sine slice sqrt subtract tan tanh transpose xor
"""
_MOVING = """
    broadcast broadcast_in_dim case constant dynamic_update_slice get_tuple_element if iota
    optimization_barrier reshape return tuple while
"""
_COMPOSED = """
    acos acosh asin asinh atan atanh bessel_i1e broadcast_add conj constant cosh digamma erf erf_inv erfc is_inf
    is_neg_inf is_pos_inf lgamma next_after polygamma sinh square tan zeta
"""
_READS_PART = frozenset(f"stablehlo.{name}" for name in ("dynamic_slice", "gather", "scatter", "slice"))
_COMPUTES = frozenset(f"stablehlo.{name}" for name in _COMPUTING.split())
_COMPUTES |= frozenset(f"chlo.{name}" for name in _COMPOSED.split())
_FIT = _COMPUTES | CALLS | {"func.return", "return"} | {f"stablehlo.{name}" for name in _MOVING.split()}


kernel_p: Any = Primitive("checkpointed_sweep")
kernel_p.multiple_results = True
kernel_p.is_high = lambda *avals, **params: False  # what is in it is lowered with it


def tried_here() -> bool:
    """Return whether kernels have been tried with this jaxlib on this kind of processor, or are asked for."""
    asked = os.environ.get("CKPT_TUNE_ONE_KERNEL", "")
    if asked in {"0", "1"}:
        return asked == "1"
    return jaxlib.version.__version_info__[:2] in TRIED_VERSIONS and platform.machine().lower() in TRIED_PROCESSORS


def in_one_kernel(fun: Callable[..., Any], *args: Any) -> Any:
    """Evaluate a function; on the CPU as one native function, where that can be.

    Args:
        fun: a function in JAX. What it closes over may belong to any transformation.
        *args: PyTrees of arrays.

    Returns:
        What the function does.
    """
    leaves, treedef = jtu.tree_flatten(args)
    trees: list[Any] = []

    def flat(*leaves):
        found, tree = jtu.tree_flatten(fun(*jtu.tree_unflatten(treedef, leaves)))
        trees.append(tree)
        return found

    jaxpr, closed_over = trace_hoisted(flat, leaves)
    # What has an effect has its own place in the program.
    run = functools.partial(call, jaxpr) if jaxpr.effects else functools.partial(kernel_p.bind, jaxpr=jaxpr)
    found = run(*closed_over, *leaves)
    return jtu.tree_unflatten(trees[0], found)


def _run(*args: Any, jaxpr: Jaxpr) -> list[Any]:
    return call(jaxpr, *args)


def _abstract(*avals: Any, jaxpr: Jaxpr) -> list[Any]:
    del avals
    return list(jaxpr.out_avals)


def along_tangents(
    fun: Callable[..., Sequence[Any]], primals: Sequence[Any], tangents: Sequence[Any]
) -> tuple[list[Any], list[Any]]:
    """Give the jvp rule of plain JAX: its own operations are differentiated, along the tangents that are not zero."""
    moves = [type(t) is not ad.Zero for t in tangents]

    def along(*moving):
        return list(fun(*scatter(moving, moves, primals)))

    outputs, moved = jax.jvp(along, pick(primals, moves), pick(tangents, moves))
    zero = [jax.typeof(t).dtype == jax.dtypes.float0 for t in moved]
    none = [ad.Zero(jax.typeof(x).to_tangent_aval()) for x in outputs]
    return outputs, [nothing if z else t for t, z, nothing in zip(moved, zero, none, strict=True)]


def _jvp(primals: Sequence[Any], tangents: Sequence[Any], *, jaxpr: Jaxpr) -> tuple[list[Any], list[Any]]:
    """Differentiate the operations themselves: known and unknown ones must be told apart."""
    return along_tangents(functools.partial(call, jaxpr), primals, tangents)


def _batch(axis: Any, args: Sequence[Any], dims: Sequence[Any], *, jaxpr: Jaxpr) -> tuple[list[Any], list[int | None]]:
    args = [x if d is None else jnp.moveaxis(x, d, 0) for x, d in zip(args, dims, strict=True)]
    mapped = [d is not None for d in dims]
    wide = batched_outputs(jaxpr, axis, mapped)
    outputs = in_one_kernel(vmap_flat(lambda *lane: call(jaxpr, *lane), axis, mapped, wide), *args)
    return outputs, [0 if w else None for w in wide]


def _prune(used: Sequence[bool], *, jaxpr: Jaxpr) -> tuple[list[bool], dict[str, Any]]:
    left, read = pruned(jaxpr, used)
    return read, {"jaxpr": left}


def _lower_on_cpu(ctx: Any, *args: Any, jaxpr: Jaxpr) -> Any:
    results, operation, functions = emit_call(ctx, jaxpr, args)
    if operation is not None and tried_here() and on_one_device(ctx) and _fits(operation, functions):
        return replace_by_kernel(operation, ctx)
    return results


kernel_p.def_impl(lambda *args, jaxpr: jax.jit(lambda *given: call(jaxpr, *given))(*args))
kernel_p.def_abstract_eval(_abstract)
mlir.register_lowering(kernel_p, mlir.lower_fun(_run, multiple_results=True), cacheable=False)
mlir.register_lowering(kernel_p, _lower_on_cpu, platform="cpu", cacheable=False)
ad.primitive_jvps[kernel_p] = _jvp
batching.fancy_primitive_batchers[kernel_p] = _batch
dead_code_rule(kernel_p, _prune)


#
# What can be one function
#


def _fits(called: Any, functions: Any) -> bool:
    """Return whether XLA compiles a call to one native function, and should.

    Args:
        called: the MLIR operation that calls it.
        functions: the functions of the module, by name.
    """
    waiting, seen, nested, products, count = [called], set(), [], [], 0
    while waiting:
        operation = waiting.pop()
        count += 1
        if operation.name not in _FIT or count > MOST_OPERATIONS or not _small(operation):
            return False
        if operation.name == "stablehlo.dot_general" and not _has_vector(operation):
            products.append(operation)
        if operation.name in CALLS:
            if operation is not called:
                nested.append(operation)
            name = ir.FlatSymbolRefAttr(operation.attributes["callee"]).value
            if name not in seen:
                seen.add(name)
                waiting.extend(_inside(functions[name].operation))
        else:
            waiting.extend(_inside(operation))
    for operation in nested:  # a loop within the loop is part of the one function
        inline_again(operation)
    for operation in products:
        multiply_out(operation)
    return True


def _inside(operation: Any) -> list[Any]:
    return [inner.operation for region in operation.regions for block in region for inner in block]


def _small(operation: Any) -> bool:
    """Return whether an operation is cheap enough to be dispatched with others."""
    special = _SPECIAL.get(operation.name)
    if special is not None and not special(operation):
        return False
    if operation.name not in _COMPUTES:
        return True
    values = operation.results if operation.name in _READS_PART else (*operation.results, *operation.operands)
    shapes = map(_shape, values)
    return all(shape is not None and math.prod(shape[0]) * shape[1] <= LARGEST_BYTES for shape in shapes)


_TENSOR = re.compile(r"tensor<((?:\d+x)*)(complex<)?[a-z]+(\d+)")


def _shape(value: Any) -> tuple[list[int], float] | None:
    """Read dimensions and bytes an element from a value's type as it is written; None where they are not there."""
    found = _TENSOR.match(str(value.type))
    if found is None:
        return None
    dimensions, pair, bits = found.groups()
    return [int(size) for size in dimensions.split("x") if size], int(bits) / (4 if pair else 8)


def _is_small_product(operation: Any) -> bool:
    """Return whether a matrix product has a vector on one side, or few multiplications, to be written out."""
    batch, rows, columns, terms = _sizes(operation)
    most = LARGEST_SUM if rows == columns == 1 else LARGEST_MATRIX
    return batch * rows * columns * terms <= (most if _has_vector(operation) else LARGEST_PRODUCT)


def _is_small_sum(operation: Any) -> bool:
    """Return whether a reduction is of few elements."""
    shapes = map(_shape, operation.operands)
    return all(shape is not None and math.prod(shape[0]) <= LARGEST_SUM for shape in shapes)


def _has_vector(operation: Any) -> bool:
    """Return whether a product is one of a vector, which XLA compiles itself."""
    batch, rows, columns, _ = _sizes(operation)
    return batch == 1 and min(rows, columns) == 1


def _sizes(operation: Any) -> tuple[int, int, int, int]:
    """Return how many products of matrices a `dot_general` makes, their rows, columns and terms of a sum."""
    numbers = stablehlo.DotDimensionNumbers(operation.attributes["dot_dimension_numbers"])
    shapes = [_shape(operand) for operand in operation.operands]
    left, right = ([] if shape is None else shape[0] for shape in shapes)
    batch = math.prod(left[k] for k in numbers.lhs_batching_dimensions)
    terms = math.prod(left[k] for k in numbers.lhs_contracting_dimensions)
    rows, columns = (math.prod(side) // max(batch * terms, 1) for side in (left, right))
    return batch, rows, columns, terms


def _writes_once(operation: Any) -> bool:
    """Return whether a scatter writes to one place, which XLA turns into an update of a slice."""
    inputs = (len(operation.operands) - 1) // 2
    shape = _shape(operation.operands[inputs])
    if shape is None:
        return False
    written = re.search(r"index_vector_dim = (\d+)", str(operation.attributes["scatter_dimension_numbers"]))
    axis = int(written.group(1)) if written else 0
    return math.prod(size for k, size in enumerate(shape[0]) if k != axis) == 1


_SPECIAL = {
    "stablehlo.dot_general": _is_small_product,
    "stablehlo.reduce": _is_small_sum,
    "stablehlo.reduce_window": _is_small_sum,
    "stablehlo.scatter": _writes_once,
}


def _check(*operands: Any, jaxpr: Jaxpr, enabled: Any) -> tuple[list[Any], list[Any]]:
    error, outputs = checkify.checkify(lambda *args: call(jaxpr, *args), errors=enabled)(*operands)
    return [error], outputs


let_checks_out(kernel_p, _check)
