"""Bringing timings of different batches to one speed of the machine."""

import dataclasses
import math

from hypothesis import given
from hypothesis import strategies as st

from autotune.model.drift import batch_slowness, compared_samples, drift
from profiles import Measurement
from tests.autotune.rows import ROW

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
