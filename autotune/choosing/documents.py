"""The documents that commands print as JSON and the service answers with: plain values, the same words in both."""

import dataclasses
import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import profiles
from autotune.choosing.recommendation import Recommendation
from profiles import Case, Comparison, FrontAxis, FrontPoint, Plan, PlanRow, Profile, Status, plain_value

SCHEMA_VERSION = 1
"""The version of every document here."""


def profile_record(profile: Profile) -> dict[str, Any]:
    """Sum a profile up as one record."""
    failed = sum(row.status is not Status.OK for row in profile.measurements)
    return _record(
        profile, len(profile.cases), measurements=len(profile.measurements), failed=failed,
        newest=profile.newest.measured_at,
    )  # fmt: skip


def summary_record(summary: profiles.ProfileSummary) -> dict[str, Any]:
    """Write a summary as `profile_record` writes the profile itself."""
    return _record(
        summary, summary.cases, measurements=summary.rows, failed=summary.failed, newest=summary.newest_at
    )  # fmt: skip


def _record(
    one: "Profile | profiles.ProfileSummary", cases: int, *, measurements: int, failed: int, newest: dt.datetime
) -> dict[str, Any]:
    return {
        "name": one.qualified_name,
        "problem": one.problem.name,
        "device": one.device.kind,
        "adjoint": str(one.adjoint),
        "cases": cases,
        "measurements": measurements,
        "failed": failed,
        "newest": newest.isoformat(timespec="seconds"),
    }


def profiles_document(records: Iterable[Mapping[str, Any]], place: str) -> dict[str, Any]:
    """List profiles, as `ckpt-tune profiles list` does."""
    return {"schema_version": SCHEMA_VERSION, "store": place, "profiles": list(records)}


def profile_document(profile: Profile) -> dict[str, Any]:
    """Show a profile's points and fronts, as `ckpt-tune profiles show` does."""
    components, versions = dict(profile.problem.components), dict(profile.newest.versions)
    return {
        "schema_version": SCHEMA_VERSION,
        **profile_record(profile),
        "components": components,
        "versions": versions,
        "points": point_records(profile),
    }


def point_records(profile: Profile) -> list[dict[str, Any]]:
    """Write every point of a profile as a record."""
    records = []
    for case in profile.cases:
        found = profiles.points(profile.rows(case))
        fronts = {objective: profiles.pareto_front(found, objective) for objective in FrontAxis}
        records += [point_record(case, point, fronts) for point in found]
    return records


def point_record(case: Case, point: FrontPoint, fronts: Mapping[FrontAxis, Iterable[FrontPoint]]) -> dict[str, Any]:
    """Write one point of a profile as a record."""
    return {
        "horizon": case.horizon,
        "tolerance": case.tolerance,
        "set_values": {key: plain_value(value) for key, value in case.set_values},
        "checkpoints": point.checkpoints,
        "expected_steps": point.expected_steps,
        "tier": point.tier.name if point.tier else None,
        "windows": point.tier.windows if point.tier else None,
        "xla_flags": point.xla_flags,
        "peak_bytes": point.peak_bytes,
        "peak_source": str(point.peak_source),
        "peak_evidence": "planned" if any(row.device.planned for row in point.rows) else "measured",
        "run_seconds": point.run_seconds,
        "seconds_evidence": None if point.run_seconds is None else "measured",
        "recompute_factor": point.recompute_factor,
        "recompute_evidence": None if point.recompute_factor is None else "computed",
        "fastest_for_its_bytes": point in fronts[FrontAxis.SECONDS],
        "least_recompute_for_its_bytes": point in fronts[FrontAxis.RECOMPUTE],
        "measured_at": point.rows[-1].measured_at.isoformat(timespec="seconds"),
    }


def recommend_document(profile: Profile, chosen: Sequence[Recommendation], place: str) -> dict[str, Any]:
    """Show what is recommended, as `ckpt-tune recommend` does, without the nearby budgets."""
    return {
        "schema_version": SCHEMA_VERSION,
        "problem": profile.problem.name,
        "device": profile.device.kind,
        "adjoint": str(profile.adjoint),
        "store": place,
        "recommendations": [choice.to_json() for choice in chosen],
    }


def nearby_record(chosen: Sequence[Recommendation], budget_bytes: int) -> dict[str, Any]:
    """Show what another budget would buy."""
    return {"budget_bytes": budget_bytes, "recommendations": [choice.to_json() for choice in chosen]}


def plan_records(plans: Iterable[Plan]) -> list[dict[str, Any]]:
    """Write the rows of plans as records."""
    return [_plan_record(plan.profile, row) for plan in plans for row in plan.rows]


def plan_document(plans: Sequence[Plan]) -> dict[str, Any]:
    """Show plans, as `ckpt-tune plan` does."""
    longest = [
        {"profile": plan.profile, **dataclasses.asdict(one), "setting": str(one.setting)}
        for plan in plans
        for one in plan.longest
    ]
    return {
        "schema_version": SCHEMA_VERSION,
        "rows": plan_records(plans),
        "longest_horizons": longest,
        "notes": list(plans[0].notes) if plans else [],
    }


def _plan_record(profile: str, row: PlanRow) -> dict[str, Any]:
    case = row.case
    place = {
        "horizon": case.horizon,
        "tolerance": case.tolerance,
        "set_values": {key: plain_value(value) for key, value in case.set_values},
    }
    figures = {field.name: getattr(row, field.name) for field in dataclasses.fields(row) if field.name != "case"}
    return {"profile": profile, **place, **figures}


def compare_records(comparison: Comparison) -> list[dict[str, Any]]:
    """Write what was measured on both sides as records."""
    return [
        {
            "horizon": point.case.horizon,
            "tolerance": point.case.tolerance,
            "set_values": dict(point.case.set_values),
            "checkpoints": point.checkpoints,
            **{
                f"{side}_{figure}": getattr(getattr(point, side), figure, None)
                for figure in ("peak_bytes", "run_seconds", "recompute_factor")
                for side in ("before", "after")
            },
            **{f"{figure}_ratio": point.ratio(figure) for figure in ("peak_bytes", "run_seconds")},
        }
        for point in comparison.points
    ]


def compare_document(comparison: Comparison) -> dict[str, Any]:
    """Show two profiles side by side, as `ckpt-tune compare` does."""
    changes = [dataclasses.asdict(change) for change in comparison.changes]
    return {"schema_version": SCHEMA_VERSION, "changes": changes, "points": compare_records(comparison)}
