"""A store's profiles summed up by the database, without reading their rows, and whether it has changed since.

Known inefficiency: the database goes over all rows for it, about a second for 100,000 of them in SQLite; whoever asks
often asks for the stamp first.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from profiles.errors import RecordError
from profiles.records.flat import time_of
from profiles.records.records import AdjointName, DeviceKey, ProblemKey, Status, profile_key
from profiles.records.summary import ProfileSummary
from profiles.store.schema import MEASUREMENTS

_KEY_COLUMNS = (
    "problem_name", "problem_components", "device_platform", "device_kind", "device_count", "device_memory_bytes",
    "device_planned", "adjoint",
)  # fmt: skip
_CASE_COLUMNS = ("horizon", "tolerance", "set_values", "x64", "mesh")


def summaries(connection: sa.Connection, labels: Mapping[str, Any], problem_name: str | None) -> list[ProfileSummary]:
    """Sum up every profile, by name, the newest first where names are equal.

    Args:
        connection: to the store.
        labels: the names that people gave, by profile id.
        problem_name: only those of this problem.

    Raises:
        ValueError: a row was damaged.
    """
    rows = MEASUREMENTS.c
    split = [rows[name] for name in (*_KEY_COLUMNS, *_CASE_COLUMNS, "versions")]
    lost = sa.func.sum(sa.case((rows.status != str(Status.OK), 1), else_=0))
    statement = sa.select(
        *split, sa.func.count().label("rows"), lost.label("failed"), sa.func.max(rows.measured_at).label("newest_at")
    ).group_by(*split)
    if problem_name is not None:
        statement = statement.where(rows.problem_name == problem_name)
    groups: dict[str, list[dict[str, Any]]] = {}
    for found in connection.execute(statement).mappings():
        group = dict(found)
        try:
            groups.setdefault(_read(group), []).append(group)
        except (RecordError, ValueError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(f"a row of {group['problem_name']!r}: {error}") from error
    found = [_summary(some, labels.get(id_)) for id_, some in groups.items()]
    found.sort(key=lambda one: one.newest_at, reverse=True)
    return sorted(found, key=lambda one: one.name)


def _read(group: dict[str, Any]) -> str:
    """Read what a group's rows share, and return the id of their profile."""
    group["problem"] = ProblemKey(name=group["problem_name"], components=json.loads(group["problem_components"]))
    group["device"] = DeviceKey(
        platform=group["device_platform"], kind=group["device_kind"], count=group["device_count"],
        memory_bytes=group["device_memory_bytes"], planned=bool(group["device_planned"]),
    )  # fmt: skip
    group["versions"] = {f"{name} {number}" for name, number in json.loads(group["versions"]).items()}
    group["case"] = _case(group)
    group["newest_at"] = time_of(str(group["newest_at"]))
    group["adjoint"] = AdjointName(group["adjoint"])
    return profile_key(group["problem"], group["device"], group["adjoint"])


def _summary(groups: list[dict[str, Any]], label: Any) -> ProfileSummary:
    """Bring the groups of one profile together."""
    newest = max(groups, key=lambda group: group["newest_at"])
    return ProfileSummary(
        name=str(label or newest["problem_name"]),
        problem=newest["problem"],
        device=newest["device"],
        adjoint=newest["adjoint"],
        cases=len({group["case"] for group in groups}),
        rows=sum(group["rows"] for group in groups),
        failed=sum(int(group["failed"]) for group in groups),
        newest_at=newest["newest_at"],
        versions=tuple(sorted(set().union(*(group["versions"] for group in groups)))),
    )


def _case(group: Mapping[str, Any]) -> tuple[Any, ...]:
    """Tell the case of a group: 100 and 100.0 are one horizon."""
    horizon = None if group["horizon"] is None else json.loads(group["horizon"])
    return horizon, *(group[name] for name in _CASE_COLUMNS[1:])


def stamp(connection: sa.Connection) -> str:
    """Write how many rows there are and when the newest was measured."""
    return str(tuple(connection.execute(sa.select(sa.func.count(), sa.func.max(MEASUREMENTS.c.measured_at))).one()))


def file_stamp(path: Path) -> str:
    """Write when an SQLite file and its log were last written, and how long they are."""
    found = []
    for one in (path, path.with_name(path.name + "-wal")):
        try:
            state = one.stat()
        except FileNotFoundError:
            continue
        found.append((state.st_mtime_ns, state.st_size))
    return str(found)


def after(cursor: str) -> sa.ColumnElement[bool]:
    """Select what comes after a row in the order of their times and keys; `cursor` is its time, a blank, its key."""
    moment, _, key = cursor.partition(" ")
    rows = MEASUREMENTS.c
    return (rows.measured_at > moment) | ((rows.measured_at == moment) & (rows.key > key))
