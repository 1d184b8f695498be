"""What is timed has its device to itself: no other timing and no compile beside it, whoever started them."""

import contextlib
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from autotune.machine import lock
from autotune.machine.lock import device_lock
from autotune.measuring.timing import Spent, TimingLock, WorkerMachine, physical_index
from autotune.measuring.trial import RunSettings
from tests.autotune.fake_lab import lab

pytestmark = pytest.mark.skipif(not lock.HELD_HERE, reason="this system has no file locks")


@pytest.fixture(autouse=True)
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A runtime folder of this test's own."""
    tmp_path.chmod(0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path


def waits(shared: bool) -> bool:
    """Tell whether somebody who wants the lock has to wait for it."""
    got = threading.Event()

    def want() -> None:
        with device_lock("d", shared=shared):
            got.set()

    thread = threading.Thread(target=want, daemon=True)
    thread.start()
    return not got.wait(0.3)


@pytest.mark.parametrize(
    ("held_shared", "wanted_shared", "has_to_wait"),
    [(False, False, True), (False, True, True), (True, False, True), (True, True, False)],
)
def test_timings_exclude_everything_and_compiles_share(
    held_shared: bool, wanted_shared: bool, has_to_wait: bool
) -> None:
    """The four pairs of who holds the lock and who wants it."""
    with device_lock("d", shared=held_shared):
        assert waits(wanted_shared) is has_to_wait


def test_compiles_that_follow_each_other_do_not_put_a_timing_off() -> None:
    """Who comes after a timing that waits gets in after it, though those inside share."""
    code = (
        "import sys, time\nfrom autotune.machine.lock import device_lock\n"
        "with device_lock('d', shared=True):\n print('in', flush=True)\n sys.stdin.readline()"
    )
    order: list[str] = []

    def want(name: str, shared: bool) -> threading.Thread:
        def run() -> None:
            with device_lock("d", shared=shared):
                order.append(name)

        thread = threading.Thread(target=run)
        thread.start()
        time.sleep(0.2)
        return thread

    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "in\n"
        threads = [want("timing", False), want("compile", True)]
        assert order == []
        first.communicate("go\n")
    for thread in threads:
        thread.join(20)
    assert order == ["timing", "compile"]


def test_a_timing_lock_holds_nothing_until_the_device_is_known(runtime: Path) -> None:
    """Then it is a file of this user's."""
    timing = TimingLock(2)
    assert isinstance(timing(), contextlib.nullcontext)
    timing.know(lab().device_info())
    with timing():
        assert [path.name for path in runtime.rglob("*.lock")] == [f"{lab().device_info().key.fingerprint}-2.lock"]


def test_what_keeps_a_cpu_busy_shares_the_lock_and_what_is_timed_holds_it() -> None:
    """By phase: compiling and counting steps share, calls and samples exclude, small talk needs nothing."""
    machine = WorkerMachine(RunSettings())
    machine._lock.know(lab().device_info())
    fingerprint = lab().device_info().key.fingerprint

    def excludes(phase: str, shared: bool) -> bool:
        got = threading.Event()

        def want() -> None:
            with device_lock(fingerprint, shared=shared):
                got.set()

        with machine._lock_for(phase):
            threading.Thread(target=want, daemon=True).start()
            return not got.wait(0.3)

    assert [excludes(phase, True) for phase in ("compile", "observe", "key")] == [False] * 3
    assert [excludes(phase, False) for phase in ("compile", "observe")] == [True] * 2
    assert [excludes(phase, True) for phase in ("call", "time")] == [True] * 2
    assert not excludes("drop", False)


@pytest.mark.parametrize(
    ("platform", "index", "environment", "expected"),
    [
        ("cpu", 0, {"CUDA_VISIBLE_DEVICES": "3"}, "0"),
        ("gpu", 0, {}, "0"),
        ("gpu", 1, {}, "1"),
        ("gpu", 0, {"CUDA_VISIBLE_DEVICES": "3"}, "3"),
        ("gpu", 1, {"CUDA_VISIBLE_DEVICES": "3, 5"}, "5"),
        ("gpu", 0, {"CUDA_VISIBLE_DEVICES": "GPU-8f/.."}, "GPU-8f-"),
        ("gpu", 0, {"ROCR_VISIBLE_DEVICES": "2"}, "2"),
        ("gpu", 4, {"CUDA_VISIBLE_DEVICES": "3"}, "4"),
        ("gpu", 0, {"CUDA_VISIBLE_DEVICES": ""}, "0"),
    ],
)
def test_a_device_has_one_lock_however_a_process_was_shown_it(
    platform: str, index: int, environment: dict[str, str], expected: str
) -> None:
    """Two workers of one host that were each given one of its devices do not wait for each other."""
    assert physical_index(platform, index, environment) == expected


def test_what_workers_were_busy_with_is_said_in_shares() -> None:
    """Of ten seconds: two of starting, four of compiling in two compiles, one and three of calls."""
    spent = Spent(processes=3)
    for op, seconds in (("observe", 2.0), ("compile", 3.0), ("compile", 1.0), ("call", 1.0), ("time", 3.0)):
        spent.add(op, seconds)
    assert str(spent) == (
        "10 s in 3 processes: 20% starting and counting, 40% compiling, 10% warming up, 30% timing; 2 compiles"
    )
    assert "0 compiles" in str(Spent())
