"""Which devices a report sets side by side, and what is known of each."""

import dataclasses

import pytest

from autotune.planning.hardware import side_by_side
from autotune.planning.step_costs import COSTS_NOTE
from autotune.problem.costs import PassCost, StepCosts
from autotune.search.space import Listed
from autotune.tuning.request import TuneRequest
from autotune.tuning.tune import run_tune
from profiles import DeviceError, DeviceKey, PlanRequest, ProfileStore, load_devices, open_store
from tests.autotune.fake_lab import Heard, lab

CATALOGUE = load_devices()
REQUEST = PlanRequest()


@pytest.fixture
def store():
    """A store with a profile that was measured here."""
    with open_store("sqlite://") as opened:
        request = TuneRequest(problem="fake.module:make", budget="5MB", listed=Listed(horizons=(5.0,)))
        run_tune(request, store=opened, machine=lab(), progress=Heard())
        yield opened


def test_no_device_is_shown_that_nothing_is_known_of(store: ProfileStore) -> None:
    """Without names there are only devices with a profile of this problem."""
    (base,) = store.profiles()
    assert side_by_side(base, store, CATALOGUE, (), REQUEST) == ()


def test_devices_with_a_profile_are_shown_by_themselves(store: ProfileStore) -> None:
    """What was compiled for an L4 is shown beside the profile that was measured here."""
    (base,) = store.profiles()
    key = DeviceKey(platform="gpu", kind="NVIDIA L4", memory_bytes=24 * 10**9, planned=True)
    for row in base.measurements:
        store.put(dataclasses.replace(row, device=key, run_seconds=()))
    rows = side_by_side(base, store, CATALOGUE, (), REQUEST)
    assert [(row.device, row.evidence) for row in rows] == [("l4-24gb", "compiled for it")]


def test_named_devices_are_carried_over_and_bounded_where_steps_were_counted(store: ProfileStore) -> None:
    """500 steps that all are stored: 500 advances and 500 reversals, at 1 PFLOP each."""
    (base,) = store.profiles()
    names = ["h100-80gb", "mi300x"]
    assert all(row.least_seconds is None for row in side_by_side(base, store, CATALOGUE, names, REQUEST))
    step = PassCost(flops=1e15)
    costs = dataclasses.asdict(StepCosts(advance=step, replay=step, reversal=step))
    for row in base.measurements:
        store.put_note(COSTS_NOTE, row.problem.fingerprint, costs)
    priced = CATALOGUE | {"h100-80gb": dataclasses.replace(CATALOGUE["h100-80gb"], price_per_hour=2.0, currency="EUR")}
    here, there = side_by_side(base, store, priced, names, REQUEST)
    assert (here.device, here.evidence, here.recompute_factor) == ("h100-80gb", "carried over", 2.0)
    assert here.least_seconds == pytest.approx(1000 * 1e15 / 67e12)
    assert here.least_cost == pytest.approx(1000 * here.least_seconds * 2.0 / 3600)
    assert there.least_seconds is None  # no figures of its chip
    assert here.run_seconds is None


def test_a_name_that_nobody_knows_is_refused(store: ProfileStore) -> None:
    """In the words of the catalogue."""
    (base,) = store.profiles()
    with pytest.raises(DeviceError, match="no device is named"):
        side_by_side(base, store, CATALOGUE, ["h1000"], REQUEST)
