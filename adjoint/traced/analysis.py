"""Traced questions about a loop: what is perturbed, which cotangents are not zero, what a replay needs.

The three questions are answered on the traced body, never on values, with public JAX only: `jax.custom_jvp` and
`jax.custom_vjp` with symbolic zeros show a rule which of its tangents or cotangents are zeros by structure. Like
Equinox's loop we differentiate nothing that is unperturbed and materialise no cotangent that stays zero, since user
code may refuse to be differentiated (`equinox.internal.nondifferentiable_backward`) and since it costs.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

from ..compat import Jaxpr, call, pruned, struct_of

Flags = tuple[bool, ...]


def is_inexact(x: Any) -> bool:
    """Return whether an array or its description has a floating or complex dtype."""
    return bool(jnp.issubdtype(x.dtype, jnp.inexact))


def pick(values: Sequence[Any], flags: Sequence[bool]) -> list[Any]:
    """Select the values whose flag is set."""
    return [x for x, flag in zip(values, flags, strict=True) if flag]


def scatter(values: Sequence[Any], flags: Sequence[bool], rest: Sequence[Any]) -> list[Any]:
    """Put `values` where the flag is set and take `rest`, which is as long as `flags`, elsewhere."""
    source = iter(values)
    return [next(source) if flag else other for flag, other in zip(flags, rest, strict=True)]


def _in_abstract(fun: Callable[..., None], structs: Sequence[Any]) -> None:
    """Run `fun` on tracers of the given shapes, for what it observes; nothing is computed."""

    def nothing(*args):
        fun(*args)
        return ()

    jax.eval_shape(nothing, *map(struct_of, structs))


def perturbed_outputs(jaxpr: Jaxpr, perturbed: Flags) -> Flags:
    """Find which outputs have a tangent that is not zero by structure.

    Args:
        jaxpr: the function.
        perturbed: for each input, whether its tangent may be nonzero.

    Returns:
        A flag for each output.
    """
    inexact = [is_inexact(a) for a in jaxpr.out_avals]
    seen: list[bool] = []

    @jax.custom_jvp
    def record(*outputs):
        return outputs

    def note(primals, tangents):
        seen[:] = [not isinstance(t, SymbolicZero) for t in tangents]
        return primals, tangents

    record.defjvp(note, symbolic_zeros=True)

    def observe(*args):
        def along(*inputs):
            outputs = call(jaxpr, *scatter(inputs, perturbed, args))
            return record(*pick(outputs, inexact))

        # linearize, not jvp: a body with a custom_vjp inside has no forward mode to run, but can be linearised.
        jax.linearize(along, *pick(args, perturbed))

    if any(perturbed) and any(inexact):
        _in_abstract(observe, jaxpr.in_avals)
    return tuple(scatter(seen or [False] * sum(inexact), inexact, [False] * len(inexact)))


def nonzero_cotangents(jaxpr: Jaxpr, perturbed: Flags, cotangents: Flags) -> Flags:
    """Find which inputs receive a cotangent that is not zero by structure.

    Args:
        jaxpr: the function.
        perturbed: the inputs that are differentiated.
        cotangents: for each output, whether its cotangent may be nonzero.

    Returns:
        A flag for each input, set only where `perturbed` is.
    """
    seen: list[bool] = []

    @jax.custom_vjp
    def record(*inputs):
        return inputs

    def forward(*inputs):
        return tuple(x.value for x in inputs), None

    def backward(_, grads):
        seen[:] = [not isinstance(g, SymbolicZero) for g in grads]
        return (None,) * len(grads)

    record.defvjp(forward, backward, symbolic_zeros=True)

    def observe(*args):
        def along(*inputs):
            return pick(call(jaxpr, *scatter(record(*inputs), perturbed, args)), cotangents)

        outputs, pullback = jax.vjp(along, *pick(args, perturbed))
        pullback([jnp.zeros_like(x) for x in outputs])

    if any(perturbed) and any(cotangents):
        _in_abstract(observe, jaxpr.in_avals)
    return tuple(scatter(seen or [False] * sum(perturbed), perturbed, [False] * len(perturbed)))


def reached_inputs(jaxpr: Jaxpr, outputs: Flags) -> Flags:
    """Find which inputs the flagged outputs depend on, and what has an effect: a callback, a check, a print."""
    return tuple(pruned(jaxpr, outputs)[1])
