"""What a plan is handed: theory, and the laws of bytes and steps where they were not measured."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Protocol

from profiles.records.records import Measurement

Recompute = Callable[[int, int], float]
"""The recompute factor of (steps, checkpoints), for 1 <= checkpoints <= steps; infinite where it is not known."""

Windowed = Callable[[int, int, int], float]
"""The recompute factor of (steps, checkpoints, windows): with so many states in host memory besides."""


class Sizes(Protocol):
    """The bytes of a call by its number of checkpoints."""

    @property
    def state_bytes(self) -> float | None:
        """The bytes of one state, None where they are not known."""
        ...

    def upper_envelope(self, checkpoints: int) -> float:
        """Give the bytes of a count, never fewer than those of a smaller one; infinite where nothing is known."""
        ...

    def evidence(self, checkpoints: int) -> str:
        """Say what the bytes of a count rest on: measured, interpolated or extrapolated."""
        ...

    def largest_within(self, usable_bytes: float, most: int) -> int | None:
        """Find the largest count of at most `most` that fits, None where not even one checkpoint does."""
        ...


class Steps(Protocol):
    """The steps of one setting by horizon and tolerance."""

    def steps_at(self, horizon: float | None, tolerance: float | None) -> tuple[int, str] | None:
        """Give the steps and what they rest on (measured, interpolated, extrapolated); None where not known."""
        ...

    def horizon_of(self, steps: int, tolerance: float | None) -> float | None:
        """Find the horizon that takes so many steps, None where none does."""
        ...


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Laws:
    """What carries over from measurements to what was not measured.

    `recompute` is the recompute factor of (steps, checkpoints), `windowed` that of (steps, checkpoints, windows), None
    where the adjoint holds no states in host memory. `sizes` makes the bytes of a call out of measured (checkpoints,
    bytes) pairs, `steps` the steps of a setting out of its rows.
    """

    recompute: Recompute
    sizes: Callable[[Sequence[tuple[int, int]]], Sizes]
    steps: Callable[[Sequence[Measurement]], Steps]
    windowed: Windowed | None = None
