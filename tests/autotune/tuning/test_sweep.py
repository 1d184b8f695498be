"""The sweep: each trial is measured once and stored before anyone hears of it, whatever dies."""

import dataclasses
import itertools
import pathlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence

import optuna
import pytest

from autotune import AutotuneError
from autotune.measuring.trial import Rung, Trial
from autotune.tuning import queue as _study
from autotune.tuning.sweep import Sweep, SweepInterrupted, SweepTools
from profiles import AdjointName, Measurement, Status
from tests.autotune.fake_machine import FakeMachine
from tests.conftest import REPOSITORY


class MemoryStore:
    """Keeps rows in a list, in the order in which they came."""

    def __init__(self) -> None:
        self.rows: list[Measurement] = []

    def put(self, measurement: Measurement) -> None:
        """Keep the row."""
        self.rows.append(measurement)


class Silent:
    """Hears everything and says nothing."""

    def started(self, trials: Sequence[Trial]) -> None:
        """Say nothing."""

    def finished(self, measurement: Measurement) -> None:
        """Say nothing."""


def _machine() -> FakeMachine:
    return FakeMachine(
        steps=lambda cell: 100, peak_bytes=lambda cell, count: 1000 * count, seconds=lambda cell, count: 1 / count
    )


def _machine_that_first_waits(barrier: threading.Barrier) -> FakeMachine:
    """Make a machine whose first run begins when those of all others have: how busy the computer is decides nothing."""
    machine = _machine()
    run = machine.run
    runs = itertools.count()
    machine.run = lambda trials: (next(runs) == 0 and barrier.wait(), run(trials))[1]
    return machine


def _trial(checkpoints: int, horizon: int = 10, rung: Rung = Rung.RUN) -> Trial:
    return Trial(
        study="s", problem="p.py:make", adjoint=AdjointName.DIFFRAX, checkpoints=checkpoints, horizon=horizon, rung=rung
    )


def _tools(store: MemoryStore, machine: FakeMachine) -> SweepTools:
    return SweepTools(runner=machine, store=store, progress=Silent())


_OPEN: list[_study.JoinedStudy] = []


@pytest.fixture(autouse=True)
def closed_studies() -> Iterator[None]:
    """Close what `_make` and `_join` opened."""
    yield
    while _OPEN:
        _OPEN.pop().close()


def _make(url: str, name: str = "s") -> _study.JoinedStudy:
    _OPEN.append(_study.make_study(url, _study.StudyPlan(name=name)))
    return _OPEN[-1]


def _join(url: str, name: str = "s") -> _study.JoinedStudy:
    _OPEN.append(_study.join_study(url, name))
    return _OPEN[-1]


def test_timed_trials_of_a_batch_reach_the_runner_together() -> None:
    """Counts that are compared are timed in one call of the runner, so that it can alternate between them."""
    machine, store = _machine(), MemoryStore()
    batches = []
    tools = _tools(store, dataclasses.replace(machine))
    tools.runner.run = lambda trials: batches.append(len(trials)) or machine.run(trials)
    rows = Sweep(_make(""), tools).measure([_trial(1), _trial(2), _trial(4)])
    assert batches == [3]
    assert sorted(row.checkpoints for row in rows) == [1, 2, 4]


def test_a_row_is_stored_before_optuna_hears_of_it() -> None:
    """When a row reaches the store its trial still runs for Optuna: a kill in between measures nothing twice."""
    study = _make("")
    states = []

    class Watching(MemoryStore):
        def put(self, measurement: Measurement) -> None:
            states.extend(trial.state.name for trial in study.study.trials)
            super().put(measurement)

    Sweep(study, _tools(Watching(), _machine())).measure([_trial(2)])
    assert states == ["RUNNING"]
    assert [trial.state.name for trial in study.study.trials] == ["COMPLETE"]


def test_failures_are_rows_and_the_sweep_goes_on() -> None:
    """A trial that runs out of memory is stored with its status, and the others are measured."""
    store = MemoryStore()
    machine = dataclasses.replace(_machine(), capacity_bytes=3000)
    Sweep(_make(""), _tools(store, machine)).measure([_trial(c) for c in (1, 2, 4, 8)])
    assert {row.checkpoints: row.status for row in store.rows} == {
        1: Status.OK,
        2: Status.OK,
        4: Status.OUT_OF_MEMORY,
        8: Status.OUT_OF_MEMORY,
    }


def test_only_what_no_row_tells_of_is_lost() -> None:
    """A trial is told from one at the same point in an earlier batch, with another horizon or under another study."""
    store, asked = MemoryStore(), [_trial(1), _trial(2)]
    sweep = Sweep(_make(""), _tools(store, _machine()))
    sweep.measure(asked)
    assert sweep.lost(asked, store.rows) == []
    others = [
        dataclasses.replace(asked[0], repeat=1), dataclasses.replace(asked[0], horizon=20),
        dataclasses.replace(asked[0], study="s/verified"),
    ]  # fmt: skip
    assert sweep.lost([*asked, *others], store.rows) == others


def test_an_interrupt_keeps_what_is_stored_and_drops_what_runs() -> None:
    """After Ctrl-C the finished batch is in the store, the running one is not, and its runner was closed."""
    store, machine = MemoryStore(), _machine()
    study = _make("")
    sweep = Sweep(study, _tools(store, machine))
    sweep.measure([_trial(1)])
    blocked = threading.Event()
    run = machine.run
    machine.run = lambda trials: (sweep.interrupt(), blocked.set(), run(trials))[-1]
    with pytest.raises(SweepInterrupted):
        sweep.measure([_trial(2), _trial(4)])
    assert blocked.is_set()
    assert machine.closed
    assert [row.checkpoints for row in store.rows] == [1]


def test_an_error_of_the_store_ends_the_sweep_with_that_error() -> None:
    """A full disk surfaces as itself, not as a lost trial or a hang of the threads that wait for it."""

    class Full(MemoryStore):
        def put(self, measurement: Measurement) -> None:
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        Sweep(_make(""), _tools(Full(), _machine())).measure([_trial(1), _trial(2)])


def test_two_processes_share_the_trials_of_a_study(tmp_path: pathlib.Path) -> None:
    """A second member of the study takes trials too, and none is measured by both."""
    url = f"sqlite:///{tmp_path / 'scratch.db'}"
    study = _make(url)
    both_hold_one = threading.Barrier(2, timeout=60)
    mine, theirs = MemoryStore(), MemoryStore()
    tools = [_tools(store, _machine_that_first_waits(both_hold_one)) for store in (mine, theirs)]
    other = Sweep(_join(url), tools[1])
    stop = threading.Event()

    def help_out() -> None:
        while not stop.is_set():
            other.work()
            time.sleep(0.02)

    helper = threading.Thread(target=help_out)
    helper.start()
    trials = [_trial(count, horizon, Rung.COMPILED) for count in (1, 2, 4, 8) for horizon in (10, 20)]
    Sweep(study, tools[0]).measure(trials)
    stop.set()
    helper.join()
    places = [(row.checkpoints, row.horizon) for row in mine.rows + theirs.rows]
    assert sorted(places) == sorted((trial.checkpoints, trial.horizon) for trial in trials)
    assert mine.rows
    assert theirs.rows


def test_the_trial_of_a_killed_worker_is_handed_out_once_more(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that is killed with a trial in hand loses nothing: the survivor measures it, though no one joins."""
    monkeypatch.setattr(_study, "HEARTBEAT_SECONDS", 1)
    monkeypatch.setattr(_study, "GRACE_SECONDS", 3)
    url = f"sqlite:///{tmp_path / 'scratch.db'}"
    study = _make(url)
    victim_code = f"""
import time
from autotune.tuning import queue as _study
from autotune.tuning import sweep as _sweep
from tests.autotune.tuning.test_sweep import MemoryStore, _machine, _tools
_study.HEARTBEAT_SECONDS, _study.GRACE_SECONDS = 1, 3
machine = _machine()
machine.run = lambda trials: (print("taken", flush=True), time.sleep(60))
sweep = _sweep.Sweep(_study.join_study({url!r}, "s"), _tools(MemoryStore(), machine))
while True:
    sweep.work()
    time.sleep(0.05)
"""
    with subprocess.Popen([sys.executable, "-c", victim_code], stdout=subprocess.PIPE, cwd=REPOSITORY) as victim:
        store = MemoryStore()
        machine = _machine()
        run = machine.run

        def run_after_the_kill(trials: Sequence[Trial]) -> list[Measurement]:
            assert victim.stdout is not None
            if victim.poll() is None:
                victim.stdout.readline()
                victim.send_signal(signal.SIGKILL)
                victim.wait()
            return run(trials)

        machine.run = run_after_the_kill
        Sweep(study, _tools(store, machine)).measure([_trial(1, rung=Rung.COMPILED), _trial(2, rung=Rung.COMPILED)])
    assert sorted(row.checkpoints for row in store.rows) == [1, 2]


def test_joining_a_study_that_is_not_there_names_those_that_are(tmp_path: pathlib.Path) -> None:
    """The error of `ckpt-tune worker` says which studies take workers."""
    url = f"sqlite:///{tmp_path / 'scratch.db'}"
    _make(url, "spirals-1234")
    with pytest.raises(AutotuneError, match="spirals-1234"):
        _study.join_study(url, "lynx-0000")


@pytest.mark.parametrize(
    ("store_url", "expected"),
    [
        ("sqlite:////data/profiles.db", "sqlite:////data/profiles.db.queue"),
        ("sqlite://", ""),
        ("postgresql+psycopg://me:pw@host/name", "postgresql+psycopg://me:pw@host/name"),
    ],
)
def test_the_scratch_lies_where_the_workers_of_a_store_find_it(store_url: str, expected: str) -> None:
    """Beside an SQLite file, in the same database on a server, nowhere for a store in memory."""
    assert _study.scratch_url(store_url) == expected


def test_tunes_of_one_problem_at_once_have_a_study_each(tmp_path: pathlib.Path) -> None:
    """A tune that starts while another runs takes nothing from it; studies of tunes that ended are thrown away."""
    url = f"sqlite:///{tmp_path / 'scratch.db'}"
    first, second = _make(url), _make(url)
    assert first.study.study_name != second.study.study_name
    stores = MemoryStore(), MemoryStore()
    sweeps = [Sweep(study, _tools(store, _machine())) for study, store in zip((first, second), stores, strict=True)]
    for sweep in sweeps:
        sweep.measure([_trial(1), _trial(2)])
    assert [len(store.rows) for store in stores] == [2, 2]
    sweeps[0].end()
    assert _join(url).study.study_name == second.study.study_name, "a worker joins one that runs"
    third = _make(url)
    there = optuna.get_all_study_names(third.storage)
    assert sorted(there) == sorted((second.study.study_name, third.study.study_name))


def test_a_study_of_a_killed_tune_is_thrown_away(tmp_path: pathlib.Path) -> None:
    """Its process is gone from this host, so nobody waits for it."""
    url = f"sqlite:///{tmp_path / 'scratch.db'}"
    code = f"from tests.autotune.tuning.test_sweep import _make\n_make({url!r})"
    subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=True)
    mine = _make(url)
    assert optuna.get_all_study_names(mine.storage) == [mine.study.study_name]


def test_processes_that_make_the_scratch_database_at_once_all_get_it(tmp_path: pathlib.Path) -> None:
    """Optuna's tables are made once, and nobody ends with a database error."""
    url = f"sqlite:///{tmp_path / 'scratch.db'}"
    code = f"from tests.autotune.tuning.test_sweep import _make\nimport sys\nsys.stdin.readline()\n_make({url!r})"
    processes = [
        subprocess.Popen([sys.executable, "-c", code], cwd=REPOSITORY, stdin=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(3)
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(b"go\n")
        process.stdin.flush()
    for process in processes:
        _, said = process.communicate()
        assert process.returncode == 0, said.decode()
