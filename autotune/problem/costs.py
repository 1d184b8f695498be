"""What the passes of a solve cost at least, whatever compiles them. Plain values, no jax."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PassCost:
    """What one pass of a loop cannot do without.

    `flops` are element-wise operations, `matrix_flops` those of matrix products, two for each multiplication.
    `read_bytes` are distinct bytes that it reads from memory, caches included, `written_bytes` those that it leaves.
    """

    flops: float = 0.0
    matrix_flops: float = 0.0
    read_bytes: int = 0
    written_bytes: int = 0

    def least(self, other: "PassCost") -> "PassCost":
        """Return what neither can do without."""
        return PassCost(
            **{f.name: min(getattr(self, f.name), getattr(other, f.name)) for f in dataclasses.fields(self)}
        )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class StepCosts:
    """The cost of a step that is advanced for the first time, of one that is replayed, and of one that is reversed."""

    advance: PassCost
    replay: PassCost
    reversal: PassCost


KINDS = tuple(field.name for field in dataclasses.fields(StepCosts))


def least_costs(found: Iterable[tuple[str, PassCost]]) -> StepCosts | None:
    """Bring what was found of the passes of several solves together; None where not all kinds were seen.

    Of several solves the smallest figure of each counts, since the steps that are counted are those of the longest.
    """
    least: dict[str, PassCost] = {}
    for kind, cost in found:
        least[kind] = cost.least(least.get(kind, cost))
    return StepCosts(**least) if set(least) == set(KINDS) else None


def decode_costs(values: Mapping[str, Any] | None) -> StepCosts | None:
    """Read costs back from JSON values, None where they are not known."""
    return None if values is None else StepCosts(**{kind: PassCost(**values[kind]) for kind in KINDS})
