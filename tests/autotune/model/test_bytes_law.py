"""The law of bytes against functions of the kind it claims to describe, made by independent formulas."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotune.model.bytes_law import BytesLaw
from autotune.model.ranges import Range
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


@given(measured, st.integers(1, 80), st.sampled_from(AdjointName))
def test_the_envelope_is_the_most_of_any_count_up_to_there(measured, count, adjoint):
    """Against every count tried one by one; beyond a single measured one nothing is told."""
    law = BytesLaw(measured.items(), adjoint)
    most = max(law.at(fewer).likely for fewer in range(1, count + 1))
    beyond_one = len(measured) == 1 and count > next(iter(measured))
    assert law.upper_envelope(count) == pytest.approx(math.inf if beyond_one else most)


def test_the_envelope_holds_what_packing_may_add_just_before_a_measured_count():
    """At 101 the chord and its bar lie above what was measured at 102, and above those at 3."""
    law = BytesLaw([(2, 100_000), (102, 101_000)], OURS)
    assert law.at(101).likely == 100_990 + 0.75 * 100_990 / 25
    assert law.upper_envelope(102) == law.upper_envelope(101) == law.at(101).likely
    rising = BytesLaw([(2, 101_000), (102, 100_000)], OURS)
    assert rising.upper_envelope(102) == rising.upper_envelope(3) == rising.at(3).likely > rising.at(101).likely


KIB, MIB = 2**10, 2**20


def bar(size):
    """Half of what a prediction may be wrong by: half a per cent, at least 32 KiB, of small totals a twenty-fifth."""
    return max(size / 200, min(32 * KIB, size / 25))


@pytest.mark.parametrize("scale", [KIB, 128 * KIB, 100 * MIB])  # each with another part of the bar
def test_of_ours_between_four_points_by_hand(scale):
    """Slopes 0, 1 and 4: at 6 the left line says 12, the right one 8, the chord 14."""
    law = BytesLaw([(count, size * scale) for count, size in ((2, 12), (4, 12), (8, 16), (10, 24))], OURS)
    chord, low = 14 * scale, 12 * scale
    assert law.at(6) == Range(low - bar(low), chord + 0.75 * bar(chord), chord + 2 * bar(chord))
    steep = BytesLaw([(count, size * scale) for count, size in ((2, 4), (4, 12), (8, 36), (10, 60))], OURS)
    chord, low = 24 * scale, 20 * scale  # the left line: 12 and two slopes of 4
    assert steep.at(6) == Range(low - bar(low), chord + 0.75 * bar(chord), chord + 2 * bar(chord))
    right = BytesLaw([(4, 10 * scale), (8, 20 * scale), (10, 26 * scale)], OURS)
    chord, low = 15 * scale, 14 * scale  # the right line: 20 less two slopes of 3
    assert right.at(6) == Range(low - bar(low), chord + 0.75 * bar(chord), chord + 2 * bar(chord))


def test_points_that_are_not_convex_tell_only_that_bytes_rise():
    """The left line says 30 at 6, above the chord and its bar; then the left neighbour is all that bounds it."""
    scale = 100 * MIB
    law = BytesLaw([(2, 10 * scale), (4, 20 * scale), (8, 22 * scale)], OURS)
    low, chord = 20 * scale, 21 * scale
    assert law.at(6) == Range(low - bar(low), chord + 0.75 * bar(chord), chord + 2 * bar(chord))
    # Within the bar of the chord the line is taken for the chord itself.
    near = BytesLaw([(2, 20 * scale), (4, 20.05 * scale), (8, 20.1 * scale)], OURS)
    chord = near.at(6).high - 2 * bar(20.075 * scale)
    assert chord == pytest.approx(20.075 * scale)
    assert near.at(6).low == pytest.approx(chord - bar(chord))


def test_bytes_that_fall_are_bounded_by_the_smaller_neighbour():
    """Another packing took less at the larger count."""
    scale = 100 * MIB
    law = BytesLaw([(4, 20 * scale), (8, 19 * scale)], OURS)
    assert law.at(6).low == 19 * scale - bar(19 * scale)


def test_of_ours_beyond_the_measured_counts_by_hand():
    """The last slope goes on, bounded by what was measured; a slope that falls is none."""
    scale = 100 * MIB
    law = BytesLaw([(2, 12 * scale), (4, 16 * scale), (8, 20 * scale)], OURS)
    assert law.at(10) == Range(20 * scale - bar(22 * scale), 22 * scale, math.inf)
    assert law.at(1) == Range(10 * scale - bar(10 * scale), 10 * scale, 12 * scale + bar(12 * scale))
    falling = BytesLaw([(4, 20 * scale), (8, 19 * scale)], OURS)
    assert falling.at(10) == Range(19 * scale - bar(19 * scale), 19 * scale, math.inf)
    assert falling.at(2) == Range(20 * scale - bar(20 * scale), 20 * scale, 20 * scale + bar(20 * scale))
    single = BytesLaw([(4, 20 * scale)], OURS)
    assert single.at(2) == Range(20 * scale - bar(20 * scale), 20 * scale, 20 * scale + bar(20 * scale))
    assert single.at(6) == Range(20 * scale - bar(20 * scale), 20 * scale, math.inf)


def test_of_diffrax_between_and_beyond_by_hand():
    """Between: the chord above, the larger neighbours' line below; a line alone beyond, a point alone beside it."""
    law = BytesLaw([(2, 100), (4, 200), (8, 240), (10, 300)], DIFFRAX)
    assert law.at(6) == Range(220, 220, 220)  # the left line says 300, which is above the chord
    convex = BytesLaw([(2, 100), (4, 120), (8, 240), (10, 320)], DIFFRAX)
    assert convex.at(6) == Range(160, 180, 180)  # the left line says 140, the right one 160
    assert convex.at(3) == Range(90, 110, 110)
    assert convex.at(9) == Range(270, 280, 280)
    assert convex.at(1) == Range(90, 90, 100)
    assert convex.at(12) == Range(400, 400, math.inf)
    pair = BytesLaw([(4, 200), (8, 240)], DIFFRAX)
    assert pair.at(6) == Range(200, 220, 220)
    assert BytesLaw([(4, 240), (8, 200)], DIFFRAX).at(6) == Range(200, 220, 220)
    falling = BytesLaw([(4, 240), (8, 200)], DIFFRAX)
    assert falling.at(2) == Range(260, 260, 260)
    single = BytesLaw([(4, 200)], DIFFRAX)
    assert single.at(2) == Range(200, 200, 200)
    assert single.at(6) == Range(200, 200, math.inf)


def test_the_bytes_of_a_state_are_the_steepest_slope_that_rises():
    """None where nothing rises, or a single count was measured."""
    assert BytesLaw([(2, 10), (4, 10), (6, 30), (8, 34)], OURS).state_bytes == 10
    assert BytesLaw([(2, 10), (4, 10)], OURS).state_bytes is None
    assert BytesLaw([(2, 10), (4, 8)], OURS).state_bytes is None
    assert BytesLaw([(2, 10), (4, 11)], OURS).state_bytes == 0.5


def test_the_largest_count_that_fits_is_found_at_its_bytes_and_not_one_below():
    """Two points a hundred states apart; one checkpoint is the least that there is."""
    law = BytesLaw([(1, 1000), (101, 101_000)], DIFFRAX)
    assert [law.largest_within(size, 500) for size in (999, 1000, 1999, 2000, 50_000)] == [None, 1, 1, 2, 50]
    assert law.largest_within(10**9, 30) == 30
    falling = BytesLaw([(4, 240), (8, 200)], DIFFRAX)  # 270 at one checkpoint, and no count of none
    assert [falling.largest_within(size, 10) for size in (269, 270, 275)] == [None, 10, 10]
