"""Functions of flat arrays under one more axis: mapped, traced, and examined for which outputs become mapped."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ..compat import call, struct_of, trace
from .places import batched_struct_of


def vmap_flat(fun: Callable, axis: Any, in_flags: Sequence[bool], out_flags: Sequence[bool] | None = None) -> Callable:
    """Map a flat function over axis 0 of its flagged inputs; flagged outputs (all of them by default) are mapped."""
    return jax.vmap(
        fun,
        in_axes=tuple(0 if f else None for f in in_flags),
        out_axes=0 if out_flags is None else [0 if f else None for f in out_flags],
        axis_name=axis.name,
        axis_size=axis.size,
        spmd_axis_name=axis.spmd_name,
    )


def with_lanes(x: Any, place: int, size: int) -> Any:
    """Give an array an axis of so many lanes."""
    shape = jnp.shape(x)
    return jnp.broadcast_to(jnp.expand_dims(x, place), (*shape[:place], size, *shape[place:]))


def batched_outputs(jaxpr: Any, axis: Any, in_flags: Sequence[bool]) -> list[bool]:
    """Find which outputs of a function are batched when the flagged inputs are."""
    seen: list[bool] = []

    @jax.custom_batching.custom_vmap
    def record(*outputs):
        return outputs

    @record.def_vmap
    def _(axis_size, in_batched, *outputs):
        del axis_size
        seen[:] = in_batched
        return outputs, tuple(in_batched)

    structs = [
        batched_struct_of(a, axis.size) if f else struct_of(a) for a, f in zip(jaxpr.in_avals, in_flags, strict=True)
    ]
    jax.eval_shape(vmap_flat(lambda *args: record(*call(jaxpr, *args)), axis, in_flags), *structs)
    return list(seen) or [False] * len(jaxpr.out_avals)


def batch_jaxpr(jaxpr: Any, axis: Any, in_flags: Sequence[bool], out_flags: Sequence[bool]) -> Any:
    """Trace a jaxpr with one more axis at the inputs that have it, and at least at the outputs that are to have it."""
    structs = [
        batched_struct_of(a, axis.size) if f else struct_of(a) for a, f in zip(jaxpr.in_avals, in_flags, strict=True)
    ]
    return trace(vmap_flat(lambda *args: call(jaxpr, *args), axis, in_flags, out_flags), structs)
