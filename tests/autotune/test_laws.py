"""Laws against functions of the kind they claim to describe, made by independent formulas."""

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from autotune._laws import BytesLaw, TimeSample, fit_bytes_law, fit_seconds_law
from profiles._records import AdjointName

OURS, DIFFRAX = AdjointName.OURS, AdjointName.DIFFRAX
COUNTS = [1, 2, 3, 4, 6, 8, 10, 12, 16, 20, 24, 32, 48, 64, 80, 96, 128, 160, 192, 256]

phases = st.lists(st.tuples(st.integers(10**5, 10**9), st.booleans()), min_size=1, max_size=4)


def total(count, phases, slope):
    """The most that any phase needs: a fixed part, with or without the checkpoints."""
    return max(fixed + slope * count * with_checkpoints for fixed, with_checkpoints in phases)


def probed(phases, slope, *, traced=True, most=3):
    """Compile where the law asks, at most three times."""
    points = {}
    for _ in range(most):
        law = fit_bytes_law(points, adjoint=OURS, per_checkpoint_bytes=slope if traced else None)
        count = law.next_count(1, 256)
        if count is None:
            break
        points[count] = total(count, phases, slope)
    return fit_bytes_law(points, adjoint=OURS, per_checkpoint_bytes=slope if traced else None)


@given(phases, st.integers(1000, 10**7))
def test_three_compiles_tell_every_count_within_its_bars_and_never_too_low(phases, slope):
    """For any maximum of lines, the truth lies within the bars, and the prediction is not below it."""
    law = probed(phases, slope)
    assert len(law.points) <= 3
    for count in COUNTS:
        truth, said = total(count, phases, slope), law.at(count)
        assert said is not None
        assert said.low - 1 <= truth <= said.high + 1
        assert said.likely >= truth - 1


@given(st.integers(10**5, 10**9), st.integers(10**5, 10**9), st.integers(1000, 10**7))
def test_one_kink_is_found_exactly(flat, with_checkpoints, slope):
    """A flat phase and one with checkpoints: both lines are found, to what is allowed and one checkpoint."""
    phases = [(flat, False), (with_checkpoints, True)]
    law = probed(phases, slope)
    for count in COUNTS:
        said = law.at(count)
        assert said is not None
        truth = total(count, phases, slope)
        assert said.likely - truth <= max(0.01 * truth, 64 * 1024) + slope


def test_a_line_needs_two_compiles_only():
    """Where the chord's slope is one checkpoint's, a third compile tells nothing."""
    assert len(probed([(10**6, True)], 50_000).points) == 2
    assert len(probed([(10**6, True)], 50_000, traced=False).points) == 3


@given(phases, st.integers(1000, 10**7), st.integers(10**5, 10**10))
def test_the_largest_count_within_a_budget_is_within_it(phases, slope, budget):
    """What is chosen by the law fits in truth, and the next larger count does not fit the law's upper bar."""
    law = probed(phases, slope)
    chosen = law.largest_within(budget, 256)
    if chosen is not None:
        assert total(chosen, phases, slope) <= budget
    if chosen != 256:
        following = law.at((chosen or 0) + 1)
        assert following is not None
        assert following.high > budget


@given(st.integers(10**6, 10**9), st.integers(1000, 10**7), st.integers(2, 255), st.floats(-0.3, 0.9))
def test_packing_that_differs_at_a_count_stays_within_what_a_prediction_may_be_wrong_by(fixed, slope, count, packed):
    """XLA packs buffers differently at some counts; up to eight tenths of what is allowed above the line is covered."""
    law = probed([(fixed, True)], slope)
    assume(count not in dict(law.points))
    exact = total(count, [(fixed, True)], slope)
    allowed = max(0.01 * exact, 64 * 1024)
    said = law.at(count)
    assert said is not None
    truth = exact + packed * allowed
    if packed <= 0.8:
        assert truth - said.likely <= allowed / 2
    assert said.likely - truth <= allowed


def test_compiled_points_are_exact():
    """What was compiled is not smoothed."""
    law = fit_bytes_law({4: 1000, 8: 5000}, adjoint=OURS)
    said = law.at(8)
    assert said is not None
    assert (said.low, said.likely, said.high, said.exact) == (5000, 5000, 5000, True)


def test_a_point_outside_the_bars_contradicts_the_law():
    """One within them does not."""
    law = fit_bytes_law({1: 10_000_000, 101: 110_000_000}, adjoint=OURS, per_checkpoint_bytes=1_000_000)
    assert not law.contradicted_by(51, 60_000_000)
    assert not law.contradicted_by(51, 60_250_000)
    assert law.contradicted_by(51, 61_000_000)
    assert law.contradicted_by(51, 59_000_000)


def test_a_residual_says_how_far_an_inner_point_lies_off():
    """Ends have none: nothing predicts them."""
    law = fit_bytes_law({1: 1_000_000, 2: 2_500_000, 3: 3_000_000}, adjoint=OURS)
    assert law.residuals[1] == pytest.approx(500_000, rel=0.1)
    assert math.isnan(law.residuals[0])
    assert math.isnan(law.residuals[2])


def test_extrapolation_is_told_and_its_upper_bar_is_wide():
    """Beyond the largest compiled count a line is a lower bound only."""
    law = fit_bytes_law({1: 1_000_000, 10: 10_000_000}, adjoint=OURS, per_checkpoint_bytes=1_000_000)
    assert law.is_extrapolated(11)
    assert not law.is_extrapolated(5)
    said = law.at(20)
    assert said is not None
    assert said.likely == 20_000_000
    assert said.high >= 30_000_000


@given(st.dictionaries(st.integers(1, 300), st.integers(1, 10**9), min_size=1, max_size=6), st.integers(1, 300))
def test_nothing_is_said_of_diffrax_between_compiled_points(points, count):
    """Its total is not monotone in the count, so only compiled points stand, also for the choice."""
    law = fit_bytes_law(points, adjoint=DIFFRAX)
    said = law.at(count)
    assert (said is None) == (count not in points)
    budget = sorted(points.values())[len(points) // 2]
    chosen = law.largest_within(budget, 300)
    assert chosen == max(c for c, size in points.items() if size <= budget)


def test_a_law_without_points_says_nothing():
    """No compile, no figure."""
    empty = BytesLaw(adjoint=OURS, points=())
    assert empty.at(3) is None
    assert empty.largest_within(10**9, 10) is None
    assert empty.next_count(1, 256) == 256


@given(
    st.floats(0, 1e-1), st.floats(1e-6, 1e-2), st.floats(1e-6, 1e-1),
    st.lists(st.tuples(st.integers(1, 5000), st.integers(10, 500)), min_size=4, max_size=8, unique=True),
)  # fmt: skip
def test_exact_seconds_are_reproduced_and_parted(constant, advance, reverse, work):
    """Without noise the law returns what made the samples, at every held-out point within rounding."""
    assume(len({n for _, n in work}) > 2)
    terms = np.array([[1.0, a, n] for a, n in work])
    scaled = terms / terms.max(axis=0)
    assume(np.linalg.matrix_rank(scaled, tol=1e-3) == 3)
    truth = lambda a, n: constant + advance * a + reverse * n
    samples = [TimeSample(advances=a, reversed_steps=n, seconds=(truth(a, n),) * 3) for a, n in work]
    law = fit_seconds_law(samples)
    for a, n in work:
        assert law.at(a, n).likely == pytest.approx(truth(a, n), rel=1e-4)
    assert max(map(abs, law.residuals)) < 1e-4


def test_advances_and_reversed_steps_are_parted_with_one_number_of_steps():
    """Two counts at one n tell F; U keeps the constant."""
    samples = [TimeSample(advances=a, reversed_steps=100, seconds=(2e-3 * a + 5e-3 * 100,)) for a in (100, 400)]
    law = fit_seconds_law(samples)
    assert law.advance_seconds == pytest.approx(2e-3)
    assert law.reversed_seconds == pytest.approx(5e-3)
    assert law.constant_seconds == 0


@pytest.mark.parametrize("seed", range(5))
def test_noisy_samples_predict_held_out_points_within_the_bars(seed):
    """Ten per cent of noise on four samples: held-out work lies within two standard deviations nearly always."""
    rng = np.random.default_rng(seed)
    truth = lambda a, n: 0.01 + 1e-3 * a + 4e-3 * n
    noisy = lambda a, n: tuple(truth(a, n) * np.exp(rng.normal(0, 0.1, 5)))
    work = [(200, 100), (900, 100), (400, 300), (2000, 300)]
    law = fit_seconds_law([TimeSample(advances=a, reversed_steps=n, seconds=noisy(a, n)) for a, n in work])
    held_out = [(300, 100), (600, 200), (1000, 300), (1500, 250), (500, 400)]
    inside = [law.at(a, n).low <= truth(a, n) <= law.at(a, n).high for a, n in held_out]
    assert sum(inside) >= 4


def test_a_law_of_nothing_is_refused():
    """An empty fit would divide by nothing."""
    with pytest.raises(ValueError, match="at least one sample"):
        fit_seconds_law([])
    with pytest.raises(ValueError, match="seconds in each"):
        fit_seconds_law([TimeSample(advances=1, reversed_steps=1, seconds=())])
