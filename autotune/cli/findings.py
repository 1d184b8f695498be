"""What `device` says besides the device: extras, the store, what is wrong, and the command that repairs it."""

import dataclasses
import importlib.metadata
import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from autotune.machine.device import Nvidia
from profiles import ProfilesError, default_url, format_bytes, open_store, without_password

if TYPE_CHECKING:
    from autotune.machine.device import DeviceInfo

FOR_USERS = ("postgresql", "parquet", "cluster", "serve", "examples", "docs")
"""The extras that are named; `test` is for who changes this project."""
LITTLE = 0.1
"""A device of which less than this share is free has something on it that a budget of a share will feel."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something that is wrong or in the way, and the command or the step that repairs it."""

    problem: str
    repair: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Extra:
    """An optional part of this project, and which of its distributions are not here."""

    name: str
    missing: tuple[str, ...]

    def __str__(self) -> str:
        if not self.missing:
            return "installed"
        return f'{", ".join(self.missing)} not here: pip install "ckpt-tune[{self.name}]"'


def extras(requirements: Iterable[str] | None = None) -> tuple[Extra, ...]:
    """List the extras and what each lacks.

    Args:
        requirements: as the metadata has them (`pyarrow>=17; extra == "parquet"`); those of the installed ckpt-tune
            where None.
    """
    listed = importlib.metadata.requires("ckpt-tune") if requirements is None else requirements
    needed: dict[str, list[str]] = {}
    for text in listed or ():
        found = re.match(r"([\w.-]+).*extra == ['\"]([\w-]+)['\"]", text)
        if found is not None:
            needed.setdefault(found.group(2), []).append(found.group(1))
    return tuple(
        Extra(name=name, missing=tuple(one for one in needed[name] if not _is_here(one)))
        for name in FOR_USERS
        if name in needed
    )


def _is_here(distribution: str) -> bool:
    try:
        importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def store_text() -> tuple[str, Finding | None]:
    """Say which store answers and what it holds; a store that is not there yet is no fault."""
    place = without_password(default_url())
    if "://" not in place and not Path(place).expanduser().exists():
        return f"{place} (made by the first tune)", None
    try:
        with open_store(read_only=True) as store:
            count = len(store.profiles())
    except ProfilesError as error:
        said, _, repair = str(error).partition("; ")
        return f"{place} (does not answer)", Finding(
            problem=said, repair=repair or "name another store in CKPT_TUNE_STORE"
        )
    return f"{place} ({count} profile{'' if count == 1 else 's'})", None


def findings(info: "DeviceInfo", nvidia: Nvidia | None = None) -> tuple[Finding, ...]:
    """Find what is wrong with a device as this process sees it.

    Args:
        info: the device.
        nvidia: how to ask NVIDIA's driver for its cards; its tool where None and where it is installed.
    """
    found = []
    asked = nvidia or (Nvidia() if shutil.which("nvidia-smi") else None)
    cards = asked.names() if asked is not None and info.platform == "cpu" else []
    if cards and "JAX_PLATFORMS" not in info.environment:
        found.append(
            Finding(
                problem=f"the driver has {', '.join(cards)}, and JAX computes on the CPU",
                repair='pip install -U "jax[cuda13]", or what the JAX documentation names for your driver',
            )
        )
    if info.limit_bytes and info.free_bytes is not None and info.free_bytes < LITTLE * info.limit_bytes:
        holders = ", ".join(str(one.pid) for one in info.other_processes)
        found.append(
            Finding(
                problem=f"only {format_bytes(info.free_bytes)} of {format_bytes(info.limit_bytes)} are free",
                repair=f"end process {holders}, or give a budget in bytes" if holders else "give a budget in bytes",
            )
        )
    for name in ("jax", "jaxlib", "equinox", "diffrax"):
        if name not in info.versions:
            found.append(Finding(problem=f"{name} is not installed", repair="pip install --force-reinstall ckpt-tune"))
    return tuple(found)
