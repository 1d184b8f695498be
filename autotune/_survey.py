"""Probe a problem with few measurements: two traces, at most three compiles, at most four timed counts, and its laws.

The ends are compiled first, then what is timed; further compiles go where the law of bytes is least certain, one more
where a compiled total contradicts the law that was fitted without it. The timed counts are spread over what the law of
seconds has to part: many advances, about three times the steps, and everything stored (or the largest count that fits).
"""

import dataclasses
from collections.abc import Sequence

from autotune._adjoints import executed_steps, work_of_row
from autotune._laws import BytesLaw, SecondsLaw, TimeSample, fit_bytes_law, fit_seconds_law
from autotune._trial import Rung, Runner, Trial
from profiles._records import AdjointName, Measurement, Status

MOST_COMPILES = 3
MOST_TIMED = 4
MANY_ADVANCES = 6.0
"""The smallest timed count executes at most this many times the steps: fewer would take too long to time."""
APART = 0.8
"""The shorter horizon is timed only where it takes at most this share of the steps."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """What a probe found. `rows` are all measurements made, failures among them; `seconds` is None untimed."""

    bytes: BytesLaw
    seconds: SecondsLaw | None
    rows: tuple[Measurement, ...]

    @property
    def compiled(self) -> tuple[Measurement, ...]:
        """The rows that were compiled only."""
        return tuple(row for row in self.rows if row.compiled_bytes is not None and not row.run_seconds)


def survey(
    runner: Runner,
    template: Trial,
    *,
    bounds: tuple[int, int],
    budget_bytes: int | None = None,
    timed: int = MOST_TIMED,
    shorter: Trial | None = None,
) -> Survey:
    """Probe one problem at one horizon and tolerance.

    Args:
        runner: who measures.
        template: what every trial has in common: problem, adjoint, horizon, tolerance, observed steps, settings.
        bounds: the smallest and the largest count that are of interest; the largest is usually the number of steps.
        budget_bytes: counts beyond it are not timed.
        timed: how many counts are timed at most; 0 for memory alone.
        shorter: the same at another number of steps: one of the timed counts is timed there, which parts what a
            reversed step costs from what every call costs.
    """
    rows: list[Measurement] = []
    elsewhere = shorter if timed > 1 else None
    here = timed - (elsewhere is not None)
    slope = per_checkpoint_bytes(runner, template, spread(template, bounds, max(2, here)))
    law = survey_bytes(runner, template, rows, slope=slope, bounds=bounds, most=2 if timed else MOST_COMPILES)
    seconds = None
    counts = timed_counts(template, law, bounds=bounds, budget_bytes=budget_bytes, most=here)
    if counts:
        trials = [dataclasses.replace(template, checkpoints=c, rung=Rung.RUN) for c in counts]
        if elsewhere is not None and _told_apart(template, elsewhere):
            trials.append(dataclasses.replace(elsewhere, checkpoints=counts[len(counts) // 2], rung=Rung.RUN))
        measured = runner.run(trials)
        rows += measured
        seconds = seconds_law(measured)
        law = survey_bytes(runner, template, rows, slope=slope, bounds=bounds)
    return Survey(bytes=law, seconds=seconds, rows=tuple(rows))


def _told_apart(template: Trial, shorter: Trial) -> bool:
    """Whether two horizons differ so much in their steps that timing both tells more than timing one twice."""
    return bool(template.steps and shorter.steps and shorter.steps <= APART * template.steps)


def spread(template: Trial, bounds: tuple[int, int], most: int) -> list[int]:
    """Spread counts over what is sensible: from the first with few advances to the largest, in equal ratios."""
    lowest, highest = bounds
    if most < 1 or highest < lowest or not template.steps:
        return sorted({max(lowest, (lowest + highest) // 2), highest})[: max(0, most)]
    steps = template.steps
    executed = lambda count: executed_steps(template.adjoint, steps, count, template.expected_steps)
    smallest = next((c for c in range(lowest, highest) if executed(c) <= MANY_ADVANCES * steps), highest)
    ratio = (highest / smallest) ** (1 / max(1, most - 1))
    return sorted({min(highest, round(smallest * ratio**place)) for place in range(most)})


def per_checkpoint_bytes(runner: Runner, template: Trial, counts: Sequence[int]) -> float | None:
    """Learn the bytes per checkpoint from the traces of the two largest of `counts`, without a compile.

    These are compiled or timed later, which then finds them traced. None where a trace fails.
    """
    counts = counts[-2:]
    if len(counts) < 2:
        return None
    traced = runner.run([dataclasses.replace(template, checkpoints=c, rung=Rung.TRACED) for c in counts])
    peaks = [row.peak_bytes for row in traced if row.status is Status.OK]
    if len(peaks) < 2 or peaks[0] is None or peaks[-1] is None:
        return None
    return (peaks[-1] - peaks[0]) / (counts[-1] - counts[0])


def survey_bytes(
    runner: Runner,
    template: Trial,
    rows: list[Measurement],
    *,
    slope: float | None,
    bounds: tuple[int, int],
    most: int = MOST_COMPILES,
) -> BytesLaw:
    """Compile where the law asks, at most so many counts and one more for each contradiction, adding to `rows`.

    What `rows` hold of the template's horizon and tolerance already counts too; what was timed there was not compiled
    for the law's sake.
    """
    mine = [
        row
        for row in rows
        if row.status is Status.OK and (row.horizon, row.tolerance) == (template.horizon, template.tolerance)
    ]
    points = {row.checkpoints: row.compiled_bytes for row in mine if row.compiled_bytes is not None}
    failed = any(row.status is not Status.OK and not row.run_seconds for row in rows)
    compiled = sum(not row.run_seconds for row in mine)
    law = fit_bytes_law(points, adjoint=template.adjoint, per_checkpoint_bytes=slope)
    while not failed and compiled < most:
        counts = [end for end in dict.fromkeys(reversed(bounds)) if end not in points]
        counts = counts or [count for count in (law.next_count(*bounds),) if count is not None]
        if not counts:
            break
        trials = [dataclasses.replace(template, checkpoints=count, rung=Rung.COMPILED) for count in counts]
        for row in runner.run(trials):
            rows.append(row)
            if row.status is not Status.OK or row.compiled_bytes is None:
                failed = True
                continue
            compiled += 1
            if len(points) > 1 and law.contradicted_by(row.checkpoints, row.compiled_bytes):
                most += 1
            points[row.checkpoints] = row.compiled_bytes
        law = fit_bytes_law(points, adjoint=template.adjoint, per_checkpoint_bytes=slope)
    return law


def timed_counts(
    template: Trial, law: BytesLaw, *, bounds: tuple[int, int], budget_bytes: int | None, most: int
) -> list[int]:
    """Choose the counts to time: the ends of what is sensible and fits, and between them in equal ratios of work."""
    lowest, highest = bounds
    if budget_bytes is not None:
        highest = min(highest, law.largest_within(budget_bytes, highest) or 0)
    if most < 1 or highest < lowest or not template.steps:
        return []
    if template.adjoint is not AdjointName.OURS:  # nothing is interpolated there: what was compiled is what is known
        return sorted(count for count, _ in law.points if lowest <= count <= highest)[:most]
    return spread(template, (lowest, highest), most)


def seconds_law(rows: Sequence[Measurement]) -> SecondsLaw | None:
    """Fit the law of seconds to timed rows, whatever their horizons; None where nothing was timed."""
    samples = []
    for row in rows:
        if row.status is Status.OK and row.run_seconds and row.executed_steps and row.steps:
            work = work_of_row(row)
            taped = work.reversed_steps if work else row.steps
            samples.append(
                TimeSample(
                    advances=row.executed_steps - taped, reversed_steps=taped, seconds=row.run_seconds
                )
            )  # fmt: skip
    return fit_seconds_law(samples) if samples else None
