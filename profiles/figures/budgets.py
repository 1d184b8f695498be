"""Figures of what fits: recommendations within their budget, and plans for devices."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import altair as alt
import pandas as pd

from profiles.figures.channels import bytes_measure, count_measure, known, looks_of, place
from profiles.figures.charts import count_of, data, filled, finished, named, tips
from profiles.figures.looks import BUDGET, COLOURS, CROSS, INK
from profiles.units import format_bytes

_ROW = 26  # pixels of a line


def recommendation_figure(choices: Iterable[Mapping[str, Any]] | pd.DataFrame, *, title: str = "") -> alt.LayerChart:
    """Draw what recommended counts take of their budget, with the bounds of what was not measured.

    Args:
        choices: one row a recommendation: `case`, `checkpoints`, `peak_bytes`, `peak_low_bytes`, `peak_high_bytes`,
            `budget_bytes`, `smallest_bytes` (of a case that nothing fits), `evidence`.
        title: above the figure.
    """
    choices = pd.DataFrame(choices)
    names = ("peak_bytes", "peak_low_bytes", "peak_high_bytes", "budget_bytes", "smallest_bytes")
    there = known(*(choices[name] for name in names))
    size = bytes_measure("peak_bytes", "bytes of one call", there)
    size = dataclasses.replace(size, low=0.0, high=max(there, default=1.0) * 1.08, logarithmic=False)
    low, high, budget, least = (dataclasses.replace(size, column=name) for name in names[1:])
    entries = [
        ("case", "datum.case"),
        ("checkpoints", "isValid(datum.checkpoints) ? format(datum.checkpoints, ',') : 'nothing fits'"),
        ("peak", size.said()),
        ("budget", budget.said()),
        ("smallest that would do", least.said()),
        ("evidence", "datum.evidence"),
    ]
    calculated, tooltips = tips(entries)
    base = place(alt.Chart(data("choices", choices)), size, low, high, budget, least).transform_calculate(**calculated)
    row = alt.Y("case:N", sort=None, axis=alt.Axis(title=None, grid=False, labelLimit=260))
    at = size.encode(alt.X)
    bars = base.mark_bar(color=COLOURS[0], height={"band": 0.55}, opacity=0.9, aria=False)
    bars = bars.encode(x=at, x2=alt.X2Datum(0), y=row, tooltip=tooltips)
    bounds = base.transform_filter("datum.peak_high_bytes > datum.peak_low_bytes").mark_rule(color=INK, strokeWidth=2)
    bounds = bounds.encode(x=low.encode(alt.X), x2="peak_high_bytes_shown:Q", y=row)
    lines = base.mark_tick(color=BUDGET, thickness=2, size=_ROW * 0.9, opacity=1)
    lines = lines.encode(x=budget.encode(alt.X), y=row, tooltip=tooltips)
    needed = base.transform_filter("isValid(datum.smallest_bytes) && !isValid(datum.peak_bytes)")
    needed = needed.mark_point(**filled(color=BUDGET, shape="cross")).encode(
        x=least.encode(alt.X), y=row, tooltip=tooltips
    )
    layers = [named(bars, "peaks"), named(bounds, "bounds"), named(lines, "budgets"), named(needed, "needed")]
    said = [
        f"{one['case']}: {_bytes_text(one['peak_bytes'])} of {format_bytes(one['budget_bytes'])}"
        for one in choices.to_dict("records")
    ]
    note = "bars: peak; red line: budget; red cross: the smallest that would do where nothing fits"
    made = finished(alt.layer(*layers), title=title, note=note, description="; ".join(said))
    return made.properties(height=_ROW * max(1, len(choices)))


def plan_figure(
    plan: pd.DataFrame, *, max_recompute: float | None = None, title: str = "", note: str = ""
) -> alt.LayerChart:
    """Draw the recompute factor that each device gives each horizon and setting of a plan; a cross where nothing fits.

    Args:
        plan: `plan_table(plan)`.
        max_recompute: where to draw the limit that was asked for.
        title: above the figure.
        note: below the title.
    """
    horizons, settings = [_text(value) for value in plan["horizon"]], [_without_horizon(text) for text in plan["case"]]
    table = plan.assign(
        horizon_text=pd.Categorical(horizons, list(dict.fromkeys(horizons))),
        setting=pd.Categorical(settings, list(dict.fromkeys(settings))),
    )
    limit = [max_recompute] if max_recompute else []
    factor = count_measure(
        "recompute_factor", "recompute factor (2 stores everything)", [2.0, *limit, *known(plan["recompute_factor"])]
    )
    size = bytes_measure("peak_bytes", "", known(plan["peak_bytes"], plan["usable_bytes"]))
    usable, needed = (dataclasses.replace(size, column=name) for name in ("usable_bytes", "needed_bytes"))
    looks = looks_of(table)
    calculated, tooltips = tips([
        ("device", "datum.device"),
        ("case", "datum.case"),
        ("checkpoints", "isValid(datum.checkpoints) ? format(datum.checkpoints, ',') : 'nothing fits'"),
        ("recompute factor", "isValid(datum.recompute_factor) ? format(datum.recompute_factor, '.3~r') : ''"),
        ("peak", f"({size.said()}) + (isValid(datum.bytes_evidence) ? ' (' + datum.bytes_evidence + ')' : '')"),
        ("usable", usable.said()),
        ("needed for the limit", needed.said()),
        ("steps", "format(datum.steps, ',') + ' (' + datum.steps_evidence + ')'"),
    ])  # fmt: skip
    base = place(alt.Chart(data("plan", table)), factor).transform_calculate(**calculated)
    row = alt.Y("device:N", sort=list(dict.fromkeys(plan["device"])), axis=alt.Axis(title=None, labelLimit=200))
    fits = base.transform_filter("isValid(datum.recompute_factor)").mark_point(**filled())
    fits = fits.encode(x=factor.encode(alt.X), y=row, tooltip=tooltips, **looks.points())
    nothing = base.transform_filter("!isValid(datum.recompute_factor)")
    nothing = nothing.mark_point(color=BUDGET, strokeWidth=2, size=60, opacity=1, shape=CROSS)
    nothing = nothing.encode(x=alt.value("width"), y=row, tooltip=tooltips)
    layers = [named(fits, "fits"), named(nothing, "nothing_fits")]
    if max_recompute:
        rule = alt.Chart(alt.InlineData(values=[{}], name="one")).mark_rule(color=BUDGET, strokeDash=[5, 3])
        layers.append(
            named(rule.encode(x=alt.XDatum(max_recompute, type="quantitative", scale=factor.scale())), "limit")
        )
    short = len(plan) - len(known(plan["recompute_factor"]))
    described = f"recompute factor of {count_of(len(plan), 'line')} of a plan; nothing fits for {short:,}"
    made = finished(
        alt.layer(*layers).resolve_scale(shape="independent"), title=title, note=note, description=described
    )
    return made.properties(height=_ROW * max(1, plan["device"].nunique()))


def _text(horizon: float) -> str:
    return "none" if pd.isna(horizon) else f"{horizon:,g}"


def _without_horizon(case: str) -> str:
    """Take the horizon from the text of a case."""
    first, _, rest = case.partition(", ")
    return case if not first.startswith("horizon ") else rest or "the only case"


def _bytes_text(size: float | None) -> str:
    return "nothing fits" if size is None or pd.isna(size) else format_bytes(size)
