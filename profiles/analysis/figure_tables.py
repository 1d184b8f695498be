"""The tables that figures are drawn from: tidy DataFrames, one row a mark, made from records.

`case`, `horizon_text`, `setting` and `profile` are categories in the order in which a figure lists them, all of the
profile's cases included, so that a case has the same colour in every figure of it. What is not known is `<NA>`.
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from profiles.analysis.extras import Optimum, PredictedBytes, Recommended, ReportExtras, Tree
from profiles.analysis.pareto import FrontAxis, FrontPoint, pareto_front, points
from profiles.errors import ProfilesError
from profiles.records.records import Case, Measurement, Profile, Status
from profiles.units import writable

RECOMMENDED, VERIFIED, FORECAST = "recommended", "verified", "forecast"
"""What `mark` says of a point, and the `peak_source` of a recommendation that was not measured itself."""

_CASE = ("case", "horizon", "horizon_text", "setting")
_POINT_TYPES = {
    "place": "Int64", "checkpoints": "Int64", "expected_steps": "Int64", "tier": "string", "xla_flags": "string",
    "peak_bytes": "Int64", "peak_source": "string", "run_seconds": "Float64", "low_seconds": "Float64",
    "high_seconds": "Float64", "samples": "Int64", "recompute_factor": "Float64", "measured": "boolean",
    "mark": "string",
    **{f"on_{axis}_front{end}": "boolean" for axis in FrontAxis for end in ("", "_without_tiers")},
}  # fmt: skip


def points_table(profile: Profile, extras: ReportExtras | None = None) -> pd.DataFrame:
    """Lay out every measured point of a profile, by case and rising count, and what is recommended among them.

    Columns: `case`, `horizon`, `horizon_text`, `setting` (the case without its horizon), `place` (the case's number),
    `checkpoints`, `expected_steps`, `tier`, `xla_flags`, `peak_bytes`, `peak_source`, `run_seconds` (median) with
    `low_seconds` and `high_seconds` of `samples` timed calls, `recompute_factor`; whether the point is
    `on_seconds_front` and `on_recompute_factor_front`, and on each front of the points `_without_tiers`; `measured`,
    and `mark`: `recommended`, `verified` (run under the user's own settings) or empty.

    A recommendation is marked at the point that was measured there. One that was not measured itself is a row of its
    own with `measured` false, on no front.
    """
    extras = extras or ReportExtras()
    groups = rows_by_case(profile)
    names = CaseNames(groups)
    records: list[dict[str, Any]] = []
    for place, (case, rows) in enumerate(groups.items()):
        choices = [one for one in extras.recommended if one.case == case]
        records += _case_points(points(rows), choices, extras.verified_studies, names.record(case) | {"place": place})
    return _frame(records, _POINT_TYPES, names.categories())


def compared_table(profiles: Sequence[Profile], case: Case | None = None) -> pd.DataFrame:
    """Lay out the points of several profiles at one case, as `points_table` does, with `profile` before the rest.

    Args:
        profiles: two or more; their names in the table are the shortest that differ.
        case: the case to compare; by default the first that all have.

    Raises:
        ProfilesError: the profiles have no case in common.
    """
    shared = [c for c in profiles[0].cases if all(c in other.cases for other in profiles[1:])]
    chosen = case if case is not None else next(iter(shared), None)
    if chosen is None:
        raise ProfilesError(f"{' and '.join(p.qualified_name for p in profiles)} were measured at no case in common")
    names, titles = CaseNames([chosen]), distinct_names(profiles)
    records: list[dict[str, Any]] = []
    for name, profile in zip(titles, profiles, strict=True):
        of_case = {"profile": name, "place": 0, **names.record(chosen)}
        records += _case_points(points(profile.rows(chosen)), (), frozenset(), of_case)
    return _frame(records, _POINT_TYPES, {"profile": titles, **names.categories()})


def lost_table(profile: Profile) -> pd.DataFrame:
    """Lay out the rows that did not end well: `case` as in `points_table`, `checkpoints`, `status`, `message`."""
    groups = rows_by_case(profile)
    names = CaseNames(groups)
    records = [
        names.record(case)
        | {"checkpoints": row.checkpoints, "status": str(row.status).replace("_", " "), "message": row.message}
        for case, rows in groups.items()
        for row in rows
        if row.status is not Status.OK
    ]
    types = {"checkpoints": "Int64", "status": "string", "message": "string"}
    return _frame(records, types, names.categories())


def steps_table(profile: Profile) -> pd.DataFrame:
    """Lay out the steps that were counted last in every case: `case` as above, `steps`, `accepted`, `rejected`."""
    groups = rows_by_case(profile)
    names = CaseNames(groups)
    records = []
    for case, rows in groups.items():
        newest = next((row for row in reversed(rows) if row.steps is not None), None)
        if newest is not None:
            counts = {"steps": newest.steps, "accepted": newest.accepted, "rejected": newest.rejected}
            records.append(names.record(case) | counts)
    return _frame(records, dict.fromkeys(("steps", "accepted", "rejected"), "Int64"), names.categories())


def laws_table(profile: Profile, laws: Iterable[PredictedBytes]) -> pd.DataFrame:
    """Lay out laws of bytes, a row a count: `case` as above (none for a law of every case), `checkpoints`, bytes.

    `likely_bytes` lies between `low_bytes` and `high_bytes`; counts whose bounds are not finite are left out. `law` is
    its text.
    """
    cases = profile.cases
    names = CaseNames(cases)
    records = []
    for law in laws:
        if law.case is not None and law.case not in cases:
            continue
        for row in zip(law.checkpoints, law.likely_bytes, law.low_bytes, law.high_bytes, strict=True):
            if all(math.isfinite(value) for value in row):
                figures = ("checkpoints", "likely_bytes", "low_bytes", "high_bytes")
                records.append(names.record(law.case) | dict(zip(figures, row, strict=True)) | {"law": law.text})
    types = {"checkpoints": "Int64", **dict.fromkeys(("likely_bytes", "low_bytes", "high_bytes"), "Float64")}
    return _frame(records, {**types, "law": "string"}, names.categories())


def optima_table(profile: Profile, optima: Iterable[Optimum]) -> pd.DataFrame:
    """Lay out theoretical optima, a row a count: `case` as above, `checkpoints`, `recompute_factor`."""
    cases = profile.cases
    names = CaseNames(cases)
    records = [
        names.record(one.case) | {"checkpoints": count, "recompute_factor": factor}
        for one in optima
        if one.case in cases
        for count, factor in zip(one.checkpoints, one.recompute_factor, strict=True)
    ]
    return _frame(records, {"checkpoints": "Int64", "recompute_factor": "Float64"}, names.categories())


def tree_table(tree: Tree, *, parts: int = 1500) -> pd.DataFrame:
    """Lay out the blocks of a checkpoint tree: `start`, `stop`, `slot`, the tree's `checkpoints`, `steps`, `stored`.

    Blocks narrower than one of `parts` parts of the solve are left out: nobody could see them; `stored` counts all.
    """
    same = {"checkpoints": tree.checkpoints, "steps": tree.steps, "stored": len(tree.blocks)}
    least = tree.steps / parts
    shown = [block for block in tree.blocks if block.stop - block.start >= least]
    records = [{"start": block.start, "stop": block.stop, "slot": block.slot, **same} for block in shown]
    return _frame(records, dict.fromkeys(("start", "stop", "slot", *same), "Int64"), {})


def rows_by_case(profile: Profile) -> dict[Case, list[Measurement]]:
    """Sort the rows of a profile by case, in one pass: what `Profile.rows` gives for each of its cases."""
    groups: dict[Case, list[Measurement]] = {}
    for row in profile.measurements:
        groups.setdefault(row.case, []).append(row)
    kept = {}
    for case in sorted(groups, key=lambda case: case.order):
        newest = groups[case][-1].problem
        fingerprint = newest.fingerprint
        kept[case] = [r for r in groups[case] if r.problem == newest or r.problem.fingerprint == fingerprint]
    return kept


def distinct_names(profiles: Sequence[Profile]) -> list[str]:
    """Name profiles by the shortest names that differ."""
    for name in (
        lambda p: p.name,
        lambda p: f"{p.name} ({p.adjoint})",
        lambda p: f"{p.name} ({p.device.kind})",
        lambda p: p.qualified_name,
    ):
        names = [name(profile) for profile in profiles]
        if len(set(names)) == len(names):
            return names
    return [f"{profile.qualified_name} ({index})" for index, profile in enumerate(profiles, start=1)]


def _case_points(
    found: Sequence[FrontPoint], choices: Sequence[Recommended], verified: frozenset[str], of_case: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Describe the points of one case, and what was recommended beside them."""
    alone = [point for point in found if point.tier is None]
    fronts = {
        f"on_{axis}_front{end}": {id(point) for point in pareto_front(some, axis)}
        for axis in FrontAxis
        for end, some in (("", found), ("_without_tiers", alone))
    }
    chosen = {id(point) for one in choices if (point := _measured_at(one, found)) is not None}
    records = []
    for point in found:
        samples = [sample for row in point.rows for sample in row.run_seconds]
        final = VERIFIED if any(row.study in verified for row in point.rows) else ""
        records.append({
            **of_case,
            "checkpoints": point.checkpoints,
            "expected_steps": point.expected_steps,
            "tier": str(point.tier or ""),
            "xla_flags": point.xla_flags,
            "peak_bytes": point.peak_bytes,
            "peak_source": str(point.peak_source),
            "run_seconds": point.run_seconds,
            "low_seconds": min(samples, default=None),
            "high_seconds": max(samples, default=None),
            "samples": len(samples),
            "recompute_factor": point.recompute_factor,
            "measured": True,
            "mark": RECOMMENDED if id(point) in chosen else final,
            **{name: id(point) in members for name, members in fronts.items()},
        })  # fmt: skip
    for one in choices:
        if _measured_at(one, found) is None:
            figures = {f.name: getattr(one, f.name) for f in dataclasses.fields(one) if f.name in _POINT_TYPES}
            rest = {"tier": "", "xla_flags": "", "samples": 0, "measured": False}
            marked = {"peak_source": FORECAST, "mark": RECOMMENDED, **dict.fromkeys(fronts, False)}
            records.append({**of_case, **figures, **rest, **marked})
    return records


def _measured_at(one: Recommended, found: Sequence[FrontPoint]) -> FrontPoint | None:
    """Find the point at which a recommendation was measured, the one of its very bytes before others of its count."""
    here = [point for point in found if point.checkpoints == one.checkpoints and one.evidence == "measured"]
    here = [p for p in here if p.expected_steps == one.expected_steps or one.expected_steps is None] or here
    return min(here, key=lambda point: abs(point.peak_bytes - one.peak_bytes), default=None)


class CaseNames:
    """The texts of the cases of a profile, different for different cases."""

    def __init__(self, cases: Iterable[Case]) -> None:
        """Name every case, its horizon, and its setting: what distinguishes it from others of its horizon."""
        self.cases = sorted(cases, key=lambda case: case.order)
        self.only_tolerances = all(c == Case(c.horizon, c.tolerance) and c.tolerance is not None for c in self.cases)
        rests = sorted({dataclasses.replace(case, horizon=None) for case in self.cases}, key=lambda case: case.order)
        self._case, self._setting = _distinct(self.cases), _distinct(rests)
        if self.only_tolerances:
            self._setting = {rest: text.removeprefix("tolerance ") for rest, text in self._setting.items()}

    def __contains__(self, case: Case) -> bool:
        return case in self._case

    def record(self, case: Case | None) -> dict[str, Any]:
        """Spread a case over its columns, empty for none."""
        if case is None:
            return dict.fromkeys(_CASE)
        setting = self._setting[dataclasses.replace(case, horizon=None)]
        texts = {"case": self._case[case], "horizon_text": _horizon_text(case), "setting": setting}
        return texts | {"horizon": case.horizon}

    def categories(self) -> dict[str, list[str]]:
        """List the categories of the columns of cases, in order."""
        horizons = list(dict.fromkeys(map(_horizon_text, self.cases)))
        return {"case": list(self._case.values()), "horizon_text": horizons, "setting": list(self._setting.values())}


def _horizon_text(case: Case) -> str:
    return "none" if case.horizon is None else f"{case.horizon:,}"


def _distinct(cases: Sequence[Case]) -> dict[Case, str]:
    """Write cases; those that read alike (`a=1`, and `a='1'`) are numbered."""
    texts = [writable(str(case)) for case in cases]
    return {
        case: text if texts.count(text) == 1 else f"{text} ({texts[: place + 1].count(text)})"
        for place, (case, text) in enumerate(zip(cases, texts, strict=True))
    }


def _frame(records: Sequence[Mapping[str, Any]], types: Mapping[str, str], categories: Mapping[str, list[str]]) -> Any:
    """Make a DataFrame of records with columns of the given types."""
    columns: dict[str, Any] = {name: pd.CategoricalDtype(texts) for name, texts in categories.items()}
    if "case" in columns:
        names = list(columns)
        names.insert(names.index("case") + 1, "horizon")
        columns = {name: columns.get(name, "Float64") for name in names}
    columns |= dict(types)
    return pd.DataFrame({name: pd.Series([r.get(name) for r in records], dtype=kind) for name, kind in columns.items()})
