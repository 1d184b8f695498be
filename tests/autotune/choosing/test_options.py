"""Which counts may be chosen at a cell, and which of them comes first: rows and options made by hand."""

import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import adjoint
from autotune.adjoints import Work
from autotune.choosing.recommend import TIE, Objective, Option, options, rank
from autotune.model.cells import Cell, cell_of
from autotune.model.forecast import Forecast
from autotune.model.ranges import Range
from autotune.search.space import grid_counts
from profiles import AdjointName, Measurement, Status, Tier
from tests.autotune.rows import ROW, a_row

OURS = AdjointName.OURS
CELL = cell_of(ROW)
WORK = Work(steps=1000, reversed_steps=1000, accepted=1000)


def options_of(
    rows: Sequence[Measurement], counts: Sequence[int] | None = None, work: Work | None = WORK, cell: Cell = CELL
) -> tuple[Option, ...]:
    """List the options at a cell."""
    forecast = Forecast(rows, {CELL.case: WORK}, OURS)
    return options(forecast, cell, name=OURS, work=work, counts=counts, rows=rows)


def counts_of(rows: Sequence[Measurement], **asked: Any) -> list[int]:
    """List their counts."""
    return [option.checkpoints for option in options_of(rows, **asked)]


COMPILED = [a_row(4, None), a_row(19, None), a_row(64, None)]


def test_what_was_measured_and_candidates_between_may_be_chosen() -> None:
    """By rising count; where the steps are unknown, what was measured alone."""
    between = [count for count in grid_counts(1000, at_most=48) if 4 <= count <= 64]
    assert len(between) > 15
    assert not {19, 64} & set(between)
    assert counts_of(COMPILED) == sorted({*between, 19, 64})
    assert counts_of(COMPILED, work=None) == [4, 19, 64]
    assert counts_of(COMPILED, counts=(64, 30)) == [64, 30]
    assert counts_of(COMPILED, counts=()) == []


def test_candidates_that_execute_more_than_anything_timed_are_left_out() -> None:
    """Below 19 checkpoints only what was measured itself stays."""
    rows = [a_row(4, None), a_row(19, 0.3), a_row(64, 0.2)]
    assert [count for count in counts_of(rows) if count < 19] == [4]
    assert len(counts_of(rows)) > 10


def test_nothing_may_be_chosen_where_the_variant_has_no_row() -> None:
    """Not even from a list."""
    assert options_of(COMPILED, counts=(4, 19), cell=dataclasses.replace(CELL, xla_flags="--f")) == ()


@pytest.mark.parametrize(
    ("status", "left"),
    [
        (Status.FAILED, [4, 64, 500]),
        (Status.NOT_FINITE, [4, 64, 500]),
        (Status.TIMED_OUT, [4, 64, 500]),
        (Status.OUT_OF_MEMORY, [4]),
    ],
)
def test_a_count_that_failed_is_no_option_and_none_is_where_memory_had_ended(status: Status, left: list[int]) -> None:
    """Of 4, 19, 64 and 500, where 19 ended badly."""
    rows = [a_row(4, 0.9), a_row(19, None), a_row(64, 0.3), a_row(500, None), a_row(19, None, status=status, repeat=1)]
    assert counts_of(rows, work=None) == left


def test_a_count_that_failed_and_was_timed_another_time_is_an_option() -> None:
    """A repeat that took too long does not count against one that did not; memory that ran out does."""
    lost = a_row(19, None, status=Status.TIMED_OUT, repeat=1)
    assert counts_of([a_row(4, 0.9), a_row(19, 0.5), lost], work=None) == [4, 19]
    failed_with_samples = a_row(19, 0.5, status=Status.NOT_FINITE)
    assert counts_of([a_row(4, 0.9), failed_with_samples, a_row(64, None)], counts=(4, 19, 64)) == [4, 64]
    gone = dataclasses.replace(lost, status=Status.OUT_OF_MEMORY)
    assert counts_of([a_row(4, 0.9), a_row(19, 0.5), gone], work=None) == [4]


def test_what_failed_elsewhere_is_no_failure_here() -> None:
    """Under flags, or at another horizon."""
    bad = {"status": Status.OUT_OF_MEMORY}
    rows = [*COMPILED, a_row(4, None, xla_flags="--f", **bad), a_row(4, None, horizon=20, **bad)]
    assert counts_of(rows, work=None) == [4, 19, 64]


def test_an_option_has_the_forecast_figures_and_the_steps_that_theory_counts() -> None:
    """And whether its own seconds were measured."""
    rows = [a_row(4, 0.9), a_row(19, None), a_row(64, 0.3)]
    forecast = Forecast(rows, {CELL.case: WORK}, OURS)
    for option in options_of(rows, counts=(4, 19, 30, 64)):
        count = option.checkpoints
        assert option.cell == CELL
        assert option.peak == forecast.bytes_at(CELL, count)
        assert option.seconds == forecast.seconds_at(CELL, count)
        assert option.executed_steps == adjoint.executed_steps(1000, count, 1000)
        assert option.timed is (count in (4, 64))
    assert {option.executed_steps for option in options_of(rows, work=None)} == {None}
    tier = Tier(name="host", windows=20)
    held = [dataclasses.replace(row, tier=tier) for row in rows]
    (option,) = options_of(held, counts=(4,), cell=dataclasses.replace(CELL, tier=tier))
    assert option.executed_steps == adjoint.windowed_steps(1000, 4, 20, 1000, 1.0)


# --- rank


def option(
    checkpoints: int, seconds: float | None, *, high: float = 1.0, executed: int | None = 1, timed: bool = True
) -> Option:
    """Make an option whose likely bytes are its checkpoints."""
    return Option(
        cell=CELL,
        checkpoints=checkpoints,
        peak=Range(0.0, float(checkpoints), high),
        seconds=None if seconds is None else Range(0.0, seconds, 9.0),
        executed_steps=executed,
        timed=timed,
    )


def ranked(*candidates: Option, budget: int = 100, objective: Objective = Objective.TIME) -> list[int]:
    """List the counts, best first."""
    return [option.checkpoints for option in rank(candidates, budget, objective)]


def test_only_what_fits_for_certain_is_ranked() -> None:
    """Up to the budget itself."""
    assert ranked(option(1, 0.3, high=100), option(2, 0.2, high=100.1), option(3, 0.1, high=math.inf)) == [1]
    assert ranked(option(1, 0.3, high=101), option(2, 0.2, high=200)) == []


def test_fewer_seconds_come_first_then_fewer_steps_then_fewer_bytes() -> None:
    """Seconds that are unknown come last, by their steps."""
    assert ranked(option(1, 0.3), option(2, 0.1), option(3, 0.2)) == [2, 3, 1]
    assert ranked(option(1, 0.1, executed=9), option(2, 0.1, executed=8), option(3, 0.1, executed=8)) == [2, 3, 1]
    unknown = (option(1, None, executed=9), option(2, None, executed=8), option(3, 99.0, executed=10))
    assert ranked(*unknown) == [3, 2, 1]


def test_a_count_that_was_not_timed_has_to_promise_two_per_cent_more() -> None:
    """At 1.9 per cent the measured one stays."""
    assert TIE == 0.02
    assert ranked(option(1, 1.0), option(2, 0.981, timed=False)) == [1, 2]
    assert ranked(option(1, 1.0), option(2, 0.979, timed=False)) == [2, 1]
    assert ranked(option(1, 1.0, timed=False), option(2, 1.001, timed=False)) == [1, 2]


def test_where_memory_is_the_objective_fewer_steps_come_first_whatever_was_timed() -> None:
    """Then fewer bytes; where no steps are known, more checkpoints."""
    memory = Objective.MEMORY
    assert ranked(option(1, 0.1, executed=9), option(2, 0.9, executed=8), objective=memory) == [2, 1]
    assert ranked(option(1, None, executed=9), option(2, 0.9, executed=10), objective=memory) == [1, 2]
    assert ranked(option(2, 0.1, executed=9), option(1, 0.9, executed=9), objective=memory) == [1, 2]
    unknown = [option(count, None, executed=None) for count in (3, 9, 5)]
    assert ranked(*unknown, objective=memory) == ranked(*unknown) == [9, 5, 3]


@given(
    st.lists(
        st.builds(
            option, st.integers(1, 50), st.one_of(st.none(), st.sampled_from([0.1, 0.101, 0.2])),
            high=st.sampled_from([90.0, 100.0, 110.0]), executed=st.integers(1, 3), timed=st.booleans(),
        ),
        max_size=8,
    ),
    st.sampled_from(Objective),
)  # fmt: skip
def test_no_option_is_ranked_before_a_better_one(candidates: list[Option], objective: Objective) -> None:
    """Each against the next, by the rule in words."""

    def seconds(one: Option) -> float:
        if objective is Objective.MEMORY:
            return 0.0
        return math.inf if one.seconds is None else one.seconds.likely * (1.0 if one.timed else 1.02)

    found = rank(candidates, 100, objective)
    assert len(found) == sum(one.peak.high <= 100 for one in candidates)
    for left, right in itertools.pairwise(found):
        assert seconds(left) <= seconds(right)
        if seconds(left) == seconds(right):
            assert (left.executed_steps or 0, left.peak.likely) <= (right.executed_steps or 0, right.peak.likely)


def test_a_count_that_was_compiled_alone_and_executes_more_than_anything_timed_has_no_seconds() -> None:
    """One checkpoint, whose bytes are known, executes hundreds of times the steps: no law stretches that far."""
    rows = [a_row(1, None), a_row(45, 0.2), a_row(1000, 0.2)]
    found = {option.checkpoints: option for option in options_of(rows)}
    assert found[1].seconds is None
    assert found[45].seconds is not None
    assert rank(found.values(), 10**9)[0].checkpoints != 1
    assert rank(found.values(), 1_150_000)[0].checkpoints == 1  # where nothing else fits
