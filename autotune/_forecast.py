"""What the rows measured so far say about the counts not measured yet: bytes and seconds, each with its bounds.

Bytes. Of our adjoint, the law of `_laws` through what was compiled. Of Diffrax's, the straight line between two
measured counts, and lines through neighbouring pairs as lower bounds: its totals are mostly a maximum of lines, but
nothing promises that, so this orders trials and is never recommended from. Beyond the largest measured count there is
no upper bound, so nothing there counts as fitting.

Seconds. A law with physical terms, `a + F * advances + U * taped` (an advance is an untaped pass of the body, a taped
pass one reversed step; F and U differ by 3 to 7), fitted to all cells of a program, times a correction: a Gaussian
process over the logarithms of count and steps, whose kernel falls off exponentially. The correction carries what the
law leaves out (writing checkpoints costs time, caches end), so nothing here takes seconds to be monotone in the count.

Passes are integers from theory (`executed_steps`), for our adjoint and for Diffrax's.
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import scipy.optimize

from autotune._adjoints import Work, passes, transfer_steps
from autotune._laws import fit_bytes_law
from autotune._space import Cell, Program, cell_of
from autotune._speed import compared_samples
from profiles._records import AdjointName, Case, Measurement, Status

PRIOR_SPREAD = 0.15
"""Standard deviation, as a log ratio, by which seconds may leave the law far from any sample (facts 7 and 20)."""
SAMPLE_NOISE = 0.03
"""Standard deviation, as a log ratio, of one median of interleaved rounds on a quiet machine."""
MOST_NOISE = 0.1
"""What the standard error of a median is taken for at most, so that samples count at all on a noisy machine."""
REACH = 1.5
"""How far, in units of ln(count) + ln(steps), a sample tells about its neighbours."""


@dataclasses.dataclass(frozen=True, slots=True)
class Range:
    """A figure with what bounds it; `high` is infinite where nothing bounds it from above."""

    low: float
    likely: float
    high: float


class Forecast:
    """Bytes and seconds at any cell and count, from measured rows; made anew when rows arrive, never changed."""

    def __init__(self, rows: Sequence[Measurement], works: Mapping[Case, Work], name: AdjointName) -> None:
        """Fit the laws of every program that has rows. Rows that failed tell nothing here."""
        self._name = name
        self._works = works
        good = [row for row in rows if row.status is Status.OK]
        self._peaks = _largest(good, lambda row: row.peak_bytes)
        self._compiled = _largest(good, lambda row: row.compiled_bytes)
        timed: dict[Program, dict[tuple[Case, int], list[float]]] = {}
        for (cell, count), samples in compared_samples(good).items():
            if cell.case in works:
                timed.setdefault(cell.program, {})[(cell.case, count)] = samples
        factors = {
            program: [sum(self._passes(program, at)) / self._works[at[0]].steps for at in samples]
            for program, samples in timed.items()
        }
        self._factors = {program: (min(found), max(found)) for program, found in factors.items()}
        self._seconds = {
            program: _SecondsLaw(samples, functools.partial(self._costs, program)) for program, samples in timed.items()
        }

    def _passes(self, program: Program, at: tuple[Case, int]) -> tuple[int, int]:
        return passes(self._name, self._works[at[0]], at[1], program.tier)

    def _costs(self, program: Program, case: Case, checkpoints: int) -> tuple[float, int]:
        """Count advances, with transfers at their price in steps, and taped passes."""
        advances, taped = self._passes(program, (case, checkpoints))
        return advances + transfer_steps(taped, checkpoints, program.tier), taped

    def measured_counts(self, cell: Cell) -> tuple[int, ...]:
        """The counts whose bytes are known at exactly this cell."""
        return tuple(sorted(self._peaks.get(cell.program, {}).get(cell.case, {})))

    def encloses(self, cell: Cell, checkpoints: int, work: Work) -> bool:
        """Whether a count lies within what was measured of the program.

        Its bytes have to lie between measured ones, and it must not execute more, for its steps, than a count that was
        timed: a law says nothing of what lies beyond its samples.
        """
        known = [count for counts in self._peaks.get(cell.program, {}).values() for count in counts]
        if not known or not min(known) <= checkpoints <= max(known):
            return False
        _, most = self._factors.get(cell.program, (0.0, math.inf))
        return sum(passes(self._name, work, checkpoints, cell.tier)) <= most * work.steps

    def times_around(self, cell: Cell, checkpoints: int, work: Work) -> bool:
        """Whether counts that execute more, and counts that execute fewer steps were timed."""
        factor = sum(passes(self._name, work, checkpoints, cell.tier)) / work.steps
        least, most = self._factors.get(cell.program, (math.inf, -math.inf))
        return least < most and least <= factor <= most

    def state_bytes(self, program: Program) -> float | None:
        """The steepest slope between neighbouring compiled counts: of a maximum of lines, the bytes of one state.

        None where fewer than two counts of one case were compiled. What was seen while running is left out: resident
        memory scatters by more than a state.
        """
        curves = [sorted(sizes.items()) for sizes in self._compiled.get(program, {}).values()]
        slopes = [
            (high - low) / (more - few)
            for curve in curves
            for (few, low), (more, high) in itertools.pairwise(curve)
        ]  # fmt: skip
        steepest = max(slopes, default=0.0)
        return steepest if steepest > 0 else None

    def step_seconds(self, program: Program) -> float | None:
        """Seconds of one untaped step, None where nothing was timed."""
        law = self._seconds.get(program)
        return law.step_seconds if law else None

    def bytes_at(self, cell: Cell, checkpoints: int) -> Range | None:
        """Forecast the peak bytes of a count, None while the program has no row."""
        by_case = self._peaks.get(cell.program)
        if not by_case:
            return None
        own = by_case.get(cell.case, {})
        if checkpoints in own:
            return Range(own[checkpoints], own[checkpoints], own[checkpoints])
        reference = max(by_case, key=lambda case: (len(by_case[case]), self._steps(case)))
        curve = by_case[reference]
        between = self._between(curve, checkpoints)
        offsets = [peak - self._between(curve, count).likely for count, peak in own.items()]
        offset = float(np.median(offsets)) if offsets else 0.0
        return Range(between.low + offset, between.likely + offset, between.high + offset)

    def _between(self, curve: Mapping[int, int], checkpoints: int) -> Range:
        if self._name is AdjointName.DIFFRAX:
            return _between(sorted(curve.items()), checkpoints)
        law = fit_bytes_law(curve, adjoint=self._name)
        said = law.at(checkpoints)
        assert said is not None
        return Range(said.low, said.likely, math.inf if checkpoints > max(curve) else said.high)

    def seconds_at(self, cell: Cell, checkpoints: int) -> Range | None:
        """Forecast the median seconds of one call within one standard deviation, None while nothing was timed."""
        law = self._seconds.get(cell.program)
        return law.at(cell.case, checkpoints) if law and cell.case in self._works else None

    def _steps(self, case: Case) -> int:
        return self._works[case].steps if case in self._works else 0


def _largest(
    rows: Sequence[Measurement], figure: Callable[[Measurement], int | None]
) -> dict[Program, dict[Case, dict[int, int]]]:
    """Collect the largest figure of every count, by program and case."""
    found: dict[Program, dict[Case, dict[int, int]]] = {}
    for row in rows:
        if size := figure(row):
            cell = cell_of(row)
            of_case = found.setdefault(cell.program, {}).setdefault(cell.case, {})
            of_case[row.checkpoints] = max(size, of_case.get(row.checkpoints, 0))
    return found


def _between(curve: Sequence[tuple[int, int]], count: int) -> Range:
    """Bound a convex curve at `count` from its measured (count, bytes) pairs, ascending."""
    exact = dict(curve).get(count)
    if exact is not None:
        return Range(exact, exact, exact)
    below = [pair for pair in curve if pair[0] < count]
    above = [pair for pair in curve if pair[0] > count]
    lines = [_line(ends[0], ends[1], count) for ends in (below[-2:], above[:2]) if len(ends) == 2]
    if below and above:
        high = _line(below[-1], above[0], count)
        low = max(lines, default=min(below[-1][1], above[0][1]))
        return Range(min(low, high), high, high)
    if below:
        likely = lines[0] if lines else float(below[-1][1])
        return Range(likely, likely, math.inf)
    likely = lines[0] if lines else float(above[0][1])
    return Range(likely, likely, max(likely, above[0][1]))


def _line(left: tuple[int, int], right: tuple[int, int], count: int) -> float:
    """Evaluate the straight line through two measured points."""
    slope = (right[1] - left[1]) / (right[0] - left[0])
    return left[1] + slope * (count - left[0])


Costs = Callable[[Case, int], tuple[float, int]]
"""Advances and taped passes of a case and count."""


class _SecondsLaw:
    """`a + F * advances + U * taped`, corrected near the samples; see the module's header."""

    def __init__(self, samples: Mapping[tuple[Case, int], Sequence[float]], count_passes: Costs) -> None:
        self._count_passes = count_passes
        keys = list(samples)
        seconds = np.array([float(np.median(samples[key])) for key in keys])
        terms = np.array([self._terms(*key) for key in keys])
        # Relative errors count alike, so rows are divided by their seconds; no cost is negative.
        scale = np.maximum(terms.max(axis=0), 1.0)  # a column is all zero where no gradient is taken
        weights, _ = scipy.optimize.nnls(terms / scale / seconds[:, None], np.ones(len(keys)))
        self._weights = weights / scale
        self._fewest_seconds = float((seconds / terms[:, 1:3].sum(axis=1)).min())
        law = np.maximum(terms @ self._weights, 1e-12)
        self._places = np.array([self._place(*key) for key in keys])
        noise = np.array([_noise(samples[key]) for key in keys])
        kernel = _kernel(self._places, self._places) + np.diag(noise**2)
        self._inverse = np.linalg.inv(kernel)
        self._pull = self._inverse @ np.log(seconds / law)

    @property
    def step_seconds(self) -> float:
        """What one advance costs; a share of a whole call where the samples do not part it from what else there is."""
        if self._weights[1] > 0:
            return float(self._weights[1])
        return self._fewest_seconds

    def at(self, case: Case, checkpoints: int) -> Range:
        law = max(float(self._terms(case, checkpoints) @ self._weights), 1e-12)
        near = _kernel(np.array([self._place(case, checkpoints)]), self._places)[0]
        variance = PRIOR_SPREAD**2 - float(near @ self._inverse @ near)
        spread = math.sqrt(max(variance, 0.0))
        likely = law * math.exp(float(near @ self._pull))
        return Range(likely * math.exp(-spread), likely, likely * math.exp(spread))

    def _terms(self, case: Case, checkpoints: int) -> np.ndarray:
        advances, taped = self._count_passes(case, checkpoints)
        return np.array([1.0, advances, taped, min(checkpoints, taped)])

    def _place(self, case: Case, checkpoints: int) -> tuple[float, float]:
        return math.log(checkpoints), math.log(max(1, self._count_passes(case, checkpoints)[1]))


def _kernel(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Covariance of log ratios: exponential in the distance, so that the curve may have kinks."""
    distance = np.abs(left[:, None, :] - right[None, :, :]).sum(axis=-1)
    return PRIOR_SPREAD**2 * np.exp(-distance / REACH)


def _noise(samples: Sequence[float]) -> float:
    """Standard error of the median as a log ratio, never below that of a quiet machine."""
    if len(samples) < 3:
        return 2 * SAMPLE_NOISE
    spread = np.median(np.abs(np.log(samples) - np.log(np.median(samples)))) * 1.4826
    return min(MOST_NOISE, max(SAMPLE_NOISE, float(1.2533 * spread / math.sqrt(len(samples)))))
