"""What device is here, how much memory it has, who holds it, and what its backend does not report.

Importing this module loads no jax; `device_info` starts the backend that it reads, so a process that must leave an
accelerator alone lets a worker do it. Keys of `memory_stats()` differ between backends and are looked up by name:
CUDA, ROCm and TPU report `bytes_in_use`, `peak_bytes_in_use` and `bytes_limit`; the CPU backend reports nothing, and
there the host's figures stand.
"""

import csv
import dataclasses
import importlib.metadata
import io
import os
import platform as host_platform
import socket
import subprocess
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from autotune.errors import AutotuneError
from autotune.machine.host import HostMemory, host_memory
from profiles import DeviceKey

ENVIRONMENT = (
    "XLA_FLAGS", "XLA_CLIENT_MEM_FRACTION", "XLA_PYTHON_CLIENT_MEM_FRACTION", "XLA_PYTHON_CLIENT_PREALLOCATE",
    "XLA_PYTHON_CLIENT_ALLOCATOR", "TF_GPU_ALLOCATOR", "JAX_PLATFORMS", "JAX_ENABLE_X64", "JAX_COMPILATION_CACHE_DIR",
    "CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "TPU_VISIBLE_DEVICES", "EQX_ON_ERROR", "LIBTPU_INIT_ARGS",
)  # fmt: skip
"""Environment variables that change what a device gives; those that are set are shown."""

PREALLOCATED_FRACTION = 0.75
"""The share of an accelerator that JAX takes at first use by default (JAX documentation, GPU memory)."""

_PACKAGES = ("jax", "jaxlib", "equinox", "diffrax", "ckpt-tune")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LiveBuffer:
    """Arrays alive in this process, alike in shape, dtype and device; each buffer counted once, aliases or not."""

    shape: tuple[int, ...]
    dtype: str
    device: int
    count: int
    total_bytes: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class OtherProcess:
    """Another process on the same accelerator, as the driver's tool reports it."""

    pid: int
    used_bytes: int | None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DeviceInfo:
    """One device as this process sees it. Bytes; None is unknown, and `unknown` says in words what and why.

    `total_bytes` is the whole device, `limit_bytes` what this process may ever take of it, `in_use_bytes` what this
    process holds of it, `free_bytes` the limit less everything held: by this process, and by others. `planned_for` is
    the number of devices that a call is compiled for where they are not here, 0 where they are.
    """

    platform: str
    kind: str
    index: int
    count: int
    total_bytes: int | None
    limit_bytes: int | None
    in_use_bytes: int | None
    free_bytes: int | None
    live_buffers: tuple[LiveBuffer, ...] = ()
    other_processes: tuple[OtherProcess, ...] = ()
    driver: str | None = None
    mig: str | None = None
    versions: Mapping[str, str] = dataclasses.field(default_factory=dict)
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)
    allocator: str = ""
    statistics: Mapping[str, int] = dataclasses.field(default_factory=dict)
    host: HostMemory
    hostname: str = ""
    unknown: tuple[str, ...] = ()
    planned_for: int = 0

    @property
    def key(self) -> DeviceKey:
        """The key under which measurements on this device are stored: one device of its kind, where it is here."""
        return DeviceKey(
            platform=self.platform, kind=self.kind, count=self.planned_for or 1, memory_bytes=self.total_bytes,
            planned=bool(self.planned_for),
        )  # fmt: skip

    def to_json(self) -> dict[str, Any]:
        """Give the record as JSON-serialisable values."""
        return dataclasses.asdict(self)


def device_info(platform: str | None = None, device: int = 0, *, nvidia: "Nvidia | None" = None) -> DeviceInfo:
    """Read one device. Starts jax's backend.

    Args:
        platform: `cpu`, `gpu`, `cuda`, `rocm` or `tpu`; jax's default backend where None.
        device: its index among the local devices of that platform.
        nvidia: how to run NVIDIA's tool; the installed `nvidia-smi` where None.

    Raises:
        AutotuneError: there is no such platform or device; the text says what is there.
    """
    found, index = _find(platform, device)
    one = found[index]
    host = host_memory()
    statistics = _statistics(one)
    unknown: list[str] = []
    card = None
    if one.platform == "cpu":
        total, limit, in_use, free = host.total_bytes, host.capacity_bytes, None, host.free_bytes
        unknown.append("the CPU backend keeps no memory statistics: bytes in use and peak are the host's figures")
    else:
        card = (nvidia or Nvidia()).card(_hardware_index(one)) if one.platform in ("gpu", "cuda") else None
        total, limit, in_use, free = _accelerator_bytes(statistics, card, unknown)
    environment = {name: os.environ[name] for name in ENVIRONMENT if name in os.environ}
    return DeviceInfo(
        platform=one.platform, kind=_kind(one), index=index, count=len(found), total_bytes=total, limit_bytes=limit,
        in_use_bytes=in_use, free_bytes=free, live_buffers=live_buffers(one), hostname=socket.gethostname(),
        other_processes=card.processes if card else (), driver=card.driver if card else _driver(one),
        mig=card.mig if card else None, versions=versions(), environment=environment, statistics=statistics,
        allocator=allocator_text(one.platform, os.environ), host=host, unknown=tuple(unknown),
    )  # fmt: skip


def smallest(infos: Sequence[DeviceInfo]) -> DeviceInfo:
    """Pick, of several devices that one call spans, the one with the least free memory: its limit counts for all."""
    return min(infos, key=lambda info: float("inf") if info.free_bytes is None else info.free_bytes)


def versions() -> dict[str, str]:
    """Read the versions of the packages that decide what a measurement means, and Python's."""
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found | {"python": host_platform.python_version()}


def live_buffers(device: Any) -> tuple[LiveBuffer, ...]:
    """List the arrays alive on a device in this process, largest first, each buffer counted once.

    Args:
        device: a jax device.
    """
    import jax

    seen: set[int] = set()
    groups: dict[tuple[tuple[int, ...], str], list[int]] = {}
    for array in jax.live_arrays(device.platform):
        if array.is_deleted():
            continue
        for shard in array.addressable_shards:
            if shard.device != device:
                continue
            pointer = _pointer(shard.data)
            if pointer in seen:
                continue
            seen.add(pointer)
            groups.setdefault((tuple(shard.data.shape), str(shard.data.dtype)), []).append(shard.data.nbytes)
    buffers = [
        LiveBuffer(shape=shape, dtype=dtype, device=device.id, count=len(sizes), total_bytes=sum(sizes))
        for (shape, dtype), sizes in groups.items()
    ]
    return tuple(sorted(buffers, key=lambda buffer: (-buffer.total_bytes, buffer.shape, buffer.dtype)))


def _pointer(data: Any) -> int:
    try:
        return data.unsafe_buffer_pointer()
    except Exception:  # key arrays and some backends have no pointer; then the array stands for its buffer
        return id(data)


def _find(platform: str | None, device: int) -> tuple[list[Any], int]:
    import jax

    try:
        found = jax.local_devices(backend=platform)
    except RuntimeError as error:
        here = sorted({d.platform for d in jax.local_devices()})
        raise AutotuneError(
            f"there is no platform '{platform}' here; jax finds {', '.join(here)}. "
            f"For an accelerator install jax's plugin for it ({str(error).splitlines()[0]})"
        ) from error
    if not 0 <= device < len(found):
        kinds = ", ".join(f"{i}: {_kind(d)}" for i, d in enumerate(found))
        raise AutotuneError(f"there is no device {device} on platform '{found[0].platform}'; there are {kinds}")
    return found, device


def _kind(device: Any) -> str:
    """Name the device's model; the CPU backend says only "cpu", so the processor's own name stands there."""
    return cpu_name() if device.platform == "cpu" else str(device.device_kind)


def cpu_name() -> str:
    """Name the processor's model and how many cores there are."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            for line in lines:
                name, _, value = line.partition(":")
                if name.strip() in ("model name", "Model") and value.strip():
                    return f"{value.strip()} ({os.cpu_count()} cores)"
    except OSError:
        pass
    return f"{host_platform.processor() or host_platform.machine() or 'cpu'} ({os.cpu_count()} cores)"


def _statistics(device: Any) -> dict[str, int]:
    try:
        return {name: int(value) for name, value in (device.memory_stats() or {}).items()}
    except Exception:  # backends without statistics raise errors of their own kinds
        return {}


def _hardware_index(device: Any) -> int:
    index = getattr(device, "local_hardware_id", None)
    return int(device.id if index is None else index)


def _driver(device: Any) -> str | None:
    client = getattr(device, "client", None) if device.platform != "cpu" else None
    return ", ".join(str(client.platform_version).split("\n")) if client is not None else None


def _accelerator_bytes(
    statistics: Mapping[str, int], card: "Card | None", unknown: list[str]
) -> tuple[int | None, int | None, int | None, int | None]:
    """Give (total, limit, in use by this process, free) from the backend's statistics and the driver's figures."""
    limit = statistics.get("bytes_limit") or statistics.get("bytes_reservable_limit")
    in_use = statistics.get("bytes_in_use")
    total = card.total_bytes if card else None
    if limit is None:
        unknown.append("this backend reports no bytes_limit: what this process may take is unknown")
    if in_use is None:
        unknown.append("this backend reports no bytes_in_use: what this process holds is unknown")
    if total is None:
        unknown.append("the device's total is unknown (no driver tool answered): the process's limit stands for it")
    if limit is None or in_use is None:
        return total or limit, limit, in_use, None
    free = limit - in_use
    if card is not None and card.free_bytes is not None:
        # What the pool has reserved and not used is free to this process although the driver counts it as taken.
        reserved = statistics.get("pool_bytes") or statistics.get("bytes_reserved") or in_use
        free = min(free, card.free_bytes + max(0, reserved - in_use))
    return total or limit, limit, in_use, max(0, free)


def allocator_text(platform: str, environment: Mapping[str, str]) -> str:
    """Say how this backend allocates under these environment variables; empty on the CPU, which has no pool."""
    if platform == "cpu":
        return ""
    name = environment.get("XLA_PYTHON_CLIENT_ALLOCATOR", "default").lower()
    preallocates = environment.get("XLA_PYTHON_CLIENT_PREALLOCATE", "true").lower() not in ("false", "0")
    fraction = environment.get("XLA_CLIENT_MEM_FRACTION") or environment.get("XLA_PYTHON_CLIENT_MEM_FRACTION")
    share = f"fraction {fraction or PREALLOCATED_FRACTION}"
    if name == "platform":
        return "platform (no pool)"
    return f"{name}, {'preallocated' if preallocates else 'grows on demand'}, {share}"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """An NVIDIA card as its driver's tool reports it."""

    driver: str
    total_bytes: int | None
    free_bytes: int | None
    mig: str | None
    processes: tuple[OtherProcess, ...]


_LONGEST_ANSWER = 2**18
"""Bytes of a table of cards and processes; what says more is something else that has the tool's name."""


def _ask(arguments: Sequence[str]) -> str | None:
    try:
        answer = subprocess.run(
            ["nvidia-smi", *arguments], stdin=subprocess.DEVNULL, capture_output=True, timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    if answer.returncode != 0 or len(answer.stdout) > _LONGEST_ANSWER:
        return None
    return answer.stdout.decode("utf-8", "replace")


@dataclasses.dataclass(frozen=True, slots=True)
class Nvidia:
    """NVIDIA's driver tool; `ask` runs `nvidia-smi` with arguments and returns its output, None where it fails."""

    ask: Callable[[Sequence[str]], str | None] = _ask

    def card(self, index: int) -> Card | None:
        """Read card `index` as CUDA numbers it in this process, None where the tool is not there."""
        fields = "index,uuid,driver_version,memory.total,memory.free,mig.mode.current"
        rows = self._table(f"--query-gpu={fields}")
        row = _visible(rows, index, os.environ.get("CUDA_VISIBLE_DEVICES"))
        if row is None:
            return None
        _, uuid, driver, total, free, mig = row
        is_mig = mig.lower() == "enabled"
        used = self._table("--query-compute-apps=gpu_uuid,pid,used_memory")
        processes = tuple(
            OtherProcess(pid=int(pid), used_bytes=_mib(memory))
            for gpu, pid, memory in (r for r in used if len(r) == 3)
            if gpu == uuid and pid.isdigit() and int(pid) != os.getpid()
        )
        # Under MIG the card's figures are those of the whole card; the slice's are the backend's bytes_limit.
        return Card(
            driver=driver, mig="enabled" if is_mig else None, processes=processes,
            total_bytes=None if is_mig else _mib(total), free_bytes=None if is_mig else _mib(free),
        )  # fmt: skip

    def names(self) -> list[str]:
        """List the names of the cards that are here, starting no backend; empty where the tool is not there."""
        return [row[0] for row in self._table("--query-gpu=name")]

    def _table(self, query: str) -> list[list[str]]:
        text = self.ask([query, "--format=csv,noheader,nounits"])
        try:
            return [[cell.strip() for cell in row] for row in csv.reader(io.StringIO(text or "")) if row]
        except csv.Error:
            return []


def _visible(rows: list[list[str]], index: int, visible: str | None) -> list[str] | None:
    """Find the row of the card that CUDA calls `index` under CUDA_VISIBLE_DEVICES."""
    rows = [row for row in rows if len(row) == 6]
    if visible:
        names = [name.strip() for name in visible.split(",")]
        if index >= len(names):
            return None
        name = names[index]
        if name.startswith("MIG-"):
            return next((row for row in rows if row[5].lower() == "enabled"), None)
        matches = (row for row in rows if name == row[0] or (name.startswith("GPU-") and row[1].startswith(name)))
        return next(matches, None)
    return next((row for row in rows if row[0] == str(index)), None)


def _mib(text: str) -> int | None:
    try:
        return int(float(text)) * 2**20
    except ValueError:  # "[N/A]"
        return None
