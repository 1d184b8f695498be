"""How many passes a call makes: counted by the theory of either adjoint, and read back from what a row holds."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

import adjoint
from autotune.adjoints import Work, executed_steps, make_adjoint, passes, transfer_steps, work_of_row, work_of_rows
from autotune.stock import stock_executed_steps
from profiles import AdjointName, Tier
from tests.autotune.rows import a_row

OURS, DIFFRAX = AdjointName.OURS, AdjointName.DIFFRAX
HOST = Tier(name="host", windows=7, transfer_cost=2.5)
works = st.integers(1, 300).flatmap(
    lambda steps: st.builds(
        Work, steps=st.just(steps), reversed_steps=st.integers(1, steps), accepted=st.integers(1, steps),
        accepted_from=st.integers(1, 40),
    )
)  # fmt: skip


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
    """What is not visited again is made once; every visited step is taped once, and all are with few checkpoints."""
    advances, taped = passes(OURS, work, checkpoints)
    assert (
        taped == work.visited(checkpoints) == (work.steps if checkpoints < work.accepted_from else work.reversed_steps)
    )
    # Where all are visited, the adjoint makes of accepted steps how many passes there will be.
    visited = adjoint.executed_steps(taped, checkpoints, work.steps if taped == work.steps else work.accepted)
    assert advances + taped == visited + work.steps - taped
    assert advances >= work.steps - taped
    advances, taped = passes(DIFFRAX, work, checkpoints)
    assert (taped, advances + taped) == (work.steps, stock_executed_steps(work.steps, checkpoints))


def test_a_prediction_that_differs_is_scaled_where_rejected_steps_are_visited() -> None:
    """By the passes of an accepted step; it is taken as it is where the accepted ones alone are visited."""
    work = Work(steps=100, reversed_steps=80, accepted=80, accepted_from=10)
    assert sum(passes(OURS, work, 9, None, 40)) == adjoint.executed_steps(100, 9, 50)
    assert sum(passes(OURS, work, 10, None, 40)) == adjoint.executed_steps(80, 10, 40) + 20


@pytest.mark.parametrize("name", AdjointName)
def test_where_no_gradient_is_taken_each_step_is_made_once(name: AdjointName) -> None:
    """Whatever the count, and whatever the tier."""
    forward = Work(steps=50, reversed_steps=0, accepted=40, accepted_from=9)
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


@pytest.mark.parametrize(
    ("counts", "work"),
    [
        ((2, 9, 10, 40), Work(steps=100, reversed_steps=80, accepted=80, accepted_from=10)),
        ((40, 2), Work(steps=100, reversed_steps=80, accepted=80, accepted_from=40)),
        ((10, 40), Work(steps=100, reversed_steps=80, accepted=80)),
        ((2, 9), Work(steps=100, reversed_steps=100, accepted=80)),
    ],
    ids=["both sides", "far apart", "above", "below"],
)
def test_rows_of_several_counts_tell_from_which_on_rejected_steps_are_left_out(
    counts: tuple[int, ...], work: Work
) -> None:
    """The truth is 10: what lies between rows is taken to visit all, and rows of one side tell nothing of the other."""
    truth = Work(steps=100, reversed_steps=80, accepted=80, accepted_from=10)
    rows = [
        a_row(count, None, steps=100, accepted=80, executed_steps=sum(passes(OURS, truth, count))) for count in counts
    ]
    assert work_of_rows(rows) == work


def test_rows_that_nothing_explains_or_without_steps_tell_no_count() -> None:
    """Nor do rows of a solve that rejects nothing, of which any count is right."""
    every = a_row(20, None, steps=100, accepted=80, executed_steps=adjoint.executed_steps(100, 20, 100))
    odd = a_row(40, None, steps=100, accepted=80, executed_steps=1)
    assert work_of_rows([odd, every]) == Work(steps=100, reversed_steps=100, accepted=80)
    assert work_of_rows([every, a_row(40, None, steps=None)]) == Work(steps=100, reversed_steps=100, accepted=80)
    assert work_of_rows([a_row(40, None, steps=None)]) is work_of_rows([]) is None
    none = [a_row(c, None, steps=9, accepted=9, executed_steps=adjoint.executed_steps(9, c, 9)) for c in (1, 4)]
    assert work_of_rows(none) == Work(steps=9, reversed_steps=9, accepted=9)


def test_each_adjoint_is_made_with_what_it_knows() -> None:
    """Diffrax's has a count alone."""
    import diffrax

    stock = make_adjoint(DIFFRAX, 5, 100, HOST, "/nowhere")
    assert type(stock) is diffrax.RecursiveCheckpointAdjoint
    assert stock.checkpoints == 5
    ours = make_adjoint(OURS, 5, 100)
    assert isinstance(ours, adjoint.RecursiveCheckpointAdjoint)
    assert (ours.checkpoints, ours.expected_steps) == (5, 100)


def test_a_row_with_as_many_checkpoints_as_steps_tells_the_loops_bound() -> None:
    """Rows keep no bound; nobody measures more checkpoints than steps but for it."""
    few, whole = a_row(45, 0.2), a_row(4096, 0.1)
    work = work_of_rows([few, whole])
    assert work is not None
    assert work.everything == 4096
    assert [work.path(count) for count in (1, 2, 128, 129, 4095, 4096)] == [0, 1, 1, 2, 3, 4]
    unknown = work_of_rows([few])
    assert unknown is not None
    assert unknown.everything is None
    theirs = work_of_rows([dataclasses.replace(row, adjoint=AdjointName.DIFFRAX) for row in (few, whole)])
    assert theirs is not None
    assert theirs.switches == ()
