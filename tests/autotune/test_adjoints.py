"""How many passes a call makes: counted by the theory of either adjoint, and read back from what a row holds."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

import adjoint
from autotune.adjoints import Work, executed_steps, make_adjoint, passes, transfer_steps, work_of_row
from autotune.stock import stock_executed_steps
from profiles import AdjointName, Tier
from tests.autotune.rows import a_row

OURS, DIFFRAX = AdjointName.OURS, AdjointName.DIFFRAX
HOST = Tier(name="host", windows=7, transfer_cost=2.5)
works = st.integers(1, 300).flatmap(
    lambda steps: st.builds(
        Work, steps=st.just(steps), reversed_steps=st.integers(1, steps), accepted=st.integers(1, steps)
    )
)


def test_the_prediction_is_what_was_accepted_else_what_is_visited() -> None:
    """None is told apart from none."""
    assert Work(steps=9, reversed_steps=8, accepted=7).predicted == 7
    assert Work(steps=9, reversed_steps=8).predicted == 8
    assert Work(steps=9, reversed_steps=8, accepted=0).predicted == 0


@given(st.integers(1, 200), st.integers(1, 40), st.one_of(st.none(), st.integers(1, 250)))
def test_executed_steps_are_those_of_the_adjoint_itself(steps: int, checkpoints: int, expected: int | None) -> None:
    """With a prediction, without one, with windows; Diffrax's knows neither."""
    assert executed_steps(OURS, steps, checkpoints, expected) == adjoint.executed_steps(steps, checkpoints, expected)
    assert executed_steps(DIFFRAX, steps, checkpoints, expected, HOST) == stock_executed_steps(steps, checkpoints)
    windowed = adjoint.windowed_steps(steps, checkpoints, HOST.windows, expected, HOST.transfer_cost)
    assert executed_steps(OURS, steps, checkpoints, expected, HOST) == windowed


@given(works, st.integers(1, 40))
def test_passes_are_what_is_executed_parted_into_untaped_and_taped_ones(work: Work, checkpoints: int) -> None:
    """What is not visited again is made once; every visited step is taped once."""
    advances, taped = passes(OURS, work, checkpoints)
    assert taped == work.reversed_steps
    visited = adjoint.executed_steps(work.reversed_steps, checkpoints, work.accepted)
    assert advances + taped == visited + work.steps - work.reversed_steps
    assert advances >= work.steps - work.reversed_steps
    advances, taped = passes(DIFFRAX, work, checkpoints)
    assert (taped, advances + taped) == (work.steps, stock_executed_steps(work.steps, checkpoints))


@pytest.mark.parametrize("name", AdjointName)
def test_where_no_gradient_is_taken_each_step_is_made_once(name: AdjointName) -> None:
    """Whatever the count, and whatever the tier."""
    forward = Work(steps=50, reversed_steps=0, accepted=40)
    assert passes(name, forward, 3) == passes(name, forward, 3, HOST) == (50, 0)


def test_transfers_cost_a_window_less_one() -> None:
    """The last window stays on the device; without a tier nothing is handed over."""
    planned = adjoint.plan_windows(300, 5, 7, 2.5)
    assert planned.windows > 1
    assert transfer_steps(300, 5, HOST) == (planned.windows - 1) * 2.5
    assert transfer_steps(300, 5, None) == 0.0
    assert transfer_steps(5, 5, HOST) == 0.0


@given(works, st.integers(1, 40))
def test_the_work_of_a_row_counts_what_the_row_executed(work: Work, checkpoints: int) -> None:
    """A row keeps steps, accepted steps and what was executed; that tells which steps were visited."""
    visited = dataclasses.replace(work, reversed_steps=work.accepted or 0)
    for truth in (visited, dataclasses.replace(work, reversed_steps=work.steps)):
        executed = sum(passes(OURS, truth, checkpoints))
        row = a_row(checkpoints, None, steps=truth.steps, accepted=truth.accepted, executed_steps=executed)
        found = work_of_row(row)
        assert found is not None
        assert (found.steps, found.accepted) == (truth.steps, truth.accepted)
        assert sum(passes(OURS, found, checkpoints)) == executed


def test_a_row_without_steps_has_no_work_and_one_that_nothing_explains_visited_what_was_accepted() -> None:
    """A worker that placed without a prediction executed something else."""
    assert work_of_row(a_row(4, None, steps=None)) is None
    assert work_of_row(a_row(4, None, steps=0)) is None
    odd = a_row(4, None, steps=1000, accepted=800, executed_steps=1)
    assert work_of_row(odd) == Work(steps=1000, reversed_steps=800, accepted=800)
    assert work_of_row(a_row(4, None, accepted=None)) == Work(steps=1000, reversed_steps=1000, accepted=1000)
    forward = a_row(4, None, steps=1000, accepted=800, executed_steps=1000)
    assert work_of_row(forward) == Work(steps=1000, reversed_steps=0, accepted=800)


def test_each_adjoint_is_made_with_what_it_knows() -> None:
    """Diffrax's has a count alone."""
    import diffrax

    stock = make_adjoint(DIFFRAX, 5, 100, HOST, "/nowhere")
    assert type(stock) is diffrax.RecursiveCheckpointAdjoint
    assert stock.checkpoints == 5
    ours = make_adjoint(OURS, 5, 100)
    assert isinstance(ours, adjoint.RecursiveCheckpointAdjoint)
    assert (ours.checkpoints, ours.expected_steps) == (5, 100)
