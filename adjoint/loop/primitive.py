"""The checkpointed while loop as a primitive of JAX, with rules for differentiating and batching it.

A `jax.custom_vjp` would do for everything but one: under `grad` of `vmap` its backward pass is batched as it stands,
so each lane gets its own copy of the gradient of what the lanes share. A primitive sees the vmap first: its batching
rule makes a loop over the whole batch, whose transposed step sums the shared gradients as it goes; and under `vmap` of
`grad` the differentiated loops, which are plain JAX, are batched one gradient for each lane. (`jax.lax.while_loop` and
lineax's linear solve are primitives for the same reason.)

`loop_p` runs the loop. Its jvp rule runs the forward sweep (`adjoint.loop.windows.run_storing`) and binds `_tangent_p`,
which is linear in the tangents and exists to be transposed: its transpose is the backward sweep. In forward mode
`_tangent_p` raises, as `jax.custom_vjp` does, except inside the body of another of our loops, where
forward-over-reverse has to pass through it.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.lax as lax
import jax.numpy as jnp

from ..compat import DROPS_UNUSED_CARRY, Primitive, ad, batching, let_checks_out, mlir, pruned, refuse_in_remat
from ..tiers.tiers import sizes_of
from ..traced.analysis import is_inexact, pick, scatter
from ..traced.batching import batch_jaxpr, batched_outputs, vmap_flat
from ..traced.kernel import in_one_kernel
from . import sweeps
from . import windows as windowed
from .checks import checked
from .observe import Pass, observer, pass_observer, report_steps
from .program import Loop, Program, groups
from .tape import Flagged, Needed, Tape, inexact_only, needed, perturbed, with_cotangents

loop_p = Primitive("checkpointed_while")
loop_p.multiple_results = True
_tangent_p = Primitive("checkpointed_while_tangent")
_tangent_p.multiple_results = True
_once_p = Primitive("checkpointed_while_reversed")
"""The identity, around what the backward sweep gives: it has tangents, and refuses to be transposed."""


def observed(loop: Loop) -> bool:
    """Return whether `observe_steps` watches a loop, which then has no gradient."""
    return observer() is not None and not loop.program.nested


def bind_loop(loop: Loop) -> Any:
    """Run a traced loop, differentiably; returns the final carry."""
    watcher = observer()
    if watcher is not None and observed(loop):
        cut = [lax.stop_gradient(x) if is_inexact(jax.typeof(x)) else x for x in loop.operands]
        count, outputs = sweeps.run(loop.program, cut)
        report_steps(watcher, count, loop.program.max_steps)
        return loop.result(outputs)
    return loop.result(loop_p.bind(*loop.operands, program=loop.program))


#
# Running
#


def run_loop(*args: Any, program: Program) -> list[Any]:
    """Run a loop on its operands; returns the final state and buffers."""
    if program.counted is not None:
        return in_one_kernel(lambda *given: program.counted.run(program, given), *args)
    return in_one_kernel(lambda *given: sweeps.run(program, given)[1], *args)


def abstract_loop(*avals: Any, program: Program) -> tuple[list[Any], Any]:
    """Return what a loop makes of the types of its operands, and its effects."""
    *_, state, buffers = groups(avals, program.sizes)
    effects = set(program.cond.effects) | set(program.body.effects)
    if program.predict is not None:
        effects |= set(program.predict.effects)
    return [*state, *buffers], effects


loop_p.def_impl(run_loop)
loop_p.def_effectful_abstract_eval(abstract_loop)
mlir.register_lowering(loop_p, mlir.lower_fun(run_loop, multiple_results=True), cacheable=False)


#
# Differentiating
#


def zero_tangent(x: Any) -> Any:
    """Return the symbolic zero of an array's tangent space."""
    return ad.Zero(jax.typeof(x).to_tangent_aval())


def tangents_along(program: Program, tangents: Sequence[Any]) -> tuple[list[Any], Flagged]:
    """Cut the tangents of a loop's operands to those of the body's inputs, and flag those that are not zero."""
    _, consts, _, _, state, buffers = groups(tangents, program.sizes)
    along = [*consts, *state, *buffers]
    given = inexact_only(program, [type(t) is not ad.Zero for t in along])
    return along, given if program.counted is None else program.counted.taken(given)


def differentiate(primals: Sequence[Any], tangents: Sequence[Any], *, program: Program) -> tuple[list[Any], list[Any]]:
    """Give the jvp rule of a loop: the forward sweep, and what the backward sweep is the transpose of."""
    along, given = tangents_along(program, tangents)
    moving = perturbed(program, given)
    if not any(moving.carry):
        outputs = loop_p.bind(*primals, program=program)
        return outputs, [zero_tangent(x) for x in outputs]
    show_advance(program)
    keep = needed(program, moving)
    if program.counted is not None and program.counted.keeps_tapes(program, moving, keep):
        return along_tangents(functools.partial(run_loop, program=program), primals, tangents)
    program, primals, visited, keep = arrange(program, primals, moving, keep)
    outputs, stored, _ = windowed.run_storing(program, primals, visited)
    consts = sweeps.operands_of(program, primals).body_consts
    moved = bind_tangents(
        program, pick(along, given.all), (consts, stored, outputs[program.state :]), (given, moving, keep)
    )
    return outputs, scatter(moved, moving.carry, [zero_tangent(x) for x in outputs])


def show_advance(program: Program) -> None:
    """Show a step of the forward sweep to whoever observes passes."""
    shown = pass_observer()
    if shown is not None and not program.nested:
        jaxpr, read = pruned(program.body, (True,) * len(program.body.out_avals))
        moving = (False,) * program.body_consts + (True,) * (program.state + program.buffers)
        shown(Pass(kind="advance", jaxpr=jaxpr, moving=tuple(pick(moving, read))))


def arrange(
    program: Program, primals: Sequence[Any], moving: Flagged, keep: Needed
) -> tuple[Program, Sequence[Any], sweeps.Visited, Needed]:
    """Choose what is held, once it is known what moves: the program, its operands, what is visited and needed."""
    if program.counted is not None:
        return program.counted.arrange(program, primals, moving, keep)
    program = program.with_room(sum(sizes_of(pick(program.body.out_avals[: program.state], keep.stored))))
    return program, primals, sweeps.Visited(program, keep.stored), keep


def tape_of(program: Program, flags: Flagged, keep: Needed, buffers: Sequence[Any] | None) -> Tape:
    """Return one visited step as the backward pass needs it."""
    return (Tape if program.counted is None else program.counted.tape)(program, flags, keep, buffers)


def along_tangents(
    fun: Callable[..., Sequence[Any]], primals: Sequence[Any], tangents: Sequence[Any]
) -> tuple[list[Any], list[Any]]:
    """Differentiate plain JAX along the tangents that are not zero; as a jvp rule."""
    moves = [type(t) is not ad.Zero for t in tangents]

    def along(*moving):
        return list(fun(*scatter(moving, moves, primals)))

    outputs, moved = jax.jvp(along, pick(primals, moves), pick(tangents, moves))
    zero = [jax.typeof(t).dtype == jax.dtypes.float0 for t in moved]
    return outputs, [zero_tangent(x) if z else t for x, t, z in zip(outputs, moved, zero, strict=True)]


def bind_tangents(
    program: Program,
    tangents: Sequence[Any],
    kept: tuple[Sequence[Any], sweeps.Stored, Sequence[Any]],
    flags: tuple[Flagged, Flagged, Needed],
) -> list[Any]:
    """Bind the linear part of a loop, from the tangents that are not zero to those of the carry that moves.

    Args:
        program: the loop.
        tangents: of the body's inputs flagged as given.
        kept: the body's consts, what was stored, and the buffers as the forward sweep left them.
        flags: which inputs have a tangent, what moves, and what is needed.
    """
    given, moving, keep = flags
    consts, stored, buffers = kept
    return _tangent_p.bind(
        *tangents,
        *consts,
        stored.count,
        stored.top,
        stored.steps,
        *stored.slots,
        *stored.tier,
        *pick(buffers, keep.buffers),
        program=program,
        given=given,
        moving=moving,
        keep=keep,
    )


ad.primitive_jvps[loop_p] = differentiate


def _linear_sizes(program: Program, given: Flagged, keep: Needed) -> tuple[int, ...]:
    """Count the operands of each group of `_tangent_p`: tangents, consts, `Stored` field by field, buffers."""
    slots = sum(keep.stored)
    tier = windowed.tier_arrays(program, slots)
    return sum(given.all), program.body_consts, 1, 1, 1, slots, tier, sum(keep.buffers)


def _residuals(args: Sequence[Any], program: Program, given: Flagged, keep: Needed) -> tuple[list, Any, list]:
    """Return consts, what was stored, and the kept buffers."""
    _, consts, (count,), (top,), (steps,), slots, tier, buffers = groups(args, _linear_sizes(program, given, keep))
    return consts, sweeps.Stored(count, top, steps, slots, tier), buffers


def _tangent_abstract(*avals: Any, program: Program, given: Flagged, moving: Flagged, keep: Needed) -> list[Any]:
    del avals, given, keep
    return [a.to_tangent_aval() for a in pick(program.body.out_avals, moving.carry)]


def _tangent_forward(*args: Any, program: Program, given: Flagged, moving: Flagged, keep: Needed) -> list[Any]:
    if not program.nested:
        raise TypeError(
            "Cannot differentiate `checkpointed_while_loop` in forward mode (`jax.jvp`, `jax.jacfwd`). "
            "With Diffrax use `adjoint=diffrax.ForwardMode()`; "
            "for a Hessian use forward over reverse, `jax.jacfwd(jax.grad(...))`."
        )
    consts, stored, buffers = _residuals(args, program, given, keep)
    zeros = [jnp.zeros(a.shape, a.dtype) for a in program.body.in_avals]
    tangents = pick(scatter(args[: sum(given.all)], given.all, zeros), moving.all)
    of_consts, of_state, of_buffers = groups(tangents, [sum(moving.consts), sum(moving.state), sum(moving.buffers)])
    tape = tape_of(program, moving, keep, buffers)
    moved_state, moved_buffers = windowed.push_forward(program, tape, consts, stored, (of_state, of_buffers, of_consts))
    return [*moved_state, *moved_buffers]


def _transpose(
    cotangents: Sequence[Any], *args: Any, program: Program, given: Flagged, moving: Flagged, keep: Needed
) -> list[Any]:
    none: list[Any] = [None] * len(args)
    present = scatter([type(ct) is not ad.Zero for ct in cotangents], moving.carry, [False] * len(moving.carry))
    flags = with_cotangents(program, moving, tuple(present))
    if not any(flags.carry):
        return none
    consts, stored, buffers = _residuals(args, program, given, keep)
    values = scatter(cotangents, moving.carry, none[:0] + [None] * len(moving.carry))
    avals = program.body.in_avals
    carry = [
        jnp.zeros(a.shape, a.dtype) if ct is None or type(ct) is ad.Zero else ct
        for a, ct, flag in zip(avals[program.body_consts :], values, flags.carry, strict=True)
        if flag
    ]
    of_state, of_buffers = groups(carry, [sum(flags.state), sum(flags.buffers)])
    sums = [jnp.zeros(a.shape, a.dtype) for a in pick(avals[: program.body_consts], flags.consts)]
    tape = tape_of(program, flags, keep, buffers)
    of_state, of_buffers, sums = windowed.reverse(program, tape, consts, stored, (of_state, of_buffers, sums))
    if (shown := pass_observer()) is not None and not program.nested:
        for one in tape.passes():
            shown(one)
    found = scatter([*sums, *of_state, *of_buffers], flags.all, [None] * len(avals))
    linear = [x if x is None else _once_p.bind(x) for x in pick(found, given.all)]
    return [*linear, *none[len(linear) :]]


def _refuse_again(cotangent: Any, x: Any) -> Any:
    del cotangent, x
    raise NotImplementedError(
        "A checkpointed loop cannot be differentiated in reverse mode twice, `grad(grad(...))`. "
        "Its backward sweep is a loop without a bound. "
        "For a Hessian use forward over reverse, `jax.jacfwd(jax.grad(...))`; "
        "for its product with a vector `jax.jvp(jax.grad(...), (x,), (v,))`."
    )


_tangent_p.def_impl(_tangent_forward)
_tangent_p.def_abstract_eval(_tangent_abstract)
mlir.register_lowering(_tangent_p, mlir.lower_fun(_tangent_forward, multiple_results=True))
ad.primitive_transposes[_tangent_p] = _transpose
_once_p.def_impl(lambda x: x)
_once_p.def_abstract_eval(lambda aval: aval)
mlir.register_lowering(_once_p, lambda ctx, x: [x])
ad.deflinear2(_once_p, _refuse_again)
batching.defvectorized(_once_p)


#
# Batching
#


def batch_loop(axis: Any, args: Sequence[Any], dims: Sequence[Any], *, program: Program) -> tuple[list[Any], list[Any]]:
    """Make one loop over the whole batch; what no lane changes on its own stays unbatched."""
    if program.counted is not None:
        places, carry_places = program.counted.lanes_at(program)
        args = [x if d is None else jnp.moveaxis(x, d, to) for x, d, to in zip(args, dims, places, strict=True)]
        operands, batched, carry_f = program.counted.batched(axis, args, [d is not None for d in dims], program)
        outputs = loop_p.bind(*operands, program=batched)
        return outputs, [to if f else None for f, to in zip(carry_f, carry_places, strict=True)]
    args = [x if d is None else jnp.moveaxis(x, d, 0) for x, d in zip(args, dims, strict=True)]
    cond_f, body_f, predict_f, expected_f, state_f, buffer_f = groups([d is not None for d in dims], program.sizes)
    cond_c, body_c, predict_c, (expected,), state, buffers = groups(args, program.sizes)
    carry_f = [*state_f, *buffer_f]
    while True:
        outputs_f = batched_outputs(program.body, axis, [*body_f, *carry_f])
        if program.rebuild is not None:
            rebuilt_f = batched_outputs(program.rebuild, axis, [*body_f, *carry_f[: program.state]])
            derived_f = scatter(rebuilt_f, program.derived, [False] * program.state)
            outputs_f = [a or b for a, b in zip(outputs_f, [*derived_f, *buffer_f], strict=True)]
        wider = [a or b for a, b in zip(carry_f, outputs_f, strict=True)]
        if wider == carry_f:
            break
        carry_f = wider
    now_f = [*state_f, *buffer_f]
    carry = [
        jnp.broadcast_to(x, (axis.size, *jnp.shape(x))) if wide and not now else x
        for x, wide, now in zip([*state, *buffers], carry_f, now_f, strict=True)
    ]
    batched = dataclasses.replace(
        program,
        cond=batch_jaxpr(program.cond, axis, [*cond_f, *carry_f], [False]),
        body=batch_jaxpr(program.body, axis, [*body_f, *carry_f], carry_f),
        predict=None
        if program.predict is None
        else batch_jaxpr(program.predict, axis, [*predict_f, *carry_f[: program.state]], [False]),
        rebuild=None
        if program.rebuild is None
        else batch_jaxpr(
            program.rebuild,
            axis,
            [*body_f, *carry_f[: program.state]],
            pick(carry_f[: program.state], program.derived),
        ),
        findings={},
    )
    if expected_f[0]:
        expected = jnp.max(expected)
    outputs = loop_p.bind(*cond_c, *body_c, *predict_c, expected, *carry, program=batched)
    return outputs, [0 if f else None for f in carry_f]


def _batch_tangent(
    axis: Any, args: Sequence[Any], dims: Sequence[Any], **params: Any
) -> tuple[list[Any], list[int | None]]:
    """Map the forward-mode computation, which is plain JAX; in reverse mode only the transpose is ever batched."""
    args = [x if d is None else jnp.moveaxis(x, d, 0) for x, d in zip(args, dims, strict=True)]
    out = vmap_flat(lambda *a: _tangent_forward(*a, **params), axis, [d is not None for d in dims])(*args)
    return out, [0] * len(out)


batching.fancy_primitive_batchers[loop_p] = batch_loop
batching.fancy_primitive_batchers[_tangent_p] = _batch_tangent


#
# Checking, and computing again
#


def _check_loop(*operands: Any, program: Program, enabled: Any) -> tuple[list[Any], list[Any]]:
    return checked(loop_p.bind, operands, program, enabled)


def _refuse_files(*, program: Program, **params: Any) -> None:
    del params
    if program.windows is not None and program.windows.tier == "disk":
        raise NotImplementedError(
            'A solve with windows in a file (`tier="disk"`) cannot be differentiated inside `jax.checkpoint` here. '
            "This version of JAX would write the file in vain as well. "
            "Leave `jax.checkpoint` out (the solve is checkpointed already), or install jax>=0.11."
        )


let_checks_out(loop_p, _check_loop)
if not DROPS_UNUSED_CARRY:
    refuse_in_remat(_tangent_p, _refuse_files)
