"""Two tunes of one problem, two machines each, on a real PostgreSQL server: one is killed, and nothing is lost."""

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator

import pytest
import sqlalchemy

from profiles import Measurement, StoreError, open_store
from tests.conftest import REPOSITORY

SERVER = os.environ.get("CKPT_TUNE_TEST_POSTGRESQL")
PROBLEM = REPOSITORY / "tests" / "assets" / "problems" / "decay.py"
COUNTS = (2, 4, 6, 8, 12, 16)
LONGEST_SECONDS = 300


@pytest.fixture
def store() -> Iterator[str]:
    """A database of this test's own, without tables."""
    assert SERVER is not None
    database = f"shared_{uuid.uuid4().hex[:12]}"
    engine = sqlalchemy.create_engine(SERVER, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(sqlalchemy.text(f"CREATE DATABASE {database}"))
    yield sqlalchemy.make_url(SERVER).set(database=database).render_as_string(hide_password=False)
    with engine.connect() as connection:
        connection.execute(sqlalchemy.text(f"DROP DATABASE {database} WITH (FORCE)"))
    engine.dispose()


def start(store: str) -> subprocess.Popen[str]:
    """Start a tune of two horizons."""
    command = [sys.executable, "-m", "autotune.cli", "tune", f"{PROBLEM}:make", "--budget", "1MiB", "--workers", "2"]
    command += ["--horizon", "5,10", "--checkpoints", ",".join(map(str, COUNTS)), "--exhaustive", "--store", store]
    return subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def stored(store: str) -> list[Measurement]:
    """Read every row; none where there is no table yet."""
    try:
        with open_store(store, read_only=True) as opened:
            return opened.measurements()
    except StoreError:
        return []


def until(there: Callable[[], bool]) -> None:
    """Wait for something."""
    end = time.monotonic() + LONGEST_SECONDS
    while not there():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.2)


@pytest.mark.slow
@pytest.mark.skipif(SERVER is None, reason="CKPT_TUNE_TEST_POSTGRESQL names no PostgreSQL server")
def test_the_second_of_two_tunes_goes_on_when_the_first_is_killed(store: str) -> None:
    """It waits in a line that says for whom; then it measures what is missing, and nothing that is there."""
    with start(store) as first:
        until(lambda: bool(stored(store)))
        with start(store) as second:
            assert second.stderr is not None
            while "waiting for its rows" not in (said := second.stderr.readline()):
                assert said, "the second tune ended before it waited"
            assert f"process {first.pid} on" in said
            before = {row.key: row for row in stored(store)}
            first.send_signal(signal.SIGKILL)
            _, said = second.communicate(timeout=LONGEST_SECONDS)
            assert second.returncode == 0, said
        first.wait()
        assert first.stderr is not None
        first.stderr.read()
    rows = {row.key: row for row in stored(store)}
    assert all(rows[key] == row for key, row in before.items())
    timed = [(row.horizon, row.checkpoints, row.repeat) for row in rows.values() if row.run_seconds]
    assert {place[:2] for place in timed} == {(horizon, count) for horizon in (5, 10) for count in COUNTS}
