"""The store on SQLite: the contract, and what only a file can suffer."""

import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import platformdirs
import pytest

from profiles import StoreError, default_url, open_store
from tests.conftest import REPOSITORY
from tests.contracts.store import SharedStoreContract, StoreContract
from tests.profiles.makers import a_measurement


class TestFile(SharedStoreContract):
    """The contract on a file."""

    @pytest.fixture
    def url(self, tmp_path: Path) -> str:
        """A file whose path holds what URLs treat specially."""
        return str(tmp_path / "made here" / "a?b#c%20.db")


class TestUrl(SharedStoreContract):
    """The contract on a file that is named by a URL."""

    @pytest.fixture
    def url(self, tmp_path: Path) -> str:
        """A file's URL."""
        return f"sqlite:///{tmp_path / 'store.db'}"


class TestMemory(StoreContract):
    """The contract on a database in memory, as tests of other packages use it."""

    @pytest.fixture
    def url(self) -> str:
        """The URL of a database in memory."""
        return "sqlite://"


def run_python(code: str, **options) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh interpreter that sees the packages and the tests."""
    return subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, timeout=120, **options
    )


def one_line(error: pytest.ExceptionInfo[StoreError]) -> str:
    """The message, which must be a single line."""
    assert "\n" not in str(error.value)
    return str(error.value)


# --- where it lies


def test_the_default_store_is_a_file_in_the_users_data_folder(monkeypatch: pytest.MonkeyPatch):
    """Without the environment variable the store lies where the platform keeps a user's data."""
    monkeypatch.delenv("CKPT_TUNE_STORE", raising=False)
    assert default_url() == str(Path(platformdirs.user_data_dir("ckpt-tune", appauthor=False)) / "profiles.db")


def test_the_environment_names_the_store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """`CKPT_TUNE_STORE` is used where no URL is given, and a given URL wins over it."""
    monkeypatch.setenv("CKPT_TUNE_STORE", str(tmp_path / "environment.db"))
    with open_store() as store:
        assert store.place == str(tmp_path / "environment.db")
    with open_store(str(tmp_path / "given.db")) as store:
        assert store.place == str(tmp_path / "given.db")


def test_one_file_is_left_between_two_calls(tmp_path: Path):
    """After a call the store is one file that can be copied, with the write-ahead log on."""
    with open_store(str(tmp_path / "s.db")) as store:
        store.put(a_measurement())
        assert os.listdir(tmp_path) == ["s.db"]
        shutil.copy(tmp_path / "s.db", tmp_path / "copy.db")
    with sqlite3.connect(tmp_path / "copy.db") as raw:
        assert raw.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    raw.close()
    assert open_store(str(tmp_path / "copy.db")).measurements() == [a_measurement()]


# --- kills

KILLED = """
import sys
from profiles import open_store
from tests.profiles.makers import a_measurement
store = open_store(sys.argv[1])
for repeat in range(int(sys.argv[2]), 10**6):
    store.put(a_measurement(repeat=repeat, message="x" * 20000))
    print(repeat, flush=True)
"""


def test_a_writer_killed_at_any_moment_loses_nothing_it_had_stored(tmp_path: Path):
    """Killed with SIGKILL at random moments, every row whose `put` had returned is there, and the store works on."""
    path = tmp_path / "s.db"
    open_store(str(path)).close()
    moments = random.Random(1)
    stored = 0
    for _ in range(8):
        writer = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(path), str(stored)], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout is not None
        first = writer.stdout.readline()
        time.sleep(moments.uniform(0.0, 0.05))
        os.kill(writer.pid, signal.SIGKILL)
        told = [int(line) for line in [first, *writer.stdout.read().splitlines()] if line.strip()]
        writer.wait()
        writer.stdout.close()
        with open_store(str(path)) as store:
            there = {row.repeat for row in store.measurements()}
        assert set(told) <= there
        assert there in (set(range(told[-1] + 1)), set(range(told[-1] + 2)))
        stored = max(there) + 1
    raw = sqlite3.connect(path)
    assert raw.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    raw.close()


# --- a full disk

FULL = """
import resource, sys
from profiles import StoreError, open_store
from tests.profiles.makers import a_measurement
store = open_store(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
for repeat in range(1000):
    try:
        store.put(a_measurement(repeat=repeat, message="x" * 20000))
    except StoreError as error:
        print(error)
        break
    print(repeat)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no limit on the size of a file to be set on Windows")
def test_a_full_disk_gives_one_line_and_loses_nothing(tmp_path: Path):
    """When a file may grow no more, `put` says so in one line; what was stored is there and readable."""
    path = tmp_path / "s.db"
    done = run_python(FULL.replace("sys.argv[1]", repr(str(path))))
    assert done.returncode == 0, done.stderr
    *told, message = done.stdout.splitlines()
    assert "full" in message
    assert str(path) in message
    assert len(told) >= 3
    with open_store(str(path)) as store:
        assert {row.repeat for row in store.measurements()} == set(range(len(told)))
        store.put(a_measurement(repeat=len(told)))
        assert len(store.measurements()) == len(told) + 1


def test_sqlites_own_word_for_a_full_disk_is_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A database that may take no more pages answers with the same one line."""
    path = tmp_path / "s.db"
    store = open_store(str(path))
    connect = sqlite3.connect

    def small(*args, **options):
        connection = connect(*args, **options)
        connection.execute("PRAGMA max_page_count=12")
        return connection

    monkeypatch.setattr(sqlite3, "connect", small)
    with pytest.raises(StoreError, match="full") as error:
        store.put(a_measurement(message="x" * 200_000))
    assert str(path) in one_line(error)
    assert store.measurements() == []


# --- files that are not what they should be


@pytest.mark.parametrize("contents", [b"hello, this is no database " * 100, b"SQLite format 3\x00" + b"\xff" * 5000])
def test_a_file_that_is_no_database_is_named_and_left_as_it_is(tmp_path: Path, contents: bytes):
    """One line with the path, what was found and what to do; not a byte of the file is changed."""
    path = tmp_path / "s.db"
    path.write_bytes(contents)
    with pytest.raises(StoreError, match="not a readable SQLite database") as error:
        open_store(str(path))
    assert str(path) in one_line(error)
    assert path.read_bytes() == contents
    assert os.listdir(tmp_path) == ["s.db"]


def test_a_store_damaged_in_its_middle_is_named_and_left_as_it_is(tmp_path: Path):
    """Pages overwritten behind the header are found when they are read, with the same one line."""
    path = tmp_path / "s.db"
    with open_store(str(path)) as store:
        store.put_all(a_measurement(repeat=repeat) for repeat in range(200))
    contents = bytearray(path.read_bytes())
    contents[4096 * 6 : 4096 * 12] = b"\xa5" * (4096 * 6)
    path.write_bytes(contents)
    with pytest.raises(StoreError, match="not a readable SQLite database") as error, open_store(str(path)) as store:
        store.measurements()
    assert str(path) in one_line(error)
    assert path.read_bytes() == bytes(contents)


def test_an_empty_file_becomes_a_store(tmp_path: Path):
    """A file of no bytes, as `touch` or mkstemp leaves it, is an empty database."""
    (tmp_path / "s.db").touch()
    with open_store(str(tmp_path / "s.db")) as store:
        store.put(a_measurement())
        assert store.measurements() == [a_measurement()]


def test_tables_of_others_in_the_same_file_are_left_alone(tmp_path: Path):
    """A database that holds other tables (a study's scratch, say) becomes a store beside them."""
    path = tmp_path / "s.db"
    raw = sqlite3.connect(path)
    raw.execute("CREATE TABLE studies (a INTEGER)")
    raw.execute("INSERT INTO studies VALUES (7)")
    raw.commit()
    open_store(str(path)).put(a_measurement())
    assert raw.execute("SELECT a FROM studies").fetchall() == [(7,)]
    raw.close()


def test_a_row_changed_by_hand_is_said(tmp_path: Path):
    """A text that is no JSON any more gives one line, not a traceback of ours."""
    path = tmp_path / "s.db"
    store = open_store(str(path))
    store.put(a_measurement())
    raw = sqlite3.connect(path)
    raw.execute("UPDATE ckpt_tune_measurements SET run_seconds = '[0.1'")
    raw.commit()
    raw.close()
    with pytest.raises(StoreError, match="changed by hand") as error:
        store.measurements()
    one_line(error)


def test_a_locked_file_is_waited_for_and_then_said(tmp_path: Path):
    """While another process holds the file a write waits; when it holds on for too long one line says so."""
    path = tmp_path / "s.db"
    store = open_store(str(path), busy_seconds=0.1)
    store.put(a_measurement())
    raw = sqlite3.connect(path, isolation_level=None)
    raw.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match="locked") as error:
        store.put(a_measurement(repeat=1))
    assert str(path) in one_line(error)
    assert store.measurements() == [a_measurement()]  # readers do not wait for writers
    raw.execute("ROLLBACK")
    raw.close()
    store.put(a_measurement(repeat=1))
    assert len(store.measurements()) == 2


def test_a_file_that_vanishes_while_in_use_is_said_and_not_made_anew(tmp_path: Path):
    """Writing to a store whose file was removed fails with a word, and leaves no empty file in its place."""
    path = tmp_path / "s.db"
    store = open_store(str(path))
    store.put(a_measurement())
    path.unlink()
    with pytest.raises(StoreError, match="cannot be opened") as error:
        store.put(a_measurement(repeat=1))
    assert str(path) in one_line(error)
    assert os.listdir(tmp_path) == []
    path.touch()
    with pytest.raises(StoreError, match="tables are gone"):
        store.put(a_measurement(repeat=1))


# --- places that cannot be used


def test_a_folder_in_the_place_of_the_file_is_said(tmp_path: Path):
    """A folder's path is answered with a path that would do."""
    with pytest.raises(StoreError, match="is a folder"):
        open_store(str(tmp_path))


def test_a_file_in_the_place_of_the_folder_is_said(tmp_path: Path):
    """A path below a file cannot be made, and the line says so."""
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot be made"):
        open_store(str(tmp_path / "file" / "s.db"))


@pytest.mark.parametrize("url", ["nosuch://host/x", "http://[broken", "postgresql+nosuch://u@h/d"])
def test_a_url_that_no_driver_takes_is_said(url: str):
    """A URL without a driver, or that cannot be parsed, gives one line that names it."""
    with pytest.raises(StoreError) as error:
        open_store(url)
    assert url.split(":")[0] in one_line(error)


def test_a_store_that_does_not_exist_cannot_be_opened_to_read(tmp_path: Path):
    """Opening to read only makes neither file nor folder."""
    with pytest.raises(StoreError, match="does not exist"):
        open_store(str(tmp_path / "a" / "s.db"), read_only=True)
    assert os.listdir(tmp_path) == []


def test_an_empty_file_cannot_be_opened_to_read(tmp_path: Path):
    """Opening an empty database to read only says that nothing is there, and does not make tables."""
    (tmp_path / "s.db").touch()
    with pytest.raises(StoreError, match="no measurements yet"):
        open_store(str(tmp_path / "s.db"), read_only=True)
    assert (tmp_path / "s.db").stat().st_size == 0


READER = """
import os, sys
from profiles import StoreError, open_store
from tests.profiles.makers import a_measurement
if os.getuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
path = {path!r}
for read_only in (True, False):
    with open_store(path, read_only=read_only) as store:
        assert len(store.measurements()) == 1
        store.profile("spirals:make")
try:
    store.put(a_measurement(repeat=1))
except StoreError as error:
    print(error)
try:
    open_store(os.path.join(os.path.dirname(path), "new.db"))
except StoreError as error:
    print(error)
"""


@pytest.mark.skipif(not hasattr(os, "setuid"), reason="needs POSIX users and permissions")
def test_a_folder_without_write_permission_can_be_read(tmp_path: Path, request: pytest.FixtureRequest):
    """A user without the right to write reads the store in a folder of others, and is told why writing fails."""
    folder = tmp_path / "theirs"
    with open_store(str(folder / "s.db")) as store:
        store.put(a_measurement())
    (folder / "s.db").chmod(0o444)
    folder.chmod(0o555)
    closed = [parent for parent in folder.parents if not parent.stat().st_mode & 0o001]
    modes = [parent.stat().st_mode for parent in closed]
    for parent in closed:
        parent.chmod(0o755)
    try:
        done = run_python(READER.format(path=str(folder / "s.db")))
    finally:
        for parent, mode in zip(closed, modes, strict=True):
            parent.chmod(mode)
        folder.chmod(0o755)
    assert done.returncode == 0, done.stderr
    denied, cannot_make = done.stdout.splitlines()
    assert "cannot be written" in denied
    assert "s.db" in denied
    assert "new.db" in cannot_make


def test_processes_that_make_a_store_at_once_all_get_it(tmp_path: Path):
    """A file that is not there yet is made once; nobody is told that it is locked."""
    code = (
        "import sys\nfrom profiles import open_store\nsys.stdin.readline()\n"
        "with open_store(sys.argv[1]) as store:\n    store.put_note('kind', sys.argv[2], 1)\n"
    )
    for turn in range(3):
        path = str(tmp_path / f"{turn}.db")
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", code, path, str(k)], stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
            for k in range(5)
        ]
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        for process in processes:
            _, said = process.communicate()
            assert process.returncode == 0, said
        with open_store(path) as store:
            assert len(store.notes("kind")) == 5
