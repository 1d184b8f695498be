"""Runners end to end: real workers around problems that misbehave, this process, and a recorded sweep."""

import dataclasses

import jax.numpy as jnp
import pytest

from autotune import AutotuneError
from autotune.measuring.runners import InProcessRunner, ProbeRequest, SubprocessRunner
from autotune.measuring.trial import Rung, RunSettings, Trial
from autotune.problem.loading import load_problem
from autotune.tuning.lab import ReplayRunner
from profiles import AdjointName, DeviceKey, Measurement, ProblemKey, Status
from tests.conftest import REPOSITORY

PROBLEMS = REPOSITORY / "tests/assets/problems"
MISBEHAVING = f"{PROBLEMS / 'misbehaving.py'}:make"


def trial(**changes):
    """A trial of the misbehaving problem."""
    base = Trial(
        study="s", problem=MISBEHAVING, adjoint=AdjointName.DIFFRAX, checkpoints=4, rounds=2, rung=Rung.RUN,
        key=ProblemKey(name="misbehaving:make", components={"program": "x"}),
    )  # fmt: skip
    return dataclasses.replace(base, **changes)


def test_a_sweep_goes_on_over_trials_that_raise_die_and_return_nan():
    """Each is a row with its status, and the good one among them is measured whole."""
    how = ["raise", "killed", "nan", "raise"]
    phases = []
    trials = [trial(set_values={"how": name, "at": 9 if i == 3 else 0}) for i, name in enumerate(how)]
    with SubprocessRunner(started=lambda t, phase: phases.append(phase)) as runner:
        rows = runner.run(trials)
    assert [row.status for row in rows] == [Status.FAILED, Status.FAILED, Status.NOT_FINITE, Status.OK]
    assert "IndexError" in rows[0].message
    assert "in breaking" in rows[0].message
    assert "signal 9" in rows[1].message
    assert len(rows[3].run_seconds) >= 2
    assert rows[3].compiled_bytes
    assert rows[3].device.platform == "cpu"
    assert {"compile", "call", "time"} == set(phases)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "status", "said"),
    [
        ("killed", Status.FAILED, "tracing and compiling: the process was killed (signal 9)"),
        ("aborted", Status.FAILED, "tracing and compiling: the process died of SIGABRT"),
        ("segfault", Status.FAILED, "tracing and compiling: the process died of SIGSEGV"),
        ("exit", Status.FAILED, "tracing and compiling: the process ended with exit status 3"),
        ("hang", Status.TIMED_OUT, "tracing and compiling took longer than 30 s"),
        ("call-killed", Status.FAILED, "the first call: the process was killed (signal 9)"),
        ("call-raise", Status.FAILED, "IndexError: list index out of range"),
        ("call-hang", Status.TIMED_OUT, "the first call took longer than 30 s"),
        ("call-exit", Status.FAILED, "the first call: the process ended with exit status 3"),
        ("huge", Status.OUT_OF_MEMORY, "bytes"),
    ],
)
def test_whatever_a_trial_does_to_its_process_the_one_beside_it_is_measured(how, status, said):
    """In any phase; the good trial is brought back where its worker was ended for the bad one."""
    limit = 12 * 2**30 if how == "huge" else None
    settings = RunSettings(timeout_seconds=30, memory_limit_bytes=limit)
    with SubprocessRunner() as runner:
        good, bad = runner.run(
            [trial(checkpoints=c, set_values={"how": how, "at": 5}, settings=settings) for c in (4, 5)]
        )
    assert good.status is Status.OK
    assert len(good.run_seconds) == 2
    assert bad.status is status
    assert said in bad.message


def test_probing_in_a_worker_agrees_with_probing_here():
    """Steps, fingerprint and device are those of this process; an error of the user's is raised."""
    from autotune.problem.fingerprint import problem_key
    from autotune.problem.probe import observe

    spec = f"{PROBLEMS / 'decay.py'}:make"
    question = ProbeRequest(problem=spec, horizon=2, tolerance=1e-3, set_values={"adaptive": False})
    with SubprocessRunner() as runner:
        seen, key, device = runner.observe(question), runner.problem_key(question), runner.device_info()
        with pytest.raises(AutotuneError, match="takes no parameter `colour`"):
            runner.observe(dataclasses.replace(question, set_values={"colour": 1}))
    problem = load_problem(spec, set_values={"adaptive": False})
    assert seen == observe(problem, 2, 1e-3)
    assert key == problem_key(problem, horizon=2, tolerance=1e-3)
    assert device.platform == "cpu"


def test_a_closed_runner_answers_with_failed_rows():
    """Interrupting from another thread ends the sweep without an exception in the middle of it."""
    runner = SubprocessRunner()
    runner.close()
    (row,) = runner.run([trial(set_values={"how": "raise"})])
    assert row.status is Status.FAILED
    assert "closed" in row.message


def local_problem():
    """A problem that exists only here."""

    def make(*, adjoint, size=4):
        return (lambda x: jnp.sum(jnp.sort(x))), (jnp.arange(float(size)),)

    return load_problem(make)


def test_a_problem_that_exists_only_here_is_measured_in_this_process():
    """With its --set values, interleaved like any other batch."""
    runner = InProcessRunner(local_problem())
    rows = runner.run([trial(checkpoints=c, set_values={"size": c * 100}) for c in (1, 2)])
    runner.close()
    assert [row.status for row in rows] == [Status.OK, Status.OK]
    assert [row.argument_bytes for row in rows] == [400, 800]
    assert all(len(row.run_seconds) >= 2 for row in rows)


def test_a_problem_that_cannot_be_loaded_is_a_failed_row_in_this_process_too():
    """The contract of runners: never raise for a trial."""
    (row,) = InProcessRunner().run([trial(problem="absent.py:make")])
    assert row.status is Status.FAILED
    assert "absent.py does not exist" in row.message


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"x64": True}, "JAX_ENABLE_X64=1"),
        ({"xla_flags": "--xla_never_set=1"}, "in a process that has started"),
        ({"settings": RunSettings(memory_limit_bytes=10**9)}, "a process of its own"),
        ({"settings": RunSettings(timeout_seconds=5)}, "a process of its own"),
    ],
)
def test_settings_that_cannot_hold_in_a_started_process_are_refused(changes, said):
    """A row must not claim what did not hold."""
    assert jnp.result_type(float) == jnp.float32
    with pytest.raises(AutotuneError) as caught:
        InProcessRunner(local_problem()).run([trial(**changes)])
    assert said in str(caught.value)


def recorded(**changes):
    """A row of a recorded sweep."""
    base = Measurement(
        study="old", problem=ProblemKey(name="p", components={}), device=DeviceKey(platform="gpu", kind="k"),
        adjoint=AdjointName.DIFFRAX, checkpoints=4, set_values={"how": "raise"}, compiled_bytes=100, peak_bytes=120,
        run_bytes=120, run_seconds=(1.0, 2.0),
    )  # fmt: skip
    return dataclasses.replace(base, **changes)


def test_a_recorded_sweep_answers_its_points_and_no_others():
    """Rows come under the new study's name; a point that was never measured is a failed row."""
    runner = ReplayRunner([recorded(), recorded(checkpoints=8, run_seconds=(0.5,))])
    asked = [trial(checkpoints=c, set_values={"how": "raise"}) for c in (8, 4, 5)]
    found = runner.run(asked)
    assert [row.run_seconds for row in found] == [(0.5,), (1.0, 2.0), ()]
    assert [row.study for row in found] == ["s"] * 3
    assert found[2].status is Status.FAILED
    assert "no row for 5 checkpoints" in found[2].message
    assert runner.asked == asked


@pytest.mark.parametrize(
    "other",
    [{"horizon": 3}, {"tolerance": 0.1}, {"set_values": {"how": "nan"}}, {"xla_flags": "--f"},
     {"x64": True}, {"adjoint": AdjointName.OURS}],
)  # fmt: skip
def test_a_recorded_row_answers_its_own_point_only(other):
    """Nothing is answered from a neighbour; 3 and 3.0 are different horizons."""
    runner = ReplayRunner([recorded(), recorded(horizon=3.0)])
    (row,) = runner.run([dataclasses.replace(trial(set_values={"how": "raise"}), **other)])
    assert row.status is Status.FAILED


def test_a_compile_only_trial_is_answered_without_timings():
    """A search that only compiled must not see seconds; a run that failed compiled all the same."""
    failed = recorded(checkpoints=9, status=Status.TIMED_OUT, message="slow", run_seconds=())
    runner = ReplayRunner([recorded(), failed])
    values = {"how": "raise"}
    rows = runner.run([trial(checkpoints=c, set_values=values, rung=Rung.COMPILED) for c in (4, 9)])
    assert [row.run_seconds for row in rows] == [(), ()]
    assert [row.status for row in rows] == [Status.OK, Status.OK]
    assert [row.compiled_bytes for row in rows] == [100, 100]
    assert runner.run([trial(checkpoints=9, set_values=values)])[0].status is Status.TIMED_OUT


def test_of_several_recorded_rows_the_one_that_went_furthest_answers():
    """A compile-only row does not hide a timed one."""
    runner = ReplayRunner([recorded(run_seconds=()), recorded(), recorded(run_seconds=(3.0,))])
    assert runner.run([trial(set_values={"how": "raise"})])[0].run_seconds == (1.0, 2.0)
