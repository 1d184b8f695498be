"""One trial in this process: what its row says on each rung, and how it ends when it ends badly."""

import dataclasses
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from autotune.machine import host
from autotune.measuring import measure as _measure
from autotune.measuring.measure import RESIDENT_FLOOR_BYTES, failure, is_out_of_memory, measure
from autotune.measuring.rows import blank_row
from autotune.measuring.trial import Rung, Trial
from autotune.problem.loading import load_problem
from profiles import AdjointName, DeviceKey, PeakSource, ProblemKey, Status, Tier
from tests.conftest import REPOSITORY

PROBLEMS = REPOSITORY / "tests/assets/problems"
MIB = 2**20
DECAY, USES = PROBLEMS / "decay.py", PROBLEMS / "shapes_of_use.py"


def trial(**changes):
    """A trial of the smallest kind; its keys are given, so that nothing is traced for them."""
    base = Trial(
        study="s", problem="named on the command line", adjoint=AdjointName.DIFFRAX, checkpoints=3, rounds=2,
        key=ProblemKey(name="p", components={"program": "x"}), device=DeviceKey(platform="cpu", kind="k"), steps=10,
    )  # fmt: skip
    return dataclasses.replace(base, **changes)


def test_the_run_rung_fills_the_whole_row():
    """Bytes, seconds, counts and versions of one good trial."""
    row = measure(load_problem(f"{DECAY}:make", set_values={"adaptive": False}), trial(horizon=1))
    assert row.status is Status.OK
    assert row.message == ""
    parts = (row.temp_bytes, row.argument_bytes, row.output_bytes, row.constant_bytes)
    assert row.compiled_bytes == sum(part or 0 for part in parts) - (row.alias_bytes or 0)
    assert row.peak_bytes == row.compiled_bytes
    assert row.peak_source is PeakSource.COMPILED
    assert row.run_bytes is None  # far below what resident memory can tell
    assert len(row.run_seconds) == 2
    assert all(seconds > 0 for seconds in row.run_seconds)
    assert row.executed_steps is not None
    assert row.recompute_factor == row.executed_steps / 10
    assert row.problem == ProblemKey(name="p", components={"program": "x"})
    assert {"jax", "diffrax"} <= set(row.versions)


def test_the_traced_rung_gives_both_bounds_and_compiles_nothing():
    """The upper bound stands as the peak, since a figure must not promise too much."""
    row = measure(load_problem(f"{DECAY}:make"), trial(rung=Rung.TRACED))
    assert row.status is Status.OK
    assert row.peak_source is PeakSource.TRACED
    assert row.compile_seconds is None
    assert row.compiled_bytes is None
    assert row.message.startswith("traced only: between ")
    assert row.message.endswith(f"and {row.peak_bytes} bytes")


def test_the_key_is_found_where_the_trial_brings_none():
    """A row always says which problem it is of."""
    row = measure(load_problem(f"{USES}:make_static"), trial(key=None, device=None, rung=Rung.TRACED))
    assert row.problem.name == "shapes_of_use:make_static"
    assert set(row.problem.components) == {"program", "source", "set", "shapes", "x64", "versions"}
    assert row.device.platform == "cpu"


def test_shapes_without_data_are_compiled_and_not_run():
    """The row is good as far as it goes, and says how far."""
    row = measure(load_problem(f"{USES}:make_abstract", set_values={"gib": 64}), trial())
    assert row.status is Status.OK
    assert row.peak_source is PeakSource.COMPILED
    assert (row.compiled_bytes or 0) > 64 * 2**30
    assert row.run_seconds == ()
    assert row.message == "compiled only: the arguments have shapes and no data"


def test_a_program_larger_than_this_host_is_not_run(monkeypatch):
    """Running it could make the kernel kill some other process."""
    small = host.HostMemory(total_bytes=10, available_bytes=10, resident_bytes=1)
    monkeypatch.setattr(host, "host_memory", lambda: small)
    row = measure(load_problem(f"{USES}:make_static"), trial())
    assert row.status is Status.OUT_OF_MEMORY
    assert row.message.startswith(f"not run: it needs {row.compiled_bytes} bytes and ")
    assert row.compiled_bytes


@pytest.mark.parametrize(
    ("factory", "status", "said"),
    [
        ("make_nan", Status.NOT_FINITE, "fn returned nan in [0]"),
        ("make_raising", Status.FAILED, "make_raising raised: KeyError: 'no data for horizon 1'\n  "),
        ("make_triple", Status.FAILED, "must return (fn, args)"),
    ],
)
def test_a_bad_end_is_a_status_with_its_message(factory, status, said):
    """Nothing is raised; the row tells."""
    row = measure(load_problem(f"{DECAY}:{factory}"), trial())
    assert row.status is status
    assert said in row.message
    assert row.run_seconds == ()


def test_a_plain_loop_with_diffraxs_adjoint_is_told_what_to_use_instead():
    """Diffrax's class has no expected_steps for a plain loop to read."""
    row = measure(load_problem(f"{USES}:make_plain_loop"), trial())
    assert row.status is Status.FAILED
    assert "for a plain loop use --adjoint ours" in row.message.splitlines()[0]


def simple(fn, *args):
    """Measure a function that is no solve."""
    return measure(load_problem(lambda *, adjoint: (fn, args)), trial())


def test_nan_in_any_output_is_found_and_padding_with_infinity_is_not_nan():
    """Diffrax pads what a solve did not reach with infinities; an infinite loss is another matter."""
    x = jnp.ones(3)
    assert simple(lambda v: {"a": v, "b": (v.at[1].set(jnp.nan), 1)}, x).status is Status.NOT_FINITE
    assert "NaN in 1 of 3 values in ['b'][0]" in simple(lambda v: {"b": (v.at[1].set(jnp.nan),)}, x).message
    assert simple(lambda v: v / 0, x).status is Status.OK
    assert simple(lambda v: jnp.sum(v) / 0, x).status is Status.NOT_FINITE
    assert simple(lambda v: v.astype(jnp.bfloat16) * jnp.nan, x).status is Status.NOT_FINITE


def test_what_stays_alive_after_a_call_is_told():
    """A function that keeps an array somewhere leaks it with every call."""
    kept = []

    def leaks(x):
        keep = lambda v: (kept.append(v), np.asarray(v))[1]
        return jax.pure_callback(keep, jax.ShapeDtypeStruct(x.shape, x.dtype), jnp.sort(x))

    row = simple(leaks, jnp.ones(50_000))
    assert row.status is Status.OK
    assert "bytes more stay alive than its outputs" in row.message
    assert kept


def test_donated_arguments_are_made_afresh_for_every_call():
    """A second call with the same buffers would fail."""
    row = measure(load_problem(f"{USES}:make_donating"), trial(rounds=3))
    assert row.status is Status.OK
    assert len(row.run_seconds) == 3
    assert (row.alias_bytes or 0) > 0


def test_a_failure_while_running_keeps_what_was_known():
    """The compiled bytes of a trial that raised at run time are a fact all the same."""

    def fails(x):
        return jax.pure_callback(lambda v: 1 / 0, jax.ShapeDtypeStruct((), x.dtype), x[0]) + jnp.sum(jnp.sort(x))

    row = simple(fails, jnp.ones(5000))
    assert row.status is Status.FAILED
    assert "ZeroDivisionError" in row.message
    assert "\n" not in row.message
    assert row.compile_seconds


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 5 bytes"), True),
        (jax.errors.JaxRuntimeError("INTERNAL: RESOURCE_EXHAUSTED is not the prefix here"), False),
        (MemoryError("Unable to allocate 5 GiB"), True),
        (RuntimeError("std::bad_alloc"), True),
        (ValueError("the model ran out of memory cells"), False),
    ],
)
def test_out_of_memory_is_told_by_its_kind_and_prefix(error, expected):
    """Sentences differ between backends; the status code in front does not. What an error wraps counts too."""
    assert is_out_of_memory(error) is expected
    wrapper = RuntimeError("wrapped")
    wrapper.__cause__ = error
    assert is_out_of_memory(wrapper) is expected
    assert (failure(error)["status"] is Status.OUT_OF_MEMORY) is expected


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="resident memory is read from /proc")
def test_the_run_rung_sees_what_xla_does_not_plan():
    """A host callback that fills 96 MiB shows in the resident rise and becomes the peak; XLA knows nothing of it."""
    if not host.reset_resident_peak():
        pytest.skip("this kernel has no /proc/self/clear_refs")
    extra = 96 * 2**20

    def hungry(x):
        def fill(v):
            block = bytearray(b"x" * extra)
            del block
            return v

        return jax.pure_callback(fill, jax.ShapeDtypeStruct(x.shape, x.dtype), x) + jnp.sort(x)

    row = simple(hungry, jnp.ones(1000))
    assert row.status is Status.OK
    assert row.run_bytes is not None
    assert extra * 0.95 <= row.run_bytes <= extra * 2.2  # bytearray(bytes) holds two copies for a moment
    assert row.peak_bytes == row.run_bytes
    assert row.peak_source is PeakSource.RUN


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="resident memory is read from /proc")
def test_compiled_and_run_time_bytes_agree_for_a_large_state():
    """Resident memory rises by what XLA planned, within three per cent, arguments included in both."""
    if not host.reset_resident_peak():
        pytest.skip("this kernel has no /proc/self/clear_refs")
    row = simple(lambda x: jax.lax.scan(lambda v, _: (jnp.sin(v), v), x, None, length=30)[1], jnp.ones((1024, 1024)))
    assert row.compiled_bytes is not None
    assert row.compiled_bytes > 100 * 2**20
    assert row.run_bytes == pytest.approx(row.compiled_bytes, rel=0.03)


class Backend:
    """A device with statistics, as accelerators have."""

    def __init__(self, *readings):
        self._readings = list(readings)

    def memory_stats(self):
        """Give the next reading."""
        return self._readings.pop(0)


def watched(monkeypatch, before, after, *, mesh=""):
    """Read the run-time bytes of a call between two readings, its arguments 100 bytes."""
    device = Backend(before, after)
    monkeypatch.setattr(jax, "local_devices", lambda: [device])
    row = dataclasses.replace(blank_row(trial()), argument_bytes=100, mesh=mesh)
    return _measure._Watch([], row).run_bytes()


def test_a_backend_with_statistics_gives_the_rise_of_its_peak(monkeypatch):
    """The peak after, less what was held before (arguments are held then, so they are added again)."""
    before, after = {"bytes_in_use": 1000, "peak_bytes_in_use": 1500}, {"bytes_in_use": 1000, "peak_bytes_in_use": 9000}
    assert watched(monkeypatch, before, after) == 9000 - 1000 + 100


def test_a_peak_hidden_by_an_earlier_one_is_unknown(monkeypatch):
    """No call resets a backend's peak, so a smaller trial after a larger one cannot be seen."""
    before, after = {"bytes_in_use": 10, "peak_bytes_in_use": 9000}, {"bytes_in_use": 10, "peak_bytes_in_use": 9000}
    assert watched(monkeypatch, before, after) is None


def test_a_small_resident_rise_says_nothing(monkeypatch):
    """Below 16 MiB the compiled figure stands."""
    monkeypatch.setattr(_measure, "_host", types.SimpleNamespace(
        reset_resident_peak=lambda: True, resident_bytes=lambda: 10**9,
        resident_peak_bytes=lambda: 10**9 + RESIDENT_FLOOR_BYTES, anonymous_bytes=lambda: 10**8,
    ))  # fmt: skip
    assert watched(monkeypatch, None, None) is None
    monkeypatch.setattr(_measure._host, "resident_peak_bytes", lambda: 10**9 + RESIDENT_FLOOR_BYTES + 1)
    assert watched(monkeypatch, None, None) == RESIDENT_FLOOR_BYTES + 1 + 100
    assert watched(monkeypatch, None, None, mesh="x=8") is None


@pytest.mark.parametrize(
    ("second_rise", "left_behind", "expected"),
    [
        (8 * MIB, 6 * MIB, 8 * MIB),  # the first call set the process up; what it left is no more than that takes
        (4 * MIB, 18 * MIB, 22 * MIB),  # a library has kept a workspace for good
        (30 * MIB, 0, 24 * MIB),  # never more than what the first call was seen to need
    ],
)
def test_what_sets_the_process_up_is_no_part_of_a_call(monkeypatch, second_rise, left_behind, expected):
    """The first call is seen to need 24 MiB where 5 were planned, so a second one is watched."""
    resident, anonymous = iter([100 * MIB, 110 * MIB]), iter([50 * MIB, 50 * MIB + left_behind])
    peaks = iter([124 * MIB, 110 * MIB + second_rise])
    monkeypatch.setattr(_measure, "_host", types.SimpleNamespace(
        reset_resident_peak=lambda: True, resident_bytes=lambda: next(resident),
        resident_peak_bytes=lambda: next(peaks), anonymous_bytes=lambda: next(anonymous),
    ))  # fmt: skip
    runs = []
    ready = types.SimpleNamespace(
        arguments=lambda: (), executable=types.SimpleNamespace(run=lambda args: runs.append(args) or 1.0), call=None,
        calls_per_sample=1,
    )  # fmt: skip
    row = dataclasses.replace(blank_row(trial()), compiled_bytes=5 * MIB)
    seen, timed = _measure._watched_call(row, ready)  # type: ignore[arg-type]
    assert timed
    assert seen.run_bytes == seen.peak_bytes == expected
    assert len(runs) == 3  # the first, one to warm up, the second that is watched


def test_without_proc_nothing_is_claimed(monkeypatch):
    """On macOS and Windows there is no resident peak that can be reset."""
    monkeypatch.setattr(_measure, "_host", types.SimpleNamespace(reset_resident_peak=lambda: False))
    assert watched(monkeypatch, None, None) is None


def test_short_calls_are_timed_several_at_a_time():
    """A sample of a call of microseconds is the mean of many, so that it is longer than the clock's jitter."""
    ticks = iter(range(10**6))
    problem = load_problem(lambda *, adjoint: (lambda x: jnp.sort(x), (jnp.ones(10),)))
    _, prepared = _measure.compile_trial(problem, trial())
    assert prepared is not None
    row, ready = _measure.first_call(_measure._blank(problem, trial(), None), prepared)
    assert ready
    assert row.status is Status.OK
    assert prepared.calls_per_sample > 5
    assert prepared.time_once(lambda: float(next(ticks))) == 1 / prepared.calls_per_sample


def test_a_tier_that_xla_cannot_compile_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch):
    """The row names the tier, jax and the device; what else fails to compile is said in XLA's words."""

    def refuse(traced):
        raise jax.errors.JaxRuntimeError("UNIMPLEMENTED: dynamic-update-slice in host memory\nat some place")

    monkeypatch.setattr(_measure, "compile_traced", refuse)
    problem = load_problem(f"{DECAY}:make")
    held = measure(problem, trial(adjoint=AdjointName.OURS, tier=Tier(name="host", windows=4), expected_steps=10))
    assert held.status is Status.FAILED
    first = held.message.splitlines()[0]
    assert f"XLA of jax {jax.__version__} does not compile the tier host for k" in first
    assert "UNIMPLEMENTED: dynamic-update-slice in host memory" in first
    plain = measure(problem, trial())
    assert plain.status is Status.FAILED
    assert "the tier" not in plain.message
