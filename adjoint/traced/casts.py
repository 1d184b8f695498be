"""What a function lets vary from device to device, done before it is called.

Inside `jax.shard_map` with `check_vma` types name the manual axes along which a value varies. Where one operand varies
and another does not, JAX casts the other, and transposed that is a sum over the devices. In a loop it would stand in
every step; done before the loop it is made once.
"""

from collections.abc import Sequence
from typing import Any

from ..compat import Jaxpr

Casts = tuple[tuple[int, tuple[Any, ...]], ...]
"""Inputs of a function, by position, and the manual axes along which it lets each vary."""
_REARRANGING = frozenset(
    ["broadcast_in_dim", "convert_element_type", "copy", "reshape", "slice", "squeeze", "transpose"]
)
"""What may be done to an input before it is let vary: as well afterwards."""


def _origins(eqn: Any, origins: dict[Any, Any]) -> list[Any]:
    """Return which input each operand of an equation is, and what was done to it; None for anything else."""
    at = [None if hasattr(x, "val") else origins.get(x) for x in eqn.invars]
    if at and at[0] is not None and eqn.primitive.name in _REARRANGING and len(at) == 1:
        place, before = at[0]
        origins[eqn.outvars[0]] = place, (*before, eqn)
    return at


def _inlined(eqn: Any, at: Sequence[Any]) -> bool:
    return eqn.primitive.name == "jit" and any(origin is not None for origin in at)


def _inner(eqn: Any, at: Sequence[Any]) -> dict[Any, Any]:
    inner = eqn.params["jaxpr"].jaxpr
    return {x: origin for x, origin in zip(inner.invars, at, strict=True) if origin is not None}


def casts_of(jaxpr: Jaxpr, count: int) -> Casts:
    """Find which of its first so many inputs a function lets vary along manual axes before it uses them.

    JAX does so inside `jax.shard_map` with `check_vma`, wherever one operand varies and another does not. Its transpose
    is a sum over the devices.

    Args:
        jaxpr: from `trace_hoisted`.
        count: how many inputs are looked at.
    """
    found: dict[tuple[int, tuple[Any, ...]], None] = {}

    def walk(jaxpr: Any, origins: dict[Any, Any]) -> None:
        for eqn in jaxpr.eqns:
            at = _origins(eqn, origins)
            if eqn.primitive.name == "pvary" and at[0] is not None:
                found[at[0][0], tuple(eqn.params["axes"])] = None
            elif _inlined(eqn, at):
                walk(eqn.params["jaxpr"].jaxpr, _inner(eqn, at))

    walk(jaxpr.jaxpr, {x: (k, ()) for k, x in enumerate(jaxpr.jaxpr.invars[:count])})
    return tuple(found)


def _bind(eqn: Any, operands: Sequence[Any]) -> list[Any]:
    with eqn.ctx.manager:
        found = eqn.primitive.bind(*operands, **eqn.primitive.get_bind_params(eqn.params))
    return list(found) if eqn.primitive.multiple_results else [found]


def call_with_casts(jaxpr: Jaxpr, casts: Casts, count: int, args: Sequence[Any]) -> list[Any]:
    """Evaluate a function some of whose inputs have been let vary outside of it.

    Args:
        jaxpr: the function.
        casts: from `casts_of`.
        count: how many inputs were looked at.
        args: these; those of them that vary, in the order of `casts`; the function's other inputs.
    """
    consts, cast, rest = args[:count], args[count : count + len(casts)], args[count + len(casts) :]
    given = dict(zip(casts, cast, strict=True))

    def run(jaxpr: Any, consts: Sequence[Any], args: Sequence[Any], origins: dict[Any, Any]) -> list[Any]:
        env = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *args], strict=True))

        def read(x: Any) -> Any:
            return x.val if hasattr(x, "val") else env[x]

        for eqn in jaxpr.eqns:
            at = _origins(eqn, origins)
            if eqn.primitive.name == "pvary" and at[0] is not None:
                found = [given[at[0][0], tuple(eqn.params["axes"])]]
                for before in at[0][1]:
                    found = _bind(before, found)
            elif _inlined(eqn, at):
                closed = eqn.params["jaxpr"]
                found = run(closed.jaxpr, closed.consts, [*map(read, eqn.invars)], _inner(eqn, at))
            else:
                found = _bind(eqn, [*map(read, eqn.invars)])
            env.update(zip(eqn.outvars, found, strict=True))
        return [*map(read, jaxpr.outvars)]

    origins = {x: (k, ()) for k, x in enumerate(jaxpr.jaxpr.invars[:count])}
    return run(jaxpr.jaxpr, jaxpr.consts, [*consts, *rest], origins)
