"""What a store holds, by profile, without its rows: a database counts them faster than anybody reads them."""

import dataclasses
import datetime as dt
import json
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from profiles.errors import RecordError
from profiles.records.flat import time_of
from profiles.records.records import AdjointName, DeviceKey, ProblemKey, Status, profile_key
from profiles.store.schema import MEASUREMENTS


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """One profile in numbers: cases, rows, rows that did not end well, and when the newest was measured."""

    name: str
    id: str
    problem_name: str
    device: DeviceKey
    adjoint: AdjointName
    cases: int
    measurements: int
    failed: int
    newest: dt.datetime

    @property
    def qualified_name(self) -> str:
        """The name that is never ambiguous, as `Profile.qualified_name`."""
        return f"{self.name}@{self.device.label}:{self.adjoint}#{self.id[:8]}"


def list_profiles(connection: sa.Connection, labels: Mapping[str, Any]) -> list[Summary]:
    """Sum all profiles up, by name, the newest first where names are equal.

    Args:
        connection: to a store.
        labels: the names that people gave profiles, by id.

    Raises:
        ValueError: a row was damaged.
    """
    table = MEASUREMENTS.c
    profile = (
        table.problem_name, table.problem_fingerprint, table.device_platform, table.device_kind, table.device_count,
        table.device_planned, table.adjoint,
    )  # fmt: skip
    case = (table.horizon, table.tolerance, table.set_values, table.x64, table.mesh)
    statement = sa.select(
        *profile,
        *case,
        sa.func.min(table.problem_components).label("components"),
        sa.func.count().label("count"),
        sa.func.sum(sa.case((table.status == str(Status.OK), 0), else_=1)).label("failed"),
        sa.func.max(table.measured_at).label("newest"),
    ).group_by(*profile, *case)
    groups: dict[str, list[Any]] = {}
    made: dict[str, tuple[ProblemKey, DeviceKey]] = {}
    ids: dict[tuple[Any, ...], str] = {}
    for row in connection.execute(statement):
        at = tuple(row[: len(profile)])
        if at not in ids:
            try:
                problem = ProblemKey(name=row.problem_name, components=json.loads(row.components))
                device = DeviceKey(
                    platform=row.device_platform, kind=row.device_kind, count=row.device_count,
                    planned=bool(row.device_planned),
                )  # fmt: skip
                ids[at] = profile_key(problem, device, AdjointName(row.adjoint))
            except (RecordError, TypeError, AttributeError, RecursionError) as error:
                raise ValueError(f"a row of {row.problem_name!r}: {error}") from error
            made[ids[at]] = problem, device
        groups.setdefault(ids[at], []).append(row)
    found = []
    for id_, rows in groups.items():
        newest = max(rows, key=lambda row: row.newest)
        found.append(
            Summary(
                name=str(labels.get(id_) or newest.problem_name),
                id=id_,
                problem_name=newest.problem_name,
                device=made[id_][1],
                adjoint=AdjointName(newest.adjoint),
                cases=len({tuple(row[len(profile) : len(profile) + len(case)]) for row in rows}),
                measurements=sum(row.count for row in rows),
                failed=sum(row.failed for row in rows),
                newest=time_of(str(newest.newest)),
            )
        )
    found.sort(key=lambda summary: summary.newest, reverse=True)
    return sorted(found, key=lambda summary: summary.name)
