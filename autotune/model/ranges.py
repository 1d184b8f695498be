"""A figure that was not measured, with its bounds."""

import dataclasses


@dataclasses.dataclass(frozen=True, slots=True)
class Range:
    """A figure with what bounds it; `high` is infinite where nothing bounds it from above."""

    low: float
    likely: float
    high: float
