"""Connections to a store's database, and a database's complaints in words that a person can act on.

SQLite gets what several processes on one machine need: write-ahead logging where the file system has it, one writing
transaction at a time taken at its start (so that two writers never meet half-way), a wait for a busy file, and full
synchronisation, so that what was committed survives a crash of the machine. On every database a connection lives as
long as one transaction: an SQLite file is whole between two calls, no idle connection can be dropped by a server, and
processes may fork.

Known inefficiency: connecting for each call costs milliseconds, nothing beside a measurement.
"""

import contextlib
import os
import sqlite3
import time
from pathlib import Path
from urllib.parse import quote, unquote

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.exc import ArgumentError, NoSuchModuleError
from sqlalchemy.pool import NullPool, StaticPool

from profiles.errors import StoreAwayError, StoreError, StoreNameError
from profiles.store.patience import CONNECT_OPTIONS, is_away
from profiles.store.places import user_folder
from profiles.store.urls import STORE_VARIABLE as STORE_VARIABLE
from profiles.store.urls import hide_passwords, without_password

_LOCKED_POLL_SECONDS = 0.05
_FILE_NAME = "profiles.db"
_WRITE = "write a path, sqlite:///FILE or postgresql://USER@HOST/NAME"


def default_url() -> str:
    """Name the store that is used when none is named: the environment's, else SQLite in the user's data folder."""
    named = os.environ.get(STORE_VARIABLE, "").strip()
    return named or str(user_folder("data") / _FILE_NAME)


def parse_url(text: str) -> sa.URL:
    """Read a store's name: a SQLAlchemy URL, or the path of an SQLite file.

    Raises:
        StoreNameError: it is neither.
    """
    if "://" not in text and without_password(text) != text:
        raise StoreNameError(f"the store {without_password(text)!r} is neither a path nor a URL; {_WRITE}")
    if "\0" in text:
        raise StoreNameError(f"the store {text!r} is neither a path nor a URL; {_WRITE}")
    if "://" not in text:
        return sa.URL.create("sqlite", database=_expanded(text))
    try:
        url = sa.engine.make_url(text)
    except (ArgumentError, ValueError):  # not chained: what they say repeats parts of the text
        raise StoreNameError(
            f"the store {without_password(text)!r} is not a database URL; {_WRITE}, "
            "with %40 for an @ in a password and %2F for a /"
        ) from None
    if url.drivername in ("postgres", "postgresql"):
        return url.set(drivername="postgresql+psycopg")
    return url


def _expanded(text: str) -> str:
    try:
        return str(Path(text).expanduser())
    except RuntimeError as error:  # no such user, or a user without a home
        raise StoreNameError(f"the store {text!r}: {error}; write the path out") from error


def file_of(url: sa.URL) -> Path | None:
    """Return the path of an SQLite file, None for any other store; the inverse of `url_of_file`."""
    if url.get_backend_name() != "sqlite" or url.database in (None, "", ":memory:"):
        return None
    text = str(url.database)
    if text.startswith("file:") and str(url.query.get("uri", "")).lower() in ("1", "true"):
        return Path(unquote(text.removeprefix("file:").partition("?")[0]))
    return Path(text)


def url_of_file(path: Path) -> str:
    """Write the URL of an SQLite file, which SQLAlchemy and what builds on it open, whatever is in the path's name."""
    text = str(path.absolute())
    if not set(text) & set("?#%"):
        return f"sqlite:///{text}"
    # SQLite's own form; SQLAlchemy 2.1 escapes it once more, and takes that off again, where 2.0 does neither.
    url = sa.URL.create("sqlite", database=f"file:{quote(text)}", query={"uri": "true"})
    return url.render_as_string(hide_password=False)


def place_of(url: sa.URL) -> str:
    """Name a store in messages: an SQLite file by its path, others by their URL without the password."""
    return without_password(str(file_of(url) or url.render_as_string(hide_password=False)))


def is_sqlite_file(url: sa.URL) -> bool:
    """Return whether the store is an SQLite file."""
    return file_of(url) is not None


def make_engine(url: sa.URL, *, read_only: bool, busy_seconds: float) -> sa.Engine:
    """Make the engine of a store; nothing is opened yet.

    Raises:
        StoreNameError: SQLAlchemy has no driver for the URL, or the driver is not installed.
    """
    try:
        if (file := file_of(url)) is not None:
            path = file.absolute()
            engine = sa.create_engine(
                "sqlite://", creator=lambda: _open_file(path, read_only, busy_seconds), poolclass=NullPool
            )
        elif url.get_backend_name() == "sqlite":
            engine = sa.create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
        else:
            engine = sa.create_engine(url, poolclass=NullPool, connect_args=_connect_options(url))
    except (NoSuchModuleError, ImportError) as error:
        hint = "pip install 'ckpt-tune[postgresql]'" if url.get_backend_name() == "postgresql" else "install its driver"
        raise StoreNameError(f"the store {place_of(url)} needs a database driver ({error}): {hint}") from error
    except (ArgumentError, TypeError, ValueError) as error:
        said = hide_passwords(str(error), [url.render_as_string(hide_password=False)])
        raise StoreNameError(
            f"the store {place_of(url)} has an option that its database does not know: {said}"
        ) from None
    if engine.dialect.name == "sqlite":
        _take_transactions_over(engine)
    return engine


def prepare_file(path: Path, read_only: bool) -> None:
    """Make the folder and the empty file of a new store, for this user alone, or say what is in the way.

    Raises:
        StoreError: something is.
    """
    if path.is_dir():
        raise StoreError(f"the store {path} is a folder: name a file in it, such as {path / 'profiles.db'}")
    if read_only:
        if not path.exists():
            raise StoreError(
                f"the store {path} does not exist: measure something first (`ckpt-tune tune`), or name another"
            )
        return
    try:
        path.absolute().parent.mkdir(parents=True, exist_ok=True)
        # SQLite takes an empty file for an empty database, and gives the files beside it the same permissions.
        with contextlib.suppress(FileExistsError):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except OSError as error:
        raise StoreError(f"the store {path} cannot be made ({error.strerror}): name another with --store") from error


def _connect_options(url: sa.URL) -> dict[str, int]:
    if url.drivername not in ("postgresql+psycopg", "postgresql+psycopg2"):
        return {}
    return {name: value for name, value in CONNECT_OPTIONS.items() if name not in url.query}


def _open_file(path: Path, read_only: bool, busy_seconds: float) -> sqlite3.Connection:
    """Open an SQLite file, read only where it may not be written or shall not be."""
    mode = "rw"  # never makes a file: one that vanishes while in use must not come back empty
    if read_only or (path.exists() and not os.access(path, os.W_OK)):
        mode = "ro"
        # A file that was closed well has no log beside it. Where its folder cannot be written, SQLite could not make
        # one even to read, and need not: nobody can be writing.
        if not os.access(path.parent, os.W_OK) and not path.with_name(path.name + "-wal").exists():
            mode = "ro&immutable=1"
    connection = sqlite3.connect(
        f"{path.as_uri()}?mode={mode}", uri=True, timeout=busy_seconds, isolation_level=None, check_same_thread=False
    )
    try:
        connection.execute("PRAGMA synchronous=FULL")
    except BaseException:
        connection.close()
        raise
    return connection


def _take_transactions_over(engine: sa.Engine) -> None:
    """Begin transactions ourselves: the driver's own rule would begin late, and not at all before CREATE TABLE."""

    @event.listens_for(engine, "connect")
    def _leave_to_us(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None

    @event.listens_for(engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        writes = connection.get_execution_options().get("writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def use_write_ahead_log(engine: sa.Engine, busy_seconds: float) -> str:
    """Turn write-ahead logging on, once per file; SQLite remembers.

    SQLite waits for no other process here, so this does: processes that start at once all try.

    Returns:
        The mode that the file is in: `wal`, or what its file system allows.
    """
    deadline = time.monotonic() + busy_seconds
    while True:
        raw = engine.raw_connection()
        try:
            cursor = raw.cursor()
            cursor.execute("PRAGMA journal_mode=WAL")
            answer = cursor.fetchone()
            return str(answer[0]) if answer else "unknown"
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
        finally:
            raw.close()
        time.sleep(_LOCKED_POLL_SECONDS)


_SQLITE_ADVICE = (
    (("file is not a database", "malformed", "file is encrypted"),
     "it is not a readable SQLite database; it was left alone: move it away or restore a copy, or name another store"),
    (("database or disk is full", "disk i/o error"),
     "the disk is full, over a quota or failing; nothing was stored now, all that was stored before is safe: "
     "free some space and run the same command again"),
    (("database is locked", "database table is locked"),
     "another process kept it locked for too long; nothing was stored now: see what else uses it and run again"),
    (("readonly database", "read-only"),
     "it cannot be written here (a file or folder without write permission): name another with --store, or only read"),
    (("unable to open",),
     "it cannot be opened: the file, its folder or the permission is missing: check the path, or name another store"),
    (("no such table",),
     "its tables are gone (the file was replaced while in use): run the same command again to make a new store"),
)  # fmt: skip


_SERVER_GONE = "see that the server runs and may be reached, and run the same command again"
_SERVER_ADVICE = (
    (("42501", "25006"),
     "this role may not write there, and nothing was; have SELECT, INSERT, UPDATE and DELETE on ckpt_tune_measurements "
     "and ckpt_tune_notes granted to it, or name another store with --store"),
    (("28", "3D"), "see to the user's name, the password and the database in the store's name"),
    (("53",), "the server has no room for more; see to that, and run the same command again"),
    (("42P01",), "its tables are gone: run the same command again to make new ones"),
)  # fmt: skip


def cause_of(error: BaseException, url: sa.URL) -> BaseException | None:
    """Return what an explanation is raised from: the complaint, or None where it repeats a part of the password."""
    return error if hide_passwords(str(error), [url.render_as_string(hide_password=False)]) == str(error) else None


def explain(error: BaseException, url: sa.URL) -> StoreError:
    """Turn a database's complaint into one line: the store, what was found, what to do."""
    found = " ".join(str(getattr(error, "orig", None) or error).split())
    found = hide_passwords(found, [url.render_as_string(hide_password=False)])
    place = place_of(url)
    if url.get_backend_name() == "sqlite":
        for signs, advice in _SQLITE_ADVICE:
            if any(sign in found.lower() for sign in signs):
                return StoreError(f"the store {place}: {advice} (SQLite says: {found})")
        return StoreError(f"the store {place}: SQLite says: {found}")
    state = str(getattr(getattr(error, "orig", None), "sqlstate", None) or "")
    advice = next((text for states, text in _SERVER_ADVICE if state and state.startswith(states)), _SERVER_GONE)
    kind = StoreAwayError if is_away(error) else StoreError
    return kind(f"the store {place}: the database says: {found[:300]}; what was stored before is safe: {advice}")
