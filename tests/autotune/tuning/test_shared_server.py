"""One tune, four workers, a real PostgreSQL server: one worker is killed, and nothing is lost or measured twice."""

import os
import signal
import subprocess
import sys
import time
import uuid

import psutil
import pytest
import sqlalchemy

from profiles import open_store
from tests.conftest import REPOSITORY

SERVER = os.environ.get("CKPT_TUNE_TEST_POSTGRESQL")
PROBLEM = REPOSITORY / "tests" / "assets" / "problems" / "decay.py"
LONGEST_SECONDS = 300


def worker_of(tune: psutil.Process) -> psutil.Process:
    """Find a helper that the tuner started, once there is one."""
    until = time.monotonic() + LONGEST_SECONDS
    while time.monotonic() < until:
        for child in tune.children():
            if "worker" in child.cmdline():
                return child
        time.sleep(0.2)
    raise AssertionError("the tuner started no worker")


@pytest.mark.skipif(SERVER is None, reason="CKPT_TUNE_TEST_POSTGRESQL names no PostgreSQL server")
def test_a_killed_worker_of_four_loses_nothing() -> None:
    """The tune ends well; every horizon is there, and no trial of a batch has two rows."""
    assert SERVER is not None
    database = f"shared_{uuid.uuid4().hex[:12]}"
    engine = sqlalchemy.create_engine(SERVER, isolation_level="AUTOCOMMIT")
    store = sqlalchemy.make_url(SERVER).set(database=database).render_as_string(hide_password=False)
    with engine.connect() as connection:
        connection.execute(sqlalchemy.text(f"CREATE DATABASE {database}"))
    try:
        command = [
            sys.executable,
            "-m",
            "autotune.cli",
            "tune",
            f"{PROBLEM}:make",
            "--budget",
            "1MiB",
            "--workers",
            "4",
        ]
        command += ["--horizon", "5,10", "--checkpoints", "2,4,6,8,12,16", "--exhaustive", "--store", store, "--quiet"]
        with subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True) as tune:
            victim = worker_of(psutil.Process(tune.pid))
            time.sleep(8)  # within the batches, as far as can be told
            victim.send_signal(signal.SIGKILL)
            _, said = tune.communicate(timeout=LONGEST_SECONDS)
        assert tune.returncode == 0, said
        with open_store(store, read_only=True) as opened:
            rows = list(opened.measurements())
        assert {row.horizon for row in rows} == {5, 10}
        places = [(row.study, row.horizon, row.checkpoints, row.repeat) for row in rows]
        assert len(set(places)) == len(places)
        found = {(row.horizon, row.checkpoints) for row in rows if row.run_seconds}
        assert found == {(horizon, count) for horizon in (5, 10) for count in (2, 4, 6, 8, 12, 16)}
    finally:
        with engine.connect() as connection:
            connection.execute(sqlalchemy.text(f"DROP DATABASE {database} WITH (FORCE)"))
        engine.dispose()
