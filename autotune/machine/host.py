"""Host memory: totals, control-group limits, RLIMIT_AS, and the resident memory of this process. No jax.

What a system does not report is None, never zero. Linux reports everything; macOS and Windows only what psutil knows.
"""

import contextlib
import ctypes
import dataclasses
import sys
from pathlib import Path

import psutil

_KIB = 1024


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class HostMemory:
    """Memory of the host as this process may use it, in bytes.

    `cgroup_limit_bytes` and `cgroup_used_bytes` are those of the tightest control group above this process (the one
    with the least left), of either version; `address_limit_bytes` is RLIMIT_AS and `address_used_bytes` what counts
    against it.
    """

    total_bytes: int
    available_bytes: int
    resident_bytes: int
    cgroup_limit_bytes: int | None = None
    cgroup_used_bytes: int | None = None
    address_limit_bytes: int | None = None
    address_used_bytes: int | None = None

    @property
    def capacity_bytes(self) -> int:
        """The most that this process could ever have: the least of total, control group and RLIMIT_AS."""
        limits = (self.total_bytes, self.cgroup_limit_bytes, self.address_limit_bytes)
        return min(limit for limit in limits if limit is not None)

    @property
    def free_bytes(self) -> int:
        """What can be had now: the least of psutil's available, the control group's rest, and RLIMIT_AS's rest."""
        rests = [self.available_bytes]
        if self.cgroup_limit_bytes is not None:
            rests.append(self.cgroup_limit_bytes - (self.cgroup_used_bytes or 0))
        if self.address_limit_bytes is not None:
            rests.append(self.address_limit_bytes - (self.address_used_bytes or 0))
        return max(0, min(rests))


def host_memory(root: Path = Path("/")) -> HostMemory:
    """Read the host's memory.

    Args:
        root: where `/proc` and `/sys` lie; another folder in tests.
    """
    memory = psutil.virtual_memory()
    process = psutil.Process().memory_info()
    cgroup = tightest_cgroup(root, memory.total)
    address_limit = _address_limit()
    return HostMemory(
        total_bytes=memory.total,
        available_bytes=memory.available,
        resident_bytes=process.rss,
        cgroup_limit_bytes=cgroup[0] if cgroup else None,
        cgroup_used_bytes=cgroup[1] if cgroup else None,
        address_limit_bytes=address_limit,
        address_used_bytes=process.vms if address_limit is not None else None,
    )


def tightest_cgroup(root: Path, total_bytes: int) -> tuple[int, int] | None:
    """Find the control group above this process with the least memory left.

    Args:
        root: where `/proc` and `/sys` lie.
        total_bytes: limits of at least this are no limits (version 1 writes a huge number for "none").

    Returns:
        Its limit and its usage in bytes, the page cache that can be dropped not counted; None where none limits.
    """
    found: list[tuple[int, int]] = []
    for folder, limit_name, used_name, cache_key in _cgroup_folders(root):
        limit, used = _read_int(folder / limit_name), _read_int(folder / used_name)
        if limit is None or used is None or limit >= total_bytes:
            continue
        # The kernel drops inactive file pages before it kills, so they are free in the sense of psutil's "available".
        found.append((limit, max(0, used - _stat(folder / "memory.stat", cache_key))))
    return min(found, key=lambda pair: pair[0] - pair[1], default=None)


def _cgroup_folders(root: Path) -> list[tuple[Path, str, str, str]]:
    """List the memory groups of this process and all above them, as (folder, limit, usage, cache key) names."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    folders = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            base, names = root / "sys/fs/cgroup", ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            base = root / "sys/fs/cgroup/memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        parts = [part for part in path.split("/") if part]
        # Inside a container the path may be the host's while the folder shown is the group itself: the root counts too.
        folders += [(base.joinpath(*parts[:depth]), *names) for depth in range(len(parts), -1, -1)]
    return folders


def _read_int(path: Path) -> int | None:
    try:
        return int(path.read_text().strip())
    except (OSError, ValueError):  # "max" is no limit
        return None


def _stat(path: Path, key: str) -> int:
    try:
        for line in path.read_text().splitlines():
            name, _, value = line.partition(" ")
            if name == key:
                return int(value)
    except (OSError, ValueError):
        pass
    return 0


def _address_limit() -> int | None:
    try:
        import resource
    except ImportError:  # Windows has none
        return None
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    return None if soft == resource.RLIM_INFINITY else soft


def limit_address_space(limit_bytes: int) -> str:
    """Set RLIMIT_AS of this process.

    Returns:
        A word on why it could not be set, empty when it was.
    """
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (limit_bytes, limit_bytes))
    except (ImportError, ValueError, OSError) as error:
        return f"a memory limit of {limit_bytes} bytes could not be set on {sys.platform}: {error}"
    return ""


def oom_kills(root: Path = Path("/")) -> int | None:
    """Count the kernel's out-of-memory kills so far, on this host and in this control group; None where unknown."""
    counts = [_stat_or_none(root / "proc/vmstat", "oom_kill")]
    for folder, limit_name, _, _ in _cgroup_folders(root):
        name = "memory.events" if limit_name == "memory.max" else "memory.oom_control"
        counts.append(_stat_or_none(folder / name, "oom_kill"))
    known = [count for count in counts if count is not None]
    return sum(known) if known else None


def _stat_or_none(path: Path, key: str) -> int | None:
    try:
        for line in path.read_text().splitlines():
            name, _, value = line.partition(" ")
            if name == key:
                return int(value)
    except (OSError, ValueError):
        pass
    return None


def resident_bytes() -> int | None:
    """Read the resident memory of this process from /proc (Linux only; None elsewhere)."""
    return _status("VmRSS")


def anonymous_bytes() -> int | None:
    """Read the part of the resident memory that is no file's, from /proc (Linux only; None elsewhere)."""
    return _status("RssAnon")


def resident_peak_bytes() -> int | None:
    """Read the highest resident memory since `reset_resident_peak`, from /proc (Linux only; None elsewhere)."""
    return _status("VmHWM")


def _status(key: str) -> int | None:
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(key + ":"):
                return int(line.split()[1]) * _KIB
    except (OSError, ValueError, IndexError):
        pass
    return None


def reset_resident_peak() -> bool:
    """Give freed memory back to the system and set the resident peak to the present value (Linux only).

    Returns:
        Whether the peak could be reset.
    """
    with contextlib.suppress(OSError, AttributeError):  # musl and others have no malloc_trim
        ctypes.CDLL(None).malloc_trim(0)
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True
