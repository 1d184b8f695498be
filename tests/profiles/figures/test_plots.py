"""Figures: what is drawn is what was measured, with units, and nothing global is touched."""

import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.axes import Axes

from profiles import (
    AdjointName,
    Case,
    FrontAxis,
    Optimum,
    PredictedBytes,
    Profile,
    ProfilesError,
    Recommended,
    RecordError,
    Tier,
    Tree,
    TreeBlock,
    bytes_figure,
    compare_figure,
    front_figure,
    pareto_front,
    points,
    recompute_figure,
    save_figure,
    steps_figure,
    tree_figure,
)  # fmt: skip
from profiles.figures.axes import BytesLocator
from profiles.figures.looks import COLOURS, DASHES, MARKERS, Series
from tests.conftest import REPOSITORY
from tests.profiles.makers import a_measurement, a_sweep


@pytest.fixture
def profile() -> Profile:
    """A profile of six cases, one of which lost a count to memory."""
    return Profile(name="spirals:make", measurements=tuple(a_sweep()))


class Block:
    """A block of a tree, as any theory may give it."""

    def __init__(self, start: int, stop: int, slot: int) -> None:
        """Take the three figures."""
        self.start, self.stop, self.slot = start, stop, slot


def a_tree(case: Case) -> Tree:
    """A tree of three blocks over ten steps."""
    blocks: tuple[TreeBlock, ...] = (Block(0, 10, 0), Block(6, 10, 1), Block(3, 6, 1))
    return Tree(case=case, checkpoints=2, steps=10, blocks=blocks)


def drawn(panel: Axes, label: str) -> list[tuple[float, float]]:
    """The points of the line with a label."""
    (line,) = [line for line in panel.get_lines() if line.get_label() == label]
    return [(float(x), float(y)) for x, y in np.asarray(line.get_xydata())]


def tick_texts(axis) -> list[str]:
    """The texts of the ticks inside an axis's view."""
    low, high = axis.get_view_interval()
    return [axis.get_major_formatter()(value, 0) for value in axis.get_majorticklocs() if low <= value <= high]


def test_both_fronts_of_every_case_are_drawn_point_by_point(profile: Profile):
    """Each panel holds, for each case, exactly the front's points; the axes carry units."""
    figure = front_figure(profile, budget_bytes=40 * 2**20)
    for panel, objective in zip(figure.axes, FrontAxis, strict=True):
        for case in profile.cases:
            front = pareto_front(points(profile.rows(case)), objective)
            assert drawn(panel, str(case)) == [(p.peak_bytes, p.cost(objective)) for p in front]
        assert drawn(panel, "budget 40 MiB")[0][0] == 40 * 2**20
        assert all(text.endswith("MiB") for text in tick_texts(panel.xaxis))
    assert "seconds" in figure.axes[0].get_ylabel()
    assert "recompute factor" in figure.axes[1].get_ylabel()


def test_beaten_points_are_drawn_hollow(profile: Profile):
    """A point that is not on the front is drawn, and can be told from those that are."""
    case = profile.cases[1]
    figure = front_figure(profile, cases=[case])
    beaten = [line for line in figure.axes[0].get_lines() if line.get_markerfacecolor() == "none"]
    xs = [x for line in beaten for x in np.asarray(line.get_xdata())]
    front = pareto_front(points(profile.rows(case)), FrontAxis.SECONDS)
    assert sorted(xs) == sorted(p.peak_bytes for p in points(profile.rows(case)) if p not in front)
    assert xs


def test_a_dotted_line_shows_the_front_without_tiers():
    """Where a point held states in a tier and changed the front, the front of the device alone is drawn too."""
    tier = Tier(name="host", windows=9)
    rows = [a_measurement(checkpoints=c, peak_bytes=c * 2**20, run_seconds=(1 / c,)) for c in (2, 4, 8)]
    alone = Profile(name="x", measurements=tuple(rows))
    better = a_measurement(checkpoints=3, peak_bytes=3 * 2**20, run_seconds=(0.01,), tier=tier)
    both = Profile(name="x", measurements=(*rows, better))

    def dotted(profile: Profile) -> list:
        return [line for line in front_figure(profile).axes[0].lines if line.get_linestyle() == ":"]

    assert dotted(alone) == []
    (line,) = dotted(both)
    assert list(line.get_xdata()) == [2 * 2**20, 4 * 2**20, 8 * 2**20]


def test_the_recommended_point_is_ringed(profile: Profile):
    """A recommendation is drawn at its bytes and cost in the panels that know the cost."""
    choice = Recommended(case=profile.cases[0], checkpoints=8, peak_bytes=2**24, run_seconds=0.5)
    figure = front_figure(profile, recommended=[choice])
    assert drawn(figure.axes[0], "recommended") == [(2**24, 0.5)]
    assert all(line.get_label() != "recommended" for line in figure.axes[1].get_lines())


def test_bytes_are_drawn_with_law_bounds_and_lost_counts(profile: Profile):
    """Measured points, the law's line and band, the budget, and a cross at every count that ran out of memory."""
    law = PredictedBytes(
        checkpoints=(1, 64), likely_bytes=(5e6, 1e8), low_bytes=(4e6, 9e7), high_bytes=(6e6, 2e8), text="line"
    )
    figure = bytes_figure(profile, [law], budget_bytes=2**25)
    (panel,) = figure.axes
    assert drawn(panel, "line, with its bounds") == [(1, 5e6), (64, 1e8)]
    assert [x for x, _ in drawn(panel, "out of memory")] == [64]
    case = profile.cases[-1]
    assert [x for x, _ in drawn(panel, str(case))] == [2, 4, 8, 16, 32]
    assert len(panel.collections) == 1
    assert panel.get_xlabel().startswith("checkpoints")
    assert drawn(panel, "budget 32 MiB")[0][1] == 2**25


def test_steps_are_drawn_against_horizon_for_each_tolerance(profile: Profile):
    """One line a tolerance, through the steps that were counted, with a tick at each horizon."""
    (panel,) = steps_figure(profile).axes
    assert drawn(panel, "tolerance 1e-3") == [(100, 100), (200, 200), (400, 400)]
    assert tick_texts(panel.xaxis) == ["100", "200", "400"]


def test_steps_without_a_horizon_are_drawn_by_case():
    """A problem that takes no horizon still shows its steps."""
    rows = a_sweep(horizons=(None,), tolerances=(1e-3, 1e-6))
    (panel,) = steps_figure(Profile(name="x", measurements=tuple(rows))).axes
    assert [label.get_text() for label in panel.get_xticklabels()] == ["tolerance 1e-6", "tolerance 1e-3"]


def test_recompute_is_drawn_beside_the_optimum_that_was_passed_in(profile: Profile):
    """Executed factors are markers; the optimum is the column that the caller gave, untouched."""
    case = profile.cases[0]
    optimum = Optimum(case=case, checkpoints=(1, 10, 100), recompute_factor=(50.0, 5.0, 2.0))
    (panel,) = recompute_figure(profile, [optimum]).axes
    assert drawn(panel, str(case)) == [(p.checkpoints, p.recompute_factor) for p in points(profile.rows(case))]
    curves = [np.asarray(line.get_ydata()).tolist() for line in panel.get_lines()]
    assert [50.0, 5.0, 2.0] in curves
    (alone,) = recompute_figure(profile).axes
    assert "theoretical optimum" not in [line.get_label() for line in alone.get_lines()]


def test_a_tree_shows_each_block_at_its_steps_and_slot(profile: Profile):
    """Every block is a rectangle from its start to its stop in the row of its slot."""
    (panel,) = tree_figure(a_tree(profile.cases[0])).axes
    boxes = [path.get_extents() for path in panel.collections[0].get_paths()]
    assert [(box.x0, box.x1, round((box.y0 + box.y1) / 2)) for box in boxes] == [(0, 10, 0), (6, 10, 1), (3, 6, 1)]
    assert "2 checkpoints for 10 steps, 3 states stored" in panel.get_title()


def test_two_profiles_are_compared_at_a_common_case():
    """The fronts of both are drawn under names that tell them apart; without a common case an error says so."""
    ours = Profile(name="spirals:make", measurements=tuple(a_sweep()))
    theirs = Profile(name="spirals:make", measurements=tuple(a_sweep(adjoint=AdjointName.DIFFRAX, speed=2.0)))
    figure = compare_figure([ours, theirs])
    for name, profile in (("spirals:make (ours)", ours), ("spirals:make (diffrax)", theirs)):
        front = pareto_front(points(profile.rows(ours.cases[0])), FrontAxis.SECONDS)
        assert drawn(figure.axes[0], name) == [(p.peak_bytes, p.run_seconds) for p in front]
    far = Profile(name="far", measurements=(a_measurement(horizon=7),))
    with pytest.raises(ProfilesError, match="no case in common"):
        compare_figure([ours, far])


def test_a_profile_of_failures_only_can_be_drawn():
    """Figures of a profile in which nothing ended well are empty, not errors."""
    rows = [a_measurement(status="out_of_memory", peak_bytes=None, peak_source=None, run_seconds=(), steps=None)]
    profile = Profile(name="x", measurements=tuple(rows))
    for figure in (front_figure(profile), bytes_figure(profile), steps_figure(profile), recompute_figure(profile)):
        figure.canvas.draw()


def test_series_are_told_apart_by_colour_and_by_marker():
    """Cases that differ differ in look; with one horizon or one tolerance, in colour and in marker both."""
    rows = a_sweep(horizons=(1, 2, 3), tolerances=(1e-3, 1e-4, 1e-5))
    cases = Profile(name="x", measurements=tuple(rows)).cases
    looks = [Series(cases).look(case) for case in cases]
    assert len({(look.colour, look.marker) for look in looks}) == len(cases)
    for some in (cases[:3], [case for case in cases if case.tolerance == 1e-3]):
        looks = [Series(some).look(case) for case in some]
        assert len({look.colour for look in looks}) == len({look.marker for look in looks}) == 3
    assert len(set(COLOURS)) == len(set(MARKERS)) == 7
    assert len(set(DASHES)) == 4


def test_a_legend_of_many_cases_lists_horizons_and_the_rest_apart():
    """Above nine cases the legend has one line a horizon and one a tolerance, not one a case; below, one a case."""
    few = Profile(name="x", measurements=tuple(a_sweep()))
    many = Profile(name="x", measurements=tuple(a_sweep(horizons=(1, 2, 3, 4), tolerances=(1e-3, 1e-4, 1e-5))))
    texts = [[text.get_text() for text in front_figure(p, budget_bytes=2**25).legends[0].texts] for p in (few, many)]
    assert texts[0] == [*(str(case) for case in few.cases), "budget 32 MiB"]
    assert texts[1] == [
        *(f"horizon {horizon}" for horizon in (1, 2, 3, 4)),
        *(f"tolerance {tolerance}" for tolerance in ("1e-5", "1e-4", "1e-3")),
        "budget 32 MiB",
    ]


@given(st.floats(1, 2**45), st.floats(1.001, 2**12), st.booleans())
def test_ticks_of_bytes_are_few_and_at_powers_of_two(low: float, ratio: float, logarithmic: bool):
    """Every tick is a power of two, or a multiple of the one power of two that is the step; there are at most nine."""
    ticks = list(BytesLocator(logarithmic=logarithmic).tick_values(low, low * ratio))
    assert len(ticks) <= 9
    assert all(low * 0.999 <= tick <= low * ratio * 1.001 for tick in ticks)
    step = min((b - a for a, b in itertools.pairwise(ticks)), default=1.0)
    for tick in ticks:
        assert (tick if logarithmic else step).hex().startswith(("0x1.0000000000000p", "0x1.0p"))


def test_columns_of_different_lengths_are_refused():
    """A law or an optimum whose columns do not fit each other is named with the lengths."""
    with pytest.raises(RecordError, match="low_bytes 0"):
        PredictedBytes(checkpoints=(1,), likely_bytes=(1.0,), low_bytes=(), high_bytes=(1.0,))


def test_figures_are_saved_alike_each_time(profile: Profile, tmp_path: Path):
    """PNG and SVG are written, and the same measurements give the same bytes: no dates, no random names."""
    one = save_figure(front_figure(profile), tmp_path / "new" / "front")
    two = save_figure(front_figure(profile), tmp_path / "front")
    assert [path.name for path in one] == ["front.png", "front.svg"]
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in two]
    assert one[0].read_bytes().startswith(b"\x89PNG")
    (tmp_path / "file").touch()
    with pytest.raises(ProfilesError, match="cannot write"):
        save_figure(front_figure(profile), tmp_path / "file" / "front")


def test_drawing_loads_no_pyplot_and_no_jax():
    """Figures are objects of their own: the global state of pyplot is never loaded, and neither is jax."""
    code = (
        "import sys; from profiles import Profile, front_figure; from tests.profiles.makers import a_sweep;"
        "front_figure(Profile(name='x', measurements=tuple(a_sweep()))).canvas.draw();"
        "print([name for name in ('matplotlib.pyplot', 'jax', 'adjoint', 'autotune') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
