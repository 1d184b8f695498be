"""The catalogue of devices to plan for, and the user's additions to it."""

import dataclasses
import difflib
import importlib.resources
import math
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from profiles.errors import DeviceError
from profiles.records.records import DeviceKey

_MEMORY_KEYS = {"memory_gb": 10**9, "memory_gib": 2**30, "memory_bytes": 1}
_TEXT_KEYS = ("platform", "source", "currency", "compute_capability", "topology", "chip_config", "carried_over")
_NUMBER_KEYS = ("price_per_hour", "relative_speed")
_LIST_KEYS = ("kind", "aliases")
_CAPABILITY = re.compile(r"\d+\.\d")
_GPU_FIGURES = (
    "cores", "threads_per_core", "lanes_per_core", "clock_ghz", "cache_mib", "shared_memory_kib",
    "shared_memory_per_block_kib", "bandwidth_gb_per_second",
)  # fmt: skip
"""What XLA is told of a GPU that it compiles for."""
_HARDWARE_UNITS = {
    "cores": 1, "threads_per_core": 1, "lanes_per_core": 1, "clock_ghz": 10**9, "cache_mib": 2**20,
    "shared_memory_kib": 2**10, "shared_memory_per_block_kib": 2**10, "bandwidth_gb_per_second": 10**9,
    "teraflops": 10**12, "matrix_teraflops": 10**12, "available_gib": 2**30,
}  # fmt: skip
PREALLOCATED_SHARE = 0.75
"""The share of a GPU that JAX takes at first use unless it is told otherwise (JAX documentation, GPU memory)."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """What a compiler for a device is told that is not here, and what a bound of its seconds rests on.

    `compute_capability` is a GPU's, `topology` and `chip_config` are a TPU's; both empty where XLA does not compile for
    the device. Figures are None where no source states them: `clock` in Hz, `cache` (of a TPU the memory on
    its chip), `shared_memory` of a core and
    `shared_memory_per_block` in bytes, `bandwidth` in bytes a second, `flops` of 32-bit arithmetic and `matrix_flops`
    of dense 16-bit matrix products a second, `available` the bytes that the runtime leaves of a TPU's memory.
    """

    compute_capability: str = ""
    topology: str = ""
    chip_config: str = ""
    cores: int | None = None
    threads_per_core: int | None = None
    lanes_per_core: int | None = None
    clock: int | None = None
    cache: int | None = None
    shared_memory: int | None = None
    shared_memory_per_block: int | None = None
    bandwidth: int | None = None
    flops: int | None = None
    matrix_flops: int | None = None
    available: int | None = None


_HARDWARE_FIELDS = {
    "clock_ghz": "clock", "cache_mib": "cache", "shared_memory_kib": "shared_memory",
    "shared_memory_per_block_kib": "shared_memory_per_block", "bandwidth_gb_per_second": "bandwidth",
    "teraflops": "flops", "matrix_teraflops": "matrix_flops", "available_gib": "available",
}  # fmt: skip
"""The fields of `Hardware` whose keys in the file carry a unit."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A device to plan for.

    `memory_bytes` is all of one device's memory; `kinds` are the names by which JAX knows it; `source` says where the
    figure stands, `sources` where those of `hardware` do. `carried_over` says why XLA does not compile for the device,
    empty where it does. `price_per_hour` (in `currency`) and `relative_speed` (how many times faster than the device of
    a profile) are the user's, None where not given.
    """

    name: str
    memory_bytes: int
    platform: str = "gpu"
    kinds: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    source: str = ""
    price_per_hour: float | None = None
    currency: str = ""
    relative_speed: float | None = None
    hardware: Hardware = Hardware()
    sources: Mapping[str, str] = dataclasses.field(default_factory=dict, hash=False)
    carried_over: str = ""

    def available_bytes(self, share: float = PREALLOCATED_SHARE) -> int:
        """Return what JAX may take: of a GPU this share, of a TPU what its runtime leaves, else all."""
        if self.platform == "gpu":
            return int(self.memory_bytes * share)
        return self.memory_bytes if self.hardware.available is None else self.hardware.available

    @property
    def is_compiled_for(self) -> bool:
        """Whether XLA can compile for the device without having it."""
        return bool(self.hardware.compute_capability or self.hardware.topology)

    def is_measured_by(self, key: DeviceKey) -> bool:
        """Return whether a profile of this key was measured on one such device."""
        return key.count == 1 and key.kind.lower() in {kind.lower() for kind in (self.name, *self.kinds)}


def load_devices(extra_toml: str | Path | None = None) -> dict[str, Device]:
    """Read the catalogue, with a user's file laid over it.

    Args:
        extra_toml: a TOML file whose tables add devices, or change some figures of those that are there (a price).

    Returns:
        The devices by name.

    Raises:
        DeviceError: the file cannot be read, or one of its entries is wrong; the entry and the key are named.
    """
    shipped = importlib.resources.files("profiles").joinpath("devices.toml").read_text(encoding="utf-8")
    entries: dict[str, dict[str, Any]] = tomllib.loads(shipped)
    if extra_toml is not None:
        for name, entry in _read(Path(extra_toml)).items():
            if not isinstance(entry, dict):
                raise DeviceError(f"{extra_toml}: a device is a table, [{name}] with its keys below, found {entry!r}")
            known = entries.get(name, {})
            if set(entry) & set(_MEMORY_KEYS):
                known = {key: value for key, value in known.items() if key not in _MEMORY_KEYS}
            entries[name] = known | entry
    place = "devices.toml" if extra_toml is None else str(extra_toml)
    return {name: _device(name, entry, place) for name, entry in entries.items()}


def find_devices(names: Iterable[str], catalogue: Mapping[str, Device]) -> list[Device]:
    """Look devices up by name or alias, in the given order.

    Raises:
        DeviceError: a name is not in the catalogue; near names are offered.
    """
    by_name = {alias.lower(): device for device in catalogue.values() for alias in (*device.aliases, device.name)}
    found = []
    for name in names:
        device = by_name.get(name.strip().lower())
        if device is None:
            near = difflib.get_close_matches(name.lower(), by_name, n=4, cutoff=0.5) or sorted(catalogue)
            raise DeviceError(
                f"no device is named {name!r} in the catalogue; "
                f"it has {', '.join(near)}{' and others' if len(near) < len(by_name) else ''}: "
                "add yours in a TOML file with memory_gib"
            )
        found.append(device)
    return found


def _read(path: Path) -> dict[str, Any]:
    """Read a user's file."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DeviceError(f"cannot read the catalogue {path}: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DeviceError(f"the catalogue {path} is not TOML: {error}") from error


def _device(name: str, entry: Mapping[str, Any], place: str) -> Device:
    """Make one device of its entry."""
    known = {*_MEMORY_KEYS, *_TEXT_KEYS, *_NUMBER_KEYS, *_LIST_KEYS, *_HARDWARE_UNITS, "sources"}
    if unknown := sorted(set(entry) - known):
        raise DeviceError(f"{place}: [{name}] has the unknown key {unknown[0]}; known are {', '.join(sorted(known))}")
    sizes = [(key, entry[key]) for key in _MEMORY_KEYS if key in entry]
    if len(sizes) != 1:
        said = ", ".join(key for key, _ in sizes) or "none"
        raise DeviceError(f"{place}: [{name}] needs one of {', '.join(_MEMORY_KEYS)}, found {said}")
    key, size = sizes[0]
    numbers = {k: _positive(entry[k], f"{place}: [{name}] {k}") for k in _NUMBER_KEYS if k in entry}
    for k in _TEXT_KEYS:
        if not isinstance(entry.get(k, ""), str):
            raise DeviceError(f"{place}: [{name}] {k} must be a text, found {entry[k]!r}")
    sources = entry.get("sources", {})
    if not isinstance(sources, dict) or not all(isinstance(text, str) for text in sources.values()):
        raise DeviceError(f"{place}: [{name}] sources must be a table of texts, found {sources!r}")
    return Device(
        name=name,
        memory_bytes=int(_positive(size, f"{place}: [{name}] {key}") * _MEMORY_KEYS[key]),
        kinds=_texts(entry.get("kind", ()), f"{place}: [{name}] kind"),
        aliases=_texts(entry.get("aliases", ()), f"{place}: [{name}] aliases"),
        platform=entry.get("platform", "gpu"),
        source=entry.get("source", ""),
        currency=entry.get("currency", ""),
        price_per_hour=numbers.get("price_per_hour"),
        relative_speed=numbers.get("relative_speed"),
        hardware=_hardware(entry, f"{place}: [{name}]"),
        sources={key.strip(): text for keys, text in sources.items() for key in keys.split(",")},
        carried_over=entry.get("carried_over", ""),
    )


def _hardware(entry: Mapping[str, Any], place: str) -> Hardware:
    """Read the figures of the hardware, in whole units."""
    figures = {
        _HARDWARE_FIELDS.get(key, key): round(_positive(entry[key], f"{place} {key}") * unit)
        for key, unit in _HARDWARE_UNITS.items()
        if key in entry
    }
    texts = {key: entry.get(key, "") for key in ("compute_capability", "topology", "chip_config")}
    if texts["compute_capability"] and not _CAPABILITY.fullmatch(texts["compute_capability"]):
        raise DeviceError(f"{place} compute_capability must be like 9.0, found {texts['compute_capability']!r}")
    if texts["compute_capability"] and (missing := [key for key in _GPU_FIGURES if key not in entry]):
        raise DeviceError(f"{place} has a compute_capability, and so needs {missing[0]} too")
    return Hardware(**figures, **texts)


def _positive(value: Any, place: str) -> float:
    """Read a figure above zero."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or value <= 0:
        raise DeviceError(f"{place} must be a number above 0, found {value!r}")
    return value


def _texts(value: Any, place: str) -> tuple[str, ...]:
    """Read one text or a list of texts."""
    texts = (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list | tuple) else None
    if texts is None or not all(isinstance(text, str) for text in texts):
        raise DeviceError(f"{place} must be a text or a list of texts, found {value!r}")
    return texts
