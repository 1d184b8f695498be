"""Figures of fronts: what stands in the SVG is what was measured, at its place, and told apart."""

import dataclasses
import itertools
from collections.abc import Iterable

import altair as alt
import pytest

from profiles import (
    AdjointName,
    Case,
    FrontAxis,
    Measurement,
    Profile,
    ProfilesError,
    Recommended,
    ReportExtras,
    Tier,
    compare_figure,
    compared_table,
    front_figure,
    fronts_figure,
    points_table,
    svg_text,
)  # fmt: skip
from profiles.figures.looks import COLOURS, INK
from tests.profiles.figures.svg import Drawing
from tests.profiles.makers import a_measurement, a_sweep

MIB = 2**20


def cost_of(row: Measurement, objective: FrontAxis) -> float | None:
    """The figure of a row that a front is drawn against."""
    return row.run_median_seconds if objective is FrontAxis.SECONDS else row.recompute_factor


def pairs_of(rows: Iterable[Measurement], objective: FrontAxis) -> list[tuple[float, float]]:
    """Bytes and cost of the rows that ended well; every choice of these tests has one row."""
    return [(row.peak_bytes, cost) for row in rows if row.peak_bytes and (cost := cost_of(row, objective)) is not None]


def on_front(pairs: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Those that no other is at most as large as in both, and smaller in one: every pair is compared."""

    def beaten(one: tuple[float, float]) -> bool:
        return any(o[0] <= one[0] and o[1] <= one[1] and o != one for o in pairs)

    return [one for one in pairs if not beaten(one)]


def near(found: Iterable[tuple[float, float]], expected: Iterable[tuple[float, float]]) -> bool:
    """Compare points that were read from a drawing, in any order."""
    one, other = sorted(found), sorted(expected)
    return len(one) == len(other) and all(a == pytest.approx(b, rel=2e-3) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("objective", FrontAxis)
def test_every_point_is_drawn_where_it_was_measured_filled_on_its_front_and_hollow_off_it(profile, objective):
    """Marks are counted and placed: those on the front of their case and those that it beats are all there are."""
    drawing = Drawing(svg_text(front_figure(points_table(profile), objective)))
    pairs = [pairs_of(profile.rows(case), objective) for case in profile.cases]
    fronts = [on_front(some) for some in pairs]
    front = [pair for some in fronts for pair in some]
    beaten = [pair for some, kept in zip(pairs, fronts, strict=True) for pair in some if pair not in kept]
    assert near(drawing.points(f"front_{objective}"), front)
    assert near(drawing.points(f"beaten_{objective}"), beaten)
    assert all(mark.get("fill") in COLOURS for mark in drawing.marks(f"front_{objective}"))
    assert all(mark.get("fill") in (None, "none", "transparent") for mark in drawing.marks(f"beaten_{objective}"))


@pytest.mark.parametrize("objective", FrontAxis)
def test_stairs_pass_through_the_points_of_each_front(profile, objective):
    """One line a case, by rising bytes; a cost holds until more bytes buy a smaller one."""
    drawing = Drawing(svg_text(front_figure(points_table(profile), objective)))
    lines = drawing.corners(f"stairs_{objective}")
    assert len(lines) == len(profile.cases)
    expected = []
    for case in profile.cases:
        front = sorted(on_front(pairs_of(profile.rows(case), objective)))
        steps = [[(left[0], left[1]), (right[0], left[1])] for left, right in itertools.pairwise(front)]
        expected.append([*itertools.chain(*steps), front[-1]])
    for line, corners in zip(sorted(lines), sorted(expected), strict=True):
        assert near(line, corners)


def test_axes_carry_units_and_ticks_at_powers_of_two(profile):
    """Bytes are in MiB at 8, 16, 32, and the budget stands at its bytes, with its text."""
    drawing = Drawing(svg_text(front_figure(points_table(profile), budget_bytes=40 * MIB)))
    assert drawing.titles == {"X": "peak memory of one call (MiB)", "Y": "seconds of one call, median (ms)"}
    numbers = [int(text) for text in drawing.ticks["X"]]
    assert len(numbers) >= 4
    assert all(number & (number - 1) == 0 for number in numbers)
    assert drawing.line_at("budget", "X") == pytest.approx(40 * MIB, rel=2e-3)
    assert "budget 40 MiB" in drawing.texts


def test_a_budget_far_off_stands_at_the_edge(profile):
    """A line beyond what was measured does not squeeze it together: it stands at the end of the axis."""
    drawing = Drawing(svg_text(front_figure(points_table(profile), budget_bytes=2**50)))
    largest = max(row.peak_bytes or 0 for row in profile.measurements)
    assert largest < drawing.line_at("budget", "X") < 2 * largest


def test_cases_differ_in_colour_by_horizon_and_in_marker_by_tolerance(profile):
    """Six cases have three colours and two markers; the legend names horizons and tolerances."""
    drawing = Drawing(svg_text(front_figure(points_table(profile))))
    marks = [*drawing.marks("front_seconds"), *drawing.marks("beaten_seconds")]
    assert {mark.get("fill") for mark in drawing.marks("front_seconds")} == set(COLOURS[:3])
    assert len({mark.get("d") for mark in drawing.marks("front_seconds")}) == 2
    assert len(marks) == sum(bool(row.peak_bytes) for row in profile.measurements)
    assert {"horizon", "100", "200", "400", "tolerance", "1e-3", "1e-6"} <= set(drawing.texts)


def test_one_case_has_no_legend():
    """With nothing to tell apart no legend takes room."""
    drawing = Drawing(svg_text(front_figure(points_table(Profile(name="x", measurements=(a_measurement(),))))))
    assert not [element for element in drawing.root.iter() if "role-legend" in element.get("class", "")]


def test_a_dotted_line_shows_the_front_without_tiers():
    """Where a point held states in a tier and changed the front, the front of the device alone is drawn too."""
    rows = [a_measurement(checkpoints=c, peak_bytes=c * MIB, run_seconds=(1 / c,)) for c in (2, 4, 8)]
    better = a_measurement(checkpoints=3, peak_bytes=3 * MIB, run_seconds=(0.01,), tier=Tier(name="host", windows=9))

    def dotted(*rows: Measurement) -> list[list[tuple[float, float]]]:
        points = points_table(Profile(name="x", measurements=rows))
        return Drawing(svg_text(front_figure(points))).corners("alone_seconds")

    assert dotted(*rows) == []
    (line,) = dotted(*rows, better)
    expected = [(2 * MIB, 1 / 2), (4 * MIB, 1 / 2), (4 * MIB, 1 / 4), (8 * MIB, 1 / 4), (8 * MIB, 1 / 8)]
    assert near(line, expected)


def test_a_recommendation_is_ringed_at_the_point_that_was_measured():
    """The diamond stands around a point of the drawn front, even where the recommendation says other figures of it."""
    rows = [a_measurement(checkpoints=c, peak_bytes=c * MIB, run_seconds=(1 / c,)) for c in (2, 4, 8)]
    profile = Profile(name="x", measurements=tuple(rows))
    said = Recommended(case=profile.cases[0], checkpoints=4, peak_bytes=4 * MIB - 300, run_seconds=0.31)
    drawing = Drawing(svg_text(front_figure(points_table(profile, ReportExtras(recommended=(said,))), title="x")))
    assert near(drawing.points("recommended_seconds"), [(4 * MIB, 1 / 4)])
    assert set(drawing.points("recommended_seconds")) <= set(drawing.points("front_seconds"))
    assert drawing.points("verified_seconds") == []
    assert "diamond: recommended" in drawing.texts


def test_the_final_run_is_on_the_front_with_its_mark():
    """A row that was run under the user's own settings is a point like others; circled, or with the diamond."""
    rows = [a_measurement(checkpoints=c, peak_bytes=c * MIB, run_seconds=(1 / c,)) for c in (2, 8)]
    finals = [
        a_measurement(checkpoints=c, peak_bytes=c * MIB, run_seconds=(1 / c,), study="spirals/final", allocator="own")
        for c in (4, 6)
    ]
    profile = Profile(name="x", measurements=(*rows, *finals))
    chosen = Recommended(case=profile.cases[0], checkpoints=6, peak_bytes=6 * MIB, run_seconds=1 / 6)
    extras = ReportExtras(recommended=(chosen,), verified_studies=frozenset({"spirals/final"}))
    drawing = Drawing(svg_text(front_figure(points_table(profile, extras), title="x")))
    assert near(drawing.points("front_seconds"), [(c * MIB, 1 / c) for c in (2, 4, 6, 8)])
    assert near(drawing.points("verified_seconds"), [(4 * MIB, 1 / 4)])
    assert near(drawing.points("recommended_seconds"), [(6 * MIB, 1 / 6)])
    (circle,), (diamond,) = drawing.marks("verified_seconds"), drawing.marks("recommended_seconds")
    assert circle.get("stroke") == diamond.get("stroke") == INK
    assert circle.get("d") != diamond.get("d")


def test_a_recommendation_that_was_not_measured_is_a_ring_without_a_point(profile):
    """An interpolated choice stands where its forecast says, in the panels that know its cost, and on no front."""
    choice = Recommended(
        case=profile.cases[0], checkpoints=5, peak_bytes=2**24, run_seconds=0.5, evidence="interpolated"
    )
    points = points_table(profile, ReportExtras(recommended=(choice,)))
    plain = Drawing(svg_text(front_figure(points_table(profile))))
    drawing = Drawing(svg_text(front_figure(points)))
    assert near(drawing.points("recommended_seconds"), [(2**24, 0.5)])
    for layer in ("front_seconds", "beaten_seconds"):
        assert len(drawing.points(layer)) == len(plain.points(layer))
    other = Drawing(svg_text(front_figure(points, FrontAxis.RECOMPUTE)))
    assert other.points("recommended_recompute_factor") == []


def test_both_fronts_stand_side_by_side(profile):
    """The figure of a report holds both panels, each with all of its points."""
    text = svg_text(fronts_figure(points_table(profile), budget_bytes=40 * MIB, title="spirals:make", note="a note"))
    drawing = Drawing(text)
    for number, objective in enumerate(FrontAxis):
        expected = sum(len(on_front(pairs_of(profile.rows(case), objective))) for case in profile.cases)
        assert len(drawing.marks(f"front_{objective}_{number}")) == expected
    assert {"spirals:make", "a note"} <= set(drawing.texts)


def test_two_profiles_are_compared_at_a_common_case():
    """The fronts of both are drawn under names that tell them apart; without a common case an error says so."""
    ours = Profile(name="spirals:make", measurements=tuple(a_sweep()))
    theirs = Profile(name="spirals:make", measurements=tuple(a_sweep(adjoint=AdjointName.DIFFRAX, speed=2.0)))
    table = compared_table([ours, theirs])
    drawing = Drawing(svg_text(compare_figure(table)))
    for colour, profile in zip(COLOURS, (ours, theirs), strict=False):
        front = on_front(pairs_of(profile.rows(ours.cases[0]), FrontAxis.SECONDS))
        marks = [mark for mark in drawing.marks("front_seconds_0") if mark.get("fill") == colour]
        assert len(marks) == len(front)
        measured = table[table["profile"] == f"spirals:make ({profile.adjoint})"]
        kept = measured[measured["on_seconds_front"]]
        assert [*zip(kept["peak_bytes"], kept["run_seconds"], strict=True)] == sorted(front)
    assert {"spirals:make (ours)", "spirals:make (diffrax)"} <= set(drawing.texts)
    far = Profile(name="far", measurements=(a_measurement(horizon=7),))
    with pytest.raises(ProfilesError, match="no case in common"):
        compared_table([ours, far])


def test_a_profile_of_failures_only_says_that_nothing_was_measured():
    """A figure of a profile in which nothing ended well is empty, not an error."""
    row = a_measurement(status="out_of_memory", peak_bytes=None, peak_source=None, run_seconds=(), steps=None)
    drawing = Drawing(svg_text(front_figure(points_table(Profile(name="x", measurements=(row,))))))
    assert "nothing measured" in drawing.texts
    assert drawing.marks("front_seconds") == []


def test_a_figure_is_a_chart_that_people_can_restyle(profile):
    """What a figure function returns takes properties and configuration as any chart of Altair does."""
    case = dataclasses.replace(profile, measurements=profile.rows(Case(100, 1e-3)))
    chart = front_figure(points_table(case))
    assert isinstance(chart, alt.LayerChart)
    restyled = chart.properties(width=200, title="mine").configure_axis(gridColor="#123456")
    text = svg_text(restyled)
    assert "mine" in Drawing(text).texts
    assert "#123456" in text
    other = front_figure(points_table(case), FrontAxis.RECOMPUTE)
    assert isinstance(alt.vconcat(chart, other), alt.VConcatChart)
