"""What a tune will still do: the search played through against its own forecasts, on rows made by hand."""

import dataclasses
from typing import Any

import pytest

from autotune.adjoints import Work
from autotune.measuring.trial import Rung
from autotune.search.history import SearchGoal
from autotune.search.space import Listed, build_space
from autotune.tuning import dry_run
from autotune.tuning.dry_run import Planned, plan, total_seconds
from profiles import AdjointName, Measurement
from tests.autotune.rows import a_row

SPACE = build_space(Listed(horizons=(10,), tolerances=(1e-3,)))
(CELL,) = SPACE.cells
WORK = Work(steps=1000, reversed_steps=1000, accepted=1000)


def goal(budget_bytes: int | None = None, **changes: Any) -> SearchGoal:
    """Ask for the best count of 1,000 steps."""
    asked = SearchGoal(space=SPACE, works={CELL.case: WORK}, adjoint=AdjointName.OURS, budget_bytes=budget_bytes)
    return dataclasses.replace(asked, **changes)


def row(count: int, seconds: float | None, **changes: Any) -> Measurement:
    """A row that took a second to trace and three to compile."""
    return a_row(count, seconds, **{"trace_seconds": 1.0, "compile_seconds": 3.0, **changes})


def first(planned: tuple[Planned, ...]) -> list[tuple[int, Rung, bool]]:
    """List counts, rungs, and whether it is the final run."""
    return [(one.request.checkpoints, one.request.rung, one.final) for one in planned]


def test_before_anything_was_measured_the_shape_is_foreseen_and_the_time_is_not() -> None:
    """The first three counts, whatever follows, and one final run under the user's own settings."""
    planned = plan(goal(), [])
    assert first(planned)[:3] == [(15, Rung.RUN, False), (45, Rung.RUN, False), (1000, Rung.RUN, False)]
    assert [one.final for one in planned].count(True) == 1
    assert planned[-1].final
    assert planned[-1].request.why == "final run, your own settings"
    assert {one.seconds for one in planned} == {None}
    assert total_seconds(planned) is None


def test_the_time_is_that_of_compiles_and_of_the_calls_that_are_foreseen() -> None:
    """Four seconds a compile; four calls of 0.2 seconds where a count was timed, none where it is compiled only."""
    rows = [row(15, 0.3), row(45, 0.2)]
    planned = plan(goal(), rows)
    by_count = {one.request.checkpoints: one.seconds for one in planned}
    assert by_count[45] == pytest.approx(4.0 + 4 * 0.2, rel=0.02)
    assert total_seconds(planned) == pytest.approx(sum(one.seconds or 0 for one in planned))
    known = total_seconds(plan(goal(), [], elsewhere=rows))
    assert known == pytest.approx(4.0 * len(plan(goal(), [])))


def test_of_compiles_the_median_counts_and_those_of_this_problem_before_others() -> None:
    """A row that was answered from a cache is one among many; one that was never compiled is none."""
    rows = [row(4, 0.3), row(15, 0.2), row(45, 0.2, compile_seconds=99.0), row(9, 0.2, compile_seconds=None)]
    elsewhere = [row(4, 0.3, compile_seconds=50.0)]
    abstract = goal(works={})
    planned = plan(abstract, rows, elsewhere=elsewhere)
    assert {one.seconds for one in planned} == {4.0}
    assert {one.seconds for one in plan(abstract, [], elsewhere=elsewhere)} == {51.0}
    assert {one.request.rung for one in planned} == {Rung.COMPILED}


def test_a_case_whose_final_run_was_made_has_none_to_come() -> None:
    """What was verified is handed in apart."""
    done = [row(15, 0.3), row(45, 0.2), row(1000, 0.19), row(100, 0.25), row(300, 0.24)]
    assert first(plan(goal(), done))[-1][2]
    assert plan(goal(), done, verified=[done[0]]) == ()


def test_where_nothing_fits_no_final_run_is_foreseen() -> None:
    """The fewest checkpoints are compiled, and that is all."""
    rows = [row(count, None) for count in (15, 45, 1000)]
    planned = plan(goal(1000), rows)
    assert first(planned) == [(1, Rung.COMPILED, False)]


def test_a_search_that_would_not_end_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the most trials that are listed."""
    monkeypatch.setattr(dry_run, "MOST_TRIALS", 2)
    assert len([one for one in plan(goal(), []) if not one.final]) == 3  # the batch that passed the limit


def test_nothing_to_do_takes_no_time() -> None:
    """And one unknown part makes the whole unknown."""
    assert total_seconds(()) == 0
    request = plan(goal(), [])[0].request
    known, unknown = Planned(request=request, seconds=2.0), Planned(request=request, seconds=None)
    assert total_seconds([known, known]) == 4.0
    assert total_seconds([known, unknown]) is None
