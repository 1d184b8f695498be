"""Figures as files: the same each time, safe whatever a name says, and made by this process alone."""

import struct
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profiles import (
    PredictedBytes,
    Profile,
    ProfilesError,
    RecordError,
    bytes_figure,
    front_figure,
    fronts_figure,
    lost_table,
    png_bytes,
    points_table,
    save_figure,
    specification,
    steps_figure,
    steps_table,
    svg_text,
)  # fmt: skip
from tests.conftest import REPOSITORY
from tests.profiles.makers import TEXT, a_measurement, a_sweep

NASTY = '</script><script>alert(1)</script><img src=x onerror="alert(2)"> \u2028 &amp; \'"\x01'


@pytest.fixture(scope="module")
def profile() -> Profile:
    """A profile of six cases."""
    return Profile(name="spirals:make", measurements=tuple(a_sweep()))


def test_figures_are_saved_alike_each_time(profile: Profile, tmp_path: Path):
    """PNG and SVG are written, and the same measurements give the same bytes: no dates, no random names."""
    one = save_figure(front_figure(points_table(profile)), tmp_path / "new" / "front")
    two = save_figure(front_figure(points_table(profile)), tmp_path / "front")
    assert [path.name for path in one] == ["front.png", "front.svg"]
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in two]
    (tmp_path / "file").touch()
    with pytest.raises(ProfilesError, match="cannot write"):
        save_figure(front_figure(points_table(profile)), tmp_path / "file" / "front")


def test_a_png_is_whole_and_twice_as_fine_as_the_svg(profile: Profile):
    """Every chunk has its checksum, the pixels are as many as the header says, two for each of the SVG's."""
    figure = front_figure(points_table(profile))
    png, place, pixels, chunks = png_bytes(figure), 8, b"", []
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    while place < len(png):
        (length,) = struct.unpack(">I", png[place : place + 4])
        body = png[place + 4 : place + 8 + length]
        assert struct.unpack(">I", png[place + 8 + length : place + 12 + length]) == (zlib.crc32(body),)
        chunks.append(body[:4])
        pixels += body[4:] if body[:4] == b"IDAT" else b""
        place += 12 + length
    assert (chunks[0], chunks[-1]) == (b"IHDR", b"IEND")
    width, height, depth, colour = struct.unpack(">IIBB", png[16:26])
    assert (depth, colour) == (8, 6)
    assert len(zlib.decompress(pixels)) == height * (1 + 4 * width)
    svg = ElementTree.fromstring(svg_text(figure))
    assert (width, height) == (2 * int(svg.get("width", 0)), 2 * int(svg.get("height", 0)))


def test_names_are_text_of_the_svg_and_nothing_else():
    """Markup, quotes and control characters in a name stand in the figure to the letter, and make no element."""

    def tags(name: str) -> tuple[list[str], list[str]]:
        rows = [a_measurement(name=name, checkpoints=c, set_values={"solver": name}) for c in (2, 4)]
        other = a_measurement(name=name, checkpoints=2, set_values={"solver": "other"})
        profile = Profile(name=name, measurements=(*rows, other))
        root = ElementTree.fromstring(svg_text(fronts_figure(points_table(profile), title=name)))
        return [element.tag for element in root.iter()], [element.text or "" for element in root.iter()]

    plain, nasty = tags("x"), tags(NASTY)
    assert plain[0] == nasty[0]
    assert NASTY.replace("\x01", "\ufffd") in nasty[1]
    assert any("solver=</script>" in text for text in nasty[1])


@settings(max_examples=15)
@given(names=st.lists(TEXT, min_size=2, max_size=3, unique=True))
def test_any_name_makes_a_figure_that_is_xml(names: list[str]):
    """Whatever a store holds as a name can be drawn."""
    rows = [a_measurement(name=name, set_values={"solver": name}, status="ok") for name in names]
    lost = a_measurement(set_values={"solver": names[0]}, checkpoints=3, status="failed", peak_bytes=None)
    profile = Profile(name=names[0], measurements=(*rows, lost))
    figure = bytes_figure(points_table(profile), lost=lost_table(profile), title=names[0])
    ElementTree.fromstring(svg_text(figure))


def test_figures_that_nobody_can_have_measured_are_no_error():
    """A store may hold any finite number; an axis leaves out what lies beyond all reason, and shows the rest."""
    rows = (
        a_measurement(run_seconds=(1e-300,), recompute_factor=-5e16, horizon=1e-300),
        a_measurement(run_seconds=(2e160,), recompute_factor=0.0, horizon=3e159, checkpoints=3, peak_bytes=2**63 - 1),
        a_measurement(horizon=7, checkpoints=4),
    )
    profile = Profile(name="x", measurements=rows)
    points = points_table(profile)
    for figure in (fronts_figure(points), bytes_figure(points), steps_figure(steps_table(profile))):
        ElementTree.fromstring(svg_text(figure))


def test_a_table_stands_in_a_specification_once(profile: Profile):
    """Layers name the table; its rows are below `datasets`, as they are in the table."""
    points = points_table(profile)
    written = specification(front_figure(points, budget_bytes=2**25))
    assert "values" not in str(written["layer"])
    rows = written["datasets"]["points"]
    assert [row["peak_bytes"] for row in rows] == list(points["peak_bytes"])
    assert [row["run_seconds"] for row in rows] == list(points["run_seconds"])
    assert written["description"].startswith("peak memory of one call against seconds of one call, median: 34 points")
    assert written["description"].endswith("the budget is 32 MiB")


def test_every_figure_says_in_words_what_it_shows(profile: Profile):
    """A description stands in each specification and in the SVG, for readers that do not see it."""
    points = points_table(profile)
    for figure in (front_figure(points), bytes_figure(points), steps_figure(steps_table(profile))):
        said = specification(figure)["description"]
        assert any(character.isdigit() for character in said)
        assert ElementTree.fromstring(svg_text(figure)).get("aria-label") == said


def test_columns_of_different_lengths_are_refused():
    """A law or an optimum whose columns do not fit each other is named with the lengths."""
    with pytest.raises(RecordError, match="low_bytes 0"):
        PredictedBytes(checkpoints=(1,), likely_bytes=(1.0,), low_bytes=(), high_bytes=(1.0,))


def test_drawing_loads_no_jax_and_nothing_of_the_roof():
    """Figures need the data side alone."""
    code = (
        "import sys; from profiles import Profile, front_figure, points_table, svg_text;"
        "from tests.profiles.makers import a_sweep;"
        "svg_text(front_figure(points_table(Profile(name='x', measurements=tuple(a_sweep())))));"
        "print([name for name in ('matplotlib', 'jax', 'adjoint', 'autotune') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
