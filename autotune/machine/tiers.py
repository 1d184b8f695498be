"""Tiers as a tune is given them: which, what each may hold, and where. Plain values, no jax."""

import dataclasses
import os
import shutil
from collections.abc import Mapping

from autotune.errors import AutotuneError
from autotune.machine.budget import parse_bytes, parse_share
from autotune.machine.host import host_memory
from profiles import Scalar, format_bytes

DEVICE, HOST, DISK = "device", "host", "disk"
DEFAULT_SHARE = "50%"
"""What a tier may hold of the free host memory, or of the free disk space, where no budget is given."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TierBudget:
    """What a tier may hold: bytes, or a share of what is free as the tune begins. `directory` is the disk tier's."""

    name: str
    budget: str = DEFAULT_SHARE
    directory: str | None = None

    @property
    def free_bytes(self) -> int:
        """What is free on this host now."""
        if self.directory is not None:
            return shutil.disk_usage(self.directory).free
        return host_memory().available_bytes

    def bytes_here(self) -> int:
        """Resolve the budget on this host.

        Raises:
            AutotuneError: the text is neither bytes nor a share, or more than is free.
        """
        share, free = parse_share(self.budget), self.free_bytes
        found = int(share * free) if share is not None else parse_bytes(self.budget)
        if found > free:
            where = f"free in {self.directory}" if self.directory is not None else "free in the host's memory"
            raise AutotuneError(f"--{self.name}-budget {self.budget} is more than the {format_bytes(free)} {where}")
        return found


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TierRequest:
    """What to measure of a tier: what a transfer of `state_bytes` costs, in steps of `step_seconds` (None: unknown)."""

    name: str
    windows: int
    state_bytes: int
    step_seconds: float | None
    set_values: Mapping[str, Scalar]
    directory: str | None = None


def read_tiers(
    listed: str, *, host_budget: str | None, disk_budget: str | None, disk_directory: str | None
) -> tuple[TierBudget, ...]:
    """Read `--tiers` and the options that belong to it; the device needs no naming.

    Raises:
        AutotuneError: an unknown tier, an option of a tier that is not listed, or a disk without a usable directory.
    """
    names = list(dict.fromkeys(part.strip().lower() for part in listed.split(",") if part.strip()))
    unknown = [name for name in names if name not in (DEVICE, HOST, DISK)]
    if unknown:
        raise AutotuneError(f"--tiers {listed!r}: {unknown[0]!r} is not a tier; list some of device, host, disk")
    for option, value, name in (
        ("--host-budget", host_budget, HOST),
        ("--disk-budget", disk_budget, DISK),
        ("--disk-directory", disk_directory, DISK),
    ):
        if value is not None and name not in names:
            raise AutotuneError(f"{option} {value} is for a tier that is not used; add {name} to --tiers {listed}")
    found = [TierBudget(name=HOST, budget=host_budget or DEFAULT_SHARE)] if HOST in names else []
    if DISK in names:
        if disk_directory is None:
            raise AutotuneError("--tiers disk needs --disk-directory DIR, where its file may lie")
        directory = usable_directory(disk_directory)
        found.append(TierBudget(name=DISK, budget=disk_budget or DEFAULT_SHARE, directory=directory))
    for tier in found:
        tier.bytes_here()  # a text that is not a budget is refused before anything runs
    return tuple(sorted(found, key=lambda tier: names.index(tier.name)))


def usable_directory(path: str) -> str:
    """Name a directory by its whole path.

    Raises:
        AutotuneError: it is none, or may not be written to.
    """
    directory = os.path.abspath(os.path.expanduser(path))
    if not os.path.isdir(directory) or not os.access(directory, os.W_OK | os.X_OK):
        raise AutotuneError(f"the disk tier cannot use {path}: it is not a directory that can be written to")
    return directory


def transfer_cost(question: TierRequest, seconds: float) -> float:
    """Turn the seconds of a transfer into steps, to two digits, which is more than timing resolves; 1 where unknown."""
    if not question.step_seconds:
        return 1.0
    return float(f"{seconds / question.step_seconds:.2g}")
