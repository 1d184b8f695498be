"""Two profiles side by side: what changed between them, and what it did to bytes, seconds and recomputation."""

import dataclasses
from typing import Any

from profiles.analysis.pareto import FrontPoint, points
from profiles.records.records import Case, Profile


@dataclasses.dataclass(frozen=True, slots=True)
class Change:
    """One thing that differs between two profiles, by name, with both sides."""

    what: str
    before: str
    after: str

    def __str__(self) -> str:
        return f"{self.what}: {self.before or 'nothing'} -> {self.after or 'nothing'}"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ComparedPoint:
    """One count of one case in both profiles; a side is None where it was not measured there (or did not end well)."""

    case: Case
    checkpoints: int
    before: FrontPoint | None
    after: FrontPoint | None

    def ratio(self, figure: str) -> float | None:
        """Divide the second profile's figure (`peak_bytes`, `run_seconds`, `recompute_factor`) by the first's."""
        one = getattr(self.before, figure, None)
        other = getattr(self.after, figure, None)
        return other / one if one and other is not None else None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two profiles, what differs between them, and every count that either was measured at in a case of both."""

    before: Profile
    after: Profile
    changes: tuple[Change, ...]
    points: tuple[ComparedPoint, ...]


def compare(before: Profile, after: Profile) -> Comparison:
    """Compare two profiles: two devices, two adjoints, or two states of a model.

    Points are matched by case and checkpoints; of several with one count (other flags, other predictions) the fastest
    stands. Cases that only one of the two has are named among the changes.
    """
    rows: list[ComparedPoint] = []
    for case in (case for case in before.cases if case in after.cases):
        one, other = _by_count(points(before.rows(case))), _by_count(points(after.rows(case)))
        rows += [
            ComparedPoint(case=case, checkpoints=count, before=one.get(count), after=other.get(count))
            for count in sorted(one | other)
        ]
    return Comparison(before=before, after=after, changes=what_changed(before, after), points=tuple(rows))


def what_changed(before: Profile, after: Profile) -> tuple[Change, ...]:
    """Name everything that differs between two profiles but what was measured, component by component."""
    sides = (_described(before), _described(after))
    names = list(dict.fromkeys([*sides[0], *sides[1]]))
    return tuple(
        Change(name, sides[0].get(name, ""), sides[1].get(name, ""))
        for name in names
        if sides[0].get(name, "") != sides[1].get(name, "")
    )


def _described(profile: Profile) -> dict[str, str]:
    """Say what a profile was measured of and on, as texts by name."""
    newest = profile.newest
    return {
        "problem": profile.problem.name,
        **{f"problem's {name}": text for name, text in profile.problem.components.items()},
        "adjoint": str(profile.adjoint),
        "device": profile.device.kind,
        "platform": profile.device.platform,
        "devices": str(profile.device.count),
        "device memory in bytes": "" if profile.device.memory_bytes is None else f"{profile.device.memory_bytes:,}",
        **{f"version of {name}": text for name, text in newest.versions.items()},
        "allocator": newest.allocator,
        "host": newest.host,
        "cases": "; ".join(str(case) for case in profile.cases),
    }


def _by_count(found: tuple[FrontPoint, ...]) -> dict[int, FrontPoint]:
    """Keep one point for each count: the fastest, the smallest of equally fast ones."""
    best: dict[int, FrontPoint] = {}
    for point in sorted(found, key=_worth, reverse=True):
        best[point.checkpoints] = point
    return best


def _worth(point: FrontPoint) -> tuple[Any, ...]:
    """Order points of one count: timed before untimed, then by seconds, recomputation and bytes."""
    seconds, factor = point.run_seconds, point.recompute_factor
    return seconds is None, seconds or 0.0, factor is None, factor or 0.0, point.peak_bytes
