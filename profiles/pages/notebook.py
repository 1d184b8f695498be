"""Records as tables of HTML, for notebooks. Whatever a record holds is shown as text."""

import html
from collections.abc import Iterable, Sequence

from profiles.analysis.figure_tables import rows_by_case
from profiles.analysis.pareto import FrontAxis, pareto_front, points
from profiles.analysis.plan import Plan
from profiles.records.records import Profile
from profiles.units import format_bytes, format_seconds

MOST_ROWS = 200
"""A longer table ends with how many rows were left out."""


def html_table(title: str, heads: Sequence[str], rows: Iterable[Sequence[object]], notes: Iterable[str] = ()) -> str:
    """Write a table as HTML, with a title and with notes below it; None is an empty cell."""
    listed = [list(row) for row in rows]
    shown = "".join(f"<tr>{''.join(f'<td>{_text(cell)}</td>' for cell in row)}</tr>" for row in listed[:MOST_ROWS])
    head = "".join(f"<th>{_text(name)}</th>" for name in heads)
    more = [f"{len(listed) - MOST_ROWS:,} more rows"] if len(listed) > MOST_ROWS else []
    below = "".join(f"<div>{_text(note)}</div>" for note in [*more, *notes])
    return (
        f"<div><strong>{_text(title)}</strong>"
        f"<table><thead><tr>{head}</tr></thead><tbody>{shown}</tbody></table>{below}</div>"
    )


def profile_html(profile: Profile) -> str:
    """Write the points of a profile as a table of HTML; those on a front are marked."""
    rows = []
    for case, measured in rows_by_case(profile).items():
        found = points(measured)
        fronts = {axis: {id(point) for point in pareto_front(found, axis)} for axis in FrontAxis}
        for point in found:
            on = [{"seconds": "time"}.get(str(axis), "recompute") for axis in FrontAxis if id(point) in fronts[axis]]
            seconds = None if point.run_seconds is None else format_seconds(point.run_seconds)
            factor = None if point.recompute_factor is None else f"{point.recompute_factor:.2f}"
            tier = str(point.tier or "")
            peak = format_bytes(point.peak_bytes)
            rows.append((case, point.checkpoints, point.expected_steps, tier, peak, seconds, factor, ", ".join(on)))
    heads = ("case", "checkpoints", "expected steps", "tier", "peak", "a call", "recompute", "on the front of")
    failed = len(profile.measurements) - sum(row.status == "ok" for row in profile.measurements)
    notes = [f"{len(profile.measurements):,} measurements, {failed:,} of them did not end well"]
    return html_table(profile.qualified_name, heads, rows, notes)


def plan_html(plan: Plan) -> str:
    """Write the rows of a plan as a table of HTML, with what the plan rests on."""
    rows = [
        (
            row.device,
            row.case,
            f"{row.steps:,} ({row.steps_evidence})",
            "nothing fits" if row.checkpoints is None else row.checkpoints,
            None if row.peak_bytes is None else f"{format_bytes(row.peak_bytes)} of {format_bytes(row.usable_bytes)}",
            None if row.recompute_factor is None else f"{row.recompute_factor:.2f}",
            row.bytes_evidence,
            None if row.run_seconds is None else format_seconds(row.run_seconds),
            None if row.needed_bytes is None else format_bytes(row.needed_bytes),
        )
        for row in plan.rows
    ]
    limit = f"needed for recompute {plan.request.max_recompute:g}"
    heads = ("device", "case", "steps", "checkpoints", "peak", "recompute", "bytes are", "a call", limit)
    return html_table(f"plan for {plan.profile}", heads, rows, plan.notes)


def _text(value: object) -> str:
    """Write a value as text of HTML."""
    return "" if value is None else html.escape(str(value))
