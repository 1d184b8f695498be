"""Comparisons: what changed is named, and figures are matched count by count."""

import pytest

from profiles import AdjointName, Profile, compare, compare_table, what_changed
from tests.profiles.makers import a_measurement, a_sweep


def a_profile(*rows) -> Profile:
    """A profile of rows."""
    return Profile(name="x", measurements=rows)


def test_what_changed_is_named_component_by_component():
    """Every component, device figure and version that differs is named with both sides; what is equal is not."""
    one = a_profile(
        a_measurement(components={"source": "1", "shapes": "s"}, versions={"jax": "0.10.2", "diffrax": "1"})
    )
    two = a_profile(
        a_measurement(
            components={"source": "2", "shapes": "s", "mesh": "m"}, kind="NVIDIA L4", adjoint="diffrax", horizon=7,
            versions={"jax": "0.11.0", "diffrax": "1"},
        )
    )  # fmt: skip
    found = {change.what: (change.before, change.after) for change in what_changed(one, two)}
    assert found == {
        "problem's source": ("1", "2"),
        "problem's mesh": ("", "m"),
        "adjoint": ("ours", "diffrax"),
        "device": ("cpu", "NVIDIA L4"),
        "platform": ("cpu", "gpu"),
        "version of jax": ("0.10.2", "0.11.0"),
        "cases": ("horizon 100, tolerance 1e-3", "horizon 7, tolerance 1e-3"),
    }
    assert "problem's mesh: nothing -> m" in [str(change) for change in what_changed(one, two)]
    assert what_changed(one, one) == ()


def test_counts_of_common_cases_are_matched():
    """Every count that either has appears once, with the ratio where both have the figure."""
    before = a_profile(
        a_measurement(checkpoints=2, peak_bytes=100, run_seconds=(4.0,), recompute_factor=8.0),
        a_measurement(checkpoints=4, peak_bytes=200, run_seconds=(2.0,), recompute_factor=4.0),
        a_measurement(checkpoints=2, horizon=7),
    )
    after = a_profile(
        a_measurement(checkpoints=2, peak_bytes=50, run_seconds=(1.0,), recompute_factor=None, adjoint="diffrax"),
        a_measurement(checkpoints=8, peak_bytes=300, run_seconds=(), adjoint="diffrax"),
    )
    found = compare(before, after)
    assert [(point.checkpoints, point.before is None, point.after is None) for point in found.points] == [
        (2, False, False), (4, False, True), (8, True, False),
    ]  # fmt: skip
    first = found.points[0]
    assert (first.ratio("peak_bytes"), first.ratio("run_seconds"), first.ratio("recompute_factor")) == (0.5, 0.25, None)
    assert found.points[1].ratio("peak_bytes") is None


def test_of_several_points_of_one_count_the_fastest_stands():
    """With and without flags measured, the comparison takes the faster."""
    rows = (
        a_measurement(checkpoints=2, run_seconds=(4.0,), peak_bytes=10),
        a_measurement(checkpoints=2, run_seconds=(3.0,), peak_bytes=20, xla_flags="--a"),
        a_measurement(checkpoints=2, run_seconds=(), peak_bytes=1, expected_steps=9),
    )
    (point,) = compare(a_profile(*rows), a_profile(*rows)).points
    assert point.before is not None
    assert point.before.run_seconds == 3.0


def test_the_table_of_a_comparison_has_both_sides_and_their_ratio():
    """Figures stand side by side, as numbers."""
    ours, theirs = a_profile(*a_sweep()), a_profile(*a_sweep(adjoint=AdjointName.DIFFRAX, speed=2.0))
    frame = compare_table(compare(ours, theirs))
    assert len(frame) == sum(row.status == "ok" for row in ours.measurements)
    assert frame["run_seconds_ratio"].tolist() == pytest.approx([2.0] * len(frame))
    assert frame["peak_bytes_ratio"].tolist() == [1.0] * len(frame)
    assert str(frame["peak_bytes_before"].dtype) == "Int64"


def test_profiles_without_a_common_case_have_no_points_but_say_why():
    """Nothing to match is not an error; the cases are among the changes."""
    found = compare(a_profile(a_measurement()), a_profile(a_measurement(horizon=7)))
    assert found.points == ()
    assert "cases" in [change.what for change in found.changes]
    assert len(compare_table(found)) == 0
