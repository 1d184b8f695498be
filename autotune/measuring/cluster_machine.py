"""A machine whose work is done by the workers of a Dask scheduler, whichever of them come and go. No jax.

Dask decides which worker takes what; the tuner says what a worker must have (`resources_of`). What it adds is told by
three facts that are looked at every second: which workers there are, where each unit was begun, and what became of it.

- A worker that dies with a unit has it measured once more elsewhere; the second death is the unit's, and becomes its
  rows. A worker that leaves in good order, or was told to, does not count.
- A worker that refuses (another problem, other versions, another device) is named and gets nothing more.
- A scheduler that is gone ends the tune, as do workers that stay away for too long.
"""

import collections
import concurrent.futures
import contextlib
import dataclasses
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from autotune.errors import AutotuneError, NobodyMeasuresError, one_line
from autotune.machine.device import DeviceInfo
from autotune.measuring.cluster import Certificates, check_peers, connect, packed, run_on_worker
from autotune.measuring.errands import Answer, Errand, compared_versions, version_differences
from autotune.measuring.executor import GOES_ON, TICK_SECONDS, ExecutorMachine
from autotune.measuring.rows import blank_row
from autotune.measuring.runners import ProbeRequest, SubprocessRunner
from autotune.measuring.trial import RunSettings, Trial
from autotune.problem.differences import component_differences
from profiles import ProblemKey, Status

DEATHS = 2
"""With so many workers that died over it a unit is given up."""
POLL_SECONDS = 0.1
FETCH_SECONDS = 5.0
LEAVE_SECONDS = 3.0
LOOK_SECONDS = 1.0
"""How often workers are counted."""
ANSWER_SECONDS = 20.0
"""How long a scheduler may take to answer before it is taken for gone: it may be stopped, or its host."""
_JAX_PLATFORMS = {"cuda": "gpu", "rocm": "gpu"}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ClusterRequest:
    """Which scheduler measures, for how long a tune waits without any worker, and whether the problem is shipped.

    `kind` is the kind of device to measure on, where the cluster has several.
    """

    address: str
    certificates: Certificates = dataclasses.field(default_factory=Certificates)
    wait_seconds: float = 300.0
    ship: bool = False
    kind: str = ""


@dataclasses.dataclass(slots=True, kw_only=True)
class _Unit:
    """An errand on its way: Dask's task for it, and the workers that began it and were not heard to end it."""

    errand: Errand
    name: str = ""
    task: Any = None
    begun: list[str] = dataclasses.field(default_factory=list)


class ClusterMachine(ExecutorMachine):
    """The workers of one scheduler that have the same device and the versions of this process."""

    def __init__(
        self,
        cluster: ClusterRequest,
        settings: RunSettings,
        *,
        problem: str,
        search_path: Sequence[str] = (),
        note: Callable[[str], None] = lambda text: None,
    ) -> None:
        """Speak to the scheduler; nothing is measured yet.

        Args:
            cluster: the scheduler.
            settings: for probes; platform and device of workers are their own.
            problem: what is tuned, as any process finds it.
            search_path: folders that the problem's modules are searched in.
            note: called with one line about a worker that cannot be used.

        Raises:
            AutotuneError: Dask is not installed, the cluster is open to the network, or the problem cannot be shipped.
            NobodyMeasuresError: no scheduler answers.
        """
        self._platform = settings.platform
        at_workers = dataclasses.replace(settings, platform=None, device=0)
        super().__init__(None, at_workers, search_path=search_path)
        self._problem = problem
        self._mine = settings, tuple(search_path)
        self._cluster = cluster
        self._note = note
        self._units: dict[Future[Answer], _Unit] = {}
        self._refused: dict[str, str] = {}
        self._gone: dict[str, bool] = {}
        self._there: Mapping[str, Any] = {}
        self._kind = ""
        self._looked = 0.0
        self._alone_since: float | None = None
        self._compared = False
        self._topic = f"ckpt-tune-{uuid.uuid4().hex}"
        self._client = connect(cluster.address, cluster.certificates)
        try:
            self._client.subscribe_topic(self._topic, self._begun)
            if cluster.ship:
                self._ship()
        except BaseException:
            self.close()
            raise

    @property
    def size(self) -> int:
        """How many workers can measure now, at least one."""
        self._look()
        return max(1, len(self._usable()))

    def device_info(self) -> DeviceInfo:
        """Read the device of a worker, which decides on which kind of device the tune measures.

        Raises:
            AutotuneError: the cluster has several kinds, and none was named.
        """
        self._kind = self._cluster.kind
        while not self._usable():
            self._look(now=True)
            time.sleep(POLL_SECONDS)
        kinds = collections.Counter(_kind_of(self._there[address]["resources"]) for address in self._usable())
        if len(kinds) > 1:
            found = ", ".join(f"{kind} ({count})" for kind, count in sorted(kinds.items()))
            raise AutotuneError(
                f"the workers of {self._cluster.address} have several kinds of devices: {found}; "
                "name one with --cluster-kind, since their measurements are not to be mixed"
            )
        self._kind = next(iter(kinds))
        return super().device_info()

    def problem_key(self, question: ProbeRequest) -> ProblemKey:
        """Fingerprint a problem on a worker, and compare it with what this process finds under its name."""
        found = super().problem_key(question)
        if not self._compared:
            self._compared = True
            self._compare(question, found)
        return found

    def submit(self, trials: Sequence[Trial]) -> Future[Answer]:
        """Have a unit measured, each worker on the device that is its own."""
        own = [
            dataclasses.replace(trial, settings=dataclasses.replace(trial.settings, platform=None, device=0))
            for trial in trials
        ]
        return super().submit(own)

    def wait(self, futures: Collection[Future[Answer]]) -> list[Future[Answer]]:
        """Wait until a unit is done, or for a moment: then there may be workers for more of them."""
        until = time.monotonic() + TICK_SECONDS
        while True:
            self._look()
            for future in list(self._units):
                self._follow(future)
            done = [future for future in futures if future.done()]
            if done or time.monotonic() > until:
                return done
            time.sleep(POLL_SECONDS)

    def close(self) -> None:
        """Give up what is under way, and leave the cluster."""
        self._units.clear()

        def leave() -> None:
            with contextlib.suppress(Exception):  # a cluster that is gone has nothing to be told
                if self._common.parcel:
                    self._client.unregister_worker_plugin(self._topic)
            with contextlib.suppress(Exception):
                self._client.close(timeout=LEAVE_SECONDS)  # which gives up its tasks

        leaving = threading.Thread(target=leave, daemon=True)
        leaving.start()
        leaving.join(2 * LEAVE_SECONDS)

    # --- units --------------------------------------------------------------------------------------------------------

    def _send(self, errand: Errand) -> Future[Answer]:
        future: Future[Answer] = Future()
        self._units[future] = unit = _Unit(errand=errand)
        self._submit(unit)
        return future

    def _submit(self, unit: _Unit) -> None:
        """Hand a unit to Dask, for the first time or again."""
        unit.name = f"ckpt-tune-{uuid.uuid4().hex}"
        only = {"workers": self._usable(), "allow_other_workers": False} if self._refused and self._usable() else {}
        unit.task = self._client.submit(
            run_on_worker, unit.errand, self._topic, unit.name,
            key=unit.name, pure=False, resources=self._needs(), **only,
        )  # fmt: skip

    def _begun(self, event: tuple[float, Mapping[str, Any]]) -> None:
        """Hear from a worker that it begins a unit, or is through with it; called in Dask's thread."""
        _, said = event
        for unit in list(self._units.values()):
            if unit.name != said["unit"]:
                continue
            if not said["over"]:
                unit.begun.append(said["worker"])
            elif said["worker"] in unit.begun:
                unit.begun.remove(said["worker"])  # should it die now, then not over this unit

    def _follow(self, future: Future[Answer]) -> None:
        """Take what became of a unit.

        A worker that goes may take an answer with it that was not fetched yet. Then Dask has the unit done again.
        """
        unit = self._units[future]
        status = unit.task.status
        if status == "finished":
            with contextlib.suppress(TimeoutError, concurrent.futures.CancelledError):
                self._answered(future, unit, *unit.task.result(timeout=FETCH_SECONDS))
        elif status == "error":
            from distributed import KilledWorker

            error = unit.task.exception()
            if not isinstance(error, KilledWorker):
                del self._units[future]
                future.set_exception(error)
            elif not self._given_up(future, unit):
                self._submit(unit)
        elif status == "cancelled":
            raise self._scheduler_gone()
        else:
            self._given_up(future, unit)

    def _answered(self, future: Future[Answer], unit: _Unit, worker: str, answer: Answer) -> None:
        if answer.refused:
            self._refused[worker] = answer.message
            self._note(f"the worker {worker} on {answer.place} is left out: {answer.message}")
            if not self._usable():
                raise NobodyMeasuresError(f"no worker of {self._cluster.address} can measure this: {self._why_none()}")
        if answer.refused or answer.dropped:
            self._submit(unit)
            return
        del self._units[future]
        future.set_result(answer)

    def _given_up(self, future: Future[Answer], unit: _Unit) -> bool:
        """Give up a unit over which too many workers died."""
        dead = [worker for worker in unit.begun if self._died(worker)]
        if len(dead) < DEATHS:
            return False
        del self._units[future]
        with contextlib.suppress(Exception):
            unit.task.cancel()
        message = f"{len(dead)} workers died while they measured it: {', '.join(dead)}"
        rows = [
            dataclasses.replace(blank_row(trial), status=Status.FAILED, message=message, host=_host(dead[-1]))
            for trial in unit.errand.trials
        ]
        if rows:
            future.set_result(Answer(place=dead[-1], value=rows))
        else:
            future.set_result(Answer(place=dead[-1], message=message))
        return True

    def _died(self, worker: str) -> bool:
        """Return whether a worker is gone that had not said so; Dask keeps what it said under its own name."""
        if worker in self._there:
            return False
        if worker not in self._gone:
            self._look(now=True)  # it may have come a moment ago
            if worker in self._there:
                return False
            events: Any = self._client.get_events(worker)
            self._gone[worker] = not any("closing-worker" in str(said) for _, said in events)
        return self._gone[worker]

    # --- workers ------------------------------------------------------------------------------------------------------

    def _look(self, *, now: bool = False) -> None:
        """Look which workers there are, at most once in a while.

        Raises:
            NobodyMeasuresError: the scheduler is gone, or no worker has been there for too long.
        """
        moment = time.monotonic()
        if self._client.status != "running":
            raise self._scheduler_gone()
        if not now and moment - self._looked < LOOK_SECONDS:
            return
        self._looked = moment
        try:
            found: Any = self._client.sync(
                self._client.scheduler.identity, n_workers=-1, callback_timeout=ANSWER_SECONDS
            )
            self._there = dict(found["workers"])
        except (OSError, RuntimeError, concurrent.futures.CancelledError) as error:
            raise self._scheduler_gone() from error
        check_peers(self._there)
        if self._usable():
            self._alone_since = None
            return
        if self._alone_since is None:
            self._alone_since = moment
            self._note(f"waiting for workers of {self._cluster.address}: {self._why_none()}")
        if moment - self._alone_since > self._cluster.wait_seconds:
            raise NobodyMeasuresError(
                f"no worker of {self._cluster.address} could measure for {self._cluster.wait_seconds:g} s: "
                f"{self._why_none()}; {GOES_ON}"
            )

    def _needs(self) -> dict[str, float]:
        """List what a worker must have."""
        found = {"device": 1.0, **{f"{name}={version}": 1.0 for name, version in compared_versions()}}
        if self._platform is not None:
            found[f"platform={_JAX_PLATFORMS.get(self._platform, self._platform)}"] = 1.0
        return found | ({f"kind={self._kind}": 1.0} if self._kind else {})

    def _usable(self) -> list[str]:
        """List the workers that have what is needed and refused nothing."""
        needs = self._needs()
        return [
            address
            for address, worker in self._there.items()
            if address not in self._refused and needs.keys() <= worker["resources"].keys()
        ]

    def _why_none(self) -> str:
        """Say of each worker why it is of no use."""
        said = [f"{address}: {self._why_not(address, worker)}" for address, worker in self._there.items()]
        return "; ".join(said) or "there is none; start one with ckpt-tune worker"

    def _why_not(self, address: str, worker: Mapping[str, Any]) -> str:
        if address in self._refused:
            return self._refused[address]
        has = worker["resources"]
        if "device" not in has:
            return "it is not one of ours; start it with ckpt-tune worker, or --preload autotune.measuring.cluster"
        theirs = [tuple(name.split("=", 1)) for name in has if name.split("=", 1)[0] in dict(compared_versions())]
        wrong = version_differences(compared_versions(), theirs)
        if not wrong:
            wrong = [f"it lacks {name}" for name in self._needs() if name not in has]
        return "; ".join(wrong)

    def _scheduler_gone(self) -> NobodyMeasuresError:
        return NobodyMeasuresError(f"the scheduler {self._cluster.address} is gone; {GOES_ON}")

    # --- the problem --------------------------------------------------------------------------------------------------

    def _compare(self, question: ProbeRequest, theirs: ProblemKey) -> None:
        """Refuse a worker's problem that is not the one of this host, as far as it can be loaded here.

        What a program looks like may depend on the platform, so it is compared among CPUs alone.
        """
        settings, search_path = self._mine
        here = dataclasses.replace(settings, platform="cpu", device=0)
        try:
            with SubprocessRunner(here, search_path=search_path) as runner:
                mine = runner.problem_key(dataclasses.replace(question, problem=self._problem))
        except AutotuneError as error:
            self._note(f"{self._problem} cannot be loaded here ({one_line(error)}), so workers are compared alone")
            return
        assert self._device is not None
        left_out = set() if self._device.platform == "cpu" else {"program", "shapes"}
        left, right = (
            ProblemKey(name=key.name, components={k: v for k, v in key.components.items() if k not in left_out})
            for key in (mine, theirs)
        )
        if wrong := component_differences(left, right):
            raise AutotuneError(
                f"the workers have another {mine.name} than this host (stored is ours, here is theirs): "
                f"{'; '.join(wrong)}; bring it to them, or add --ship"
            )

    def _ship(self) -> None:
        """Send the problem to every worker that there is or will be."""
        from distributed.diagnostics.plugin import UploadFile

        with tempfile.TemporaryDirectory() as folder:
            archive = packed(self._problem, self._mine[1], Path(folder))
            self._client.register_plugin(UploadFile(str(archive), load=False), name=self._topic)
        self._common = dataclasses.replace(self._common, parcel=archive.name)


def _kind_of(resources: Mapping[str, float]) -> str:
    return next((name.removeprefix("kind=") for name in resources if name.startswith("kind=")), "unknown")


def _host(address: str) -> str:
    return address.partition("://")[2].rpartition(":")[0]
