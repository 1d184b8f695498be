"""The part of a report's page that sets devices beside each other."""

import html
from collections.abc import Sequence

from profiles.analysis.plan import MEASURED, PlanRow
from profiles.units import format_bytes, format_seconds

_HEADS = ("device", "case", "JAX may use", "checkpoints", "peak", "recompute", "evidence", "enough")
_NOTE = (
    "JAX may use: what it takes of the device, less a margin. Enough: the least memory with which the recompute "
    "factor is at most {limit:g}. Evidence: whether the bytes were measured on the device, planned by its compiler, or "
    "carried over from this profile. Dotted lines in the figure of memory against recomputation stand at what JAX may "
    "use."
)
_BOUND_NOTE = (
    " At least: a bound, by operations and bytes that no call can do without at the device's stated peak rates; what a "
    "call takes is more, and nothing here says how much."
)


def hardware_card(rows: Sequence[PlanRow], max_recompute: float = 2.0) -> str:
    """Write devices side by side as a section of HTML; empty where there are none.

    Args:
        rows: what each device makes of each case.
        max_recompute: the recompute factor for which enough memory is said.
    """
    if not rows:
        return ""
    timed = any(row.run_seconds is not None for row in rows)
    bounded = any(row.least_seconds is not None for row in rows)
    priced = any(row.least_cost is not None for row in rows)
    heads = [*_HEADS, *["a call"] * timed, *["a call, at least"] * bounded, *["1,000 calls, at least"] * priced]
    head = "".join(f"<th{_kind(name)}>{html.escape(name)}</th>" for name in heads)
    lines = "".join(_line(row, timed, bounded, priced) for row in rows)
    note = _NOTE.format(limit=max_recompute) + _BOUND_NOTE * bounded
    return f"""  <section class="card wide" id="hardware"><h2>Devices side by side</h2>
    <div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table></div>
    <p class="under">{html.escape(note)}</p></section>"""


def _line(row: PlanRow, timed: bool, bounded: bool, priced: bool) -> str:
    """Write one row."""
    usable, enough = format_bytes(row.usable_bytes), _maybe(row.needed_bytes)
    if row.checkpoints is None:
        least = "" if row.smallest_bytes is None else f": the smallest needs {format_bytes(row.smallest_bytes)}"
        cells = [_cell("nothing fits" + least, "nothing", span=3)]
    else:
        factor = "" if row.recompute_factor is None else f"{row.recompute_factor:.2f} x"
        cells = [_cell(f"{row.checkpoints:,}", "strong"), _cell(_maybe(row.peak_bytes)), _cell(factor)]
    seconds = "" if row.run_seconds is None else format_seconds(row.run_seconds)
    scaled = row.run_seconds is not None and row.evidence != MEASURED
    cells += [_cell(row.evidence, "text"), _cell(enough)]
    if timed:
        cells.append(_cell(seconds + " (scaled)" * scaled))
    if bounded:
        cells.append(_cell("" if row.least_seconds is None else f"≥ {format_seconds(row.least_seconds)}"))
    if priced:
        cells.append(_cell("" if row.least_cost is None else f"≥ {row.least_cost:.3g} {row.currency}"))
    place = _cell(str(row.case), "text") + _cell(usable)
    return f"<tr><th>{html.escape(row.device)}</th>{place}{''.join(cells)}</tr>"


def _cell(text: str, kind: str = "", span: int = 1) -> str:
    """Write a cell."""
    marked = f' class="{kind}"' if kind else ""
    wide = f' colspan="{span}"' if span > 1 else ""
    return f"<td{marked}{wide}>{html.escape(text)}</td>"


def _kind(name: str) -> str:
    return ' class="text"' if name in ("device", "case", "evidence") else ""


def _maybe(size: int | None) -> str:
    return "" if size is None else format_bytes(size)
