"""Figures for people: bytes in powers of 1024, seconds with their prefix, counts with their thousands apart."""

import math
import re

_UNWRITABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
BYTE_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def format_bytes(count: float) -> str:
    """Write bytes with three significant digits and a unit of 1024: `640 B`, `1.5 KiB`, `24 MiB`, `3.25 GiB`."""
    value, unit = float(count), 0
    while abs(value) >= 1023.5 and unit < len(BYTE_UNITS) - 1:
        value, unit = value / 1024, unit + 1
    return f"{_three_digits(value)} {BYTE_UNITS[unit]}"


def format_seconds(seconds: float) -> str:
    """Write a duration with three significant digits: `12.3 µs`, `240 ms`, `1.5 s`; above ten minutes in minutes."""
    if seconds >= 600:
        return f"{_three_digits(seconds / 60)} min"
    for factor, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if seconds >= 0.9995 * factor:
            return f"{_three_digits(seconds / factor)} {unit}"
    return f"{_three_digits(seconds / 1e-9)} ns" if seconds else "0 s"


def writable(text: str) -> str:
    """Replace the characters that XML has no way to write, control characters above all: a figure is drawn as XML."""
    return _UNWRITABLE.sub("\ufffd", text)


def _three_digits(value: float) -> str:
    """Write three significant digits without an exponent and without trailing zeros."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    decimals = max(0, 2 - math.floor(math.log10(abs(value)) + 1e-9))
    text = f"{value:.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
