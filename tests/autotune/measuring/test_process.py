"""Worker processes: what they start with, what they survive, and that none is left behind."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from autotune import AutotuneError
from autotune.measuring import worker_process
from autotune.measuring.trial import RunSettings
from autotune.measuring.worker_process import WorkerEndedError, WorkerProcess, worker_environment
from profiles import Status
from tests.conftest import REPOSITORY

DECAY = REPOSITORY / "tests/assets/problems/decay.py"


def test_a_worker_starts_with_what_must_hold_before_jax_does():
    """Allocation on demand, errors as NaN, a cache; and what the user chose."""
    made = worker_environment(
        RunSettings(platform="gpu", x64=True, xla_flags="--b"), {"XLA_FLAGS": "--a", "HOME": "/h"}
    )
    assert made["EQX_ON_ERROR"] == "nan"
    assert made["XLA_PYTHON_CLIENT_PREALLOCATE"] == "false"
    assert made["JAX_COMPILATION_CACHE_DIR"]
    assert made["JAX_ENABLE_X64"] == "1"
    assert made["XLA_FLAGS"] == "--a --b"


@pytest.mark.parametrize(
    ("platform", "expected"), [("cpu", "cpu"), ("cuda", "cuda,cpu"), ("tpu", "tpu,cpu"), ("gpu", None), (None, "tpu")]
)
def test_the_platform_that_was_chosen_is_the_one_that_starts(platform, expected):
    """The host stays reachable beside an accelerator; a bare "gpu" is whichever jax finds."""
    assert worker_environment(RunSettings(platform=platform), {"JAX_PLATFORMS": "tpu"}).get("JAX_PLATFORMS") == expected


def test_the_final_verification_leaves_the_users_environment_alone():
    """Only what the user chose on the command line is added."""
    theirs = {"EQX_ON_ERROR": "breakpoint", "XLA_PYTHON_CLIENT_PREALLOCATE": "true", "HOME": "/h"}
    assert worker_environment(RunSettings(own_environment=True), theirs) == theirs


def ask_key(worker, **more):
    """Ask for a fingerprint, which loads, calls and traces a problem."""
    return worker.ask("key", problem=f"{DECAY}:make", set_values={}, horizon=1, tolerance=1e-3, **more)


@pytest.fixture(scope="module")
def worker():
    """One worker for the tests that leave it alive."""
    started = WorkerProcess(RunSettings())
    yield started
    started.close()
    assert not started.alive


def test_an_answer_comes_back_although_the_users_code_prints(worker):
    """Standard output belongs to the protocol; prints go elsewhere."""
    problem = str(DECAY.parent / "misbehaving.py") + ":make"
    values = {"how": "raise", "at": 2**31}
    key = worker.ask("key", problem=problem, set_values=values, horizon=None, tolerance=None)
    assert key["name"] == "misbehaving:make"


def test_an_error_of_the_users_arrives_with_their_frames(worker):
    """As if it had been raised here."""
    with pytest.raises(AutotuneError, match="make_raising raised: KeyError") as caught:
        worker.ask("key", problem=f"{DECAY}:make_raising", set_values={}, horizon=1, tolerance=None)
    assert any("in _inner" in frame for frame in caught.value.frames)
    assert worker.alive


def test_a_bug_of_ours_arrives_with_its_traceback(worker):
    """What is no error of the user's is not dressed up as one."""
    with pytest.raises(worker_process.WorkerBugError, match="Traceback"):
        worker.ask("no_such_operation")
    assert worker.alive


def test_a_worker_that_takes_too_long_is_ended_and_said_so():
    """The phase and the limit stand in the message."""
    slow = WorkerProcess(RunSettings())
    slow.ask("hello")
    with pytest.raises(WorkerEndedError, match=r"fingerprinting took longer than 0.01 s") as caught:
        ask_key(slow, timeout_seconds=0.01)
    assert caught.value.status is Status.TIMED_OUT
    assert not slow.alive


def ended_by(number, monkeypatch, *, kills=(0, 0), largest=0):
    """End a bare worker by a signal and tell what its parent makes of it."""
    counts = iter(kills)
    monkeypatch.setattr(worker_process, "oom_kills", lambda: next(counts))
    victim = WorkerProcess(RunSettings())
    victim._greeted = True
    victim._largest_bytes = largest
    os.kill(victim._process.pid, number)
    victim._process.wait()
    with pytest.raises(WorkerEndedError) as caught:
        victim.ask("drop")
    victim.close()
    return caught.value


def test_a_kill_that_the_kernel_counted_is_out_of_memory(monkeypatch):
    """The kernel's counter rose while the worker lived."""
    ended = ended_by(signal.SIGKILL, monkeypatch, kills=(3, 4))
    assert ended.status is Status.OUT_OF_MEMORY
    assert "signal 9" in str(ended)


def test_a_kill_that_the_kernel_did_not_count_is_a_failure(monkeypatch):
    """Somebody else did it; larger counts are not ruled out by that."""
    ended = ended_by(signal.SIGKILL, monkeypatch, kills=(3, 3))
    assert ended.status is Status.FAILED
    assert "counted no out-of-memory kill" in str(ended)


def test_a_large_process_that_was_killed_counts_as_out_of_memory(monkeypatch):
    """User-space guards kill large processes, and the kernel counts nothing."""
    half = psutil.virtual_memory().total // 2
    assert ended_by(signal.SIGKILL, monkeypatch, kills=(3, 3), largest=half).status is Status.OUT_OF_MEMORY


def test_a_kill_on_a_system_that_counts_none_is_out_of_memory(monkeypatch):
    """Exit status -9 is the kernel's out-of-memory kill until something says otherwise."""
    assert ended_by(signal.SIGKILL, monkeypatch, kills=(None, None)).status is Status.OUT_OF_MEMORY


def test_a_crash_is_a_failure_that_names_the_signal(monkeypatch):
    """A segmentation fault says nothing about memory."""
    ended = ended_by(signal.SIGSEGV, monkeypatch)
    assert ended.status is Status.FAILED
    assert "died of SIGSEGV" in str(ended)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="RLIMIT_AS")
@pytest.mark.parametrize("gibibytes", [0.4, 1.0])
def test_a_limit_too_small_for_jax_itself_is_out_of_memory(gibibytes):
    """Whether an import or a thread's memory is refused."""
    small = WorkerProcess(RunSettings(memory_limit_bytes=int(gibibytes * 2**30)))
    with pytest.raises(WorkerEndedError) as caught:
        ask_key(small)
    assert caught.value.status is Status.OUT_OF_MEMORY
    small.close()


def test_a_platform_that_is_not_there_is_an_error_of_the_users():
    """Not a traceback of JAX's inside."""
    absent = WorkerProcess(RunSettings(platform="tpu"))
    with pytest.raises(AutotuneError, match=r"jax could not start in a worker|no platform 'tpu'"):
        absent.ask("device", platform="tpu", device=0)
    absent.close()


PARENT = """
import sys, time
from autotune.measuring.worker_process import WorkerProcess
from autotune.measuring.trial import RunSettings
worker = WorkerProcess(RunSettings())
worker.ask("hello")
print(worker._process.pid, flush=True)
time.sleep(600)
"""


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_an_orphan_ends_itself_when_its_parent_is_killed():
    """A kill -9 of the tuner leaves no worker behind."""
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    orphan = psutil.Process(int(parent.stdout.readline()))
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 30
    while orphan.is_running() and orphan.status() != psutil.STATUS_ZOMBIE and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not orphan.is_running() or orphan.status() == psutil.STATUS_ZOMBIE


def test_a_worker_that_is_forgotten_is_ended():
    """Garbage collection does not leave a process behind."""
    forgotten = WorkerProcess(RunSettings())
    process = psutil.Process(forgotten._process.pid)
    del forgotten
    assert not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
