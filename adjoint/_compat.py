"""Every name of another library that is not public, in one place; a test names them, so an upgrade breaks here, loudly.

From Equinox we take what its loops and Diffrax's loop body share with ours and must stay the same objects: the
write-only buffer class (`equinox.internal.buffer_at_set` and Diffrax's annotations look for exactly this class) and
the select that vanishes where its predicate is not batched. JAX merged `Jaxpr` and `ClosedJaxpr` in 0.11; nothing here
depends on which.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.core
import jax.extend.core
import jax.numpy as jnp
from equinox.internal import nondifferentiable_backward as nondifferentiable_backward
from equinox.internal import unvmap_any as unvmap_any
from equinox.internal import unvmap_max as unvmap_max
from equinox.internal import while_loop as _equinox_while_loop
from equinox.internal._loop.common import _Buffer, _select_if_vmap
from jax.extend.core import Primitive as Primitive
from jax.interpreters import ad as ad
from jax.interpreters import batching as batching
from jax.interpreters import mlir as mlir

Buffer = _Buffer
"""Equinox's write-only buffer."""
Jaxpr = Any
"""A closed jaxpr without constants: `.in_avals`, `.out_avals`, `.effects`, evaluated by `call`."""


def select_if_batched(pred: Any, new: Any, old: Any) -> Any:
    """Select between two arrays where the predicate is batched; where it is not it is taken to be true.

    Args:
        pred: boolean scalar.
        new: array.
        old: array of the same shape and dtype.

    Returns:
        `new` where no `jax.vmap` batches `pred`, so that nothing is computed; else `where(pred, new, old)`.
    """
    return _select_if_vmap(pred, new, old, makes_false_steps=False)


def struct_of(x: Any) -> jax.ShapeDtypeStruct:
    """Describe an array by shape and dtype, weak types made strong."""
    return jax.ShapeDtypeStruct(jnp.shape(x), jnp.result_type(x))


def trace(fun: Callable[..., Sequence[Any]], structs: Sequence[Any]) -> Jaxpr:
    """Trace a function of flat arrays that closes over nothing.

    Args:
        fun: takes arrays like `structs`, returns a flat sequence of arrays.
        structs: arrays, or their shapes and dtypes.

    Returns:
        A closed jaxpr.
    """
    return jax.make_jaxpr(fun)(*map(struct_of, structs))


def trace_hoisted(fun: Callable[..., Sequence[Any]], structs: Sequence[Any]) -> tuple[Jaxpr, list[Any]]:
    """Trace a function of flat arrays and pull out the arrays that it closes over.

    Args:
        fun: takes arrays like `structs`, returns a flat sequence of arrays.
        structs: arrays, or their shapes and dtypes.

    Returns:
        A jaxpr that takes what `fun` closed over first and then its arguments, and those closed-over arrays.
    """
    first = jax.make_jaxpr(fun)(*map(struct_of, structs))
    consts = list(first.consts)
    count = len(consts)

    def explicit(*args):
        return jax.core.eval_jaxpr(first.jaxpr, args[:count], *args[count:])

    # Traced twice, because a jaxpr that keeps tracers of an outer transformation alive may not be a primitive's
    # parameter.
    return jax.make_jaxpr(explicit)(*map(struct_of, consts), *map(struct_of, structs)), consts


def call(jaxpr: Jaxpr, *args: Any) -> list[Any]:
    """Evaluate a jaxpr.

    Args:
        jaxpr: from `trace` or `trace_hoisted`.
        *args: as many arrays as it takes.

    Returns:
        A flat list of arrays.
    """
    return list(jax.extend.core.jaxpr_as_fun(jaxpr)(*args))


def as_array(x: Any) -> Any:
    """Convert a leaf to a strongly typed array, as Equinox's loops do; an array that is one already is not touched."""
    if isinstance(x, jax.Array) and not jax.typeof(x).weak_type:
        return x
    # jnp.array, not asarray, which would keep the weak type: a Python scalar must not change dtype between two passes.
    return jnp.array(x)


def forward_only_loop(cond_fun: Any, body_fun: Any, init_val: Any, **kwargs: Any) -> Any:
    """Run Equinox's loop that has no reverse mode, for solves that nobody can differentiate."""
    kwargs.pop("checkpoints", None)
    return _equinox_while_loop(cond_fun, body_fun, init_val, kind="lax", **kwargs)
