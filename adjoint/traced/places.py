"""Where arrays lie, as far as types say: zeros like them, room for them, what varies from device to device."""

from typing import Any

import jax
import jax.numpy as jnp

from ..compat import placed, type_of


def batched_struct_of(aval: Any, size: int) -> jax.ShapeDtypeStruct:
    """Describe so many arrays of a type, stacked."""
    shape = (size, *aval.shape)
    if not placed(aval):
        return jax.ShapeDtypeStruct(shape, aval.dtype)
    spec = jax.sharding.PartitionSpec(None, *aval.sharding.spec)
    sharding = jax.sharding.NamedSharding(aval.sharding.mesh, spec)
    return jax.ShapeDtypeStruct(shape, aval.dtype, sharding=sharding, manual_axis_type=aval.mat)


def zeros(aval: Any) -> Any:
    """Make zeros of a type, where it says that they lie."""
    if not placed(aval):
        return jnp.zeros(aval.shape, aval.dtype)
    return varying(jax.lax.full(aval.shape, 0, aval.dtype, sharding=aval.sharding), aval.mat.varying)


def rows(x: Any, count: int) -> Any:
    """Make room for so many arrays like one, each where it lies."""
    if not placed(jax.typeof(x)):
        return jnp.zeros((count, *x.shape), x.dtype)
    return jax.lax.broadcast(jnp.zeros_like(x), (count,))


def axes_of(x: Any) -> frozenset[Any]:
    """Return the manual axes along which a value, or those of a type, vary."""
    aval = type_of(x)
    return frozenset(aval.mat.varying) if hasattr(aval, "mat") else frozenset()


def varying(x: Any, axes: Any) -> Any:
    """Let a value vary along more manual axes: the same on each of them. Its transpose is a sum over them."""
    more = tuple(axis for axis in axes if axis not in axes_of(x))
    return jax.lax.pcast(x, more, to="varying") if more else x
