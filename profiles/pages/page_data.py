"""What the HTML page knows: a profile and its extras as plain JSON values, worked out once and drawn in the browser."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from profiles.analysis.extras import PredictedBytes, Recommended, ReportExtras, Tree, visible_blocks
from profiles.analysis.pareto import FrontAxis, FrontPoint, pareto_front, points
from profiles.figures.looks import COLOURS, Look, Series
from profiles.records.flat import COLUMNS, Column, Kind, flatten
from profiles.records.records import Case, Measurement, Profile, Status
from profiles.units import format_bytes

MAIN_COLUMNS = (
    "horizon", "tolerance", "set_values", "checkpoints", "expected_steps", "status", "peak_bytes", "peak_source",
    "run_seconds", "recompute_factor", "steps", "compile_seconds", "message", "measured_at",
)  # fmt: skip
"""The columns that the page's table shows, in this order, until all are switched on; empty ones are left out."""

TREE_WIDTH = 900
"""Blocks narrower than one of this many parts of a tree are not embedded: nobody could see them."""


def page_data(profile: Profile, *, budget_bytes: int | None, extras: ReportExtras) -> dict[str, Any]:
    """Work out everything that the page shows."""
    cases = list(profile.cases)
    index = {case: number for number, case in enumerate(cases)}
    found = {case: points(profile.rows(case)) for case in cases}
    shown_points = [_point(point, index[case], found[case]) for case in cases for point in found[case]]
    return {
        "budget_bytes": budget_bytes,
        "slider": _slider([point["bytes"] for point in shown_points], budget_bytes),
        "newest": profile.newest.measured_at.isoformat(),
        **_case_groups(cases),
        "points": shown_points,
        "lost": [_lost(row, index[case]) for case in cases for row in _failures(profile.rows(case))],
        "steps": [steps for case in cases if (steps := _steps(profile.rows(case), index[case], case))],
        "laws": [_law(law, index) for law in extras.laws if law.case is None or law.case in index],
        "optima": [
            {"case": index[one.case], "checkpoints": one.checkpoints, "factor": one.recompute_factor}
            for one in extras.optima
            if one.case in index
        ],
        "trees": [_tree(tree, index[tree.case]) for tree in extras.trees if tree.case in index],
        "recommended": [_recommended(one, index[one.case]) for one in extras.recommended if one.case in index],
        "columns": [_column(column, _used(profile.measurements)) for column in COLUMNS],
        "rows": [{"case": index[row.case], "cells": _cells(row)} for row in profile.measurements],
    }


def provenance(profile: Profile) -> list[tuple[str, str]]:
    """Say where the measurements come from, as (name, text) pairs."""
    rows = profile.measurements
    memory = profile.device.memory_bytes
    statuses = [f"{sum(row.status is s for row in rows)} {s}" for s in Status if any(row.status is s for row in rows)]
    versions = sorted({_joined(row.versions) for row in rows if row.versions})
    older = len(rows) - sum(len(profile.rows(case)) for case in profile.cases)
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


def _slider(sizes: Sequence[int], budget_bytes: int | None) -> dict[str, float]:
    """Choose the ends and the start of the budget's slider."""
    known = [*sizes, *([budget_bytes] if budget_bytes else [])] or [2**20, 2**30]
    return {"low": min(known) / 1.5, "high": max(known) * 1.5, "start": max(known)}


def _css(look: Look) -> dict[str, str]:
    """Name a look's colour by its variable, which differs between light and dark."""
    return {"colour": f"var(--c{COLOURS.index(look.colour)})", "marker": look.marker, "dash": look.dash}


def _case_groups(cases: Sequence[Case]) -> dict[str, Any]:
    """Spread the cases over horizons and what else differs, with the look of each."""
    series = Series(cases)
    horizons = list(dict.fromkeys(case.horizon for case in cases))
    rests = list(dict.fromkeys(_rest(case) for case in cases))
    first = {horizon: next(case for case in cases if case.horizon == horizon) for horizon in horizons}
    only_tolerances = all(rest == Case(None, rest.tolerance) and rest.tolerance is not None for rest in rests)
    one_horizon, one_rest = len(horizons) == 1, len(rests) == 1
    of_rest = [_css(series.look(next(case for case in cases if _rest(case) == rest))) for rest in rests]
    return {
        "cases": [
            {
                "label": str(case),
                "horizon": horizons.index(case.horizon),
                "rest": rests.index(_rest(case)),
                "look": _css(series.look(case)),
            }
            for case in cases
        ],
        "horizons": [
            {
                "label": "none" if horizon is None else f"{horizon:,}",
                "look": _css(series.look(first[horizon])),
                "part": {"colour": True, "marker": one_rest},
            }
            for horizon in horizons
        ],
        "rests": [
            {
                "label": str(rest).removeprefix("tolerance ") if only_tolerances else str(rest),
                "look": look,
                "part": {"colour": one_horizon, "marker": True},
                "stepsLook": look if one_horizon else look | {"colour": "var(--ink)"},
            }
            for rest, look in zip(rests, of_rest, strict=True)
        ],
        "rest_name": "tolerance" if only_tolerances else "setting",
    }


def _rest(case: Case) -> Case:
    """Take the horizon out of a case."""
    return Case(None, case.tolerance, case.set_values, case.x64, case.mesh)


def _point(point: FrontPoint, case: int, found: Sequence[FrontPoint]) -> dict[str, Any]:
    """Describe a measured point."""
    samples = [sample for row in point.rows for sample in row.run_seconds]
    return {
        "case": case,
        "checkpoints": point.checkpoints,
        "expected": point.expected_steps,
        "tier": str(point.tier or ""),
        "flags": point.xla_flags,
        "bytes": point.peak_bytes,
        "source": str(point.peak_source),
        "seconds": point.run_seconds,
        "factor": point.recompute_factor,
        "samples": len(samples),
        "low": min(samples, default=None),
        "high": max(samples, default=None),
        "fronts": [str(objective) for objective in FrontAxis if point in pareto_front(found, objective)],
    }


def _failures(rows: Sequence[Measurement]) -> list[Measurement]:
    """List the rows that did not end well."""
    return [row for row in rows if row.status is not Status.OK]


def _lost(row: Measurement, case: int) -> dict[str, Any]:
    """Describe a count that did not end well."""
    return {"case": case, "checkpoints": row.checkpoints, "status": str(row.status).replace("_", " ")}


def _steps(rows: Sequence[Measurement], case: int, of: Case) -> dict[str, Any] | None:
    """Describe the steps that were counted last in a case."""
    for row in reversed(rows):
        if row.steps is not None:
            steps = {"steps": row.steps, "accepted": row.accepted, "rejected": row.rejected}
            return {"case": case, "horizon": of.horizon, **steps}
    return None


def _law(law: PredictedBytes, index: Mapping[Case, int]) -> dict[str, Any]:
    """Describe a law where its bounds are known."""
    columns = zip(law.checkpoints, law.likely_bytes, law.low_bytes, law.high_bytes, strict=True)
    kept = [column for column in columns if all(math.isfinite(value) for value in column)]
    names = ("checkpoints", "likely", "low", "high")
    values = {name: [column[k] for column in kept] for k, name in enumerate(names)}
    return {"case": None if law.case is None else index[law.case], "text": law.text, **values}


def _tree(tree: Tree, case: int) -> dict[str, Any]:
    """Describe a tree by its blocks that can be seen."""
    return {
        "case": case,
        "checkpoints": tree.checkpoints,
        "steps": tree.steps,
        "stored": len(tree.blocks),
        "blocks": [(block.start, block.stop, block.slot) for block in visible_blocks(tree, TREE_WIDTH)],
    }


def _recommended(one: Recommended, case: int) -> dict[str, Any]:
    """Describe a recommendation in the words of a point."""
    return {
        "case": case,
        "checkpoints": one.checkpoints,
        "expected": one.expected_steps,
        "bytes": one.peak_bytes,
        "seconds": one.run_seconds,
        "factor": one.recompute_factor,
        "evidence": one.evidence,
    }


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


def _cells(row: Measurement) -> list[Any]:
    """Write the cells of a row as the table shows and sorts them."""
    values = flatten(row)
    return [_cell(column, values[column.name], row) for column in COLUMNS]


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
