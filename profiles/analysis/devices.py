"""The catalogue of devices to plan for, and the user's additions to it."""

import dataclasses
import difflib
import importlib.resources
import math
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from profiles.errors import DeviceError
from profiles.records.records import DeviceKey

_MEMORY_KEYS = {"memory_gb": 10**9, "memory_gib": 2**30, "memory_bytes": 1}
_TEXT_KEYS = ("platform", "source", "currency")
_NUMBER_KEYS = ("price_per_hour", "relative_speed")
_LIST_KEYS = ("kind", "aliases")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A device to plan for.

    `memory_bytes` is all of one device's memory; `kinds` are the names by which JAX knows it; `source` says where the
    figure stands. `price_per_hour` (in `currency`) and `relative_speed` (how many times faster than the device of a
    profile) are the user's, None where not given.
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
    known = {*_MEMORY_KEYS, *_TEXT_KEYS, *_NUMBER_KEYS, *_LIST_KEYS}
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
    )


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
