"""One timing at a time on one device of this host, and nothing beside it, whichever processes run.

What is timed holds the lock alone. What only keeps the machine busy (compiling) shares it: such processes run beside
each other and never beside a timing. Everybody passes a second lock on the way in, the gate, and whoever waits to time
keeps it closed, so that compiles that follow each other do not put a timing off for ever.

The lock is the kernel's on an empty file: it ends with its holder however that ends, a kill included. Where the system
has no such locks (Windows) nothing is held, and `HELD_HERE` says so.

Nobody waits for ever. The wait for one holder has a limit, after which one line names it. A holder that was stopped
(Ctrl-Z) loses the lock after a moment, where the kernel tells who it is (Linux): its file is taken out of the way, and
whoever waits locks a new one. When it goes on it finds that out (`Held.lost`), and takes its sample again.

The file lies where nobody else can put anything: in a folder of our own below XDG_RUNTIME_DIR, else below the user's
cache folder. Folder and file are opened without following links, must be the user's own, and are never truncated. Two
processes of which one knows no XDG_RUNTIME_DIR do not see each other.
"""

import contextlib
import dataclasses
import errno
import logging
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from autotune.errors import AutotuneError
from profiles import StoreNameError, user_folder

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

HELD_HERE = fcntl is not None
"""Whether this system can keep two timings apart."""

logger = logging.getLogger("autotune")

LOCK_SECONDS = 600.0
"""How long one process may hold the device while another one waits for it, where the caller says nothing else."""
STOPPED_SECONDS = 2.0
"""How long a holder has to be stopped until its lock is taken from it."""

_FIRST_POLL_SECONDS, _LONGEST_POLL_SECONDS = 0.002, 0.1
_RUNTIME = "XDG_RUNTIME_DIR"
_LINK = (errno.ELOOP, errno.ENOTDIR, errno.EMLINK)
"""What systems answer to O_NOFOLLOW at a link (of a folder Linux says that it is none)."""


class DeviceBusyError(AutotuneError):
    """Another process holds the device for longer than anybody waits."""


@dataclasses.dataclass(frozen=True, slots=True)
class Held:
    """A lock that is held, by its open file; `path` is None where nothing is held."""

    path: Path | None = None
    file: int = -1

    @property
    def lost(self) -> bool:
        """Whether another process took the lock over, since this one was stopped for a while."""
        if self.path is None:
            return False
        try:
            return not os.path.samestat(os.fstat(self.file), os.lstat(self.path))
        except OSError:
            return True

    def let_go(self) -> None:
        """Give the lock back."""
        if self.path is not None:
            os.close(self.file)


@contextlib.contextmanager
def device_lock(
    device_fingerprint: str, *, index: int | str = 0, shared: bool = False, seconds: float = LOCK_SECONDS
) -> Iterator[Held]:
    """Hold the device; waits while another process of this user times on it.

    Args:
        device_fingerprint: the device's kind.
        index: which device of that kind on this host.
        shared: hold it together with others that share it; alone otherwise, as timing needs it.
        seconds: how long to wait for one holder.

    Where no folder can be written, or its file system keeps no locks, nothing is held and a warning is logged.

    Raises:
        DeviceBusyError: one process held it all that time.
        AutotuneError: in the place of folder or file lies a link, or something of another user's.
    """
    held = Held()
    if fcntl is not None:
        gate = _held(f"{device_fingerprint}-{index}.gate", seconds)
        try:
            if gate.path is not None:
                held = _held(f"{device_fingerprint}-{index}.lock", seconds, shared=shared)
        finally:
            gate.let_go()
    try:
        yield held
    finally:
        held.let_go()


def _held(name: str, seconds: float, *, shared: bool = False) -> Held:
    """Open and lock the file of a name in the first folder that can have it; nothing where none can."""
    why = "no folder for it is known"
    for folder in lock_folders():
        try:
            return _locked_in(folder, name, seconds, shared=shared)
        except OSError as error:
            why = f"{folder}: {error.strerror or error}"
    logger.warning("timings of other processes on this device are not kept apart from this one's: %s", why)
    return Held()


def _locked_in(folder: Path, name: str, seconds: float, *, shared: bool) -> Held:
    """Lock the file of a name in a folder, waiting for whoever holds it.

    Raises:
        DeviceBusyError: one process held it all that time.
        OSError: it cannot be opened, or its file system keeps no locks.
    """
    assert fcntl is not None
    wait, holders, since, stopped_since = _FIRST_POLL_SECONDS, frozenset(), time.monotonic(), time.monotonic()
    while True:
        held = Held(folder / name, _open_in(folder, name))
        try:
            fcntl.flock(held.file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
            if not held.lost:  # or it was taken out of the way between being opened and being locked
                return held
        except BlockingIOError:
            now, there = time.monotonic(), _holders(os.fstat(held.file).st_ino)
            if there != holders:
                holders, since, stopped_since = there, now, now
            if not holders or not all(map(_is_stopped, holders)):
                stopped_since = now
            elif now - stopped_since > STOPPED_SECONDS:
                _take_out_of_the_way(folder, name, held)
            if now - since > seconds:
                held.let_go()
                who = " and ".join(map(_described, sorted(holders))) or "another process"
                raise DeviceBusyError(
                    f"{who} held the device for over {seconds:g} s ({folder / name}), and two timings would disturb "
                    "each other: end it or let it go on, and run the same command again"
                ) from None
            time.sleep(wait)
            wait = min(wait * 1.5, _LONGEST_POLL_SECONDS)
        except BaseException:
            held.let_go()
            raise
        held.let_go()


def _take_out_of_the_way(folder: Path, name: str, held: Held) -> None:
    """Remove the file whose holders are stopped, one of those who wait at a time, or they would remove a new one."""
    assert fcntl is not None
    file = _open_in(folder, f"{name}.break")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not held.lost:
            logger.warning("the lock %s was taken from processes that are stopped", folder / name)
            (folder / name).unlink()
    except BlockingIOError:
        pass  # another one does it now
    finally:
        os.close(file)


def _holders(inode: int) -> frozenset[int]:
    """Name the processes that hold a lock on a file; none where the system does not tell."""
    found = set()
    try:
        lines = Path("/proc/locks").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return frozenset()
    for words in map(str.split, lines):
        if len(words) > 5 and words[1] == "FLOCK" and words[5].rpartition(":")[2] == str(inode) and words[4].isdigit():
            found.add(int(words[4]))
    return frozenset(found - {0})


def _is_stopped(process: int) -> bool:
    try:
        return psutil.Process(process).status() == psutil.STATUS_STOPPED
    except psutil.Error:
        return False


def _described(process: int) -> str:
    try:
        words = " ".join(" ".join(psutil.Process(process).cmdline()).split())
    except psutil.Error:
        words = ""
    return f"process {process}" + (f" ({words[:80]})" if words else "")


def lock_folders() -> list[Path]:
    """Name the folders in which a lock may lie, the best first."""
    runtime = os.environ.get(_RUNTIME, "")
    found = [Path(runtime) / "ckpt-tune"] if os.path.isabs(runtime) and _is_ours(runtime) else []
    with contextlib.suppress(StoreNameError):  # a user without a home
        found.append(user_folder("cache") / "locks")
    return found


def _is_ours(folder: str) -> bool:
    try:
        return os.stat(folder).st_uid == os.geteuid()
    except OSError:
        return False


def _open_in(folder: Path, name: str) -> int:
    """Open a file in a folder of ours, making both where they are missing.

    Raises:
        AutotuneError: one of them is a link, of another kind than it should be, or another user's.
        OSError: they cannot be made or opened.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _refused(folder):
        directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        found = os.fstat(directory)
        _check_ours(folder, found)
        if stat.S_IMODE(found.st_mode) & 0o077:
            os.fchmod(directory, 0o700)
        with _refused(folder / name):
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
            file = os.open(name, flags, 0o600, dir_fd=directory)
    finally:
        os.close(directory)
    try:
        found = os.fstat(file)
        _check_ours(folder / name, found)
        if not stat.S_ISREG(found.st_mode):
            raise AutotuneError(f"{folder / name} is not a plain file, as a lock must be; remove it, and run again")
    except BaseException:
        os.close(file)
        raise
    return file


@contextlib.contextmanager
def _refused(path: Path) -> Iterator[None]:
    """Say in one line that a link lies where folder or file should be."""
    try:
        yield
    except OSError as error:
        if error.errno in _LINK or path.is_symlink():
            raise AutotuneError(
                f"{path} is a link or no folder, and a lock is not looked for behind one; remove it, and run again"
            ) from error
        raise


def _check_ours(path: Path, found: os.stat_result) -> None:
    if found.st_uid != os.geteuid():
        raise AutotuneError(
            f"{path} belongs to user {found.st_uid}, and this process to user {os.geteuid()}; remove it, "
            f"or set {_RUNTIME} to a folder of your own"
        )
