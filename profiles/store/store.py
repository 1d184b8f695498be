"""The store: where every finished measurement is kept, durable before `put` returns.

A measurement is written in one transaction under its unique key, so writing it again changes nothing, and a process
that is killed at any moment leaves whole rows only. Any SQLAlchemy URL works; SQLite serves the processes of one
machine, PostgreSQL a team and several hosts.
"""

import contextlib
import importlib.metadata
import json
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError, SQLAlchemyError

from profiles.errors import NoSuchProfile, RecordError, StoreError
from profiles.records.records import Measurement, Profile, Status, profile_id
from profiles.records.summary import ProfileSummary
from profiles.store.engine import (
    cause_of,
    default_url,
    explain,
    is_sqlite_file,
    make_engine,
    parse_url,
    place_of,
    prepare_file,
    use_write_ahead_log,
)
from profiles.store.migrations import SCHEMA_VERSION, check_version, migrate, stored_version
from profiles.store.names import choose_profile
from profiles.store.overview import after, file_stamp, stamp, summaries
from profiles.store.schema import MEASUREMENTS, NOTES, from_row, note_key, note_row, to_row
from profiles.store.urls import is_served

T = TypeVar("T")

RETRY_SECONDS = (0.2, 1.0, 3.0)
"""How long a write waits before each new try when a database server drops the connection."""

PROFILE_NAMES = "profile-name"
"""Kind of the notes that hold the names that people gave to profiles, by id."""
_KEYS_AT_ONCE = 500  # below every database's limit of parameters in one statement


def open_store(url: str | None = None, *, read_only: bool = False, busy_seconds: float = 30.0) -> "ProfileStore":
    """Open a store, making it (and its folder) where it does not exist yet.

    Args:
        url: a SQLAlchemy URL, the path of an SQLite file, or the address of a service (`https://HOST:8787`); None takes
            the environment variable `CKPT_TUNE_STORE`, else SQLite in the user's data folder.
        read_only: never write, not even to make the store; works in a folder that cannot be written.
        busy_seconds: how long to wait for another process that is writing (SQLite).

    Raises:
        StoreError: it cannot be opened; one line with the store, what was found, and what to do.
        StoreVersionError: it was written by a newer version.
    """
    url = url or default_url()
    if is_served(url):
        from profiles.store.served import ServedStore

        return ServedStore(url, read_only=read_only)
    return ProfileStore(url, read_only=read_only, busy_seconds=busy_seconds)


class ProfileStore:
    """Measurements, the profiles that they make up, and small documents beside them.

    A context manager; safe to use from several threads and from any number of processes at once.
    """

    def __init__(self, url: str, *, read_only: bool = False, busy_seconds: float = 30.0) -> None:
        """Open the store; see `open_store`."""
        self._url = parse_url(url)
        self.place = place_of(self._url)
        """The store's name for people: a path, or a URL without its password."""
        self.read_only = read_only
        """Whether writing is refused."""
        self._busy_seconds = busy_seconds
        if is_sqlite_file(self._url):
            prepare_file(Path(str(self._url.database)), read_only)
        self._engine = make_engine(self._url, read_only=read_only, busy_seconds=busy_seconds)
        try:
            self._check_tables()
        except BaseException:
            self.close()  # nobody else could: there is no store
            raise

    @property
    def url(self) -> str:
        """The store's URL with its password, as another process needs it to open the same store."""
        return self._url.render_as_string(hide_password=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of every connection. The store may be used again; it then connects anew."""
        self._engine.dispose()

    # --- measurements -----------------------------------------------------------------------------------------------

    def put(self, measurement: Measurement) -> None:
        """Store one measurement, replacing the row of the same key; it is durable when this returns.

        Raises:
            StoreError: it could not be stored; every row stored before is still there.
        """
        self.put_all((measurement,))

    def put_all(self, measurements: Iterable[Measurement]) -> int:
        """Store measurements in one transaction, all or none.

        Returns:
            How many rows were written.

        Raises:
            StoreError: they could not be stored.
        """
        rows = list({measurement.key: to_row(measurement) for measurement in measurements}.values())

        self._write(lambda connection: _write_rows(connection, MEASUREMENTS, ("key",), rows))
        return len(rows)

    def get(self, key: str) -> Measurement | None:
        """Read the measurement of a key, None where there is none."""
        found = self._select(MEASUREMENTS.c.key == key)
        return found[0] if found else None

    def measurements(
        self,
        *,
        study: str | None = None,
        problem_name: str | None = None,
        device: str | None = None,
        status: Status | str | None = None,
        cursor: str | None = None,
        at_most: int | None = None,
    ) -> list[Measurement]:
        """Read measurements, oldest first; every argument narrows them.

        Args:
            study: the study's name.
            problem_name: the problem's name.
            device: the device's kind.
            status: how the row ended.
            cursor: only what comes after this row, named by its time, a blank and its key.
            at_most: so many rows at most.
        """
        wanted = {"study": study, "problem_name": problem_name, "device_kind": device, "status": status}
        conditions = [MEASUREMENTS.c[name] == str(value) for name, value in wanted.items() if value is not None]
        return self._select(*conditions, *([] if cursor is None else [after(cursor)]), at_most=at_most)

    def delete(self, rows: "Profile | Iterable[str | Measurement]", *, label_of: str | None = None) -> int:
        """Delete a profile, or the rows of some keys, in one transaction.

        Args:
            rows: what to delete; a profile's given name goes with it.
            label_of: the id of a profile whose given name goes too.

        Returns:
            How many rows were there and are gone.
        """
        members = rows.measurements if isinstance(rows, Profile) else rows
        keys = [row.key if isinstance(row, Measurement) else row for row in members]
        name_key = rows.id if isinstance(rows, Profile) else label_of

        def work(connection: sa.Connection) -> int:
            gone = 0
            for start in range(0, len(keys), _KEYS_AT_ONCE):
                some = keys[start : start + _KEYS_AT_ONCE]
                gone += connection.execute(sa.delete(MEASUREMENTS).where(MEASUREMENTS.c.key.in_(some))).rowcount
            if name_key is not None:
                connection.execute(sa.delete(NOTES).where(NOTES.c.kind == PROFILE_NAMES, NOTES.c.key == name_key))
            return gone

        return self._write(work)

    # --- profiles ---------------------------------------------------------------------------------------------------

    def profiles(self) -> list[Profile]:
        """Bring all measurements together to profiles, by name, the newest first where names are equal."""
        return self._profiles(self.notes(PROFILE_NAMES))

    def _profiles(self, labels: dict[str, Any], *conditions: sa.ColumnElement[bool]) -> list[Profile]:
        """Bring the measurements that meet the conditions together to profiles."""
        groups: dict[str, list[Measurement]] = {}
        for row in self._select(*conditions):
            groups.setdefault(profile_id(row), []).append(row)
        found = [
            Profile(name=str(labels.get(id_) or rows[-1].problem.name), measurements=tuple(rows))
            for id_, rows in groups.items()
        ]
        found.sort(key=lambda profile: profile.newest.measured_at, reverse=True)
        return sorted(found, key=lambda profile: profile.name)

    def summaries(self, problem_name: str | None = None) -> list[ProfileSummary]:
        """Sum up every profile (of a problem) without its rows, by name, the newest first where names are equal."""
        labels = self.notes(PROFILE_NAMES)
        with self._explained(), self._engine.connect() as connection:
            return summaries(connection, labels, problem_name)

    def stamp(self) -> str:
        """Return a text that is another one once rows were written, whoever wrote them."""
        if is_sqlite_file(self._url):
            return file_stamp(Path(str(self._url.database)))
        with self._explained(), self._engine.connect() as connection:
            return stamp(connection)

    def profile(self, name: str) -> Profile:
        """Find one profile by name.

        `name` is a problem's name or a given one (`spirals:make`), and may be narrowed by the device's kind, the
        adjoint and the first digits of the profile's id: `spirals:make@cpu:ours#1a2b3c4d`, any of the three left out.
        Of several states of one problem's code on one device and adjoint, the newest answers to the bare name.

        Raises:
            NoSuchProfile: there is none; the message lists those that there are.
            AmbiguousProfile: devices or adjoints differ; the message lists the candidates.
        """
        labels = self.notes(PROFILE_NAMES)
        bare = name.partition("#")[0].partition("@")[0]
        # A store may hold many problems; unless the name was given by a person, one problem's rows are enough.
        if (
            bare
            and bare not in labels.values()
            and (found := self._profiles(labels, MEASUREMENTS.c.problem_name == bare))
        ):
            return choose_profile(name, found, self.place)
        return choose_profile(name, self._profiles(labels), self.place)

    def rename(self, profile: Profile, name: str) -> Profile:
        """Give a profile a name of its own; its measurements and their keys stay as they are.

        Raises:
            StoreError: the name is empty, holds a character that narrows names (`@`, `#`), or is another profile's.
            NoSuchProfile: the store does not hold the profile.
        """
        name = name.strip()
        if not name or set(name) & set("@#"):
            raise StoreError(f"a profile's name must be some text without @ and #, found {name!r}")
        there = {other.id: other for other in self.summaries()}
        if profile.id not in there:
            raise NoSuchProfile(f"the store {self.place} holds no profile {profile.qualified_name}")
        for other in there.values():
            if other.id != profile.id and name in (other.name, other.problem.name):
                raise StoreError(f"the name {name!r} is taken by {other.qualified_name}: choose another")
        self.put_note(PROFILE_NAMES, profile.id, name)
        return Profile(name=name, measurements=profile.measurements)

    # --- notes ------------------------------------------------------------------------------------------------------

    def put_note(self, kind: str, key: str, value: Any) -> None:
        """Store a JSON document under a kind and a key, replacing what was there; durable when this returns.

        Args:
            kind: what sort of document, at most 64 characters.
            key: which one; a text of any length.
            value: anything that JSON holds.

        Raises:
            StoreError: it could not be stored, or is not JSON.
        """
        row = note_row(kind, key, value)
        self._write(lambda connection: _write_rows(connection, NOTES, ("kind", "key"), [row]))

    def swap_note(self, kind: str, key: str, old: Any, new: Any) -> bool:
        """Put a document in the place of another one in one step, unless another one than `old` is there.

        Args:
            kind: what sort of document.
            key: which one.
            old: what must be there; None for nothing.
            new: what is there then; None for nothing.

        Returns:
            Whether that was done. Where a server dropped the connection, it may have been done all the same.

        Raises:
            StoreError: it could not be stored, or is not JSON.
        """
        row = note_row(kind, key, new)
        there = (NOTES.c.kind == kind) & (NOTES.c.key == row["key"])
        same = there & (NOTES.c.value == note_row(kind, key, old)["value"])

        def work(connection: sa.Connection) -> bool:
            if old is not None:
                change = sa.delete(NOTES).where(same) if new is None else sa.update(NOTES).where(same).values(row)
                return connection.execute(change).rowcount == 1
            if connection.execute(sa.select(NOTES.c.key).where(there)).first() is not None:
                return False
            if new is not None:
                connection.execute(sa.insert(NOTES), [row])
            return True

        return self._write(work)

    def get_note(self, kind: str, key: str) -> Any:
        """Read a document, None where there is none."""
        statement = sa.select(NOTES.c.value).where(NOTES.c.kind == kind, NOTES.c.key == note_key(key))
        with self._explained(), self._engine.connect() as connection:
            text = connection.execute(statement).scalar()
        return None if text is None else json.loads(text)

    def notes(self, kind: str) -> dict[str, Any]:
        """Read every document of a kind, by key; keys of over 255 characters are shortened to their digest."""
        statement = sa.select(NOTES.c.key, NOTES.c.value).where(NOTES.c.kind == kind).order_by(NOTES.c.written_at)
        with self._explained(), self._engine.connect() as connection:
            return {key: json.loads(text) for key, text in connection.execute(statement)}

    # --- inside -----------------------------------------------------------------------------------------------------

    def _check_tables(self) -> None:
        """Make or upgrade the tables where they need it, and refuse those of a newer version."""
        with self._explained():
            with self._engine.connect() as connection:
                version = stored_version(connection)
            check_version(version, self.place)
            if version < SCHEMA_VERSION:
                self._upgrade(version)

    def _upgrade(self, version: int) -> None:
        """Bring the tables to this version."""
        if self.read_only:
            found = "holds no measurements yet" if version == 0 else f"has the older schema version {version}"
            raise StoreError(
                f"the store {self.place} {found} and is opened to read only: "
                "open it once for writing (any ckpt-tune command that measures does), or name another"
            )
        if is_sqlite_file(self._url):
            use_write_ahead_log(self._engine, self._busy_seconds)
        applied_by = importlib.metadata.version("ckpt-tune")
        migrate(self._begin, self.place, applied_by=applied_by)

    def _begin(self) -> contextlib.AbstractContextManager[sa.Connection]:
        """Begin one writing transaction."""
        return self._engine.execution_options(writes=True).begin()

    def _write(self, work: Callable[[sa.Connection], T]) -> T:
        """Run `work` in one writing transaction, again where a server dropped it or two writers met.

        `work` must be one that may run twice: a lost connection leaves open whether the commit arrived.
        """
        if self.read_only:
            raise StoreError(f"the store {self.place} is opened to read only: nothing was written")
        waits = iter(RETRY_SECONDS)
        while True:
            try:
                with self._begin() as connection:
                    return work(connection)
            except SQLAlchemyError as error:
                wait = next(waits, None)
                if wait is None or not self._worth_retrying(error):
                    raise explain(error, self._url) from cause_of(error, self._url)
                time.sleep(wait)

    def _worth_retrying(self, error: SQLAlchemyError) -> bool:
        """Return whether the same write may succeed in a moment."""
        if isinstance(error, IntegrityError):
            return True  # another process inserted the same key between our UPDATE and INSERT
        server = self._engine.dialect.name != "sqlite"
        return server and isinstance(error, DBAPIError) and (
            error.connection_invalidated or isinstance(error, OperationalError)
        )  # fmt: skip

    def _select(self, *conditions: sa.ColumnElement[bool], at_most: int | None = None) -> list[Measurement]:
        """Read the measurements that meet the conditions, oldest first."""
        ordered = sa.select(MEASUREMENTS).order_by(MEASUREMENTS.c.measured_at, MEASUREMENTS.c.key)
        statement = ordered.where(*conditions).limit(at_most)
        with self._explained(), self._engine.connect() as connection:
            return [from_row(dict(row)) for row in connection.execute(statement).mappings()]

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn a database's complaint, or a row that cannot be read, into one line."""
        try:
            yield
        except (SQLAlchemyError, sqlite3.Error) as error:
            raise explain(error, self._url) from cause_of(error, self._url)
        except (RecordError, json.JSONDecodeError) as error:
            raise StoreError(f"the store {self.place} holds a row that was changed by hand: {error}") from error


def _write_rows(
    connection: sa.Connection, table: sa.Table, keys: Sequence[str], rows: Sequence[dict[str, Any]]
) -> None:
    """Update the rows whose keys are there and insert the others; plain SQL, so that it works on every database."""
    there: set[tuple[Any, ...]] = set()
    for start in range(0, len(rows), _KEYS_AT_ONCE):
        some = rows[start : start + _KEYS_AT_ONCE]
        last = table.c[keys[-1]].in_([row[keys[-1]] for row in some])
        found = connection.execute(sa.select(*(table.c[key] for key in keys)).where(last))
        there.update(tuple(row) for row in found)
    old = [row for row in rows if tuple(row[key] for key in keys) in there]
    new = [row for row in rows if tuple(row[key] for key in keys) not in there]
    if old:
        where = [table.c[key] == sa.bindparam(f"old_{key}") for key in keys]
        update = (
            sa.update(table).where(*where).values({c.name: sa.bindparam(c.name) for c in table.c if c.name not in keys})
        )
        connection.execute(update, [row | {f"old_{key}": row[key] for key in keys} for row in old])
    if new:
        connection.execute(sa.insert(table), new)
