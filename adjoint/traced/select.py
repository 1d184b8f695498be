"""A select that vanishes where its predicate is not batched."""

from typing import Any

import jax
import jax.numpy as jnp

from ..compat import Primitive, ad, batching, mlir

_select_p = Primitive("select_if_batched")


def select_if_batched(pred: Any, new: Any, old: Any) -> Any:
    """Select between two arrays where the predicate is batched; where it is not it is taken to be true.

    Equinox's primitive for this forgets, transposed, where values lie.

    Args:
        pred: boolean scalar.
        new: array.
        old: array of the same shape and dtype.

    Returns:
        `new` where no `jax.vmap` batches `pred`, so that nothing is computed; else `where(pred, new, old)`.
    """
    return _select_p.bind(pred, new, old)


def _select_jvp(primals: Any, tangents: Any) -> tuple[Any, Any]:
    _, *moved = tangents
    out = _select_p.bind(*primals)
    if all(type(t) is ad.Zero for t in moved):
        return out, moved[0]
    return out, _select_p.bind(primals[0], *map(ad.instantiate_zeros, moved))


def _select_transpose(ct: Any, pred: Any, *args: Any) -> list[Any]:
    if type(ct) is ad.Zero:
        return [None, None, None]
    zero = jnp.zeros_like(ct)
    sides = (ct, zero), (zero, ct)
    linear = [ad.is_undefined_primal(x) for x in args]
    return [None, *(_select_p.bind(pred, *side) if there else None for side, there in zip(sides, linear, strict=True))]


def _select_batch(axis: Any, args: Any, dims: Any) -> tuple[Any, int | None]:
    pred, *sides = (x if d is None else jnp.moveaxis(x, d, 0) for x, d in zip(args, dims, strict=True))
    if all(d is None for d in dims):
        return _select_p.bind(pred, *sides), None
    # JAX may hand a rule Python scalars in the place of small constants.
    dtype = next((x.dtype for x in sides if hasattr(x, "dtype")), None)
    sides = [x if hasattr(x, "dtype") else jnp.asarray(x, dtype) for x in sides]
    sides = [
        jnp.broadcast_to(x, (axis.size, *x.shape)) if d is None else x for x, d in zip(sides, dims[1:], strict=True)
    ]
    if dims[0] is None:
        return _select_p.bind(pred, *sides), 0
    shape = sides[0].shape
    return jax.lax.select(jnp.broadcast_to(pred.reshape(-1, *[1] * (len(shape) - 1)), shape), *sides), 0


_select_p.def_impl(lambda pred, new, old: new)
_select_p.def_abstract_eval(lambda pred, new, old: new)
ad.primitive_jvps[_select_p] = _select_jvp
ad.primitive_transposes[_select_p] = _select_transpose
batching.fancy_primitive_batchers[_select_p] = _select_batch
mlir.register_lowering(_select_p, lambda ctx, pred, new, old: [new])
