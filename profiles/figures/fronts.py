"""Figures of memory against time and against recomputation: the fronts of one profile, or of several."""

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import altair as alt
import pandas as pd

from profiles.analysis.figure_tables import FORECAST, RECOMMENDED, VERIFIED
from profiles.analysis.pareto import FrontAxis
from profiles.figures.channels import (
    Looks,
    Measure,
    bytes_measure,
    count_measure,
    known,
    looks_of,
    place,
    seconds_measure,
)
from profiles.figures.charts import (
    budget_layers,
    budget_text,
    count_of,
    data,
    device_layers,
    filled,
    finished,
    hollow,
    named,
    nothing,
    tips,
    zoom,
)
from profiles.figures.looks import INK

PEAK_TITLE = "peak memory of one call"
FACTOR_TITLE = "recompute factor (executed steps / steps)"
FAR = 16.0
"""Devices that offer more than so many times what the largest point takes are left out of a figure."""
CHOSEN = "fits best"
"""The mark of what a page finds within a budget that its reader chose."""

_COSTS = {FrontAxis.SECONDS: "run_seconds", FrontAxis.RECOMPUTE: "recompute_factor"}
_COST_TITLES = {
    FrontAxis.SECONDS: "seconds of one call, median",
    FrontAxis.RECOMPUTE: FACTOR_TITLE,
}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Panel:
    """One panel of a front: its axes, its looks, and where its rows come from."""

    axis: FrontAxis
    rows: pd.DataFrame
    size: Measure
    cost: Measure
    looks: Looks
    told: tuple[dict[str, str], list[alt.Tooltip]]

    def chart(self, where: str, source: Any = alt.Undefined) -> alt.Chart:
        """Begin a layer over the rows for which an expression holds: those of the figure, or of a source of its own."""
        chart = alt.Chart(source).transform_filter(f"datum.{self.cost.column} != null && {where}")
        return place(chart, self.size, self.cost).transform_calculate(**self.told[0])

    def at(self) -> dict[str, Any]:
        """Return the two places of a mark."""
        return {"x": self.size.encode(alt.X), "y": self.cost.encode(alt.Y)}


def front_figure(
    points: pd.DataFrame,
    objective: FrontAxis = FrontAxis.SECONDS,
    *,
    budget_bytes: float | None = None,
    devices: Mapping[str, float] = MappingProxyType({}),
    title: str = "",
    note: str = "",
) -> alt.LayerChart:
    """Draw memory against seconds or recomputation: fronts as stairs, beaten points hollow, marked points ringed.

    A diamond is drawn around what is recommended, a circle around what was verified. Where some points held states in a
    tier, a dotted line shows what the front would be without them.

    Args:
        points: `points_table(profile)`, or `compared_table(profiles)`.
        objective: what to draw memory against.
        budget_bytes: where to draw the line of the budget.
        devices: bytes that calls may use of other devices, by name: thin lines, of those that lie near the points.
        title: above the figure.
        note: below the title.
    """
    cost, sizes = _COSTS[objective], known(points["peak_bytes"])
    devices = {name: size for name, size in devices.items() if sizes and min(sizes) <= size <= FAR * max(sizes)}
    sizes = [*sizes, *devices.values()]
    measure_cost = seconds_measure if objective is FrontAxis.SECONDS else count_measure
    size = bytes_measure("peak_bytes", PEAK_TITLE, sizes, budget_bytes)
    panel = _Panel(
        axis=objective,
        rows=points,
        size=size,
        cost=measure_cost(cost, _COST_TITLES[objective], known(points[cost])),
        looks=looks_of(points),
        told=tips(point_entries(points, size)),
    )
    drawn = points[points[cost].notna()]
    layers = [*_front_layers(panel, f"on_{objective}_front"), *_marks(panel)]
    if not len(drawn):
        layers.append(nothing())
    on_front = len(drawn[drawn[f"on_{objective}_front"]])
    described = (
        f"{PEAK_TITLE} against {_COST_TITLES[objective]}: {count_of(len(drawn), 'point')}, {on_front:,} of them on a "
        f"front{budget_text(budget_bytes)}"
    )
    layers[0] = layers[0].add_params(zoom(f"zoom_{objective}"))
    if devices:
        layers = [*device_layers(size, devices), *layers]
    if budget_bytes:  # below the points, which could not be pointed at otherwise
        layers = [*budget_layers(size, budget_bytes), *layers]
    shown = _note(points, note) if title or note else ""
    chart = alt.layer(*layers, data=data("points", points))
    return finished(chart, title=title, note=shown, description=described)


def fronts_figure(
    points: pd.DataFrame,
    *,
    budget_bytes: float | None = None,
    devices: Mapping[str, float] = MappingProxyType({}),
    title: str = "",
    note: str = "",
) -> alt.HConcatChart:
    """Draw memory against seconds, and beside it against recomputation; arguments as for `front_figure`."""
    lines: dict[FrontAxis, Mapping[str, float]] = {FrontAxis.RECOMPUTE: devices}
    panels = [
        front_figure(points, objective, budget_bytes=budget_bytes, devices=lines.get(objective, {}))
        for objective in FrontAxis
    ]
    described = " ".join(f"{panel.description}." for panel in panels)
    both = alt.hconcat(*panels)
    parameters: Any = both.params
    for parameter in parameters:
        # Altair gives a panel's selection to each of its named layers, where Vega-Lite takes one of them.
        if isinstance(parameter, alt.TopLevelSelectionParameter):
            parameter.views = parameter.views[:1]
    return finished(both, title=title, note=_note(points, note), description=described)


def compare_figure(points: pd.DataFrame, *, title: str = "") -> alt.HConcatChart:
    """Draw the fronts of several profiles over each other (two devices, two adjoints, before and after).

    Args:
        points: `compared_table(profiles)`; seven profiles at most differ in colour.
        title: above the figure; the names of the profiles and their case by default.
    """
    names = list(points["profile"].cat.categories)
    return fronts_figure(points, title=title or f"{' against '.join(names)} at {points['case'].cat.categories[0]}")


def _front_layers(panel: _Panel, front: str) -> list[Any]:
    """Draw the stairs of the fronts, and points on and off them."""
    axis, rows = panel.axis, panel.rows
    stairs = panel.chart(f"datum.{front}").mark_line(interpolate="step-after", strokeWidth=1.6, aria=False)
    stairs = stairs.encode(**panel.at(), order=alt.Order("peak_bytes:Q"), **panel.looks.lines())
    layers = [named(stairs, f"stairs_{axis}")]
    if list(rows[front]) != list(rows[f"{front}_without_tiers"]):
        alone = panel.chart(f"datum.{front}_without_tiers")
        alone = alone.mark_line(interpolate="step-after", strokeWidth=1, strokeDash=[1, 3], aria=False)
        layers.append(
            named(
                alone.encode(**panel.at(), order=alt.Order("peak_bytes:Q"), **panel.looks.thin_lines()), f"alone_{axis}"
            )
        )
    # Filled ones first: the legend takes their look.
    for name, where, marked in (("front", f"datum.{front}", filled()), ("beaten", f"!datum.{front}", hollow())):
        points = panel.chart(f"datum.measured && {where}").mark_point(**marked)
        points = points.encode(**panel.at(), **panel.looks.points(), tooltip=panel.told[1])
        layers.append(named(points, f"{name}_{axis}"))
    return layers


def _marks(panel: _Panel) -> list[Any]:
    """Ring the points that are marked; a recommendation that was not measured has its ring alone."""
    marked = data("marks", panel.rows.loc[panel.rows["mark"].fillna("") != ""])
    layers = []
    for name, shape, size, where in (
        ("verified", "circle", 190, f"datum.mark == '{VERIFIED}'"),
        ("recommended", "diamond", 330, f"datum.mark == '{RECOMMENDED}' || datum.mark == '{CHOSEN}'"),
    ):
        ring = panel.chart(f"({where})", marked).mark_point(
            filled=False, color=INK, strokeWidth=1.6, opacity=1, shape=shape, size=size, aria=False
        )
        layers.append(named(ring.encode(**panel.at(), tooltip=panel.told[1]), f"{name}_{panel.axis}"))
    return layers


def _note(points: pd.DataFrame, note: str) -> str:
    """Add to a note what the rings mean that are drawn."""
    rings = [("diamond: recommended", RECOMMENDED), ("circle: run under your own settings", VERIFIED)]
    return "; ".join([text for text, mark in rings if mark in set(points["mark"])] + ([note] if note else []))


def point_entries(points: pd.DataFrame, size: Measure) -> list[tuple[str, str]]:
    """Say everything that is known of a point, each figure with its unit."""
    seconds = seconds_measure("run_seconds", "", known(points["run_seconds"], points["high_seconds"]))
    spread = f"datum.samples > 1 ? ' of ' + datum.samples + ', ' + ({seconds.said('low_seconds')}) + ' to ' + "
    spread += f"({seconds.said('high_seconds')}) : ''"
    series = [("profile", "datum.profile")] if "profile" in points else []
    return [
        *series,
        ("case", "datum.case"),
        ("checkpoints", "format(datum.checkpoints, ',')"),
        ("expected steps", "isValid(datum.expected_steps) ? format(datum.expected_steps, ',') : ''"),
        ("peak", f"({size.said()}) + ' (' + datum.peak_source + ')'"),
        ("median", f"isValid(datum.run_seconds) ? ({seconds.said()}) + ({spread}) : ''"),
        ("recompute factor", "isValid(datum.recompute_factor) ? format(datum.recompute_factor, '.3~r') : ''"),
        ("tier", "datum.tier"),
        ("XLA flags", "datum.xla_flags"),
        ("this point", f"datum.mark + (datum.peak_source == '{FORECAST}' ? ', not measured itself' : '')"),
    ]
