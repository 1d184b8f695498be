"""The forward and backward sweeps of a loop with windows; `adjoint.theory.windows` has the theory.

The forward sweep keeps the first state of the window it is in, and hands it over to the tier when it leaves the window
(a copy beside device slot 0: were it read from there, XLA would copy all slots). The last window, where its beginning
is foreseen, has its other checkpoints placed as in a loop without windows. The backward sweep reverses the last window
from the device slots, then fetches one first state after the other and reverses each window as a loop of its own.

Tier slots are not kept in the order of steps: `starts` (capacity,) holds the step of each, NEVER for an empty one.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.lax as lax
import jax.numpy as jnp

from ..theory.windows import block, least_repetition
from ..tiers.tiers import make_tier
from ..traced.analysis import is_inexact
from ..traced.kernel import in_one_kernel
from . import placement as placing
from . import reversal, sweeps
from .placement import INT, NEVER, Aim
from .program import Program
from .sweeps import Stored, Visited
from .tape import Tape


def run_storing(program: Program, args: Sequence[Any], visited: Visited) -> tuple[list[Any], Stored, list[Any]]:
    """Run a loop and keep what its backward sweep needs; as `sweeps.run_storing`, with windows where it has them."""
    if program.windows is None:
        return in_one_kernel(lambda *given: sweeps.run_storing(program, given, visited), *args)
    return _run_storing(program, args, visited)


def reverse(program: Program, tape: Tape, consts: Sequence[Any], stored: Stored, cotangents: Any) -> Any:
    """Carry cotangents from the end of a loop to its beginning; as `reversal.reverse`."""
    if program.windows is None:
        return in_one_kernel(functools.partial(reversal.reverse, program, tape), consts, stored, cotangents)
    return _reverse(program, tape, consts, stored, cotangents)


def push_forward(program: Program, tape: Tape, consts: Sequence[Any], stored: Stored, tangents: Any) -> Any:
    """Carry tangents from the beginning of a loop to its end; as `reversal.push_forward`."""
    if program.windows is not None:
        base = _base(stored)
        slots, _ = _fetch_if(base > 0, program, stored.tier, stored.slots, INT(1))
        stored = stored._replace(slots=slots)
    return reversal.push_forward(program, tape, consts, stored, tangents)


def tier_arrays(program: Program, count: int) -> int:
    """Return how many arrays of `Stored` stand for the tier, for states of `count` leaves."""
    return 0 if program.windows is None else 1 + make_tier(program.windows).arrays(count)


#
# Planning, on traced integers
#


class _Window(NamedTuple):
    """The window that the sweep is in: its first step and its end, whether it is the last one foreseen; the target."""

    start: Any
    stop: Any
    last: Any
    target: Any


class _Storing(NamedTuple):
    """A forward sweep that hands the first states of windows over.

    `window` is where the sweep stands, with `aim`, `pending`, `steps` and `slots` as in `sweeps`, for the checkpoints
    within it. `starts` are the first steps of the windows that the tier holds, NEVER for none, `store` what stands for
    the tier, `leaving` the first state of the window at hand, which leaves for the tier when the window ends.
    """

    window: _Window
    aim: Aim
    pending: Any
    steps: Any
    starts: Any
    store: list[Any]
    leaving: list[Any]
    slots: list[Any]
    forward: sweeps.Forward


class _Reversing(NamedTuple):
    """A backward sweep over windows: what is left of the solve, where the window at hand begins, what it holds."""

    end: Any
    start: Any
    top: Any
    steps: Any
    slots: list[Any]
    cotangents: Any


def plan_windows(steps: Any, checkpoints: int, capacity: int, transfer_cost: float) -> tuple[Any, Any, Any]:
    """Cut a solve, as `adjoint.theory.windows.plan_windows`.

    Args:
        steps: integer scalar, at least 1.
        checkpoints: states held on the device.
        capacity: states that the tier may hold.
        transfer_cost: of one hand-over and one fetch, in steps.

    Returns:
        Integer scalars: the width of all windows but the last, how many are one longer, and the length of the last.
    """
    least = least_repetition(checkpoints, transfer_cost)
    one, each = (INT(min(block(r, checkpoints), NEVER)) for r in (least + 1, least))
    beyond_one = jnp.maximum(steps - one, 0)
    windows = jnp.minimum(1 + lax.div(beyond_one, each) + (lax.rem(beyond_one, each) > 0).astype(INT), capacity + 1)
    # The last of them may take too few steps to pay.
    both = jnp.stack([jnp.maximum(windows - 1, 1), windows])
    slope, shortest, below, longest = _slopes(steps, checkpoints, both)
    # What so many windows cost beyond 2 steps + 1, as in `adjoint.theory.windows`; float32, since it is only compared.
    cost = slope.astype(jnp.float32) * steps.astype(jnp.float32)
    cost = cost - (both - 1).astype(jnp.float32) * _segment(slope, below, checkpoints)
    cost = cost - _segment(slope + 1, longest, checkpoints)
    saved = cost[0] - cost[1]
    pick = jnp.where(saved > transfer_cost, 1, 0)
    windows, shortest, longest = both[pick], jnp.maximum(shortest[pick], 1), longest[pick]
    others = windows - 1
    last = jnp.where(others > 0, jnp.minimum(longest, steps - others * shortest), steps)
    share = jnp.maximum(others, 1)
    return lax.div(steps - last, share), lax.rem(steps - last, share), last


def _segment(slope: Any, at: Any, checkpoints: int) -> Any:
    """Compute binom(c + slope, c + 1) as float32 from binom(c + slope, c)."""
    return at.astype(jnp.float32) * (slope.astype(jnp.float32) / (checkpoints + 1))


def _slopes(steps: Any, checkpoints: int, windows: Any) -> tuple[Any, Any, Any, Any]:
    """Find the slope R that the windows share, and binom(c + R - 1, c), binom(c + R, c), binom(c + R + 1, c)."""
    others = windows - 1

    def short(carry):
        _, _, at, longest = carry
        left = jnp.maximum(steps - longest, 0)
        return (left > 0) & ((others == 0) | (at < lax.div(left - 1, jnp.maximum(others, 1)) + 1))

    def grow(carry):
        slope, _, at, longest = carry
        larger = placing.next_block(longest, jnp.full_like(slope, checkpoints), slope + 2)
        moved = slope + 1, at, longest, larger
        return tuple(jnp.where(short(carry), new, old) for new, old in zip(moved, carry, strict=True))

    zero = jnp.zeros_like(windows)
    init = zero, zero, zero + 1, zero + checkpoints + 1
    slope, shortest, at, longest = lax.while_loop(lambda carry: jnp.any(short(carry)), grow, init)
    return slope, shortest, at, longest


def _following(program: Program, start: Any, held: Any, target: Any, sure: Any, capacity: int) -> _Window:
    """Choose the window that begins at `start`, after `held` others; `sure` where the target was foreseen."""
    assert program.windows is not None
    cost = program.windows.transfer_cost
    target = jnp.where(start >= target, placing.beyond(target), target)
    width, longer, last = plan_windows(target, program.checkpoints, capacity, cost)
    is_last = sure & (start >= target - last)
    planned = jnp.minimum(start + width + (held < longer).astype(INT), target - last)
    fewest = min(block(least_repetition(program.checkpoints, cost), program.checkpoints), NEVER // 4)
    share = lax.div(target - 1, jnp.full_like(target, capacity + 1)) + 1
    open_end = start + jnp.maximum(share, fewest)
    stop = jnp.where(is_last, target, jnp.where(sure, planned, open_end))
    return _Window(start, stop, is_last, target)


def _dropped(starts: Any, start: Any, stop: Any) -> Any:
    """Choose which of the held starts and `start` gives way in a full tier, as `adjoint.theory.windows` does."""
    held = jnp.sort(jnp.concatenate([starts, start[None]]))
    after = jnp.concatenate([held[1:], stop[None]])
    pairs = after[1:] - held[:-1]
    return held[1 + jnp.argmin(pairs)]


#
# Sweeping
#


def _run_storing(program: Program, args: Sequence[Any], visited: Visited) -> tuple[list[Any], Stored, list[Any]]:
    given = sweeps.operands_of(program, args)
    checkpoints, options = program.checkpoints, program.windows
    assert options is not None
    first = visited.held(INT(0), given.state)
    capacity = options.capacity(first, program.max_steps)
    tier = make_tier(options)
    opened = tier.open(capacity, first, [x for x in args if is_inexact(jax.typeof(x))])

    def hand_over(pred, window, stop, starts, store, values):
        def once(carry):
            starts, store = carry
            full = jnp.all(starts != NEVER)
            gone = jnp.where(full, _dropped(starts, window.start, stop), NEVER)

            def write(carry):
                starts, store = carry
                slot = jnp.argmax(starts == gone).astype(INT)
                store = tier.write(store, values, slot, capacity)
                return sweeps.update(starts, window.start, slot, 0), store

            return sweeps.once_if(gone != window.start, write, (starts, store))

        return sweeps.once_if(pred, once, (starts, store))

    def body(carry):
        window, aim, pending, steps, starts, store, leaving, slots, forward = carry
        position = visited.position(forward.step, forward.state)
        ended = position >= window.stop
        starts, store = hand_over(ended & (position > 0), window, position, starts, store, leaving)
        values = visited.held(position, forward.state)
        leaving = [jnp.where(ended, new, old) for new, old in zip(values, leaving, strict=True)]
        target = window.target
        if visited.predicts:
            estimate = visited.estimate(given, forward.state)
            target = jnp.where(ended, placing.predicted(Aim(target, aim.top), estimate, position, checkpoints), target)
        held = jnp.sum(starts != NEVER, dtype=INT)
        # A conditional costs a round trip on a GPU, planning a window a few loops; windows are long.
        window = lax.cond(
            ended,
            lambda window, target: _following(program, position, held, target, expected > 0, capacity),
            lambda window, target: window,
            window,
            target,
        )
        first = position + placing.first_target(window.target - position, checkpoints)
        aim = Aim(jnp.where(ended, first, aim.target), jnp.where(ended, -1, aim.top))
        steps = jnp.where(ended, NEVER, steps)
        pending = pending | ended
        slot = aim.top + pending.astype(INT)
        steps, *slots = sweeps.store_if(pending, [steps, *slots], [position, *values], slot)
        aim = Aim(aim.target, slot)
        pause, pending = placing.following(aim, position, sweeps.index(steps, slot), checkpoints)
        pending = pending & window.last & (pause < window.stop)
        pause = jnp.where(pending, pause, window.stop)
        forward = sweeps.advance(program, given, visited, pause, forward)
        return _Storing(window, aim, pending, steps, starts, store, leaving, slots, forward)

    expected = sweeps.expected_steps(program, given)
    least = least_repetition(checkpoints, options.transfer_cost)
    target = jnp.where(expected > 0, expected, min(block(least + 1, checkpoints), NEVER // 4))
    init = _Storing(
        window=_Window(INT(0), INT(0), jnp.array(False), target),
        aim=Aim(INT(NEVER), INT(-1)),
        pending=jnp.array(False),
        steps=jnp.full((checkpoints,), NEVER, INT),
        starts=jnp.full((capacity,), NEVER, INT),
        store=opened,
        leaving=first,
        slots=sweeps.empty_slots(program, first),
        forward=sweeps.beginning(given, visited),
    )
    done = lax.while_loop(lambda carry: sweeps.goes_on(program, given, carry.forward), body, init)
    count = visited.count(done.forward.step, done.forward.record)
    stored = Stored(count, done.aim.top, done.steps, done.slots, [done.starts, *done.store])
    return [*done.forward.state, *done.forward.buffers], stored, done.forward.record


def _base(stored: Stored) -> Any:
    """Return the first step of the window that the device slots hold."""
    return jnp.where(stored.count > 0, sweeps.index(stored.steps, INT(0)), 0)


def _fetch_if(
    pred: Any, program: Program, tier_arrays: Sequence[Any], slots: list[Any], before: Any
) -> tuple[list[Any], Any]:
    """Fetch the newest first state that stands before a step into device slot 0, where `pred`; and its step."""
    assert program.windows is not None
    tier = make_tier(program.windows)
    starts, *store = tier_arrays

    def newest(before):
        return jnp.max(jnp.where(starts < before, starts, -1))

    start = jnp.where(pred, newest(before), 0)
    ahead = newest(start)
    held = [jax.ShapeDtypeStruct(xs.shape[1:], xs.dtype) for xs in slots]

    def fetch(slots):
        slot, then = (jnp.argmax(starts == step).astype(INT) for step in (start, ahead))
        values = tier.read(store, held, slot, jnp.where(ahead >= 0, then, -1))
        return sweeps.store(slots, values, INT(0))

    return sweeps.once_if(pred, fetch, slots), start


def _reverse(program: Program, tape: Tape, consts: Sequence[Any], stored: Stored, cotangents: Any) -> Any:
    assert program.windows is not None
    checkpoints = program.checkpoints
    alone = jnp.full((checkpoints,), NEVER, INT)

    def body(carry):
        end, start, top, steps, slots, cotangents = carry
        window = Stored(end, top, steps, slots, [])
        slots, cotangents = reversal.reverse_block(program, tape, consts, window, cotangents, start)
        slots, before = _fetch_if(start > 0, program, stored.tier, slots, start)
        return _Reversing(start, before, INT(0), sweeps.update(alone, before, 0, 0), slots, cotangents)

    top = jnp.maximum(stored.top, 0)
    init = _Reversing(stored.count, _base(stored), top, stored.steps, stored.slots, cotangents)
    return lax.while_loop(lambda carry: carry.end > 0, body, init).cotangents
