"""What a plan rests on: recompute factors by theory, and the laws of bytes and steps that everything else uses too."""

import dataclasses
import math
from typing import Any

import pytest

import adjoint
from autotune.choosing.plan_laws import plan_laws, steps_law
from autotune.model.bytes_law import BytesLaw
from autotune.stock import stock_executed_steps, stock_most_executed_steps
from profiles import AdjointName, Laws, Measurement
from tests.autotune.rows import a_profile, a_row

OURS, DIFFRAX = AdjointName.OURS, AdjointName.DIFFRAX


def rejecting(horizon: float, steps: int, accepted: int, **changes: Any) -> Measurement:
    """A row of an adaptive solve whose backward pass visits the accepted steps alone."""
    executed = adjoint.executed_steps(accepted, 16, accepted) + steps - accepted
    return a_row(
        16, 0.5, horizon=horizon, steps=steps, accepted=accepted, executed_steps=executed, expected_steps=accepted,
        **changes,
    )  # fmt: skip


def laws(*rows: Measurement, name: AdjointName = OURS) -> Laws:
    """Make the laws of a profile."""
    return plan_laws(a_profile(*[dataclasses.replace(row, adjoint=name) for row in rows]))


def test_at_measured_steps_the_factor_is_that_of_the_profiles_own_work() -> None:
    """Of 1,000 steps 800 are visited again, of 3,000 all."""
    made = laws(rejecting(10, 1000, 800), rejecting(30, 3000, 3000))
    for count in (1, 16, 100, 800, 1000):
        assert made.recompute(1000, count) == (adjoint.executed_steps(800, count, 800) + 200) / 1000
        assert made.recompute(3000, count) == adjoint.executed_steps(3000, count, 3000) / 3000


@pytest.mark.parametrize(("steps", "share"), [(500, 0.8), (1700, 0.8), (1800, 1.0), (9000, 1.0)])
def test_at_other_steps_the_share_of_visited_ones_is_that_of_the_nearest_by_ratio(steps: int, share: float) -> None:
    """The middle of 1,000 and 3,000 is 1,732."""
    made = laws(rejecting(10, 1000, 800), rejecting(30, 3000, 3000))
    visited = round(share * steps)
    expected = adjoint.executed_steps(visited, 16, visited) + steps - visited
    assert made.recompute(steps, 16) == expected / steps


def every(checkpoints: int, steps: int, accepted: int, placed_for: int | None = None) -> Measurement:
    """A row of an adaptive solve whose backward pass visits all steps."""
    executed = adjoint.executed_steps(steps, checkpoints, placed_for or steps)
    return a_row(checkpoints, 0.5, steps=steps, accepted=accepted, executed_steps=executed, expected_steps=accepted)


@pytest.mark.parametrize("placed_for", [1000, 800])
def test_where_all_steps_are_visited_they_are_what_is_placed_for(placed_for: int) -> None:
    """The adjoint makes them of the accepted ones that it is given; rows that were counted otherwise say so too."""
    assert adjoint.executed_steps(1000, 16, 800) != adjoint.executed_steps(1000, 16, 1000)
    made = laws(every(16, 1000, 800, placed_for))
    assert made.recompute(1000, 16) == adjoint.executed_steps(1000, 16, 1000) / 1000
    assert made.recompute(2000, 16) == adjoint.executed_steps(2000, 16, 2000) / 2000


@pytest.mark.parametrize("steps", [1000, 2000])
def test_rejected_steps_are_left_out_from_the_count_on_at_which_a_row_leaves_them_out(steps: int) -> None:
    """Here 16, as at 8 all are visited; so it is at steps that were not measured."""
    made = laws(rejecting(10, 1000, 800), every(8, 1000, 800))
    accepted = steps * 8 // 10
    for count in (1, 8, 15):
        assert made.recompute(steps, count) == adjoint.executed_steps(steps, count, steps) / steps
    for count in (16, 100):
        left = adjoint.executed_steps(accepted, count, accepted) + steps - accepted
        assert made.recompute(steps, count) == left / steps


def test_without_steps_all_of_them_are_visited() -> None:
    """Nothing was counted, so nothing is known to be left out."""
    assert laws(a_row(16, 0.5, steps=None, accepted=None)).recompute(500, 16) == (
        adjoint.executed_steps(500, 16, 500) / 500
    )


def test_of_diffrax_the_factor_is_the_most_that_its_adjoint_executes() -> None:
    """Infinite where theory tells nothing."""
    made = laws(a_row(16, 0.5), name=DIFFRAX)
    assert made.recompute(1000, 16) == stock_executed_steps(1000, 16) / 1000
    assert stock_most_executed_steps(10**6, 10) is None
    assert made.recompute(10**6, 10) == math.inf
    assert made.windowed is None


def test_states_in_host_memory_cost_a_step_each() -> None:
    """Of our adjoint, by the theory of windows with a transfer at the price of a step."""
    made = laws(a_row(16, 0.5))
    assert made.windowed is not None
    assert made.windowed(1000, 16, 50) == adjoint.windowed_steps(1000, 16, 50, 1000, 1.0) / 1000


@pytest.mark.parametrize("name", AdjointName)
def test_bytes_and_steps_are_told_by_the_laws_of_every_other_answer(name: AdjointName) -> None:
    """For the profile's adjoint, and from the rows of one setting."""
    made = laws(a_row(16, 0.5), name=name)
    pairs = [(4, 1_400_000), (16, 2_600_000), (64, 9_000_000)]
    sizes, law = made.sizes(pairs), BytesLaw(pairs, name)
    assert [sizes.upper_envelope(count) for count in range(1, 90)] == [law.upper_envelope(c) for c in range(1, 90)]
    rows = [rejecting(10, 1000, 800), rejecting(30, 3000, 3000)]
    for told in (made.steps(rows), steps_law(rows)):
        assert told.steps_at(20, 1e-3) == (2000, "interpolated")
        assert told.horizon_of(2000, 1e-3) == 20
