"""What every test shares: JAX on the CPU, float64 on request, no deadlines for properties, compilations let go.

The environment is set before anything imports jax. Tests never read or write the user's own profile store.
"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import hypothesis
import pytest

# The default suite draws the same examples each time, so that it fails for a change and not by chance; "thorough" looks
# for new ones.
hypothesis.settings.register_profile("default", deadline=None, max_examples=50, print_blob=True, derandomize=True)
hypothesis.settings.register_profile("thorough", deadline=None, max_examples=1000, print_blob=True)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture
def x64() -> Iterator[None]:
    """Run the test with 64-bit floats and integers, in callbacks too, which run on threads of their own."""
    import jax

    before = jax.config.read("jax_enable_x64")
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", before)


@pytest.fixture(autouse=True)
def own_store(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Point the default store at a folder of this test, so that nobody's profiles are touched."""
    folder = tmp_path_factory.mktemp("store")
    monkeypatch.setenv("CKPT_TUNE_STORE", f"sqlite:///{folder / 'profiles.db'}")


@pytest.fixture(autouse=True, scope="module")
def compilations_let_go() -> Iterator[None]:
    """Drop compiled programs after each file: thousands of them in one process exhaust the kernel's memory maps."""
    yield
    if "jax" in sys.modules:
        import jax

        jax.clear_caches()
