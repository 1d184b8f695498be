"""Devices side by side on a report's page, and the lines of their memory in its figure."""

import dataclasses

import pytest

from profiles import Case, FrontAxis, PlanRow, Profile, ReportExtras, front_figure, points_table, render_page, svg_text
from profiles.pages.hardware import hardware_card
from tests.profiles.figures.svg import Drawing
from tests.profiles.makers import a_sweep

GIB = 2**30
FITS = PlanRow(
    device="h100-80gb", evidence="compiled for it", usable_bytes=54 * 10**9, case=Case(10, 1e-3), steps=100,
    steps_evidence="measured", checkpoints=1234, peak_bytes=3 * GIB, recompute_factor=2.345, bytes_evidence="compiled",
    needed_bytes=2 * GIB, needed_checkpoints=9, saturated_bytes=3 * GIB, smallest_bytes=GIB,
)  # fmt: skip
NOT = dataclasses.replace(
    FITS, device="small", evidence="carried over", checkpoints=None, peak_bytes=None, recompute_factor=None
)


def test_a_device_shows_what_fits_and_how_that_is_known() -> None:
    """Count, peak, factor, evidence; nothing is said of seconds that nobody measured or bounded."""
    card = hardware_card([FITS, NOT])
    for text in ("h100-80gb", "1,234", "3 GiB", "2.35 x", "compiled for it", "carried over", "50.3 GiB"):
        assert text in card
    assert "nothing fits: the smallest needs 1 GiB" in card
    assert "at least" not in card.lower()
    assert "a call" not in card
    assert hardware_card([]) == ""


def test_a_bound_is_called_one_in_every_row_and_stands_in_a_column_of_its_own() -> None:
    """Seconds that were measured are in another column."""
    bounded = dataclasses.replace(FITS, least_seconds=0.5, least_cost=1.25, currency="EUR")
    measured = dataclasses.replace(FITS, device="own", evidence="measured on it", run_seconds=2.0)
    card = hardware_card([bounded, measured, NOT])
    heads = card.split("</thead>")[0]
    assert heads.count("<th") - heads.count("<thead") == 11
    assert "a call, at least" in heads
    assert "≥ 500 ms" in card
    assert "≥ 1.25 EUR" in card
    assert ">2 s<" in card
    assert "a bound" in card


def test_texts_of_devices_are_shown_and_nothing_else() -> None:
    """A name of the user's own catalogue is text."""
    card = hardware_card([dataclasses.replace(FITS, device="<script>alert(1)</script>")])
    assert "<script>" not in card


@pytest.fixture(scope="module")
def profile() -> Profile:
    """A profile of six cases."""
    return Profile(name="spirals:make", measurements=tuple(a_sweep()))


def test_the_page_has_the_devices_and_draws_their_memory(profile: Profile) -> None:
    """A section of the page; without devices there is none."""
    assert 'id="hardware"' in render_page(profile, extras=ReportExtras(hardware=(FITS, NOT)))
    assert 'id="hardware"' not in render_page(profile)


def test_a_line_stands_at_what_a_device_offers(profile: Profile) -> None:
    """Where it lies near the points; what is far larger would press them together, and is left out."""
    points = points_table(profile)
    largest = float(points["peak_bytes"].max())
    figure = front_figure(points, FrontAxis.RECOMPUTE, devices={"near": 2 * largest, "far": 1000 * largest})
    drawing = Drawing(svg_text(figure))
    assert drawing.line_at("devices", "X") == pytest.approx(2 * largest, rel=5e-3)
    assert "near" in drawing.texts
    assert "far" not in drawing.texts
