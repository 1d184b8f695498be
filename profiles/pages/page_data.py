"""What the HTML page knows: tables and figures of a profile as plain JSON values, worked out once.

A table is kept by column. A column of few different values names each once, and says by number which row has which.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from profiles.analysis.extras import ReportExtras
from profiles.analysis.figure_tables import (
    CaseNames,
    laws_table,
    lost_table,
    optima_table,
    points_table,
    rows_by_case,
    steps_table,
    tree_table,
)
from profiles.analysis.pareto import FrontAxis
from profiles.figures.channels import known, looks_of
from profiles.figures.charts import records_of
from profiles.figures.counts import bytes_figure, recompute_figure, steps_figure
from profiles.figures.fronts import front_figure
from profiles.figures.looks import VARIABLES
from profiles.figures.rendering import specification
from profiles.figures.thinning import thin
from profiles.figures.trees import tree_figure
from profiles.records.flat import COLUMNS, Column, Kind, flatten
from profiles.records.records import Measurement, Profile, Status
from profiles.units import format_bytes

MAIN_COLUMNS = (
    "horizon", "tolerance", "set_values", "checkpoints", "expected_steps", "status", "peak_bytes", "peak_source",
    "run_seconds", "recompute_factor", "steps", "compile_seconds", "message", "measured_at",
)  # fmt: skip
"""The columns that the page's table shows, in this order, until all are switched on; empty ones are left out."""

TREE_PARTS = 900
"""Blocks narrower than one of this many parts of a tree are not embedded: nobody could see them."""

_POINT_COLUMNS = (
    ("case", "case", ""), ("checkpoints", "checkpoints", ""), ("expected_steps", "expected steps", ""),
    ("peak_bytes", "peak", "bytes"), ("peak_source", "source", ""), ("run_seconds", "median", "s"),
    ("low_seconds", "least", "s"), ("high_seconds", "most", "s"), ("samples", "timed calls", ""),
    ("recompute_factor", "recompute", ""), ("tier", "tier", ""), ("xla_flags", "XLA flags", ""), ("mark", "mark", ""),
)  # fmt: skip
_BESIDE = {
    "seconds": ("points", _POINT_COLUMNS),
    "recompute_factor": ("points", _POINT_COLUMNS),
    "bytes": ("points", _POINT_COLUMNS),
    "recompute": ("points", _POINT_COLUMNS),
    "steps": ("steps", tuple((name, name, "") for name in ("case", "steps", "accepted", "rejected"))),
    "tree": ("blocks", tuple((name, name, "") for name in ("case", "checkpoints", "start", "stop", "slot"))),
}
"""The table beside each figure: of which dataset, and its columns with title and unit."""


def page_data(profile: Profile, *, budget_bytes: int | None, extras: ReportExtras) -> dict[str, Any]:
    """Work out everything that the page shows."""
    points = points_table(profile, extras)
    drawn, thinned = thin(points)
    names = CaseNames(profile.cases)
    looks = looks_of(points)
    slider, used = _slider(points, budget_bytes), _used(profile.measurements)
    charts, datasets = _charts(profile, drawn, extras, budget_bytes or slider["start"])
    datasets["points"] = records_of(points.assign(drawn=points.index.isin(drawn.index)))
    return {
        "budget_bytes": budget_bytes,
        "slider": slider,
        "newest": profile.newest.measured_at.isoformat(),
        "cases": [_case(names.record(case), looks) for case in names.cases],
        "setting_name": "tolerance" if names.only_tolerances else "setting",
        "evidence": {names.record(one.case)["case"]: one.evidence for one in extras.recommended if one.case in names},
        "thinned": thinned,
        "charts": charts,
        "datasets": {name: packed(records) for name, records in datasets.items()},
        "beside": {name: [of, *map(list, columns)] for name, (of, columns) in _BESIDE.items()},
        "columns": [_column(column, used) for column in COLUMNS],
        "measurements": packed([_cells(row) | names.record(row.case) for row in profile.measurements]),
    }  # fmt: skip


def packed(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Keep records by column: each as its values, or as `levels` and their number in every row (`codes`)."""
    columns = {name: [record[name] for record in records] for name in (records[0] if records else ())}
    return {"rows": len(records), "columns": {name: _packed_column(values) for name, values in columns.items()}}


def _packed_column(values: Sequence[Any]) -> Any:
    """Name each of few different values once."""
    levels: dict[str, int] = {}
    codes = [levels.setdefault(json.dumps(value), len(levels)) for value in values]
    if len(levels) > len(values) / 4:
        return values
    return {"levels": [json.loads(level) for level in levels], "codes": codes if len(levels) > 1 else 0}


def _charts(
    profile: Profile, points: pd.DataFrame, extras: ReportExtras, budget_bytes: float
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Make the specification of every figure, as the page shows it, and the tables that they are drawn from."""
    figures = {
        str(FrontAxis.SECONDS): front_figure(points, FrontAxis.SECONDS, budget_bytes=budget_bytes),
        str(FrontAxis.RECOMPUTE): front_figure(
            points, FrontAxis.RECOMPUTE, budget_bytes=budget_bytes, devices=extras.usable_bytes()
        ),
        "bytes": bytes_figure(points, laws_table(profile, extras.laws), lost_table(profile), budget_bytes=budget_bytes),
        "recompute": recompute_figure(points, optima_table(profile, extras.optima)),
    }
    steps = steps_table(profile)
    if known(steps["horizon"]):
        figures["steps"] = steps_figure(steps)
    names = CaseNames(profile.cases)
    trees = [tree_table(tree, parts=TREE_PARTS) for tree in extras.trees if tree.case in names]
    if trees:
        figures["tree"] = tree_figure(trees[0])
    charts, datasets = {}, {"steps": records_of(steps)}
    for name, figure in figures.items():
        written = specification(figure)
        datasets |= written.pop("datasets")
        charts[name] = on_page(written)
    if trees:
        cases = [tree.case for tree in extras.trees if tree.case in names]
        datasets["blocks"] = [
            names.record(case) | block for case, tree in zip(cases, trees, strict=True) for block in records_of(tree)
        ]
    return charts, datasets


def on_page(written: dict[str, Any]) -> dict[str, Any]:
    """Fit a specification into the page: as wide as there is room, in the page's colours, without title and legend."""
    kept = {name: value for name, value in written.items() if name not in ("title", "$schema")}
    kept |= {"width": "container", "autosize": {"type": "fit-x", "contains": "padding"}}
    kept["config"] = {n: v for n, v in written["config"].items() if n != "legend"} | {"background": None}
    return _in_variables(kept)


def _in_variables(part: Any) -> Any:
    """Put the page's variables in the place of colours, and nothing in that of legends: the page has its own."""
    if isinstance(part, dict):
        return {name: None if name == "legend" else _in_variables(value) for name, value in part.items()}
    if isinstance(part, list):
        return [_in_variables(value) for value in part]
    return VARIABLES.get(part, part) if isinstance(part, str) else part


def provenance(profile: Profile) -> list[tuple[str, str]]:
    """Say where the measurements come from, as (name, text) pairs."""
    rows = profile.measurements
    memory = profile.device.memory_bytes
    statuses = [f"{sum(row.status is s for row in rows)} {s}" for s in Status if any(row.status is s for row in rows)]
    versions = sorted({_joined(row.versions) for row in rows if row.versions})
    older = len(rows) - sum(len(some) for some in rows_by_case(profile).values())
    said = [
        ("profile", profile.qualified_name),
        ("problem", profile.problem.name),
        ("its components", _joined(profile.problem.components)),
        ("device", f"{profile.device.count} x {profile.device.kind} ({profile.device.platform})"),
        ("device memory", f"{format_bytes(memory)} ({memory:,} bytes)" if memory else "unknown"),
        ("adjoint", "ckpt-tune's" if profile.adjoint == "ours" else "Diffrax's own"),
        ("measurements", f"{len(rows)}: {', '.join(statuses)}"),
        ("of an older state of the code", f"{older}, in the table only" if older else ""),
        ("studies", _listed(row.study for row in rows)),
        ("versions", "; then ".join(versions)),
        ("XLA flags", _listed(row.xla_flags for row in rows)),
        ("allocator", _listed(row.allocator for row in rows)),
        ("hosts", _listed(row.host for row in rows)),
        ("measured", f"{_moment(rows[0])} to {_moment(rows[-1])}"),
    ]
    return [(name, text) for name, text in said if text]


def _moment(row: Measurement) -> str:
    """Write when a row was measured."""
    return row.measured_at.strftime("%Y-%m-%d %H:%M:%S UTC")


def _joined(values: Mapping[str, Any]) -> str:
    """Write what is known of a mapping on one line."""
    return ", ".join(f"{name} {value}" for name, value in values.items() if value != "")


def _listed(texts: Iterable[str]) -> str:
    """List the different texts that are not empty."""
    return ", ".join(sorted({text for text in texts if text}))


def _slider(points: pd.DataFrame, budget_bytes: int | None) -> dict[str, float]:
    """Choose the ends and the start of the budget's slider."""
    sizes = [int(size) for size in points["peak_bytes"].dropna()]
    known = [*sizes, *([budget_bytes] if budget_bytes else [])] or [2**20, 2**30]
    return {"low": min(known) / 1.5, "high": max(known) * 1.5, "start": max(known)}


def _case(record: Mapping[str, Any], looks: Any) -> dict[str, Any]:
    """Describe a case, with its look in the page's colours."""
    colour, marker, dash = looks.of(record)
    kept = {name: record[name] for name in ("case", "horizon_text", "setting")}
    return kept | {"look": {"colour": VARIABLES[colour], "marker": marker, "dash": " ".join(map(str, dash))}}


def _used(rows: Sequence[Measurement]) -> frozenset[str]:
    """Name the columns in which any row has something to show."""
    values = [flatten(row) for row in rows]
    return frozenset(column.name for column in COLUMNS if any(v[column.name] not in (None, "", {}, []) for v in values))


def _column(column: Column, used: frozenset[str]) -> dict[str, Any]:
    """Describe a column of the table; `main` is its place among the main columns from 1, 0 where it is none."""
    return {
        "name": column.name,
        "title": column.name.replace("_", " "),
        "unit": column.unit,
        "meaning": column.meaning,
        "kind": str(column.kind),
        "main": MAIN_COLUMNS.index(column.name) + 1 if column.name in used.intersection(MAIN_COLUMNS) else 0,
    }


def _cells(row: Measurement) -> dict[str, Any]:
    """Write the cells of a row as the table shows and sorts them."""
    values = flatten(row)
    return {column.name: _cell(column, values[column.name], row) for column in COLUMNS}


def _cell(column: Column, value: Any, row: Measurement) -> Any:
    """Write one cell."""
    if column.kind is Kind.MAPPING:
        held = row.set_values if column.name == "set_values" else value
        return ", ".join(f"{key}={text}" for key, text in held.items())
    if column.kind is Kind.TIME:
        return _moment(row)
    if column.kind is Kind.BOOLEAN:
        return "yes" if value else "no"
    return value


def embed(data: Any) -> str:
    """Write data as JSON that may stand inside a script element: no character of it can end the element."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text
