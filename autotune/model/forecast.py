"""What the rows measured so far say about the counts not measured yet: bytes and seconds, each with its bounds.

Bytes. The law of `autotune.model.bytes_law`, through the counts of the case that has most, moved to what is known of
the others. Beyond the largest measured count there is no upper bound, so nothing there counts as fitting. A program
that stores every state without a schedule (`Work.everything`) is another one: it lies on no line with the rest.

Seconds. The law of `autotune.model.seconds_law`, fitted to all cells of a variant.

Passes are integers from theory (`executed_steps`), for our adjoint and for Diffrax's.
"""

import functools
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from autotune.adjoints import Work, passes, transfer_steps
from autotune.model.bytes_law import BytesLaw
from autotune.model.cells import Cell, Variant, cell_of
from autotune.model.drift import compared_samples
from autotune.model.ranges import Range
from autotune.model.seconds_law import SecondsLaw
from profiles import AdjointName, Case, Measurement, Status


class Forecast:
    """Bytes and seconds at any cell and count, from measured rows; made anew when rows arrive, never changed."""

    def __init__(self, rows: Sequence[Measurement], works: Mapping[Case, Work], name: AdjointName) -> None:
        """Fit the laws of every variant that has rows. Rows that failed are left out."""
        self._name = name
        self._works = works
        good = [row for row in rows if row.status is Status.OK]
        self._peaks = _largest(good, lambda row: row.peak_bytes)
        self._compiled = _largest(good, lambda row: row.compiled_bytes)
        timed: dict[Variant, dict[tuple[Case, int], list[float]]] = {}
        for (cell, count), samples in compared_samples(good).items():
            if cell.case in works:
                timed.setdefault(cell.variant, {})[(cell.case, count)] = samples
        factors = {
            variant: [sum(self._passes(variant, at)) / self._works[at[0]].steps for at in samples]
            for variant, samples in timed.items()
        }
        self._factors = {variant: (min(found), max(found)) for variant, found in factors.items()}
        self._seconds = {
            variant: SecondsLaw(samples, functools.partial(self._costs, variant), self._path)
            for variant, samples in timed.items()
        }

    def _passes(self, variant: Variant, at: tuple[Case, int]) -> tuple[int, int]:
        return passes(self._name, self._works[at[0]], at[1], variant.tier)

    def _costs(self, variant: Variant, case: Case, checkpoints: int) -> tuple[float, int]:
        """Count advances, with transfers at their price in steps, and taped passes."""
        advances, taped = self._passes(variant, (case, checkpoints))
        return advances + transfer_steps(taped, checkpoints, variant.tier), taped

    def _path(self, case: Case, checkpoints: int) -> int:
        return self._works[case].path(checkpoints)

    def _whole(self, case: Case, checkpoints: int) -> bool:
        """Return whether a count stores every state without a schedule."""
        work = self._works.get(case)
        return work is not None and work.everything is not None and checkpoints >= work.everything

    def measured_counts(self, cell: Cell) -> tuple[int, ...]:
        """List the counts whose bytes are known at exactly this cell."""
        return tuple(sorted(self._peaks.get(cell.variant, {}).get(cell.case, {})))

    def counts_to_choose(self, cell: Cell, work: Work | None) -> tuple[int, ...]:
        """List the measured counts that may be chosen at a cell: its own, where it has none those of its variant.

        Of the latter those that the cell encloses, since they were measured at other steps.
        """
        own = self.measured_counts(cell)
        if own or work is None:
            return own
        there = {count for counts in self._peaks.get(cell.variant, {}).values() for count in counts}
        return tuple(sorted(count for count in there if self.encloses(cell, count, work)))

    def encloses(self, cell: Cell, checkpoints: int, work: Work) -> bool:
        """Return whether a count lies within what was measured of the variant.

        Its bytes have to lie between measured ones, and it must not execute more, for its steps, than a count that was
        timed: a law says nothing of what lies beyond its samples.
        """
        whole = self._whole(cell.case, checkpoints)
        by_case = self._peaks.get(cell.variant, {})
        known = [count for case in by_case for count in by_case[case] if self._whole(case, count) == whole]
        if not known or not min(known) <= checkpoints <= max(known):
            return False
        _, most = self._factors.get(cell.variant, (0.0, math.inf))
        return sum(passes(self._name, work, checkpoints, cell.tier)) <= most * work.steps

    def times_around(self, cell: Cell, checkpoints: int, work: Work) -> bool:
        """Return whether counts that execute more, and counts that execute fewer steps were timed."""
        factor = sum(passes(self._name, work, checkpoints, cell.tier)) / work.steps
        least, most = self._factors.get(cell.variant, (math.inf, -math.inf))
        return least < most and least <= factor <= most

    def state_bytes(self, variant: Variant) -> float | None:
        """Estimate the bytes of one state: the steepest slope between neighbouring compiled counts.

        Bytes by count are a maximum of lines, whose steepest is the checkpoints'. None where fewer than two counts of
        one case were compiled. What was seen while running is left out: resident memory scatters by more than a state.
        """
        curves = [
            {count: size for count, size in curve.items() if not self._whole(case, count)}
            for case, curve in self._compiled.get(variant, {}).items()
        ]
        return max(filter(None, (BytesLaw(c.items(), self._name).state_bytes for c in curves if c)), default=None)

    def step_seconds(self, variant: Variant) -> float | None:
        """Estimate the seconds of one untaped step, None where nothing was timed."""
        law = self._seconds.get(variant)
        return law.step_seconds if law else None

    def bytes_at(self, cell: Cell, checkpoints: int) -> Range | None:
        """Forecast the peak bytes of a count, None while the variant has no row."""
        by_case = self._curves(cell, self._whole(cell.case, checkpoints))
        if not by_case:
            return None
        own = by_case.get(cell.case, {})
        if checkpoints in own:
            return Range(own[checkpoints], own[checkpoints], own[checkpoints])
        reference = max(by_case, key=lambda case: (len(by_case[case]), self._steps(case)))
        curve = by_case[reference]
        law = BytesLaw(curve.items(), self._name)
        between = law.at(checkpoints)
        offsets = [peak - law.at(count).likely for count, peak in own.items()]
        offset = float(np.median(offsets)) if offsets else 0.0
        return Range(between.low + offset, between.likely + offset, between.high + offset)

    def _curves(self, cell: Cell, whole: bool) -> dict[Case, dict[int, int]]:
        """Return the bytes by count of every case: of counts that store everything without a schedule, or of others."""
        found = {}
        for case, curve in self._peaks.get(cell.variant, {}).items():
            if kept := {count: size for count, size in curve.items() if self._whole(case, count) == whole}:
                found[case] = kept
        return found

    def seconds_at(self, cell: Cell, checkpoints: int) -> Range | None:
        """Forecast the median seconds of one call within one standard deviation, None while nothing was timed."""
        law = self._seconds.get(cell.variant)
        return law.at(cell.case, checkpoints) if law and cell.case in self._works else None

    def _steps(self, case: Case) -> int:
        return self._works[case].steps if case in self._works else 0


def _largest(
    rows: Sequence[Measurement], figure: Callable[[Measurement], int | None]
) -> dict[Variant, dict[Case, dict[int, int]]]:
    """Collect the largest figure of every count, by variant and case."""
    found: dict[Variant, dict[Case, dict[int, int]]] = {}
    for row in rows:
        if size := figure(row):
            cell = cell_of(row)
            of_case = found.setdefault(cell.variant, {}).setdefault(cell.case, {})
            of_case[row.checkpoints] = max(size, of_case.get(row.checkpoints, 0))
    return found
