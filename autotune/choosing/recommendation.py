"""What is chosen from, and a recommendation with the evidence of each of its figures. Plain values, no jax."""

import dataclasses
import enum
from typing import Any

from autotune.model.cells import Cell
from autotune.model.ranges import Range
from profiles import Case, PeakSource, Tier, plain_value


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
    `directory` is where the disk tier's file lay as it was measured.
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
    smallest_bytes: int | None = None
    message: str = ""

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
