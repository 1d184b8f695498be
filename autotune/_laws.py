"""Laws with error bars: bytes from a count, seconds from passes of the body, each from a handful of measurements.

Bytes, our adjoint. The compiled total is the most that any phase of the call needs, and each phase needs a fixed part
plus the checkpoints or none of them: a maximum of lines whose slopes lie between 0 and one checkpoint. Such a function
rises and is convex, so a chord bounds it from above; the lines through neighbouring pairs, the left neighbour's value,
and a line of one checkpoint's slope through the right neighbour bound it from below. The slope is known from the trace
(`per_checkpoint_bytes`), so two compiles tell whether there is a kink between them, and where the third belongs.

Bytes, Diffrax's adjoint. Its total is not monotone (everything stored may take less than half stored), so only what was
compiled is known, and nothing is interpolated.

Seconds. `a + F * advances + U * reversed`: an advance is an untaped pass of the body, in the first sweep or recomputed,
and a reversed step one taped pass with its transpose, which costs several advances. The constant `a` is parted from `U`
only where samples differ in their reversed steps; else it is within `U`. No term is negative.
"""

import bisect
import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence

import numpy as np
import scipy.optimize

from profiles._records import AdjointName

BAR_SHARE = 0.005
BAR_BYTES = 32 * 2**10
BAR_SMALL_SHARE = 0.04
"""What a compiled total may leave its line by, for buffers that XLA packs differently at some counts.

The larger of BAR_SHARE and BAR_BYTES, which is half of what a prediction may be wrong by (1 %, 64 KiB); of totals so
small that BAR_BYTES would be most of them, BAR_SMALL_SHARE.
"""

CAUTION = 0.75
"""How much of a bar a prediction lies above its line: packing only ever adds, and a wrong figure must be too high."""

_SLOPE_AGREES = 0.02
"""A chord steeper than one checkpoint by more than this share says that the trace missed something."""


@dataclasses.dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with its error bars; `exact` where it was measured."""

    low: float
    likely: float
    high: float
    exact: bool = False


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class BytesLaw:
    """Bytes of one call by the number of checkpoints.

    `points` are what was compiled, by rising count. `per_checkpoint_bytes` is the slope from the trace, None where it
    was not traced; `residuals` are, for each point, what was compiled less what the law without it says, in bytes.
    """

    adjoint: AdjointName
    points: tuple[tuple[int, int], ...]
    per_checkpoint_bytes: float | None = None
    residuals: tuple[float, ...] = ()

    def at(self, checkpoints: int) -> Estimate | None:
        """Predict the bytes at a count; None where nothing may be said (Diffrax's adjoint between compiled points)."""
        known = dict(self.points)
        if checkpoints in known:
            exact = float(known[checkpoints])
            return Estimate(exact, exact, exact, exact=True)
        if self.adjoint is not AdjointName.OURS or not self.points:
            return None
        return _between(self.points, checkpoints, self.per_checkpoint_bytes)

    def is_extrapolated(self, checkpoints: int) -> bool:
        """Tell whether a count lies outside the compiled ones, where convexity bounds from below only."""
        return not self.points or not self.points[0][0] <= checkpoints <= self.points[-1][0]

    def contradicted_by(self, checkpoints: int, compiled_bytes: int) -> bool:
        """Tell whether a compiled total leaves the law's error bars at its count."""
        estimate = self.at(checkpoints)
        return estimate is not None and not estimate.low <= compiled_bytes <= estimate.high

    def next_count(self, lowest: int, highest: int) -> int | None:
        """Choose the count whose compile tells most about lowest..highest; None when the bars are narrow enough.

        The ends come first, for nothing is answered from extrapolation; then the place of a kink.
        """
        have = {count for count, _ in self.points}
        for end in (highest, lowest):
            if end not in have:
                return end
        if self.adjoint is not AdjointName.OURS:
            return None
        widest, gap = _BAR_FACTOR, None
        for left, right in zip(self.points, self.points[1:], strict=False):
            count = _kink(left, right, self.per_checkpoint_bytes)
            if left[0] < count < right[0]:
                estimate = _between(self.points, count, self.per_checkpoint_bytes)
                width = (estimate.high - estimate.low) / _bar(estimate.likely)
                if width > widest:
                    widest, gap = width, count
        return gap

    def largest_within(self, budget_bytes: int, highest: int) -> int | None:
        """Find the largest count up to `highest` whose upper bar is within the budget; None where none is."""
        if self.adjoint is not AdjointName.OURS:
            return max((c for c, b in self.points if b <= budget_bytes and c <= highest), default=None)
        if not self.points:
            return None
        fits = lambda count: (estimate := self.at(count)) is not None and estimate.high <= budget_bytes
        found = bisect.bisect_left(range(1, highest + 1), True, key=lambda count: not fits(count))
        return found or None


_BAR_FACTOR = 3.0 + 1e-9
"""Bars as wide as this many of the packing bar are those of an exact line: one below, two above."""


def _bar(likely_bytes: float) -> float:
    return max(BAR_SHARE * likely_bytes, min(BAR_BYTES, BAR_SMALL_SHARE * likely_bytes))


def fit_bytes_law(
    points: Mapping[int, int], *, adjoint: AdjointName, per_checkpoint_bytes: float | None = None
) -> BytesLaw:
    """Make the law of what was compiled.

    Args:
        points: compiled bytes by count.
        adjoint: whose.
        per_checkpoint_bytes: the slope from two traces, where there is one.
    """
    ordered = tuple(sorted((int(count), int(size)) for count, size in points.items()))
    residuals = []
    for place, (count, size) in enumerate(ordered):
        others = ordered[:place] + ordered[place + 1 :]
        inner = adjoint is AdjointName.OURS and 0 < place < len(ordered) - 1
        residuals.append(size - _between(others, count, per_checkpoint_bytes).likely if inner else math.nan)
    return BytesLaw(
        adjoint=adjoint, points=ordered, per_checkpoint_bytes=per_checkpoint_bytes, residuals=tuple(residuals)
    )


def _kink(left: tuple[int, int], right: tuple[int, int], slope: float | None) -> int:
    """Guess where, between two compiled counts, a flat part meets one that rises by one checkpoint a count."""
    middle = round(math.sqrt(left[0] * right[0]))
    if not slope:
        return middle
    chord = (right[1] - left[1]) / (right[0] - left[0])
    if chord >= slope:
        return middle
    place = right[0] - max(0.0, right[1] - left[1]) / slope
    return min(max(round(place), left[0] + 1), right[0] - 1)


def _between(points: Sequence[tuple[int, int]], count: int, slope: float | None) -> Estimate:
    """Bound a rising convex function at `count` from its points, by rising count."""
    below = [point for point in points if point[0] < count]
    above = [point for point in points if point[0] > count]
    if below and above:
        (left, left_bytes), (right, right_bytes) = below[-1], above[0]
        chord = left_bytes + (right_bytes - left_bytes) * (count - left) / (right - left)
        lows = [float(min(left_bytes, right_bytes))]
        lows += [_line(pair[0], pair[1], count) for pair in (below[-2:], above[:2]) if len(pair) == 2]
        if slope is not None and right_bytes - left_bytes <= slope * (right - left) * (1 + _SLOPE_AGREES):
            # Where bytes rise faster than the trace says, the trace missed something and bounds nothing.
            lows.append(right_bytes - slope * (right - count))
        # A neighbours' line above the chord: the points are not convex, so only that bytes rise can be relied on.
        low = min(max(lows), chord) if max(lows) <= chord + _bar(chord) else lows[0]
        return Estimate(low - _bar(low), chord + CAUTION * _bar(chord), chord + 2 * _bar(chord))
    if below:
        left, left_bytes = below[-1]
        steepest = [_slope(*below[-2:])] if len(below) > 1 else []
        steepest += [slope] if slope is not None else []
        rise = max([*steepest, 0.0]) * (count - left)
        likely = left_bytes + rise
        # Convexity bounds this side from below only; the upper bar trusts the trace's slope, twice over.
        return Estimate(left_bytes - _bar(likely), likely, likely + max(_bar(likely), rise))
    right, right_bytes = above[0]
    flattest = _slope(*above[:2]) if len(above) > 1 else (slope or 0.0)
    fall = max(slope or 0.0, flattest, 0.0) * (right - count)
    likely = right_bytes - max(flattest, 0.0) * (right - count)
    return Estimate(right_bytes - fall - _bar(likely), likely, right_bytes + _bar(right_bytes))


def _slope(left: tuple[int, int], right: tuple[int, int]) -> float:
    return (right[1] - left[1]) / (right[0] - left[0])


def _line(left: tuple[int, int], right: tuple[int, int], count: int) -> float:
    return left[1] + _slope(left, right) * (count - left[0])


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TimeSample:
    """One timed count: untaped passes, reversed steps, and every sample's seconds."""

    advances: int
    reversed_steps: int
    seconds: tuple[float, ...]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SecondsLaw:
    """Seconds of one call by advances and reversed steps.

    `residuals` are, for each sample, the logarithm of measured over predicted seconds; `spread` is their standard
    deviation with the law's degrees of freedom taken off, at least that of the samples themselves.
    """

    constant_seconds: float
    advance_seconds: float
    reversed_seconds: float
    samples: tuple[TimeSample, ...]
    residuals: tuple[float, ...]
    spread: float

    def at(self, advances: int, reversed_steps: int) -> Estimate:
        """Predict the median seconds, with bars of two standard deviations."""
        likely = self.constant_seconds + self.advance_seconds * advances + self.reversed_seconds * reversed_steps
        return Estimate(likely * math.exp(-2 * self.spread), likely, likely * math.exp(2 * self.spread))


LEAST_SPREAD = 0.05
"""No law of four samples is believed to be better than this: medians of a shared machine differ by as much."""


def fit_seconds_law(samples: Sequence[TimeSample]) -> SecondsLaw:
    """Fit the law to timed counts, every one weighing the same whatever its seconds.

    Args:
        samples: at least one; two counts part advances from reversed steps, two numbers of steps part the constant.

    Raises:
        ValueError: there is no sample, or one without seconds.
    """
    if not samples or any(not sample.seconds for sample in samples):
        raise ValueError("a law needs at least one sample, and seconds in each")
    medians = np.array([statistics.median(sample.seconds) for sample in samples])
    several = len({sample.reversed_steps for sample in samples}) > 1 and len(samples) > 2
    terms = np.array([[float(several), sample.advances, sample.reversed_steps] for sample in samples])
    scale = np.maximum(terms.max(axis=0), 1e-300)
    # Divided by the seconds, so that relative errors count.
    weights, _ = scipy.optimize.nnls(terms / scale / medians[:, None], np.ones(len(samples)))
    constant, advance, reverse = weights / scale
    predicted = np.maximum(terms @ (weights / scale), 1e-12)
    residuals = np.log(medians / predicted)
    free = max(1, len(samples) - int(np.count_nonzero(weights)))
    spread = math.sqrt(float(residuals @ residuals) / free)
    return SecondsLaw(
        constant_seconds=float(constant), advance_seconds=float(advance), reversed_seconds=float(reverse),
        samples=tuple(samples), residuals=tuple(map(float, residuals)), spread=max(LEAST_SPREAD, spread),
    )  # fmt: skip
