"""The theory of checkpoint schedules, as plain integers; nothing here imports JAX.

Words: a schedule reverses `steps` steps with `checkpoints` states held at once, the initial state included. A block is
the run of steps between one checkpoint and the next (or the end); the checkpoint at rank k of the stack (rank 0 is the
initial state) leaves `checkpoints - k` slots for its block, its own included.

Sources. The best offline schedule and its split: Griewank and Walther (2000), "Algorithm 799: revolve", ACM TOMS 26(1),
section 2; with s slots and repetition r a block of up to binom(s + r, s) steps is reversed with every step advanced at
most r times, and t(L, s) = r L - binom(s + r, s + 1) advances in all, r being the smallest number whose block holds L.
Placement while the number of steps is not known: planned for a target which grows by an eighth each time it is passed;
the newest checkpoints are then taken back as far as the new target makes that pay (compare Wang, Moin and Iaccarino
(2009), SIAM J. Sci. Comput. 31(4), whose dynamic schedule evicts one checkpoint at a time, and Stumm and Walther
(2010), SIAM J. Sci. Comput. 32(2)). Optimal once the target is exact; the worst case over targets is tabulated in
tests/adjoint.

`adjoint.loop.placement` is the same arithmetic inside the compiled loop; tests hold the two together.

Known inefficiency: the forward sweep runs past the last checkpoint to the end, so the last block is advanced once more
than in the offline schedule, which never runs the last step forward: at most the repetition number of steps in all.
"""

import bisect
import dataclasses
import functools
import math
from collections.abc import Iterator

_FEW_REPETITIONS = 64
"""Up to here repetition numbers are counted one by one."""
GROWTH_SHIFT = 3
"""A target that is passed grows by itself shifted right by this much and rounded, so by an eighth."""


def _check(steps: int, checkpoints: int) -> None:
    if steps < 0:
        raise ValueError(f"steps must be at least 0, got {steps}.")
    if checkpoints < 1:
        raise ValueError(f"Must have at least one checkpoint, got checkpoints={checkpoints}.")


def repetition(steps: int, slots: int) -> int:
    """Find the repetition number: the smallest r with binom(slots + r, slots) >= steps.

    Args:
        steps: length of the block, at least 0.
        slots: states that may be held for it, at least 1.

    Returns:
        How often a step of the block is advanced at most in its optimal reversal.
    """
    if slots == 1:
        return max(steps - 1, 0)
    r, block = 0, 1
    while block < steps and r < _FEW_REPETITIONS:
        r += 1
        block = block * (slots + r) // r
    if block >= steps:
        return r
    # Few slots for very many steps: r grows with the root of the steps, and is searched for by halves.
    high = 2 * r
    while math.comb(slots + high, slots) < steps:
        high *= 2
    return bisect.bisect_left(range(high), steps, lo=r, key=lambda r: math.comb(slots + r, slots))


@functools.lru_cache(maxsize=1 << 16)
def advances(steps: int, slots: int) -> int:
    """Count the advances t(steps, slots) of the optimal offline reversal of a block (Griewank and Walther 2000, eq. 2).

    Args:
        steps: length of the block, at least 0.
        slots: states that may be held, the one at the start of the block included, at least 1.

    Returns:
        Body evaluations that only move the state forward, taped steps not counted.
    """
    if steps <= 1:
        return 0
    r = repetition(steps, slots)
    return r * steps - math.comb(slots + r, slots + 1)


def split(steps: int, slots: int) -> int:
    """Find where the next checkpoint goes in a block: the largest optimal distance from its start.

    Any m with binom(s+r-2, s) <= m <= binom(s+r-1, s) and binom(s+r-2, s-1) <= L-m <= binom(s+r-1, s-1) is optimal; the
    largest leaves the shortest block at the end, which the forward sweep has to repeat.

    Args:
        steps: length of the block, at least 2.
        slots: states that may be held, at least 2.

    Returns:
        A distance in 1..steps-1.
    """
    r = repetition(steps, slots)
    left = math.comb(slots + r - 1, slots) if r >= 1 else 0
    right = math.comb(slots + r - 2, slots - 1) if r >= 1 else 0
    return max(min(left, steps - right, steps - 1), 1)


def optimal_steps(steps: int, checkpoints: int) -> int:
    """Count the body evaluations of the best schedule that knows the number of steps beforehand.

    `steps` taped evaluations, one more for the last step, which the forward pass must run to return its value, and
    t(steps, checkpoints) advances (Griewank and Walther 2000).

    Args:
        steps: steps of the solve, at least 0.
        checkpoints: states held at once, the initial state included, at least 1.

    Returns:
        The number of evaluations; 0 for no steps.

    Raises:
        ValueError: for negative steps or fewer than one checkpoint.
    """
    _check(steps, checkpoints)
    if steps == 0:
        return 0
    return steps + 1 + advances(steps, checkpoints)


def default_checkpoints(max_steps: int) -> int:
    """Choose the count used when none is given: about sqrt(2 max_steps).

    The smallest c with max_steps < (c + 1)(c + 2) / 2, so that every step is advanced at most once in the backward pass
    (Stumm and Walther 2010, eq. 2.2). The code of Diffrax takes the same number; its documentation says log(max_steps).

    Args:
        max_steps: the bound on the number of steps, at least 1.

    Returns:
        A count of at least 1: 90 for 4096.

    Raises:
        ValueError: for max_steps below 1.
    """
    if max_steps < 1:
        raise ValueError(f"max_steps must be at least 1, got {max_steps}.")
    if max_steps == 1:
        return 1
    # isqrt is exact where sqrt(2 max_steps + 1/4) is not.
    c = max((math.isqrt(8 * max_steps + 1) - 3) // 2 - 1, 1)
    while 2 * max_steps >= (c + 1) * (c + 2):
        c += 1
    return c


def beyond(target: int) -> int:
    """Grow a target that has been passed."""
    return target + max((target + (1 << GROWTH_SHIFT >> 1)) >> GROWTH_SHIFT, 1)


def _kept(stack: list[int], step: int, target: int, checkpoints: int) -> int:
    """Choose how many checkpoints of the stack to keep at `step` when the target moves; ties keep the fewest."""
    best, kept, before = None, 1, 0
    for k, start in enumerate(stack):
        slots, length = checkpoints - k, target - start
        if slots == 1 or length < 2 or start + split(length, slots) >= step:
            rest = advances(length, slots) - (length - 1)
        else:
            rest = advances(step - start, slots) + advances(target - step, slots - 1) - (target - step - 1)
        if best is None or before + rest < best:
            best, kept = before + rest, k + 1
        if k + 1 < len(stack):
            before += advances(stack[k + 1] - start, slots)
    return kept


def placement(steps: int, checkpoints: int, expected_steps: int | None = None) -> list[int]:
    """List where the checkpoints stand when the forward sweep of our loop ends after `steps` steps.

    Args:
        steps: what the solve turns out to take, at least 0.
        checkpoints: states held at once, at least 1.
        expected_steps: what it was expected to take; None where nothing was.

    Returns:
        Increasing step numbers, the first one 0; empty for no steps.

    Raises:
        ValueError: for negative steps or fewer than one checkpoint.
    """
    _check(steps, checkpoints)
    if steps == 0:
        return []
    target = max(expected_steps or 0, checkpoints)
    stack, step = [0], 0
    while True:
        if step >= target:
            target = beyond(target)
            del stack[_kept(stack, step, target, checkpoints) :]
        slots, length = checkpoints - len(stack) + 1, target - stack[-1]
        following = target
        if slots > 1 and length >= 2:
            following = min(stack[-1] + max(split(length, slots), step - stack[-1], 1), target)
        step = following
        if step >= steps:
            return stack
        if step < target and slots > 1:
            stack.append(step)


def executed_steps(steps: int, checkpoints: int, expected_steps: int | None = None) -> int:
    """Count the body evaluations that our loop really executes: first sweep, recomputation and taped steps.

    Args:
        steps: what the solve takes, at least 0.
        checkpoints: states held at once, the initial state included, at least 1.
        expected_steps: the prediction given to the loop; None where none was.

    Returns:
        2 * steps plus what is recomputed. At most `optimal_steps(steps, checkpoints)` plus the repetition number when
        `expected_steps == steps`.

    Raises:
        ValueError: for negative steps or fewer than one checkpoint.
    """
    _check(steps, checkpoints)
    if steps == 0:
        return 0
    if expected_steps == steps:
        # Largest splits leave a last block of r + 1 steps where n is all that r repetitions hold, else of r.
        r = repetition(steps, checkpoints)
        again = r + (steps == math.comb(checkpoints + r, r)) if r else 1
        return steps + advances(steps, checkpoints) + again
    ends = placement(steps, checkpoints, expected_steps)
    blocks = zip(ends, [*ends[1:], steps], strict=True)
    return 2 * steps + sum(advances(end - start, checkpoints - k) for k, (start, end) in enumerate(blocks))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """One action of the schedule.

    `kind` is "advance" (steps `start` to `stop` are run forward), "store" (the state at `start` goes to slot `slot`) or
    "reverse" (the step from `start` to `stop` is run taped and transposed; its state came from `slot` if `start` is
    stored there, else from an advance).
    """

    kind: str
    start: int
    stop: int
    slot: int


def schedule(steps: int, checkpoints: int, expected_steps: int | None = None) -> Iterator[Sweep]:
    """Generate every action of our loop in its order, forward sweep first.

    Args:
        steps: steps of the solve, at least 0.
        checkpoints: states held at once, at least 1.
        expected_steps: the prediction given to the loop; None where none was.

    Yields:
        The actions. Stores that the forward sweep makes and takes back again are left out.

    Raises:
        ValueError: for negative steps or fewer than one checkpoint.
    """
    stack = placement(steps, checkpoints, expected_steps)
    if not stack:
        return
    for slot, (start, stop) in enumerate(zip(stack, [*stack[1:], steps], strict=True)):
        yield Sweep(kind="store", start=start, stop=start, slot=slot)
        yield Sweep(kind="advance", start=start, stop=stop, slot=slot)
    end = steps
    while end > 0:
        step = stack[-1]
        while end - step > 1:
            slots = checkpoints - len(stack) + 1
            length = end - step
            ahead = split(length, slots) if slots > 1 and length > 2 else length - 1
            yield Sweep(kind="advance", start=step, stop=step + ahead, slot=len(stack) - 1)
            step += ahead
            if end - step > 1:
                stack.append(step)
                yield Sweep(kind="store", start=step, stop=step, slot=len(stack) - 1)
        yield Sweep(kind="reverse", start=step, stop=end, slot=len(stack) - 1)
        end = step
        if stack[-1] == end:
            stack.pop()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TreeNode:
    """One checkpoint of the tree: the block from `start` to `stop` is reversed from the state stored at `start`.

    `slot` is where the state is held, `parent` the index (in the list of nodes) of the checkpoint it was reached from,
    None for the initial state; `sweep` counts the advances made in the whole schedule before this node was stored.
    """

    start: int
    stop: int
    slot: int
    parent: int | None
    sweep: int


def schedule_tree(steps: int, checkpoints: int, expected_steps: int | None = None) -> list[TreeNode]:
    """List the checkpoints of a schedule as a tree, in the order in which they are stored.

    Args:
        steps: steps of the solve, at least 0.
        checkpoints: states held at once, at least 1.
        expected_steps: the prediction given to the loop; None where none was.

    Returns:
        One node for every store, the initial state first.

    Raises:
        ValueError: for negative steps or fewer than one checkpoint.
    """
    nodes: list[TreeNode] = []
    stack: list[int] = []
    end, sweeps = steps, 0
    for action in schedule(steps, checkpoints, expected_steps):
        if action.kind == "store":
            del stack[action.slot :]
            nodes.append(
                TreeNode(
                    start=action.start, stop=end, slot=action.slot, parent=stack[-1] if stack else None, sweep=sweeps
                )
            )
            stack.append(len(nodes) - 1)
        elif action.kind == "advance":
            sweeps += 1
        else:
            end = action.start
    return nodes
