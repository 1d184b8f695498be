"""The store: where every finished measurement is kept, durable before `put` returns.

A measurement is written in one transaction under its unique key, so writing it again changes nothing, and a process
that is killed at any moment leaves whole rows only. Any SQLAlchemy URL works; SQLite serves the processes of one
machine, PostgreSQL a team and several hosts.
"""

import contextlib
import importlib.metadata
import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Self, TypeVar

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from profiles.errors import NoSuchProfile, RecordError, StoreAwayError, StoreError
from profiles.records.records import Measurement, Profile, Status
from profiles.records.values import clean_text
from profiles.store.engine import (
    cause_of,
    default_url,
    explain,
    file_of,
    is_sqlite_file,
    make_engine,
    parse_url,
    place_of,
    prepare_file,
    url_of_file,
    use_write_ahead_log,
)
from profiles.store.listing import Summary, list_profiles
from profiles.store.migrations import SCHEMA_VERSION, check_version, migrate, stored_version
from profiles.store.names import choose
from profiles.store.patience import hung_up_on, patience_seconds, patiently
from profiles.store.reading import RowReader, profiles_of
from profiles.store.schema import MEASUREMENTS, NOTES, to_row
from profiles.store.writing import KEYS_AT_ONCE, note_key, note_row, swap_row, try_to_write, write_rows

T = TypeVar("T")

_NAME_KIND = "profile-name"


def open_store(
    url: str | None = None,
    *,
    read_only: bool = False,
    busy_seconds: float = 30.0,
    on_damage: Callable[[str], None] | None = None,
) -> "ProfileStore":
    """Open a store, making it (and its folder) where it does not exist yet.

    Args:
        url: a SQLAlchemy URL or the path of an SQLite file; None takes the environment variable `CKPT_TUNE_STORE`,
            else SQLite in the user's data folder.
        read_only: never write, not even to make the store; works in a folder that cannot be written.
        busy_seconds: how long to wait for another process that is writing (SQLite).
        on_damage: told in one line of each row and document that cannot be read, which is then passed over; where None
            it is a StoreError.

    Raises:
        StoreNameError: `url` names no store.
        StoreError: it cannot be opened; one line with the store, what was found, and what to do.
        StoreVersionError: it was written by a newer version.
    """
    return ProfileStore(url or default_url(), read_only=read_only, busy_seconds=busy_seconds, on_damage=on_damage)


class ProfileStore:
    """Measurements, the profiles that they make up, and small documents beside them.

    A context manager; safe to use from several threads and from any number of processes at once.
    """

    def __init__(
        self,
        url: str,
        *,
        read_only: bool = False,
        busy_seconds: float = 30.0,
        on_damage: Callable[[str], None] | None = None,
    ) -> None:
        """Open the store; see `open_store`."""
        self._url = parse_url(url)
        self.place = place_of(self._url)
        """The store's name for people: a path, or a URL without its password."""
        self.read_only = read_only
        """Whether writing is refused."""
        self._busy_seconds = busy_seconds
        self._on_damage = on_damage
        self._patience_seconds = patience_seconds()
        self._gave_up = False
        if (file := file_of(self._url)) is not None:
            prepare_file(file, read_only)
        self._engine = make_engine(self._url, read_only=read_only, busy_seconds=busy_seconds)
        try:
            self._check_tables()
        except BaseException:
            self.close()  # nobody else could: there is no store
            raise

    @property
    def url(self) -> str:
        """The store's URL with its password, as another process needs it to open the same store."""
        file = file_of(self._url)
        return self._url.render_as_string(hide_password=False) if file is None else url_of_file(file)

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

        self._write(lambda connection: write_rows(connection, MEASUREMENTS, ("key",), rows))
        return len(rows)

    def get(self, key: str) -> Measurement | None:
        """Read the measurement of a key, None where there is none."""
        found = self._select(MEASUREMENTS.c.key == key)
        return found[0] if found else None

    def known_keys(self, keys: Iterable[str]) -> set[str]:
        """Return which of some keys are those of stored rows."""
        listed, found = list(keys), set()
        for start in range(0, len(listed), KEYS_AT_ONCE):
            wanted = sa.select(MEASUREMENTS.c.key).where(MEASUREMENTS.c.key.in_(listed[start : start + KEYS_AT_ONCE]))
            found.update(self._read(lambda connection, wanted=wanted: connection.execute(wanted).scalars().all()))
        return found

    def measurements(
        self,
        *,
        study: str | None = None,
        problem_name: str | None = None,
        device: str | None = None,
        status: Status | str | None = None,
    ) -> list[Measurement]:
        """Read measurements, oldest first; every argument narrows them.

        Args:
            study: the study's name.
            problem_name: the problem's name.
            device: the device's kind.
            status: how the row ended.
        """
        wanted = {"study": study, "problem_name": problem_name, "device_kind": device, "status": status}
        return self._select(
            *(MEASUREMENTS.c[name] == str(value) for name, value in wanted.items() if value is not None)
        )

    def delete(self, rows: "Profile | Iterable[str | Measurement]") -> int:
        """Delete a profile, or the rows of some keys, in one transaction.

        Returns:
            How many rows were there and are gone.
        """
        members = rows.measurements if isinstance(rows, Profile) else rows
        keys = [row.key if isinstance(row, Measurement) else row for row in members]
        name_key = rows.id if isinstance(rows, Profile) else None

        def work(connection: sa.Connection) -> int:
            gone = 0
            for start in range(0, len(keys), KEYS_AT_ONCE):
                some = keys[start : start + KEYS_AT_ONCE]
                gone += connection.execute(sa.delete(MEASUREMENTS).where(MEASUREMENTS.c.key.in_(some))).rowcount
            if name_key is not None:
                connection.execute(sa.delete(NOTES).where(NOTES.c.kind == _NAME_KIND, NOTES.c.key == name_key))
            return gone

        return self._write(work)

    def check_writable(self) -> None:
        """Find out whether this store takes rows, before anything is measured for it.

        Raises:
            StoreError: it does not; one line says why.
        """
        self._write(lambda connection: try_to_write(connection, MEASUREMENTS, NOTES))

    # --- profiles ---------------------------------------------------------------------------------------------------

    def profiles(self) -> list[Profile]:
        """Bring all measurements together to profiles, by name, the newest first where names are equal."""
        return self._profiles(self.notes(_NAME_KIND))

    def summaries(self) -> list[Summary]:
        """Sum every profile up without reading its rows, in the order of `profiles`."""
        labels = self.notes(_NAME_KIND)
        return self._read(lambda connection: list_profiles(connection, labels))

    def _profiles(self, labels: dict[str, Any], *conditions: sa.ColumnElement[bool]) -> list[Profile]:
        """Bring the measurements that meet the conditions together to profiles."""
        return profiles_of(self._select(*conditions), labels)

    def profile(self, name: str) -> Profile:
        """Find one profile by name.

        `name` is a problem's name or a given one (`spirals:make`), and may be narrowed by the device's kind, the
        adjoint and the first digits of the profile's id: `spirals:make@cpu:ours#1a2b3c4d`, any of the three left out.
        Of several states of one problem's code on one device and adjoint, the newest answers to the bare name.

        Raises:
            NoSuchProfile: there is none; the message lists those that there are.
            AmbiguousProfile: devices or adjoints differ; the message lists the candidates.
        """
        name, labels = clean_text(name), self.notes(_NAME_KIND)
        # A store may hold many problems; unless the name was given by a person, one problem's rows are enough.
        bare = [name[:end] for end, letter in enumerate(f"{name}#") if letter in "@#" and end]
        if bare and not set(bare) & set(map(str, labels.values())):
            found = self._profiles(labels, MEASUREMENTS.c.problem_name.in_(bare))
            if found:
                return choose(name, found, self.place)
        return choose(name, self._profiles(labels), self.place)

    def rename(self, profile: Profile, name: str) -> Profile:
        """Give a profile a name of its own; its measurements and their keys stay as they are.

        Raises:
            StoreError: the name is empty, holds a character that narrows names (`@`, `#`), or is another profile's.
            NoSuchProfile: the store does not hold the profile.
        """
        name = name.strip()
        if not name or set(name) & set("@#"):
            raise StoreError(f"a profile's name must be some text without @ and #, found {name!r}")
        there = {other.id: other for other in self.profiles()}
        if profile.id not in there:
            raise NoSuchProfile(f"the store {self.place} holds no profile {profile.qualified_name}")
        for other in there.values():
            if other.id != profile.id and name in (other.name, other.problem.name):
                raise StoreError(f"the name {name!r} is taken by {other.qualified_name}: choose another")
        self.put_note(_NAME_KIND, profile.id, name)
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
        self._write(lambda connection: write_rows(connection, NOTES, ("kind", "key"), [row]))

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
        before, after = note_row(kind, key, old), note_row(kind, key, new)
        return self._write(
            lambda connection: swap_row(connection, NOTES, before if old is not None else None, after, new is not None)
        )

    def get_note(self, kind: str, key: str) -> Any:
        """Read a document, None where there is none."""
        statement = sa.select(NOTES.c.value).where(NOTES.c.kind == kind, NOTES.c.key == note_key(key))
        text = self._read(lambda connection: connection.execute(statement).scalar())
        found = () if text is None else self._readable(f"the note {kind}", lambda: json.loads(text))
        return found[0] if found else None

    def notes(self, kind: str) -> dict[str, Any]:
        """Read every document of a kind, by key; keys of over 255 characters are shortened to their digest."""
        statement = sa.select(NOTES.c.key, NOTES.c.value).where(NOTES.c.kind == kind).order_by(NOTES.c.written_at)
        rows = self._read(lambda connection: connection.execute(statement).all())
        found = {key: self._readable(f"the note {kind}", lambda text=text: json.loads(text)) for key, text in rows}
        return {key: values[0] for key, values in found.items() if values}

    # --- inside -----------------------------------------------------------------------------------------------------

    def _check_tables(self) -> None:
        """Make or upgrade the tables where they need it, and refuse those of a newer version."""

        def once() -> None:
            with self._engine.connect() as connection, hung_up_on(connection):
                version = stored_version(connection)
            check_version(version, self.place)
            if version < SCHEMA_VERSION:
                self._upgrade(version)

        self._patiently(once, opening=True)

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

        def once() -> T:
            with self._begin() as connection, hung_up_on(connection):
                return work(connection)

        return self._patiently(once)

    def _read(self, work: Callable[[sa.Connection], T]) -> T:
        """Run `work`, which reads, again where a server dropped it."""

        def once() -> T:
            with self._engine.connect() as connection, hung_up_on(connection):
                return work(connection)

        return self._patiently(once)

    def _patiently(self, once: Callable[[], T], *, opening: bool = False) -> T:
        server = self._engine.dialect.name != "sqlite"
        seconds = 0.0 if self._gave_up else self._patience_seconds
        try:
            with self._explained():
                found = patiently(once, seconds, server=server, opening=opening)
        except StoreAwayError:
            self._gave_up = True  # what follows asks once, until the server answers again
            raise
        self._gave_up = False
        return found

    def _select(self, *conditions: sa.ColumnElement[bool]) -> list[Measurement]:
        """Read the measurements that meet the conditions, oldest first."""
        statement = sa.select(MEASUREMENTS).where(*conditions).order_by(MEASUREMENTS.c.measured_at, MEASUREMENTS.c.key)
        rows, reader = self._read(lambda connection: connection.execute(statement).all()), RowReader()
        found = (self._readable(row, lambda row=row: reader.read(row)) for row in rows)
        return [row for one in found for row in one]

    def _readable(self, what: Any, read: Callable[[], T]) -> tuple[T, ...]:
        """Read something that was stored; nothing where it cannot be read, and somebody wants to hear of that."""
        try:
            return (read(),)
        except (RecordError, ValueError, RecursionError) as error:
            said = " ".join(str(error).split())[:300]
            named = what if isinstance(what, str) else f"the row {what.key}"
            line = f"the store {self.place} holds something that was changed by hand or damaged: {named}: {said}"
            if self._on_damage is None:
                raise StoreError(line) from error
            self._on_damage(line)
            return ()

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn a database's complaint into one line."""
        try:
            yield
        except (SQLAlchemyError, sqlite3.Error) as error:
            raise explain(error, self._url) from cause_of(error, self._url)
        except (ValueError, TypeError, OverflowError) as error:  # a value of another type than its column's
            raise StoreError(f"the store {self.place} holds a value that no database writes: {error}") from error
