"""A store that goes away, fills up, is shared or may only be read while a tune runs: no row is lost or doubled."""

import os
import pathlib
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from autotune.search.space import Listed
from autotune.tuning import lease
from autotune.tuning.request import TuneRequest
from autotune.tuning.tune import run_tune
from profiles import Measurement, ProfileStore, Spool, StoreAwayError, StoreError, open_store, parse_url
from profiles.store import patience
from tests.autotune.fake_lab import Heard, lab
from tests.conftest import REPOSITORY
from tests.faults.injection import Line, own, start_tune

SERVER = os.environ.get("CKPT_TUNE_TEST_POSTGRESQL", "")
needs_server = pytest.mark.skipif(not SERVER, reason="CKPT_TUNE_TEST_POSTGRESQL names no PostgreSQL server")
COUNTS = (2, 4, 6, 9, 14)
REQUEST = TuneRequest(
    problem="fake.module:make", budget="5MB", exhaustive=True, listed=Listed(counts=COUNTS, horizons=(5, 10))
)


@pytest.fixture(autouse=True)
def own_data(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep spools and locks in a folder of the test."""
    for name, value in own(tmp_path, {}).items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def database() -> Iterator[sa.URL]:
    """A database of this test's own."""
    name = f"faults_{uuid.uuid4().hex[:12]}"
    engine = sa.create_engine(parse_url(SERVER), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    yield parse_url(SERVER).set(database=name)
    with engine.connect() as connection:
        connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")
    engine.dispose()


@pytest.fixture
def line(database: sa.URL) -> Iterator[Line]:
    """A line to the server that a test may cut."""
    made = Line(str(database.host), int(database.port or 5432))
    yield made
    made.close()


@pytest.fixture
def url(database: sa.URL, line: Line) -> str:
    """The database behind the line."""
    return database.set(host="127.0.0.1", port=line.port).render_as_string(hide_password=False)


class Strikes(Heard):
    """A listener that does something to the store when so many rows are finished."""

    def __init__(self, after: int, strike) -> None:
        """Wait for rows."""
        super().__init__()
        self._after = after
        self._strike = strike

    def started(self, trials) -> None:
        """Strike once enough trials began."""
        super().started(trials)
        if len(self.batches) == self._after:
            self._strike()


def keys(store: ProfileStore) -> list[str]:
    """List the keys of all rows."""
    return sorted(row.key for row in store.measurements())


def test_a_row_that_a_file_refuses_waits_and_arrives(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tune goes on from the spool, and the rows are in the store when it takes them again."""
    with open_store(str(tmp_path / "a.db")) as store:
        refused: list[int] = []
        put = store.put

        def full(row: Measurement) -> None:
            refused.append(1)
            if len(refused) < 4:
                raise StoreError("the disk is full")
            put(row)

        monkeypatch.setattr(store, "put", full)
        machine, heard = lab(), Heard()
        result = run_tune(REQUEST, store=store, machine=machine, progress=heard)
        assert result.everything_fits
        assert len(store.measurements()) == len(machine.asked)
        assert any("the disk is full; the row waits in" in text for text in heard.lines)
        assert not Spool(str(tmp_path / "a.db")).path.exists()


@needs_server
def test_a_server_that_restarts_in_mid_tune_is_waited_for(url: str, line: Line) -> None:
    """Connections are cut and refused for a second: every row is stored once, and nothing is measured twice."""

    def strike() -> None:
        line.cut()
        threading.Timer(1.0, line.mend).start()

    machine = lab()
    with open_store(url) as store:
        result = run_tune(REQUEST, store=store, machine=machine, progress=Strikes(2, strike))
        assert result.everything_fits
        assert len(store.measurements()) == len(machine.asked)


@needs_server
@pytest.mark.parametrize("how", ["cut", "hold"])
def test_a_server_that_stays_away_ends_the_tune_in_one_line(
    url: str, line: Line, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was measured waits here, and the same command stores it and measures only what is missing."""
    monkeypatch.setenv(patience.PATIENCE_VARIABLE, "0.5")
    monkeypatch.setattr(patience, "ANSWER_SECONDS", 0.5)
    monkeypatch.setattr(lease, "GRACE_SECONDS", 1.0)  # the first tune could not give its leases back
    machine = lab()
    store = open_store(f"{url}?connect_timeout=2")
    heard = Strikes(2, getattr(line, how))
    with pytest.raises(StoreAwayError) as caught:
        run_tune(REQUEST, store=store, machine=machine, progress=heard)
    assert "\n" not in str(caught.value)
    line.mend()
    asked = len(machine.asked)
    waiting = Spool(store.url).rows()
    stored = store.measurements()
    assert {row.key for row in waiting} | {row.key for row in stored} >= {row.key for row in heard.rows}
    again = lab()
    result = run_tune(REQUEST, store=store, machine=again, progress=Heard())
    assert result.everything_fits
    assert len(store.measurements()) == len(set(keys(store)))
    # What was under way when the line was cut and could not be handed out is all that may be missing.
    assert len(store.measurements()) >= asked
    assert not {(t.horizon, t.checkpoints, t.study) for t in again.asked} & {
        (row.horizon, row.checkpoints, row.study) for row in (*waiting, *stored)
    }
    assert not Spool(store.url).path.exists()


@needs_server
def test_a_role_that_may_only_read_is_refused_before_anything_is_measured(database: sa.URL) -> None:
    """One line names the permission; the machine was asked for nothing."""
    open_store(database.render_as_string(hide_password=False)).close()
    role = f"reader_{uuid.uuid4().hex[:8]}"
    engine = sa.create_engine(database, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(f"CREATE ROLE {role} LOGIN")
        connection.exec_driver_sql(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}")
    machine = lab()
    try:
        with open_store(database.set(username=role).render_as_string(hide_password=False)) as store:
            assert store.measurements() == []
            with pytest.raises(StoreError, match="this role may not write there") as caught:
                run_tune(REQUEST, store=store, machine=machine, progress=Heard())
    finally:
        with engine.connect() as connection:
            connection.exec_driver_sql(f"DROP OWNED BY {role}")
            connection.exec_driver_sql(f"DROP ROLE {role}")
        engine.dispose()
    assert "\n" not in str(caught.value)
    assert machine.asked == []
    assert machine.observed == 0


def test_a_file_that_may_only_be_read_is_refused_before_anything_is_measured(tmp_path: pathlib.Path) -> None:
    """As a role of a server is."""
    open_store(str(tmp_path / "a.db")).close()
    machine = lab()
    with open_store(str(tmp_path / "a.db"), read_only=True) as store, pytest.raises(StoreError, match="read only"):
        run_tune(REQUEST, store=store, machine=machine, progress=Heard())
    assert machine.asked == []


@pytest.mark.parametrize("kilobytes", [100, 180])
def test_a_disk_that_fills_up_in_mid_tune_loses_nothing(tmp_path: pathlib.Path, kilobytes: int) -> None:
    """Under `ulimit -f` the tune ends in a line or comes to its end; afterwards the same command goes on."""
    store = tmp_path / "a.db"
    open_store(str(store)).close()
    code = "import resource, signal, sys\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
    code += f"resource.setrlimit(resource.RLIMIT_FSIZE, ({kilobytes * 1024}, {kilobytes * 1024}))\n"
    with start_tune(str(store), COUNTS, tmp_path, before=code) as tune:
        said, _ = tune.communicate(timeout=120)
    assert "Traceback" not in said
    assert tune.returncode in (0, 1)
    with open_store(str(store)) as opened:
        stored = opened.measurements()
        waiting = Spool(str(store)).rows()
        there = {row.key for row in (*stored, *waiting)}
        machine = lab()
        result = run_tune(REQUEST, store=opened, machine=machine, progress=Heard())
        assert result.everything_fits
        assert there <= set(keys(opened))
        assert not {(t.horizon, t.checkpoints, t.study) for t in machine.asked} & {
            (row.horizon, row.checkpoints, row.study) for row in (*stored, *waiting)
        }
    assert not Spool(str(store)).path.exists()


OPEN = """
import sys
sys.path.insert(0, {root!r})
from profiles import ProfilesError, open_store
from tests.profiles.makers import a_measurement
sys.stdin.readline()
try:
    with open_store(sys.argv[1]) as store:
        store.put(a_measurement(study=sys.argv[2]))
except ProfilesError as error:
    sys.exit(str(error))
"""


@pytest.mark.parametrize("backend", ["sqlite", pytest.param("postgresql", marks=needs_server)])
def test_processes_that_start_at_once_make_one_store(
    backend: str, tmp_path: pathlib.Path, request: pytest.FixtureRequest
) -> None:
    """A job array on a store that does not exist yet: each of them opens it and stores its row."""
    place = str(tmp_path / "new" / "a.db")
    if backend == "postgresql":
        place = request.getfixturevalue("database").render_as_string(hide_password=False)
    code = OPEN.format(root=str(REPOSITORY))
    crowd = [
        subprocess.Popen(
            [sys.executable, "-c", code, place, str(k)], stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for k in range(6)
    ]
    for one in crowd:
        assert one.stdin is not None
        one.stdin.write("go\n")
        one.stdin.flush()
    for one in crowd:
        _, said = one.communicate(timeout=120)
        assert (one.returncode, said) == (0, "")
    with open_store(place) as store:
        assert sorted(row.study for row in store.measurements()) == [str(k) for k in range(6)]


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["sqlite", pytest.param("postgresql", marks=needs_server)])
def test_tunes_that_start_at_once_share_their_rows(
    backend: str, tmp_path: pathlib.Path, request: pytest.FixtureRequest
) -> None:
    """With the same and with other counts, on a store that does not exist: all end well, nothing is measured twice."""
    place = str(tmp_path / "new" / "a.db")
    if backend == "postgresql":
        place = request.getfixturevalue("database").render_as_string(hide_password=False)
    asked = (COUNTS, COUNTS, (3, 5, 20), (2, 30))
    tunes = [start_tune(place, counts, tmp_path, pause=0.05) for counts in asked]
    heard = [tune.communicate(timeout=300)[0] for tune in tunes]
    for tune, said in zip(tunes, heard, strict=True):
        assert tune.returncode == 0, said
        assert "Traceback" not in said
    with open_store(place) as store:
        rows = store.measurements()
    points = [(row.horizon, row.checkpoints, row.study.endswith("/verified")) for row in rows]
    measured = sum(len(text.split()) - 1 for said in heard for text in said.splitlines() if text.startswith("asked"))
    assert {count for counts in asked for count in counts} <= {checkpoints for _, checkpoints, _ in points}
    assert measured == len(rows)


def test_a_server_that_is_not_there_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Patience is for a server that was there."""
    pytest.importorskip("psycopg")
    monkeypatch.setattr(patience.time, "sleep", lambda seconds: pytest.fail("it was waited for"))
    with pytest.raises(StoreError):
        open_store("postgresql://me@127.0.0.1:1/none")


@pytest.mark.parametrize("text", ["soon", "-1", "nan", "inf"])
def test_a_patience_that_is_no_time_is_said(text: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line names the variable."""
    monkeypatch.setenv(patience.PATIENCE_VARIABLE, text)
    with pytest.raises(StoreError, match="must be a number of seconds"):
        open_store(str(tmp_path / "a.db"))
