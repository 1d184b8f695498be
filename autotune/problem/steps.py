"""How many steps a problem was seen to take: the record of a probe. Plain values, no jax."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar

from autotune.adjoints import Work
from autotune.errors import AutotuneError, ProblemChangedError


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SiteSteps:
    """What one call site did: one entry per run, repeat and vmap lane, in the order in which they ended.

    `accepted` and `rejected` are empty for a plain loop, which knows neither. `truncated` counts the entries that
    ended at `max_steps`, which a solve with `throw=False` may do. `mapped` marks a solve under `jax.vmap`.
    `accepted_from` is the number of checkpoints from which on our adjoint replays accepted steps alone where it is not
    mapped (`adjoint.accepted_steps_from`); None for plain loops and for solves of which it never does.
    """

    site: str
    steps: tuple[int, ...]
    accepted: tuple[int, ...] = ()
    rejected: tuple[int, ...] = ()
    max_steps: int | None = None
    truncated: int = 0
    mapped: bool = False
    accepted_from: int | None = None

    @property
    def reversed_steps(self) -> int:
        """The steps that our backward pass visits with `accepted_from` checkpoints or more, all where that is None."""
        left_out = self.accepted and self.accepted_from is not None and not self.mapped
        return max(self.accepted) if left_out else max(self.steps)

    def quantile(self, share: float) -> int:
        """Find the smallest number of steps that at least this share of the entries does not exceed."""
        ordered = sorted(self.steps)
        return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """How many steps a problem takes at one horizon and tolerance.

    `steps`, `accepted` and `rejected` are the largest over call sites, lanes and repeats: under vmap all lanes go on
    until the last has ended. They are None where nothing could be run, and then `note` says why. `mesh` names the
    devices that the call spans, empty for one. `differentiated` says whether the number of checkpoints changes the
    program at all, which it does where a backward pass goes through a solve; None where that was not looked at.
    `failure` is why the steps could not be counted, in one line and then the user's own frames.
    `reads_counts` marks a factory that hands the counts to code whose steps cannot be observed.
    """

    horizon: int | float | None
    tolerance: float | None
    sites: tuple[SiteSteps, ...] = ()
    repeats: int = 0
    mesh: str = ""
    note: str = ""
    failure: str = ""
    differentiated: bool | None = None
    reads_counts: bool = False

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

    def work(self, *, forward_only: bool = False) -> Work | None:
        """Return how much work that is; None where no steps are known.

        Of several sites it is the most that any visits, and the count from which on none visits more.
        """
        if not self.steps:
            return None
        accepted = self.accepted or self.steps
        if forward_only:
            return Work(steps=self.steps, reversed_steps=0, accepted=accepted)
        visited = max(site.reversed_steps for site in self.sites)
        counts = (site.accepted_from for site in self.sites if max(site.steps) > visited)
        least = max((count for count in counts if count is not None), default=1)
        bounds = [site.max_steps for site in self.sites]
        return Work(
            steps=self.steps, reversed_steps=visited, accepted=accepted, accepted_from=least,
            switches=self._switches(), everything=None if None in bounds else max(filter(None, bounds)),
        )  # fmt: skip

    def _switches(self) -> tuple[int, ...]:
        """List the counts at which the adjoint of some site becomes another program."""
        import adjoint

        found: set[int] = set()
        for site in self.sites:
            leaves_out = site.reversed_steps < max(site.steps)
            least = site.accepted_from if leaves_out else None
            found |= {*adjoint.switching_counts(site.max_steps, accepted_from=least)}
        return tuple(sorted(found))

    def quantile(self, share: float) -> int | None:
        """Find the largest, over call sites, of the number of steps that this share of the entries does not exceed."""
        return max((site.quantile(share) for site in self.sites), default=None)


def decode_observation(values: Mapping[str, Any]) -> Observation:
    """Read an observation back from JSON values."""
    made = dict(values)
    made["sites"] = tuple(
        SiteSteps(**{**site, **{name: tuple(site[name]) for name in ("steps", "accepted", "rejected")}})
        for site in made["sites"]
    )
    return Observation(**made)


def is_current(values: Mapping[str, Any]) -> bool:
    """Return whether an observation, as JSON values, tells all that is looked at today; an older note may not."""
    return all("accepted_from" in site for site in values["sites"])


def stored_observation(values: Any) -> Observation | None:
    """Read an observation that a store held; None where it is older than what is looked at today, or damaged."""
    try:
        found = decode_observation(values) if values is not None and is_current(values) else None
        sites = () if found is None else found.sites
        sound = all(
            site.steps and all(type(n) is int and n >= 0 for n in (*site.steps, *site.accepted, *site.rejected))
            for site in sites
        )
        return found if sound and (found is None or isinstance(found.failure, str)) else None
    except (TypeError, KeyError, ValueError, AttributeError):
        return None


class HasCase(Protocol):
    """Where steps are counted."""

    @property
    def horizon(self) -> int | float | None:
        """The horizon."""
        ...

    @property
    def tolerance(self) -> float | None:
        """The tolerance."""
        ...


A = TypeVar("A", bound=HasCase)


def seen_or_failed(observe: Callable[[A], Observation], question: A) -> Observation:
    """Count the steps of one case; what goes wrong there is what was seen, and ends no other case."""
    try:
        return observe(question)
    except ProblemChangedError:
        raise
    except AutotuneError as error:
        failure = "\n".join((str(error), *error.frames))
        return Observation(horizon=question.horizon, tolerance=question.tolerance, failure=failure)
