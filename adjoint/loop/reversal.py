"""The backward loops as plain JAX: replaying from checkpoints and reversing, and pushing tangents forward.

Checkpoints lie as `adjoint.loop.sweeps` leaves them. Consecutive reversals run in one tight loop.

Known inefficiency: each reversed step evaluates the body once more inside its linearisation, even where the forward
sweep had just run it (the last step of the solve).
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.lax as lax
import jax.numpy as jnp

from . import placement as placing
from .placement import INT
from .program import Program
from .sweeps import Stored, index, load, store_if, update
from .tape import Tape


class _Marks(NamedTuple):
    """Of each checkpoint: its step, and the repetition number and binomial of the block up to the next one."""

    steps: Any
    repetition: Any
    block: Any


class _Reversing(NamedTuple):
    """A backward sweep.

    `end` is the first step that is reversed already, `step` and `state` where the replay stands, `top` the rank of the
    newest checkpoint, `marks` and `slots` what is held of each, `cotangents` what was carried back so far.
    """

    end: Any
    step: Any
    top: Any
    marks: _Marks
    slots: list[Any]
    state: list[Any]
    cotangents: Any


def reverse(program: Program, tape: Tape, consts: Sequence[Any], stored: Stored, cotangents: Any) -> Any:
    """Carry cotangents from the end of the loop to its beginning.

    Args:
        program: the loop.
        tape: what one reversed step computes.
        consts: closed-over values of the body.
        stored: from `run_storing`.
        cotangents: of the flagged state and buffers (`tape.state_flags`, `tape.buffer_flags`), and the accumulators of
            the flagged consts.

    Returns:
        Cotangents of the flagged initial state, buffers and consts, grouped alike.
    """
    if program.stores_everything:
        return _reverse_all(tape, consts, stored, cotangents)
    return reverse_block(program, tape, consts, stored, cotangents)[1]


def reverse_block(
    program: Program, tape: Tape, consts: Sequence[Any], stored: Stored, cotangents: Any, start: Any = 0
) -> tuple[list[Any], Any]:
    """Carry cotangents from the end of what is stored back to step `start`, where its first state stands.

    Returns:
        The slots, to be used again, and the cotangents; as `reverse` otherwise.
    """
    checkpoints = program.checkpoints
    rank = jnp.arange(checkpoints, dtype=INT)
    ends = jnp.where(rank < stored.top, jnp.roll(stored.steps, -1), stored.count)
    lengths = jnp.where(rank <= stored.top, ends - stored.steps, 0)
    # Where every step is stored, no block is split, and there may be many slots to no purpose.
    one = jnp.ones((checkpoints,), INT)
    repetition, blocks = lax.cond(
        jnp.any(lengths > 2), placing.repetition_by_rank, lambda *_: (one, one), lengths, checkpoints - rank
    )
    marks = _Marks(stored.steps, repetition, blocks)

    def body(carry):
        end, step, top, marks, slots, state, cotangents = carry
        slots_left, length = checkpoints - top, end - step
        r, block = (index(x, top) for x in marks[1:])
        halving = (slots_left > 1) & (length > 2)
        ahead = jnp.where(halving, placing.split(length, slots_left, r, block), length - 1)
        state = _replay(tape, consts, state, ahead)
        step = step + ahead
        storing = step < end - 1
        near, far_r, far_block = placing.inside(slots_left, r, block)
        marks = _Marks(
            marks.steps,
            update(marks.repetition, jnp.where(halving, r - 1, r), top, 0),
            update(marks.block, jnp.where(halving, near, block), top, 0),
        )
        top = top + storing.astype(INT)
        written = store_if(storing, [*marks, *slots], [step, far_r, far_block, *tape.stored(state)], top)
        marks, slots = _Marks(*written[:3]), written[3:]

        def adjacent(carry):
            end, step, _, _, _ = carry
            return (end > start) & (step == end - 1)

        def turn(carry):
            end, _, top, state, cotangents = carry
            cotangents = tape.transpose(consts, state, cotangents)
            end = end - 1
            spent = index(marks.steps, top) == end
            top = jnp.maximum(top - spent.astype(INT), 0)
            state = tape.restore(consts, load(slots, top))
            return end, index(marks.steps, top), top, state, cotangents

        end, step, top, state, cotangents = lax.while_loop(adjacent, turn, (end, step, top, state, cotangents))
        return _Reversing(end, step, top, marks, slots, state, cotangents)

    top = jnp.maximum(stored.top, 0)
    step = index(stored.steps, top)
    state = tape.restore(consts, load(stored.slots, top))
    init = _Reversing(stored.count, step, top, marks, stored.slots, state, cotangents)
    done = lax.while_loop(lambda carry: carry.end > start, body, init)
    return done.slots, done.cotangents


def _replay(tape: Tape, consts: Sequence[Any], state: list[Any], passes: Any) -> list[Any]:
    def body(carry):
        left, state = carry
        return left - 1, tape.replay(consts, state)

    return lax.while_loop(lambda carry: carry[0] > 0, body, (passes, state))[1]


def _reverse_all(tape: Tape, consts: Sequence[Any], stored: Stored, cotangents: Any) -> Any:
    def body(carry):
        end, cotangents = carry
        state = tape.restore(consts, load(stored.slots, end - 1))
        return end - 1, tape.transpose(consts, state, cotangents)

    return lax.while_loop(lambda carry: carry[0] > 0, body, (stored.count, cotangents))[1]


def push_forward(program: Program, tape: Tape, consts: Sequence[Any], stored: Stored, tangents: Any) -> Any:
    """Carry tangents from the beginning of the loop to its end, in forward mode.

    Args:
        program: the loop.
        tape: what one step computes.
        consts: closed-over values of the body.
        stored: from `run_storing`; only the initial state is read.
        tangents: of the flagged state, buffers and consts.

    Returns:
        Tangents of the flagged final state and buffers.
    """
    state = tape.restore(consts, load(stored.slots, 0))

    def body(carry):
        left, state, moved = carry
        state, moved = tape.push(consts, state, (*moved, tangents[2]))
        return left - 1, state, moved

    init = (stored.count, state, tuple(tangents[:2]))
    return lax.while_loop(lambda carry: carry[0] > 0, body, init)[2]
