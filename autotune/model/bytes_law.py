"""The bytes of a call by its number of checkpoints: the one answer for counts that were not measured.

Our adjoint. The compiled total is the most that any phase of the call needs, and each phase needs a fixed part plus the
checkpoints or none of them: a maximum of lines whose slopes lie between 0 and one checkpoint. Such a function rises and
is convex, so a chord bounds it from above; the lines through neighbouring pairs and the left neighbour's value bound it
from below.

Diffrax's adjoint. Its totals are mostly such a maximum too, but nothing promises that (everything stored may take less
than half stored), so lines order trials there and are never recommended from.
"""

import bisect
import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Literal

from autotune.model.ranges import Range
from profiles import AdjointName

BAR_SHARE = 0.005
BAR_BYTES = 32 * 2**10
BAR_SMALL_SHARE = 0.04
"""What a compiled total may leave its line by, for buffers that XLA packs differently at some counts.

The larger of BAR_SHARE and BAR_BYTES, which is half of what a prediction may be wrong by (1 %, 64 KiB); of totals so
small that BAR_BYTES would be most of them, BAR_SMALL_SHARE.
"""

CAUTION = 0.75
"""How much of a bar a prediction lies above its line: packing only ever adds, and a wrong figure must be too high."""

Evidence = Literal["measured", "interpolated", "extrapolated"]


class BytesLaw:
    """Bytes of one call by the number of checkpoints, from measured pairs; of equal counts the largest bytes stand."""

    def __init__(self, measured: Iterable[tuple[int, int]], adjoint: AdjointName) -> None:
        """Take at least one (checkpoints, bytes) pair."""
        largest: dict[int, int] = {}
        for count, size in measured:
            largest[count] = max(size, largest.get(count, 0))
        self.points = sorted(largest.items())
        self._exact = largest
        self._between = _between_ours if adjoint is AdjointName.OURS else _between_stock

    @property
    def state_bytes(self) -> float | None:
        """The bytes of one state: the steepest slope, since some counts may cost nothing; None where none is known."""
        slopes = [_slope(left, right) for left, right in itertools.pairwise(self.points)]
        steepest = max(slopes, default=0.0)
        return steepest if steepest > 0 else None

    def at(self, checkpoints: int) -> Range:
        """Predict the bytes at a count; what was measured is returned as it is."""
        exact = self._exact.get(checkpoints)
        if exact is not None:
            return Range(exact, exact, exact)
        return self._between(self.points, checkpoints)

    def largest_within(self, usable_bytes: float, most: int) -> int | None:
        """Find the largest count of at most `most` whose likely bytes fit; None where not even one checkpoint does.

        A count is never credited with fewer bytes than a smaller one, and nothing is said beyond a single measured one.
        """
        if self.upper_envelope(1) > usable_bytes:
            return None
        found = bisect.bisect_right(range(1, most + 1), usable_bytes, key=self.upper_envelope)
        return max(found, 1)

    def upper_envelope(self, checkpoints: int) -> float:
        """Give the most likely bytes of any count up to this one; infinite where nothing is known."""
        counts = [count for count, _ in self.points]
        if len(counts) == 1 and checkpoints > counts[0]:
            return math.inf
        # Between two measured counts the figure is largest at one of its ends, next to which nothing was measured.
        beside = {1} | {near for count in counts for near in (count - 1, count, count + 1) if 1 <= near <= checkpoints}
        return max(self.at(count).likely for count in {checkpoints, *beside})

    def evidence(self, checkpoints: int) -> Evidence:
        """Say what the bytes of a count rest on."""
        if checkpoints in self._exact:
            return "measured"
        first, last = self.points[0][0], self.points[-1][0]
        return "interpolated" if first < checkpoints < last else "extrapolated"


def _bar(likely_bytes: float) -> float:
    return max(BAR_SHARE * likely_bytes, min(BAR_BYTES, BAR_SMALL_SHARE * likely_bytes))


def _between_ours(points: Sequence[tuple[int, int]], count: int) -> Range:
    """Bound a rising convex function at `count` from its points, by rising count."""
    below = [point for point in points if point[0] < count]
    above = [point for point in points if point[0] > count]
    if below and above:
        chord = _line(below[-1], above[0], count)
        lows = [float(min(below[-1][1], above[0][1]))]
        lows += [_line(pair[0], pair[1], count) for pair in (below[-2:], above[:2]) if len(pair) == 2]
        # A neighbours' line above the chord: the points are not convex, so only that bytes rise can be relied on.
        low = min(max(lows), chord) if max(lows) <= chord + _bar(chord) else lows[0]
        return Range(low - _bar(low), chord + CAUTION * _bar(chord), chord + 2 * _bar(chord))
    if below:
        left, left_bytes = below[-1]
        rise = max(_slope(*below[-2:]) if len(below) > 1 else 0.0, 0.0) * (count - left)
        likely = left_bytes + rise
        return Range(left_bytes - _bar(likely), likely, math.inf)
    right, right_bytes = above[0]
    fall = max(_slope(*above[:2]) if len(above) > 1 else 0.0, 0.0) * (right - count)
    likely = right_bytes - fall
    return Range(likely - _bar(likely), likely, right_bytes + _bar(right_bytes))


def _between_stock(points: Sequence[tuple[int, int]], count: int) -> Range:
    """Bound a curve that is mostly convex at `count` from its points, by rising count."""
    below = [point for point in points if point[0] < count]
    above = [point for point in points if point[0] > count]
    lines = [_line(pair[0], pair[1], count) for pair in (below[-2:], above[:2]) if len(pair) == 2]
    if below and above:
        high = _line(below[-1], above[0], count)
        low = max(lines, default=min(below[-1][1], above[0][1]))
        return Range(min(low, high), high, high)
    if below:
        likely = lines[0] if lines else float(below[-1][1])
        return Range(likely, likely, math.inf)
    likely = lines[0] if lines else float(above[0][1])
    return Range(likely, likely, max(likely, above[0][1]))


def _slope(left: tuple[int, int], right: tuple[int, int]) -> float:
    return (right[1] - left[1]) / (right[0] - left[0])


def _line(left: tuple[int, int], right: tuple[int, int], count: int) -> float:
    return left[1] + _slope(left, right) * (count - left[0])
