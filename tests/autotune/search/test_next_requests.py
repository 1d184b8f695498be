"""Each decision of the search by itself, from rows made by hand: what is asked next, how far, and when nothing is."""

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import adjoint
from autotune.adjoints import Work
from autotune.measuring.trial import Rung
from autotune.model.cells import Cell, Variant, cell_of
from autotune.search.history import Past, SearchGoal
from autotune.search.search import (
    APART,
    CHALLENGERS,
    MATTERS_ALONE,
    MOST_COMPILED_ALONE,
    MOST_TIMED,
    MOST_TIMED_ALONE,
    STRETCH,
    Search,
    TrialRequest,
    _apart,
)
from autotune.search.space import Listed, Space, build_space, grid_counts
from profiles import AdjointName, Measurement, Status, Tier
from tests.autotune.rows import a_row

COMPILED, RUN = Rung.COMPILED, Rung.RUN
HOST = Tier(name="host", windows=50, transfer_cost=1.0)


def steps_of(cell: Cell) -> int:
    """A hundred steps to a unit of horizon."""
    return round(100 * float(cell.case.horizon or 10))


def space_of(*horizons: float, counts: tuple[int, ...] | None = None, flags: tuple[str, ...] = ("",)) -> Space:
    """Cells at one tolerance."""
    return build_space(Listed(horizons=horizons, tolerances=(1e-3,), counts=counts, xla_flags=flags))


def goal(space: Space, budget_bytes: int | None = None, **changes: Any) -> SearchGoal:
    """Ask for the best counts of our adjoint."""
    works = {c.case: Work(steps=steps_of(c), reversed_steps=steps_of(c), accepted=steps_of(c)) for c in space.cells}
    asked = SearchGoal(space=space, works=works, adjoint=AdjointName.OURS, budget_bytes=budget_bytes)
    return dataclasses.replace(asked, **changes)


def row(checkpoints: int, seconds: float | None = None, horizon: float = 10, **changes: Any) -> Measurement:
    """A row of 1 MB and 100 kB a checkpoint, whose steps were counted."""
    steps = round(100 * horizon)
    return a_row(checkpoints, seconds, horizon=horizon, steps=steps, accepted=steps, **changes)


def asked(question: SearchGoal, *rows: Measurement, **options: int) -> list[tuple[Any, ...]]:
    """List the next requests by horizon, count and rung."""
    found = Search(question).next_requests(rows, **options)
    return [(one.cell.case.horizon, one.checkpoints, one.rung) for one in found]


def counts_asked(question: SearchGoal, *rows: Measurement) -> list[int]:
    """List the counts of the next requests."""
    return [one.checkpoints for one in Search(question).next_requests(rows)]


def enclosing(*seconds: float | None, horizon: float = 10) -> list[Measurement]:
    """Rows of the three counts of the first batch at 1,000 steps, timed where seconds are given."""
    return [row(count, taken, horizon) for count, taken in zip((15, 45, 1000), seconds, strict=True)]


# --- the first batch


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        (1000, [15, 45, 1000]),  # 45 * 45 >= 2 * 1000, and 15 is a third of it
        (100, [5, 15, 100]),
        (10, [1, 5, 10]),
        (2, [1, 2]),
        (1, [1]),
    ],
)
def test_the_first_counts_are_a_small_one_the_cliff_and_everything_stored(steps: int, expected: list[int]) -> None:
    """By hand; all of them are run at once."""
    question = goal(space_of(steps / 100))
    found = Search(question).next_requests([])
    assert [one.checkpoints for one in found] == expected
    assert {(one.rung, one.batch, one.why) for one in found} == {(RUN, 0, "counts that enclose all others")}


@pytest.mark.parametrize("steps", [3, 30, 300, 3000, 100_000])
def test_the_small_count_executes_at_most_four_times_the_steps_or_is_a_third_of_the_cliff(steps: int) -> None:
    """Against the candidates tried one by one."""
    first = counts_asked(goal(space_of(steps / 100)))[0]
    tolerable = [c for c in grid_counts(steps, at_most=24) if adjoint.executed_steps(steps, c, steps) <= 4 * steps]
    cliff = next(count for count in range(1, steps + 1) if count * count >= 2 * steps or count == steps)
    assert first == min(min(tolerable), max(1, cliff // 3))


def test_what_was_asked_already_is_not_asked_again_and_the_batch_is_the_next() -> None:
    """Of three counts one is there, of batch 4; it is the fastest that is known, and is timed again."""
    found = Search(goal(space_of(10))).next_requests([row(45, 0.3, repeat=4)])
    assert [(one.checkpoints, one.batch) for one in found] == [(45, 5), (15, 5), (1000, 5)]
    assert found[0].why == "timed again beside the others"


def test_of_the_users_counts_the_ends_and_the_middle_come_first() -> None:
    """Of five the third, of four the third too, of one it alone."""
    assert counts_asked(goal(space_of(10, counts=(12, 15, 19, 20, 700)))) == [12, 19, 700]
    assert counts_asked(goal(space_of(10, counts=(12, 15, 19, 700)))) == [12, 19, 700]
    assert counts_asked(goal(space_of(10, counts=(19,)))) == [19]


def test_the_case_with_the_most_steps_is_first_and_the_one_with_the_fewest_has_two_counts() -> None:
    """Which tells an advance from a reversed step; what lies between waits."""
    found = asked(goal(space_of(5, 20, 10)))
    assert found == [(20, 21, RUN), (20, 64, RUN), (20, 2000, RUN), (5, 32, RUN), (5, 500, RUN)]
    listed = asked(goal(space_of(5, 20, 10, counts=(20, 30, 400))))
    assert listed == [(20, 20, RUN), (20, 30, RUN), (20, 400, RUN), (5, 30, RUN), (5, 400, RUN)]


def test_cases_are_told_apart_from_half_as_many_steps_more_on() -> None:
    """1,500 steps beside 1,000 are, 1,499 are not."""
    assert {horizon for horizon, _, _ in asked(goal(space_of(10, 15)))} == {10, 15}
    assert {horizon for horizon, _, _ in asked(goal(space_of(10, 14.99)))} == {14.99}


def test_what_cannot_run_is_compiled_at_counts_in_equal_ratios() -> None:
    """A case without observed steps has abstract arguments."""
    abstract = goal(space_of(10), works={})
    assert asked(abstract) == [(10, count, COMPILED) for count in (1, 32, 1024)]
    assert asked(abstract, row(1), row(32), row(1024)) == []


def test_what_would_run_long_is_compiled_alone() -> None:
    """One checkpoint executes 8 times the steps of a solve of 13, which is run, and more than that of 14."""
    assert adjoint.executed_steps(13, 1, 13) == 8 * 13
    assert asked(goal(space_of(0.13, counts=(1,)))) == [(0.13, 1, RUN)]
    assert adjoint.executed_steps(14, 1, 14) == 8 * 14 + 7
    assert asked(goal(space_of(0.14, counts=(1,)))) == [(0.14, 1, COMPILED)]


def test_where_nothing_fits_the_fewest_checkpoints_are_compiled() -> None:
    """One checkpoint executes more than eight times the steps; of ours more never need less, of Diffrax's they may."""
    question = goal(space_of(10), 1000)
    rows = enclosing(None, None, None)
    found = Search(question).next_requests(rows)
    assert [(one.checkpoints, one.rung) for one in found] == [(1, COMPILED)]
    assert {one.why for one in found} == {"nothing fits yet: the fewest checkpoints there are"}
    assert asked(question, *rows, row(1)) == []
    theirs = goal(space_of(10), 1000, adjoint=AdjointName.DIFFRAX)
    assert asked(theirs, *rows) == [(10, 1, COMPILED), (10, 2, COMPILED)]
    assert counts_asked(theirs, *rows, row(1)) == [2]
    assert asked(theirs, *rows, row(1), row(2)) == []


def test_within_a_budget_one_checkpoint_comes_first_and_where_it_does_not_fit_nothing_follows() -> None:
    """Before anything was measured, the cliff beside it; where that is too large, a small count is next."""
    question = goal(space_of(10), 10**9)
    assert asked(question) == [(10, 1, COMPILED), (10, 45, COMPILED)]
    assert asked(goal(space_of(10), 1000), row(1), row(45)) == []
    assert asked(question, row(1), row(45)) == [(10, 45, RUN), (10, 1000, RUN)]
    assert asked(goal(space_of(10), 3_000_000), row(1), row(45)) == [(10, 15, RUN)]


def test_everything_stored_is_a_candidate_beside_all_steps_in_slots() -> None:
    """Where the adjoint has a path of its own for it: at the loop's bound, be it the steps or beyond them."""
    for bound, expected in ((4096, [1000, 4096]), (1000, [999, 1000])):
        switches = adjoint.switching_counts(bound)
        work = Work(steps=1000, reversed_steps=1000, switches=switches, everything=bound)
        space = space_of(10)
        question = goal(space, 10**12, works={space.cells[0].case: work})
        assert counts_asked(question, row(1), row(45, 0.3)) == [45, *expected]
    tight = goal(space, 10**8, works={space.cells[0].case: dataclasses.replace(work, everything=10**6)})
    assert counts_asked(tight, row(1), row(45, 0.3)) == [45, 1000]  # a million states of 100 kB lie far beyond it


@pytest.mark.parametrize("best", [20, 50, 300, 1000])
def test_a_lone_cells_best_count_is_surrounded(best: int) -> None:
    """Seconds need not fall with the count: whatever is best, something was timed on its sides, of seven counts."""

    def taken(count: int) -> float:
        return 1 + 0.2 * abs(math.log(count / best))

    rows: list[Measurement] = []
    question = goal(space_of(10), 10**12)
    while found := Search(question).next_requests(rows):
        timed = [one.checkpoints for one in found if one.rung is RUN]
        rows += [row(one.checkpoints, taken(one.checkpoints), repeat=one.batch) for one in found if one.rung is RUN]
        rows += [row(one.checkpoints) for one in found if one.checkpoints not in timed]
    assert len({r.checkpoints for r in rows}) <= MOST_COMPILED_ALONE
    timed = sorted(r.checkpoints for r in rows if r.run_seconds)
    nearest = min(timed, key=taken)
    assert taken(nearest) < 1.35
    assert best / 4 <= nearest <= best * 4
    assert any(count > nearest for count in timed) or nearest == 1000
    assert any(count < nearest for count in timed)


def test_the_fewest_checkpoints_are_not_asked_for_where_they_were_or_where_the_user_lists_counts() -> None:
    """A solve of ten steps begins with one checkpoint; a list is kept to."""
    short = [row(count, None, 0.1) for count in (1, 5, 10)]
    assert asked(goal(space_of(0.1), 1000), *short) == []
    listed = goal(space_of(10, counts=(15, 45, 1000)), 1000)
    assert asked(listed, *enclosing(None, None, None)) == []
    assert 1 not in counts_asked(goal(space_of(10), 2_500_000), *enclosing(None, None, None))


# --- timing what fits


def test_counts_below_what_fits_are_timed_where_fewer_than_two_were() -> None:
    """2 MB hold 9 checkpoints for certain. A third of them would execute 13,172 steps, over twice the 5,004 of 9."""
    rows = [*enclosing(None, None, None), row(1), row(2)]
    question = goal(space_of(10), 2_000_000)
    found = Search(question).next_requests(rows)
    assert [(one.checkpoints, one.rung, one.why) for one in found] == [
        (4, RUN, "seconds below what fits"),
        (9, RUN, "executes the fewest steps of all that fit"),
    ]


def test_shares_of_what_fits_are_a_third_and_a_ninth_or_a_quarter_at_two_ends() -> None:
    """The candidates nearest to them, of 20,000 steps and counts of which none executes twice as many."""
    counts = tuple(range(100, 1000, 10))
    rows = [row(count, None, 200) for count in (100, 550, 990)]
    question = goal(space_of(200, counts=counts), 92_000_000)
    assert counts_asked(question, *rows) == [100, 300, 900]
    near = [row(count, None, 20) for count in (550, 990)]
    both = goal(space_of(200, 20, counts=counts), 92_000_000)
    assert asked(both, *rows, *near) == [(h, c, RUN) for h in (200, 20) for c in (220, 900)]


def test_of_cases_with_nearly_as_many_steps_the_one_with_most_is_timed_alone() -> None:
    """A third and a ninth of what fits, as where it is the only case."""
    counts = tuple(range(100, 1000, 50))
    rows = [row(count, None, 200) for count in (100, 550, 950)]
    question = goal(space_of(180, 200, 190, counts=counts), 92_000_000)
    assert asked(question, *rows) == [(200, count, RUN) for count in (100, 300, 900)]


@pytest.mark.parametrize(("more", "gains"), [(81, False), (152, False), (208, True), (390, True)])
def test_two_timings_that_fit_are_enough_unless_another_count_executes_a_twentieth_fewer_steps(
    more: int, gains: bool
) -> None:
    """Of 1,000 steps 45 checkpoints execute 2,955, 152 execute 2,848, 208 execute 2,792, which is below 95 %."""
    rows = [row(15, 0.3), row(45, 0.3), row(more)]
    found = Search(goal(space_of(10, counts=(15, 45, more)))).next_requests(rows)
    assert [one.checkpoints for one in found if "fewest" in one.why] == [more] * gains


def test_one_timing_that_fits_is_not_enough() -> None:
    """45 checkpoints and a third of them, which is timed already."""
    rows = [row(15, 0.3), row(45), row(1000)]
    found = Search(goal(space_of(10, counts=(15, 45, 1000)), 6_000_000)).next_requests(rows)
    assert [(one.checkpoints, one.why) for one in found] == [
        (15, "timed again beside the others"),
        (45, "executes the fewest steps of all that fit"),
    ]


def test_what_was_tried_and_failed_is_not_timed_again() -> None:
    """Its neighbour of the same share is not asked for in its place either."""
    rows = [*enclosing(None, None, None), row(1), row(2), row(9, status=Status.TIMED_OUT), row(4, 0.5)]
    assert 9 not in counts_asked(goal(space_of(10), 2_000_000), *rows)


# --- challengers


def challenge_of(question: SearchGoal, rows: Sequence[Measurement]) -> list[int]:
    """What challenges the best, by brute force over every candidate."""
    known = Past(rows, question)
    (cell,) = question.space.cells
    best = known.best_expected_seconds(cell)
    gains = {}
    for count in known.possible(cell):
        seconds = known.forecast.seconds_at(cell, count)
        assert seconds is not None
        assert best is not None
        gain = 1 - (seconds.low if count in known.fitting(cell) else seconds.likely) / best
        short = question.passes(cell, count) <= STRETCH * max(
            question.passes(cell, c) for c in known.timed_counts(cell)
        )
        if gain > MATTERS_ALONE and short and not known.has(cell, count, RUN):
            gains[count] = gain
    chosen: list[int] = []
    for count in sorted(gains, key=lambda count: -gains[count]):
        if all(max(count, other) >= APART * min(count, other) for other in chosen):
            chosen.append(count)
    return chosen[:CHALLENGERS]


@settings(max_examples=30)
@given(st.tuples(*[st.floats(0.05, 0.5)] * 3), st.integers(2_600_000, 120_000_000))
def test_the_most_promising_counts_challenge_the_best_apart_from_each_other(
    seconds: tuple[float, ...], budget_bytes: int
) -> None:
    """Whatever was timed within the budget."""
    rows = [
        row(count, taken if 1_000_000 + 100_000 * count <= budget_bytes else None)
        for count, taken in zip((15, 45, 1000), seconds, strict=True)
    ]
    question = goal(space_of(10), budget_bytes)
    found = Search(question).next_requests(rows)
    challengers = [one.checkpoints for one in found if one.why.startswith("may be")]
    if not any(one.why.startswith(("seconds", "executes")) for one in found):
        expected = challenge_of(question, rows)
        beside = [one.checkpoints for one in found if one.why.startswith("beside")]
        assert challengers[:1] == expected[:1]
        assert set(challengers) <= set(expected) or beside
        assert len(challengers) + len(beside) <= CHALLENGERS
        fastest = Past(rows, question).timed(question.space.cells[0])[0].checkpoints
        best = [fastest] if found else []
        assert [one.checkpoints for one in found] == [*best, *challengers[:1], *beside, *challengers[1:]]


@pytest.mark.parametrize(("right", "expected"), [(10, False), (14, False), (15, True), (7, False), (6, True)])
def test_counts_are_apart_from_half_as_many_more_on(right: int, expected: bool) -> None:
    """Beside ten, in either order: seven tenths are too near, six are not."""
    assert _apart(10, right) is _apart(right, 10) is expected


def test_a_challenger_says_what_it_may_gain() -> None:
    """In per cent of the best that is expected."""
    rows = enclosing(0.3, 0.2, 0.2)
    question = goal(space_of(10))
    (cell,) = question.space.cells
    known = Past(rows, question)
    best = known.best_expected_seconds(cell)
    said = [one for one in Search(question).next_requests(rows) if one.why.startswith("may be")]
    assert 1 <= len(said) <= CHALLENGERS
    for one in said:
        seconds = known.forecast.seconds_at(cell, one.checkpoints)
        assert seconds is not None
        assert one.why == f"may be {100 * (1 - seconds.low / (best or 0)):.0f} % faster than the best count known here"


def promising(timed: Iterable[int], horizon: float = 10) -> list[Measurement]:
    """Rows of equal seconds: what lies far from each of them may well be faster."""
    return [row(count, 0.2, horizon) for count in timed]


def test_at_most_five_counts_of_an_only_case_are_timed() -> None:
    """The sixth is not asked for, whatever it may gain."""
    four, five = (15, 45, 300, 1000), (15, 45, 300, 700, 1000)
    assert MOST_TIMED_ALONE == 5
    assert any(one.why.startswith("may be") for one in Search(goal(space_of(10))).next_requests(promising(four)))
    assert counts_asked(goal(space_of(10)), *promising(five)) == []


def test_at_most_four_counts_of_one_case_among_several_are_timed() -> None:
    """The other case may go on."""
    assert MOST_TIMED == 4
    question = goal(space_of(10, 14))
    there = promising((17, 53, 90, 1400), 14)
    assert 10 in {horizon for horizon, _, _ in asked(question, *there, *promising((15, 45, 1000)))}
    assert 10 not in {horizon for horizon, _, _ in asked(question, *there, *promising((15, 45, 300, 1000)))}


def test_between_the_ends_of_more_than_four_cases_nothing_is_timed() -> None:
    """With four a case between them is challenged, with five it is left to the laws."""
    by_law = lambda horizon, count: 1e-5 * adjoint.executed_steps(100 * horizon, count, 100 * horizon)
    counts = ((40, (30, 90, 300, 4000)), (5, (10, 32, 100, 500)))
    ends = [row(count, by_law(horizon, count), horizon) for horizon, of in counts for count in of]
    four, five = goal(space_of(5, 10, 20, 40)), goal(space_of(5, 10, 15, 20, 40))
    assert {horizon for horizon, _, _ in asked(four, *ends)} & {10, 20}
    assert not {horizon for horizon, _, _ in asked(five, *ends)} & {10, 15, 20}


def test_challengers_of_one_batch_belong_to_one_case() -> None:
    """A batch is timed in alternation, so its counts are compared with each other."""
    question = goal(space_of(10, 14))
    rows = [*promising((15, 45, 1000)), *promising((17, 45, 1400), 14)]
    assert len({horizon for horizon, _, _ in asked(question, *rows)}) == 1


# --- timing again


def test_only_what_is_run_is_timed_again_and_not_what_is_asked_for_anyway() -> None:
    """Compiles need nothing beside them."""
    compiled = goal(space_of(10), 1000)
    assert [rung for _, _, rung in asked(compiled, *enclosing(None, None, None))] == [COMPILED]
    question = goal(space_of(10), exhaustive=True)
    rows = [row(2, 0.5), row(6, 0.2)]
    found = Search(question).next_requests(rows)
    assert [one.checkpoints for one in found].count(6) == 1
    assert found[0].checkpoints == 6
    assert found[0].why == "timed again beside the others"
    assert {one.batch for one in found} == {1}


# --- flags and tiers


def flagged(count: int, seconds: float | None, **changes: Any) -> Measurement:
    """A row under flags, in the batch that timed the plain count again."""
    return row(count, seconds, xla_flags="--f", repeat=changes.pop("repeat", 1), **changes)


PLAIN = [*enclosing(0.9, 0.2, 0.9), row(30, 0.5), row(100, 0.5)]
"""A search that is over: five counts are timed, the best is 45."""


def test_flags_are_timed_once_beside_the_best_count_without_them() -> None:
    """Both in one batch, at the case with the most steps."""
    question = goal(space_of(10, flags=("", "--f")))
    found = Search(question).next_requests(PLAIN)
    assert [(one.cell.xla_flags, one.checkpoints, one.rung, one.batch) for one in found] == [
        ("", 45, RUN, 1),
        ("--f", 45, RUN, 1),
    ]
    assert [one.why for one in found] == [
        "timed again beside the others",
        "does XLA_FLAGS=--f pay beside the best count without it?",
    ]


@pytest.mark.parametrize(
    ("plain", "under_flags", "changes", "goes_on"),
    [
        (0.2, 0.2, {}, False),
        (0.2, 0.191, {}, False),
        (0.2, 0.189, {}, True),
        (0.4, 0.2, {}, True),  # the machine was slower in this batch, for both alike
        (0.1, 0.19, {}, False),  # and faster in this one
        (0.2, 0.3, {"peak_bytes": 5_500_000}, False),  # 45 checkpoints take 5.5 MB
        (0.2, 0.3, {"peak_bytes": 5_300_000}, False),
        (0.2, 0.3, {"peak_bytes": 5_200_000}, True),
    ],
)
def test_flags_pay_where_they_save_a_twentieth_of_seconds_or_bytes(
    plain: float, under_flags: float, changes: dict[str, Any], goes_on: bool
) -> None:
    """Within the batch that timed both; then they get a search of their own."""
    question = goal(space_of(10, flags=("", "--f")))
    rows = [*PLAIN, row(45, plain, repeat=1), flagged(45, under_flags, **changes)]
    found = Search(question).next_requests(rows)
    assert bool(found) is goes_on
    assert {one.cell.xla_flags for one in found} <= {"--f"}


def test_flags_wait_for_a_timing_without_them_unless_that_variant_was_given_up() -> None:
    """Nothing is compared with nothing; where all fails without flags they are searched by themselves."""
    question = goal(space_of(10, flags=("", "--f")), 1000)
    rows = [*enclosing(None, None, None), row(1), row(2)]
    assert asked(question, *rows) == []
    broken = [row(count, status=Status.FAILED, peak_bytes=None) for count in (15, 45, 1000)]
    found = Search(dataclasses.replace(question, budget_bytes=None)).next_requests(broken)
    assert {one.cell.xla_flags for one in found} == {"--f"}
    assert [one.checkpoints for one in found] == [15, 45, 1000]


def test_flags_of_other_set_values_are_another_question() -> None:
    """The earlier variant is the one with the same values."""
    listed = Listed(horizons=(10,), tolerances=(1e-3,), set_values={"width": (8, 16)}, xla_flags=("", "--f"))
    question = goal(build_space(listed))
    rows = [dataclasses.replace(one, set_values={"width": 8}) for one in PLAIN]
    first = Search(question).next_requests(rows)
    second = Search(question).next_requests(rows, pending=first)
    where = [(dict(one.cell.case.set_values)["width"], one.cell.xla_flags, one.checkpoints) for one in first + second]
    assert where == [(8, "", 45), (8, "--f", 45), (16, "", 15), (16, "", 45), (16, "", 1000)]
    assert Search(question).next_requests(rows, pending=first + second) == (), "flags of 16 wait for 16 without them"


def with_tier(space: Space, tier: Tier = HOST) -> Space:
    """Each cell without the tier and with it."""
    return dataclasses.replace(
        space, cells=(*space.cells, *(dataclasses.replace(cell, tier=tier) for cell in space.cells))
    )


def done(budget_bytes: int) -> list[Measurement]:
    """A search without a tier that is over: 15 checkpoints fit, and are the best."""
    counts = ((15, 0.2), (12, 0.3), (9, 0.4), (7, 0.5), (5, 0.6), (45, None), (1000, None))
    return [row(c, taken if 1_000_000 + 100_000 * c <= budget_bytes else None) for c, taken in counts]


def test_a_tier_is_tried_at_the_best_count_without_it_where_it_saves_steps() -> None:
    """Of 1,000 steps 15 checkpoints execute 3,912 without it, and 50 windows save more than a twentieth."""
    assert adjoint.windowed_steps(1000, 15, 50, 1000, 1.0) < 0.95 * adjoint.executed_steps(1000, 15, 1000)
    question = goal(with_tier(space_of(10)), 2_600_000)
    found = Search(question).next_requests(done(2_600_000))
    assert [(one.cell.tier, one.checkpoints) for one in found] == [(None, 15), (HOST, 15)]
    assert found[1].why == f"does the tier {HOST} pay beside the best count without it?"


def test_a_tier_that_saves_no_steps_is_not_tried() -> None:
    """One window holds nothing that the device would not; where everything is stored there is nothing to save."""
    question = goal(with_tier(space_of(10), Tier(name="host", windows=1)), 2_600_000)
    assert asked(question, *done(2_600_000)) == []
    everything = [row(1000, 0.2), row(45, 0.5), row(15, 0.9), row(300, 0.5), row(700, 0.4)]
    assert asked(goal(with_tier(space_of(10))), *everything) == []


@pytest.mark.parametrize(
    ("added_bytes", "expected"),
    [
        (200_000, [12]),  # with what was added 12 checkpoints take 2.4 MB
        (300_000, [12]),
        (300_001, [9]),
        (600_000, [9]),
        (10_000_000, []),
    ],
)
def test_a_tier_that_was_too_large_is_tried_at_a_count_that_leaves_room_for_it(
    added_bytes: int, expected: list[int]
) -> None:
    """2.5 MB hold 15 checkpoints without a tier; what it adds is known once it was compiled there."""
    question = goal(with_tier(space_of(10, counts=(5, 7, 9, 12, 15, 45, 1000))), 2_500_000)
    large = dataclasses.replace(row(15), tier=HOST, peak_bytes=2_500_000 + added_bytes)
    rows = [*done(2_500_000), large]
    found = Search(question).next_requests(rows)
    assert [one.checkpoints for one in found if one.cell.tier] == expected


def test_a_tier_goes_on_where_it_was_faster_and_stops_where_it_was_not() -> None:
    """Compared with the fastest count without it in the same batch."""
    question = goal(with_tier(space_of(10)), 2_600_000)
    again = row(15, 0.2, repeat=1)
    for seconds, goes_on in ((0.25, False), (0.19, False), (0.1, True)):
        tried = dataclasses.replace(row(15, seconds, repeat=1), tier=HOST)
        found = Search(question).next_requests([*done(2_600_000), again, tried])
        assert bool(found) is goes_on, seconds
        assert {one.cell.tier for one in found} <= {HOST}


def test_where_each_count_took_too_long_without_a_tier_the_largest_that_fits_is_tried_with_it() -> None:
    """Flags are not: there is nothing to compare them with. What is timed at all pays."""
    slow = {"status": Status.TIMED_OUT}
    rows = [row(1), row(2), row(15), row(45), row(1000), row(12, **slow), row(9, **slow)]
    rows += [row(count, **slow) for count in (4, 14, 5)]
    question = goal(with_tier(space_of(10)), 2_400_000)
    (cell,) = space_of(10).cells
    largest = max(Past(rows, question).fitting(cell))
    found = [one for one in Search(question).next_requests(rows) if one.cell.tier]
    assert [one.checkpoints for one in found] == [largest]
    tried = dataclasses.replace(row(largest, 5.0, repeat=1), tier=HOST)
    assert {one.cell.tier for one in Search(question).next_requests([*rows, tried])} == {HOST}
    flags = goal(space_of(10, flags=("", "--f")), 2_400_000)
    assert not [one for one in Search(flags).next_requests(rows) if one.cell.xla_flags]


def test_a_case_that_cannot_run_is_not_tried_with_flags_or_tiers() -> None:
    """There is nothing to time."""
    for space in (space_of(10, flags=("", "--f")), with_tier(space_of(10))):
        assert asked(goal(space, works={}), row(1), row(32), row(1024)) == []


# --- everything, and several variants


def test_an_exhaustive_search_takes_six_counts_at_a_time_and_one_cell_after_the_other() -> None:
    """By rising count, so that where memory ends one batch at most runs out of it."""
    counts = tuple(range(1, 9))
    question = goal(space_of(10, 20, counts=counts), 1, exhaustive=True)
    assert asked(question) == [(10, count, RUN) for count in range(1, 7)]
    first = [row(count, 0.1) for count in range(1, 7)]
    assert [one for one in asked(question, *first) if one[1] > 6] == [(10, 7, RUN), (10, 8, RUN)]
    rest = [*first, row(7, 0.1), row(8, 0.1)]
    assert asked(question, *rest) == [(20, count, RUN) for count in range(1, 7)]
    assert asked(question, *rest, *[row(count, 0.1, 20) for count in counts]) == []
    assert {one.why for one in Search(question).next_requests([])} == {"part of the whole grid"}


def test_a_whole_grid_goes_on_beside_what_is_measured_and_requests_nothing_twice() -> None:
    """What is compiled only goes on at once; what is timed waits for the first batch of its cell, and others go on."""
    counts = tuple(range(1, 9))
    compiled = goal(space_of(10, counts=counts), exhaustive=True, works={})
    first = Search(compiled).next_requests([])
    second = Search(compiled).next_requests([], pending=first)
    assert sorted(one.checkpoints for one in first + second) == list(counts)
    assert Search(compiled).next_requests([], pending=first + second) == ()
    timed = goal(space_of(10, 20, counts=counts), exhaustive=True)
    first = Search(timed).next_requests([])
    second = Search(timed).next_requests([], pending=first)
    assert {one.cell.case.horizon for one in second} == {20}
    assert Search(timed).next_requests([], pending=first + second) == ()
    rows = [row(count, 0.1) for count in range(1, 4)]
    third = Search(timed).next_requests(rows, pending=[*first[3:], *second])
    assert [(one.cell.case.horizon, one.checkpoints) for one in third if one.checkpoints > 3] == [(10, 7), (10, 8)]


def test_an_exhaustive_search_without_a_list_takes_the_grid_and_compiles_what_cannot_run() -> None:
    """A case without observed steps has one count."""
    assert counts_asked(goal(space_of(10), exhaustive=True)) == list(grid_counts(1000)[:6])
    assert asked(goal(space_of(10), exhaustive=True, works={})) == [(10, 1, COMPILED)]


def test_while_a_variant_is_measured_the_next_ones_are_requested_and_it_is_not_asked_again() -> None:
    """What its answers decide waits for them; a variant that is over, or was given up, is passed over."""
    listed = Listed(horizons=(10,), tolerances=(1e-3,), set_values={"width": (8, 16, 32)})
    question = goal(build_space(listed))

    def widths(*rows: Measurement, pending: Sequence[TrialRequest] = ()) -> list[Any]:
        found = Search(question).next_requests(rows, pending=pending)
        return [dict(variant.set_values)["width"] for variant in dict.fromkeys(one.cell.variant for one in found)]

    pending: list[TrialRequest] = []
    for width in (8, 16, 32):
        assert widths(pending=pending) == [width]
        pending += Search(question).next_requests((), pending=pending)
    assert widths(pending=pending) == []
    assert widths(pending=pending[1:]) == [], "one of its three counts is still to come"
    assert widths(pending=[one for one in pending if dict(one.cell.case.set_values)["width"] != 16]) == [16]
    bad = [row(count, set_values={"width": 8}, status=Status.FAILED, peak_bytes=None) for count in (15, 45)]
    assert widths(*bad) == [16]
    assert Variant((("width", 8),)) == cell_of(bad[0]).variant
