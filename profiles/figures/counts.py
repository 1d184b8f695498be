"""Figures over the count of checkpoints: bytes with their law, recomputation with its optimum; and steps."""

import dataclasses
from typing import Any

import altair as alt
import pandas as pd

from profiles.figures.channels import Measure, bytes_measure, count_measure, known, looks_of, place
from profiles.figures.charts import (
    budget_layers,
    budget_text,
    count_of,
    data,
    either,
    filled,
    finished,
    hollow,
    named,
    nothing,
    tips,
    zoom,
)
from profiles.figures.fronts import FACTOR_TITLE, PEAK_TITLE, point_entries
from profiles.figures.looks import BUDGET, CROSS

COUNT_TITLE = "checkpoints (states held at once)"


def bytes_figure(
    points: pd.DataFrame,
    laws: pd.DataFrame | None = None,
    lost: pd.DataFrame | None = None,
    *,
    budget_bytes: float | None = None,
    title: str = "",
    note: str = "",
) -> alt.LayerChart:
    """Draw peak bytes against checkpoints: measured points, laws with their bounds, a cross at each count that failed.

    Args:
        points: `points_table(profile)`.
        laws: `laws_table(profile, laws)`.
        lost: `lost_table(profile)`; the crosses stand at the top, since nobody knows their bytes.
        budget_bytes: where to draw the line of the budget.
        title: above the figure.
        note: below the title.
    """
    laws = _none_of(points) if laws is None else laws
    lost = _none_of(points) if lost is None else lost
    bounds = known(*(laws[name] for name in ("low_bytes", "high_bytes") if name in laws))
    size = bytes_measure("peak_bytes", PEAK_TITLE, [*known(points["peak_bytes"]), *bounds], budget_bytes)
    count = count_measure("checkpoints", COUNT_TITLE, known(*(t["checkpoints"] for t in (points, laws, lost))))
    looks, (calculated, tooltips) = looks_of(points), tips(point_entries(points, size))
    layers = []
    if len(laws):
        names = ("likely_bytes", "low_bytes", "high_bytes")
        likely, low, high = (dataclasses.replace(size, column=name) for name in names)
        base = place(alt.Chart(data("laws", laws)), count, likely, low, high)
        band = base.mark_area(opacity=0.16, aria=False, line=False).encode(
            x=count.encode(alt.X),
            y=low.encode(alt.Y),
            y2=alt.Y2("high_bytes_shown:Q"),
            **looks.thin_lines(),
        )
        line = base.mark_line(strokeWidth=1, aria=False).encode(
            x=count.encode(alt.X), y=likely.encode(alt.Y), **looks.thin_lines()
        )
        layers += [named(band, "band"), named(line, "law")]
    # Bytes hardly depend on the horizon, so markers fall on each other: hollow and nested, all can be seen.
    cases = pd.Categorical(points["case"]).categories
    nested = f"150 - 115 * datum.place / {max(1, len(cases))}"
    measured = alt.Chart().transform_filter("datum.measured")
    measured = place(measured, count, size).transform_calculate(nested=nested, **calculated)
    measured = measured.mark_point(**hollow(fillOpacity=0)).encode(
        x=count.encode(alt.X),
        y=size.encode(alt.Y),
        size=alt.Size("nested:Q", scale=None),
        tooltip=tooltips,
        **looks.points(),
    )
    layers.append(named(measured, "measured"))
    if len(lost):
        layers.append(_lost_layer(lost, count))
    if not len(points) and not len(lost):
        layers.append(nothing())
    layers[0] = layers[0].add_params(zoom("zoom_bytes"))
    if budget_bytes:  # below the points, which could not be pointed at otherwise
        layers = [*budget_layers(size, budget_bytes, across=True), *layers]
    failed = f"{count_of(len(lost), 'trial')} did not end well" if len(lost) else ""
    described = f"{PEAK_TITLE} against {COUNT_TITLE}: " + either([count_of(len(points), "point"), failed])
    chart = alt.layer(*layers, data=data("points", points))
    return finished(chart, title=title, note=note, description=described + budget_text(budget_bytes))


def recompute_figure(
    points: pd.DataFrame, optima: pd.DataFrame | None = None, *, title: str = "", note: str = ""
) -> alt.LayerChart:
    """Draw the recompute factor against checkpoints: executed (markers) and the theoretical optimum (thin lines).

    Args:
        points: `points_table(profile)`.
        optima: `optima_table(profile, optima)`.
        title: above the figure.
        note: below the title.
    """
    optima = _none_of(points) if optima is None else optima
    factors = known(points["recompute_factor"], *([optima["recompute_factor"]] if len(optima) else []))
    count = count_measure("checkpoints", COUNT_TITLE, known(points["checkpoints"], optima["checkpoints"]))
    factor = count_measure("recompute_factor", FACTOR_TITLE, factors)
    looks = looks_of(points)
    size = bytes_measure("peak_bytes", PEAK_TITLE, known(points["peak_bytes"]))
    calculated, tooltips = tips(point_entries(points, size))
    at = {"x": count.encode(alt.X), "y": factor.encode(alt.Y)}
    layers = []
    if len(optima):
        line = place(alt.Chart(data("optima", optima)), count, factor).mark_line(
            strokeWidth=1, opacity=0.85, aria=False
        )
        layers.append(named(line.encode(**at, **looks.thin_lines()), "optimum"))
    executed = alt.Chart().transform_filter("datum.measured && datum.recompute_factor != null")
    executed = place(executed, count, factor).transform_calculate(**calculated).mark_point(**filled())
    layers.append(named(executed.encode(**at, tooltip=tooltips, **looks.points()), "executed"))
    if not factors:
        layers.append(nothing())
    layers[0] = layers[0].add_params(zoom("zoom_recompute"))
    described = f"{FACTOR_TITLE} against {COUNT_TITLE}: {count_of(len(points), 'point')}"
    described += ", with the theoretical optimum" if len(optima) else ""
    chart = alt.layer(*layers, data=data("points", points))
    return finished(chart, title=title, note=note, description=described)


def steps_figure(steps: pd.DataFrame, *, title: str = "", note: str = "") -> alt.LayerChart:
    """Draw the steps of the forward solve against horizon, a line for each setting; by case where there is no horizon.

    Args:
        steps: `steps_table(profile)`.
        title: above the figure.
        note: below the title.
    """
    height = count_measure("steps", "steps of the forward solve", known(steps["steps"]))
    horizons = known(steps["horizon"])
    looks = looks_of(steps, horizons=False)
    entries = [("case", "datum.case"), ("steps", "format(datum.steps, ',')")]
    for name in ("accepted", "rejected"):
        entries.append((name, f"isValid(datum.{name}) ? format(datum.{name}, ',') : ''"))
    calculated, tooltips = tips(entries)
    if horizons:
        along = count_measure("horizon", "horizon", horizons)
        base = place(alt.Chart(data("steps", steps)), along, height)
        x = along.encode(alt.X, **({"values": sorted(set(horizons))} if len(set(horizons)) <= 8 else {}))
    else:
        base = place(alt.Chart(data("steps", steps)), height)
        x = alt.X("case:N", axis=alt.Axis(title=None, labelAngle=-20, grid=False))
    base = base.transform_calculate(**calculated)
    line = base.mark_line(strokeWidth=1.6, aria=False).encode(x=x, y=height.encode(alt.Y), **looks.lines())
    marks = base.mark_point(**filled()).encode(x=x, y=height.encode(alt.Y), tooltip=tooltips, **looks.points())
    layers = [named(line, "solve"), named(marks, "counted")]
    if not len(steps):
        layers.append(nothing("no steps were counted"))
    if horizons:
        layers[0] = layers[0].add_params(zoom("zoom_steps"))
    described = f"steps of the forward solve against horizon: {count_of(len(steps), 'case')}"
    return finished(alt.layer(*layers), title=title, note=note, description=described)


def _lost_layer(lost: pd.DataFrame, count: Measure) -> Any:
    """Draw a cross at the top for each count that did not end well."""
    entries = [("case", "datum.case"), ("checkpoints", "format(datum.checkpoints, ',')"), ("ended", "datum.status")]
    calculated, tooltips = tips(entries)
    chart = place(alt.Chart(data("lost", lost)), count).transform_calculate(**calculated)
    chart = chart.mark_point(color=BUDGET, strokeWidth=2, size=60, opacity=1, fillOpacity=0, aria=False, shape=CROSS)
    return named(chart.encode(x=count.encode(alt.X), y=alt.value(8), tooltip=tooltips), "lost")


def _none_of(points: pd.DataFrame) -> pd.DataFrame:
    """Make an empty table."""
    return points.iloc[:0]
