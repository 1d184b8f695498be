"""A chosen option as a recommendation: each figure with what it rests on, from rows made by hand."""

import dataclasses
import datetime as dt
from collections.abc import Sequence
from typing import Any

import pytest

from autotune import Recommendation
from autotune.adjoints import Work
from autotune.choosing.describe import Known, describe, measured_point
from autotune.choosing.recommendation import Evidence, Fit, Option
from autotune.measuring.rows import VERIFIED
from autotune.model.cells import Cell, cell_of
from autotune.model.forecast import Forecast
from autotune.model.ranges import Range
from profiles import AdjointName, Measurement, PeakSource, Status, Tier
from tests.autotune.rows import ROW, a_row

OURS = AdjointName.OURS
CELL = cell_of(ROW)
WORK = Work(steps=1000, reversed_steps=900, accepted=900)
BASE = Recommendation(case=CELL.case, status=Fit.NOTHING_FITS, budget_bytes=10**9, margin_bytes=7)
PEAK = Range(1_000_000.4, 2_000_000.5, 3_000_000.6)
NOON = dt.datetime(2026, 5, 4, 12, tzinfo=dt.UTC)


def described(
    rows: Sequence[Measurement],
    count: int,
    *,
    evidence: Evidence = Evidence.MEASURED,
    cell: Cell = CELL,
    work: Work | None = WORK,
    name: AdjointName = OURS,
    **changes: Any,
) -> Recommendation:
    """Describe a count with a forecast of 2 MB, half a second and 3,000 executed steps."""
    forecast = Forecast(rows, {CELL.case: WORK}, name)
    option = Option(
        cell=cell, checkpoints=count, peak=PEAK, seconds=Range(0.4, 0.5, 0.6), executed_steps=3000, timed=False
    )
    known = Known(rows=rows, forecast=forecast, evidence=evidence, between="horizon 15 of 10, 20")
    return describe(dataclasses.replace(option, **changes), work, name, BASE, known=known)


TIMED = [a_row(4, 0.9), a_row(16, 0.5), a_row(64, 0.3)]


def test_what_was_measured_is_told_as_it_was_measured() -> None:
    """Bytes, seconds and recompute factor are those of the rows, and bound themselves."""
    rows = [*TIMED[:1], a_row(16, 0.5, recompute_factor=2.75), *TIMED[2:]]
    found = described(rows, 16)
    assert (found.peak_low_bytes, found.peak_bytes, found.peak_high_bytes) == (2_600_000,) * 3
    assert (found.run_seconds, found.recompute_factor) == (0.5, 2.75)
    assert (found.peak_evidence, found.seconds_evidence) == (Evidence.MEASURED, Evidence.MEASURED)
    assert (found.recompute_evidence, found.evidence) == (Evidence.COMPUTED, Evidence.MEASURED)
    assert (found.status, found.checkpoints, found.margin_bytes) == (Fit.OK, 16, 7)
    assert (found.steps, found.accepted, found.expected_steps) == (1000, 900, 900)
    assert found.peak_source is PeakSource.RUN


def test_a_count_between_measured_ones_is_interpolated_with_its_neighbours() -> None:
    """Whole bytes that hold the forecast's: rounded up, the lower bound down."""
    found = described(TIMED, 30)
    assert (found.peak_low_bytes, found.peak_bytes, found.peak_high_bytes) == (1_000_000, 2_000_001, 3_000_001)
    assert (found.peak_evidence, found.seconds_evidence) == (Evidence.INTERPOLATED, Evidence.INTERPOLATED)
    assert (found.run_seconds, found.recompute_factor) == (0.5, 3.0)
    assert found.recompute_evidence is Evidence.COMPUTED
    assert found.evidence is Evidence.INTERPOLATED
    assert found.between == "30 of the measured counts 16, 64"
    assert found.peak_source is PeakSource.COMPILED


@pytest.mark.parametrize(
    ("count", "near"), [(2, "4"), (100, "64"), (5, "4, 16"), (17, "16, 64"), (63, "16, 64"), (65, "64")]
)
def test_beyond_the_measured_counts_is_extrapolated(count: int, near: str) -> None:
    """The nearest on either side is named."""
    found = described(TIMED, count)
    assert found.between == f"{count} of the measured counts {near}"
    assert found.peak_evidence is (Evidence.INTERPOLATED if "," in near else Evidence.EXTRAPOLATED)
    assert found.evidence is found.peak_evidence


def test_counts_of_other_variants_are_no_neighbours_and_neither_are_those_without_bytes() -> None:
    """A failure knows no bytes."""
    rows = [*TIMED, a_row(20, 0.4, xla_flags="--f"), a_row(24, None, peak_bytes=None, status=Status.FAILED)]
    assert described(rows, 30).between == "30 of the measured counts 16, 64"
    flagged = dataclasses.replace(CELL, xla_flags="--f")
    found = described(rows, 30, cell=flagged)
    assert found.between == "30 of the measured counts 20"
    assert (found.xla_flags, found.run_seconds, found.seconds_evidence) == ("--f", None, None)


@pytest.mark.parametrize("evidence", [Evidence.INTERPOLATED, Evidence.EXTRAPOLATED])
def test_at_a_case_that_was_not_measured_every_figure_is_as_weak_as_the_case(evidence: Evidence) -> None:
    """Though the count was measured at another horizon; what the case lies between is said."""
    found = described(TIMED, 16, evidence=evidence)
    assert (found.peak_low_bytes, found.peak_bytes, found.peak_high_bytes) == (1_000_000, 2_000_001, 3_000_001)
    assert (found.run_seconds, found.seconds_evidence) == (0.5, evidence)
    assert (found.peak_evidence, found.recompute_evidence, found.evidence) == (evidence,) * 3
    assert found.between == "horizon 15 of 10, 20"


def test_seconds_are_left_out_where_nothing_encloses_them() -> None:
    """Beyond what was timed, where nothing was, where no steps are known, where the law tells none."""
    assert described([a_row(4, None), a_row(16, 0.5), a_row(64, None)], 30).run_seconds is None
    compiled = described([a_row(4, None), a_row(64, None)], 30)
    assert (compiled.run_seconds, compiled.seconds_evidence) == (None, None)
    assert compiled.evidence is Evidence.INTERPOLATED
    assert described(TIMED, 30, seconds=None).run_seconds is None
    assert described(TIMED, 30, work=None).run_seconds is None
    only_compiled = described([a_row(4, 0.9), a_row(16, None), a_row(64, 0.3)], 16)
    assert (only_compiled.peak_evidence, only_compiled.seconds_evidence) == (Evidence.MEASURED, Evidence.INTERPOLATED)
    assert only_compiled.evidence is Evidence.INTERPOLATED


def test_without_steps_nothing_is_said_of_them() -> None:
    """Nor of what is recomputed; Diffrax's adjoint expects none."""
    found = described(TIMED, 16, work=None, executed_steps=None)
    assert (found.steps, found.accepted, found.expected_steps) == (None, None, None)
    assert (found.recompute_factor, found.recompute_evidence) == (None, None)
    assert described(TIMED, 16, executed_steps=None).recompute_factor is None
    stock = described(TIMED, 16, name=AdjointName.DIFFRAX)
    assert (stock.steps, stock.accepted, stock.expected_steps) == (1000, 900, None)


def test_flags_and_tier_are_those_of_the_option() -> None:
    """And the JSON names the tier's parts."""
    tier = Tier(name="host", windows=20, transfer_cost=0.5)
    found = described(TIMED, 16, cell=dataclasses.replace(CELL, xla_flags="--f", tier=tier))
    assert (found.xla_flags, found.tier) == ("--f", tier)
    document = found.to_json()
    assert [document[key] for key in ("tier", "windows", "transfer_cost")] == ["host", 20, 0.5]
    plain = described(TIMED, 16).to_json()
    assert [plain[key] for key in ("tier", "windows", "transfer_cost")] == [None] * 3
    assert (plain["horizon"], plain["tolerance"], plain["set_values"]) == (10, 1e-3, {})
    assert "case" not in plain
    assert plain["checkpoints"] == 16


def test_of_several_programs_of_one_count_the_final_one_counts_else_the_newest() -> None:
    """A prediction or an allocator makes another program; the user's own settings are the final one."""
    older = a_row(16, 0.5, expected_steps=900, measured_at=NOON)
    newer = a_row(16, 0.4, expected_steps=1000, measured_at=NOON + dt.timedelta(hours=1))
    for rows in ([older, newer], [newer, older]):
        point = measured_point(rows, CELL, 16)
        assert point is not None
        assert point.run_seconds == 0.4
    final = dataclasses.replace(older, study=f"s{VERIFIED}")
    point = measured_point([final, newer], CELL, 16)
    assert point is not None
    assert point.run_seconds == 0.5


def test_what_was_measured_elsewhere_or_cannot_be_relied_on_is_no_point() -> None:
    """Another count, another cell, a count that ran out of memory."""
    assert measured_point(TIMED, CELL, 17) is None
    assert measured_point(TIMED, dataclasses.replace(CELL, xla_flags="--f"), 16) is None
    lost = a_row(16, None, status=Status.OUT_OF_MEMORY)
    assert measured_point([*TIMED, lost], CELL, 16) is None
    assert measured_point(TIMED, CELL, 16) is not None
