"""A profile summed up: what a list of many profiles says of each, without its rows."""

import dataclasses
import datetime as dt
import functools

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
