"""Bytes and seconds as people read them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiles import format_bytes, format_seconds


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (640, "640 B"),
        (1023, "1023 B"),
        (1024, "1 KiB"),
        (1536, "1.5 KiB"),
        (1023.9 * 1024, "1 MiB"),
        (24 * 2**20, "24 MiB"),
        (100 * 2**20, "100 MiB"),
        (3.25 * 2**30, "3.25 GiB"),
        (141 * 10**9, "131 GiB"),
        (5 * 2**60, "5120 PiB"),
    ],
)
def test_bytes_are_written_in_powers_of_1024(count: float, text: str):
    """Three digits and the unit of 1024 that keeps the figure below 1024."""
    assert format_bytes(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (2e-9, "2 ns"),
        (12.34e-6, "12.3 µs"),
        (0.24, "240 ms"),
        (1.5, "1.5 s"),
        (100, "100 s"),
        (900, "15 min"),
    ],
)
def test_seconds_are_written_with_their_prefix(seconds: float, text: str):
    """Three digits and the unit that keeps the figure readable."""
    assert format_seconds(seconds) == text


UNITS = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40, "PiB": 2**50}


@given(st.integers(1, 2**55))
def test_written_bytes_are_within_half_a_percent(count: int):
    """Read back, the text is the figure to three digits."""
    number, unit = format_bytes(count).split()
    assert float(number) * UNITS[unit] == pytest.approx(count, rel=0.0051)
