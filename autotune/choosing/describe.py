"""Write a chosen option as a recommendation: each figure as it was measured, or with what it was inferred from.

What was measured at a point is what `profiles.points` makes of its rows, here as in every other output, so that one
point has the same figures everywhere.
"""

import dataclasses
import math
from collections.abc import Iterable, Sequence

from autotune.adjoints import Work
from autotune.choosing.outlook import interval
from autotune.choosing.recommendation import Evidence, Fit, Option, Recommendation
from autotune.measuring.rows import is_final
from autotune.model.cells import Cell, cell_of
from autotune.model.forecast import Forecast
from profiles import AdjointName, FrontPoint, Measurement, PeakSource, points

_WEAKEST_LAST = (Evidence.MEASURED, Evidence.COMPUTED, Evidence.PLANNED, Evidence.INTERPOLATED, Evidence.EXTRAPOLATED)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """The basis of a description: the rows, their forecast, and how far the case itself was measured.

    `between` says in words what the case's steps lie between.
    """

    rows: Sequence[Measurement]
    forecast: Forecast
    evidence: Evidence
    between: str = ""


def measured_point(rows: Iterable[Measurement], cell: Cell, checkpoints: int) -> FrontPoint | None:
    """Bring the rows of one count at one cell together; None where it was not measured, or cannot be relied on.

    Of several predictions or allocators the one that was run under the user's own settings counts, else the newest.
    """
    found = points(row for row in rows if row.checkpoints == checkpoints and cell_of(row) == cell)
    return max(
        found, key=lambda point: (any(map(is_final, point.rows)), point.rows[-1].measured_at), default=None
    )  # fmt: skip


def describe(
    option: Option, work: Work | None, name: AdjointName, base: Recommendation, *, known: Known
) -> Recommendation:
    """Write a chosen option as a recommendation; a count that was not measured itself is an interpolated one."""
    point = measured_point(known.rows, option.cell, option.checkpoints)
    peak_evidence, between = known.evidence, known.between
    if point is None and known.evidence is Evidence.MEASURED:
        peak_evidence, between = _between_counts(option, known.rows)
    seconds, seconds_evidence = _seconds(option, work, point, known)
    factor = option.executed_steps / work.steps if work and option.executed_steps else None
    if point is not None and point.recompute_factor is not None:
        factor = point.recompute_factor
    recompute_evidence = Evidence.COMPUTED if known.evidence is Evidence.MEASURED else known.evidence
    likely, low, high = option.peak.likely, option.peak.low, option.peak.high
    if point is not None and known.evidence is Evidence.MEASURED:
        likely = low = high = point.peak_bytes
    if peak_evidence is Evidence.MEASURED and any(row.device.planned for row in known.rows):
        peak_evidence = Evidence.PLANNED
    bounds = _bounds(option, point if seconds_evidence is Evidence.MEASURED else None) if seconds else (None, None)
    weakest = [peak_evidence, *([seconds_evidence] if seconds_evidence else [])]
    return dataclasses.replace(
        base,
        status=Fit.OK,
        xla_flags=option.cell.xla_flags,
        tier=option.cell.tier,
        checkpoints=option.checkpoints,
        expected_steps=work.predicted if work and name is AdjointName.OURS else None,
        steps=work.steps if work else None,
        accepted=work.predicted if work else None,
        peak_bytes=math.ceil(likely),
        peak_low_bytes=math.floor(low),
        peak_high_bytes=math.ceil(high),
        peak_source=point.peak_source if point else PeakSource.COMPILED,
        run_seconds=seconds,
        recompute_factor=factor,
        peak_evidence=peak_evidence,
        seconds_evidence=seconds_evidence,
        recompute_evidence=None if factor is None else recompute_evidence,
        evidence=max(weakest, key=_WEAKEST_LAST.index),
        between=between,
        seconds_low=bounds[0],
        seconds_high=bounds[1],
        steps_evidence=known.evidence if work else None,
    )


def _bounds(option: Option, point: FrontPoint | None) -> tuple[float | None, float | None]:
    """Bound the seconds of a call: by its own samples, else by the law."""
    if point is not None:
        return interval([sample for row in point.rows for sample in row.run_seconds]) or (None, None)
    return (option.seconds.low, option.seconds.high) if option.seconds else (None, None)


def _seconds(
    option: Option, work: Work | None, point: FrontPoint | None, known: Known
) -> tuple[float | None, Evidence | None]:
    """Find the seconds of a call: those of its own samples, or of counts around it, or none."""
    if point is not None and known.evidence is Evidence.MEASURED and point.run_seconds is not None:
        return point.run_seconds, Evidence.MEASURED
    if option.seconds is None or work is None or not known.forecast.times_around(option.cell, option.checkpoints, work):
        return None, None
    evidence = Evidence.INTERPOLATED if known.evidence is Evidence.MEASURED else known.evidence
    return option.seconds.likely, evidence


def _between_counts(option: Option, rows: Sequence[Measurement]) -> tuple[Evidence, str]:
    """Say between which measured counts of its variant an option lies."""
    measured = sorted({r.checkpoints for r in rows if cell_of(r).variant == option.cell.variant and r.peak_bytes})
    below = [count for count in measured if count < option.checkpoints]
    above = [count for count in measured if count > option.checkpoints]
    near = ", ".join(map(str, below[-1:] + above[:1]))
    evidence = Evidence.INTERPOLATED if below and above else Evidence.EXTRAPOLATED
    return evidence, f"{option.checkpoints} of the measured counts {near}"
