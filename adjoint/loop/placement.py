"""The arithmetic of `adjoint.theory.schedule` in the compiled loop: where checkpoints go, on traced 32-bit integers.

Every function works elementwise on integer arrays of any common shape. No tables, no gathers: a few divisions each,
since they run once for every stored state, never once for every step. Products are kept within 32 bits by dividing
first; where a binomial would not fit it saturates, which costs steps (for solves of more than 10^8 steps) and never
correctness.
"""

from typing import Any, NamedTuple

import jax.lax as lax
import jax.numpy as jnp

from ..theory.schedule import GROWTH_SHIFT
from ..theory.switching import FEW_SLOTS

INT = jnp.int32
NEVER = 2**31 - 1
"""The step of a slot that holds nothing."""
FARTHEST = 2
"""No estimate is planned for that is more than so many times the steps made: one that was too small costs little, one
that was too large leaves slots empty."""


def _times_ratio(x: Any, numerator: Any, denominator: Any) -> Any:
    """Compute x * numerator / denominator where that is an integer, without the product x * numerator."""
    # lax.div and lax.rem: nothing here is negative, and the // of numpy compiles to several times the code.
    x, numerator, denominator = jnp.broadcast_arrays(x, numerator, denominator)
    return lax.div(x, denominator) * numerator + lax.div(lax.rem(x, denominator) * numerator, denominator)


def next_block(block: Any, slots: Any, r: Any) -> Any:
    """Compute binom(slots + r, slots) from binom(slots + r - 1, slots), NEVER where 32 bits do not hold it.

    Args:
        block: integer array, the binomial before.
        slots: integer array.
        r: integer array, at least 1.
    """
    fits = lax.div(block, r) <= lax.div(jnp.full_like(block, NEVER), slots + r) - 1
    return jnp.where(fits, _times_ratio(block, slots + r, r), NEVER)


def repetition(length: Any, slots: Any) -> tuple[Any, Any]:
    """Find the repetition number r of blocks and binom(slots + r, slots), as `adjoint.theory.schedule.repetition`.

    Args:
        length: integer array, steps of the block.
        slots: integer array of the same shape, at least 1.

    Returns:
        Two integer arrays; for one slot (length - 1, length).
    """
    length, slots = jnp.asarray(length, INT), jnp.asarray(slots, INT)
    single = slots == 1

    def short(carry):
        _, block = carry
        return jnp.any(~single & (block < length))

    def grow(carry):
        r, block = carry
        following = r + 1
        larger = next_block(block, slots, following)
        move = block < length
        return jnp.where(move, following, r), jnp.where(move, larger, block)

    zero = jnp.zeros_like(length)
    r, block = lax.while_loop(short, grow, (zero, zero + 1))
    return jnp.where(single, jnp.maximum(length - 1, 0), r), jnp.where(single, length, block)


def split(length: Any, slots: Any, r: Any, block: Any) -> Any:
    """Find the largest optimal distance from the start of a block to its next checkpoint, as `schedule.split`.

    Args:
        length: integer array, at least 2 where the result is used.
        slots: integer array, at least 2 where the result is used.
        r: repetition number of the block, or one more where both are optimal.
        block: binom(slots + r, slots).

    Returns:
        Integer array, within 1..length-1.
    """
    left = _times_ratio(block, r, slots + r)
    right = _times_ratio(_times_ratio(block, slots, slots + r), r, jnp.maximum(slots + r - 1, 1))
    return jnp.maximum(jnp.minimum(jnp.minimum(left, length - right), length - 1), 1)


def inside(slots: Any, r: Any, block: Any) -> tuple[Any, Any, Any]:
    """Give the binomials of the two halves of a split block, without a search.

    Args:
        slots: integer array, slots of the block.
        r: its repetition number.
        block: binom(slots + r, slots).

    Returns:
        binom(slots + r - 1, slots) for the near half, whose repetition number is r - 1; and for the far half, which
        has one slot less, its repetition number r and binom(slots - 1 + r, slots - 1).
    """
    return _times_ratio(block, r, slots + r), r, _times_ratio(block, slots, slots + r)


def _advances(length: Any, slots: Any, r: Any, block: Any) -> Any:
    """Count advances t(length, slots) as float32: exact below 2^24, and only compared."""
    # binom(s + r, s + 1) = binom(s + r, s) r / (s + 1); with one slot it is L (L - 1) / 2, too large for 32 bits.
    wide = length.astype(jnp.float32)
    several = r.astype(jnp.float32) * wide - _times_ratio(block, r, slots + 1).astype(jnp.float32)
    return jnp.where(length <= 1, 0.0, jnp.where(slots == 1, 0.5 * wide * (wide - 1), several))


class Aim(NamedTuple):
    """Where the forward sweep stands: the target it places for, the rank of the newest checkpoint (-1 for none yet)."""

    target: Any
    top: Any


def first_target(expected_steps: Any, checkpoints: int) -> Any:
    """Choose the target to begin with: what is expected, at least `checkpoints`.

    Args:
        expected_steps: integer scalar, 0 where nothing is expected.
        checkpoints: slots.

    Returns:
        Integer scalar.
    """
    return jnp.maximum(jnp.asarray(expected_steps, INT), checkpoints)


def beyond(target: Any) -> Any:
    """Grow a target that has been passed."""
    return target + jnp.maximum((target + (1 << GROWTH_SHIFT >> 1)) >> GROWTH_SHIFT, 1)


def repetition_by_rank(lengths: Any, widths: Any) -> tuple[Any, Any]:
    """Find repetition numbers where the last axis is the rank: only the last ranks, with few slots, need many turns."""
    if lengths.shape[-1] <= 2 * FEW_SLOTS:
        return repetition(lengths, widths)
    first, last = (slice(None, -FEW_SLOTS), slice(-FEW_SLOTS, None))
    parts = [repetition(lengths[..., part], widths[..., part]) for part in (first, last)]
    r, block = (jnp.concatenate(found, axis=-1) for found in zip(*parts, strict=True))
    return r, block


def retarget(plan: Aim, target: Any, step: Any, steps: Any) -> Aim:
    """Move the target, and take back the newest checkpoints as far as that pays.

    Args:
        plan: where the sweep stands.
        target: integer scalar, the next target, above `step`.
        step: integer scalar, the current step.
        steps: integer array (checkpoints,), the step stored in each slot.

    Returns:
        The plan for the next target; ties keep the fewest checkpoints.
    """
    checkpoints = steps.shape[0]
    rank = jnp.arange(checkpoints, dtype=INT)
    held = rank <= plan.top
    start = jnp.where(held, steps, step)
    stop = jnp.where(rank < plan.top, jnp.roll(start, -1), step)
    slots = checkpoints - rank
    fewer = jnp.maximum(slots - 1, 1)
    lengths = [stop - start, target - start, step - start, jnp.broadcast_to(target - step, start.shape)]

    def weighed(length, width):
        r, block = repetition_by_rank(length, width)
        whole = (slots == 1) | (length < 2) | (start + split(length, width, r, block) >= step)
        return _advances(length, width, r, block), whole

    if checkpoints <= 2 * FEW_SLOTS:
        counts, whole = weighed(jnp.stack(lengths), jnp.stack([slots, slots, slots, fewer]))
    else:  # one after the other: together they take more than the states where these are small
        counts, whole = lax.map(
            lambda k: weighed(lax.select_n(k, *lengths), jnp.where(k == 3, fewer, slots)), jnp.arange(4)
        )
    (between, open_end, passed, ahead), free = counts, whole[1]
    rest = jnp.where(
        free,
        open_end - (lengths[1] - 1).astype(jnp.float32),
        passed + ahead - (lengths[3] - 1).astype(jnp.float32),
    )
    before = jnp.cumsum(between) - between
    cost = jnp.where(held, before + rest, jnp.inf)
    return Aim(target, jnp.argmin(cost).astype(INT))


def predicted(plan: Aim, estimate: Any, step: Any, checkpoints: int) -> Any:
    """Choose the next target from an estimate of the number of steps.

    Args:
        plan: where the sweep stands.
        estimate: integer scalar, at most `step` where nothing is known.
        step: integer scalar, the current step.
        checkpoints: slots. As many steps are all stored: to fewer nothing needs to be adapted.

    Returns:
        The target to place for: the estimate where it differs from the target by more than a sixteenth, else the
        target as it is, or grown where it has been passed.
    """
    estimate = jnp.minimum(estimate, jnp.where(step < NEVER // FARTHEST - 1, (step + 1) * FARTHEST, NEVER))
    usable = estimate > step
    estimate = jnp.maximum(estimate, checkpoints)
    differs = jnp.abs(estimate - plan.target) > (plan.target >> 4)
    passed = jnp.where(step >= plan.target, beyond(plan.target), plan.target)
    return jnp.where(usable & (differs | (step >= plan.target)), estimate, passed)


def next_look(step: Any, checkpoints: int) -> Any:
    """Choose when to estimate again: after a quarter more steps, or as many as there are checkpoints."""
    return step + jnp.maximum(step >> 2, max(checkpoints // 4, 4))


def following(plan: Aim, step: Any, newest: Any, checkpoints: int) -> tuple[Any, Any]:
    """Find where the forward sweep pauses next, and whether it stores a state there.

    Args:
        plan: where the sweep stands.
        step: integer scalar, the current step, below `plan.target`.
        newest: integer scalar, the step of the newest checkpoint.
        checkpoints: slots.

    Returns:
        The step to advance to, at most the target; True where a checkpoint goes there.
    """
    slots, length = checkpoints - plan.top, plan.target - newest
    r, block = repetition(length, slots)
    ahead = jnp.maximum(split(length, slots, r, block), step - newest)
    place = (slots > 1) & (length >= 2)
    pause = jnp.where(place, jnp.minimum(newest + ahead, plan.target), plan.target)
    return pause, place & (pause < plan.target)
