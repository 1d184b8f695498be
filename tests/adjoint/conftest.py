"""What the adjoint's tests share: their small states go the ways of larger ones."""

from collections.abc import Iterator

import pytest

from adjoint.loop import tape
from adjoint.solve import accepted


@pytest.fixture(autouse=True, scope="package")
def as_with_large_states() -> Iterator[None]:
    """Let solves of a few floats replay accepted steps only, and compute again what can be."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(accepted, "SMALLEST_RECORD_BYTES", 64 * 1024)
        patch.setattr(tape, "SMALL_DERIVED_BYTES", 0)
        yield
