"""What an executor carries elsewhere: one errand as a record, and the machine of the process that runs it. No jax.

Whoever runs errands measures and does nothing else: it asks no search and knows no store. Each errand says which
versions and which device its tune is about, and its trials say which problem; what differs there is refused by name.

A trial outlives nobody: while an errand runs, its process looks whether the tune that sent it is still there, and ends
the trial's process where it is not. A machine that had nothing to do for a while lets its processes go.
"""

import contextlib
import dataclasses
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil

from autotune.errors import AutotuneError, ProblemChangedError
from autotune.machine.device import DeviceInfo, versions
from autotune.machine.tiers import TierRequest
from autotune.measuring.runners import ProbeRequest
from autotune.measuring.timing import WorkerMachine
from autotune.measuring.trial import RunSettings, Trial
from profiles import DeviceKey

IDLE_SECONDS = 15.0
"""For how long a machine without an errand keeps its processes."""
POLL_SECONDS = 1.0
"""How often an errand looks whether its tune is still there."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """The process that a tune runs in: its host, as processes there see it, its number, and when it began."""

    place: str
    pid: int
    began: float

    @classmethod
    def this(cls) -> "Owner":
        """Describe this process."""
        return cls(place=_place(), pid=os.getpid(), began=psutil.Process().create_time())

    def gone(self) -> bool:
        """Return whether the process is known to have ended; from another host nobody knows."""
        if self.place != _place():
            return False
        try:
            return abs(psutil.Process(self.pid).create_time() - self.began) > 1.0
        except psutil.NoSuchProcess:
            return True
        except psutil.Error:
            return False


def _place() -> str:
    """Name this host, and which of its containers, so that a process number means one process."""
    try:
        space = os.readlink("/proc/self/ns/pid")
    except OSError:
        space = ""
    return f"{socket.gethostname()} {space}".strip()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Errand:
    """What is to be done elsewhere: `op` over trials, questions or a tier, and what must agree there.

    `settings` are those of probes. `parcel` is the archive that holds the problem where it was shipped.
    """

    op: str
    owner: Owner
    versions: tuple[tuple[str, str], ...]
    settings: RunSettings
    search_path: tuple[str, ...] = ()
    parcel: str = ""
    device: DeviceKey | None = None
    trials: tuple[Trial, ...] = ()
    questions: tuple[ProbeRequest, ...] = ()
    tier: TierRequest | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What became of an errand: a value, or the line and the user's frames of what is wrong.

    `refused` says that this place cannot do it and another one may: its problem, versions or device are not the tune's.
    `dropped` says that it was ended from outside, so that there is no value and no error.
    """

    place: str
    value: Any = None
    message: str = ""
    frames: tuple[str, ...] = ()
    refused: bool = False
    dropped: bool = False


def compared_versions() -> tuple[tuple[str, str], ...]:
    """List the versions that tuner and worker must share: those that decide what a measurement means."""
    return tuple(sorted((name, version) for name, version in versions().items() if name != "python"))


def version_differences(theirs: Sequence[tuple[str, str]], mine: Sequence[tuple[str, str]]) -> list[str]:
    """Say by package how a tune's versions differ from those of a place that measures."""
    left, right = dict(theirs), dict(mine)
    return [
        f"{name}: the tune has {left.get(name, 'none')}, the worker {right.get(name, 'none')}"
        for name in sorted({*left, *right})
        if left.get(name) != right.get(name)
    ]


class Benches:
    """The machines of one process, one for each of its threads that runs errands."""

    def __init__(self) -> None:
        """Start nothing yet."""
        self.device: tuple[str | None, int] | None = None
        """Platform and index of this process's own device; that of the errand where None."""
        self._of_thread = threading.local()
        self._all: list[_Bench] = []

    def run(self, errand: Errand) -> Answer:
        """Run an errand on this thread's machine; never raises for what the user can correct."""
        bench = getattr(self._of_thread, "bench", None)
        if bench is None:
            bench = self._of_thread.bench = _Bench()
            self._all.append(bench)
        try:
            return Answer(place=socket.gethostname(), value=bench.run(_at_home(errand, self.device)))
        except _Dropped:
            return Answer(place=socket.gethostname(), message="the trial was ended from outside", dropped=True)
        except (_Refusal, ProblemChangedError) as error:
            return Answer(place=socket.gethostname(), message=str(error), frames=error.frames, refused=True)
        except AutotuneError as error:
            return Answer(place=socket.gethostname(), message=str(error), frames=error.frames)

    def close(self) -> None:
        """End what every thread's machine runs."""
        for bench in self._all:
            bench.close()


HERE = Benches()
"""The machines of this process, for executors that know a function by its name only."""


def run_errand(errand: Errand) -> Answer:
    """Run an errand in this process."""
    return HERE.run(errand)


class _Refusal(AutotuneError):
    """This place cannot run the errand."""


class _Dropped(Exception):
    """The errand was ended while it ran: whatever its machine answered means nothing."""


class _Bench:
    """The machine of one thread, made for the settings of the errands that come, and let go when none does."""

    def __init__(self) -> None:
        self._machine: WorkerMachine | None = None
        self._made_for: Any = None
        self._device: DeviceInfo | None = None
        self._busy = threading.Lock()
        self._idle: threading.Timer | None = None

    def run(self, errand: Errand) -> Any:
        """Run one errand."""
        if self._idle is not None:
            self._idle.cancel()
        with self._busy:
            machine = self._machine_for(errand)
            try:
                with self._ended_with(_gone(errand.owner)):
                    self._check(errand, machine)
                    return _do(errand, machine)
            finally:
                self._idle = threading.Timer(IDLE_SECONDS, self._let_go)
                self._idle.daemon = True
                self._idle.start()
                if self._machine is not machine:
                    raise _Dropped

    def close(self) -> None:
        """End what runs, and drop it."""
        if self._idle is not None:
            self._idle.cancel()
        machine, self._machine = self._machine, None
        if machine is not None:
            machine.close()

    def _machine_for(self, errand: Errand) -> WorkerMachine:
        made_for = errand.settings, errand.search_path
        if self._machine is not None and self._made_for != made_for:
            self._machine.close()
            self._machine = None
        if self._machine is None:
            self._machine = WorkerMachine(errand.settings, search_path=errand.search_path)
            self._made_for, self._device = made_for, None
        return self._machine

    def _check(self, errand: Errand, machine: WorkerMachine) -> None:
        """Refuse an errand of a tune with other versions, or about another kind of device."""
        wrong = version_differences(errand.versions, compared_versions())
        if self._device is None and not wrong:
            self._device = machine.device_info()
        if self._device is not None and errand.device is not None:
            here = self._device.key
            if here.fingerprint != errand.device.fingerprint:
                wrong.append(f"device: the tune is about {errand.device.kind}, the worker has {here.kind}")
        if wrong:
            raise _Refusal("; ".join(wrong))

    def _let_go(self) -> None:
        """End the processes of a machine that has nothing to do."""
        if self._busy.acquire(blocking=False):
            try:
                self.close()
            finally:
                self._busy.release()

    @contextlib.contextmanager
    def _ended_with(self, gone: Callable[[], bool]) -> Iterator[None]:
        """End the machine's processes as soon as nobody waits for them any more."""
        done = threading.Event()

        def watch() -> None:
            while not done.wait(POLL_SECONDS):
                if gone():
                    self.close()
                    return

        watching = threading.Thread(target=watch, daemon=True)
        watching.start()
        try:
            yield
        finally:
            done.set()
            watching.join()


def _at_home(errand: Errand, device: tuple[str | None, int] | None) -> Errand:
    """Put the paths and the device of this place into an errand."""
    if errand.parcel:
        from autotune.measuring.cluster import unpacked

        try:
            folder = unpacked(errand.parcel)
        except AutotuneError as error:
            raise _Refusal(str(error)) from error
        search_path = (str(folder),)
    else:
        folder, search_path = None, (*errand.search_path, os.getcwd())
    settings = _settings_here(errand.settings, device)
    return dataclasses.replace(
        errand,
        settings=settings,
        search_path=search_path,
        trials=tuple(
            dataclasses.replace(
                trial, problem=_found(trial.problem, folder), settings=_settings_here(trial.settings, device)
            )
            for trial in errand.trials
        ),
        questions=tuple(
            dataclasses.replace(question, problem=_found(question.problem, folder)) for question in errand.questions
        ),
    )


def _settings_here(settings: RunSettings, device: tuple[str | None, int] | None) -> RunSettings:
    return settings if device is None else dataclasses.replace(settings, platform=device[0], device=device[1])


def _found(problem: str, folder: Path | None) -> str:
    """Find the file of a problem here."""
    place, _, factory = problem.rpartition(":")
    if not place.endswith(".py"):
        return problem
    path = Path(place) if folder is None else folder / Path(place).name
    if not path.is_file():
        raise _Refusal(f"there is no {path} here; put the problem there under the same path, or add --ship")
    return f"{path}:{factory}"


def _do(errand: Errand, machine: WorkerMachine) -> Any:
    """Run the errand itself."""
    if errand.op == "run":
        return machine.run(errand.trials)
    if errand.op == "device":
        return machine.device_info()
    if errand.op == "key":
        return machine.problem_key(errand.questions[0])
    if errand.op == "observe":
        return machine.observe_all(errand.questions)
    assert errand.tier is not None
    return machine.tier(errand.tier)


def _gone(owner: Owner) -> Callable[[], bool]:
    """Make what tells whether an errand's tune is gone: its process is, or Dask gave its task up."""
    given_up: Callable[[], bool] = lambda: False
    if "distributed.worker" in sys.modules:
        from autotune.measuring.cluster import given_up_here

        given_up = given_up_here()
    return lambda: owner.gone() or given_up()
