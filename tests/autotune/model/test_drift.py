"""Bringing timings of different batches to one speed of the machine."""

import dataclasses
import math

from hypothesis import given
from hypothesis import strategies as st

from autotune.model.cells import cell_of
from autotune.model.drift import batch_slowness, compared_samples, drift
from profiles import Measurement, Status
from tests.autotune.rows import ROW, a_row

speeds = st.lists(st.floats(0.2, 5.0), min_size=1, max_size=5)


def _batches(slowness: list[float]) -> list[Measurement]:
    """Three counts of known seconds, one new in each batch beside the first one."""
    rows = []
    for batch, factor in enumerate(slowness):
        for count in {4, 10 + batch}:
            truth = factor / count
            rows.append(dataclasses.replace(ROW, checkpoints=count, repeat=batch, run_seconds=(truth,) * 3))
    return rows


@given(speeds)
def test_a_count_timed_again_tells_the_speed_of_its_batch(slowness: list[float]) -> None:
    """However the machine drifts between batches, compared seconds are those of the first batch."""
    rows = _batches(slowness)
    found = batch_slowness(rows)
    for batch, factor in enumerate(slowness):
        assert math.isclose(found[batch], factor / slowness[0], rel_tol=1e-9)
    for (_, count), samples in compared_samples(rows).items():
        assert all(math.isclose(sample, slowness[0] / count, rel_tol=1e-9) for sample in samples)
    assert math.isclose(drift(found), max(slowness) / min(slowness), rel_tol=1e-9)


def test_a_batch_without_a_known_count_stays_as_it_is() -> None:
    """Where nothing links a batch to an earlier one its samples are taken as they are."""
    rows = [
        dataclasses.replace(ROW, checkpoints=4, repeat=0, run_seconds=(1.0,)),
        dataclasses.replace(ROW, checkpoints=8, repeat=1, run_seconds=(3.0,)),
    ]
    assert batch_slowness(rows) == {0: 1.0, 1: 1.0}


def test_rows_that_failed_or_were_not_timed_tell_no_speed() -> None:
    """A failure may have samples, a compile has none."""
    lost = a_row(4, 9.0, repeat=1, status=Status.NOT_FINITE)
    rows = [a_row(4, 1.0), lost, a_row(4, None, repeat=2)]
    assert batch_slowness(rows) == {0: 1.0}
    assert compared_samples(rows) == {(cell_of(ROW), 4): [1.0, 1.0, 1.0]}


def test_a_batch_is_compared_with_the_first_that_knew_its_counts_by_the_median_of_their_ratios() -> None:
    """Three counts are timed again, 2, 3 and 30 times as slow: the batch is three times as slow."""
    first = [a_row(count, 1.0) for count in (4, 8, 16)]
    second = [a_row(count, slow, repeat=1) for count, slow in ((4, 2.0), (8, 3.0), (16, 30.0))]
    new = a_row(32, 6.0, repeat=1)
    third = a_row(32, 4.0, repeat=2)
    rows = [third, new, *second, *first]  # in any order
    assert batch_slowness(rows) == {0: 1.0, 1: 3.0, 2: 2.0}
    assert compared_samples(rows)[(cell_of(ROW), 32)] == [2.0] * 6
    assert drift(batch_slowness(rows)) == 3.0


def test_a_count_of_another_cell_is_another_count() -> None:
    """Flags or a horizon do not link two batches."""
    rows = [a_row(4, 1.0), a_row(4, 5.0, repeat=1, horizon=20), a_row(4, 7.0, repeat=2, xla_flags="--f")]
    assert batch_slowness(rows) == {0: 1.0, 1: 1.0, 2: 1.0}
    assert len(compared_samples(rows)) == 3


def test_repeats_within_a_batch_are_samples_of_one_count() -> None:
    """Their median is what later batches are compared with."""
    rows = [a_row(4, 1.0), a_row(4, 3.0, study="again"), a_row(4, 4.0, repeat=1)]
    assert batch_slowness(rows) == {0: 1.0, 1: 2.0}


def test_nothing_has_not_drifted() -> None:
    """The ratio of no batches is 1."""
    assert drift({}) == 1.0
    assert drift({0: 1.0, 1: 0.5}) == 2.0
