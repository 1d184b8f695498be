"""Rows of a store as measurements, many at a time.

What was written was checked before, so a row whose values have the types of their columns is taken as it is; any other
is read the long way (`profiles.store.schema.from_row`), which says what is wrong with it. Texts that repeat from row to
row (a problem's components, versions, `--set` values) are read once, and rows share what came of them.
"""

import datetime as dt
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from profiles.errors import RecordError
from profiles.records.flat import COLUMNS, Kind
from profiles.records.records import (
    AdjointName,
    DeviceKey,
    Measurement,
    PeakSource,
    ProblemKey,
    Profile,
    Status,
    Tier,
    profile_id,
)
from profiles.records.values import read_values
from profiles.store.schema import from_row

_NAMES = tuple(column.name for column in COLUMNS)
_AT = {name: index for index, name in enumerate(_NAMES)}
_PLAIN_TEXTS = tuple(_AT[name] for name in ("study", "xla_flags", "allocator", "mesh", "message", "host", "tier"))
_COUNTS = tuple(
    _AT[c.name] for c in COLUMNS if c.kind is Kind.INTEGER and c.name not in ("seed", "device_count", "windows")
)  # fmt: skip
_REALS = tuple(_AT[c.name] for c in COLUMNS if c.kind is Kind.REAL and c.name != "transfer_cost")
_COPIED = tuple(
    (name, _AT[name])
    for name in (
        "study", "xla_flags", "allocator", "mesh", "message", "host", "checkpoints", "expected_steps", "repeat", "x64",
        "tolerance", "steps", "accepted", "rejected", "executed_steps", "recompute_factor", "temp_bytes",
        "argument_bytes", "output_bytes", "alias_bytes", "constant_bytes", "compiled_bytes", "host_bytes",
        "compiled_peak_bytes", "run_bytes", "peak_bytes", "trace_seconds", "compile_seconds", "seed",
    )
)  # fmt: skip


class RowReader:
    """Reads rows whose columns stand in the order of `COLUMNS`."""

    def __init__(self) -> None:
        """Know no text yet."""
        self._known: dict[Any, Any] = {}

    def read(self, row: Sequence[Any]) -> Measurement:
        """Read one row.

        Raises:
            RecordError: it is not a measurement.
        """
        found = self._quickly(row)
        return from_row(dict(zip(_NAMES, row, strict=True))) if found is None else found

    def _quickly(self, row: Sequence[Any]) -> Measurement | None:
        """Read a row whose values are all of the types that were written; None where one is not."""
        for at in _PLAIN_TEXTS:
            if type(row[at]) is not str:
                return None
        for at in _COUNTS:
            value = row[at]
            if value is not None and (type(value) is not int or value < 0):
                return None
        for at in _REALS:
            value = row[at]
            if value is not None and (type(value) is not float or not math.isfinite(value)):
                return None
        seed, checkpoints = row[_AT["seed"]], row[_AT["checkpoints"]]
        if type(checkpoints) is not int or type(row[_AT["repeat"]]) is not int or type(row[_AT["x64"]]) is not bool:
            return None
        if seed is not None and type(seed) is not int:
            return None
        try:
            samples = json.loads(row[_AT["run_seconds"]])
            if type(samples) is not list or not all(type(s) is float and math.isfinite(s) for s in samples):
                return None
            measured_at = dt.datetime.fromisoformat(row[_AT["measured_at"]])
            if measured_at.tzinfo is None:
                return None
            found = object.__new__(Measurement)
            put = object.__setattr__
            for name, at in _COPIED:
                put(found, name, row[at])
            put(found, "problem", self._once(_problem, row[_AT["problem_name"]], row[_AT["problem_components"]]))
            put(found, "device", self._once(_device, *(row[at] for at in _DEVICE)))
            put(found, "tier", self._once(_tier, *(row[at] for at in _TIER)) if row[_AT["tier"]] else None)
            put(found, "set_values", self._once(_values, row[_AT["set_values"]]))
            put(found, "versions", self._once(_versions, row[_AT["versions"]]))
            put(found, "horizon", self._once(_horizon, row[_AT["horizon"]]))
            put(found, "adjoint", self._once(AdjointName, row[_AT["adjoint"]]))
            put(found, "status", self._once(Status, row[_AT["status"]]))
            source = row[_AT["peak_source"]]
            put(found, "peak_source", None if source is None else self._once(PeakSource, source))
            put(found, "run_seconds", tuple(samples))
            put(found, "measured_at", measured_at.astimezone(dt.UTC))
        except (RecordError, TypeError, ValueError, AttributeError, OverflowError, RecursionError):
            return None
        return found

    def _once(self, read: Callable[..., Any], *texts: Any) -> Any:
        """Read texts that were not read before."""
        key = (read, *texts)
        if key not in self._known:
            self._known[key] = read(*texts)
        return self._known[key]


def profiles_of(rows: Iterable[Measurement], labels: Mapping[str, Any]) -> list[Profile]:
    """Bring rows, oldest first, together to profiles: by name, the newest first where names are equal.

    Args:
        rows: all rows of each profile.
        labels: the names that people gave profiles, by id.
    """
    groups: dict[str, list[Measurement]] = {}
    ids: dict[tuple[int, int, str], str] = {}  # rows that were read together share their problem and device
    for row in rows:
        shared = id(row.problem), id(row.device), row.adjoint
        if shared not in ids:
            ids[shared] = profile_id(row)
        groups.setdefault(ids[shared], []).append(row)
    found = [
        Profile(name=str(labels.get(id_) or rows[-1].problem.name), measurements=tuple(rows))
        for id_, rows in groups.items()
    ]
    found.sort(key=lambda profile: profile.newest.measured_at, reverse=True)
    return sorted(found, key=lambda profile: profile.name)


_DEVICE = tuple(_AT[f"device_{name}"] for name in ("platform", "kind", "count", "memory_bytes", "planned"))
_TIER = tuple(_AT[name] for name in ("tier", "windows", "transfer_cost"))


def _problem(name: str, components: str) -> ProblemKey:
    return ProblemKey(name=name, components=json.loads(components))


def _device(platform: str, kind: str, count: int, memory_bytes: int | None, planned: Any) -> DeviceKey:
    return DeviceKey(platform=platform, kind=kind, count=count, memory_bytes=memory_bytes, planned=bool(planned))


def _tier(name: str, windows: int, transfer_cost: float) -> Tier:
    return Tier(name=name, windows=windows, transfer_cost=transfer_cost)


def _values(text: str) -> dict[str, Any]:
    return _blank(set_values=read_values(json.loads(text))).set_values  # pyright: ignore[reportReturnType]


def _versions(text: str) -> dict[str, str]:
    return _blank(versions=json.loads(text)).versions  # pyright: ignore[reportReturnType]


def _horizon(text: str | None) -> int | float | None:
    return None if text is None else _blank(horizon=json.loads(text)).horizon


def _blank(**fields: Any) -> Measurement:
    """Have a measurement check and bring its own fields into order."""
    return Measurement(
        study="", problem=ProblemKey(name="", components={}), device=DeviceKey(platform="", kind=""),
        adjoint=AdjointName.OURS, checkpoints=1, **fields,
    )  # fmt: skip
