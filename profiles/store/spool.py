"""Rows that wait on this machine for a store that does not take them now: one JSON line each, durable when appended.

A store may be away (a server that restarts, a disk that is full) while rows are measured. They are appended here and
delivered when the store answers again, by this process or by any later one that writes to the same store. A row goes
into a store under its key, so that one that is delivered twice is there once.

The file is the user's alone (0600, in a folder of 0700 that is not looked for behind a link). A line that a kill tore
in two was never acknowledged, and is passed over. Whoever appends or takes away holds the kernel's lock on the file,
but for the time that a delivery takes: processes that deliver at once deliver the same.

Known inefficiency: every append waits for the disk, some milliseconds.
"""

import contextlib
import json
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from profiles.errors import RecordError, StoreError
from profiles.records.records import Measurement, digest
from profiles.store.places import user_folder
from profiles.store.schema import from_row, to_row
from profiles.store.urls import without_password

try:
    import fcntl
except ImportError:  # Windows, which keeps a file that is open
    fcntl = None

_NO_LINK = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)


def spool_folder() -> Path:
    """Name the folder of all spools of this user."""
    return user_folder("data") / "spool"


class Spool:
    """The rows that wait for one store. Safe to use from several threads and processes at once."""

    def __init__(self, store: str, *, folder: Path | None = None) -> None:
        """Touch nothing yet.

        Args:
            store: the store's name, a URL or an absolute path; its password is not kept.
            folder: where the file lies; `spool_folder()` where None.
        """
        self._store = without_password(store)
        self._folder = folder or spool_folder()
        self.path = self._folder / f"{digest(self._store)}.jsonl"
        """The file, which is there only while rows wait."""

    def append(self, rows: Iterable[Measurement]) -> None:
        """Keep rows until they are delivered; they are durable when this returns.

        Raises:
            StoreError: they could not be kept.
        """
        lines = [json.dumps({"store": self._store, "row": to_row(row)}, sort_keys=True) for row in rows]
        if not lines:
            return
        with self._explained("written"), self._locked() as file:
            size = os.fstat(file).st_size
            torn = size > 0 and _last_byte(file) != b"\n"
            text = ("\n" if torn else "") + "\n".join(lines) + "\n"
            try:
                _write_all(file, text.encode())
                os.fsync(file)
            except OSError:
                with contextlib.suppress(OSError):
                    os.ftruncate(file, size)  # never half a row
                raise

    def rows(self) -> list[Measurement]:
        """Read the rows that wait, oldest first, one of each key: the one that came last.

        Raises:
            StoreError: the file is there and cannot be read.
        """
        return list({row.key: row for row in map(_row, self._lines()) if row is not None}.values())

    def deliver(self, put_all: Callable[[Sequence[Measurement]], object]) -> int:
        """Hand the rows that wait to a store, and forget them when it has taken them.

        Args:
            put_all: stores rows durably, all or none, each under its key; raises where it does not.

        Returns:
            How many rows were delivered. What `put_all` raises passes through, and the rows stay.

        Raises:
            StoreError: the file cannot be read or written.
        """
        lines = self._lines()
        rows = list({row.key: row for row in map(_row, lines) if row is not None}.values())
        if rows:
            put_all(rows)
        if lines:
            self._forget(lines)
        return len(rows)

    def _forget(self, delivered: Sequence[str]) -> None:
        """Take lines away; those that were appended meanwhile, and whole ones that cannot be read, stay."""
        gone = {line for line in delivered if _row(line) is not None or not _is_whole(line)}
        with self._explained("written"), self._locked() as file:
            left = [line for line in _read_lines(file) if line not in gone]
            if not left:
                self.path.unlink(missing_ok=True)
                return
            partial = self.path.with_name(f".{self.path.name}.{os.getpid()}")
            try:
                descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | _NO_LINK, 0o600)
                try:
                    _write_all(descriptor, ("\n".join(left) + "\n").encode())
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)
                os.replace(partial, self.path)
            finally:
                partial.unlink(missing_ok=True)

    def _lines(self) -> list[str]:
        with self._explained("read"):
            try:
                file = os.open(self.path, os.O_RDONLY | _NO_LINK)
            except FileNotFoundError:
                return []
            try:
                self._check(file)
                return _read_lines(file)
            finally:
                os.close(file)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[int]:
        """Hold the file, making it where it is missing; one that was taken away while it was waited for is made anew.

        Raises:
            StoreError: it is another user's, or no plain file.
            OSError: it cannot be made or opened.
        """
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        while True:
            file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | _NO_LINK, 0o600)
            try:
                self._check(file)
                if fcntl is not None:
                    fcntl.flock(file, fcntl.LOCK_EX)
                if self._is_there(file):
                    yield file
                    return
            finally:
                os.close(file)

    def _is_there(self, file: int) -> bool:
        try:
            return os.path.samestat(os.fstat(file), os.stat(self.path))
        except FileNotFoundError:
            return False

    def _check(self, file: int) -> None:
        found = os.fstat(file)
        mine = not hasattr(os, "geteuid") or found.st_uid == os.geteuid()
        if not mine or not stat.S_ISREG(found.st_mode):
            raise StoreError(f"{self.path}, where rows wait for {self._store}, is no plain file of yours; remove it")

    @contextlib.contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            said = error.strerror or error
            raise StoreError(f"{self.path}, where rows wait for {self._store}, cannot be {what}: {said}") from error


def _write_all(file: int, data: bytes) -> None:
    while data:
        data = data[os.write(file, data) :]


def _last_byte(file: int) -> bytes:
    os.lseek(file, -1, os.SEEK_END)
    return os.read(file, 1)


def _read_lines(file: int) -> list[str]:
    os.lseek(file, 0, os.SEEK_SET)
    parts: list[bytes] = []
    while part := os.read(file, 1 << 20):
        parts.append(part)
    return [line for line in b"".join(parts).decode("utf-8", "replace").splitlines() if line]


def _is_whole(line: str) -> bool:
    return line.startswith("{") and line.endswith("}")


def _row(line: str) -> Measurement | None:
    """Read a line; None where it is no row."""
    try:
        document: Any = json.loads(line)
        return from_row(document["row"])
    except (RecordError, ValueError, KeyError, TypeError):
        return None
