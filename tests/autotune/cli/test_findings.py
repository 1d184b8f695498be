"""What `device` finds besides the device: extras by what they lack, the store, and what is wrong."""

import dataclasses
from pathlib import Path

import pytest

from autotune import DeviceInfo
from autotune.cli.findings import Extra, extras, findings, store_text
from autotune.machine.device import Nvidia, OtherProcess
from autotune.machine.host import HostMemory
from profiles import open_store
from tests.autotune.rows import a_row

VERSIONS = dict.fromkeys(("jax", "jaxlib", "equinox", "diffrax"), "1")
CPU = DeviceInfo(
    platform="cpu", kind="a processor", index=0, count=1, total_bytes=100, limit_bytes=100, in_use_bytes=None,
    free_bytes=50, host=HostMemory(total_bytes=100, available_bytes=50, resident_bytes=1), versions=VERSIONS,
)  # fmt: skip
NO_CARD = Nvidia(ask=lambda arguments: None)
A_CARD = Nvidia(ask=lambda arguments: "NVIDIA H100\n")


def test_an_extra_says_what_it_lacks_and_how_it_is_installed() -> None:
    """Read from requirements as metadata has them; those of developers are not named."""
    found = extras(
        ["jax>=0.10", 'numpy>=2; extra == "parquet"', "no-such-thing[x]>=3; extra == 'cluster'", 'x; extra == "test"']
    )
    assert found == (Extra(name="parquet", missing=()), Extra(name="cluster", missing=("no-such-thing",)))
    assert str(found[0]) == "installed"
    assert str(found[1]) == 'no-such-thing not here: pip install "ckpt-tune[cluster]"'


def test_nothing_is_wrong_with_a_device_that_is_free() -> None:
    """A CPU without a card beside it."""
    assert findings(CPU, NO_CARD) == ()


def test_a_card_that_jax_does_not_use_is_named_with_the_command() -> None:
    """Unless the user has chosen the platform himself."""
    (found,) = findings(CPU, A_CARD)
    assert "the driver has NVIDIA H100, and JAX computes on the CPU" in found.problem
    assert "pip install" in found.repair
    assert findings(dataclasses.replace(CPU, environment={"JAX_PLATFORMS": "cpu"}), A_CARD) == ()
    assert findings(dataclasses.replace(CPU, platform="gpu"), A_CARD) == ()


def test_a_device_that_others_hold_is_named_with_their_processes() -> None:
    """Below a tenth of what there is."""
    held = dataclasses.replace(CPU, free_bytes=9, other_processes=(OtherProcess(pid=77, used_bytes=80),))
    (found,) = findings(held, NO_CARD)
    assert found.problem == "only 9 B of 100 B are free"
    assert "end process 77" in found.repair
    assert findings(dataclasses.replace(held, free_bytes=10), NO_CARD) == ()


def test_a_missing_library_is_a_finding() -> None:
    """An environment that was taken apart."""
    (found,) = findings(dataclasses.replace(CPU, versions={"jax": "1", "jaxlib": "1", "equinox": "1"}), NO_CARD)
    assert found.problem == "diffrax is not installed"


def test_the_store_is_absent_answers_or_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Absent is no fault; a file that is no database is one, with what to do."""
    place = tmp_path / "profiles.db"
    monkeypatch.setenv("CKPT_TUNE_STORE", str(place))
    assert store_text() == (f"{place} (made by the first tune)", None)
    with open_store() as store:
        store.put(a_row(3, 0.1))
    assert store_text() == (f"{place} (1 profile)", None)
    place.write_text("no database at all, but long enough to have a header" * 20)
    text, found = store_text()
    assert text.endswith("(does not answer)")
    assert found is not None
    assert str(place) in found.problem
    assert "name another store" in found.problem + found.repair
