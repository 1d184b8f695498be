"""Reads a figure's SVG as a person does: marks with their places, and axes by the texts at their ticks."""

import math
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable

UNITS = {
    "B": 1.0, "KiB": 2.0**10, "MiB": 2.0**20, "GiB": 2.0**30, "s": 1.0, "ms": 1e-3, "µs": 1e-6, "ns": 1e-9, "min": 60.0,
}  # fmt: skip
NUMBER = r"-?\d+(?:\.\d+)?(?:e-?\d+)?"


class Drawing:
    """One panel: what is drawn in it, and what its axes make of places."""

    def __init__(self, text: str) -> None:
        """Parse the text of an SVG file."""
        self.root = ElementTree.fromstring(text)
        self.texts = [element.text or "" for element in self.root.iter() if _tag(element) == "text"]
        self.titles: dict[str, str] = {}
        self.ticks: dict[str, list[str]] = {}
        self._scales: dict[str, Callable[[float], float]] = {"X": float, "Y": float}
        for axis in self.root.iter():
            label = axis.get("aria-label", "")
            if "-axis titled" in label:
                self._read_axis(label[0], axis, logarithmic="log scale" in label)

    def _read_axis(self, key: str, axis: ElementTree.Element, *, logarithmic: bool) -> None:
        """Learn a scale from two ticks of an axis, and its unit from its title."""
        labels = [element for element in axis.iter() if "role-axis-label" in element.get("class", "")]
        (title,) = [element for element in axis.iter() if "role-axis-title" in element.get("class", "")]
        self.titles[key] = "".join(title.itertext())
        unit = re.search(r"\((\S+)\)$", self.titles[key])
        size = UNITS.get(unit[1], 1.0) if unit else 1.0
        # A text beside a vertical axis is set lower than its tick by three tenths of its size, to be in its middle.
        lower = round(0.3 * float(labels[0][0].get("font-size", "0").removesuffix("px"))) if key == "Y" else 0
        written = [text for label in labels for text in label if text.text]
        places = [_moved(text)["XY".index(key)] - lower for text in written]
        self.ticks[key] = [text.text or "" for text in written]
        try:
            values = [float(text.replace(",", "").replace("\N{MINUS SIGN}", "-")) for text in self.ticks[key]]
        except ValueError:  # names stand along the axis: places are left as pixels
            return
        put, back = (math.log, math.exp) if logarithmic else (float, float)
        (p0, v0), (p1, v1) = (places[0], put(values[0])), (places[-1], put(values[-1]))
        self._scales[key] = lambda pixel: back(v0 + (pixel - p0) / (p1 - p0) * (v1 - v0)) * size

    def marks(self, name: str) -> list[ElementTree.Element]:
        """List the marks of a layer."""
        groups = [element for element in self.root.iter() if f"{name}_marks" in element.get("class", "").split()]
        return [mark for group in groups for mark in group]

    def points(self, name: str) -> list[tuple[float, float]]:
        """List what the symbols of a layer stand for, in the units of the axes' columns."""
        places = [_moved(mark) for mark in self.marks(name)]
        return [(self._scales["X"](x), self._scales["Y"](y)) for x, y in places]

    def corners(self, name: str) -> list[list[tuple[float, float]]]:
        """List the corners of each line or area of a layer."""
        found = []
        for mark in self.marks(name):
            numbers = [float(number) for number in re.findall(NUMBER, _absolute(mark.get("d", "")))]
            pairs = list(zip(numbers[::2], numbers[1::2], strict=True))
            found.append([(self._scales["X"](x), self._scales["Y"](y)) for x, y in pairs])
        return found

    def line_at(self, name: str, key: str) -> float:
        """Say where the one rule of a layer stands on an axis."""
        (mark,) = self.marks(name)
        return self._scales[key](_moved(mark)["XY".index(key)])


def _tag(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2]


def _moved(element: ElementTree.Element) -> tuple[float, float]:
    """Read where an element is moved to."""
    found = re.search(rf"translate\(({NUMBER}),({NUMBER})\)", element.get("transform", ""))
    return (float(found[1]), float(found[2])) if found else (0.0, 0.0)


def _absolute(path: str) -> str:
    """Write horizontal and vertical lines of a path as lines to a corner."""
    x = y = 0.0
    corners = []
    for command, text in re.findall(r"([MLHVhvZ])([^MLHVhvZ]*)", path):
        numbers = [float(number) for number in re.findall(NUMBER, text)]
        if command in "ML":
            for x, y in zip(numbers[::2], numbers[1::2], strict=True):
                corners.append((x, y))
        elif command in "Hh":
            x = numbers[0] + (x if command == "h" else 0)
            corners.append((x, y))
        elif command in "Vv":
            y = numbers[0] + (y if command == "v" else 0)
            corners.append((x, y))
    return " ".join(f"{x!r},{y!r}" for x, y in corners)
