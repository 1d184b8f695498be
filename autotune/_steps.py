"""How many steps a problem was seen to take: the record of a probe. Plain values, no jax."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SiteSteps:
    """What one call site did: one entry per run, repeat and vmap lane, in the order in which they ended.

    `accepted` and `rejected` are empty for a plain loop, which knows neither. `truncated` counts the entries that
    ended at `max_steps`, which a solve with `throw=False` may do.
    """

    site: str
    steps: tuple[int, ...]
    accepted: tuple[int, ...] = ()
    rejected: tuple[int, ...] = ()
    max_steps: int | None = None
    truncated: int = 0

    def quantile(self, share: float) -> int:
        """The smallest number of steps that at least this share of the entries does not exceed."""
        ordered = sorted(self.steps)
        return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """How many steps a problem takes at one horizon and tolerance.

    `steps`, `accepted` and `rejected` are the largest over call sites, lanes and repeats: under vmap all lanes go on
    until the last has ended. They are None where nothing could be run, and then `note` says why. `mesh` names the
    devices that the call spans, empty for one.
    """

    horizon: int | float | None
    tolerance: float | None
    sites: tuple[SiteSteps, ...] = ()
    repeats: int = 0
    mesh: str = ""
    note: str = ""

    @property
    def steps(self) -> int | None:
        """Passes of the loop body."""
        return max((max(site.steps) for site in self.sites), default=None)

    @property
    def accepted(self) -> int | None:
        """Accepted steps; for plain loops every pass is one."""
        return max((max(site.accepted or site.steps) for site in self.sites), default=None)

    @property
    def rejected(self) -> int | None:
        """Rejected steps."""
        return max((max(site.rejected or (0,)) for site in self.sites), default=None)

    def quantile(self, share: float) -> int | None:
        """The largest, over call sites, of the number of steps that this share of the entries does not exceed."""
        return max((site.quantile(share) for site in self.sites), default=None)


def decode_observation(values: Mapping[str, Any]) -> Observation:
    """Read an observation back from JSON values."""
    made = dict(values)
    made["sites"] = tuple(
        SiteSteps(**{**site, **{name: tuple(site[name]) for name in ("steps", "accepted", "rejected")}})
        for site in made["sites"]
    )
    return Observation(**made)
