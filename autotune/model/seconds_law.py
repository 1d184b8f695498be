"""The law of seconds by the passes that a gradient executes, corrected near what was timed.

A law with physical terms, `a + F * advances + U * taped` (an advance is an untaped pass of the body, a taped
pass one reversed step; F and U differ by 3 to 7), fitted to all cells of a variant, times a correction: a Gaussian
process over the logarithms of count and steps, whose kernel falls off exponentially. The correction carries what the
law leaves out (writing checkpoints costs time, caches end), so nothing here takes seconds to be monotone in the count.

Where the program takes another path (`autotune.adjoints.Work.path`) seconds may jump, and samples of one path correct
no other. The law is fitted to the path that has most of them; of the others it says by how much more they may differ.

A process over n samples takes n^3 operations. Of more than MOST_SAMPLES each case takes those that are nearest to it,
its own first: far ones pull at nothing, since the kernel has fallen off.
"""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import scipy.optimize

from autotune.model.ranges import Range
from profiles import Case

PRIOR_SPREAD = 0.15
"""Standard deviation, as a log ratio, by which seconds may leave the law far from any sample."""
SAMPLE_NOISE = 0.03
"""Standard deviation, as a log ratio, of one median of interleaved rounds on a quiet machine."""
MOST_NOISE = 0.1
"""What the standard error of a median is taken for at most, so that samples count at all on a noisy machine."""
PATH_SPREAD = 0.25
"""Standard deviation, as a log ratio, by which a path as a whole may leave the law of another, before it was timed."""
REACH = 1.5
"""How far, in units of ln(count) + ln(steps), a sample says something about its neighbours."""


MOST_SAMPLES = 200
"""So many samples correct the law at a case at most."""


Costs = Callable[[Case, int], tuple[float, int]]
"""Advances and taped passes of a case and count."""
Paths = Callable[[Case, int], int]
"""The path that the program takes at a case and count."""


class SecondsLaw:
    """`a + F * advances + U * taped`, corrected near the samples."""

    def __init__(
        self,
        samples: Mapping[tuple[Case, int], Sequence[float]],
        count_passes: Costs,
        path: Paths = lambda case, checkpoints: 0,
    ) -> None:
        self._count_passes = count_passes
        self._path = path
        keys = list(samples)
        paths = [path(*key) for key in keys]
        self._main = max(paths, key=lambda one: (paths.count(one), -one))
        seconds = np.array([statistics.median(samples[key]) for key in keys])
        terms = np.array([self._terms(*key) for key in keys])
        # Relative errors count alike, so rows are divided by their seconds; no cost is negative.
        scale = np.maximum(terms.max(axis=0), 1.0)  # a column is all zero where no gradient is taken
        fitted = np.array([one == self._main for one in paths])
        relative = terms[fitted] / scale / seconds[fitted, None]
        weights, _ = scipy.optimize.nnls(relative, np.ones(len(relative)))
        self._weights = weights / scale
        self._fewest_seconds = float((seconds / terms[:, 1:3].sum(axis=1)).min())
        self._keys = keys
        self._ratios = np.log(seconds / np.maximum(terms @ self._weights, 1e-12))
        self._places = np.array([self._place(*key) for key in keys])
        self._variances = np.array([_noise(samples[key]) for key in keys]) ** 2
        self._corrections: dict[Case | None, _Correction] = {}

    @property
    def step_seconds(self) -> float:
        """What one advance costs; a share of a whole call where the samples do not separate it from the rest."""
        if self._weights[1] > 0:
            return float(self._weights[1])
        return self._fewest_seconds

    def at(self, case: Case, checkpoints: int) -> Range:
        """Forecast the median seconds of one call, within one standard deviation."""
        law = max(float(self._terms(case, checkpoints) @ self._weights), 1e-12)
        pull, spread = self._correction(case).at(self._place(case, checkpoints))
        likely = law * math.exp(pull)
        return Range(likely * math.exp(-spread), likely, likely * math.exp(spread))

    def _correction(self, case: Case) -> "_Correction":
        """Give the correction at a case, of all samples where they are few."""
        few = len(self._keys) <= MOST_SAMPLES
        at = None if few else case
        if at not in self._corrections:
            nearest = range(len(self._keys)) if few else self._nearest(case)
            chosen = np.fromiter(nearest, dtype=int)
            self._corrections[at] = _Correction(
                self._places[chosen], self._variances[chosen], self._ratios[chosen], self._main
            )
        return self._corrections[at]

    def _nearest(self, case: Case) -> list[int]:
        """Choose the samples that say most of a case: its own, evenly over the counts, then those of like steps."""
        own = [index for index, (other, _) in enumerate(self._keys) if other == case]
        if len(own) > MOST_SAMPLES // 2:
            own.sort(key=lambda index: self._places[index][0])
            own = [own[k] for k in np.linspace(0, len(own) - 1, MOST_SAMPLES // 2).astype(int)]
        steps = np.median(self._places[own, 1]) if own else self._place(case, 1)[1]
        mine, away = set(own), np.abs(self._places[:, 1] - steps)
        others = [int(index) for index in np.argsort(away, kind="stable") if int(index) not in mine]
        return own + others[: MOST_SAMPLES - len(own)]

    def _terms(self, case: Case, checkpoints: int) -> np.ndarray:
        advances, taped = self._count_passes(case, checkpoints)
        return np.array([1.0, advances, taped, min(checkpoints, taped)])

    def _place(self, case: Case, checkpoints: int) -> tuple[float, float, int]:
        steps = max(1, self._count_passes(case, checkpoints)[1])
        return math.log(checkpoints), math.log(steps), self._path(case, checkpoints)


class _Correction:
    """A Gaussian process of log ratios over some samples; `main` is the path that the law was fitted to."""

    def __init__(self, places: np.ndarray, variances: np.ndarray, ratios: np.ndarray, main: int) -> None:
        self._places = places
        self._main = main
        self._inverse = np.linalg.inv(_kernel(places, places, main) + np.diag(variances))
        self._pull = self._inverse @ ratios

    def at(self, place: tuple[float, float, int]) -> tuple[float, float]:
        """Give the log ratio at a place, and its standard deviation."""
        here = np.array([place])
        near = _kernel(here, self._places, self._main)[0]
        variance = float(_kernel(here, here, self._main)[0, 0]) - float(near @ self._inverse @ near)
        return float(near @ self._pull), math.sqrt(max(variance, 0.0))


def _kernel(left: np.ndarray, right: np.ndarray, main: int) -> np.ndarray:
    """Compute the covariance of log ratios: exponential in the distance, so that the curve may have kinks.

    Nothing follows from one path to another.
    """
    distance = np.abs(left[:, None, :2] - right[None, :, :2]).sum(axis=-1)
    same = left[:, None, 2] == right[None, :, 2]
    beside = PATH_SPREAD**2 * (left[:, None, 2] != main)
    return same * (PRIOR_SPREAD**2 * np.exp(-distance / REACH) + beside)


def _noise(samples: Sequence[float]) -> float:
    """Estimate the standard error of the median as a log ratio, never below that of a quiet machine."""
    if len(samples) < 3:
        return 2 * SAMPLE_NOISE
    middle = math.log(statistics.median(samples))
    spread = statistics.median(abs(math.log(sample) - middle) for sample in samples) * 1.4826
    return min(MOST_NOISE, max(SAMPLE_NOISE, float(1.2533 * spread / math.sqrt(len(samples)))))
