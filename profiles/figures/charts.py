"""The parts that figures share: rows of a table in a specification, zoom and pan, a budget, what a point says."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import altair as alt
import pandas as pd

from profiles.figures.channels import Measure
from profiles.figures.looks import BUDGET, FAINT, INK
from profiles.units import format_bytes

WIDTH, HEIGHT = 400, 280
"""Of a panel, in pixels, outside the page, which gives it the width that there is."""

GRIP = "grip"
"""The name of the mark by which a budget is moved."""


def records_of(table: pd.DataFrame) -> list[dict[str, Any]]:
    """List the rows of a table as plain JSON values, None where nothing is known."""
    columns = {name: [_plain_value(value) for value in table[name]] for name in map(str, table.columns)}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _plain_value(value: Any) -> Any:
    """Bring one cell to a JSON value."""
    if value is None or value is pd.NA:
        return None
    plain = value.item() if hasattr(value, "item") else value
    return None if isinstance(plain, float) and not math.isfinite(plain) else plain


def data(name: str, table: pd.DataFrame) -> alt.InlineData:
    """Put a table into a specification under a name, by which a page can replace it."""
    return alt.InlineData(values=records_of(table), name=name)


def named(chart: Any, name: str) -> Any:
    """Name a layer, and with it the marks that it becomes."""
    return chart.properties(name=name)


def zoom(name: str) -> alt.Parameter:
    """Return the parameter by which a panel is moved (drag), zoomed (Ctrl and wheel) and reset (double click).

    A wheel without a key scrolls the page, and a drag that begins at the budget moves that.
    """
    elsewhere = f"!event.item || event.item.mark.name != '{GRIP}_marks'"
    return alt.selection_interval(
        name=name,
        bind="scales",
        zoom="wheel![event.ctrlKey || event.metaKey]",
        translate=f"[mousedown[{elsewhere}], window:mouseup] > window:mousemove!",
    )


NAME_STEP = 72
"""Room for the name of a device along its line, in pixels."""


def budget_layers(measure: Measure, budget_bytes: float, *, across: bool = False) -> list[Any]:
    """Draw a budget as a line, with its text, and a broad invisible line to hold it by.

    The parameter `budget` (bytes) moves them, within the axis; `budget_unit` are the bytes of one unit of the axis.

    Args:
        measure: the axis of bytes.
        budget_bytes: where the line is at first.
        across: whether bytes are on the vertical axis.
    """
    late = f"budget > {measure.middle!r}"
    low, high = measure.low / measure.size, measure.high / measure.size
    where = alt.ExprRef(f"clamp(budget / budget_unit, {low!r}, {high!r})")
    kind: Any = alt.YDatum if across else alt.XDatum
    at: dict[str, Any] = {
        "y" if across else "x": kind(where, type="quantitative", scale=measure.scale(), axis=measure.axis())
    }
    nowhere = alt.Chart(alt.InlineData(values=[{}], name="one"))
    line = nowhere.mark_rule(color=BUDGET, strokeDash=[5, 3], strokeWidth=1.4, aria=False).encode(**at)
    label = nowhere.mark_text(
        color=BUDGET,
        fontSize=11,
        aria=False,
        align="left" if across else alt.ExprRef(f"{late} ? 'right' : 'left'"),
        dx=5 if across else alt.ExprRef(f"{late} ? -6 : 6"),
        dy=alt.ExprRef(f"{late} ? 4 : -4") if across else 2,
        baseline=alt.ExprRef(f"{late} ? 'top' : 'bottom'") if across else "top",
    )
    said = alt.value(alt.ExprRef(f"'budget ' + format(budget / budget_unit, ',.3~r') + ' {measure.unit}'"))
    text = label.encode(**at, text=said, **{"x" if across else "y": alt.value(0)})
    cursor = "ns-resize" if across else "ew-resize"
    # What says nothing is deaf to the pointer.
    grip = nowhere.mark_rule(color=BUDGET, strokeWidth=14, opacity=0, cursor=cursor, aria=False)
    grip = grip.encode(**at, tooltip=alt.value("drag to move the budget"))
    parameters = alt.param(name="budget", value=budget_bytes), alt.param(name="budget_unit", value=measure.size)
    return [named(line, "budget").add_params(*parameters), named(text, "budget_text"), named(grip, GRIP)]


def device_layers(measure: Measure, devices: Mapping[str, float]) -> list[Any]:
    """Draw what calls may use of devices as thin upright lines, each with its name beside it, neighbours not level."""
    by_size = sorted(devices.items(), key=lambda device: (device[1], device[0]))
    records = [
        {"device": name, "usable": size / measure.size, "down": NAME_STEP * (place % 3) + NAME_STEP / 4}
        for place, (name, size) in enumerate(by_size)
    ]
    base = alt.Chart(alt.InlineData(values=records, name="devices"))
    at = alt.X("usable:Q", scale=measure.scale(), axis=measure.axis())
    line = base.mark_rule(color=FAINT, strokeWidth=1, strokeDash=[2, 2], aria=False).encode(x=at)
    text = base.mark_text(color=FAINT, fontSize=10, angle=270, align="right", baseline="bottom", dy=-2, aria=False)
    said = text.encode(x=at, y=alt.Y("down:Q", scale=None, axis=None), text="device:N")
    return [named(line, "devices"), named(said, "device_names")]


def tips(entries: Sequence[tuple[str, str]]) -> tuple[dict[str, str], list[alt.Tooltip]]:
    """Make what is said over a mark: the calculations that write the texts, and the tooltips that show them.

    Args:
        entries: titles, and expressions of Vega for their texts, or names of columns.
    """
    calculated = {f"tip_{place}": text for place, (_, text) in enumerate(entries)}
    return calculated, [alt.Tooltip(f"tip_{place}:N", title=title) for place, (title, _) in enumerate(entries)]


def filled(**options: Any) -> dict[str, Any]:
    """Return the properties of filled points; what is painted invisibly around them makes them easier to hit."""
    return {"filled": True, "size": 60, "opacity": 1, "strokeWidth": 9, "strokeOpacity": 0, "aria": False, **options}


def hollow(**options: Any) -> dict[str, Any]:
    """Return the properties of hollow points."""
    return {"filled": False, "size": 45, "opacity": 0.85, "strokeWidth": 1.5, "aria": False, **options}


def nothing(text: str = "nothing measured") -> Any:
    """Return a layer that says why there is nothing else."""
    chart = alt.Chart(alt.InlineData(values=[{}], name="one"))
    return named(chart.mark_text(color=INK, aria=False).encode(text=alt.value(text)), "nothing")


def finished(chart: Any, *, title: str, note: str, description: str) -> Any:
    """Give a figure its size, title, note and text alternative."""
    given: dict[str, Any] = {"description": description}
    if title or note:
        given["title"] = alt.Title(title, subtitle=note) if note else alt.Title(title)
    if isinstance(chart, alt.LayerChart):
        given |= {"width": WIDTH, "height": HEIGHT}
    return chart.properties(**given)


def count_of(number: int, noun: str) -> str:
    """Write a number with its noun."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def budget_text(budget_bytes: float | None) -> str:
    """Say where the budget is, for a text alternative."""
    return f"; the budget is {format_bytes(budget_bytes)}" if budget_bytes else ""


def either(texts: Iterable[str]) -> str:
    """Join the texts that there are."""
    return "; ".join(text for text in texts if text)
