"""Tunes of a real problem that are killed at random moments: nothing that was finished is lost or measured again."""

import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import psutil
import pytest

from profiles import Measurement, open_store
from tests.conftest import REPOSITORY

PROBLEM = REPOSITORY / "tests" / "assets" / "problems" / "decay.py"
KILLS = 50
LONGEST_SECONDS = 12.0


def start(store: pathlib.Path) -> subprocess.Popen[str]:
    """Start, or go on with, a tune of three horizons."""
    command = [sys.executable, "-m", "autotune.cli", "tune", f"{PROBLEM}:make", "--budget", "1MiB"]
    command += ["--horizon", "5,10,20", "--store", str(store), "--quiet"]
    return subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, cwd=REPOSITORY)


def stored(store: pathlib.Path) -> dict[str, Measurement]:
    """Read every row of a store by its key; none where there is no store yet."""
    if not store.exists():
        return {}
    with open_store(str(store), read_only=True) as opened:
        return {row.key: row for row in opened.measurements()}


def strike(tune: subprocess.Popen[str], victims: str) -> None:
    """Kill the tuner, its workers, or both, with a signal that nothing can catch."""
    workers = psutil.Process(tune.pid).children(recursive=True)
    if victims != "workers":
        tune.kill()
    if victims != "tuner":
        for worker in workers:
            if worker.is_running():
                os.kill(worker.pid, signal.SIGKILL)


@pytest.mark.slow
def test_fifty_kills_lose_nothing_and_measure_nothing_twice(tmp_path: pathlib.Path) -> None:
    """What is in the store after a kill stays as it is, whoever was killed, and the tune comes to its end."""
    chance = random.Random(0)
    kills, ended = 0, 0
    while kills < KILLS or not ended:
        store = tmp_path / f"{ended}.db"
        before: dict[str, Measurement] = {}
        while True:
            with start(store) as tune:
                try:
                    tune.wait(timeout=chance.uniform(0.5, LONGEST_SECONDS) if kills < KILLS else 300)
                except subprocess.TimeoutExpired:
                    victims = chance.choice(("tuner", "workers", "both"))
                    strike(tune, victims)
                    kills += 1
                    if victims == "workers":  # the tuner goes on with others, until it is killed itself or done
                        time.sleep(chance.uniform(0.5, 3.0))
                        tune.kill()
                    tune.wait()
                assert tune.stderr is not None
                said = tune.stderr.read()
            after = stored(store)
            lost = [key for key, row in before.items() if after.get(key) != row]
            assert not lost, f"{len(lost)} rows were lost or measured again after {kills} kills"
            before = after
            if tune.returncode == 0:
                break
            # Before the first trial a killed worker ends the tune, in one line; a trial of a killed one is made again.
            assert tune.returncode < 0 or (tune.returncode == 1 and "was killed (signal 9)" in said), said
        assert {row.horizon for row in before.values()} == {5, 10, 20}
        ended += 1
