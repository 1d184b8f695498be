"""Oracles for schedules: exhaustive search over all schedules, dynamic programming, and a machine that executes one.

Nothing here is imported from `adjoint`; a schedule reaches the machine as plain tuples.
"""

import functools
import heapq
from collections.abc import Iterable


@functools.cache
def advances_by_recursion(steps: int, slots: int) -> int:
    """Count the fewest advances by trying every place for the next checkpoint, the rest being optimal in turn."""
    if steps <= 1:
        return 0
    if slots == 1:
        return steps * (steps - 1) // 2
    return min(
        near + advances_by_recursion(steps - near, slots - 1) + advances_by_recursion(near, slots)
        for near in range(1, steps)
    )


def advances_by_search(steps: int, slots: int) -> int:
    """Count the fewest advances over all schedules whatever, by Dijkstra's search over the states of a machine.

    A state is (steps left to reverse, where the machine stands, what is stored besides the initial state). Nothing is
    assumed of the order or the structure of stores.
    """
    start = (steps, 0, frozenset())
    seen = {start: 0}
    queue = [(0, 0, start)]
    pushed = 0
    while queue:
        cost, _, state = heapq.heappop(queue)
        if cost > seen[state]:
            continue
        left, at, stored = state
        if left == 0:
            return cost
        following = []
        if at + 1 < left:
            following.append((cost + 1, (left, at + 1, stored)))
        if at + 1 == left:
            kept = frozenset(x for x in stored if x < left - 1)
            following.extend((cost, (left - 1, x, kept)) for x in {0, *stored} if x <= max(left - 2, 0))
        if at not in stored and at > 0:
            if len(stored) < slots - 1:
                following.append((cost, (left, at, stored | {at})))
            following.extend((cost, (left, at, stored - {x} | {at})) for x in stored)
        following.extend((cost, (left, x, stored)) for x in {0, *stored} if x < left)
        for new, state in following:
            if new < seen.get(state, new + 1):
                seen[state] = new
                pushed += 1
                heapq.heappush(queue, (new, pushed, state))
    raise AssertionError("no schedule reverses these steps")


class Machine:
    """Executes actions and refuses an illegal one: a state that is not there, a slot too many, a step out of order."""

    def __init__(self, steps: int, checkpoints: int) -> None:
        """Start with the initial state in hand and nothing stored."""
        self.steps, self.checkpoints = steps, checkpoints
        self.slots: dict[int, int] = {}
        self.at: int | None = 0
        self.evaluations = 0
        self.reversed: list[int] = []
        self.largest_reach = 0

    def _stand_at(self, step: int, slot: int) -> None:
        if self.at != step:
            assert self.slots.get(slot) == step, f"state {step} is neither in hand ({self.at}) nor in slot {slot}"
        self.at = step

    def _store(self, step: int, slot: int) -> None:
        assert self.at == step, f"state {step} is not in hand but {self.at}"
        assert 0 <= slot < self.checkpoints, f"slot {slot} of {self.checkpoints}"
        self.slots[slot] = step

    def _advance(self, start: int, stop: int, slot: int) -> None:
        self._stand_at(start, slot)
        assert start < stop <= self.steps - len(self.reversed)
        self.evaluations += stop - start
        self.at = stop
        self.largest_reach = max(self.largest_reach, stop)

    def _reverse(self, start: int, stop: int, slot: int) -> None:
        self._stand_at(start, slot)
        assert stop == start + 1 == self.steps - len(self.reversed), "steps are reversed one by one, last first"
        assert self.largest_reach == self.steps, "the end must have been reached before anything is reversed"
        self.evaluations += 1
        self.reversed.append(start)
        self.at = None

    def execute(self, actions: Iterable[tuple[str, int, int, int]]) -> "Machine":
        """Execute actions (kind, start, stop, slot) and check that every step has been reversed exactly once."""
        for kind, start, stop, slot in actions:
            if kind == "store":
                self._store(start, slot)
            elif kind == "advance":
                self._advance(start, stop, slot)
            else:
                assert kind == "reverse", kind
                self._reverse(start, stop, slot)
        assert self.reversed == list(range(self.steps - 1, -1, -1))
        return self
