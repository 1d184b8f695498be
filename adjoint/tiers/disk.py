"""Files that hold boundary states: the disk tier as the host sees it, plain NumPy and files.

A solve takes a part of a file when it hands its first state over, and the whole of that part is reserved at once: a
disk that is too full is found out there, not in the middle of a sweep. Files have no name in their directory, so that
nothing is left behind however the process ends, and no two processes ever share one. Small solves share a file
(`_Volume`), since each takes two of the process's file descriptors.

A solve may be reversed more than once: a pullback of `jax.vjp` may be called again, and where JAX moves a solve that
does not change out of a loop, every pass of the loop reverses it. So its states stay until the space is needed for
others: reversed solves are kept, the latest first, while together they take at most `KEPT_SHARE` of the free space, and
the latest `KEPT` always.
"""

import contextlib
import errno
import itertools
import mmap
import os
import shutil
import tempfile
import threading
import weakref
from collections.abc import Sequence

import numpy as np

KEPT = 2
"""How many reversed solves keep their states whatever they take."""
KEPT_SHARE = 1 / 8
"""Share of the directory's free bytes that reversed solves may keep."""
VOLUME_BYTES = 64 * 2**20
"""Size of a file that solves share; a larger solve has one of its own."""
ALIGNED = 64


class DiskTierError(RuntimeError):
    """A boundary state could not be kept or fetched."""


def bytes_a_state(sizes: Sequence[int]) -> int:
    """Count the bytes that a state of such leaves takes in a file, aligned to a line of the processor's cache."""
    return _aligned(sum(sizes), ALIGNED)


def _aligned(size: int, unit: int) -> int:
    return max(-(-size // unit), 1) * unit


class _Volume:
    """A file without a name, mapped whole; solves take parts of it, one after the other, none of them twice."""

    def __init__(self, directory: str, size: int) -> None:
        self.directory = directory
        self._size = size
        self._taken = 0
        self._solves = 0
        with tempfile.TemporaryFile(dir=directory) as file:
            file.truncate(size)
            self.map = mmap.mmap(file.fileno(), size)
            self._descriptor = os.dup(file.fileno())
        self._close = weakref.finalize(self, os.close, self._descriptor)

    def has_room(self, size: int) -> bool:
        """Return whether so many bytes fit in."""
        return self._taken + size <= self._size

    def take(self, size: int) -> int:
        """Reserve so many bytes, whole pages; returns where they begin.

        Raises:
            OSError: the disk is full.
        """
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(self._descriptor, self._taken, size)
        start, self._taken, self._solves = self._taken, self._taken + size, self._solves + 1
        return start

    def give_back(self, start: int, size: int) -> None:
        """End a part, whose space the system takes back where it can."""
        self._solves -= 1
        if size > 0 and self._solves > 0 and hasattr(mmap, "MADV_REMOVE"):
            with contextlib.suppress(OSError):
                self.map.madvise(mmap.MADV_REMOVE, start, size)

    def close_if_empty(self) -> bool:
        """Close the file once no solve has a part of it; returns whether it is closed."""
        if self._solves == 0:
            with contextlib.suppress(BufferError):  # a state is still lent: the file ends with the last view of it
                self.map.close()
            self._close()
        return self._solves == 0


class _Solve:
    """The states of one solve, one after the other in its part of a volume."""

    def __init__(self, volume: _Volume, start: int, capacity: int, sizes: Sequence[int]) -> None:
        self.volume = volume
        self.start = start
        self.starts = list(itertools.accumulate(sizes, initial=0))
        self.each = bytes_a_state(sizes)
        self.bytes = _aligned(self.each * capacity, mmap.PAGESIZE)
        self.reversed = False
        self._last = 0
        self._lent: list[weakref.ref] = []

    def write(self, slot: int, values: Sequence[np.ndarray]) -> None:
        for start, value in zip(self.starts, values, strict=False):
            place = self.start + slot * self.each + start
            self.volume.map[place : place + value.nbytes] = np.ascontiguousarray(value).reshape(-1).view(np.uint8).data
        self._let_go(slot)

    def read(self, slot: int, structs: Sequence[tuple[tuple[int, ...], np.dtype]]) -> list[np.ndarray]:
        """Lend a state as views of the file, valid until the next is read: a copy would cost another state."""
        found = []
        for start, (shape, dtype) in zip(self.starts, structs, strict=False):
            size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
            view = np.frombuffer(self.volume.map, np.uint8, size, self.start + slot * self.each + start)
            found.append(view.view(dtype).reshape(shape))
        self._let_go(self._last)
        self._last, self._lent = slot, [weakref.ref(view) for view in found]
        return found

    def give_back(self) -> None:
        """Give the states' space back, unless one of them is lent: then when the volume is closed."""
        lent = any(view() is not None for view in self._lent)
        self.volume.give_back(self.start, 0 if lent else self.bytes)

    def fetch_ahead(self, slot: int) -> None:
        """Let the system read a state into memory while others are worked on."""
        self._advise("MADV_WILLNEED", slot)

    def _let_go(self, slot: int) -> None:
        """Take a state's pages out of this process's memory; the system keeps or writes them as it sees fit."""
        self._advise("MADV_DONTNEED", slot)

    def _advise(self, advice: str, slot: int) -> None:
        if hasattr(mmap, advice):
            first = slot * self.each // mmap.PAGESIZE * mmap.PAGESIZE
            self.volume.map.madvise(
                getattr(mmap, advice), self.start + first, min((slot + 1) * self.each, self.bytes) - first
            )


class Shelf:
    """The solves of a process whose states are on disk, by number; numbers are never given twice.

    The order of `_solves` is that of their last use.
    """

    def __init__(self) -> None:
        """Hold none."""
        self._solves: dict[int, _Solve] = {}
        self._volumes: list[_Volume] = []
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()

    def open(self, directory: str, capacity: int, sizes: Sequence[int]) -> int:
        """Make room for `capacity` states, each of leaves of so many bytes; returns the solve's number.

        Raises:
            DiskTierError: there is no such directory, it may not be written to, or there is too little space.
        """
        size = _aligned(capacity * bytes_a_state(sizes), mmap.PAGESIZE)
        with self._lock:
            try:
                self._tidy(shutil.disk_usage(directory).free * KEPT_SHARE)
                volume, start = self._room(directory, size)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise DiskTierError(f"the disk tier cannot use the directory {directory!r}: {error}") from error
                free = shutil.disk_usage(directory).free
                waiting = [solve.bytes for solve in self._solves.values() if not solve.reversed]
                also = f"; {len(waiting)} solves not yet reversed hold {sum(waiting)} bytes there" if waiting else ""
                raise DiskTierError(
                    f"the disk tier needs {size} bytes for {capacity} states in {directory!r}. "
                    f"There {free} bytes are free{also}. Hold fewer windows, or name another directory"
                ) from error
            number = next(self._numbers)
            self._solves[number] = _Solve(volume, start, capacity, sizes)
        return number

    def _room(self, directory: str, size: int) -> tuple[_Volume, int]:
        """Reserve bytes in a volume, in the place of reversed solves where the disk is full without."""
        while True:
            try:
                for volume in self._volumes:
                    if volume.directory == directory and volume.has_room(size):
                        return volume, volume.take(size)
                self._volumes.append(_Volume(directory, max(size, VOLUME_BYTES)))
                return self._volumes[-1], self._volumes[-1].take(size)
            except OSError as error:
                self._close_empty()
                done = self._reversed()
                if error.errno != errno.ENOSPC or not done:
                    raise
                self._give_back(done[0])

    def _reversed(self) -> list[int]:
        """List the reversed solves, the one whose last use is longest ago first."""
        return [number for number, solve in self._solves.items() if solve.reversed]

    def _tidy(self, most: float) -> None:
        """Give back the oldest reversed solves where they take more than `most` bytes together."""
        done = self._reversed()
        taken = sum(self._solves[number].bytes for number in done)
        for number in done[:-KEPT]:
            if taken <= most:
                break
            taken -= self._solves[number].bytes
            self._give_back(number)

    def _give_back(self, number: int) -> None:
        self._solves.pop(number).give_back()
        self._close_empty()

    def _close_empty(self) -> None:
        self._volumes = [volume for volume in self._volumes if not volume.close_if_empty()]

    def _used(self, number: int, *, reversed: bool = False) -> _Solve:
        with self._lock:
            solve = self._solves.pop(number, None)
            if solve is not None:
                solve.reversed |= reversed
                self._solves[number] = solve
        if solve is None:
            raise DiskTierError(
                "the boundary states of this solve are gone: later solves took the space, or `release_tiers` did; "
                "run the solve again"
            )
        return solve

    def write(self, number: int, slot: int, values: Sequence[np.ndarray]) -> None:
        """Keep a state."""
        self._used(number).write(slot, values)

    def read(
        self, number: int, slot: int, ahead: int, structs: Sequence[tuple[tuple[int, ...], np.dtype]]
    ) -> list[np.ndarray]:
        """Fetch a state; `ahead` is the slot of the one that comes next, -1 for none: the solve is then reversed."""
        solve = self._used(number, reversed=ahead < 0)
        found = solve.read(slot, structs)
        if ahead >= 0:
            solve.fetch_ahead(ahead)
        return found

    def release(self) -> int:
        """Give back every solve; returns how many there were."""
        with self._lock:
            numbers = list(self._solves)
            for number in numbers:
                self._give_back(number)
        return len(numbers)


SHELF = Shelf()


def release_tiers() -> int:
    """Give back the disk space of solves whose gradient was never taken; pullbacks still held can no longer be called.

    Returns:
        How many solves there were.
    """
    return SHELF.release()
