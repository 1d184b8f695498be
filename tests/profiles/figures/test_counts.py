"""Figures over the count of checkpoints, and of steps: what stands in the SVG is what was measured."""

import pytest

from profiles import (
    Case,
    Measurement,
    Optimum,
    PredictedBytes,
    Profile,
    Status,
    bytes_figure,
    laws_table,
    lost_table,
    optima_table,
    points_table,
    recompute_figure,
    steps_figure,
    steps_table,
    svg_text,
)  # fmt: skip
from profiles.figures.looks import BUDGET
from tests.profiles.figures.svg import Drawing
from tests.profiles.figures.test_fronts import near
from tests.profiles.makers import a_measurement, a_sweep

MIB = 2**20


def good(profile: Profile) -> list[Measurement]:
    """The rows that ended well."""
    return [row for row in profile.measurements if row.status is Status.OK]


def test_bytes_are_drawn_with_law_bounds_budget_and_lost_counts(profile: Profile):
    """Measured points, the law's line and band, the budget, and a cross at every trial that did not end well."""
    law = PredictedBytes(
        checkpoints=(1, 64, 99), likely_bytes=(5e6, 1e8, 2e8), low_bytes=(4e6, 9e7, 1e8),
        high_bytes=(6e6, 2e8, float("inf")), text="line",
    )  # fmt: skip
    laws = laws_table(profile, [law])
    figure = bytes_figure(points_table(profile), laws, lost_table(profile), budget_bytes=2**25)
    drawing = Drawing(svg_text(figure))
    assert near(drawing.points("measured"), [(row.checkpoints, row.peak_bytes) for row in good(profile)])
    (line,) = drawing.corners("law")
    assert near(line, [(1, 5e6), (64, 1e8)])  # a bound that nothing gives is not drawn
    (band,) = drawing.corners("band")
    assert near(band, [(1, 4e6), (64, 9e7), (64, 2e8), (1, 6e6)])
    lost = [row.checkpoints for row in profile.measurements if row.status is not Status.OK]
    assert [x for x, _ in drawing.points("lost")] == pytest.approx(lost, rel=2e-3)
    assert {mark.get("stroke") for mark in drawing.marks("lost")} == {BUDGET}
    assert drawing.line_at("budget", "Y") == pytest.approx(2**25, rel=5e-3)
    assert drawing.titles["X"].startswith("checkpoints")
    assert drawing.titles["Y"].endswith("(MiB)")


def test_markers_of_cases_at_equal_bytes_are_nested(profile: Profile):
    """Points that fall on each other have markers of different sizes, so that all can be seen."""
    drawing = Drawing(svg_text(bytes_figure(points_table(profile))))
    outlines = {mark.get("d") for mark in drawing.marks("measured")}
    assert len(outlines) == len(profile.cases)


def test_executed_steps_are_drawn_beside_the_optimum(profile: Profile):
    """Markers stand at the measured factors, and the line is the column that the caller gave, untouched."""
    case = profile.cases[0]
    optima = optima_table(profile, [
        Optimum(case=case, checkpoints=(1, 10, 100), recompute_factor=(50.0, 5.0, 2.0)),
        Optimum(case=Case(horizon=-1), checkpoints=(1,), recompute_factor=(9.0,)),
    ])  # fmt: skip
    drawing = Drawing(svg_text(recompute_figure(points_table(profile), optima)))
    assert near(drawing.points("executed"), [(row.checkpoints, row.recompute_factor or 0) for row in good(profile)])
    (line,) = drawing.corners("optimum")
    assert near(line, [(1, 50.0), (10, 5.0), (100, 2.0)])
    assert Drawing(svg_text(recompute_figure(points_table(profile)))).corners("optimum") == []


def test_steps_are_drawn_against_horizon_for_each_tolerance(profile: Profile):
    """One line a tolerance, through the steps that were counted, with a tick at each horizon."""
    drawing = Drawing(svg_text(steps_figure(steps_table(profile))))
    counted = {(row.horizon or 0, row.steps or 0) for row in profile.measurements}
    assert near(drawing.points("counted"), counted)
    assert len(drawing.corners("solve")) == 2
    assert drawing.ticks["X"] == ["100", "200", "400"]
    for line in drawing.corners("solve"):
        assert [x for x, _ in line] == pytest.approx([100, 200, 400], rel=2e-3)


def test_steps_without_a_horizon_are_drawn_by_case():
    """A problem that takes no horizon still shows its steps."""
    rows = a_sweep(horizons=(None,), tolerances=(1e-3, 1e-6))
    text = svg_text(steps_figure(steps_table(Profile(name="x", measurements=tuple(rows)))))
    assert {"tolerance 1e-6", "tolerance 1e-3"} <= set(Drawing(text).texts)


def test_figures_of_failures_only_are_empty():
    """A profile in which nothing ended well can be drawn; the failure is all there is to see."""
    row = a_measurement(status="out_of_memory", peak_bytes=None, peak_source=None, run_seconds=(), steps=None,
                        recompute_factor=None)  # fmt: skip
    profile = Profile(name="x", measurements=(row,))
    points = points_table(profile)
    drawing = Drawing(svg_text(bytes_figure(points, lost=lost_table(profile))))
    assert (len(drawing.marks("lost")), drawing.marks("measured")) == (1, [])
    assert "nothing measured" in Drawing(svg_text(recompute_figure(points))).texts
    assert "no steps were counted" in Drawing(svg_text(steps_figure(steps_table(profile)))).texts
