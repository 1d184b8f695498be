"""What rows say about counts and cases that were not measured, where bytes and seconds follow lines known by hand."""

import dataclasses
from typing import Any

import pytest

import adjoint
from autotune.adjoints import Work, passes, transfer_steps
from autotune.model.bytes_law import BytesLaw
from autotune.model.cells import Cell, cell_of
from autotune.model.forecast import Forecast
from autotune.model.ranges import Range
from profiles import AdjointName, Case, Measurement, Status, Tier
from tests.autotune.rows import ROW, a_row

OURS = AdjointName.OURS
CELL = cell_of(ROW)
FAR = Cell(Case(20, 1e-3))
HOST = Tier(name="host", windows=50, transfer_cost=2.0)
WORK = Work(steps=1000, reversed_steps=1000, accepted=1000)
FAR_WORK = Work(steps=2000, reversed_steps=2000, accepted=2000)
WORKS = {CELL.case: WORK, FAR.case: FAR_WORK}


def forecast(*rows: Measurement, **changes: Any) -> Forecast:
    """Forecast from rows of two horizons, of 1,000 and 2,000 steps."""
    return Forecast(rows, changes.get("works", WORKS), OURS)


def far(count: int, seconds: float | None = None, **changes: Any) -> Measurement:
    """A row of the longer horizon."""
    return a_row(count, seconds, horizon=20, steps=2000, accepted=2000, **changes)


def executed(count: int) -> int:
    """The executed steps of 1,000 by theory."""
    return adjoint.executed_steps(1000, count, 1000)


# --- bytes


def test_nothing_is_told_of_a_variant_without_rows() -> None:
    """Neither of flags that were never used, nor from rows that failed."""
    assert forecast().bytes_at(CELL, 4) is None
    assert forecast(a_row(4, None)).bytes_at(dataclasses.replace(CELL, xla_flags="--f"), 4) is None
    lost = a_row(4, None, status=Status.OUT_OF_MEMORY)
    assert forecast(lost).bytes_at(CELL, 4) is None
    assert forecast(lost).measured_counts(CELL) == ()
    assert forecast(a_row(4, None, peak_bytes=None)).bytes_at(CELL, 4) is None


def test_what_was_measured_is_told_as_it_is_and_of_repeats_the_largest() -> None:
    """Three rows of one count, in any order."""
    rows = [a_row(4, None, peak_bytes=size, repeat=number) for number, size in enumerate((7, 9, 8))]
    assert forecast(*rows).bytes_at(CELL, 4) == Range(9, 9, 9)
    assert forecast(*rows, a_row(8, None)).measured_counts(CELL) == (4, 8)
    assert forecast(*rows).measured_counts(FAR) == ()


def test_between_counts_of_a_case_its_own_law_tells() -> None:
    """The law itself is tested elsewhere."""
    law = BytesLaw([(4, 1_400_000), (64, 7_400_000)], OURS)
    assert forecast(a_row(4, None), a_row(64, None)).bytes_at(CELL, 20) == law.at(20)


def test_a_case_with_few_counts_takes_the_curve_of_the_one_with_most_moved_to_its_own() -> None:
    """Three counts at horizon 10; at 20 a single one, which takes half a megabyte more."""
    near = [a_row(4, None), a_row(16, None), a_row(64, None)]
    law = BytesLaw([(count, 1_000_000 + 100_000 * count) for count in (4, 16, 64)], OURS)
    moved = forecast(*near, far(4, peak_bytes=1_900_000)).bytes_at(FAR, 30)
    said = law.at(30)
    assert moved == Range(said.low + 500_000, said.likely + 500_000, said.high + 500_000)
    assert forecast(*near).bytes_at(FAR, 30) == said


def test_of_several_differences_the_median_counts() -> None:
    """One that is far off moves nothing."""
    near = [a_row(count, None) for count in (4, 16, 32, 64)]
    moved = [far(c, peak_bytes=1_000_000 + 100_000 * c + more) for c, more in ((4, 100), (16, 200), (64, 9_000_000))]
    found, said = forecast(*near, *moved).bytes_at(FAR, 20), forecast(*near).bytes_at(CELL, 20)
    assert found is not None
    assert said is not None
    assert found.likely == said.likely + 200


def test_of_cases_with_as_many_counts_the_one_with_more_steps_is_the_reference() -> None:
    """Its curve is told at a third case; a case whose steps are unknown comes last."""
    near = [a_row(4, None), a_row(64, None)]
    distant = [far(4, peak_bytes=10_000_000), far(64, peak_bytes=20_000_000)]
    third = Cell(Case(15, 1e-3))
    for rows in ([*near, *distant], [*distant, *near]):
        assert forecast(*rows).bytes_at(third, 4) == Range(10_000_000, 10_000_000, 10_000_000)
        found = forecast(*rows, works={CELL.case: WORK}).bytes_at(third, 4)
        assert found == Range(1_400_000, 1_400_000, 1_400_000)
    found = forecast(*near, a_row(16, None), *distant).bytes_at(third, 4)
    assert found == Range(1_400_000, 1_400_000, 1_400_000)


def test_the_bytes_of_a_state_are_the_steepest_slope_of_what_was_compiled() -> None:
    """What a run was seen to need does not count, nor does a case with one count."""
    rows = [a_row(4, None, peak_bytes=1), a_row(14, None, peak_bytes=10**9), far(2)]
    assert forecast(*rows).state_bytes(CELL.variant) == 100_000
    steep = far(4, compiled_bytes=1_800_000)
    assert forecast(*rows, steep).state_bytes(CELL.variant) == 300_000
    assert forecast(a_row(4, None), far(8)).state_bytes(CELL.variant) is None
    assert forecast().state_bytes(CELL.variant) is None


# --- what was enclosed


def test_a_count_is_enclosed_between_measured_ones_unless_it_executes_more_than_was_timed() -> None:
    """Compiled at 4 and 64, timed at 16 and 64: fewer than 16 checkpoints execute more than any sample."""
    compiled = forecast(a_row(4, None), a_row(64, None))
    assert [compiled.encloses(CELL, count, WORK) for count in (3, 4, 30, 64, 65)] == [False, True, True, True, False]
    timed = forecast(a_row(4, None), a_row(16, 0.3), a_row(64, 0.2))
    assert [timed.encloses(CELL, count, WORK) for count in (4, 15, 16, 30, 64)] == [False, False, True, True, True]
    assert not compiled.encloses(dataclasses.replace(CELL, xla_flags="--f"), 30, WORK)
    assert compiled.encloses(FAR, 30, FAR_WORK)


def test_seconds_are_enclosed_between_a_count_that_executes_more_and_one_that_executes_fewer() -> None:
    """One sample encloses nothing, not even itself."""
    timed = forecast(a_row(4, None), a_row(16, 0.3), a_row(64, 0.2), a_row(500, None))
    found = [timed.times_around(CELL, count, WORK) for count in (4, 15, 16, 30, 64, 200)]
    assert found == [False, False, True, True, True, False]
    assert not forecast(a_row(16, 0.3)).times_around(CELL, 16, WORK)
    assert not forecast(a_row(16, None), a_row(64, None)).times_around(CELL, 30, WORK)


def test_what_executes_as_much_for_its_steps_is_compared_over_horizons() -> None:
    """Timed at horizon 20 alone, by factors of its 2,000 steps."""
    timed = forecast(far(10, 0.9), far(100, 0.5))
    low, high = (adjoint.executed_steps(2000, count, 2000) / 2000 for count in (100, 10))
    for count in range(1, 400):
        assert timed.times_around(CELL, count, WORK) is (low <= executed(count) / 1000 <= high)
        within = 10 <= count <= 100 and executed(count) / 1000 <= high
        assert timed.encloses(CELL, count, WORK) is within


def test_counts_to_choose_are_those_of_the_cell_else_those_of_its_variant_that_it_encloses() -> None:
    """Timed at 16 and 64 of 1,000 steps: at 2,000 a count of 16 would execute more for each of them."""
    near = [a_row(4, None), a_row(16, 0.3), a_row(64, 0.2)]
    made = forecast(*near)
    assert made.counts_to_choose(CELL, WORK) == (4, 16, 64)
    assert adjoint.executed_steps(2000, 16, 2000) / 2000 > executed(16) / 1000
    assert made.counts_to_choose(FAR, FAR_WORK) == (64,)
    assert forecast(*near, far(7)).counts_to_choose(FAR, FAR_WORK) == (7,)
    assert made.counts_to_choose(FAR, None) == ()
    assert made.counts_to_choose(dataclasses.replace(FAR, xla_flags="--f"), FAR_WORK) == ()


# --- seconds


def test_nothing_is_told_of_seconds_where_none_was_timed_or_no_steps_are_known() -> None:
    """And a step's seconds are those of its variant."""
    compiled = forecast(a_row(4, None), a_row(64, None))
    assert compiled.seconds_at(CELL, 4) is None
    assert compiled.step_seconds(CELL.variant) is None
    timed = forecast(a_row(4, 0.9), a_row(64, 0.3))
    assert timed.seconds_at(CELL, 20) is not None
    assert timed.seconds_at(Cell(Case(30, 1e-3)), 20) is None
    assert timed.seconds_at(dataclasses.replace(CELL, xla_flags="--f"), 20) is None
    assert forecast(a_row(4, 0.9), works={}).seconds_at(CELL, 4) is None


def test_seconds_in_proportion_to_executed_steps_are_told_at_both_horizons() -> None:
    """Ten microseconds a pass; the forecast is within a hundredth at counts that were never timed."""
    rows = [a_row(count, 1e-5 * executed(count)) for count in (8, 30, 200, 1000)]
    rows += [far(count, 1e-5 * adjoint.executed_steps(2000, count, 2000)) for count in (8, 2000)]
    made = forecast(*rows)
    for cell, steps, count in ((CELL, 1000, 60), (CELL, 1000, 12), (FAR, 2000, 100)):
        said = made.seconds_at(cell, count)
        assert said is not None
        assert said.likely == pytest.approx(1e-5 * adjoint.executed_steps(steps, count, steps), rel=0.01)
    assert made.step_seconds(CELL.variant) == pytest.approx(1e-5, rel=0.01)


def test_transfers_of_a_tier_are_paid_at_their_price_in_steps() -> None:
    """Two steps each: what is left of the seconds is a step's."""
    counts = (8, 12, 20, 40)

    def advances(count: int) -> float:
        return passes(OURS, WORK, count, HOST)[0] + transfer_steps(1000, count, HOST)

    assert advances(8) > passes(OURS, WORK, 8, HOST)[0]
    rows = [dataclasses.replace(a_row(c, 1e-5 * advances(c) + 1e-2), tier=HOST) for c in counts]
    made = forecast(*rows)
    assert made.step_seconds(dataclasses.replace(CELL, tier=HOST).variant) == pytest.approx(1e-5, rel=0.02)
    assert made.step_seconds(CELL.variant) is None


def test_samples_of_a_slow_batch_are_brought_to_the_speed_of_the_first() -> None:
    """In the second batch the machine took twice as long, as the count that was timed again says."""
    truth = {count: 1e-5 * executed(count) for count in (8, 30, 200)}
    first = [a_row(8, truth[8]), a_row(200, truth[200])]
    second = [a_row(200, 2 * truth[200], repeat=1), a_row(30, 2 * truth[30], repeat=1)]
    said = forecast(*first, *second).seconds_at(CELL, 30)
    assert said is not None
    assert said.likely == pytest.approx(truth[30], rel=0.02)


# --- everything stored without a schedule


@pytest.mark.parametrize("bound", [1000, 4096])
def test_everything_stored_lies_on_no_line_with_the_other_counts(bound: int) -> None:
    """It is known by its own row alone, and says nothing of the counts below, nor they of it."""
    work = dataclasses.replace(WORK, switches=adjoint.switching_counts(bound), everything=bound)
    rows = [a_row(1, None), a_row(45, 0.5), a_row(999, 0.4)]
    whole = a_row(bound, 0.02, peak_bytes=2_000_000, compiled_bytes=2_000_000)
    known = forecast(*rows, whole, works={CELL.case: work})
    without = forecast(*rows, works={CELL.case: work})
    assert known.bytes_at(CELL, bound) == Range(2_000_000, 2_000_000, 2_000_000)
    assert without.bytes_at(CELL, bound) is None
    for count in (1, 20, 45, 400, 999):
        assert known.bytes_at(CELL, count) == without.bytes_at(CELL, count)
        assert known.seconds_at(CELL, count) == without.seconds_at(CELL, count)
    assert known.state_bytes(CELL.variant) == pytest.approx(100_000)
    assert known.encloses(CELL, bound, work)
    assert not without.encloses(CELL, bound, work)
