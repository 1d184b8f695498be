"""The checkpointed while loop as a primitive of JAX, with rules for differentiating and batching it.

A `jax.custom_vjp` would do for everything but one: under `grad` of `vmap` its backward pass is batched as it stands,
so each lane gets its own copy of the gradient of what the lanes share. A primitive sees the vmap first: its batching
rule makes a loop over the whole batch, whose transposed step sums the shared gradients as it goes; and under `vmap` of
`grad` the differentiated loops, which are plain JAX, are batched one gradient for each lane. (`jax.lax.while_loop` and
lineax's linear solve are primitives for the same reason.)

`loop_p` runs the loop. Its jvp rule binds `pushed_p`, the loop with its tangents (`adjoint.loop.forward`). Where that
comes apart to be transposed, it runs the forward sweep (`adjoint.loop.windows.run_storing`) and binds `_tangent_p`,
which is linear in the tangents: its transpose is the backward sweep.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.lax as lax
import jax.numpy as jnp

from ..compat import (
    DROPS_UNUSED_CARRY,
    Primitive,
    ad,
    batching,
    let_checks_out,
    linearize_knowingly,
    mlir,
    refuse_in_remat,
)
from ..traced.analysis import is_inexact, pick, scatter
from ..traced.batching import batch_jaxpr, batched_outputs, vmap_flat, with_lanes
from ..traced.kernel import along_tangents, in_one_kernel
from ..traced.places import zeros
from . import sweeps
from . import windows as windowed
from .checks import checked
from .counted import arrange, lanes_at, tape_of
from .forward import Linear, Pushed, in_order, operands_with_tangents, pushed_p, refuse_transpose, with_tangents
from .observe import observer, pass_observer, report_steps
from .program import Loop, Program, groups
from .tangents import once, show_advance, zero_tangent
from .tape import Flagged, Needed, inexact_only, needed, perturbed, with_cotangents

loop_p = Primitive("checkpointed_while")
loop_p.multiple_results = True
_tangent_p = Primitive("checkpointed_while_tangent")
_tangent_p.multiple_results = True


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


def tangents_along(program: Program, tangents: Sequence[Any]) -> tuple[list[Any], Flagged]:
    """Cut the tangents of a loop's operands to those of the body's inputs, and flag those that are not zero."""
    _, consts, _, _, state, buffers = groups(tangents, program.sizes)
    along = [*consts, *state, *buffers]
    given = inexact_only(program, [type(t) is not ad.Zero for t in along])
    return along, given if program.counted is None else program.counted.taken(given)


def differentiate(primals: Sequence[Any], tangents: Sequence[Any], *, program: Program) -> tuple[list[Any], list[Any]]:
    """Give the jvp rule of a loop: the loop with its tangents."""
    along, given = tangents_along(program, tangents)
    moving = perturbed(program, given)
    if not any(moving.carry):
        outputs = loop_p.bind(*primals, program=program)
        return outputs, [zero_tangent(x) for x in outputs]
    if program.counted is not None and program.counted.keeps_tapes(program, moving):
        show_advance(program)
        return along_tangents(functools.partial(run_loop, program=program), primals, tangents)
    how = _pushed(program, given, moving)
    outputs = pushed_p.bind(*primals, *pick(along, given.all), how=how)
    outputs, moved = outputs[: how.outputs], outputs[how.outputs :]
    return outputs, scatter(moved, moving.carry, [zero_tangent(x) for x in outputs])


def _pushed(program: Program, given: Flagged, moving: Flagged) -> Pushed:
    apart = functools.partial(_apart, program, given, moving)
    return Pushed(program, given, moving, loop_p, {"program": program}, sum(program.sizes), apart)


def _apart(program: Program, given: Flagged, moving: Flagged, primals: Sequence[Any]) -> tuple[list[Any], Linear]:
    """Run the forward sweep; returns the final carry, and what the backward sweep is the transpose of."""
    show_advance(program)
    keep = needed(program, moving)
    program, primals, visited, keep = arrange(program, primals, moving, keep)
    outputs, stored, _ = windowed.run_storing(program, primals, visited)
    outputs = once(outputs)
    consts = sweeps.operands_of(program, primals).body_consts
    kept = consts, stored, outputs[program.state :]
    linear = linear_part(program, kept, (given, moving, keep), first=0, order=range(sum(moving.carry)))
    return outputs, linear


def linear_part(
    program: Program,
    kept: tuple[Sequence[Any], sweeps.Stored, Sequence[Any]],
    flags: tuple[Flagged, Flagged, Needed],
    *,
    first: int,
    order: Sequence[int],
) -> Linear:
    """Return the linear part of a loop, from the tangents that are not zero to those of the carry that moves.

    Args:
        program: the loop.
        kept: the body's consts, what was stored, and the buffers as the forward sweep left them.
        flags: which inputs have a tangent, what moves, and what is needed.
        first: as `Linear` has it.
        order: as `Linear` has it.
    """
    given, moving, keep = flags
    consts, stored, buffers = kept
    marks = stored.count, stored.top, stored.steps
    residuals = [*consts, *marks, *stored.slots, *stored.tier, *pick(buffers, keep.buffers)]
    params = {"program": program, "given": given, "moving": moving, "keep": keep}
    return Linear(_tangent_p, params, residuals, first, order)


def _push_again(primals: Sequence[Any], tangents: Sequence[Any], *, how: Pushed) -> tuple[list[Any], list[Any]]:
    """Give the jvp rule of a loop with tangents, which is a loop too."""
    operands = operands_with_tangents(how, primals, jnp.zeros_like)
    along = operands_with_tangents(how, tangents, lambda t: t if type(t) is ad.Zero else ad.Zero(jax.typeof(t)))
    outputs, moved = differentiate(operands, along, program=with_tangents(how.program, how.moving))
    return in_order(how, outputs), in_order(how, moved)


ad.primitive_jvps[loop_p] = differentiate
ad.primitive_jvps[pushed_p] = _push_again
ad.primitive_transposes[loop_p] = refuse_transpose
linearize_knowingly(loop_p)


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
    consts, stored, buffers = _residuals(args, program, given, keep)
    none = [zeros(a) for a in program.body.in_avals]
    tangents = pick(scatter(args[: sum(given.all)], given.all, none), moving.all)
    of_consts, of_state, of_buffers = groups(tangents, [sum(moving.consts), sum(moving.state), sum(moving.buffers)])
    tape = tape_of(program, moving, keep, buffers)
    moved_state, moved_buffers = windowed.push_forward(program, tape, consts, stored, (of_state, of_buffers, of_consts))
    return [*moved_state, *moved_buffers]


def _tangent_jvp(primals: Sequence[Any], tangents: Sequence[Any], **params: Any) -> tuple[list[Any], list[Any]]:
    """Differentiate the linear part: as what it is where only its tangents move, else as the loop it evaluates."""
    count = sum(params["given"].all)
    moves = [type(t) is not ad.Zero for t in tangents]
    if not any(moves[count:]):
        filled = [ad.instantiate_zeros(t) for t in tangents[:count]]
        return tuple(_tangent_p.bind(*x, *primals[count:], **params) for x in (primals[:count], filled))

    def along(*moving):
        return _tangent_forward(*scatter(moving, moves, primals), **params)

    outputs, moved = jax.jvp(along, tuple(pick(primals, moves)), tuple(pick(tangents, moves)))
    return outputs, once(moved)


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
        zeros(a) if ct is None or type(ct) is ad.Zero else ct
        for a, ct, flag in zip(avals[program.body_consts :], values, flags.carry, strict=True)
        if flag
    ]
    of_state, of_buffers = groups(carry, [sum(flags.state), sum(flags.buffers)])
    sums = [zeros(a) for a in pick(avals[: program.body_consts], flags.consts)]
    tape = tape_of(program, flags, keep, buffers)
    of_state, of_buffers, sums = windowed.reverse(program, tape, consts, stored, (of_state, of_buffers, sums))
    if (shown := pass_observer()) is not None and not program.nested:
        for one in tape.passes():
            shown(one)
    found = scatter([*sums, *of_state, *of_buffers], flags.all, [None] * len(avals))
    linear = [x if x is None else once([x])[0] for x in pick(found, given.all)]
    return [*linear, *none[len(linear) :]]


_tangent_p.def_impl(_tangent_forward)
_tangent_p.def_abstract_eval(_tangent_abstract)
mlir.register_lowering(_tangent_p, mlir.lower_fun(_tangent_forward, multiple_results=True))
ad.primitive_jvps[_tangent_p] = _tangent_jvp
ad.primitive_transposes[_tangent_p] = _transpose


#
# Batching
#


def _to_place(args: Sequence[Any], dims: Sequence[Any], places: Sequence[int]) -> list[Any]:
    return [x if d is None else jnp.moveaxis(x, d, to) for x, d, to in zip(args, dims, places, strict=True)]


def batch_loop(axis: Any, args: Sequence[Any], dims: Sequence[Any], *, program: Program) -> tuple[list[Any], list[Any]]:
    """Make one loop over the whole batch; what no lane changes on its own stays unbatched."""
    places, carry_places = lanes_at(program)
    args = _to_place(args, dims, places)
    operands, batched, carry_f = _batched(axis, args, [d is not None for d in dims], program)
    outputs = loop_p.bind(*operands, program=batched)
    return outputs, [to if f else None for f, to in zip(carry_f, carry_places, strict=True)]


def _batched(
    axis: Any, args: Sequence[Any], flags: Sequence[bool], program: Program
) -> tuple[list[Any], Program, list[bool]]:
    """Batch a loop whose flagged operands have one more axis, in its place; returns flags of the carry too."""
    if program.counted is not None:
        return program.counted.batched(axis, args, flags, program)
    cond_f, body_f, predict_f, expected_f, state_f, buffer_f = groups(flags, program.sizes)
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
    return [*cond_c, *body_c, *predict_c, expected, *carry], batched, carry_f


def _batch_pushed(axis: Any, args: Sequence[Any], dims: Sequence[Any], *, how: Pushed) -> tuple[list[Any], list[Any]]:
    """Batch a loop with tangents, primals apart where they are not mapped and tangents are."""
    program, given = how.program, how.given
    places, carry_places = lanes_at(program)
    moved_places = pick([*groups(places, program.sizes)[1], *carry_places], given.all)
    whole = [0] * len(args)
    whole[: len(places)] = places
    whole[how.operands : how.operands + len(moved_places)] = moved_places
    args, flags = _to_place(args, dims, whole), [d is not None for d in dims]
    (own, tangents), (own_f, tangents_f) = how.cut(args), how.cut(flags)
    operands, batched, carry_f = _batched(axis, own, own_f, program)
    wide = pick([*groups(own_f, program.sizes)[1], *carry_f], given.all)
    if all(w or not f for w, f in zip(wide, tangents_f, strict=True)) and perturbed(batched, given) == how.moving:
        tangents = [
            with_lanes(t, to, axis.size) if w and not f else t
            for t, w, f, to in zip(tangents, wide, tangents_f, moved_places, strict=True)
        ]
        outputs = pushed_p.bind(*operands, *tangents, how=_pushed(batched, given, how.moving))
        out_dims = [to if f else None for f, to in zip(carry_f, carry_places, strict=True)]
        return outputs, [*out_dims, *pick(out_dims, how.moving.carry)]
    operands = operands_with_tangents(how, args, jnp.zeros_like)
    # Zeros are mapped where what they are shaped like is.
    flags = operands_with_tangents(how, flags, lambda flag: flag)
    both = with_tangents(program, how.moving)
    places, _ = lanes_at(both)
    outputs, dims = batch_loop(
        axis, operands, [to if f else None for f, to in zip(flags, places, strict=True)], program=both
    )
    return in_order(how, outputs), in_order(how, dims)


def _batch_tangent(
    axis: Any, args: Sequence[Any], dims: Sequence[Any], **params: Any
) -> tuple[list[Any], list[int | None]]:
    """Map the forward-mode computation, which is plain JAX; in reverse mode only the transpose is ever batched."""
    args = _to_place(args, dims, [0] * len(args))
    out = vmap_flat(lambda *a: _tangent_forward(*a, **params), axis, [d is not None for d in dims])(*args)
    return out, [0] * len(out)


batching.fancy_primitive_batchers[loop_p] = batch_loop
batching.fancy_primitive_batchers[pushed_p] = _batch_pushed
batching.fancy_primitive_batchers[_tangent_p] = _batch_tangent


#
# Checking
#


def _check_loop(*operands: Any, program: Program, enabled: Any) -> tuple[list[Any], list[Any]]:
    return checked(loop_p.bind, operands, program, enabled)


def _check_pushed(*args: Any, how: Pushed, enabled: Any) -> tuple[list[Any], list[Any]]:
    operands = operands_with_tangents(how, args, jnp.zeros_like)
    found, outputs = checked(loop_p.bind, operands, with_tangents(how.program, how.moving), enabled)
    return found, in_order(how, outputs)


def _refuse_files(*, program: Program, **params: Any) -> None:
    del params
    if program.windows is not None and program.windows.tier == "disk":
        raise NotImplementedError(
            'A solve with windows in a file (`tier="disk"`) cannot be differentiated inside `jax.checkpoint` here. '
            "This version of JAX would write the file in vain as well. "
            "Leave `jax.checkpoint` out (the solve is checkpointed already), or install jax>=0.11."
        )


let_checks_out(loop_p, _check_loop)
let_checks_out(pushed_p, _check_pushed)
if not DROPS_UNUSED_CARRY:
    refuse_in_remat(_tangent_p, _refuse_files)
