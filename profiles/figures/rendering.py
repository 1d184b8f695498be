"""Figures as files, PNG and SVG, without a browser and without a network; and as specifications for the page."""

import json
import re
import struct
import zlib
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

import altair as alt
import vl_convert

from profiles.errors import ProfilesError
from profiles.figures.looks import theme
from profiles.units import writable

VEGA_LITE = alt.SCHEMA_VERSION.removeprefix("v").rpartition(".")[0]
"""The version of Vega-Lite that Altair writes, as the converter names it."""
_CLIP = re.compile(r"(?<=url\(#)clip\d+(?=\))|(?<=<clipPath id=\")clip\d+(?=\")")
SCALE = 2.0
"""Pixels of a PNG for one of the figure's."""


def specification(figure: Any) -> dict[str, Any]:
    """Return a figure's Vega-Lite specification, each table once below `datasets`, in the look of all figures.

    What the figure configures itself stays.
    """
    written = _writable(figure.to_dict())
    datasets = written.setdefault("datasets", {})
    _lift(written, datasets)
    own, ours = written.get("config", {}), theme()
    return written | {"config": ours | {name: _merged(ours.get(name), value) for name, value in own.items()}}


def _lift(part: Any, datasets: dict[str, Any]) -> None:
    """Move the rows of every named table out of a specification."""
    for value in part.values() if isinstance(part, dict) else part:
        if isinstance(value, dict) and "values" in value and "name" in value:
            datasets[value["name"]] = value.pop("values")
        elif isinstance(value, dict | list) and value is not datasets:
            _lift(value, datasets)


def svg_text(figure: Any) -> str:
    """Draw a figure as the text of an SVG file, with its description for those who do not see it."""
    written = specification(figure)
    drawn = vl_convert.vegalite_to_svg(json.dumps(written), vl_version=VEGA_LITE, allowed_base_urls=[])
    # The converter numbers its clips through the whole process; numbered anew, equal figures are equal.
    names: dict[str, str] = {}
    drawn = _CLIP.sub(lambda found: names.setdefault(found[0], f"clip{len(names)}"), drawn)
    return drawn.replace("<svg ", f'<svg role="img" aria-label={quoteattr(written.get("description", ""))} ', 1)


def png_bytes(figure: Any) -> bytes:
    """Draw a figure as the bytes of a PNG file."""
    written = json.dumps(specification(figure))
    return _packed(vl_convert.vegalite_to_png(written, vl_version=VEGA_LITE, scale=SCALE, allowed_base_urls=[]))


def save_figure(figure: Any, stem: str | Path) -> list[Path]:
    """Write a figure as `STEM.png` and `STEM.svg`; the same figure is the same file each time.

    Raises:
        ProfilesError: the files cannot be written.
    """
    stem = Path(stem)
    png, svg = (stem.with_name(f"{stem.name}.{ending}") for ending in ("png", "svg"))
    try:
        stem.parent.mkdir(parents=True, exist_ok=True)
        png.write_bytes(png_bytes(figure))
        svg.write_text(svg_text(figure), encoding="utf-8")
    except OSError as error:
        raise ProfilesError(f"cannot write {stem}.png: {error.strerror or error}") from error
    return [png, svg]


def _packed(png: bytes) -> bytes:
    """Compress the pixels of a PNG well: the converter favours speed, and is three times as large."""
    kept, pixels, place = [png[:8]], b"", 8
    while place < len(png):
        (length,) = struct.unpack(">I", png[place : place + 4])
        chunk = png[place : place + length + 12]
        if chunk[4:8] == b"IDAT":
            pixels += chunk[8:-4]
        else:
            kept.append(chunk)
        place += length + 12
    body = b"IDAT" + zlib.compress(zlib.decompress(pixels), 9)
    kept.insert(-1, struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body)))
    return b"".join(kept)


def _writable(part: Any) -> Any:
    """Write every text so that SVG can hold it; the converter ends the process at one that cannot be."""
    if isinstance(part, dict):
        return {name: _writable(value) for name, value in part.items()}
    if isinstance(part, list):
        return [_writable(value) for value in part]
    return writable(part) if isinstance(part, str) else part


def _merged(ours: Any, own: Any) -> Any:
    """Lay what a figure configures itself over what all figures have."""
    return ours | own if isinstance(ours, dict) and isinstance(own, dict) else own
