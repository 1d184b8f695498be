"""Errands: what is refused by name, what is dropped when its tune is gone, and what any executor can carry."""

import concurrent.futures
import dataclasses
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import psutil
import pytest

from autotune.errors import AutotuneError, NobodyMeasuresError, ProblemChangedError
from autotune.machine.device import DeviceInfo
from autotune.measuring import errands
from autotune.measuring.errands import Answer, Benches, Errand, Owner, compared_versions, version_differences
from autotune.measuring.executor import ExecutorMachine, LocalMachines
from autotune.measuring.runners import ProbeRequest
from autotune.measuring.trial import RunSettings, Trial
from profiles import AdjointName, Literal, Measurement, Status, Tier
from tests.autotune.fake_lab import lab
from tests.autotune.fake_machine import DEVICE
from tests.conftest import REPOSITORY

PROBLEM = REPOSITORY / "tests" / "assets" / "problems" / "decay.py"


class Stub:
    """A machine of arithmetic that waits while a test holds it."""

    def __init__(self, settings: RunSettings, search_path: Sequence[str] = ()) -> None:
        self.settings, self.search_path = settings, tuple(search_path)
        self.closed = threading.Event()
        self.hold = threading.Event()
        self.hold.set()
        self.error: Exception | None = None

    def device_info(self) -> DeviceInfo:
        """Describe the fake device."""
        return lab().device_info()

    def run(self, trials: Sequence[Trial]) -> list[Measurement]:
        """Answer, fail, or wait until something ends it."""
        if self.error is not None:
            raise self.error
        while not self.hold.is_set() and not self.closed.is_set():
            time.sleep(0.01)
        return lab().run(trials)

    def close(self) -> None:
        """End what waits."""
        self.closed.set()


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Stub]:
    """Every machine that is made, in order."""
    found: list[Stub] = []
    monkeypatch.setattr(errands, "WorkerMachine", lambda *a, **k: found.append(Stub(*a, **k)) or found[-1])
    monkeypatch.setattr(errands, "POLL_SECONDS", 0.05)
    return found


def errand(op: str = "run", **changes: Any) -> Errand:
    """An errand of this process."""
    trial = Trial(study="s", problem="fake.mod:make", adjoint=AdjointName.OURS, checkpoints=4)
    return Errand(
        **{
            "op": op,
            "owner": Owner.this(),
            "versions": compared_versions(),
            "settings": RunSettings(),
            "device": DEVICE,
            "trials": (trial,),
            **changes,
        }
    )


def test_an_errand_is_answered_with_rows(made: list[Stub]) -> None:
    """By one machine for each thread, made for the settings of the errands, and made anew for others."""
    benches = Benches()
    assert [row.checkpoints for row in benches.run(errand()).value] == [4]
    assert benches.run(errand()).value
    assert len(made) == 1
    assert os.getcwd() in made[0].search_path
    benches.run(errand(settings=RunSettings(x64=True)))
    assert len(made) == 2
    assert made[0].closed.is_set()
    thread = threading.Thread(target=benches.run, args=(errand(),))
    thread.start()
    thread.join()
    assert len(made) == 3
    benches.close()
    assert all(machine.closed.is_set() for machine in made)


def test_other_versions_are_refused_with_both_sides(made: list[Stub]) -> None:
    """The machine is asked nothing; Python's own patch release does not matter."""
    theirs = tuple((name, "0.0.1" if name == "jax" else version) for name, version in compared_versions())
    answer = Benches().run(errand(versions=theirs))
    assert answer.refused
    assert answer.message == f"jax: the tune has 0.0.1, the worker {dict(compared_versions())['jax']}"
    assert "python" not in dict(compared_versions())
    assert version_differences((("a", "1"), ("b", "2")), (("a", "1"), ("c", "3"))) == [
        "b: the tune has 2, the worker none", "c: the tune has none, the worker 3",
    ]  # fmt: skip


def test_another_device_is_refused_with_both_sides(made: list[Stub]) -> None:
    """Its kind decides, and not the bytes that it has today."""
    answer = Benches().run(errand(device=dataclasses.replace(DEVICE, kind="other")))
    assert answer.refused
    assert answer.message == "device: the tune is about other, the worker has fake-cpu"
    assert not Benches().run(errand(device=dataclasses.replace(DEVICE, memory_bytes=1))).refused


def test_a_problem_that_is_not_there_is_refused_with_its_path(made: list[Stub]) -> None:
    """And what to do; one that is there, and a module, are taken as they are."""
    gone = dataclasses.replace(errand().trials[0], problem="/no/such/model.py:make")
    answer = Benches().run(errand(trials=(gone,)))
    assert answer.refused
    assert answer.message.startswith("there is no /no/such/model.py here; ")
    assert "--ship" in answer.message
    there = dataclasses.replace(gone, problem=f"{PROBLEM}:make")
    assert Benches().run(errand(trials=(there,))).value


def test_a_changed_problem_is_a_refusal_and_a_broken_one_an_error(made: list[Stub]) -> None:
    """The first may be right elsewhere; the second is wrong everywhere."""
    benches = Benches()
    benches.run(errand())
    made[0].error = ProblemChangedError("p:make was changed")
    assert benches.run(errand()).refused
    made[0].error = AutotuneError("p:make raised", frames=("  f",))
    answer = benches.run(errand())
    assert (answer.refused, answer.message, answer.frames) == (False, "p:make raised", ("  f",))


def test_an_errand_whose_tune_was_killed_is_dropped(made: list[Stub]) -> None:
    """Its machine is ended at once, and what it answered then is no row; the next errand gets a machine of its own."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as tuner:
        owner = dataclasses.replace(Owner.this(), pid=tuner.pid, began=psutil.Process(tuner.pid).create_time())
        assert not owner.gone()
        benches, answers, ready = Benches(), [], threading.Event()

        def measure() -> None:
            benches.run(errand())
            made[0].hold.clear()
            ready.set()
            answers.append(benches.run(errand(owner=owner)))
            answers.append(benches.run(errand()))

        thread = threading.Thread(target=measure)
        thread.start()
        assert ready.wait(10)
        time.sleep(0.2)
        assert not answers
        tuner.kill()
        tuner.wait()
        thread.join(10)
    assert owner.gone()
    assert made[0].closed.is_set()
    dropped, after = answers
    assert dropped.dropped
    assert dropped.value is None
    assert after.value
    assert len(made) == 2


def test_a_tune_of_another_host_is_never_taken_for_gone() -> None:
    """Its process number means nothing here."""
    assert not dataclasses.replace(Owner.this(), place="elsewhere", pid=2**22 + 7).gone()
    assert dataclasses.replace(Owner.this(), pid=2**22 + 7).gone()
    assert dataclasses.replace(Owner.this(), began=0.0).gone(), "the number was given to another process since"


def test_a_machine_with_nothing_to_do_lets_its_processes_go(made: list[Stub], monkeypatch: pytest.MonkeyPatch) -> None:
    """After a while; an errand that comes meanwhile keeps it."""
    monkeypatch.setattr(errands, "IDLE_SECONDS", 0.1)
    benches = Benches()
    benches.run(errand())
    assert made[0].closed.wait(10)
    assert benches.run(errand()).value
    assert len(made) == 2


def test_what_was_closed_while_it_ran_is_no_answer(made: list[Stub]) -> None:
    """A worker that is told to end reports no row of the trial that it ended."""
    benches, answers = Benches(), []
    ready = threading.Event()

    def in_thread() -> None:
        benches.run(errand())
        made[0].hold.clear()
        ready.set()
        answers.append(benches.run(errand()))

    thread = threading.Thread(target=in_thread)
    thread.start()
    ready.wait(10)
    time.sleep(0.1)
    benches.close()
    thread.join(10)
    assert [answer.dropped for answer in answers] == [True]


class Broken(concurrent.futures.Executor):
    """An executor that answers as a test says."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Answer, or raise."""
        answer = self.answers.pop(0)
        done: Future[Any] = Future()
        if isinstance(answer, RuntimeError):
            raise answer
        if isinstance(answer, BaseException):
            done.set_exception(answer)
        else:
            done.set_result(answer)
        return done


@pytest.mark.parametrize(
    "answer",
    [
        RuntimeError("cannot schedule new futures after shutdown"),
        concurrent.futures.BrokenExecutor("a child was killed"),
        concurrent.futures.CancelledError(),
        Answer(place="node7", message="ended", dropped=True),
    ],
)
def test_an_executor_that_is_gone_ends_the_tune_in_one_line(answer: Any) -> None:
    """No case and no trial is blamed; the line says that one can go on."""
    machine = ExecutorMachine(Broken(answer), RunSettings())
    with pytest.raises(NobodyMeasuresError, match="the same command goes on from there"):
        machine.problem_key(ProbeRequest(problem="m:make"))


def test_a_refusal_ends_the_tune_of_an_executor_and_names_the_worker() -> None:
    """An executor says nothing of its places, so nobody else can be asked."""
    machine = ExecutorMachine(Broken(Answer(place="node7", message="jax: …", refused=True)), RunSettings())
    with pytest.raises(ProblemChangedError, match="the worker on node7: jax: …"):
        machine.device_info()


def test_several_machines_of_this_host_run_at_once_and_end_at_once(
    made: list[Stub], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A unit each; closing ends what runs."""
    both = threading.Barrier(2, timeout=20)
    run = Stub.run
    monkeypatch.setattr(Stub, "run", lambda self, trials: (both.wait(), run(self, trials))[1])
    machine = LocalMachines(RunSettings(), size=2)
    units = [machine.submit([errand().trials[0]]) for _ in range(2)]
    while not all(unit.done() for unit in units):
        machine.wait(units)
    assert [len(machine.rows(unit)) for unit in units] == [1, 1]
    assert len(made) == 2
    monkeypatch.setattr(Stub, "run", run)
    for stub in made:
        stub.hold.clear()
    held = machine.submit([errand().trials[0]])
    machine.close()
    assert all(stub.closed.is_set() for stub in made)
    assert held.cancelled() or held.result().dropped
    with pytest.raises(NobodyMeasuresError):
        machine.submit([errand().trials[0]])


def test_a_pool_of_processes_carries_errands_to_real_workers(tmp_path: Path) -> None:
    """Whatever a trial holds survives the way there and back: literals, tiers, keys; a real row comes back."""
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        machine = ExecutorMachine(pool, RunSettings(timeout_seconds=120.0))
        device = machine.device_info()
        question = ProbeRequest(problem=f"{PROBLEM}:make", horizon=2, set_values={"width": 2})
        key = machine.problem_key(question)
        good = Trial(
            study="s", problem=question.problem, adjoint=AdjointName.OURS, checkpoints=4, horizon=2, key=key,
            set_values={"width": 2}, device=device.key, rounds=1,
        )  # fmt: skip
        odd = dataclasses.replace(good, set_values={"width": Literal("(1, 2)")}, key=None, rounds=1)
        rows = machine.run([good, dataclasses.replace(odd, tier=Tier(name="host", windows=3, transfer_cost=1.0))])
        assert rows[0].status is Status.OK, rows[0].message
        assert rows[0].run_seconds
        assert rows[0].host
        assert rows[0].device == device.key
        assert rows[1].status is Status.FAILED
        assert rows[1].set_values == {"width": Literal("(1, 2)")}
        machine.close()
