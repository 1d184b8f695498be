"""What a search knows from its rows, against rows made by hand and every count tried one by one."""

import dataclasses
import math
import statistics
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import adjoint
from autotune.adjoints import Work
from autotune.measuring.trial import Rung
from autotune.model.cells import Cell, cell_of
from autotune.search.history import FAILURES_BEFORE_GIVING_UP, Past, SearchGoal
from autotune.search.space import Listed, Space, build_space, grid_counts
from profiles import AdjointName, Case, Measurement, Status, Tier
from tests.autotune.rows import ROW, a_row

STEPS = 1000
SPACE = build_space(Listed(horizons=(10,), tolerances=(1e-3,)))
(CELL,) = SPACE.cells
ELSEWHERE = Cell(Case(20, 1e-3))
WORK = Work(steps=STEPS, reversed_steps=STEPS, accepted=STEPS)
COMPILED, RUN = Rung.COMPILED, Rung.RUN


def goal(budget_bytes: int | None = None, space: Space = SPACE, **changes: Any) -> SearchGoal:
    """Ask for the best count of a solve of 1,000 steps."""
    asked = SearchGoal(space=space, works={CELL.case: WORK}, adjoint=AdjointName.OURS, budget_bytes=budget_bytes)
    return dataclasses.replace(asked, **changes)


def past(*rows: Measurement, budget_bytes: int | None = None, **changes: Any) -> Past:
    """Know the rows."""
    return Past(rows, goal(budget_bytes, **changes))


def test_the_rows_made_by_hand_lie_in_the_cell_that_is_searched() -> None:
    """Otherwise nothing below would test anything."""
    assert cell_of(ROW) == CELL


# --- the goal


def test_bytes_fit_up_to_the_budget_and_an_exhaustive_search_runs_what_does_not() -> None:
    """Without a budget everything fits."""
    assert goal(100).fits(100)
    assert not goal(100).fits(101)
    assert goal(None).fits(10**15)
    assert [goal(100).runs(size) for size in (100, 101)] == [True, False]
    assert goal(100, exhaustive=True).runs(101)


def test_steps_are_those_that_were_observed_and_none_where_nothing_was() -> None:
    """Passes are counted by theory, with the tier of the cell."""
    assert goal().steps(CELL.case) == STEPS
    assert goal().steps(ELSEWHERE.case) == 0
    assert goal().passes(CELL, 12) == adjoint.executed_steps(STEPS, 12, STEPS)
    windowed = dataclasses.replace(CELL, tier=Tier(name="host", windows=20))
    assert goal().passes(windowed, 12) == adjoint.windowed_steps(STEPS, 12, 20, STEPS, 1.0)


# --- what need not be asked again


@pytest.mark.parametrize(
    ("row", "compiled", "run"),
    [
        (None, False, False),
        (a_row(16, None), True, False),
        (a_row(16, 0.5), True, True),
        (a_row(16, None, status=Status.FAILED), True, True),
        (a_row(16, None, status=Status.NOT_FINITE, peak_bytes=None), True, True),
        (a_row(16, None, peak_bytes=3_000_001), True, True),
        (a_row(16, None, peak_bytes=3_000_000), True, False),
        (a_row(16, None, peak_bytes=None), True, False),
        (a_row(17, 0.5), False, False),
        (a_row(16, 0.5, horizon=20), False, False),
        (a_row(16, 0.5, xla_flags="--f"), False, False),
    ],
)
def test_a_trial_is_made_once_it_ended_or_proved_too_large(row: Measurement | None, compiled: bool, run: bool) -> None:
    """Of 16 checkpoints within 3 MB: whether its compile, and its run, need not be asked for any more."""
    known = past(*([row] if row else []), budget_bytes=3_000_000)
    assert (known.has(CELL, 16, COMPILED), known.has(CELL, 16, RUN)) == (compiled, run)


def test_an_exhaustive_search_runs_what_is_too_large_to_be_chosen() -> None:
    """What was compiled and found too large is still to be run."""
    row = a_row(16, None)
    assert past(row, budget_bytes=1).has(CELL, 16, RUN)
    assert not past(row, budget_bytes=1, exhaustive=True).has(CELL, 16, RUN)


def test_of_several_rows_of_one_count_each_may_settle_it() -> None:
    """A compile first and a run later."""
    assert past(a_row(16, None), a_row(16, 0.5, repeat=1)).has(CELL, 16, RUN)


def test_memory_that_ran_out_rules_out_that_count_and_all_larger_ones_of_its_cell() -> None:
    """For compiles and runs alike, and nowhere else."""
    known = past(a_row(16, None, status=Status.OUT_OF_MEMORY))
    for rung in (COMPILED, RUN):
        assert [known.has(CELL, count, rung) for count in (15, 16, 17, 1000)] == [False, True, True, True]
        assert not known.has(ELSEWHERE, 17, rung)


def test_a_count_that_took_too_long_rules_out_runs_that_execute_as_many_steps() -> None:
    """Fewer checkpoints and equal passes are not run; they are compiled, and more checkpoints are run."""
    slow = {"status": Status.TIMED_OUT, "peak_bytes": None}
    known = past(a_row(16, None, **slow))
    assert [known.has(CELL, count, RUN) for count in (1, 15, 17)] == [True, True, False]
    assert [known.has(CELL, count, COMPILED) for count in (1, 15, 17)] == [False, False, False]
    # Everything is stored from 1,000 checkpoints on, so more of them execute exactly as many steps.
    assert past(a_row(1000, None, **slow)).has(CELL, 1200, RUN)


def test_a_case_whose_steps_nobody_counted_has_no_passes_to_compare() -> None:
    """Only the count that took too long itself is ruled out."""
    slow = a_row(16, None, status=Status.TIMED_OUT, horizon=20)
    assert not past(slow).has(ELSEWHERE, 8, RUN)
    assert past(slow).has(ELSEWHERE, 16, RUN)


@pytest.mark.parametrize(
    ("ends", "expected"),
    [
        ([], False),
        ([Status.FAILED], False),
        ([Status.FAILED, Status.FAILED], True),
        ([Status.FAILED, Status.NOT_FINITE], True),
        ([Status.NOT_FINITE, Status.NOT_FINITE, Status.FAILED], True),
        ([Status.FAILED, Status.FAILED, Status.OK], False),
        ([Status.FAILED, Status.FAILED, Status.TIMED_OUT], False),
        ([Status.OUT_OF_MEMORY, Status.OUT_OF_MEMORY], False),
    ],
)
def test_a_variant_that_failed_twice_and_never_ended_otherwise_is_given_up(ends: list[Status], expected: bool) -> None:
    """Running out of memory, or of time, says nothing about the next count."""
    rows = [a_row(count, None, status=status) for count, status in enumerate(ends, start=1)]
    assert past(*rows).gave_up(CELL.variant) is expected
    assert FAILURES_BEFORE_GIVING_UP == 2


def test_failures_count_over_all_horizons_of_a_variant_and_not_over_others() -> None:
    """Flags make another variant, a horizon does not."""
    bad = {"status": Status.FAILED}
    near, far = a_row(4, None, **bad), a_row(4, None, horizon=20, **bad)
    flagged = a_row(4, 0.5, xla_flags="--f")
    assert past(near, far, flagged).gave_up(CELL.variant)
    assert not past(near, far, flagged).gave_up(cell_of(flagged).variant)


# --- batches


def test_the_next_batch_is_one_after_the_last() -> None:
    """The first is 0."""
    assert past().next_batch == 0
    assert past(a_row(4, None)).next_batch == 1
    assert past(a_row(4, 0.5, repeat=3), a_row(8, 0.5, repeat=1)).next_batch == 4


def test_seconds_within_a_batch_are_the_medians_of_what_was_timed_in_it() -> None:
    """What was compiled only has none."""
    known = past(
        a_row(4, None, repeat=0),
        a_row(4, None, repeat=1, run_seconds=(0.1, 0.2, 0.9)),
        a_row(4, 0.4, repeat=2),
        a_row(16, 0.3, repeat=2),
        a_row(64, None, repeat=3),
    )
    assert [known.in_batch(CELL, 4, batch) for batch in range(4)] == [None, 0.2, 0.4, None]
    assert known.in_batch(CELL, 5, 1) is known.in_batch(ELSEWHERE, 4, 1) is None
    assert [known.fastest_in_batch(CELL, batch) for batch in range(4)] == [None, 0.2, 0.3, None]
    assert [known.last_batch(CELL, count) for count in (4, 16, 64, 5)] == [2, 2, None, None]
    assert known.timed_counts(CELL) == [4, 16]
    assert known.timed_counts(ELSEWHERE) == []


# --- what fits, and what it takes


def test_counts_that_were_timed_and_fit_are_listed_fastest_first() -> None:
    """Each with its own bytes; what does not fit is not listed though it is faster."""
    rows = [a_row(4, 0.9), a_row(16, 0.5), a_row(64, 0.3), a_row(20, None)]
    known = past(*rows, budget_bytes=3_000_000)
    assert [one.checkpoints for one in known.timed(CELL)] == [16, 4]
    assert [one.peak_bytes for one in known.timed(CELL)] == [2_600_000, 1_400_000]
    assert [one.seconds for one in known.timed(CELL)] == pytest.approx([0.5, 0.9], rel=0.15)
    assert [one.checkpoints for one in past(*rows).timed(CELL)] == [64, 16, 4]
    assert known.timed_counts(CELL) == [4, 16, 64]
    at_budget = past(*rows, budget_bytes=2_600_000)
    assert [one.checkpoints for one in at_budget.timed(CELL)] == [16, 4]


def test_whether_anything_fits_is_a_question_to_the_counts_whose_bytes_are_known() -> None:
    """Not to the laws between them."""
    rows = (a_row(4, None), a_row(16, None))
    assert not past(budget_bytes=10**9).any_fits(CELL)
    assert past(*rows, budget_bytes=1_400_000).any_fits(CELL)
    assert not past(*rows, budget_bytes=1_399_999).any_fits(CELL)


@settings(max_examples=15)  # each asks for a thousand counts
@given(
    st.sets(st.sampled_from([1, 2, 3, 5, 9, 17, 40, 100, 400, 1000]), min_size=1, max_size=5),
    st.integers(900_000, 110_000_000),
)
def test_counts_that_fit_for_certain_are_those_whose_upper_bound_does(counts: set[int], budget_bytes: int) -> None:
    """Against every count tried one by one: candidates only, none left out, the largest that fits among them."""
    known = past(*[a_row(count, None) for count in counts], budget_bytes=budget_bytes)
    sizes = {count: known.forecast.bytes_at(CELL, count) for count in range(1, STEPS + 1)}
    for found, bound in ((known.fitting(CELL), "high"), (known.possible(CELL), "low")):
        fits = {count for count, size in sizes.items() if size and getattr(size, bound) <= budget_bytes}
        assert set(found) <= fits
        assert list(found) == sorted(found)
        assert set(found) >= fits & {*grid_counts(STEPS, at_most=24), *counts}
        if fits:
            assert max(found) == max(fits)


def test_counts_of_the_user_are_the_only_candidates() -> None:
    """Those that fit, and nothing between."""
    space = dataclasses.replace(SPACE, counts=(3, 10, 20, 500))
    known = past(a_row(4, None), a_row(64, None), space=space, budget_bytes=3_100_000)
    assert known.fitting(CELL) == (3, 10, 20)
    assert known.possible(CELL) == (3, 10, 20)


def test_nothing_is_a_candidate_where_nothing_is_known() -> None:
    """Neither certain nor possible, whatever the budget."""
    assert past().fitting(CELL) == past().possible(CELL) == ()
    unseen = past(a_row(4, None), a_row(64, None))
    assert unseen.fitting(dataclasses.replace(CELL, xla_flags="--f")) == ()


def test_the_best_that_is_expected_is_the_least_seconds_of_any_count_that_fits() -> None:
    """Measured or forecast; None where nothing was timed."""
    known = past(a_row(4, 0.9), a_row(16, 0.5), a_row(64, 0.3), budget_bytes=5_000_000)
    forecasts = [known.forecast.seconds_at(CELL, count) for count in known.fitting(CELL)]
    assert len(forecasts) > 4
    assert known.best_expected_seconds(CELL) == min(one.likely for one in forecasts if one)
    assert past(a_row(4, None), a_row(64, None)).best_expected_seconds(CELL) is None


def test_the_most_passes_that_were_timed_are_those_of_the_fewest_checkpoints() -> None:
    """Infinite where nothing was, so that nothing is refused for being longer."""
    known = past(a_row(2, None), a_row(4, 0.9), a_row(16, 0.5))
    assert known.most_passes_timed(CELL) == adjoint.executed_steps(STEPS, 4, STEPS)
    assert past(a_row(4, None)).most_passes_timed(CELL) == math.inf


@given(st.lists(st.tuples(st.integers(1, 6), st.integers(0, 3), st.floats(0.1, 9.0)), min_size=1, max_size=12))
def test_the_fastest_of_a_batch_is_the_least_of_its_medians(samples: list[tuple[int, int, float]]) -> None:
    """Against the medians of the rows themselves."""
    rows = {(count, batch): a_row(count, seconds, repeat=batch) for count, batch, seconds in samples}
    known = past(*rows.values())
    for batch in range(4):
        medians = [statistics.median(row.run_seconds) for (_, of), row in rows.items() if of == batch]
        assert known.fastest_in_batch(CELL, batch) == min(medians, default=None)
