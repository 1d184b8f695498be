"""Where compiled programs are kept between processes, and how large that may grow. No jax."""

import contextlib
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

from autotune.machine.device import cpu_name
from profiles import user_folder

CACHE_LIMIT_BYTES = 2**30
"""How large the folder may grow; beyond it the files used longest ago are removed when a runner closes."""

_VARIABLE = "JAX_COMPILATION_CACHE_DIR"


def compilation_cache(environment: Mapping[str, str]) -> Path:
    """Name the folder of compiled programs: the user's own where JAX_COMPILATION_CACHE_DIR is set, else ours.

    Ours has one folder per processor model, since a program compiled for one may not run on another.
    """
    if environment.get(_VARIABLE):
        return Path(environment[_VARIABLE])
    model = hashlib.sha256(cpu_name().encode()).hexdigest()[:12]
    return user_folder("cache") / "compiled" / model


def prune(folder: Path, limit_bytes: int = CACHE_LIMIT_BYTES) -> int:
    """Remove the files used longest ago until the folder is within its limit.

    Only our own folder is pruned, never one that the user named.

    Returns:
        How many bytes were removed.
    """
    if os.environ.get(_VARIABLE):
        return 0
    entries = []
    for path in folder.glob("*") if folder.is_dir() else ():
        with contextlib.suppress(OSError):  # another process may prune at the same time
            status = path.stat()
            entries.append((max(status.st_atime, status.st_mtime), status.st_size, path))
    total = sum(size for _, size, _ in entries)
    removed = 0
    for _, size, path in sorted(entries, key=lambda entry: entry[0]):
        if total - removed <= limit_bytes:
            break
        with contextlib.suppress(OSError):
            path.unlink()
            removed += size
    return removed
