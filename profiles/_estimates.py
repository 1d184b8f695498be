"""Bytes at counts and steps at horizons that were not measured, told from those that were, with what each rests on."""

import bisect
import itertools
import math
from collections.abc import Mapping, Sequence


class BytesByCheckpoints:
    """The bytes of a count, never below those of a smaller count, from measured points."""

    def __init__(self, measured: Sequence[tuple[int, int]]) -> None:
        """Take (checkpoints, bytes) pairs; of equal counts the largest bytes stand."""
        largest: dict[int, int] = {}
        for count, size in measured:
            largest[count] = max(size, largest.get(count, 0))
        self.counts = sorted(largest)
        self.sizes: list[int] = []
        for count in self.counts:
            self.sizes.append(max([largest[count], *self.sizes[-1:]]))
        pairs = list(zip(self.counts, self.sizes, strict=True))
        slopes = [(b[1] - a[1]) / (b[0] - a[0]) for a, b in itertools.pairwise(pairs)]
        self._slope = max(slopes, default=None)

    @property
    def state_bytes(self) -> float | None:
        """The bytes of one state: the steepest slope, since some counts may cost nothing; None where none is known."""
        return self._slope or None

    def __call__(self, count: int) -> float:
        """Give the bytes of a count; infinite where nothing tells."""
        place = bisect.bisect_left(self.counts, count)
        if place < len(self.counts) and (self.counts[place] == count or place == 0):
            return self.sizes[place]
        if place == len(self.counts):
            beyond = count - self.counts[-1]
            return math.inf if self._slope is None else self.sizes[-1] + self._slope * beyond
        (low, high), (a, b) = self.counts[place - 1 : place + 1], self.sizes[place - 1 : place + 1]
        return a + (b - a) * (count - low) / (high - low)

    def evidence(self, count: int) -> str:
        """Say what the bytes of a count rest on; below the smallest measured count, that count's bytes stand."""
        if count in self.counts:
            return "measured"
        return "interpolated" if count < self.counts[-1] else "extrapolated"

    def largest_within(self, usable_bytes: float, most: int) -> int | None:
        """Find the largest count of at most `most` that fits, None where not even one checkpoint does."""
        if self(1) > usable_bytes:
            return None
        low, high = 1, most
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self(middle) <= usable_bytes else (low, middle - 1)
        return low


class StepsByHorizon:
    """The steps at a horizon, for one tolerance and setting, from the horizons that were measured."""

    def __init__(self, measured: Mapping[float, int]) -> None:
        """Take steps by horizon."""
        self.horizons = sorted(measured)
        self._steps = [measured[horizon] for horizon in self.horizons]

    def __call__(self, horizon: float) -> tuple[int, str]:
        """Give the steps at a horizon and what they rest on: straight lines through the measured horizons."""
        if horizon in self.horizons:
            return self._steps[self.horizons.index(horizon)], "measured"
        place = bisect.bisect_left(self.horizons, horizon)
        inside = 0 < place < len(self.horizons)
        x0, x1, y0, y1 = self._segment(min(max(place, 1), len(self.horizons) - 1))
        steps = y0 + (y1 - y0) * (horizon - x0) / (x1 - x0)
        return max(1, math.ceil(steps)), "interpolated" if inside else "extrapolated"

    def horizon_of(self, steps: int) -> float | None:
        """Find the horizon that takes so many steps, None where steps do not grow with the horizon."""
        place = bisect.bisect_left(self._steps, steps)
        x0, x1, y0, y1 = self._segment(min(max(place, 1), len(self.horizons) - 1))
        return x0 + (x1 - x0) * (steps - y0) / (y1 - y0) if y1 > y0 else None

    def _segment(self, place: int) -> tuple[float, float, int, int]:
        """Take two neighbouring horizons; one alone is taken together with no steps at horizon 0."""
        if len(self.horizons) == 1:
            return 0.0, self.horizons[0], 0, self._steps[0]
        return self.horizons[place - 1], self.horizons[place], self._steps[place - 1], self._steps[place]
