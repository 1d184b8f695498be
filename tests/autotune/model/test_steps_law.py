"""The law of steps against solves whose steps are known by formula."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotune.adjoints import Work
from autotune.model.steps_law import Place, StepsLaw


def work(steps, reversed_steps=None):
    """Steps, all of them visited unless said otherwise."""
    return Work(steps=steps, reversed_steps=steps if reversed_steps is None else reversed_steps)


def law(counted):
    """Steps by horizon, at one tolerance."""
    return StepsLaw({(horizon, 1e-3): work(steps) for horizon, steps in counted.items()})


@pytest.mark.parametrize(
    ("horizon", "steps", "place"),
    [(10.0, 100, Place.MEASURED), (15.0, 200, Place.BETWEEN), (30.0, 500, Place.BEYOND), (5.0, 50, Place.BEYOND)],
)
def test_steps_lie_on_lines_through_the_measured_horizons_and_the_origin(horizon, steps, place):
    """Worked by hand."""
    found = law({10.0: 100, 20.0: 300}).at(horizon, 1e-3)
    assert found is not None
    assert (found.work.steps, found.place) == (steps, place)


@given(st.integers(1, 50), st.lists(st.integers(1, 1000), min_size=2, max_size=5, unique=True), st.integers(1, 2000))
def test_steps_of_one_size_are_told_exactly(density, horizons, asked):
    """Whatever was measured: a solve of constant steps takes them in proportion to its horizon."""
    found = law({float(h): density * h for h in horizons}).at(float(asked), 1e-3)
    assert found is not None
    assert found.work.steps == density * asked


@given(st.dictionaries(st.integers(1, 100), st.integers(1, 50), min_size=1, max_size=6), st.integers(1, 120))
def test_more_horizon_is_never_fewer_steps_and_the_horizon_of_steps_is_its_inverse(rises, asked):
    """Steps add up along a solve."""
    total, counted = 0, {}
    for horizon, rise in sorted(rises.items()):
        total += rise
        counted[float(horizon)] = total
    made = law(counted)
    here, further = made.at(float(asked), 1e-3), made.at(float(asked + 1), 1e-3)
    assert here is not None
    assert further is not None
    assert here.work.steps <= further.work.steps
    for horizon, steps in counted.items():
        assert made.horizon_of(steps, 1e-3) == pytest.approx(horizon)


def test_between_tolerances_steps_follow_a_power():
    """A fifth-order method: a hundredth of the tolerance takes 100 ** 0.2 times the steps."""
    of = lambda tolerance: round(1000 * tolerance**-0.2)
    made = StepsLaw({(10.0, tolerance): work(of(tolerance)) for tolerance in (1e-2, 1e-6)})
    found = made.at(10.0, 1e-4)
    assert found is not None
    assert found.work.steps == pytest.approx(of(1e-4), rel=1e-3)
    assert found.place is Place.BETWEEN
    beyond = made.at(10.0, 1e-8)
    assert beyond is not None
    assert beyond.place is Place.BEYOND


def test_visited_and_predicted_steps_are_told_beside_all_steps():
    """Their share of the steps is that of the neighbours; none is visited where no gradient is taken."""
    made = StepsLaw({(10.0, None): work(100, 80), (20.0, None): work(300, 240)})
    found = made.at(15.0, None)
    assert found is not None
    assert (found.work.reversed_steps, found.work.predicted) == (160, 160)
    forward = StepsLaw({(10.0, None): work(100, 0), (20.0, None): work(300, 0)}).at(15.0, None)
    assert forward is not None
    assert forward.work.reversed_steps == 0


def test_between_horizons_rejected_steps_are_left_out_where_they_are_at_both():
    """That is from the larger count on; below the smallest horizon from its own."""
    left = dataclasses.replace(work(100, 80), accepted_from=7)
    right = dataclasses.replace(work(300, 240), accepted_from=12)
    made = StepsLaw({(10.0, 1e-3): left, (20.0, 1e-3): right, (10.0, 1e-5): right})
    told = [made.at(horizon, 1e-3) for horizon in (5.0, 10.0, 15.0, 40.0)]
    assert [at and at.work.accepted_from for at in told] == [7, 7, 12, 12]
    other = made.at(10.0, 1e-4)
    assert other is not None
    assert (other.work.visited(11), other.work.visited(12)) == (other.work.steps, other.work.predicted)


def test_nothing_is_told_where_nothing_could_tell_it():
    """One tolerance of several, a horizon of a problem without, steps that do not grow."""
    assert law({10.0: 100}).at(10.0, 1e-5) is None
    assert StepsLaw({(None, None): work(100)}).at(3.0, None) is None
    assert StepsLaw({(None, None): work(100)}).horizon_of(50, None) is None
    assert law({10.0: 100, 20.0: 100}).horizon_of(500, 1e-3) is None


def test_words_say_what_steps_rest_on():
    """Alone with the steps; nothing where nothing is told."""
    found = law({10.0: 100, 20.0: 300})
    assert [found.steps_at(horizon, 1e-3) for horizon in (10.0, 15.0, 30.0, 5.0)] == [
        (100, "measured"),
        (200, "interpolated"),
        (500, "extrapolated"),
        (50, "extrapolated"),
    ]
    assert found.steps_at(15.0, None) is None


@pytest.mark.parametrize(
    ("steps", "horizon"), [(0, 0.0), (50, 5.0), (100, 10.0), (200, 15.0), (300, 20.0), (500, 24.0), (700, 28.0)]
)
def test_the_horizon_that_takes_so_many_steps_lies_on_the_same_lines(steps, horizon):
    """From the origin to 100 at 10, to 300 at 20, to 400 at 22, and on."""
    found = law({20.0: 300, 10.0: 100, 22.0: 400})
    assert found.horizon_of(steps, 1e-3) == pytest.approx(horizon)


def test_steps_that_fall_with_the_horizon_have_no_horizon():
    """Nothing is divided by nothing."""
    assert law({10.0: 100, 20.0: 100}).horizon_of(150, 1e-3) is None
    assert law({10.0: 100, 20.0: 90}).horizon_of(150, 1e-3) is None
    assert law({10.0: 100}).horizon_of(50, 1e-3) == pytest.approx(5.0)
    assert law({10.0: 100}).horizon_of(50, 1e-4) is None


def test_one_horizon_is_enough_for_a_line_from_no_steps():
    """Below it and beyond it, never between."""
    found = law({10.0: 100})
    assert [found.at(horizon, 1e-3) for horizon in (10.0, 5.0, 20.0)] == [
        (work(100), Place.MEASURED),
        (Work(steps=50, reversed_steps=50, accepted=50), Place.BEYOND),
        (Work(steps=200, reversed_steps=200, accepted=200), Place.BEYOND),
    ]
    assert found.at(None, 1e-3) is None
    assert found.at(0.001, 1e-3).work.steps == 1


def test_a_case_without_a_horizon_is_measured_and_no_other_is():
    """Beside others with one."""
    found = StepsLaw({(None, 1e-3): work(70), (10.0, 1e-3): work(100)})
    assert found.at(None, 1e-3) == (work(70), Place.MEASURED)
    assert found.at(5.0, 1e-3).work.steps == 50


def test_the_weaker_of_horizon_and_tolerance_is_said():
    """Four tolerances, of which the first two have two horizons: each place by itself and together."""
    counted = {(h, t): work(round(h * 10 * t**-0.2)) for h in (10.0, 20.0) for t in (1e-2, 1e-4, 1e-6)}
    found = StepsLaw(counted)
    places = {
        (10.0, 1e-4): Place.MEASURED, (15.0, 1e-4): Place.BETWEEN, (30.0, 1e-4): Place.BEYOND,
        (10.0, 1e-3): Place.BETWEEN, (15.0, 1e-3): Place.BETWEEN, (30.0, 1e-3): Place.BEYOND,
        (10.0, 1e-5): Place.BETWEEN, (10.0, 1e-7): Place.BEYOND, (10.0, 1e-1): Place.BEYOND, (15.0, 1e-7): Place.BEYOND,
    }  # fmt: skip
    for (horizon, tolerance), place in places.items():
        told = found.at(horizon, tolerance)
        assert told.place is place, (horizon, tolerance)
        assert told.work.steps == pytest.approx(horizon * 10 * tolerance**-0.2, rel=0.02)


def test_tolerances_that_know_the_horizon_tell_and_others_are_left_out():
    """Two are needed; one that was measured without any horizon tells nothing of one."""
    counted = {(10.0, 1e-2): work(100), (10.0, 1e-6): work(1600), (None, 1e-5): work(7), (10.0, None): work(9)}
    found = StepsLaw(counted)
    assert found.at(10.0, 1e-4).work.steps == 400  # the geometric mean
    assert found.at(10.0, 1e-3).work.steps == 200
    assert found.at(10.0, None).work.steps == 9
    assert StepsLaw({(10.0, 1e-2): work(100), (None, 1e-6): work(400)}).at(10.0, 1e-4) is None
    assert StepsLaw({(10.0, 1e-2): work(100), (10.0, 1e-6): work(400)}).at(10.0, None) is None


def test_steps_of_a_solve_without_a_gradient_are_told_between_tolerances_too():
    """None of them is predicted or visited, and a power of none is not asked for."""
    told = StepsLaw({(10.0, 1e-2): work(100, 0), (10.0, 1e-6): work(400, 0)}).at(10.0, 1e-4)
    assert (told.work.steps, told.work.reversed_steps) == (200, 0)


def test_predicted_steps_are_mixed_by_themselves():
    """Of 100 and 300 steps 90 and 210 were accepted: half-way 200 and 150; all are visited."""
    left = Work(steps=100, reversed_steps=100, accepted=90)
    right = Work(steps=300, reversed_steps=300, accepted=210)
    told = StepsLaw({(10.0, None): left, (20.0, None): right}).at(15.0, None)
    assert told.work == Work(steps=200, reversed_steps=200, accepted=150)
