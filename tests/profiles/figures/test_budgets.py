"""Figures of what fits: recommendations within their budget, plans for devices."""

import pandas as pd
import pytest

from profiles import Case, Plan, PlanRequest, PlanRow, plan_figure, plan_table, recommendation_figure, svg_text
from tests.profiles.figures.svg import Drawing

GIB = 2**30


def test_a_recommendation_is_drawn_beside_its_budget():
    """A bar as long as the peak, a line at the budget, and a cross at what would do where nothing fits."""
    choices = [
        {"case": "a", "checkpoints": 8, "peak_bytes": 3 * GIB, "peak_low_bytes": 2 * GIB, "peak_high_bytes": 4 * GIB,
         "budget_bytes": 6 * GIB, "smallest_bytes": None, "evidence": "interpolated"},
        {"case": "b", "checkpoints": None, "peak_bytes": None, "peak_low_bytes": None, "peak_high_bytes": None,
         "budget_bytes": 6 * GIB, "smallest_bytes": 9 * GIB, "evidence": ""},
    ]  # fmt: skip
    figure = recommendation_figure(choices)
    drawing = Drawing(svg_text(figure))
    bars = drawing.marks("peaks")
    assert len(drawing.marks("budgets")) == 2
    assert len(bars) == 2
    ((x, _),) = drawing.points("needed")
    assert x == pytest.approx(9 * GIB, rel=5e-3)
    assert figure.description == "a: 3 GiB of 6 GiB; b: nothing fits of 6 GiB"


def a_row(device: str, horizon: int, factor: float | None) -> PlanRow:
    """A row of a plan, with or without something that fits."""
    fits = factor is not None
    return PlanRow(
        device=device, evidence="measured on it", usable_bytes=8 * GIB, case=Case(horizon, 1e-3), steps=100,
        steps_evidence="measured",
        checkpoints=8 if fits else None, peak_bytes=GIB if fits else None, recompute_factor=factor,
        bytes_evidence="measured" if fits else None, needed_bytes=2 * GIB, needed_checkpoints=9,
        saturated_bytes=3 * GIB, smallest_bytes=GIB,
    )  # fmt: skip


def test_a_plan_is_drawn_by_device_and_horizon():
    """A point at each factor, a cross where nothing fits, and a line at the limit."""
    rows = (a_row("big", 10, 2.0), a_row("big", 20, 2.5), a_row("small", 10, 4.0), a_row("small", 20, None))
    plan = Plan(profile="spirals:make", request=PlanRequest(max_recompute=3.0), rows=rows, longest=())
    drawing = Drawing(svg_text(plan_figure(plan_table(plan), max_recompute=3.0)))
    assert sorted(x for x, _ in drawing.points("fits")) == pytest.approx([2.0, 2.5, 4.0], rel=2e-3)
    assert len(drawing.marks("nothing_fits")) == 1
    assert drawing.line_at("limit", "X") == pytest.approx(3.0, rel=2e-3)
    assert {"big", "small", "10", "20"} <= set(drawing.texts)
    assert Drawing(svg_text(plan.chart())).points("fits") == drawing.points("fits")


def test_a_plan_of_an_empty_table_is_no_error():
    """A plan without rows draws an empty figure."""
    plan = Plan(profile="x", request=PlanRequest(), rows=(), longest=())
    assert svg_text(plan_figure(pd.DataFrame(plan_table(plan)))).startswith("<svg")
