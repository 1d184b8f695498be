"""What Diffrax's own adjoint executes, step for step, as plain integers: the search orders its trials by it.

Diffrax's `RecursiveCheckpointAdjoint` runs Equinox's checkpointed loop. Its first sweep places checkpoints online:
as in

    Stumm and Walther 2010, New algorithms for optimal online checkpointing (Algorithm I),

while fewer than (c+1)(c+2)/2 steps have been made, and as in

    Wang, Moin and Iaccarino 2009, Minimal repetition dynamic checkpointing algorithm

after that. Its reversal halves each gap, which is optimal only where the gap fits the free slots. The counts are not
monotone in c, so nothing here may be interpolated. A test counts the real loop's calls and compares.

Known inefficiency: placement and reversal are simulated store by store, a second for some hundred thousand steps.
"""

import functools
import heapq

NEVER = 2**62
MOST_SIMULATED = 50_000
"""Solves up to this many steps are counted exactly where a bound is needed."""


@functools.lru_cache(maxsize=4096)
def stock_executed_steps(steps: int, checkpoints: int) -> int:
    """Count all passes of the body: first sweep, recomputation, and one taped pass for each reversed step."""
    if steps < 1:
        return 0
    if checkpoints >= steps:
        return 2 * steps
    return 2 * steps + _recomputed(steps, _first_sweep(steps, checkpoints), checkpoints)


def stock_most_executed_steps(steps: int, checkpoints: int) -> int | None:
    """Bound what it executes at any length: exact up to MOST_SIMULATED steps, from above in Algorithm I's range.

    There no step is advanced more than once in the backward pass, and none whose state the first sweep left stored:
    3 steps - checkpoints in all. None for longer solves, about which only a simulation would say anything.
    """
    if steps <= MOST_SIMULATED or checkpoints >= steps:
        return stock_executed_steps(steps, checkpoints)
    return 3 * steps - checkpoints if 2 * steps < (checkpoints + 1) * (checkpoints + 2) else None


def _first_sweep(steps: int, slots: int) -> list[int]:
    """Return the steps whose states the first sweep leaves stored, ascending; unused slots hold NEVER."""
    online_until = (slots + 1) * (slots + 2) // 2 - 1
    stored = _stumm_walther(min(steps, online_until), slots)
    if steps > online_until and slots > 1:
        _wang_moin(stored, range(online_until, steps))
    return sorted(stored)


def _stumm_walther(steps: int, slots: int) -> list[int]:
    """Fill slots in runs: a run of stored steps, then a jump of one slot fewer, overwriting from the second slot on."""
    stored = [NEVER] * slots
    slot, run_end, gap, saving = 0, slots, slots, True
    for step in range(steps):
        at = slot
        if saving:
            slot += 1
            if slot > gap:
                slot = 1
            stored[at] = step
        if step + 1 == run_end:
            saving = False
        if step == run_end:
            run_end += gap
            gap -= 1
            slot, saving = gap, gap > 0
    return stored


def _wang_moin(stored: list[int], steps: range) -> None:
    """Replace the latest dispensable state, or raise the level of the latest state, once for each further step."""
    levels = [NEVER] + [0] * (len(stored) - 1)
    dispensable: list[tuple[int, int]] = []  # (-step, slot): a heap with the latest first
    latest = max(range(len(stored)), key=lambda slot: stored[slot])
    for step in steps:
        if dispensable:
            _, at = heapq.heappop(dispensable)
            levels[at] = 0
        else:
            at = latest
            dispensable = [(-stored[slot], slot) for slot, level in enumerate(levels) if level < levels[at]]
            heapq.heapify(dispensable)
            levels[at] += 1
        stored[at] = step
        latest = at


def _recomputed(steps: int, first_sweep: list[int], slots: int) -> int:
    """Reverse all steps from the stored ones; return how many untaped passes that takes."""
    stored = list(first_sweep)
    free = min(steps, slots)
    passes = 0
    for target in range(steps, 0, -1):
        latest = max(free - 1, 0)
        at = stored[latest]
        if at + 1 == target:
            free = latest
            continue
        while (following := _next_stored(at, target, free, slots)) < target - 1:
            passes += following - at
            at = following
            stored[free] = at
            free += 1
        passes += target - 1 - at
        if stored[free - 1] + 1 == target:
            free -= 1
    return passes


def _next_stored(at: int, target: int, free: int, slots: int) -> int:
    """Return the next step to store on the way from `at` to the taped pass that ends at `target`."""
    if free == slots or at + 2 >= target:
        return NEVER
    return at + 1 if target - at - 2 <= slots - free else at + (target - at) // 2
