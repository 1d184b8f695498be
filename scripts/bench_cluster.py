"""Four workers of a Dask cluster on loopback against one, and against two deaths and a scheduler that is started anew.

Sixty trials of a problem whose arguments are shapes, so that each trial is a compile and trials overlap on a CPU.
Three sweeps, each into a store of its own and with an empty cache of compiled programs: one worker; four workers; four
workers of which two are killed in mid-trial (SIGKILL), far enough apart that the second death meets another trial, and
whose scheduler is killed once and started again, after which the same command is called again. The rows of the three
must be the same: count, status, planned bytes. At the end nothing that was started may run.

    python scripts/bench_cluster.py --out results [--trials 60] [--port 8797]
"""

import argparse
import csv
import importlib.metadata
import os
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import psutil

from profiles import Measurement, open_store

MARK = "CKPT_TUNE_BENCH_CLUSTER"
LONGEST_SECONDS = 1800.0
PROBLEM = """
import jax
import jax.numpy as jnp
from adjoint import checkpointed_while_loop

DEPTH = 4


def make(*, adjoint, horizon=4000):
    def step(carry, weights):
        count, state = carry
        for layer in range(DEPTH):
            state = state + 0.01 * jnp.tanh(weights[layer] @ jnp.sin(state) + jax.nn.softmax(state) * count)
        return count + 1, state

    def loss(weights):
        start = (0, jnp.ones(16))
        end = checkpointed_while_loop(
            lambda c: c[0] < horizon, lambda c: step(c, weights), start, max_steps=horizon,
            checkpoints=adjoint.checkpoints,
        )
        return jnp.sum(end[1] ** 2)

    return jax.value_and_grad(loss), (jax.ShapeDtypeStruct((DEPTH, 16, 16), jnp.float32),)
"""


class Cluster:
    """A scheduler on loopback and its workers; every process bears the mark of its sweep."""

    def __init__(self, folder: Path, port: int) -> None:
        """Start the scheduler."""
        self.folder, self.port = folder, port
        self.address = f"tcp://127.0.0.1:{port}"
        self.mark = uuid.uuid4().hex
        self.environment = {**os.environ, MARK: self.mark, "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled")}
        self.started: list[subprocess.Popen[bytes]] = []
        self.scheduler = self.start_scheduler()

    def start(self, *command: str) -> subprocess.Popen[bytes]:
        """Start one process."""
        with (self.folder / f"output-{len(self.started)}").open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", *command], env=self.environment, stdout=output, stderr=subprocess.STDOUT
            )
        self.started.append(process)
        return process

    def said(self, process: subprocess.Popen[bytes]) -> str:
        """Return what a process wrote."""
        return (self.folder / f"output-{self.started.index(process)}").read_text()

    def start_scheduler(self) -> subprocess.Popen[bytes]:
        """Start Dask's scheduler, and wait until it listens."""
        found = self.start(
            "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", str(self.port), "--no-dashboard",
            "--dashboard-address", "127.0.0.1:0",
        )  # fmt: skip
        until(lambda: self.address in self.said(found))
        return found

    def workers(self, count: int) -> list[subprocess.Popen[bytes]]:
        """Start workers, and wait until all have joined."""
        found = [self.start("autotune.cli", "worker", self.address) for _ in range(count)]
        until(lambda: all("measures on" in self.said(worker) for worker in found))
        return found

    def tune(self, trials: int) -> subprocess.Popen[bytes]:
        """Start the sweep, or go on with it."""
        counts = ",".join(str(count) for count in range(1, trials + 1))
        return self.start(
            "autotune.cli", "tune", f"{self.folder / 'problem.py'}:make", "--cluster", self.address, "--exhaustive",
            "--checkpoints", counts, "--store", str(self.folder / "store.db"),
        )  # fmt: skip

    def rows(self) -> list[Measurement]:
        """Read the rows of the sweep, its final run left out."""
        if not (self.folder / "store.db").exists():
            return []
        with open_store(str(self.folder / "store.db"), read_only=True) as store:
            return [row for row in store.measurements() if not row.study.endswith("/verified")]

    def left(self) -> list[str]:
        """List what runs of all that was started, and of what that started."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get(MARK) == self.mark and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(" ".join(process.cmdline()))
            except psutil.Error:
                continue
        return found

    def close(self) -> None:
        """Tell every process to end, and wait for it."""
        for process in reversed(self.started):
            process.terminate()
        for process in self.started:
            process.wait(60)


def until(there: Callable[[], bool], seconds: float = LONGEST_SECONDS) -> None:
    """Wait for something."""
    end = time.monotonic() + seconds
    while not there():
        if time.monotonic() > end:
            raise TimeoutError("a process did not come to where it should be")
        time.sleep(0.05)


def stored(cluster: Cluster, count: int, tune: subprocess.Popen[bytes]) -> None:
    """Wait until so many rows are stored."""

    def there() -> bool:
        if tune.poll() is not None:
            raise RuntimeError(f"the tune ended before {count} rows were stored:\n{cluster.said(tune)}")
        try:
            return len(cluster.rows()) >= count
        except Exception:  # the store is being made
            return False

    until(there)


def with_faults(cluster: Cluster, workers: list[subprocess.Popen[bytes]], trials: int) -> None:
    """Sweep, and kill two workers and the scheduler on the way."""
    tune = cluster.tune(trials)
    for share, victim in ((0.15, workers[0]), (0.35, workers[1]), (0.6, cluster.scheduler)):
        stored(cluster, round(share * trials), tune)
        victim.send_signal(signal.SIGKILL)
        victim.wait()
    if tune.wait(LONGEST_SECONDS) != 1 or "the same command goes on" not in cluster.said(tune).splitlines()[-1]:
        raise RuntimeError(f"the tune did not end in one line:\n{cluster.said(tune)}")
    cluster.scheduler = cluster.start_scheduler()
    finish(cluster, cluster.tune(trials))


def finish(cluster: Cluster, tune: subprocess.Popen[bytes]) -> None:
    """Wait for the end of a tune that should end well."""
    if tune.wait(LONGEST_SECONDS) != 0:
        raise RuntimeError(f"the tune failed:\n{cluster.said(tune)}")


def sweep(name: str, count: int, trials: int, port: int) -> tuple[dict[str, object], list[Measurement]]:
    """Run one sweep, and return its line of the table and its rows."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        (folder / "problem.py").write_text(PROBLEM)
        cluster = Cluster(folder, port)
        try:
            workers = cluster.workers(count)
            began = time.monotonic()
            if name == "faults":
                with_faults(cluster, workers, trials)
            else:
                finish(cluster, cluster.tune(trials))
            seconds = time.monotonic() - began
            rows = cluster.rows()
        finally:
            cluster.close()
        time.sleep(2.0)  # processes of killed workers look for their parents every half second
        line = {
            "sweep": name,
            "workers": count,
            "rows": len(rows),
            "doubled": len(rows) - len({row.checkpoints for row in rows}),
            "failed": sum(row.status != "ok" for row in rows),
            "seconds": round(seconds, 1),
            "left_running": len(cluster.left()),
        }
        return line, rows


def main() -> None:
    """Measure, compare, write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--port", type=int, default=8797)
    options = parser.parse_args()
    lines, known = [], None
    for name, count in (("one", 1), ("four", 4), ("faults", 4)):
        line, rows = sweep(name, count, options.trials, options.port)
        found = sorted((row.checkpoints, str(row.status), row.compiled_bytes) for row in rows)
        known = known or found
        newest = rows[-1]
        line |= {
            "same_rows": found == known,
            "device": newest.device.kind,
            "cores": os.cpu_count(),
            "seed": 0,
            **{package: newest.versions.get(package) for package in ("jax", "jaxlib", "ckpt-tune", "python")},
            "distributed": importlib.metadata.version("distributed"),
        }
        lines.append(line)
        print(line, flush=True)
    options.out.mkdir(parents=True, exist_ok=True)
    with (options.out / "cluster.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(lines[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)


if __name__ == "__main__":
    main()
