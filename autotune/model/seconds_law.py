"""The law of seconds by the passes that a gradient executes, corrected near what was timed.

A law with physical terms, `a + F * advances + U * taped` (an advance is an untaped pass of the body, a taped
pass one reversed step; F and U differ by 3 to 7), fitted to all cells of a variant, times a correction: a Gaussian
process over the logarithms of count and steps, whose kernel falls off exponentially. The correction carries what the
law leaves out (writing checkpoints costs time, caches end), so nothing here takes seconds to be monotone in the count.
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
REACH = 1.5
"""How far, in units of ln(count) + ln(steps), a sample says something about its neighbours."""


Costs = Callable[[Case, int], tuple[float, int]]
"""Advances and taped passes of a case and count."""


class SecondsLaw:
    """`a + F * advances + U * taped`, corrected near the samples."""

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
        """What one advance costs; a share of a whole call where the samples do not separate it from the rest."""
        if self._weights[1] > 0:
            return float(self._weights[1])
        return self._fewest_seconds

    def at(self, case: Case, checkpoints: int) -> Range:
        """Forecast the median seconds of one call, within one standard deviation."""
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
    """Compute the covariance of log ratios: exponential in the distance, so that the curve may have kinks."""
    distance = np.abs(left[:, None, :] - right[None, :, :]).sum(axis=-1)
    return PRIOR_SPREAD**2 * np.exp(-distance / REACH)


def _noise(samples: Sequence[float]) -> float:
    """Estimate the standard error of the median as a log ratio, never below that of a quiet machine."""
    if len(samples) < 3:
        return 2 * SAMPLE_NOISE
    spread = np.median(np.abs(np.log(samples) - np.log(np.median(samples)))) * 1.4826
    return min(MOST_NOISE, max(SAMPLE_NOISE, float(1.2533 * spread / math.sqrt(len(samples)))))
