"""What the tests of figures draw."""

import pytest

from profiles import Profile
from tests.profiles.makers import a_sweep


@pytest.fixture(scope="module")
def profile() -> Profile:
    """A profile of six cases, two of which lost their largest count to memory."""
    return Profile(name="spirals:make", measurements=tuple(a_sweep()))
