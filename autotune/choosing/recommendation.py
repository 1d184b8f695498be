"""What is chosen from, and a recommendation with the evidence of each of its figures. Plain values, no jax."""

import dataclasses
import enum
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import profiles
from autotune.errors import AutotuneError
from autotune.model.cells import Cell
from autotune.model.ranges import Range
from profiles import (
    Case,
    PeakSource,
    Profile,
    Recommended,
    ReportExtras,
    Tier,
    format_bytes,
    format_seconds,
    plain_value,
)

if TYPE_CHECKING:
    import altair as alt


class Evidence(enum.StrEnum):
    """What a recommendation, or one of its figures, rests on.

    `COMPUTED` is what the schedule's theory makes of steps that were counted, as every recompute factor is. `PLANNED`
    is what XLA plans for a device that is not here: this very count was compiled for it, and not run.
    """

    MEASURED = "measured"
    PLANNED = "planned"
    COMPUTED = "computed"
    INTERPOLATED = "interpolated"
    EXTRAPOLATED = "extrapolated"


class Fit(enum.StrEnum):
    """Whether anything fits; `FAILED` where the case could not be measured at all."""

    OK = "ok"
    NOTHING_FITS = "nothing_fits"
    FAILED = "failed"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One count at one cell as a candidate: its forecast bytes, seconds and executed steps."""

    cell: Cell
    checkpoints: int
    peak: Range
    seconds: Range | None
    executed_steps: int | None
    timed: bool


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Recommendation:
    """What to use at one case, or that nothing fits there and the smallest bytes that would do.

    Each figure has an evidence of its own. `run_seconds` are measured where this very count was timed under these very
    flags and with this tier, interpolated where counts around it were, and None otherwise. `evidence` is the weakest of
    those of the figures that are there.

    `peak_low_bytes` and `peak_high_bytes` bound the peak; they equal it where it was measured. `between` says in words
    what an interpolated figure lies between. `tier` is where the first states of windows are held, None for nowhere;
    `directory` is where the disk tier's file lay as it was measured. `least_seconds` is a bound, no figure of a call:
    none can take less on the device that was compiled for.

    `seconds_low` and `seconds_high` bound the median of a call with 95 % confidence where it was timed, and are one
    standard deviation of the law away where not. `runner_up` is the next best count and `runner_up_seconds` what a call
    takes with it, timed or forecast. `steps_evidence` says whether the steps were counted at this case or lie between
    or beyond others; `would_change` says in words what would change the choice.
    """

    case: Case
    status: Fit
    budget_bytes: int
    margin_bytes: int = 0
    xla_flags: str = ""
    tier: Tier | None = None
    directory: str | None = None
    checkpoints: int | None = None
    expected_steps: int | None = None
    steps: int | None = None
    accepted: int | None = None
    peak_bytes: int | None = None
    peak_low_bytes: int | None = None
    peak_high_bytes: int | None = None
    peak_source: PeakSource | None = None
    run_seconds: float | None = None
    recompute_factor: float | None = None
    peak_evidence: Evidence | None = None
    seconds_evidence: Evidence | None = None
    recompute_evidence: Evidence | None = None
    evidence: Evidence | None = None
    between: str = ""
    least_seconds: float | None = None
    smallest_bytes: int | None = None
    message: str = ""
    seconds_low: float | None = None
    seconds_high: float | None = None
    runner_up: int | None = None
    runner_up_seconds: float | None = None
    steps_evidence: Evidence | None = None
    would_change: tuple[str, ...] = ()

    def _repr_html_(self) -> str:
        """Show what is recommended, and what each figure rests on, as a table in a notebook."""
        shown = {
            "case": self.case,
            "use": "nothing fits" if self.status is not Fit.OK else f"{self.checkpoints} checkpoints",
            "expected steps": self.expected_steps,
            "tier": self.tier,
            "XLA flags": self.xla_flags or None,
            "peak": _said(self.peak_bytes, format_bytes, self.peak_evidence),
            "budget": format_bytes(self.budget_bytes),
            "a call": _said(self.run_seconds, format_seconds, self.seconds_evidence),
            "a call, at least": None
            if self.least_seconds is None
            else format_seconds(self.least_seconds) + " (a bound)",
            "recompute factor": _said(self.recompute_factor, "{:.2f}".format, self.recompute_evidence),
            "smallest that would do": _said(self.smallest_bytes, format_bytes, None),
            "said": self.message or self.between or None,
            "what would change it": "; ".join(self.would_change) or None,
        }
        rows = [(name, value) for name, value in shown.items() if value is not None]
        return profiles.html_table("recommendation", ("", ""), rows)

    def chart(self, profile: Profile | None = None) -> "alt.LayerChart":
        """Draw what the recommendation takes of its budget; with its profile, the front that it was chosen from.

        Args:
            profile: the profile that the recommendation came from, whose case is then drawn with the point marked.
        """
        if profile is None:
            names = ("checkpoints", "peak_bytes", "peak_low_bytes", "peak_high_bytes", "budget_bytes", "smallest_bytes")
            record = {"case": str(self.case), "evidence": str(self.evidence or "")}
            return profiles.recommendation_figure([record | {name: getattr(self, name) for name in names}])
        rows = tuple(row for row in profile.measurements if dataclasses.replace(row.case, mesh="") == self.case)
        if not rows:
            there = ", ".join(str(case) for case in profile.cases)
            raise AutotuneError(
                f"{profile.qualified_name} was not measured at {self.case}, only at {there}: "
                "draw the recommendation alone, or with the profile that it came from"
            )
        of_case = dataclasses.replace(profile, measurements=rows)
        extras = ReportExtras(recommended=tuple(map(self.marked, of_case.cases)) if self.status is Fit.OK else ())
        points = profiles.points_table(of_case, extras)
        title = f"{profile.name}: {self.case}"
        return profiles.front_figure(points, budget_bytes=self.budget_bytes, title=title)

    def marked(self, case: Case) -> Recommended:
        """Give the recommendation as a report marks it at a case of a profile."""
        return Recommended(
            case=case,
            checkpoints=self.checkpoints or 1,
            peak_bytes=self.peak_bytes or 0,
            expected_steps=self.expected_steps,
            run_seconds=self.run_seconds,
            recompute_factor=self.recompute_factor,
            evidence=str(self.evidence),
        )

    def to_json(self) -> dict[str, Any]:
        """Give the entry of the JSON that `tune` and `recommend` print."""
        return {
            "horizon": self.case.horizon,
            "tolerance": self.case.tolerance,
            "set_values": {key: plain_value(value) for key, value in self.case.set_values},
            "xla_flags": self.xla_flags,
            "tier": self.tier.name if self.tier else None,
            "windows": self.tier.windows if self.tier else None,
            "transfer_cost": self.tier.transfer_cost if self.tier else None,
            **{
                field.name: getattr(self, field.name)
                for field in dataclasses.fields(self)
                if field.name not in ("case", "xla_flags", "tier")
            },
        }


def _said(value: Any, write: Callable[[Any], str], evidence: Evidence | None) -> str | None:
    """Write a figure with what it rests on, None where it is not known."""
    return None if value is None else write(value) + (f" ({evidence})" if evidence else "")
