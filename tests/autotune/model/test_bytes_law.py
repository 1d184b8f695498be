"""The law of bytes against functions of the kind it claims to describe, made by independent formulas."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotune.model.bytes_law import BytesLaw
from profiles import AdjointName

OURS, DIFFRAX = AdjointName.OURS, AdjointName.DIFFRAX
COUNTS = [1, 2, 3, 4, 6, 8, 10, 12, 16, 20, 24, 32, 48, 64, 80, 96, 128, 160, 192, 256]

phases = st.lists(st.tuples(st.integers(10**5, 10**9), st.booleans()), min_size=1, max_size=4)
measured = st.dictionaries(st.integers(1, 40), st.integers(1, 10**9), min_size=1, max_size=8)


def total(count, phases, slope):
    """The most that any phase needs: a fixed part, with or without the checkpoints."""
    return max(fixed + slope * count * with_checkpoints for fixed, with_checkpoints in phases)


@given(phases, st.integers(1000, 10**7), st.lists(st.integers(2, 255), min_size=1, max_size=3, unique=True))
def test_the_truth_lies_within_the_bars_and_is_never_predicted_too_low(phases, slope, inner):
    """For any maximum of lines, at every count between the smallest and the largest measured one."""
    law = BytesLaw([(count, total(count, phases, slope)) for count in (1, *inner, 256)], OURS)
    for count in COUNTS:
        truth, said = total(count, phases, slope), law.at(count)
        assert said.low - 1 <= truth <= said.high + 1
        assert said.likely >= truth - 1


@given(phases, st.integers(1000, 10**7), st.integers(2, 100), st.integers(101, 200))
def test_below_the_smallest_measured_count_the_truth_is_within_the_bars(phases, slope, few, many):
    """And beyond the largest nothing bounds it from above."""
    law = BytesLaw([(count, total(count, phases, slope)) for count in (few, many)], OURS)
    assert law.at(1).low - 1 <= total(1, phases, slope) <= law.at(1).high + 1
    assert law.at(few - 1).high < math.inf
    assert law.at(many + 1).high == math.inf


@given(st.integers(10**6, 10**9), st.integers(1000, 10**7), st.integers(2, 255), st.floats(-0.3, 0.8))
def test_packing_that_differs_at_a_count_stays_within_what_a_prediction_may_be_wrong_by(fixed, slope, count, packed):
    """XLA packs buffers differently at some counts; up to eight tenths of what is allowed above the line is covered."""
    law = BytesLaw([(end, fixed + slope * end) for end in (1, 256)], OURS)
    exact = fixed + slope * count
    allowed = max(0.01 * exact, 64 * 1024)
    truth = exact + packed * allowed
    assert truth - law.at(count).likely <= allowed / 2
    assert law.at(count).likely - truth <= 1.1 * allowed


@pytest.mark.parametrize("adjoint", AdjointName)
def test_measured_counts_are_exact_and_of_equal_counts_the_largest_stands(adjoint):
    """What was measured is not smoothed."""
    law = BytesLaw([(4, 1000), (8, 4000), (8, 5000)], adjoint)
    said = law.at(8)
    assert (said.low, said.likely, said.high) == (5000, 5000, 5000)
    assert [law.evidence(count) for count in (3, 4, 5, 9)] == [
        "extrapolated",
        "measured",
        "interpolated",
        "extrapolated",
    ]


def test_of_diffrax_it_is_the_chord_and_its_neighbours_lines():
    """Worked by hand."""
    law = BytesLaw([(2, 100), (4, 200), (8, 240)], DIFFRAX)
    assert [law.at(count).likely for count in (1, 3, 6, 10)] == [50, 150, 220, 260]
    assert (law.at(10).low, law.at(10).high) == (260, math.inf)
    assert law.state_bytes == 50
    assert BytesLaw([(2, 100)], DIFFRAX).state_bytes is None


def test_a_count_beside_a_single_measured_one_has_a_figure_that_nothing_bounds():
    """One measurement tells no slope; a plan credits it with nothing."""
    law = BytesLaw([(2, 100)], OURS)
    assert law.at(3).high == math.inf
    assert law.upper_envelope(3) == math.inf
    assert law.upper_envelope(2) == 100


@given(measured, st.integers(1, 60), st.sampled_from(AdjointName))
def test_the_envelope_never_falls_and_no_measured_count_is_credited_with_less(measured, count, adjoint):
    """Whatever was measured, in whatever order."""
    law = BytesLaw(measured.items(), adjoint)
    assert law.upper_envelope(count) <= law.upper_envelope(count + 1)
    assert all(law.upper_envelope(known) >= size for known, size in measured.items())


@given(measured, st.integers(0, 2 * 10**9), st.integers(1, 60), st.sampled_from(AdjointName))
def test_the_largest_count_that_fits_is_the_largest(measured, usable, most, adjoint):
    """Against every count tried one by one."""
    law = BytesLaw(measured.items(), adjoint)
    fits = [count for count in range(1, most + 1) if law.upper_envelope(count) <= usable]
    assert law.largest_within(usable, most) == (max(fits) if fits else None)
