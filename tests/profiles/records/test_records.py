"""The records: plain values whatever they are made from, and keys that tell points apart."""

import dataclasses
import datetime as dt

import numpy as np
import pytest
from hypothesis import given

from profiles import Measurement, ProblemKey, Profile, RecordError, Status
from tests.profiles.makers import a_measurement, measurements


def test_numpy_values_become_plain_values_and_the_same_key():
    """A row made from numpy's scalars equals, and keys as, the row made from plain numbers."""
    plain = a_measurement(horizon=100, tolerance=0.5, set_values={"batch": 4, "rate": 0.5, "fast": True})
    array = a_measurement(
        horizon=np.int64(100),
        tolerance=np.float64(0.5),
        checkpoints=np.int32(8),
        set_values={"batch": np.int64(4), "rate": np.float64(0.5), "fast": np.bool_(True)},
        run_seconds=np.array([0.11, 0.1, 0.12]),
    )
    assert array == plain
    assert repr(array) == repr(plain)
    assert array.key == plain.key


def test_integer_and_float_horizons_are_different_points():
    """A factory may treat 100 and 100. differently, so their rows must not replace each other."""
    assert a_measurement(horizon=100).key != a_measurement(horizon=100.0).key


SWEPT = {
    "study": "other",
    "adjoint": "diffrax",
    "checkpoints": 9,
    "horizon": 101,
    "tolerance": None,
    "set_values": {"batch": 2},
    "x64": True,
    "xla_flags": "--a",
    "allocator": "platform",
    "mesh": "8",
    "expected_steps": 5,
    "repeat": 1,
    "name": "other:make",
    "components": {"source": "other"},
    "kind": "gpu",
}


@pytest.mark.parametrize("field", SWEPT)
def test_every_swept_value_is_in_the_key(field: str):
    """Changing any parameter of a point changes its key."""
    assert a_measurement(**{field: SWEPT[field]}).key != a_measurement().key


def test_what_was_found_is_not_in_the_key():
    """Measuring a point again gives the same key, so the new row replaces the old one."""
    again = a_measurement(peak_bytes=1, run_seconds=(), status=Status.FAILED, message="no", host="other", minutes=9)
    assert again.key == a_measurement().key


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("peak_bytes", -1),
        ("checkpoints", 2**63),
        ("tolerance", float("nan")),
        ("recompute_factor", float("inf")),
        ("run_seconds", (0.1, float("nan"))),
        ("horizon", 2**53 + 1),
        ("set_values", {"x": float("nan")}),
        ("set_values", {"x": object()}),
        ("set_values", {"x": [1, float("nan")]}),
        ("measured_at", dt.datetime(2026, 1, 1)),
    ],
)
def test_a_value_that_no_store_could_give_back_is_refused(field: str, value: object):
    """A record refuses what is not a count, not finite or not placed in time, naming the value."""
    with pytest.raises(RecordError, match=r"must|found"):
        a_measurement(**{field: value})


@given(measurements())
def test_text_can_be_written_anywhere(row: Measurement):
    """No text of a record holds a NUL or a lone surrogate, which databases and files refuse."""
    for field in dataclasses.fields(row):
        value = getattr(row, field.name)
        if isinstance(value, str):
            assert "\x00" not in value
            value.encode("utf-8")


def test_times_are_kept_in_utc():
    """A time given in another zone is the same moment in UTC."""
    zone = dt.timezone(dt.timedelta(hours=5, minutes=30))
    row = a_measurement(measured_at=dt.datetime(2026, 1, 1, 5, 30, tzinfo=zone))
    assert row.measured_at.isoformat() == "2026-01-01T00:00:00+00:00"


def test_the_median_is_the_middle_sample():
    """Odd numbers of samples give the middle one, even ones the mean of two, none gives None."""
    assert a_measurement(run_seconds=(9.0, 1.0, 2.0)).run_median_seconds == 2.0
    assert a_measurement(run_seconds=(1.0, 2.0)).run_median_seconds == 1.5
    assert a_measurement(run_seconds=()).run_median_seconds is None


def test_a_generation_outlasts_swept_components():
    """Rows of one sweep over batch sizes share a generation; a changed source does not."""

    def generation(**components: str) -> str:
        return ProblemKey(name="a:make", components=components).generation

    assert generation(source="s", program="p", shapes="x") == generation(source="s", program="q", shapes="y", set="b")
    assert generation(source="s") != generation(source="t")


def test_a_profile_orders_rows_and_keeps_newest_code_per_case():
    """Rows of an older fingerprint stay in the profile but are not compared with newer ones."""
    old = a_measurement(components={"source": "s", "program": "1"}, checkpoints=4, minutes=0)
    new = a_measurement(components={"source": "s", "program": "2"}, checkpoints=8, minutes=1)
    other = a_measurement(components={"source": "s", "program": "1"}, horizon=200, minutes=2)
    profile = Profile(name="x", measurements=(other, new, old))
    assert profile.measurements == (old, new, other)
    assert [str(case) for case in profile.cases] == ["horizon 100, tolerance 1e-3", "horizon 200, tolerance 1e-3"]
    assert profile.rows(profile.cases[0]) == (new,)
    assert profile.rows(profile.cases[1]) == (other,)


def test_an_empty_profile_is_refused():
    """A profile without measurements says nothing, and is an error."""
    with pytest.raises(RecordError, match="at least one"):
        Profile(name="x", measurements=())
