"""The space that a tune searches: cells (`--set` values, flags, tier, horizon, tolerance) and the counts of each.

Plain values and integers, no jax. The texts that people type on the command line become records here, so that the
library form and the command line read them alike.
"""

import dataclasses
import itertools
import math
from collections.abc import Iterable, Mapping

from autotune.adjoints import Work
from autotune.errors import AutotuneError
from autotune.model.cells import Cell, Variant
from profiles import Case, Scalar, read_value

AUTO = "auto"
MAX_GRID_COUNTS = 12
"""How many counts a grid of the exhaustive search has where the user named none."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """All cells of a tune, and the counts to try at each (None: chosen from the observed steps and the laws)."""

    cells: tuple[Cell, ...]
    counts: tuple[int, ...] | None = None

    @property
    def variants(self) -> tuple[Variant, ...]:
        """The distinct variants of the space, in the order of the cells."""
        return tuple(dict.fromkeys(cell.variant for cell in self.cells))

    @property
    def cases(self) -> tuple[Case, ...]:
        """The distinct cases of the space, in the order of the cells."""
        return tuple(dict.fromkeys(cell.case for cell in self.cells))

    def of_variant(self, variant: Variant) -> tuple[Cell, ...]:
        """List the cells of one variant, in order."""
        return tuple(cell for cell in self.cells if cell.variant == variant)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """What a user listed to sweep; an empty list means that the problem's own value is used."""

    horizons: tuple[int | float, ...] = ()
    tolerances: tuple[float, ...] = ()
    set_values: Mapping[str, tuple[Scalar, ...]] = dataclasses.field(default_factory=dict)
    xla_flags: tuple[str, ...] = ()
    counts: tuple[int, ...] | None = None
    x64: bool = False


def build_space(listed: Listed) -> Space:
    """Cross the listed values into a space, horizons and tolerances varying fastest."""
    keys = sorted(listed.set_values)
    crossed = itertools.product(
        itertools.product(*(_unique(map(read_value, listed.set_values[key])) for key in keys)),
        _unique(listed.xla_flags) or [""],
        _unique(listed.horizons) or [None],
        _unique(listed.tolerances) or [None],
    )
    cells = tuple(
        Cell(Case(horizon, tolerance, tuple(zip(keys, values, strict=True)), listed.x64), flags)
        for values, flags, horizon, tolerance in crossed
    )
    return Space(cells=cells, counts=tuple(sorted(set(listed.counts))) if listed.counts else None)


def grid_counts(steps: int, *, at_most: int = MAX_GRID_COUNTS) -> tuple[int, ...]:
    """Spread counts over 1..steps in equal ratios, with `steps` itself (everything stored) and the cliff among them.

    The cliff is at `ceil(sqrt(2 steps))`: from there on no step is advanced twice in the backward pass, even by a
    placement that does not know how many steps will come. A grid that leaves it out draws the front wrong; the other
    counts stand in equal ratios. At most `at_most` counts are returned.
    """
    if steps < 1:
        return (1,)
    cliff = min(steps, math.isqrt(max(0, 2 * steps - 1)) + 1)
    special = {steps, cliff, min(steps, 2)}
    spread = max(2, at_most - len(special) + 1)
    ratio = steps ** (1 / spread)
    ratios = {min(steps, max(1, round(ratio**power))) for power in range(1, spread)}
    extra = sorted(ratios - special)[: max(0, at_most - len(special))]
    return tuple(sorted(special | set(extra)))


def candidate_counts(work: Work, *, at_most: int = MAX_GRID_COUNTS) -> tuple[int, ...]:
    """List the counts worth looking at: a grid, both sides of each switch of the adjoint, and everything stored.

    Args:
        work: the steps of a case, and where the adjoint's program becomes another one.
        at_most: how many counts of the grid.
    """
    beside = {count for switch in work.switches for count in (switch - 1, switch) if 1 <= count <= work.steps}
    ends = {work.visited(work.steps) or work.steps, work.everything or work.steps}
    return tuple(sorted({*grid_counts(work.steps, at_most=at_most), *beside, *ends}))


def number(text: str, *, option: str) -> int | float:
    """Read `100` as an int, `100.` or `1e2` as a float; anything else is an error naming the option."""
    value: int | float
    try:
        value = int(text)
        float(value)  # what is computed with it later
        return value
    except ValueError:
        pass
    except OverflowError:
        raise AutotuneError(f"{option} {text[:20]!r}... is too large; write it like 100, 100. or 1e-3") from None
    try:
        value = float(text)
    except ValueError:
        raise AutotuneError(f"{option} {text!r} is not a number; write it like 100, 100. or 1e-3") from None
    if not math.isfinite(value):
        raise AutotuneError(f"{option} {text!r} is not finite; write it like 100, 100. or 1e-3")
    return value


def numbers(texts: Iterable[str], *, option: str) -> tuple[int | float, ...]:
    """Read a repeatable, comma-separated option into positive numbers, in order, each once (1 and 1.0 differ)."""
    values = [number(part.strip(), option=option) for text in texts for part in text.split(",") if part.strip()]
    for value in values:
        if value <= 0:
            raise AutotuneError(f"{option} {value} is not positive; give a value above 0")
    return tuple(_unique(values))


def checkpoint_counts(texts: Iterable[str]) -> tuple[int, ...] | None:
    """Read `--checkpoints`: `auto` (None) or whole numbers of at least 1, comma-separated and repeatable."""
    parts = [part.strip() for text in texts for part in text.split(",") if part.strip()]
    if not parts or parts == [AUTO]:
        return None
    counts = []
    for part in parts:
        if not part.isdecimal() or int(part) < 1:
            raise AutotuneError(f"--checkpoints {part!r} is neither `auto` nor a whole number of at least 1")
        counts.append(int(part))
    return tuple(sorted(set(counts)))


def _unique(values: Iterable) -> list:
    """Drop repeats, keeping order; 1, 1.0 and True are three values, since a factory may treat them differently."""
    return list({(type(value), value): value for value in values}.values())
