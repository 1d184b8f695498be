"""The tables that figures are drawn from hold what was measured, case by case."""

import pytest

from profiles import (
    Case,
    FrontAxis,
    Profile,
    Recommended,
    ReportExtras,
    pareto_front,
    points,
    points_table,
    steps_table,
)  # fmt: skip
from profiles.analysis.figure_tables import CaseNames, rows_by_case
from tests.profiles.makers import a_measurement, a_sweep


def test_rows_by_case_are_those_of_the_profile():
    """One pass over the rows gives what `Profile.rows` gives case by case, older states of the code left out."""
    old = [
        a_measurement(components={"source": "s", "program": "1"}, checkpoints=c, horizon=h)
        for c in (2, 3)
        for h in (1, 2)
    ]
    new = [
        a_measurement(components={"source": "s", "program": "2"}, checkpoints=c, horizon=2, minutes=c) for c in (2, 5)
    ]
    profile = Profile(name="x", measurements=(*old, *new))
    assert list(rows_by_case(profile)) == list(profile.cases)
    for case, rows in rows_by_case(profile).items():
        assert tuple(rows) == profile.rows(case)


def test_every_point_is_a_row_with_its_fronts():
    """Rows are the points of each case by rising count; membership of a front is that of `pareto_front`."""
    profile = Profile(name="x", measurements=tuple(a_sweep()))
    table = points_table(profile)
    for case in profile.cases:
        found = points(profile.rows(case))
        here = table[table["case"] == str(case)]
        assert list(here["checkpoints"]) == [point.checkpoints for point in found]
        assert list(here["samples"]) == [3] * len(found)
        for objective in FrontAxis:
            front = [point.checkpoints for point in pareto_front(found, objective)]
            assert list(here[here[f"on_{objective}_front"]]["checkpoints"]) == sorted(front)
    assert list(table["case"].cat.categories) == [str(case) for case in profile.cases]


@pytest.mark.parametrize("evidence", ["measured", "interpolated"])
def test_a_recommendation_is_a_mark_of_its_point_or_a_row_of_its_own(evidence: str):
    """What was measured is marked where it was measured; a forecast is added, and counts as not measured."""
    profile = Profile(name="x", measurements=tuple(a_sweep(horizons=(100,), tolerances=(1e-3,))))
    said = Recommended(
        case=profile.cases[0], checkpoints=8, peak_bytes=19 * 2**20 + 5, run_seconds=9.0, evidence=evidence
    )
    table = points_table(profile, ReportExtras(recommended=(said,)))
    (row,) = table[table["mark"] == "recommended"].to_dict("records")
    assert row["checkpoints"] == 8
    assert row["measured"] == (evidence == "measured")
    assert len(table) == len(points_table(profile)) + (evidence != "measured")
    if evidence == "measured":
        assert row["peak_bytes"] == 19 * 2**20
        assert row["run_seconds"] == profile.measurements[2].run_median_seconds
    else:
        assert (row["peak_bytes"], row["run_seconds"], row["peak_source"]) == (19 * 2**20 + 5, 9.0, "forecast")
        assert not row["on_seconds_front"]


def test_of_equal_counts_the_recommended_bytes_decide():
    """Two points of one count (with a tier, and without) are told apart by the bytes that the recommendation names."""
    rows = [a_measurement(checkpoints=4, peak_bytes=size, xla_flags=flags) for size, flags in ((100, ""), (300, "--x"))]
    profile = Profile(name="x", measurements=tuple(rows))
    said = Recommended(case=profile.cases[0], checkpoints=4, peak_bytes=300)
    table = points_table(profile, ReportExtras(recommended=(said,)))
    assert list(table[table["mark"] == "recommended"]["peak_bytes"]) == [300]


def test_cases_that_read_alike_have_different_names():
    """`a=1` and `a='1'` are two cases, so they have two names; what XML cannot write is replaced."""
    names = CaseNames([Case(set_values=(("a", 1),)), Case(set_values=(("a", "1"),)), Case(set_values=(("a", "\x01"),))])
    assert sorted(names.categories()["case"]) == ["a=1 (1)", "a=1 (2)", "a=\ufffd"]


def test_settings_of_tolerances_alone_are_the_tolerances():
    """Where nothing else differs a legend of tolerances says the number only."""
    table = steps_table(Profile(name="x", measurements=tuple(a_sweep())))
    assert list(table["setting"].cat.categories) == ["1e-6", "1e-3"]
    assert list(table["horizon_text"].cat.categories) == ["100", "200", "400"]
