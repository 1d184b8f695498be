"""The theory of windows: a solve cut into parts whose first states live in a slower tier; plain integers, no JAX.

The forward sweep hands the first state of a window to the tier when it leaves the window; the backward sweep fetches it
once, and reverses the window by the binomial schedule with all device checkpoints. The last window is never handed
over: its checkpoints are placed on the device by the forward sweep itself. With `c` checkpoints, windows of lengths
L_1..L_k and a transfer (one hand-over and one fetch) at the price of x steps, a solve of n steps costs

    n + 1 + (n - L_k) + t(L_1, c) + ... + t(L_k, c) + (k - 1) x

where t(L, c) = r L - binom(c + r, c + 1) are the advances of Griewank and Walther (2000), eq. 2, of slope r on
binom(c + r - 1, c)..binom(c + r, c). t is convex, so the best lengths share one slope R; the last window, which saves a
sweep, has R + 1. One more window of slope R saves binom(c + R, c + 1) steps, and pays while x is less.

Known inefficiencies: a window whose end was not foreseen is swept once more than it had to be; slots of the tier that
the backward sweep has emptied are not used again, which would cost more writes (compare H-Revolve, Herrmann and
Pallez (2020), ACM TOMS 46(2)).
"""

import collections
import dataclasses
import itertools
import math
from collections.abc import Sequence

from .schedule import advances, beyond, executed_steps


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class WindowPlan:
    """How a solve is cut.

    `windows` counts all of them; those before the last take `width` steps, the first `longer` of them one more; `last`
    is the length of the last one.
    """

    windows: int
    width: int
    longer: int
    last: int


def block(repetition: int, checkpoints: int) -> int:
    """Return the longest window that is reversed with every step advanced at most `repetition` times; 0 for none."""
    return math.comb(checkpoints + repetition, checkpoints) if repetition >= 0 else 0


def least_repetition(checkpoints: int, transfer_cost: float) -> int:
    """Find the repetition number below which no window pays for its transfer.

    Args:
        checkpoints: states held on the device, at least 1.
        transfer_cost: one hand-over and one fetch, in steps.

    Returns:
        The smallest R where a window of slope R + 1 would save more than it costs.
    """
    repetition = 0
    while math.comb(checkpoints + repetition + 1, checkpoints + 1) <= transfer_cost:
        repetition += 1
    return repetition


def plan_windows(steps: int, checkpoints: int, capacity: int, transfer_cost: float = 1.0) -> WindowPlan:
    """Cut a solve of a known number of steps at least cost; see the module's header.

    Args:
        steps: of the solve, at least 1.
        checkpoints: states held on the device, at least 1.
        capacity: states that the tier may hold, at least 1.
        transfer_cost: one hand-over and one fetch, in steps.

    Returns:
        The plan; ties take the fewest windows.
    """
    least = least_repetition(checkpoints, transfer_cost)
    beyond_one = steps - block(least + 1, checkpoints)
    windows = min(capacity + 1, 1 + max(0, -(-beyond_one // block(least, checkpoints))))
    # The last of them may take too few steps to pay.
    if windows > 1 and _cost(steps, checkpoints, windows - 1) - _cost(steps, checkpoints, windows) <= transfer_cost:
        windows -= 1
    if windows == 1:
        return WindowPlan(windows=1, width=0, longer=0, last=steps)
    slope = _slope(steps, checkpoints, windows)
    shortest = max(block(slope - 1, checkpoints), 1)
    last = min(block(slope + 1, checkpoints), steps - (windows - 1) * shortest)
    width, longer = divmod(steps - last, windows - 1)
    return WindowPlan(windows=windows, width=width, longer=longer, last=last)


def _slope(steps: int, checkpoints: int, windows: int) -> int:
    """Find the slope R that the best lengths of so many windows share."""
    slope = 0
    while (windows - 1) * block(slope, checkpoints) + block(slope + 1, checkpoints) < steps:
        slope += 1
    return slope


def _cost(steps: int, checkpoints: int, windows: int) -> int:
    """Count what so many windows of the best lengths cost beyond 2 steps + 1, transfers left out."""
    slope = _slope(steps, checkpoints, windows)
    saved = (windows - 1) * math.comb(checkpoints + slope, checkpoints + 1)
    return slope * steps - saved - math.comb(checkpoints + slope + 1, checkpoints + 1)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Windows:
    """Where the windows begin when the forward sweep has ended, and what it planned for the last one.

    `starts` are increasing step numbers, the first one 0; empty for no steps. `target` is the step that the checkpoints
    of the last window were placed for, None where it had none but its first state.
    """

    starts: tuple[int, ...]
    target: int | None


def place_windows(
    steps: int, checkpoints: int, capacity: int, expected_steps: int | None = None, transfer_cost: float = 1.0
) -> Windows:
    """Follow the forward sweep of our loop.

    Without a prediction windows take a share of what has been passed, which widens as the solve goes on; where the tier
    is full, the two neighbouring windows that are shortest together become one.

    Args:
        steps: what the solve turns out to take, at least 0.
        checkpoints: states held on the device, at least 1.
        capacity: states that the tier may hold, at least 1.
        expected_steps: what it was expected to take; None where nothing was.
        transfer_cost: one hand-over and one fetch, in steps.
    """
    if steps == 0:
        return Windows(starts=(), target=None)
    held: list[int] = []
    least = least_repetition(checkpoints, transfer_cost)
    target = expected_steps or block(least + 1, checkpoints)
    start = 0
    while True:
        if start >= target:
            target = beyond(target)
        last = False
        if expected_steps:
            plan = plan_windows(target, checkpoints, capacity, transfer_cost)
            last = start >= target - plan.last
            until = target if last else min(start + plan.width + (len(held) < plan.longer), target - plan.last)
        else:
            until = start + max(block(least, checkpoints), -(-target // (capacity + 1)))
        if until >= steps:
            return Windows(starts=(*held, start), target=target if last else None)
        held.append(start)
        if len(held) > capacity:
            del held[_shortest_pair(held, until)]
        start = until


def _shortest_pair(held: Sequence[int], stop: int) -> int:
    """Find which start to drop: that between the neighbours which are shortest together; the first one stays."""
    after = [*held[1:], stop]
    return min(range(1, len(held)), key=lambda k: after[k] - held[k - 1])


def windowed_steps(
    steps: int, checkpoints: int, capacity: int, expected_steps: int | None = None, transfer_cost: float = 1.0
) -> int:
    """Count the body evaluations of our loop with windows: first sweep, recomputation and taped steps.

    Args:
        steps: what the solve takes, at least 0.
        checkpoints: states held on the device, at least 1.
        capacity: states that the tier may hold, at least 1.
        expected_steps: the prediction given to the loop; None where none was.
        transfer_cost: one hand-over and one fetch, in steps.

    Returns:
        The number of evaluations; transfers are not counted.
    """
    if steps == 0:
        return 0
    if steps == expected_steps:  # as planned: two lengths at most, however many windows
        plan = plan_windows(steps, checkpoints, capacity, transfer_cost)
        lengths = {plan.width: plan.windows - 1 - plan.longer, plan.width + 1: plan.longer}
        last, target = plan.last, plan.last
    else:
        placed = place_windows(steps, checkpoints, capacity, expected_steps, transfer_cost)
        lengths = collections.Counter(stop - start for start, stop in itertools.pairwise(placed.starts))
        last = steps - placed.starts[-1]
        target = None if placed.target is None else placed.target - placed.starts[-1]
    total = sum(count * (2 * length + advances(length, checkpoints)) for length, count in lengths.items())
    if target is None:
        return total + 2 * last + advances(last, checkpoints)
    return total + executed_steps(last, checkpoints, target)
