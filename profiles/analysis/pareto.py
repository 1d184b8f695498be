"""The Pareto front: which measured points nothing beats in both bytes and cost.

A point is all the rows that differ only in study and repeat. Its bytes are the largest of them and its seconds the
median of all their samples, so that a lucky repeat never makes a front look better than what a user will meet.
A front is measured, not assumed to be monotone: more memory can be slower (writing checkpoints costs time too).
"""

import dataclasses
import enum
import statistics
from collections.abc import Iterable, Sequence

from profiles.records.records import Measurement, PeakSource, Status, Tier, in_order

MEASURED = (PeakSource.COMPILED, PeakSource.RUN)
"""The sources of a peak that count as measured; a traced figure is a prediction."""


class FrontAxis(enum.StrEnum):
    """What a front sets against bytes."""

    SECONDS = "seconds"
    RECOMPUTE = "recompute_factor"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FrontPoint:
    """One choice within a case, and what its rows say together.

    `peak_bytes` is the largest over the rows, `run_seconds` the median of all samples (None where nothing was timed),
    `recompute_factor` the largest (None where unknown). `rows` are the rows that ended well, oldest first.
    """

    checkpoints: int
    expected_steps: int | None
    tier: Tier | None
    xla_flags: str
    allocator: str
    peak_bytes: int
    peak_source: PeakSource
    run_seconds: float | None
    recompute_factor: float | None
    rows: tuple[Measurement, ...]

    def cost(self, objective: FrontAxis) -> float | None:
        """Return the figure that `objective` names, None where it is unknown."""
        return self.run_seconds if objective is FrontAxis.SECONDS else self.recompute_factor

    @property
    def _choice(self) -> tuple[object, ...]:
        """A total order of choices: fewest checkpoints, no prediction needed, no tier, no flags needed."""
        expected = (self.expected_steps is not None, self.expected_steps or 0)
        return self.checkpoints, expected, str(self.tier or ""), self.xla_flags, self.allocator


def non_dominated(costs: Sequence[tuple[float, float]]) -> list[int]:
    """Index the pairs that no other pair beats, by rising first cost.

    A pair is dominated when another is no larger in both and smaller in one. Of equal pairs the first given stays.

    Args:
        costs: (first, second) pairs, smaller is better in both.

    Returns:
        Indices into `costs`; along them the first cost rises strictly and the second falls strictly.
    """
    front: list[int] = []
    for index in sorted(range(len(costs)), key=lambda i: (costs[i], i)):
        if not front or costs[index][1] < costs[front[-1]][1]:
            front.append(index)
    return front


def points(rows: Iterable[Measurement], *, sources: Iterable[PeakSource] = MEASURED) -> tuple[FrontPoint, ...]:
    """Bring the rows of one case together to points, by rising checkpoints.

    A choice that ran out of memory or gave a result that is not finite in any repeat is no point; a repeat that
    failed or timed out for another reason does not count against those that ended well.

    Args:
        rows: rows of one case (`Profile.rows`).
        sources: where a peak may come from; by default traced predictions are left out.
    """
    allowed = frozenset(sources)
    groups: dict[tuple[object, ...], list[Measurement]] = {}
    for row in rows:
        choice = row.checkpoints, row.expected_steps, row.tier, row.xla_flags, row.allocator
        groups.setdefault(choice, []).append(row)
    found = [point for group in groups.values() if (point := _point(group, allowed)) is not None]
    return tuple(sorted(found, key=lambda point: point._choice))


def _point(group: Sequence[Measurement], allowed: frozenset[PeakSource]) -> FrontPoint | None:
    """Bring the repeats of one choice together, None where it cannot be relied on."""
    if any(row.status in (Status.OUT_OF_MEMORY, Status.NOT_FINITE) for row in group):
        return None
    good = [row for row in group if row.status is Status.OK and row.peak_bytes and row.peak_source in allowed]
    if not good:
        return None
    largest = max(good, key=lambda row: (row.peak_bytes, row.peak_source is PeakSource.RUN))
    samples = [sample for row in good for sample in row.run_seconds]
    factors = [row.recompute_factor for row in good if row.recompute_factor is not None]
    assert largest.peak_bytes is not None
    assert largest.peak_source is not None
    return FrontPoint(
        checkpoints=largest.checkpoints,
        expected_steps=largest.expected_steps,
        tier=largest.tier,
        xla_flags=largest.xla_flags,
        allocator=largest.allocator,
        peak_bytes=largest.peak_bytes,
        peak_source=largest.peak_source,
        run_seconds=statistics.median(samples) if samples else None,
        recompute_factor=max(factors) if factors else None,
        rows=tuple(in_order(good)),
    )


def pareto_front(candidates: Iterable[FrontPoint], objective: FrontAxis) -> tuple[FrontPoint, ...]:
    """Keep the points that no other beats in both bytes and the objective, by rising bytes.

    Points without the objective's figure are left out. Where two points are equal in both, the one with fewer
    checkpoints stays; then the one without a predicted step count, tier or flags.
    """
    known = sorted((p for p in candidates if p.cost(objective) is not None), key=lambda point: point._choice)
    costs = [(float(point.peak_bytes), float(point.cost(objective) or 0.0)) for point in known]
    return tuple(known[index] for index in non_dominated(costs))
