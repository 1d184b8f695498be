"""Where a row was measured: its cell, within which only checkpoints and expected steps are free. Plain values."""

import dataclasses
from collections.abc import Mapping

from profiles import Case, Point, Scalar, Tier


@dataclasses.dataclass(frozen=True, slots=True)
class Variant:
    """One variant of a problem: `--set` values, as sorted pairs, XLA flags and tier decide its compiled program."""

    set_values: tuple[tuple[str, Scalar], ...] = ()
    xla_flags: str = ""
    tier: Tier | None = None

    def __str__(self) -> str:
        parts = [f"{key}={value}" for key, value in self.set_values]
        return ", ".join([*parts, *_chosen(self)]) or "as it is"


@dataclasses.dataclass(frozen=True, slots=True)
class Cell:
    """One case under given XLA flags and with a given tier: only checkpoints and expected steps are free within it."""

    case: Case
    xla_flags: str = ""
    tier: Tier | None = None

    @property
    def variant(self) -> Variant:
        """The variant that the cell shares with other horizons and tolerances."""
        return Variant(self.case.set_values, self.xla_flags, self.tier)

    def point(self, checkpoints: int, *, expected_steps: int | None = None, repeat: int = 0) -> Point:
        """Give the point of this cell with a count."""
        case = self.case
        return Point(
            checkpoints=checkpoints, horizon=case.horizon, tolerance=case.tolerance, set_values=dict(case.set_values),
            x64=case.x64, xla_flags=self.xla_flags, expected_steps=expected_steps, tier=self.tier, repeat=repeat,
        )  # fmt: skip

    def __str__(self) -> str:
        return ", ".join([str(self.case), *_chosen(self)])


def _chosen(of: Variant | Cell) -> list[str]:
    """Say what is free to choose apart from counts."""
    parts = [f"XLA_FLAGS={of.xla_flags}"] if of.xla_flags else []
    return [*parts, *([f"tier {of.tier}"] if of.tier else [])]


def cell_of(row: Point) -> Cell:
    """Return the cell that a point lies in, without the mesh, which is known only after a trace."""
    case = Case(row.horizon, row.tolerance, scalar_items(row.set_values), row.x64)
    return Cell(case, row.xla_flags, row.tier)


def scalar_items(values: Mapping[str, Scalar]) -> tuple[tuple[str, Scalar], ...]:
    """Write `--set` values as a case holds them: pairs, sorted by key."""
    return tuple(sorted(values.items()))
