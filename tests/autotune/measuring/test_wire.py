"""Records cross the line between a runner and its worker unchanged."""

import datetime as dt
import json

from hypothesis import given
from hypothesis import strategies as st

from autotune.machine.device import device_info
from autotune.measuring.trial import Rung, RunSettings, Trial
from autotune.measuring.wire import decode_device_info, decode_measurement, decode_problem_key, decode_trial, encode
from profiles import AdjointName, DeviceKey, Measurement, PeakSource, ProblemKey, Status

text = st.text(max_size=12)
scalars = st.one_of(st.booleans(), st.integers(-(2**40), 2**40), st.floats(allow_nan=False, allow_infinity=False), text)
horizons = st.one_of(st.none(), st.integers(1, 10**6), st.floats(1e-3, 1e6))
maybe_bytes = st.one_of(st.none(), st.integers(0, 2**50))
problem_keys = st.builds(ProblemKey, name=text, components=st.dictionaries(text, text, max_size=3))
device_keys = st.builds(DeviceKey, platform=text, kind=text, memory_bytes=maybe_bytes)


def over_the_wire(record):
    """Encode to a line and read it back."""
    return json.loads(json.dumps(encode(record)))


@given(
    st.builds(
        Trial, study=text, problem=text, adjoint=st.sampled_from(AdjointName), checkpoints=st.integers(1, 10**6),
        horizon=horizons, tolerance=st.one_of(st.none(), st.floats(1e-12, 1)),
        set_values=st.dictionaries(text, scalars, max_size=3), rung=st.sampled_from(Rung),
        settings=st.builds(RunSettings, platform=st.one_of(st.none(), text)), x64=st.booleans(), xla_flags=text,
        key=st.one_of(st.none(), problem_keys), device=st.one_of(st.none(), device_keys), steps=maybe_bytes,
    )
)  # fmt: skip
def test_trials_come_back_equal_and_of_the_same_types(trial):
    """100 and 100.0 are different horizons to a factory."""
    back = decode_trial(over_the_wire(trial))
    assert back == trial
    assert type(back.horizon) is type(trial.horizon)
    assert {k: type(v) for k, v in back.set_values.items()} == {k: type(v) for k, v in trial.set_values.items()}


@given(
    st.builds(
        Measurement, study=text, problem=problem_keys, device=device_keys, adjoint=st.sampled_from(AdjointName),
        checkpoints=st.integers(1, 10**6), horizon=horizons, temp_bytes=maybe_bytes, peak_bytes=maybe_bytes,
        peak_source=st.one_of(st.none(), st.sampled_from(PeakSource)), status=st.sampled_from(Status), message=text,
        run_seconds=st.lists(st.floats(1e-9, 1e6), max_size=5).map(tuple),
        measured_at=st.datetimes(timezones=st.just(dt.UTC)), versions=st.dictionaries(text, text, max_size=3),
    )
)  # fmt: skip
def test_rows_come_back_equal(row):
    """To the last sample."""
    assert decode_measurement(over_the_wire(row)) == row


@given(problem_keys)
def test_problem_keys_come_back_equal(key):
    """Component by component."""
    assert decode_problem_key(over_the_wire(key)) == key


def test_a_device_comes_back_equal():
    """With its host, buffers and all that is unknown."""
    info = device_info("cpu")
    assert decode_device_info(over_the_wire(info)) == info
