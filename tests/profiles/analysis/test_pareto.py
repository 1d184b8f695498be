"""The Pareto front against brute force."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiles import FrontAxis, FrontPoint, Measurement, PeakSource, Status, non_dominated, pareto_front, points
from tests.profiles.makers import a_measurement

SMALL = st.integers(0, 6).map(float)  # few values, so that ties are common


@given(st.lists(st.tuples(SMALL, SMALL), max_size=12))
def test_the_front_is_what_no_pair_dominates(costs: list[tuple[float, float]]):
    """Every pair compared with every other gives the same set of costs, each once and first given."""

    def dominated(one: tuple[float, float]) -> bool:
        return any(o[0] <= one[0] and o[1] <= one[1] and (o[0] < one[0] or o[1] < one[1]) for o in costs)

    front = non_dominated(costs)
    assert {costs[i] for i in front} == {cost for cost in costs if not dominated(cost)}
    assert all(costs.index(costs[i]) == i for i in front)
    assert [costs[i] for i in front] == sorted({costs[i] for i in front})


ROWS = st.builds(
    lambda c, b, s, f, status, source, repeat: a_measurement(
        checkpoints=c,
        peak_bytes=b,
        run_seconds=s,
        recompute_factor=f,
        status=status,
        peak_source=source,
        repeat=repeat,
    ),
    st.integers(1, 6),
    st.none() | st.integers(1, 5),
    st.lists(st.integers(1, 5).map(float), max_size=3),
    st.none() | st.integers(2, 6).map(float),
    st.sampled_from([Status.OK, Status.OK, Status.OK, *Status]),
    st.sampled_from(PeakSource),
    st.integers(0, 2),
)


@given(st.lists(ROWS, max_size=14), st.sampled_from(FrontAxis))
def test_a_front_holds_only_what_ended_well_and_nothing_beats(rows: list[Measurement], objective: FrontAxis):
    """No point of a front is beaten by any point, and every point left out is beaten or equalled by one on it."""

    def cost(point: FrontPoint) -> float:
        found = point.cost(objective)
        assert found is not None
        return found

    candidates = [p for p in points(rows) if p.cost(objective) is not None]
    front = pareto_front(points(rows), objective)
    for point in front:
        assert all(row.status is Status.OK and row.peak_source is not PeakSource.TRACED for row in point.rows)
        for other in candidates:
            no_worse = other.peak_bytes <= point.peak_bytes and cost(other) <= cost(point)
            better = other.peak_bytes < point.peak_bytes or cost(other) < cost(point)
            assert not (no_worse and better)
    for other in candidates:
        assert any(p.peak_bytes <= other.peak_bytes and cost(p) <= cost(other) for p in front)


@given(st.lists(ROWS, max_size=10), st.randoms())
def test_a_front_does_not_depend_on_the_order_of_rows(rows: list[Measurement], random):
    """The same rows in another order give the same front: ties are decided by the rows, not by their order."""
    shuffled = list(rows)
    random.shuffle(shuffled)

    def shown(given_rows: list[Measurement]) -> list[tuple[object, ...]]:
        front = pareto_front(points(given_rows), FrontAxis.SECONDS)
        return [(p.checkpoints, p.peak_bytes, p.run_seconds) for p in front]

    assert shown(rows) == shown(shuffled)


def test_of_equal_points_the_fewest_checkpoints_stay():
    """Two counts with equal bytes and seconds leave the smaller one on the front."""
    rows = [a_measurement(checkpoints=c, peak_bytes=100, run_seconds=(1.0,)) for c in (16, 4, 8)]
    assert [point.checkpoints for point in pareto_front(points(rows), FrontAxis.SECONDS)] == [4]


def test_a_lucky_repeat_does_not_make_the_front_better():
    """A point's bytes are the largest of its repeats and its seconds the median of all samples."""
    rows = [
        a_measurement(repeat=0, peak_bytes=100, run_seconds=(1.0, 3.0)),
        a_measurement(repeat=1, peak_bytes=90, run_seconds=(5.0,)),
    ]
    (point,) = points(rows)
    assert (point.peak_bytes, point.run_seconds, len(point.rows)) == (100, 3.0, 2)


@pytest.mark.parametrize("status", [Status.OUT_OF_MEMORY, Status.NOT_FINITE])
def test_a_choice_that_once_ran_out_of_memory_or_gave_nan_is_no_point(status: Status):
    """One good repeat does not clear a choice that ran out of memory or gave no finite result in another."""
    rows = [a_measurement(repeat=0), a_measurement(repeat=1, status=status)]
    assert points(rows) == ()


@pytest.mark.parametrize("status", [Status.FAILED, Status.TIMED_OUT])
def test_a_lost_worker_does_not_count_against_a_good_repeat(status: Status):
    """A repeat that failed for a reason of its own leaves the good repeat standing."""
    good = a_measurement(repeat=1)
    (point,) = points([a_measurement(repeat=0, status=status, peak_bytes=None, peak_source=None), good])
    assert point.rows == (good,)


@pytest.mark.parametrize("unknown", [None, 0])
def test_unknown_bytes_never_make_a_point(unknown: int | None):
    """A peak of None or 0 means that nobody knows, not that it fits."""
    assert points([a_measurement(peak_bytes=unknown)]) == ()


def test_traced_figures_are_predictions_and_join_only_when_asked_for():
    """A traced peak is left out unless the caller names its source."""
    rows = [a_measurement(peak_source=PeakSource.TRACED)]
    assert points(rows) == ()
    assert len(points(rows, sources=PeakSource)) == 1


def test_choices_that_differ_in_flags_or_prediction_are_different_points():
    """The same count under other XLA flags or with a predicted step count is a point of its own."""
    rows = [a_measurement(), a_measurement(xla_flags="--a"), a_measurement(expected_steps=100)]
    assert len(points(rows)) == 3
