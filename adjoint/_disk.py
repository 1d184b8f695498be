"""Files that hold boundary states: the disk tier as the host sees it, plain NumPy and files.

A solve that runs forward opens a file of its own, without a name in its directory, so that nothing is left behind
however the process ends, and no two processes, threads or solves ever share one. Its whole size is reserved at once:
a disk that is too full is found out before the first step, not in the middle of a run.

A file is given back when its solve has been reversed and `KEPT` further ones have been: a pullback of `jax.vjp` may be
called again.
"""

import contextlib
import errno
import itertools
import mmap
import os
import shutil
import tempfile
import threading
from collections.abc import Sequence

import numpy as np

KEPT = 2
"""How many reversed solves keep their files."""
ALIGNED = 64


class DiskTierError(RuntimeError):
    """A boundary state could not be kept or fetched."""


def bytes_a_state(sizes: Sequence[int]) -> int:
    """Count the bytes that a state of such leaves takes in a file, aligned to a line of the processor's cache."""
    return max(-(-sum(sizes) // ALIGNED), 1) * ALIGNED


class _File:
    """The states of one solve, one after the other."""

    def __init__(self, directory: str, capacity: int, sizes: Sequence[int]) -> None:
        self.starts = list(itertools.accumulate(sizes, initial=0))
        self.each = bytes_a_state(sizes)
        self.bytes = self.each * capacity
        self.reversed = False
        self._lent = 0
        with tempfile.TemporaryFile(dir=directory) as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, self.bytes)
            else:
                file.truncate(self.bytes)
            self._map = mmap.mmap(file.fileno(), self.bytes)

    def write(self, slot: int, values: Sequence[np.ndarray]) -> None:
        for start, value in zip(self.starts, values, strict=False):
            place = slot * self.each + start
            self._map[place : place + value.nbytes] = np.ascontiguousarray(value).reshape(-1).view(np.uint8).data
        self._let_go(slot)

    def read(self, slot: int, structs: Sequence[tuple[tuple[int, ...], np.dtype]]) -> list[np.ndarray]:
        """Lend a state as views of the file, which hold until the next is read: a copy would cost another state."""
        found = []
        for start, (shape, dtype) in zip(self.starts, structs, strict=False):
            count = int(np.prod(shape, dtype=np.int64))
            view = np.frombuffer(self._map, np.uint8, count * dtype.itemsize, slot * self.each + start)
            found.append(view.view(dtype).reshape(shape))
        self._let_go(self._lent)
        self._lent = slot
        return found

    def fetch_ahead(self, slot: int) -> None:
        """Let the system read a state into memory while others are worked on."""
        self._advise("MADV_WILLNEED", slot)

    def _let_go(self, slot: int) -> None:
        """Take a state's pages out of this process's memory; the system keeps or writes them as it sees fit."""
        self._advise("MADV_DONTNEED", slot)

    def _advise(self, advice: str, slot: int) -> None:
        if hasattr(mmap, advice):
            start = slot * self.each // mmap.PAGESIZE * mmap.PAGESIZE
            self._map.madvise(getattr(mmap, advice), start, (slot + 1) * self.each - start)

    def close(self) -> None:
        with contextlib.suppress(BufferError):  # a state is still lent: the file ends with the last view of it
            self._map.close()


class Shelf:
    """The open files of a process, by number; numbers are never given twice."""

    def __init__(self) -> None:
        """Hold none."""
        self._files: dict[int, _File] = {}
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()

    def open(self, directory: str, capacity: int, sizes: Sequence[int]) -> int:
        """Open a file for `capacity` states, each of leaves of so many bytes; returns its number.

        Raises:
            DiskTierError: there is no such directory, it may not be written to, or there is too little space.
        """
        with self._lock:
            done = [number for number, file in self._files.items() if file.reversed]
            for number in done[:-KEPT]:
                self._files.pop(number).close()
            waiting = [file.bytes for file in self._files.values() if not file.reversed]
        needed = capacity * bytes_a_state(sizes)
        try:
            file = _File(directory, capacity, sizes)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise DiskTierError(f"the disk tier cannot use the directory {directory!r}: {error}") from error
            free = shutil.disk_usage(directory).free
            also = f"; {len(waiting)} solves not yet reversed hold {sum(waiting)} bytes there" if waiting else ""
            raise DiskTierError(
                f"the disk tier needs {needed} bytes for {capacity} states in {directory!r}, where {free} bytes are "
                f"free{also}: hold fewer windows, or name another directory"
            ) from error
        with self._lock:
            number = next(self._numbers)
            self._files[number] = file
        return number

    def _file(self, number: int) -> _File:
        with self._lock:
            file = self._files.get(number)
        if file is None:
            raise DiskTierError(
                "the boundary states of this solve are gone: a pullback was called again after "
                f"{KEPT} later solves had been reversed, or after `release_tiers`; run the solve again"
            )
        return file

    def write(self, number: int, slot: int, values: Sequence[np.ndarray]) -> None:
        """Keep a state."""
        self._file(number).write(slot, values)

    def read(
        self, number: int, slot: int, ahead: int, structs: Sequence[tuple[tuple[int, ...], np.dtype]]
    ) -> list[np.ndarray]:
        """Fetch a state; `ahead` is the slot of that which comes next, -1 for none."""
        file = self._file(number)
        found = file.read(slot, structs)
        if ahead >= 0:
            file.fetch_ahead(ahead)
        return found

    def reversed(self, number: int) -> None:
        """Note that a solve has been reversed."""
        self._file(number).reversed = True

    def release(self) -> int:
        """Give back every file; returns how many there were."""
        with self._lock:
            files, self._files = list(self._files.values()), {}
        for file in files:
            file.close()
        return len(files)


SHELF = Shelf()


def release_tiers() -> int:
    """Give back the disk space of solves whose gradient was never taken; pullbacks still held can no longer be called.

    Returns:
        How many files there were.
    """
    return SHELF.release()
