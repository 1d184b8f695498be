"""A profile summed up: what a list of many profiles says of each, without its rows."""

import dataclasses
import datetime as dt
import functools
from collections.abc import Mapping
from typing import Any

from profiles.records.flat import time_of, time_text
from profiles.records.records import AdjointName, DeviceKey, ProblemKey, profile_key


@dataclasses.dataclass(frozen=True, kw_only=True)  # no slots: its id is worked out once
class ProfileSummary:
    """One profile of a store without its rows.

    `name`, `problem` and `device` are those of the profile; `cases`, `rows` and `failed` count what it holds,
    `newest_at` is when it was last measured, `versions` are those that measured, as texts like `jax 0.10.2`, sorted.
    """

    name: str
    problem: ProblemKey
    device: DeviceKey
    adjoint: AdjointName
    cases: int
    rows: int
    failed: int
    newest_at: dt.datetime
    versions: tuple[str, ...] = ()

    @functools.cached_property
    def id(self) -> str:
        """Sixteen digits that no other profile has, the same on every machine."""
        return profile_key(self.problem, self.device, self.adjoint)

    @property
    def qualified_name(self) -> str:
        """The name that is never ambiguous: `name@kind:adjoint#id`."""
        return f"{self.name}@{self.device.label}:{self.adjoint}#{self.id[:8]}"


def summary_record(summary: ProfileSummary) -> dict[str, Any]:
    """Write a summary as plain JSON values; `summary_of` reads it back."""
    device = summary.device
    return {
        "name": summary.name,
        "problem": {"name": summary.problem.name, "components": dict(summary.problem.components)},
        "device": {
            "platform": device.platform, "kind": device.kind, "count": device.count,
            "memory_bytes": device.memory_bytes, "planned": device.planned,
        },
        "adjoint": str(summary.adjoint), "cases": summary.cases, "rows": summary.rows, "failed": summary.failed,
        "newest_at": time_text(summary.newest_at), "versions": list(summary.versions),
    }  # fmt: skip


def summary_of(record: Mapping[str, Any]) -> ProfileSummary:
    """Read what `summary_record` wrote."""
    return ProfileSummary(
        name=record["name"],
        problem=ProblemKey(**record["problem"]),
        device=DeviceKey(**record["device"]),
        adjoint=AdjointName(record["adjoint"]),
        cases=record["cases"],
        rows=record["rows"],
        failed=record["failed"],
        newest_at=time_of(record["newest_at"]),
        versions=tuple(record["versions"]),
    )
