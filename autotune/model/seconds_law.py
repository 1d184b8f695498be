"""The law of seconds by the passes that a gradient executes, corrected near what was timed.

A law with physical terms, `a + F * advances + U * taped` (an advance is an untaped pass of the body, a taped
pass one reversed step; F and U differ by 3 to 7), fitted to all cells of a variant, times a correction: a Gaussian
process over the logarithms of count and steps, whose kernel falls off exponentially. The correction carries what the
law leaves out (writing checkpoints costs time, caches end), so nothing here takes seconds to be monotone in the count.

Where the program takes another path (`autotune.adjoints.Work.path`) seconds may jump, and samples of one path correct
no other. The law is fitted to the path that has most of them; of the others it says by how much more they may differ.
"""

import math
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
        seconds = np.array([float(np.median(samples[key])) for key in keys])
        terms = np.array([self._terms(*key) for key in keys])
        # Relative errors count alike, so rows are divided by their seconds; no cost is negative.
        scale = np.maximum(terms.max(axis=0), 1.0)  # a column is all zero where no gradient is taken
        fitted = np.array([one == self._main for one in paths])
        relative = terms[fitted] / scale / seconds[fitted, None]
        weights, _ = scipy.optimize.nnls(relative, np.ones(len(relative)))
        self._weights = weights / scale
        self._fewest_seconds = float((seconds / terms[:, 1:3].sum(axis=1)).min())
        law = np.maximum(terms @ self._weights, 1e-12)
        self._places = np.array([self._place(*key) for key in keys])
        noise = np.array([_noise(samples[key]) for key in keys])
        kernel = self._kernel(self._places, self._places) + np.diag(noise**2)
        self._inverse = np.linalg.inv(kernel)
        self._pull = self._inverse @ np.log(seconds / law)

    @property
    def step_seconds(self) -> float:
        """What one advance costs; a share of a whole call where the samples do not separate it from the rest."""
        if self._weights[1] > 0:
            return float(self._weights[1])
        return self._fewest_seconds

    def at(self, case: Case, checkpoints: int) -> Range:
        """Forecast the median seconds of one call, within one standard deviation."""
        law = max(float(self._terms(case, checkpoints) @ self._weights), 1e-12)
        place = np.array([self._place(case, checkpoints)])
        near = self._kernel(place, self._places)[0]
        variance = float(self._kernel(place, place)[0, 0]) - float(near @ self._inverse @ near)
        spread = math.sqrt(max(variance, 0.0))
        likely = law * math.exp(float(near @ self._pull))
        return Range(likely * math.exp(-spread), likely, likely * math.exp(spread))

    def _terms(self, case: Case, checkpoints: int) -> np.ndarray:
        advances, taped = self._count_passes(case, checkpoints)
        return np.array([1.0, advances, taped, min(checkpoints, taped)])

    def _place(self, case: Case, checkpoints: int) -> tuple[float, float, int]:
        steps = max(1, self._count_passes(case, checkpoints)[1])
        return math.log(checkpoints), math.log(steps), self._path(case, checkpoints)

    def _kernel(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """Compute the covariance of log ratios: exponential in the distance, so that the curve may have kinks.

        Nothing follows from one path to another.
        """
        distance = np.abs(left[:, None, :2] - right[None, :, :2]).sum(axis=-1)
        same = left[:, None, 2] == right[None, :, 2]
        beside = PATH_SPREAD**2 * (left[:, None, 2] != self._main)
        return same * (PRIOR_SPREAD**2 * np.exp(-distance / REACH) + beside)


def _noise(samples: Sequence[float]) -> float:
    """Estimate the standard error of the median as a log ratio, never below that of a quiet machine."""
    if len(samples) < 3:
        return 2 * SAMPLE_NOISE
    spread = np.median(np.abs(np.log(samples) - np.log(np.median(samples)))) * 1.4826
    return min(MOST_NOISE, max(SAMPLE_NOISE, float(1.2533 * spread / math.sqrt(len(samples)))))
