"""A cluster of real processes on loopback: Dask's scheduler, our workers, our tuner, and arithmetic for trials.

Run as a program it is one of these processes: `python -m tests.autotune.cluster worker ADDRESS FOLDER`. Everything but
the measuring itself is what `ckpt-tune worker` and `ckpt-tune tune` run. A trial begins by leaving a mark in the
folder, and lasts as long as there is a file that holds it.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil

from autotune.measuring import cluster, cluster_machine, errands
from autotune.measuring.cluster import WorkerRequest
from autotune.measuring.cluster_machine import ClusterMachine, ClusterRequest
from autotune.measuring.runners import ProbeRequest
from autotune.measuring.trial import RunSettings, Trial
from autotune.problem.steps import Observation
from autotune.search.space import Listed
from autotune.tuning.request import TuneRequest
from autotune.tuning.tune import TuneResult, run_tune
from profiles import Measurement, open_store
from tests.autotune.fake_lab import FakeLab, Heard, lab
from tests.conftest import REPOSITORY

LONGEST_SECONDS = 60.0
COUNTS = (2, 4, 6, 8, 12, 16)
MARK = "CKPT_TUNE_TEST_CLUSTER"


class HeldLab(FakeLab):
    """A machine of arithmetic whose trials last while they are held, with a process of its own beside each.

    Its problem can only be compiled, so that each trial is a unit of its own.
    """

    folder: Path
    child: subprocess.Popen[bytes] | None = None

    def run(self, trials: Sequence[Trial]) -> list[Measurement]:
        """Answer when nothing holds the trials."""
        self.child = subprocess.Popen(["cat"], stdin=subprocess.PIPE)  # ends with this process
        try:
            for trial in trials:
                (self.folder / f"begun-{trial.checkpoints}-{os.getpid()}-{time.monotonic_ns()}").touch()
                while (self.folder / f"hold-{trial.checkpoints}").exists() and not self.closed:
                    time.sleep(0.02)
            return super().run(trials)
        finally:
            self.child.kill()
            self.child.wait()

    def _observe(self, question: ProbeRequest) -> Observation:
        return Observation(
            horizon=question.horizon, tolerance=question.tolerance, sites=(), repeats=1, differentiated=True,
            note="no data",
        )  # fmt: skip

    def close(self) -> None:
        """End the process beside the trial."""
        super().close()
        if self.child is not None:
            self.child.kill()


def held_lab(folder: Path) -> HeldLab:
    """Make the machine of a worker."""
    base = lab()
    made = HeldLab(base.steps, base.peak_bytes, base.seconds)
    made.folder = folder
    return made


def tune(address: str, folder: Path, store: str, *, horizon: float = 10, **options: Any) -> TuneResult:
    """Tune on a cluster: the whole grid of a few counts."""
    request = TuneRequest(
        problem="fake.module:make",
        budget="5MB",
        exhaustive=True,
        listed=Listed(counts=COUNTS, horizons=(horizon,)),
    )
    wanted = ClusterRequest(address=address, **{"wait_seconds": 20.0, **options})
    heard = Heard()
    heard.say = heard.note = lambda text: print(text, flush=True)
    with open_store(store) as opened:
        machine = ClusterMachine(wanted, RunSettings(), problem="fake.module:make", note=heard.note)
        machine._compared = True  # there is nothing to load
        try:
            return run_tune(request, store=opened, machine=machine, progress=heard)
        finally:
            machine.close()


class Cluster:
    """The processes of one cluster, each of which can be killed."""

    def __init__(self, folder: Path) -> None:
        """Start a scheduler."""
        self.folder = folder
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            self.port = found.getsockname()[1]
        self.address = f"tcp://127.0.0.1:{self.port}"
        self.processes: list[subprocess.Popen[str]] = []
        self.start_scheduler()

    def start(self, *command: str) -> subprocess.Popen[str]:
        """Start one process, whose output is kept in a file of its number."""
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), MARK: str(self.folder)}
        with (self.folder / f"output-{len(self.processes)}").open("w") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", *command], env=environment, stdout=output, stderr=subprocess.STDOUT, text=True
            )
        self.processes.append(process)
        return process

    def said(self, process: subprocess.Popen[str]) -> str:
        """Return what a process wrote."""
        return (self.folder / f"output-{self.processes.index(process)}").read_text()

    def start_scheduler(self) -> None:
        """Start Dask's own scheduler, and wait until it listens."""
        self.scheduler = self.start(
            "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", str(self.port), "--no-dashboard",
            "--dashboard-address", "127.0.0.1:0",
        )  # fmt: skip
        until(lambda: self.address in self.said(self.scheduler))

    def worker(self) -> subprocess.Popen[str]:
        """Start a worker, and wait until it has joined."""
        process = self.start("tests.autotune.cluster", "worker", self.address, str(self.folder))
        until(lambda: "measures on fake-cpu" in self.said(process))
        return process

    def tune(self, store: str, horizon: float = 10) -> subprocess.Popen[str]:
        """Start a tune."""
        return self.start("tests.autotune.cluster", "tune", self.address, str(self.folder), store, str(horizon))

    def hold(self, checkpoints: int) -> None:
        """Let every trial of a count last."""
        (self.folder / f"hold-{checkpoints}").touch()

    def let_go(self, checkpoints: int) -> None:
        """Let them end."""
        (self.folder / f"hold-{checkpoints}").unlink()

    def begun(self, checkpoints: int, times: int = 1) -> int:
        """Wait until a count was begun so many times; return the process number of the last worker to do so."""
        found: list[Path] = []

        def there() -> bool:
            found[:] = sorted(
                self.folder.glob(f"begun-{checkpoints}-*"), key=lambda path: int(path.name.rpartition("-")[2])
            )
            return len(found) >= times

        until(there)
        return int(found[-1].name.split("-")[2])

    def kill(self, pid: int) -> None:
        """End a process with the signal that nothing can catch."""
        os.kill(pid, signal.SIGKILL)
        for process in self.processes:
            if process.pid == pid:
                process.wait()

    def children(self) -> list[str]:
        """List what runs beside trials."""
        return [line for line in self.left() if line == "cat"]

    def left(self) -> list[str]:
        """List every process that belongs to this cluster and runs."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get(MARK) == str(self.folder) and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(" ".join(process.cmdline()))
            except psutil.Error:
                continue
        return found

    def end(self, pid: int) -> None:
        """Tell a worker to end, as a batch system does, and wait until it has."""
        (process,) = (process for process in self.processes if process.pid == pid)
        process.terminate()
        assert process.wait(20) == 0

    def close(self) -> None:
        """Ask every process to end."""
        for process in reversed(self.processes):
            process.terminate()
        for process in self.processes:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                raise


def until(there: Callable[[], bool], seconds: float = LONGEST_SECONDS) -> None:
    """Wait for something, and fail where it does not come."""
    end = time.monotonic() + seconds
    while not there():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.05)


def main(what: str, address: str, folder: str, *rest: str) -> None:
    """Be one of the processes."""
    errands.WorkerMachine = lambda settings, search_path: held_lab(Path(folder))  # pyright: ignore
    cluster.read_device = lambda platform, index: lab().device_info()
    cluster_machine.LOOK_SECONDS = 0.3
    cluster_machine.ANSWER_SECONDS = 3.0
    if what == "worker":
        errands.POLL_SECONDS = 0.2
        cluster.run_worker(WorkerRequest(address=address, wait_seconds=30.0), lambda text: print(text, flush=True))
        return
    from autotune.errors import AutotuneError

    try:
        result = tune(address, Path(folder), rest[0], horizon=float(rest[1]))
    except AutotuneError as error:
        print(f"ckpt-tune: {error}", flush=True)
        sys.exit(1)
    print(result.to_json(), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
