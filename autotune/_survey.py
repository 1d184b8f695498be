"""Probe a problem with few measurements: two traces, at most three compiles, at most four timed counts, and its laws.

The compiles go where the law of bytes is least certain; one more is made where a compiled total contradicts the law
that was fitted without it. The timed counts are spread over what the law of seconds has to part: many advances, about
three times the steps, and everything stored (or the largest count that fits).
"""

import dataclasses
from collections.abc import Sequence

from autotune._adjoints import executed_steps, reversed_steps
from autotune._laws import BytesLaw, SecondsLaw, TimeSample, fit_bytes_law, fit_seconds_law
from autotune._trial import Rung, Runner, Trial
from profiles._records import AdjointName, Measurement, Status

MOST_COMPILES = 3
MOST_TIMED = 4
MANY_ADVANCES = 6.0
"""The smallest timed count executes at most this many times the steps: fewer would take too long to time."""


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
    slope = per_checkpoint_bytes(runner, template, bounds)
    law = survey_bytes(runner, template, rows, slope=slope, bounds=bounds)
    seconds = None
    there = shorter is not None and timed > 1
    counts = timed_counts(template, law, bounds=bounds, budget_bytes=budget_bytes, most=timed - there)
    if counts:
        trials = [dataclasses.replace(template, checkpoints=c, rung=Rung.RUN) for c in counts]
        if shorter is not None and there:
            trials.append(dataclasses.replace(shorter, checkpoints=counts[len(counts) // 2], rung=Rung.RUN))
        measured = runner.run(trials)
        rows += measured
        seconds = seconds_law(measured)
    return Survey(bytes=law, seconds=seconds, rows=tuple(rows))


def per_checkpoint_bytes(runner: Runner, template: Trial, bounds: tuple[int, int]) -> float | None:
    """Learn the bytes per checkpoint from two traces, without a compile; None where they fail."""
    lowest, highest = bounds
    counts = sorted({max(lowest, (lowest + highest) // 2), highest})
    traced = runner.run([dataclasses.replace(template, checkpoints=c, rung=Rung.TRACED) for c in counts])
    peaks = [row.peak_bytes for row in traced if row.status is Status.OK]
    if len(peaks) < 2 or peaks[0] is None or peaks[-1] is None:
        return None
    return (peaks[-1] - peaks[0]) / (counts[-1] - counts[0])


def survey_bytes(
    runner: Runner, template: Trial, rows: list[Measurement], *, slope: float | None, bounds: tuple[int, int]
) -> BytesLaw:
    """Compile where the law asks, at most three counts and one more for each contradiction, adding to `rows`."""
    points: dict[int, int] = {}
    allowed = MOST_COMPILES
    law = fit_bytes_law(points, adjoint=template.adjoint, per_checkpoint_bytes=slope)
    while len(points) < allowed and (count := law.next_count(*bounds)) is not None:
        (row,) = runner.run([dataclasses.replace(template, checkpoints=count, rung=Rung.COMPILED)])
        rows.append(row)
        if row.status is not Status.OK or row.compiled_bytes is None:
            break
        if len(points) > 1 and law.contradicted_by(count, row.compiled_bytes):
            allowed += 1
        points[count] = row.compiled_bytes
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
    steps = template.steps
    executed = lambda count: executed_steps(template.adjoint, steps, count, template.expected_steps)
    smallest = next((c for c in range(lowest, highest) if executed(c) <= MANY_ADVANCES * steps), highest)
    ratio = (highest / smallest) ** (1 / max(1, most - 1))
    return sorted({min(highest, round(smallest * ratio**place)) for place in range(most)})


def seconds_law(rows: Sequence[Measurement]) -> SecondsLaw | None:
    """Fit the law of seconds to timed rows, whatever their horizons; None where nothing was timed."""
    samples = []
    for row in rows:
        if row.status is Status.OK and row.run_seconds and row.executed_steps and row.steps:
            taped = reversed_steps(row.adjoint, row.steps, row.accepted)
            samples.append(
                TimeSample(
                    advances=row.executed_steps - taped, reversed_steps=taped, seconds=row.run_seconds
                )
            )  # fmt: skip
    return fit_seconds_law(samples) if samples else None
