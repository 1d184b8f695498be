"""Choose for every case, and run each choice under the user's own settings before it is recommended.

What is recommended has been compiled and run as its user will run it, and its peak was within the budget. A choice that
fails that is a row like any other, and the next best takes its place.
"""

import dataclasses
import math
from collections.abc import Generator, Iterable, Sequence

from autotune.choosing.describe import Known, describe, measured_point
from autotune.choosing.recommend import Evidence, Fit, Option, Recommendation, options, outlook, rank
from autotune.measuring.trial import Rung
from autotune.model.cells import Cell, cell_of
from autotune.model.forecast import Forecast
from autotune.search.search import TrialRequest
from autotune.tuning.prepare import Prepared
from profiles import Case, FrontAxis, FrontPoint, Measurement, PeakSource, Status, pareto_front, points

ATTEMPTS = 8
"""How many choices of one case may fail their final run before the case is given up."""
SECOND_THOUGHTS = 1
"""How often a choice that lies off the measured front after its final run is given up for the one that beats it."""

Choosing = Generator[TrialRequest, Measurement, Recommendation]
"""A choice on its way: yields what is to be run under the user's own settings, takes its row, returns the choice."""


class Chooser:
    """The choice at one case after the other, from the rows of a finished search."""

    def __init__(self, prepared: Prepared, rows: Sequence[Measurement], verified: Iterable[Measurement]) -> None:
        """Fit the forecasts once."""
        self._prepared = prepared
        self._rows = list(rows)
        self._verified = {(cell_of(row), row.checkpoints): row for row in verified}

    def choose(self, case: Case, cells: Sequence[Cell]) -> Choosing:
        """Find the best count at a case, over its cells, that survives its final run."""
        base = Recommendation(
            case=case,
            status=Fit.NOTHING_FITS,
            budget_bytes=self._prepared.budget.bytes,
            margin_bytes=self._prepared.budget.margin_bytes,
        )
        tried: set[tuple[Cell, int]] = set()
        held: list[tuple[Option, Measurement]] = []
        for _ in range(ATTEMPTS):
            option = self._beats(held[-1][0], cells, tried) if held else self._best(cells, tried)
            if option is None:
                break
            tried.add((option.cell, option.checkpoints))
            row = yield from self._final_run(option)
            if self._holds(row):
                held.append((option, row))
            if len(held) > SECOND_THOUGHTS:
                break
        if held:
            on_front = [one for one in held if self._dominant(one[0], cells) is None]
            return self._described(*(on_front or held)[0], base, cells)
        return dataclasses.replace(base, smallest_bytes=self._smallest(cells))

    def _best(self, cells: Sequence[Cell], tried: set[tuple[Cell, int]]) -> Option | None:
        candidates = [o for o in self._options(cells) if (o.cell, o.checkpoints) not in tried]
        ranked = rank(candidates, self._prepared.budget.bytes)
        return ranked[0] if ranked else None

    def _options(self, cells: Sequence[Cell]) -> list[Option]:
        """List everything that could be chosen at a case."""
        rows = [*self._rows, *(row for row in self._verified.values() if not self._holds(row))]
        forecast = Forecast(rows, self._prepared.works, self._prepared.request.adjoint)
        return [
            option
            for cell in cells
            for option in options(
                forecast,
                cell,
                name=self._prepared.request.adjoint,
                work=self._prepared.works.get(cell.case),
                counts=self._prepared.space.counts,
                rows=rows,
            )
        ]

    def _dominant(self, option: Option, cells: Sequence[Cell]) -> FrontPoint | None:
        """Find the measured point that beats a choice in both bytes and seconds; None where the choice is in front."""
        rows = [row for row in (*self._rows, *self._verified.values()) if cell_of(row) in cells]
        mine = measured_point(rows, option.cell, option.checkpoints)
        if mine is None or mine.run_seconds is None:
            return None
        front = pareto_front(points(rows), FrontAxis.SECONDS)
        better = [p for p in front if p.peak_bytes <= mine.peak_bytes and (p.run_seconds or 0) <= mine.run_seconds]
        beaten = all(point.rows != mine.rows for point in front)
        return min(better, key=lambda p: p.run_seconds or 0, default=None) if beaten else None

    def _beats(self, option: Option, cells: Sequence[Cell], tried: set[tuple[Cell, int]]) -> Option | None:
        """Return the option that beats a choice that was run, as measured; None where none does."""
        point = self._dominant(option, cells)
        if point is None:
            return None
        at = cell_of(point.rows[-1]), point.checkpoints
        return next((o for o in self._options(cells) if (o.cell, o.checkpoints) == at and at not in tried), None)

    def _final_run(self, option: Option) -> Generator[TrialRequest, Measurement, Measurement]:
        known = self._verified.get((option.cell, option.checkpoints))
        rung = Rung.RUN if option.cell.case in self._prepared.works else Rung.COMPILED
        if known is not None and (known.run_seconds or rung is Rung.COMPILED or known.status is not Status.OK):
            return known
        row = yield TrialRequest(
            cell=option.cell, checkpoints=option.checkpoints, rung=rung, why="final run, your own settings"
        )
        self._verified[(option.cell, option.checkpoints)] = row
        return row

    def _holds(self, row: Measurement) -> bool:
        """Return whether a final run ended well and within the budget."""
        return row.status is Status.OK and row.peak_bytes is not None and row.peak_bytes <= self._prepared.budget.bytes

    def _described(
        self, option: Option, row: Measurement, base: Recommendation, cells: Sequence[Cell]
    ) -> Recommendation:
        """Report the point that the final run belongs to, as every other output does."""
        name = self._prepared.request.adjoint
        work = self._prepared.works.get(option.cell.case)
        rows = [*self._rows, *self._verified.values()]
        forecast = Forecast(rows, self._prepared.works, name)
        known = Known(rows=rows, forecast=forecast, evidence=Evidence.MEASURED)
        said = describe(option, work, name, base, known=known)
        candidates = self._options(cells)
        ranked = rank(candidates, self._prepared.budget.bytes)
        said = outlook(said, [*ranked, *(o for o in candidates if o not in ranked)], work, name)
        directory = self._prepared.request.directory_of(option.cell.tier)
        return dataclasses.replace(said, directory=directory, expected_steps=row.expected_steps)

    def _smallest(self, cells: Sequence[Cell]) -> int | None:
        """Find the least bytes that any count needs at the case, or at its variant where it has no row."""
        variants = {cell.variant for cell in cells}
        rows = [row for row in (*self._rows, *self._verified.values()) if row.peak_bytes]
        rows = [row for row in rows if row.peak_source is not PeakSource.TRACED]
        mine = [row.peak_bytes for row in rows if cell_of(row) in cells and row.peak_bytes]
        shared = [row.peak_bytes for row in rows if cell_of(row).variant in variants and row.peak_bytes]
        return math.ceil(min(mine or shared)) if mine or shared else None
