"""Tiers: what may be asked, what a transfer costs, and what of it reaches the adjoint."""

import dataclasses
import pathlib

import pytest

from autotune import AutotuneError
from autotune.adjoints import make_adjoint
from autotune.machine.tiers import TierBudget, TierRequest, read_tiers, transfer_cost
from profiles import AdjointName, Tier


def _read(listed: str, **options: str | None) -> tuple[TierBudget, ...]:
    return read_tiers(listed, **{"host_budget": None, "disk_budget": None, "disk_directory": None, **options})


def test_tiers_are_read_in_the_order_in_which_they_are_listed(tmp_path: pathlib.Path) -> None:
    """The device needs no naming; the others come with their budgets and the disk with its directory."""
    assert _read("device") == _read("") == ()
    assert _read("device,host", host_budget="1MiB") == (TierBudget(name="host", budget="1MiB"),)
    both = _read("disk, host", disk_directory=str(tmp_path), disk_budget="10%")
    assert [tier.name for tier in both] == ["disk", "host"]
    assert both[0] == TierBudget(name="disk", budget="10%", directory=str(tmp_path))
    assert 0 < both[0].bytes_here() <= both[0].free_bytes


@pytest.mark.parametrize(
    ("listed", "options", "said"),
    [
        ("device,tape", {}, "'tape' is not a tier; list some of device, host, disk"),
        ("device,disk", {}, "needs --disk-directory"),
        ("device,disk", {"disk_directory": "/no/such/place"}, "/no/such/place: it is not a directory"),
        ("device", {"host_budget": "1GiB"}, "--host-budget 1GiB is for a tier that is not used; add host"),
        ("host", {"disk_directory": "/tmp"}, "add disk to --tiers host"),
        ("host", {"host_budget": "a lot"}, "'a lot' is not a number of bytes"),
        ("host", {"host_budget": "0%"}, "'0%' is not a share"),
        ("host", {"host_budget": "9999TiB"}, "--host-budget 9999TiB is more than the .* free in the host's memory"),
    ],
)
def test_what_cannot_be_had_is_refused_before_anything_runs(listed: str, options: dict[str, str], said: str) -> None:
    """One line says what was asked, what was found and what to do."""
    with pytest.raises(AutotuneError, match=said):
        _read(listed, **options)


def test_the_cost_of_a_transfer_is_its_seconds_in_steps_to_two_digits() -> None:
    """Two digits, so that a tune that goes on does not take a new program for every reading of the clock."""
    question = TierRequest(name="host", windows=4, state_bytes=8, step_seconds=0.003, set_values={})
    assert transfer_cost(question, 0.0123456) == 4.1
    assert transfer_cost(dataclasses.replace(question, step_seconds=None), 1.0) == 1.0


def test_the_adjoint_of_a_trial_has_its_tier() -> None:
    """All that the row says of the tier reaches the adjoint; a host tier has no directory."""
    made = make_adjoint(AdjointName.OURS, 8, 100, Tier(name="disk", windows=5, transfer_cost=0.5), "/tmp")
    assert (made.tier, made.windows, made.transfer_cost, made.directory) == ("disk", 5, 0.5, "/tmp")
    assert make_adjoint(AdjointName.OURS, 8, 100, Tier(name="host", windows=5)).directory is None
    assert make_adjoint(AdjointName.OURS, 8, 100).tier is None
