"""What the bytes of a call are made of: the record. Plain values, no jax."""

import dataclasses
from collections.abc import Mapping
from typing import Any

_MOST = 0.5
"""Above this share the number of checkpoints is what decides, and no other advice is needed."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Composition:
    """Where the compiled bytes of one call go. `largest_rest` names the largest buffers that no other part explains."""

    checkpoints: int
    total_bytes: int
    argument_bytes: int
    output_bytes: int
    constant_bytes: int
    checkpoint_bytes: int
    accumulator_bytes: int
    per_example_bytes: int
    rest_bytes: int
    largest_rest: tuple[str, ...] = ()

    @property
    def checkpoint_share(self) -> float:
        """The share of the total that the number of checkpoints decides."""
        return self.checkpoint_bytes / self.total_bytes

    @property
    def advice(self) -> str:
        """Say what to change instead of the count where the count decides less than half; empty where it does."""
        if self.checkpoint_share >= _MOST:
            return ""
        others = {
            "per_example": (self.per_example_bytes, "one gradient is accumulated per example of a batch; solve the "
                            "batch as one system, or use our adjoint, which sums them as it goes"),
            "arguments": (self.argument_bytes, "arguments take the most; donate what is replaced (donate_argnums), "
                          "or pass fewer or smaller ones"),
            "outputs": (self.output_bytes, "outputs take the most; return less, or save at fewer times (SaveAt)"),
            "constants": (self.constant_bytes, "arrays that fn closes over take the most; pass them as arguments, so "
                          "that they are not held twice"),
            "accumulators": (self.accumulator_bytes, "gradients of the arguments take the most; differentiate fewer "
                             "of them, or with smaller dtypes"),
            "rest": (self.rest_bytes, "loop state, saved outputs and temporaries take the most; save at fewer times "
                     "(SaveAt), avoid dense output, or solve smaller batches"),
        }  # fmt: skip
        return max(others.values())[1]


def decode_composition(values: Mapping[str, Any]) -> Composition:
    """Read a composition back from JSON values."""
    return Composition(**{**values, "largest_rest": tuple(values["largest_rest"])})
