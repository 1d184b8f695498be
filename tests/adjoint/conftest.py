"""What the adjoint's tests share: room for the record of accepted times, which their small states would not get."""

from collections.abc import Iterator

import pytest

from adjoint.solve import accepted


@pytest.fixture(autouse=True, scope="package")
def roomy_records() -> Iterator[None]:
    """Let solves of a few floats replay accepted steps only, as larger ones do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(accepted, "SMALLEST_RECORD_BYTES", 64 * 1024)
        yield
