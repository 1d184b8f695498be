"""Lower bounds of seconds, against arithmetic by hand."""

import dataclasses

import pytest

import adjoint
from autotune.adjoints import Work
from autotune.planning.bounds import least_seconds
from autotune.problem.costs import PassCost, StepCosts
from profiles import Hardware, load_devices

WORK = Work(steps=100, reversed_steps=100)
CHIP = Hardware(flops=1000, matrix_flops=10_000, bandwidth=100, cache=50)


def costs(**figures) -> StepCosts:
    """The same cost for every pass."""
    step = PassCost(**figures)
    return StepCosts(advance=step, replay=step, reversal=step)


@pytest.mark.parametrize("checkpoints", [1, 7, 30, 100])
def test_passes_are_those_of_the_schedule(checkpoints: int) -> None:
    """A step that costs what the device makes in a second takes at least as many seconds as steps are executed."""
    executed = adjoint.executed_steps(100, checkpoints, 100)
    assert least_seconds(costs(flops=1000.0), WORK, checkpoints, CHIP) == pytest.approx(executed)
    assert least_seconds(costs(matrix_flops=1e4), WORK, checkpoints, CHIP) == pytest.approx(executed)


def test_each_kind_of_pass_has_its_price() -> None:
    """100 steps with all states: 100 advances, 100 reversals, no replay; with one checkpoint most are replays."""
    priced = StepCosts(advance=PassCost(flops=1.0), replay=PassCost(flops=100.0), reversal=PassCost(flops=10.0))
    assert least_seconds(priced, WORK, 100, CHIP) == pytest.approx((100 + 1000) / 1000)
    replays = sum(range(100))  # the step before the last one needs one step less, and so on
    assert least_seconds(priced, WORK, 1, CHIP) == pytest.approx((100 + 100 * replays + 1000) / 1000, rel=0.03)


def test_only_bytes_beyond_the_cache_count() -> None:
    """A pass that reads and writes 50 bytes each moves none; one of 60 moves 10 of each kind."""
    assert least_seconds(costs(read_bytes=50, written_bytes=50), WORK, 100, CHIP) == 0
    assert least_seconds(costs(read_bytes=60, written_bytes=60), WORK, 100, CHIP) == pytest.approx(200 * 20 / 100)


def test_the_slowest_resource_is_the_bound() -> None:
    """The three times may overlap, so the largest counts and not their sum."""
    every = costs(flops=1000.0, matrix_flops=5000.0, read_bytes=80)
    assert least_seconds(every, WORK, 100, CHIP) == pytest.approx(200)


def test_several_devices_share_the_work() -> None:
    """Four devices take a quarter, and have four caches."""
    assert least_seconds(costs(flops=1000.0), WORK, 100, CHIP, devices=4) == pytest.approx(50)
    assert least_seconds(costs(read_bytes=200), WORK, 100, CHIP, devices=4) == 0


def test_without_figures_there_is_no_bound() -> None:
    """None, not zero."""
    assert least_seconds(costs(flops=1.0), WORK, 3, Hardware()) is None
    assert least_seconds(costs(flops=1.0), WORK, 3, dataclasses.replace(CHIP, flops=None)) == 0


def test_every_device_that_is_compiled_for_has_a_bound() -> None:
    """The catalogue states what a bound takes."""
    for device in load_devices().values():
        if device.is_compiled_for:
            assert least_seconds(costs(matrix_flops=1.0, read_bytes=2**30), WORK, 3, device.hardware), device.name
