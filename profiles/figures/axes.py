"""Colours, markers and axes that all figures share: colour-blind-safe, bytes in powers of 1024, units on every axis."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from profiles.figures.looks import Look, Series
from profiles.units import format_bytes, format_seconds

BUDGET_COLOUR = "#B00020"
INK = "#222222"
FAINT = "#8A8A8A"

MOST_NAMED = 9
"""How many cases a legend names one by one."""

WIDE = (9.6, 4.2)
NARROW = (7.6, 4.2)


class BytesLocator(ticker.Locator):
    """Ticks at powers of two on a logarithmic axis, at multiples of one power of two on a linear one."""

    def __init__(self, *, logarithmic: bool, most: int = 8) -> None:
        """Keep the number of ticks at `most` about."""
        self._logarithmic = logarithmic
        self._most = most

    def __call__(self) -> Any:
        """List the ticks of the axis as it is now."""
        assert self.axis is not None
        low, high = self.axis.get_view_interval()
        return self.tick_values(low, high)

    def tick_values(self, vmin: float, vmax: float) -> Any:
        """List ticks between two values."""
        low, high = max(min(vmin, vmax), 1e-9), max(vmin, vmax)
        if self._logarithmic:
            first, last = math.ceil(math.log2(low) - 1e-9), math.floor(math.log2(high) + 1e-9)
            stride = max(1, math.ceil((last - first + 1) / self._most))
            return np.array([2.0**k for k in range(first, last + 1) if (k - first) % stride == 0])
        step = 2.0 ** math.ceil(math.log2((high - low) / self._most)) if high > low else 1.0
        return np.arange(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1) * step


def bytes_axis(axis: Any, values: Sequence[float]) -> None:
    """Make an axis one of bytes: logarithmic where the values span more than a factor of three."""
    logarithmic = _spans(values)
    if logarithmic:
        _set_scale(axis, "log", base=2)
    axis.set_major_locator(BytesLocator(logarithmic=logarithmic))
    axis.set_major_formatter(ticker.FuncFormatter(lambda value, _position: format_bytes(value)))
    axis.set_minor_locator(ticker.NullLocator())


def seconds_axis(axis: Any, values: Sequence[float]) -> None:
    """Make an axis one of seconds: logarithmic where the values span more than a factor of three."""
    _number_axis(axis, values, lambda value, _position: format_seconds(value) if value >= 0 else "")


def count_axis(axis: Any, values: Sequence[float]) -> None:
    """Make an axis one of counts or factors: logarithmic where the values span more than a factor of three."""
    _number_axis(axis, values, lambda value, _position: f"{value:,.6g}")


def _number_axis(axis: Any, values: Sequence[float], write: Any) -> None:
    """Choose the scale of an axis and write its ticks at 1, 2 and 5."""
    if _spans(values):
        known = [value for value in values if value > 0]
        _set_scale(axis, "log")
        decades = math.log10(max(known) / min(known))
        axis.set_major_locator(ticker.LogLocator(subs=(1.0, 2.0, 5.0) if decades < 2.5 else (1.0,)))
        axis.set_minor_locator(ticker.NullLocator())
    else:
        axis.set_major_locator(ticker.MaxNLocator(6))
    axis.set_major_formatter(ticker.FuncFormatter(write))


def _spans(values: Sequence[float]) -> bool:
    """Return whether the values span more than a factor of three, which a linear axis shows badly."""
    known = [value for value in values if value > 0]
    return bool(known) and max(known) > 3 * min(known)


def _set_scale(axis: Any, scale: str, **options: Any) -> None:
    """Set the scale of an x or a y axis."""
    getattr(axis.axes, f"set_{axis.axis_name}scale")(scale, **options)


def new_figure(size: tuple[float, float], panels: int = 1) -> tuple[Figure, list[Axes]]:
    """Make a figure of its own (nothing global is touched) with panels side by side."""
    figure = Figure(figsize=size, dpi=150, layout="constrained")
    made = figure.subplots(1, panels, squeeze=False)
    axes = list(made[0])
    for panel in axes:
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(True, color="#E3E3E3", linewidth=0.6)
        panel.set_axisbelow(True)
        panel.tick_params(labelsize=8)
        panel.title.set_fontsize(10)
    return figure, axes


def draw(
    panel: Axes,
    pairs: Sequence[tuple[float, float]],
    look: Look,
    *,
    label: str = "",
    line: str = "",
    hollow: bool = False,
    size: float = 5.0,
) -> None:
    """Draw (x, y) pairs in a look.

    Args:
        panel: where.
        pairs: the points, by rising x.
        look: the look of the series.
        label: its name in the legend, none where empty.
        line: `straight` or `stairs` (each y holds until the next x) between the points, nothing where empty.
        hollow: draw markers hollow and faint.
        size: the size of the markers, in points.
    """
    panel.plot(
        [x for x, _ in pairs],
        [y for _, y in pairs],
        color=look.colour,
        marker=look.marker,
        linestyle=look.dash if line else "none",
        drawstyle="steps-post" if line == "stairs" else "default",
        linewidth=1.4,
        markersize=size,
        markerfacecolor="none" if hollow else look.colour,
        alpha=0.75 if hollow else 1.0,
        label=label or "_nolegend_",
    )


def legend(figure: Figure, panel: Axes, series: Series | None = None) -> None:
    """Put one legend to the right of all panels, where there is more than one thing to distinguish.

    Args:
        figure: where.
        panel: the panel whose labels are listed.
        series: the cases; where they are many, horizons and the rest are listed apart instead of every case.
    """
    handles, labels = panel.get_legend_handles_labels()
    listed: dict[str, Any] = dict(zip(labels, handles, strict=True))
    if series is not None and len(series.shown) > MOST_NAMED:
        names = {str(case) for case in series.shown}
        parts = {name: _sample(look) for name, look in series.parts()}
        listed = parts | {label: handle for label, handle in listed.items() if label not in names}
    if len(listed) > 1:
        figure.legend(listed.values(), listed.keys(), loc="outside right upper", fontsize=8, frameon=False)


def _sample(look: Look) -> Line2D:
    """Draw a look as a legend shows it."""
    line = Line2D([], [], color=look.colour, marker=look.marker, linewidth=1.4, markersize=5)
    line.set(linestyle=look.dash)
    return line
