"""One timing at a time on one device of this host, whatever processes ask.

The lock is the kernel's on an empty file in the temporary folder: it ends with its holder however that ends, a kill
included. Where the system has no such locks (Windows) nothing is held, and `HELD_HERE` says so.
"""

import contextlib
import getpass
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

HELD_HERE = fcntl is not None
"""Whether this system can keep two timings apart."""


@contextlib.contextmanager
def device_lock(device_fingerprint: str, *, index: int = 0) -> Iterator[None]:
    """Hold the device for timing; waits while another process of this user does."""
    if fcntl is None:
        yield
        return
    path = lock_path(device_fingerprint, index)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def lock_path(device_fingerprint: str, index: int) -> Path:
    """Name the file whose lock stands for a device."""
    folder = Path(tempfile.gettempdir()) / f"ckpt-tune-{_user()}"
    return folder / f"{device_fingerprint}-{index}.lock"


def _user() -> str:
    """Name the user, so that two users of one host do not meet in one folder."""
    getuid = getattr(os, "getuid", None)
    return str(getuid()) if getuid else getpass.getuser()
