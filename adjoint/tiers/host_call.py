"""Calls of the host from within a compiled program, on NumPy arrays as they lie in memory.

`jax.experimental.io_callback` hands its function JAX arrays, made on the thread that runs the program. Where a process
has one core, that thread then waits for a transfer which it would have to make itself, for ever (seen on jax 0.10.2
with arguments of 256 KiB). Here the function is given the program's own buffers, and may only read them while it runs.

What a call does must follow from its operands and show in its results: JAX may drop a call whose results nobody uses,
and may move one whose operands do not change out of a loop. XLA makes each call that is left as often as it stands
there.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.core

from ..compat import Primitive, ad, batching, emit_host_call, mlir


class Refused(NamedTuple):
    """What is said where a call is batched, and where it is differentiated."""

    batching: str
    differentiation: str


HOST_CALL = "checkpointed_host_call"
"""The name under which a call stands in a jaxpr: where there is one inside a loop, a solve has windows in a file."""

_host_call_p = Primitive(HOST_CALL)
_host_call_p.multiple_results = True


def call_host(function: Callable[..., Any], results: Sequence[Any], *operands: Any, refused: Refused) -> list[Any]:
    """Call a Python function while a program runs.

    Args:
        function: takes NumPy arrays like `operands`, which it may not keep, and returns a sequence of arrays like
            `results`. It runs on a thread of JAX's.
        results: shapes and dtypes of what it returns, of 32 bits at most.
        *operands: arrays.
        refused: what is said under `jax.vmap` and on differentiating.

    Returns:
        The arrays that the function returned.

    Raises:
        NotImplementedError: an operand is batched or has a tangent.
    """
    structs = tuple((tuple(x.shape), x.dtype) for x in results)
    return _host_call_p.bind(*operands, function=function, results=structs, refused=refused)


def _run(*operands: Any, **params: Any) -> list[Any]:
    return jax.jit(lambda *args: _host_call_p.bind(*args, **params))(*operands)


def _abstract(*avals: Any, results: Any, **params: Any) -> list[Any]:
    del avals, params
    return [jax.core.ShapedArray(shape, dtype) for shape, dtype in results]


def _lower(ctx: Any, *operands: Any, function: Callable[..., Any], results: Any, refused: Refused) -> Any:
    del results, refused
    return emit_host_call(ctx, function, operands)


def _refuse_tangents(primals: Any, tangents: Any, *, refused: Refused, **params: Any) -> Any:
    del primals, tangents, params
    raise NotImplementedError(refused.differentiation)


def _refuse_lanes(args: Any, dims: Any, *, refused: Refused, **params: Any) -> Any:
    del args, dims, params
    raise NotImplementedError(refused.batching)


_host_call_p.def_impl(_run)
_host_call_p.def_abstract_eval(_abstract)
# Each lowering has a function of its own to call.
mlir.register_lowering(_host_call_p, _lower, cacheable=False)
ad.primitive_jvps[_host_call_p] = _refuse_tangents
batching.primitive_batchers[_host_call_p] = _refuse_lanes
