"""Tables and records of devices, fronts, recommendations and profiles, from records made by hand."""

import dataclasses
import datetime as dt
from typing import Any

import pytest

from autotune import Recommendation
from autotune.choosing import documents
from autotune.choosing.recommendation import Evidence, Fit
from autotune.cli import tables
from autotune.cli.screen import Screen
from autotune.machine.device import DeviceInfo
from autotune.machine.host import HostMemory
from profiles import Case, FrontAxis, Status, Tier, pareto_front, points
from tests.autotune.rows import a_profile, a_row

CASE = Case(10, 1e-3)
HOST = Tier(name="host", windows=50)
CHOICE = Recommendation(
    case=CASE, status=Fit.OK, budget_bytes=2**20, checkpoints=16, expected_steps=1000, peak_bytes=2**20,
    peak_low_bytes=2**20, peak_high_bytes=2**20, run_seconds=0.5, recompute_factor=3.81,
    peak_evidence=Evidence.MEASURED, seconds_evidence=Evidence.MEASURED,
)  # fmt: skip


def shown(capsys: pytest.CaptureFixture[str]) -> list[list[str]]:
    """Read a table as its cells, between which two blanks stand."""
    written = capsys.readouterr().out.splitlines()
    return [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in written]


def test_unknown_figures_stay_unknown() -> None:
    """None is written nowhere as 0."""
    assert tables.maybe_bytes(None) is tables.maybe_seconds(None) is tables.factor(None) is None
    assert (tables.maybe_bytes(0), tables.maybe_bytes(2**20)) == ("0 B", "1 MiB")
    assert tables.maybe_seconds(0.25) == "250 ms"
    assert tables.factor(3.456) == "3.46 x"


def test_a_device_is_shown_with_what_it_tells_and_what_it_does_not(capsys: pytest.CaptureFixture[str]) -> None:
    """Lines without a figure are left out; what is unknown is said."""
    info = DeviceInfo(
        platform="gpu", kind="Example GPU", index=1, count=2, total_bytes=2**30, limit_bytes=None, in_use_bytes=0,
        free_bytes=2**29, host=HostMemory(total_bytes=2**33, available_bytes=2**32, resident_bytes=1),
        unknown=("the driver",),
    )  # fmt: skip
    tables.show_device(Screen(), info, cache="/cache", store="/store")
    found = {line[0]: line[1] for line in shown(capsys)}
    assert found["device"] == "Example GPU (gpu 1 of 2)"
    assert (found["memory"], found["free now"], found["in use by this process"]) == ("1 GiB", "512 MiB", "0 B")
    assert found["host memory"] == "4 GiB free of 8 GiB"
    assert (found["compiled programs"], found["store"], found["unknown"]) == ("/cache", "/store", "the driver")
    assert not {"limit of this process", "driver", "MIG", "environment", "RLIMIT_AS"} & set(found)


# --- fronts


def test_a_front_lists_every_point_of_its_case_and_marks_those_that_nothing_beats(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Of three points the middle one is slower than the smallest; a fourth is of another case."""
    rows = [a_row(4, 0.5, recompute_factor=4.0), a_row(16, 0.9), a_row(64, 0.3), a_row(8, 0.1, horizon=20)]
    tables.show_front(Screen(), rows, CASE, title="The case")
    assert shown(capsys) == [
        ["The case"],
        ["checkpoints", "peak", "a call", "recompute", "front"],
        ["4", "1.34 MiB", "500 ms", "4.00 x", "yes"],
        ["16", "2.48 MiB", "900 ms", "-", "-"],
        ["64", "7.06 MiB", "300 ms", "-", "yes"],
    ]


def test_tiers_and_flags_have_a_column_where_there_are_any(capsys: pytest.CaptureFixture[str]) -> None:
    """And nothing is shown of a case without points."""
    rows = [a_row(4, 0.5), dataclasses.replace(a_row(4, 0.4), tier=HOST), a_row(4, None, xla_flags="--f")]
    tables.show_front(Screen(), rows, CASE, title="")
    header, *body = shown(capsys)
    assert header[-2:] == ["tier", "XLA_FLAGS"]
    assert [line[-2:] for line in body] == [["-", "-"], ["-", "--f"], ["host, 50 windows", "-"]]
    tables.show_front(Screen(), rows[1:2], CASE, title="")
    assert shown(capsys)[0][-1] == "tier"
    tables.show_front(Screen(), [a_row(4, None, status=Status.FAILED)], CASE, title="t")
    tables.show_front(Screen(), rows, Case(99), title="t")
    assert shown(capsys) == []


def test_a_point_is_a_record_with_the_evidence_of_each_figure() -> None:
    """What was not timed has no evidence; a tier is its parts."""
    rows = [
        a_row(4, 0.5, recompute_factor=4.0, set_values={"w": 8}, expected_steps=900),
        dataclasses.replace(a_row(16, None), tier=HOST, xla_flags="--f"),
    ]
    found = points(rows)
    fronts = {axis: pareto_front(found, axis) for axis in FrontAxis}
    timed, compiled = (documents.point_record(rows[0].case, point, fronts) for point in found)
    assert (timed["horizon"], timed["tolerance"], timed["set_values"]) == (10, 1e-3, {"w": 8})
    assert (timed["checkpoints"], timed["expected_steps"], timed["peak_bytes"]) == (4, 900, 1_400_000)
    assert (timed["seconds_evidence"], timed["recompute_evidence"], timed["tier"]) == ("measured", "computed", None)
    assert timed["fastest_for_its_bytes"]
    assert timed["least_recompute_for_its_bytes"]
    assert (compiled["seconds_evidence"], compiled["recompute_evidence"]) == (None, None)
    assert (compiled["tier"], compiled["windows"], compiled["xla_flags"]) == ("host", 50, "--f")
    assert not compiled["fastest_for_its_bytes"]
    assert not compiled["least_recompute_for_its_bytes"]


# --- recommendations


def recommendations(capsys: pytest.CaptureFixture[str], *chosen: Recommendation) -> list[list[str]]:
    """Show recommendations and read the table."""
    tables.show_recommendations(Screen(), chosen)
    return shown(capsys)


def test_a_recommendation_is_a_line_with_what_it_rests_on(capsys: pytest.CaptureFixture[str]) -> None:
    """A case is said by what it has; bounds stand beside a peak that was not measured."""
    assert recommendations(capsys, CHOICE) == [
        ["horizon", "tolerance", "checkpoints", "expected steps", "peak", "a call", "recompute", "evidence"],
        ["10", "0.001", "16", "1000", "1 MiB", "500 ms", "3.81 x", "measured"],
    ]
    told = dataclasses.replace(
        CHOICE, case=Case(), peak_low_bytes=2**19, peak_high_bytes=2**21, peak_evidence=Evidence.INTERPOLATED,
        run_seconds=None, seconds_evidence=None, expected_steps=None, recompute_factor=None,
    )  # fmt: skip
    header, line = recommendations(capsys, told)
    assert header == ["checkpoints", "expected steps", "peak", "a call", "recompute", "evidence"]
    assert line == ["16", "-", "1 MiB (512 KiB to 2 MiB)", "-", "-", "interpolated, not timed"]


def test_what_does_not_fit_says_the_least_and_what_failed_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    """Beside one that fits."""
    nothing = Recommendation(case=CASE, status=Fit.NOTHING_FITS, budget_bytes=1, smallest_bytes=2**20)
    unknown = dataclasses.replace(nothing, smallest_bytes=None)
    failed = dataclasses.replace(nothing, status=Fit.FAILED)
    _, _, *others = recommendations(capsys, CHOICE, nothing, unknown, failed)
    assert [line[4] for line in others] == ["≥ 1 MiB", "≥ unknown", "-"]
    assert [line[-1] for line in others] == ["nothing fits", "nothing fits", "failed"]
    assert {tuple(line[2:4]) for line in others} == {("-", "-")}


def test_values_tiers_and_flags_have_columns_where_a_recommendation_has_them(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One that has none has a dash."""
    other = dataclasses.replace(
        CHOICE, case=dataclasses.replace(CASE, set_values=(("w", 8),), tolerance=None), tier=HOST, xla_flags="--f"
    )
    header, plain, held = recommendations(capsys, CHOICE, other)
    assert (header[:3], header[-2:]) == (["horizon", "tolerance", "w"], ["tier", "XLA_FLAGS"])
    assert (plain[:3], plain[-2:]) == (["10", "0.001", "-"], ["-", "-"])
    assert (held[:3], held[-2:]) == (["10", "-", "8"], ["host, 50 windows", "--f"])


@pytest.mark.parametrize(
    ("peak", "seconds", "said"),
    [
        (Evidence.MEASURED, Evidence.MEASURED, "measured"),
        (Evidence.MEASURED, Evidence.INTERPOLATED, "peak measured, seconds interpolated"),
        (Evidence.MEASURED, None, "measured, not timed"),
        (Evidence.EXTRAPOLATED, Evidence.EXTRAPOLATED, "extrapolated"),
    ],
)
def test_evidence_is_one_word_where_the_figures_agree(peak: Evidence, seconds: Evidence | None, said: str) -> None:
    """And each by its name where they do not."""
    assert tables.evidence(dataclasses.replace(CHOICE, peak_evidence=peak, seconds_evidence=seconds)) == said


# --- profiles


def test_a_profile_is_summed_up_in_one_record() -> None:
    """Failures are counted apart."""
    noon = dt.datetime(2026, 5, 4, 12, 0, 0, 123456, tzinfo=dt.UTC)
    rows = [a_row(4, 0.5), a_row(8, None, horizon=20), a_row(16, None, status=Status.FAILED)]
    profile = a_profile(*[dataclasses.replace(row, measured_at=noon) for row in rows])
    record = documents.profile_record(profile)
    assert (record["cases"], record["measurements"], record["failed"]) == (2, 3, 1)
    assert (record["problem"], record["device"], record["adjoint"]) == ("p:make", "k", "ours")
    assert record["newest"] == "2026-05-04T12:00:00+00:00"
    assert record["name"] == profile.qualified_name


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (-5, "just now"), (0, "just now"), (59, "just now"), (60, "1 minute ago"), (119, "1 minute ago"),
        (120, "2 minutes ago"), (3599, "59 minutes ago"), (3600, "1 hour ago"), (7200, "2 hours ago"),
        (86399, "23 hours ago"), (86400, "1 day ago"), (200_000, "2 days ago"),
    ],
)  # fmt: skip
def test_an_age_is_said_in_the_largest_whole_unit(seconds: int, said: str) -> None:
    """Rounded down; a clock that went backwards says now."""
    now = dt.datetime(2026, 5, 4, tzinfo=dt.UTC)
    assert tables.age(now - dt.timedelta(seconds=seconds), now) == said


def test_columns_of_a_recommendation_are_those_of_its_json() -> None:
    """Each has a column, and each column a figure."""
    document: dict[str, Any] = CHOICE.to_json()
    assert set(tables.RECOMMENDATION_COLUMNS) == set(document)


def test_how_sure_a_recommendation_is_stands_in_lines() -> None:
    """The interval with the runner-up, whether the steps were counted, and what would change it."""
    sure = dataclasses.replace(
        CHOICE, run_seconds=0.5, seconds_low=0.4, seconds_high=0.6, runner_up=20, runner_up_seconds=0.6, steps=1000,
        steps_evidence=Evidence.MEASURED, would_change=("with 1 MiB more: 2.0x faster",),
    )  # fmt: skip
    assert tables.sureness(sure) == [
        "400 ms to 600 ms a call; next best 20 checkpoints, 1.20x the seconds",
        "1000 steps, counted",
        "with 1 MiB more: 2.0x faster",
    ]
    predicted = dataclasses.replace(sure, seconds_low=None, steps_evidence=Evidence.INTERPOLATED, would_change=())
    assert tables.sureness(predicted) == ["1000 steps, predicted, interpolated"]
