"""What a table becomes in a figure: axes with units, logarithmic where values lie far apart, and looks."""

import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import Any

import altair as alt
import pandas as pd

from profiles.figures.looks import COLOURS, DASHES, MARKERS, repeated
from profiles.units import BYTE_UNITS

_TICKS = 5
_READABLE = (1e-12, 1e21)
"""What a stored figure can be beyond these nobody measured; an axis that went so far would show nothing else."""
_LABEL = "datum.value < 1 ? format(datum.value, '.4~r') : format(datum.value, ',~r')"
_SECOND_UNITS = {"min": 60.0, "s": 1.0, "ms": 1e-3, "µs": 1e-6, "ns": 1e-9}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """What an axis shows: a column of the table, its title, and the unit that its figures are divided by."""

    column: str
    title: str
    unit: str = ""
    size: float = 1.0
    low: float = 0.0
    high: float = 1.0
    logarithmic: bool = False

    @property
    def expression(self) -> str:
        """The column in the unit of the axis, as an expression of Vega."""
        return f"datum[{self.column!r}] / {self.size!r}"

    @property
    def middle(self) -> float:
        """The figure in the middle of the axis, in the unit of the column."""
        return math.sqrt(self.low * self.high) if self.logarithmic else (self.low + self.high) / 2

    def said(self, column: str | None = None) -> str:
        """Write an expression of the text of a figure with its unit, empty where it is not known."""
        value = f"datum[{column or self.column!r}]"
        text = f"format({value} / {self.size!r}, ',.3~r') + ' {self.unit}'"
        return f"!isValid({value}) ? '' : {text}"

    def scale(self) -> alt.Scale:
        """Return the scale: a fixed domain, so that what is switched off moves nothing."""
        domain = [self.low / self.size, self.high / self.size]
        if self.logarithmic:
            return alt.Scale(type="log", base=2, domain=domain, nice=False)
        return alt.Scale(domain=domain, nice=False, zero=False)

    def axis(self, **options: Any) -> alt.Axis:
        """Return the axis, its title with the unit."""
        title = f"{self.title} ({self.unit})" if self.unit else self.title
        return alt.Axis(title=title, tickCount=_TICKS, labelExpr=_LABEL, grid=True, **options)

    def encode(self, channel: type, **options: Any) -> Any:
        """Return the channel (`alt.X`, `alt.Y`) of the column in its unit, which `place` calculates."""
        return channel(f"{self.column}_shown:Q", scale=self.scale(), axis=self.axis(**options))


def place(chart: alt.Chart, *measures: Measure) -> alt.Chart:
    """Add the columns in their units to a chart."""
    for measure in measures:
        chart = chart.transform_calculate(**{f"{measure.column}_shown": measure.expression})
    return chart


def known(*columns: Iterable[Any]) -> list[float]:
    """List the figures of columns that are known."""
    return [float(value) for column in columns for value in column if not pd.isna(value)]


def bytes_measure(column: str, title: str, values: Iterable[float], near: float | None = None) -> Measure:
    """Measure bytes in the unit that suits most of them; `near` joins the axis unless it lies far off."""
    return _measure(column, title, values, near, {unit: 1024.0**k for k, unit in enumerate(BYTE_UNITS)})


def seconds_measure(column: str, title: str, values: Iterable[float]) -> Measure:
    """Measure seconds in the unit that suits most of them."""
    return _measure(column, title, values, None, _SECOND_UNITS)


def count_measure(column: str, title: str, values: Iterable[float]) -> Measure:
    """Measure counts or factors."""
    return _measure(column, title, values, None, {"": 1.0})


def _measure(column: str, title: str, values: Iterable[float], near: float | None, units: dict[str, float]) -> Measure:
    """Choose unit and ends of an axis: logarithmic where the values span more than a factor of three."""
    least, most = _READABLE
    positive = [value for value in values if least <= value <= most] or [near or 1.0]
    if near and min(positive) / 4 < near < 4 * max(positive):
        positive.append(near)
    low, high = min(positive), max(positive)
    logarithmic = high > 3 * low
    typical = math.sqrt(low * high) if logarithmic else high
    fitting = [(size, unit) for unit, size in units.items() if size <= typical * 1.0005]
    size, unit = max(fitting, default=min((size, unit) for unit, size in units.items()))
    if logarithmic:
        room = (high / low) ** 0.06
        ends = low / room, high * room
    else:
        room = (high - low) * 0.08 or high * 0.1
        ends = low - room, high + room
    return Measure(column=column, title=title, unit=unit, size=size, low=ends[0], high=ends[1], logarithmic=logarithmic)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Distinction:
    """What distinguishes series: a column, what it is called, and its names in order."""

    column: str
    title: str
    names: list[str]

    def channel(self, kind: Any, looks: tuple[Any, ...], **listed: Any) -> Any:
        """Return a channel that gives every name its look, listed in a legend where there are several."""
        scale = alt.Scale(domain=self.names, range=repeated(looks, len(self.names)))
        legend = alt.Legend(title=self.title or None, **listed) if len(self.names) > 1 else None
        return kind(f"{self.column}:N", scale=scale, legend=legend)

    def look(self, record: Mapping[str, Any], looks: tuple[Any, ...]) -> Any:
        """Return the look of the series that a record belongs to."""
        return looks[self.names.index(record[self.column]) % len(looks)]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Looks:
    """The channels that distinguish series: `coloured` by colour, `marked` by marker and, apart from it, by dash."""

    coloured: Distinction
    marked: Distinction
    detail: str

    @property
    def colour(self) -> Any:
        """The channel of colours."""
        return self.coloured.channel(alt.Color, COLOURS)

    def lines(self) -> dict[str, Any]:
        """Return the channels of a line."""
        channels = {"color": self.colour, "detail": alt.Detail(f"{self.detail}:N")}
        if self.marked.column == "setting":
            # Its legend joins that of the markers, which would be drawn with dashed rims.
            channels["strokeDash"] = self.marked.channel(alt.StrokeDash, DASHES, symbolStrokeWidth=0)
        return channels

    def thin_lines(self) -> dict[str, Any]:
        """Return the channels of a line that keeps in the background."""
        return {"color": self.colour, "detail": alt.Detail(f"{self.detail}:N")}

    def points(self) -> dict[str, Any]:
        """Return the channels of points."""
        return {"color": self.colour, "shape": self.marked.channel(alt.Shape, MARKERS)}

    def of(self, record: Mapping[str, Any]) -> tuple[str, str, list[int]]:
        """Return colour, marker and dash of the series that a record belongs to."""
        dash = self.marked.look(record, DASHES) if self.marked.column == "setting" else DASHES[0]
        return self.coloured.look(record, COLOURS), self.marked.look(record, MARKERS), dash


def looks_of(table: pd.DataFrame, *, horizons: bool = True) -> Looks:
    """Give every series of a table its look: profiles where there are some, else cases.

    Cases differ in colour by horizon, and in marker and dash by the rest. Where there is one horizon only, colour goes
    with the rest too, and where nothing else differs the marker goes with the horizon: what differs does so twice.

    Args:
        table: with the columns of `points_table` or `compared_table`.
        horizons: whether horizons are series; False where they lie along an axis.
    """
    if "profile" in table:
        names = Distinction(column="profile", title="", names=_names(table, "profile"))
        return Looks(coloured=names, marked=names, detail="profile")
    by_horizon, by_setting = _names(table, "horizon_text"), _names(table, "setting")
    title = "tolerance" if all(_is_number(text) for text in by_setting) else "setting"
    horizon = Distinction(column="horizon_text", title="horizon", names=by_horizon)
    setting = Distinction(column="setting", title=title, names=by_setting)
    one_horizon, one_setting = len(by_horizon) == 1 or not horizons, len(by_setting) == 1
    return Looks(
        coloured=setting if one_horizon else horizon,
        marked=horizon if one_setting and not one_horizon else setting,
        detail="case" if horizons else "setting",
    )


def _names(table: pd.DataFrame, column: str) -> list[str]:
    """List what a column distinguishes, in its order."""
    return [str(name) for name in pd.Categorical(table[column]).categories]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
