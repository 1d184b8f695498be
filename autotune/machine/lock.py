"""One timing at a time on one device of this host, and nothing beside it, whichever processes run.

What is timed holds the lock alone. What only keeps the machine busy (compiling) shares it: such processes run beside
each other and never beside a timing. Everybody passes a second lock on the way in, the gate, and whoever waits to time
keeps it closed, so that compiles that follow each other do not put a timing off for ever.

The lock is the kernel's on an empty file: it ends with its holder however that ends, a kill included. Where the system
has no such locks (Windows) nothing is held, and `HELD_HERE` says so.

The file lies where nobody else can put anything: in a folder of our own below XDG_RUNTIME_DIR, else below the user's
cache folder. Folder and file are opened without following links, must be the user's own, and are never truncated. Two
processes of which one knows no XDG_RUNTIME_DIR do not see each other.
"""

import contextlib
import errno
import logging
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from autotune.errors import AutotuneError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

HELD_HERE = fcntl is not None
"""Whether this system can keep two timings apart."""

logger = logging.getLogger("autotune")

_RUNTIME = "XDG_RUNTIME_DIR"
_LINK = (errno.ELOOP, errno.ENOTDIR, errno.EMLINK)
"""What systems answer to O_NOFOLLOW at a link (of a folder Linux says that it is none)."""


@contextlib.contextmanager
def device_lock(device_fingerprint: str, *, index: int | str = 0, shared: bool = False) -> Iterator[None]:
    """Hold the device; waits while another process of this user times on it.

    Args:
        device_fingerprint: the device's kind.
        index: which device of that kind on this host.
        shared: hold it together with others that share it; alone otherwise, as timing needs it.

    Where no folder can be written, or its file system keeps no locks, nothing is held and a warning is logged.

    Raises:
        AutotuneError: in the place of folder or file lies a link, or something of another user's.
    """
    file = None
    if fcntl is not None:
        gate = _held(f"{device_fingerprint}-{index}.gate")
        try:
            if gate is not None:
                file = _held(f"{device_fingerprint}-{index}.lock", shared=shared)
        finally:
            if gate is not None:
                os.close(gate)
    try:
        yield
    finally:
        if file is not None:
            os.close(file)


def _held(name: str, *, shared: bool = False) -> int | None:
    """Open and lock the file of a name in the first folder that can have it; None where none can."""
    assert fcntl is not None
    why = "no folder for it is known"
    for folder in lock_folders():
        try:
            file = _open_in(folder, name)
        except OSError as error:
            why = f"{folder}: {error.strerror or error}"
            continue
        try:
            fcntl.flock(file, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        except OSError as error:
            os.close(file)
            why = f"{folder}: {error.strerror or error}"
            continue
        except BaseException:
            os.close(file)
            raise
        return file
    logger.warning("timings of other processes on this device are not kept apart from this one's: %s", why)
    return None


def lock_folders() -> list[Path]:
    """Name the folders in which a lock may lie, the best first."""
    import platformdirs  # here, so that naming a problem loads nothing

    runtime = os.environ.get(_RUNTIME, "")
    found = [Path(runtime) / "ckpt-tune"] if os.path.isabs(runtime) and _is_ours(runtime) else []
    return [*found, Path(platformdirs.user_cache_dir("ckpt-tune", appauthor=False)) / "locks"]


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
