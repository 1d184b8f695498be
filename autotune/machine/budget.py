"""Bytes as people write them, and the budget that a device leaves. No jax.

A budget is the bytes of one call of `fn`, its arguments included.
"""

import dataclasses
import math
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from autotune.errors import AutotuneError
from profiles import Measurement

if TYPE_CHECKING:
    from autotune.machine.device import DeviceInfo

DEFAULT_MARGIN = 0.10
"""The share of what a device has free that "auto" and percentages leave alone, until `learn_margin` knows better."""

_LEAST_ROWS = 5
_LEAST_MARGIN = 0.02

_UNITS = {
    "": 1, "b": 1,
    "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12,
    "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40,
}  # fmt: skip
_BYTES = re.compile(r"\s*([0-9][0-9_]*(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)\s*([A-Za-z]*)\s*")
_PERCENT = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*%\s*")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """How many bytes one call may use. `margin_bytes` are left alone already; `note` says where `bytes` comes from."""

    bytes: int
    margin_bytes: int
    asked: str
    note: str = ""


def parse_bytes(text: str | int) -> int:
    """Read a number of bytes: `6GiB`, `1.5GiB`, `500MB` (decimal), `2_000_000`.

    Raises:
        AutotuneError: the text is not a positive number of bytes; the error says what it could mean.
    """
    if isinstance(text, int) and not isinstance(text, bool):
        value = text
    else:
        match = _BYTES.fullmatch(str(text))
        if match is None:
            raise AutotuneError(f"'{text}' is not a number of bytes; write 6GiB, 500MB, 2_000_000, 80% or auto")
        number, unit = match.groups()
        factor = _UNITS.get(unit.lower())
        if factor is None:
            meant = {k: f"{number}{k.upper()}iB (powers of 1024) or {number}{k.upper()}B (of 1000)" for k in "kmgt"}
            hint = meant.get(unit.lower()[:1], f"{number}GiB or {number}GB")
            raise AutotuneError(f"'{text}': unknown unit '{unit}'; write {hint}")
        exact = float(number) * factor if any(mark in number for mark in ".eE") else int(number) * factor
        value = int(exact) if math.isfinite(exact) else 0
    if value <= 0:
        raise AutotuneError(f"'{text}' is {value} bytes; a budget must be positive")
    return value


def parse_share(text: str) -> float | None:
    """Read a share such as `80%` as 0.8; None where the text is none.

    Raises:
        AutotuneError: it is not above 0 % and at most 100 %.
    """
    percent = _PERCENT.fullmatch(text)
    if percent is None:
        return None
    share = float(percent.group(1)) / 100
    if not 0 < share <= 1:
        raise AutotuneError(f"'{text}' is not a share; write 1% to 100%")
    return share


def resolve_budget(
    asked: str | int, info: "DeviceInfo", *, margin: float | None = None, rows: Iterable[Measurement] = ()
) -> Budget:
    """Resolve a budget to bytes on this device.

    An explicit number of bytes is taken as it is, less `margin` where one is given. `80%` and `auto` mean that share
    (all, for `auto`) of the device's limit less what other processes and other live buffers of this process hold,
    and of that they leave `margin` alone; where none is given, what `learn_margin` says of the profile's rows.

    Args:
        asked: `6GiB`, `80%`, `auto`, or a number of bytes.
        info: the device, as `device_info` read it.
        margin: a share, 0 <= margin < 1.
        rows: what was measured of the problem on this device with the adjoint in question: the rows of one profile.

    Raises:
        AutotuneError: the text is not understood, the margin is not a share, or the backend does not report its limit.
    """
    if margin is not None and not 0 <= margin < 1:
        raise AutotuneError(f"a margin of {margin} is not a share; give a number from 0 to below 1, such as 0.1")
    text = str(asked).strip()
    share = 1.0 if text.lower() == "auto" else parse_share(text)
    if share is None:
        whole = parse_bytes(asked)
        kept = math.ceil(whole * (margin or 0.0))
        return Budget(bytes=whole - kept, margin_bytes=kept, asked=text, note=_beyond(whole, info))
    if info.free_bytes is None or info.limit_bytes is None:
        raise AutotuneError(
            f"'{text}' cannot be resolved: "
            f"{info.platform} device {info.index} ({info.kind}) does not report how much memory it has; "
            "give the budget in bytes, such as 6GiB"
        )
    whole = int(share * info.free_bytes)
    kept = math.ceil(whole * (learn_margin(rows) if margin is None else margin))
    if whole - kept <= 0:
        raise AutotuneError(
            f"'{text}': nothing is left of {info.limit_bytes} bytes on {info.kind}; {info.free_bytes} are free; "
            "end what holds the rest (`ckpt-tune device` shows it) or give the budget in bytes"
        )
    note = f"{text} of {info.free_bytes} bytes free of {info.limit_bytes}"
    return Budget(bytes=whole - kept, margin_bytes=kept, asked=text, note=note)


def _beyond(whole: int, info: "DeviceInfo") -> str:
    if info.limit_bytes is not None and whole > info.limit_bytes:
        return f"{whole} bytes are more than the {info.limit_bytes} that {info.kind} has"
    if info.free_bytes is not None and whole > info.free_bytes:
        return f"{whole} bytes are more than the {info.free_bytes} that are free on {info.kind}"
    return ""


def learn_margin(rows: Iterable[Measurement]) -> float:
    """Learn the margin of a device from rows that have both a compiled and a run-time peak.

    Args:
        rows: measurements of one device.

    Returns:
        The 95 % quantile of the excess of run over compiled bytes, as a share of the run-time bytes, at least 0.02;
        `DEFAULT_MARGIN` until five rows have both figures.
    """
    excesses = sorted(
        max(0.0, 1 - row.compiled_bytes / row.run_bytes) for row in rows if row.compiled_bytes and row.run_bytes
    )
    if len(excesses) < _LEAST_ROWS:
        return DEFAULT_MARGIN
    return max(_LEAST_MARGIN, excesses[math.ceil(0.95 * len(excesses)) - 1])
