"""Further processes that measure for a study: those that a tune starts itself, and `ckpt-tune worker` anywhere else."""

import contextlib
import dataclasses
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

from autotune.errors import AutotuneError
from autotune.measuring.runners import ProbeRequest
from autotune.measuring.trial import RunSettings
from autotune.problem.differences import differences
from autotune.tuning.lab import WorkerMachine
from autotune.tuning.prepare import Prepared
from autotune.tuning.queue import JoinedStudy, join_study, scratch_url
from autotune.tuning.request import TuneRequest
from autotune.tuning.sweep import Sweep, SweepInterrupted, SweepProgress, SweepTools
from profiles import STORE_VARIABLE, AdjointName, DeviceKey, Measurement, ProblemKey, read_values, stored_values

POLL_SECONDS = 0.5
END_SECONDS = 10.0
"""How long a worker may take to end when its tune does."""


class WorkerProgress(SweepProgress, Protocol):
    """A listener to a worker."""

    def say(self, text: str) -> None:
        """Show one line about what is being done."""
        ...


class WorkerStore(Protocol):
    """The part of a store that a worker needs."""

    @property
    def url(self) -> str:
        """Its name for other processes."""
        ...

    def put(self, measurement: Measurement) -> None:
        """Store one row durably."""
        ...


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class WorkerRequest:
    """Which study to join, and what this host's user calls its problem: code that only a study names is not run."""

    study: str
    problem: str | None = None
    search_path: tuple[str, ...] = ()
    idle_seconds: float = 300.0
    parent: int | None = None


def origin_of_study(prepared: Prepared) -> dict[str, Any]:
    """Write down what a worker on another host has to check before it joins."""
    case = prepared.space.cells[0].case
    key = prepared.keys[case.set_values]
    return {
        "problem": prepared.problem,
        "settings": dataclasses.asdict(prepared.request.settings),
        "device": dataclasses.asdict(prepared.device.key),
        "adjoint": str(prepared.request.adjoint),
        "name": key.name,
        "components": dict(key.components),
        "set_values": stored_values(dict(case.set_values)),
        "horizon": case.horizon,
        "tolerance": case.tolerance,
    }


@contextlib.contextmanager
def local_workers(prepared: Prepared, study: str, store_url: str, count: int) -> Iterator[None]:
    """Run `count` workers of a study on this host, and end them with it."""
    command = [sys.executable, "-P", "-m", "autotune.cli", "worker", study, "--quiet"]
    command += ["--problem", prepared.problem, "--parent", str(os.getpid())]
    for folder in prepared.search_path:
        command += ["--search", folder]
    # The URL goes through the environment: it may hold a password, and arguments are for everybody to see.
    environment = {**os.environ, STORE_VARIABLE: store_url}
    # Their own session, so that Ctrl-C reaches the tune alone, which then ends them.
    started = [
        subprocess.Popen(command, env=environment, start_new_session=True, stdout=subprocess.DEVNULL)
        for _ in range(count)
    ]
    try:
        yield
    finally:
        for process in started:
            process.terminate()
        for process in started:
            try:
                process.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()


def run_worker(request: WorkerRequest, store: WorkerStore, progress: WorkerProgress) -> int:
    """Measure for a study until it ends.

    Returns:
        How many trials this worker measured.

    Raises:
        AutotuneError: there is no such study, or device or problem here are not the study's.
    """
    joined = join_study(scratch_url(store.url), request.study)
    try:
        return _join(joined, request, store, progress)
    finally:
        joined.close()


def _join(joined: JoinedStudy, request: WorkerRequest, store: WorkerStore, progress: WorkerProgress) -> int:
    """Measure for a study that was joined."""
    origin = dict(joined.study.user_attrs["origin"])
    settings = RunSettings(**origin["settings"])
    problem, search_path = _named_here(request, origin)
    machine = WorkerMachine(settings, search_path=search_path)
    try:
        if request.parent is None:  # a tune's own workers are on its host, with its files
            _check_same(origin, problem, machine)
        else:
            machine.device_info()
        tools = SweepTools(runner=_Moved(machine, problem), store=store, progress=progress)
        return _serve(Sweep(joined, tools), request, progress.say)
    finally:
        machine.close()


def _named_here(request: WorkerRequest, origin: Mapping[str, Any]) -> tuple[str, tuple[str, ...]]:
    """Give the problem as this host's user named it, and the folders that it needs.

    Raises:
        AutotuneError: they named none: what is written in a store that others write to is not imported.
    """
    if request.problem is None:
        raise AutotuneError(
            "which code this worker is to run must be said here: "
            f"add --problem FILE.py:factory (the tune calls it {origin['problem']})"
        )
    problem, search_path = TuneRequest(problem=request.problem).located()
    return problem, (*search_path, *request.search_path)


class _Moved:
    """A runner whose problem lies elsewhere on this host than on the one that wrote the trials."""

    def __init__(self, machine: WorkerMachine, problem: str) -> None:
        self._machine = machine
        self._problem = problem

    def run(self, trials):
        return self._machine.run([dataclasses.replace(trial, problem=self._problem) for trial in trials])

    def close(self) -> None:
        self._machine.close()


def _check_same(origin: Mapping[str, Any], problem: str, machine: WorkerMachine) -> None:
    """Refuse to measure another problem, or on another device, than the study is about."""
    row = Measurement(
        study="origin",
        problem=ProblemKey(name=origin["name"], components=origin["components"]),
        device=DeviceKey(**origin["device"]),
        adjoint=AdjointName(origin["adjoint"]),
        checkpoints=1,
    )
    device = machine.device_info().key
    question = ProbeRequest(
        problem=problem,
        set_values=read_values(origin["set_values"]),
        horizon=origin["horizon"],
        tolerance=origin["tolerance"],
    )
    reasons = differences(row, machine.problem_key(question), device)
    if reasons:
        raise AutotuneError(
            f"this worker cannot join: {'; '.join(reasons)} (stored is the study's side); "
            "join with the same code and versions, on the same kind of device"
        )


def _serve(sweep: Sweep, request: WorkerRequest, say: Callable[[str], None]) -> int:
    """Take trials while there are any to come."""
    measured, idle_since = 0, time.monotonic()
    while not sweep.closed:
        if request.parent is not None and os.getppid() != request.parent:
            break
        try:
            taken = sweep.work()
        except SweepInterrupted:
            break
        measured += taken
        now = time.monotonic()
        if taken or sweep.running:
            idle_since = now
        elif now - idle_since > request.idle_seconds:
            say(f"nothing to do for {request.idle_seconds:.0f} s: the tune seems to be gone")
            break
        time.sleep(POLL_SECONDS)
        sweep.reap()
    return measured
