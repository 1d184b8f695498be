"""The law of steps against solves whose steps are known by formula."""

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


def test_nothing_is_told_where_nothing_could_tell_it():
    """One tolerance of several, a horizon of a problem without, steps that do not grow."""
    assert law({10.0: 100}).at(10.0, 1e-5) is None
    assert StepsLaw({(None, None): work(100)}).at(3.0, None) is None
    assert StepsLaw({(None, None): work(100)}).horizon_of(50, None) is None
    assert law({10.0: 100, 20.0: 100}).horizon_of(500, 1e-3) is None
