"""The rows so far, indexed for what a search needs to know of them."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence

from autotune.adjoints import Work, passes
from autotune.measuring.trial import Rung
from autotune.model.cells import Cell, Variant, cell_of
from autotune.model.forecast import Forecast
from autotune.model.ranges import Range
from autotune.search.space import Space, candidate_counts, grid_counts
from profiles import AdjointName, Case, Measurement, Status

FAILURES_BEFORE_GIVING_UP = 2
"""A variant that failed so often and never ended well is given up."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SearchGoal:
    """What a search has to answer: over which space, within how many bytes, with whose adjoint.

    `works` holds the observed steps of every case; a case without an entry (its arguments are abstract, so nothing can
    run) is compiled only. Without `budget_bytes` the front alone is searched.
    """

    space: Space
    works: Mapping[Case, Work]
    adjoint: AdjointName
    budget_bytes: int | None
    exhaustive: bool = False

    def steps(self, case: Case) -> int:
        """Return the steps that the reversal may store at most, 0 where nothing was observed."""
        return self.works[case].steps if case in self.works else 0

    def passes(self, cell: Cell, count: int) -> int:
        """Count the executed steps of a gradient at a cell whose steps were observed."""
        return sum(passes(self.adjoint, self.works[cell.case], count, cell.tier))

    def fits(self, likely_bytes: float) -> bool:
        """Return whether the bytes are within the budget."""
        return self.budget_bytes is None or likely_bytes <= self.budget_bytes

    def runs(self, likely_bytes: float) -> bool:
        """Return whether a trial of so many bytes is run; an exhaustive search runs what could not be chosen too."""
        return self.exhaustive or self.fits(likely_bytes)


@dataclasses.dataclass(frozen=True, slots=True)
class Timed:
    """What a count was found to need where it was timed."""

    checkpoints: int
    seconds: float
    peak_bytes: float


class Past:
    """What is known at every cell; made anew when rows arrive."""

    def __init__(self, rows: Sequence[Measurement], question: SearchGoal) -> None:
        """Index the rows and fit the laws."""
        self._question = question
        self._rows: dict[tuple[Cell, int], list[Measurement]] = {}
        for row in rows:
            self._rows.setdefault((cell_of(row), row.checkpoints), []).append(row)
        self.forecast = Forecast(rows, question.works, question.adjoint)
        self.next_batch = 1 + max((row.repeat for row in rows), default=-1)
        """The number of the batch that comes next."""

    def _of(self, cell: Cell) -> Iterable[tuple[int, list[Measurement]]]:
        return ((count, rows) for (of, count), rows in self._rows.items() if of == cell)

    def ran_out(self, cell: Cell, count: int) -> bool:
        """Return whether so many checkpoints, or fewer, ran out of memory."""
        return any(
            other <= count and any(row.status is Status.OUT_OF_MEMORY for row in rows) for other, rows in self._of(cell)
        )

    def has(self, cell: Cell, count: int, rung: Rung) -> bool:
        """Return whether the trial was made (however it ended), or is ruled out by how another ended."""
        rows = self._rows.get((cell, count), [])
        if any(row.status is not Status.OK or row.run_seconds or rung is not Rung.RUN for row in rows):
            return True
        if any(not self._question.runs(row.peak_bytes or 0) for row in rows):
            return True  # compiled and found too large to be chosen
        return self._ruled_out(cell, count, rung)

    def _ruled_out(self, cell: Cell, count: int, rung: Rung) -> bool:
        for other, rows in self._of(cell):
            ended = {row.status for row in rows}
            if Status.OUT_OF_MEMORY in ended and count >= other:
                return True
            ran_long = Status.TIMED_OUT in ended and rung is Rung.RUN and cell.case in self._question.works
            if ran_long and self._question.passes(cell, count) >= self._question.passes(cell, other):
                return True
        return False

    def gave_up(self, variant: Variant) -> bool:
        """Return whether the variant has failed often and never ended well."""
        rows = [row for (cell, _), rows in self._rows.items() if cell.variant == variant for row in rows]
        bad = [row for row in rows if row.status in (Status.FAILED, Status.NOT_FINITE)]
        return len(bad) >= FAILURES_BEFORE_GIVING_UP and len(bad) == len(rows)

    def in_batch(self, cell: Cell, count: int, batch: int) -> float | None:
        """Return the median seconds that a count took in one batch."""
        rows = self._rows.get((cell, count), [])
        return next((row.run_median_seconds for row in rows if row.repeat == batch and row.run_seconds), None)

    def fastest_in_batch(self, cell: Cell, batch: int) -> float | None:
        """Return the least median seconds of any count of a cell in one batch."""
        medians = [self.in_batch(cell, count, batch) for count in self.timed_counts(cell)]
        return min((seconds for seconds in medians if seconds), default=None)

    def last_batch(self, cell: Cell, count: int) -> int | None:
        """Return the batch in which a count was timed last."""
        return max((row.repeat for row in self._rows.get((cell, count), []) if row.run_seconds), default=None)

    def timed_counts(self, cell: Cell) -> list[int]:
        """List the counts that were timed at the cell, whether or not they fit."""
        return sorted(count for count, rows in self._of(cell) if any(row.run_seconds for row in rows))

    def timed(self, cell: Cell) -> list[Timed]:
        """List the counts that were timed at the cell and fit, fastest first."""
        found = []
        for count in self.timed_counts(cell):
            seconds = self.forecast.seconds_at(cell, count)
            peak = self.forecast.bytes_at(cell, count)
            if seconds and peak and self._question.fits(peak.likely):
                found.append(Timed(count, seconds.likely, peak.likely))
        return sorted(found, key=lambda one: (one.seconds, one.checkpoints))

    def any_fits(self, cell: Cell) -> bool:
        """Return whether some count whose bytes are known is within the budget."""
        ranges = [self.forecast.bytes_at(cell, count) for count in self.forecast.measured_counts(cell)]
        return any(self._question.fits(known.likely) for known in ranges if known)

    def fitting(self, cell: Cell) -> tuple[int, ...]:
        """List the candidate counts that are certain to be within the budget, ascending."""
        return self._within(cell, lambda peak: peak.high)

    def possible(self, cell: Cell) -> tuple[int, ...]:
        """List the candidate counts that may be within the budget, ascending; compiling one decides."""
        return self._within(cell, lambda peak: peak.low)

    def _within(self, cell: Cell, bound: Callable[[Range], float]) -> tuple[int, ...]:
        """List candidates: counts in ratios of about sqrt(2), what was measured, and the largest within the budget."""
        counts = self._question.space.counts
        if counts is None:
            work = self._question.works.get(cell.case)
            steps = max(1, self._question.steps(cell.case))
            grid = candidate_counts(work, at_most=24) if work else grid_counts(steps)
            found = {*grid, *self.forecast.measured_counts(cell), self._largest(cell, steps, bound)}
            counts = tuple(sorted(found))
        known = [(count, self.forecast.bytes_at(cell, count)) for count in counts]
        return tuple(count for count, peak in known if peak and self._question.fits(bound(peak)))

    def _largest(self, cell: Cell, steps: int, bound: Callable[[Range], float]) -> int:
        """Bisect for the largest count whose bound is within the budget; bytes rise with the count."""
        fits = 1
        beyond = steps + 1
        while beyond - fits > 1:
            middle = (fits + beyond) // 2
            peak = self.forecast.bytes_at(cell, middle)
            if peak is not None and self._question.fits(bound(peak)):
                fits = middle
            else:
                beyond = middle
        return fits

    def best_expected_seconds(self, cell: Cell) -> float | None:
        """Return the least seconds, measured or forecast, of a count that fits."""
        known = [self.forecast.seconds_at(cell, count) for count in self.fitting(cell)]
        return min((seconds.likely for seconds in known if seconds), default=None)

    def most_passes_timed(self, cell: Cell) -> float:
        """Return the most passes of any count that was timed at the cell, infinite where none was."""
        return max((self._question.passes(cell, count) for count in self.timed_counts(cell)), default=float("inf"))
