"""How many steps a solve takes at a horizon and tolerance: the one answer for those that were not measured.

Steps add up along a solve, so between two measured horizons they are read off a straight line, and below the smallest
one off the line from no steps at horizon 0; beyond the largest the last piece goes on. In the tolerance steps follow a
power, so there the line is one of logarithms.
"""

import bisect
import enum
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from autotune.adjoints import Work


class Place(enum.IntEnum):
    """Where a horizon or tolerance lies among those that were measured; the larger, the weaker what is said there."""

    MEASURED = 0
    BETWEEN = 1
    BEYOND = 2


_WORDS = {Place.MEASURED: "measured", Place.BETWEEN: "interpolated", Place.BEYOND: "extrapolated"}


class StepsAt(NamedTuple):
    """The steps at a horizon and tolerance, and what they rest on."""

    work: Work
    place: Place


class StepsLaw:
    """Steps by horizon and tolerance, for one setting, from what was counted."""

    def __init__(self, counted: Mapping[tuple[float | None, float | None], Work]) -> None:
        """Take the work at each (horizon, tolerance); None stands for a problem that has none."""
        self._by_tolerance: dict[float | None, dict[float | None, Work]] = {}
        for (horizon, tolerance), work in counted.items():
            self._by_tolerance.setdefault(tolerance, {})[horizon] = work

    def at(self, horizon: float | None, tolerance: float | None) -> StepsAt | None:
        """Give the steps at a horizon and tolerance; None where they do not follow from what was counted."""
        if tolerance in self._by_tolerance:
            return _at_horizon(self._by_tolerance[tolerance], horizon)
        found = {t: _at_horizon(works, horizon) for t, works in self._by_tolerance.items() if t is not None}
        known = sorted((t, at) for t, at in found.items() if at is not None)
        if tolerance is None or len(known) < 2:
            return None
        index, place = _piece([t for t, _ in known], tolerance)
        (t0, left), (t1, right) = known[index], known[index + 1]
        share = (math.log(tolerance) - math.log(t0)) / (math.log(t1) - math.log(t0))
        # At least 1: no step is predicted where no gradient is taken.
        work = _mixed(left.work, right.work, lambda a, b: max(a, 1) ** (1 - share) * max(b, 1) ** share)
        return StepsAt(work, max(place, left.place, right.place))

    def steps_at(self, horizon: float | None, tolerance: float | None) -> tuple[int, str] | None:
        """Give the steps alone, and what they rest on in a word."""
        found = self.at(horizon, tolerance)
        return None if found is None else (found.work.steps, _WORDS[found.place])

    def horizon_of(self, steps: int, tolerance: float | None) -> float | None:
        """Find the horizon that takes so many steps; None where steps do not grow with the horizon, or it has none."""
        known = _by_horizon(self._by_tolerance.get(tolerance, {}))
        if len(known) < 2:
            return None
        counts = [work.steps for _, work in known]
        index, _ = _piece(counts, steps)
        (x0, left), (x1, right) = known[index], known[index + 1]
        return x0 + (x1 - x0) * (steps - left.steps) / (right.steps - left.steps) if right.steps > left.steps else None


def _at_horizon(works: Mapping[float | None, Work], horizon: float | None) -> StepsAt | None:
    if horizon in works:
        return StepsAt(works[horizon], Place.MEASURED)
    known = _by_horizon(works)
    if horizon is None or len(known) < 2:
        return None
    index, place = _piece([x for x, _ in known], horizon)
    (x0, left), (x1, right) = known[index], known[index + 1]
    share = (horizon - x0) / (x1 - x0)
    return StepsAt(_mixed(left, right, lambda a, b: a + share * (b - a)), Place.BEYOND if index == 0 else place)


def _by_horizon(works: Mapping[float | None, Work]) -> list[tuple[float, Work]]:
    """Sort by horizon, from no steps at horizon 0 on."""
    known = sorted((horizon, work) for horizon, work in works.items() if horizon is not None)
    return [(0.0, Work(steps=0, reversed_steps=0, accepted=0)), *known] if known else []


def _piece(values: Sequence[float], value: float) -> tuple[int, Place]:
    """Find the piece between two neighbours that holds a value, or the one nearest to it."""
    index = bisect.bisect_left(values, value)
    place = Place.BETWEEN if 0 < index < len(values) else Place.BEYOND
    return min(max(index, 1), len(values) - 1) - 1, place


def _mixed(left: Work, right: Work, mix) -> Work:
    """Mix two numbers of steps; none is visited backwards where no gradient is taken.

    Rejected ones are left out from the count on from which they are at both.
    """

    def count(a: int, b: int) -> int:
        return max(1, round(mix(a, b)))

    visited = bool(right.reversed_steps)
    return Work(
        steps=count(left.steps, right.steps),
        reversed_steps=count(left.reversed_steps, right.reversed_steps) if visited else 0,
        accepted=count(left.predicted, right.predicted),
        accepted_from=max(left.accepted_from, right.accepted_from),
    )
