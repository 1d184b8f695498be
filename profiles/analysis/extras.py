"""What a report shows beside the measurements: predictions and theory, worked out by the caller.

A stored measurement outlives the code that made it, so this package computes no theory. The caller hands in columns and
plain records; whatever it leaves out is left out of the report.
"""

import dataclasses
from typing import Protocol

from profiles.analysis.plan import PlanRow
from profiles.errors import RecordError
from profiles.records.records import Case


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PredictedBytes:
    """Predicted bytes by checkpoints, with bounds; `case` None where the law holds for every case.

    The four columns are of equal length, by rising checkpoints; a bound that nothing gives is infinite. `text` says
    what the law is, in words or symbols.
    """

    checkpoints: tuple[int, ...]
    likely_bytes: tuple[float, ...]
    low_bytes: tuple[float, ...]
    high_bytes: tuple[float, ...]
    case: Case | None = None
    text: str = ""

    def __post_init__(self) -> None:
        _equal_lengths(self, "checkpoints", "likely_bytes", "low_bytes", "high_bytes")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Optimum:
    """The theoretically smallest recompute factor by checkpoints, for a case's number of steps."""

    case: Case
    checkpoints: tuple[int, ...]
    recompute_factor: tuple[float, ...]

    def __post_init__(self) -> None:
        _equal_lengths(self, "checkpoints", "recompute_factor")


class TreeBlock(Protocol):
    """One checkpoint of a schedule: the steps from `start` to before `stop` are reversed from it, held in `slot`."""

    @property
    def start(self) -> int:
        """The step before which the state is stored."""
        ...

    @property
    def stop(self) -> int:
        """The step before which the block ends."""
        ...

    @property
    def slot(self) -> int:
        """The slot that holds the state, from 0."""
        ...


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """The checkpoint tree of one choice of a case: every block in the order in which its checkpoint is stored."""

    case: Case
    checkpoints: int
    steps: int
    blocks: tuple[TreeBlock, ...]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Recommended:
    """The recommendation for one case under the report's budget; figures are None where unknown.

    `evidence` is measured, interpolated or extrapolated.
    """

    case: Case
    checkpoints: int
    peak_bytes: int
    expected_steps: int | None = None
    run_seconds: float | None = None
    recompute_factor: float | None = None
    evidence: str = "measured"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ReportExtras:
    """Everything that a report may show beside the measurements.

    `verified_studies` names the studies whose rows were run under the user's own settings. `hardware` is what several
    devices make of the problem, as `profiles.plan` gives it.
    """

    laws: tuple[PredictedBytes, ...] = ()
    optima: tuple[Optimum, ...] = ()
    trees: tuple[Tree, ...] = ()
    recommended: tuple[Recommended, ...] = ()
    verified_studies: frozenset[str] = frozenset()
    hardware: tuple[PlanRow, ...] = ()

    def usable_bytes(self) -> dict[str, int]:
        """Give what calls may use of each device."""
        return {row.device: row.usable_bytes for row in self.hardware}


def _equal_lengths(record: object, *names: str) -> None:
    """Refuse columns of different lengths."""
    lengths = {name: len(getattr(record, name)) for name in names}
    if len(set(lengths.values())) > 1:
        said = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise RecordError(f"the columns of a {type(record).__name__} must be of equal length, found {said}")
