"""Plans for devices that are not here: whose bytes each row has, and what is compiled for them."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import pytest

from autotune import AutotuneError
from autotune.measuring.trial import Trial
from autotune.planning import devices, targets
from autotune.planning.devices import Workshop, plan_device
from autotune.search.space import Listed
from autotune.tuning.request import TuneRequest
from autotune.tuning.tune import run_tune
from profiles import DeviceKey, Measurement, PlanRequest, ProfileStore, find_devices, load_devices, open_store
from tests.autotune.fake_lab import FakeLab, Heard, lab

REQUEST = PlanRequest(max_recompute=3.0)


@pytest.fixture
def store():
    """A store with a profile that was measured here: 1,000 and 500 steps."""
    with open_store("sqlite://") as opened:
        request = TuneRequest(problem="fake.module:make", budget="5MB", listed=Listed(horizons=(5.0, 10.0)))
        run_tune(request, store=opened, machine=lab(), progress=Heard())
        yield opened


@pytest.fixture
def compilers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The compilers count as installed."""
    monkeypatch.setattr(devices, "search_path", lambda kind: Path(kind))


class Larger(FakeLab):
    """A compiler whose programs take twice as much as those here."""

    def run(self, trials: Sequence[Trial]) -> list[Measurement]:
        """Answer with twice the bytes."""
        return [dataclasses.replace(row, peak_bytes=2 * (row.peak_bytes or 0)) for row in super().run(trials)]


def larger() -> Larger:
    """The lab of `lab`, compiling for something larger."""
    machine = lab()
    return Larger(**{f.name: getattr(machine, f.name) for f in dataclasses.fields(machine)})


def workshop(store: ProfileStore, machine: FakeLab) -> Workshop:
    """What compiling takes."""
    return Workshop(problem="fake.module:make", store=store, machine=machine, progress=Heard())


def device(name: str):
    """One device of the catalogue."""
    return find_devices([name], load_devices())[0]


def small(megabytes: float):
    """A GPU with so little memory that it binds."""
    return dataclasses.replace(device("l4"), memory_bytes=int(megabytes * 10**6))


def test_rows_are_what_was_compiled_for_the_device(store: ProfileStore, compilers: None) -> None:
    """The count is the largest whose doubled bytes fit, or its neighbour; its peak is compiled, and the row says so."""
    (base,) = store.profiles()
    machine = larger()
    found = plan_device(base, small(8), REQUEST, store.profiles(), workshop(store, machine))
    assert found.carried_because == ""
    assert [row.case.horizon for row in found.plan.rows] == [5.0, 10.0]
    for row in found.plan.rows:
        assert (row.evidence, row.bytes_evidence) == ("compiled for it", "compiled")
        assert row.usable_bytes == 7_200_000
        assert row.checkpoints in (25, 26)  # 2 (1 MB + 26 * 0.1 MB) = 7.2 MB
        assert row.peak_bytes == 2 * (1_000_000 + 100_000 * row.checkpoints)
    assert all(trial.settings.target is not None for trial in machine.asked)
    assert len(machine.asked) <= 7


def test_a_second_plan_takes_what_the_first_compiled(store: ProfileStore, compilers: None) -> None:
    """With the file compiled rows are not compiled again; without it they are still taken."""
    (base,) = store.profiles()
    first = plan_device(base, small(8), REQUEST, store.profiles(), workshop(store, larger()))
    machine = larger()
    again = plan_device(base, small(8), REQUEST, store.profiles(), workshop(store, machine))
    without = plan_device(base, small(8), REQUEST, store.profiles(), None)
    assert machine.asked == []
    assert first.plan.rows == again.plan.rows == without.plan.rows


def test_what_was_measured_on_the_device_goes_before_what_is_compiled_for_it(store: ProfileStore) -> None:
    """A profile of the device itself is taken, and nothing is compiled."""
    (base,) = store.profiles()
    key = DeviceKey(platform="gpu", kind="NVIDIA L4", memory_bytes=24 * 10**9)
    for row in base.measurements:
        store.put(dataclasses.replace(row, device=key, peak_bytes=3 * (row.peak_bytes or 0)))
    machine = larger()
    found = plan_device(base, device("l4"), REQUEST, store.profiles(), workshop(store, machine))
    assert {row.evidence for row in found.plan.rows} == {"measured on it"}
    assert machine.asked == []
    assert found.plan.rows[0].smallest_bytes == pytest.approx(3 * 1_100_000, rel=0.05)


@pytest.mark.parametrize(("name", "said"), [("mi300x", "AMD"), ("l4", "targets install gpu")])
def test_what_cannot_be_compiled_is_carried_over_with_the_reason(
    store: ProfileStore, name: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A device that XLA does not compile for, and compilers that are not there."""

    def missing(kind: str) -> Path:
        raise AutotuneError(f"none: run `ckpt-tune targets install {kind}`")

    monkeypatch.setattr(devices, "search_path", missing)
    (base,) = store.profiles()
    found = plan_device(base, device(name), REQUEST, store.profiles(), workshop(store, larger()))
    assert {row.evidence for row in found.plan.rows} == {"carried over"}
    assert said in found.carried_because


def test_a_problem_that_was_changed_is_carried_over_with_what_changed(store: ProfileStore, compilers: None) -> None:
    """Bytes of today's program would not belong to the steps of yesterday's."""
    (base,) = store.profiles()
    machine = larger()
    machine.key = dataclasses.replace(machine.key, components={"program": "p", "source": "other"})
    found = plan_device(base, device("l4"), REQUEST, store.profiles(), workshop(store, machine))
    assert {row.evidence for row in found.plan.rows} == {"carried over"}
    assert "source of the module: stored s, here other" in found.carried_because


def test_jax_takes_a_share_of_a_gpu_and_what_libtpu_leaves_of_a_tpu() -> None:
    """The margin is one of that, and never of more than the maker states."""
    asked = PlanRequest(memory_share=0.75, margin=0.1)
    assert asked.usable_bytes(device("h100-80gb")) == pytest.approx(0.9 * 60e9)
    assert asked.usable_bytes(device("tpu-v5e")) == pytest.approx(0.9 * 16e9)


def test_the_module_of_targets_is_not_asked_for_compilers_by_a_plan(store: ProfileStore, compilers: None) -> None:
    """A plan checks them itself, once, before anything is loaded."""
    assert targets.search_path is not devices.search_path
