"""What each figure of a recommendation rests on, from rows made by hand."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import pytest

from autotune.adjoints import Work, passes, work_of_row
from autotune.choosing.recommend import Evidence, RecommendRequest, recommend_from
from autotune.measuring.rows import blank_row
from autotune.measuring.trial import Rung, Trial
from profiles import AdjointName, Measurement, Profile, points
from tests.autotune.fake_machine import PROBLEM


def _row(checkpoints: int, *seconds: float, flags: str = "") -> Measurement:
    trial = Trial(
        study="s", problem="fake.mod:make", adjoint=AdjointName.OURS, checkpoints=checkpoints, key=PROBLEM, steps=1000,
        accepted=1000, expected_steps=1000, rung=Rung.RUN,
    )  # fmt: skip
    bytes_ = 1_000_000 + 100_000 * checkpoints
    return dataclasses.replace(
        blank_row(trial), peak_bytes=bytes_, compiled_bytes=bytes_, peak_source="compiled", run_seconds=seconds,
        xla_flags=flags,
    )  # fmt: skip


def _recommended(rows: Sequence[Measurement], budget_bytes: int, **wish: Any) -> Any:
    profile = Profile(name="fake:make", measurements=tuple(rows))
    (choice,) = recommend_from(profile, RecommendRequest(budget_bytes=budget_bytes, **wish))
    return choice


def test_a_count_that_was_only_compiled_has_no_seconds() -> None:
    """Those of the one count that was timed are not its own, and nothing is on its other side."""
    choice = _recommended([_row(2), _row(8, 0.0179, 0.0181)], 1_300_000)
    assert choice.checkpoints == 2
    assert choice.run_seconds is None
    assert choice.seconds_evidence is None
    assert choice.peak_evidence is Evidence.MEASURED


def test_seconds_between_timed_counts_are_said_to_be_interpolated() -> None:
    """And the whole choice is then no more than that."""
    choice = _recommended([_row(2, 0.08), _row(10), _row(30, 0.02), _row(900, 0.019)], 2_100_000, measured_only=False)
    if choice.checkpoints == 10:
        assert choice.seconds_evidence is Evidence.INTERPOLATED
    assert choice.evidence is Evidence.INTERPOLATED


def test_seconds_under_flags_are_not_those_without() -> None:
    """A profile that has both is asked for none; the flagged figure is given where flags are wished for."""
    rows = [_row(8, 0.05), _row(8, 0.001, flags="--xla_fast")]
    plain = _recommended(rows, 5_000_000)
    assert (plain.run_seconds, plain.xla_flags) == (0.05, "")
    flagged = _recommended(rows, 5_000_000, xla_flags=("--xla_fast",))
    assert (flagged.run_seconds, flagged.xla_flags) == (0.001, "--xla_fast")


@pytest.mark.parametrize(
    ("name", "visited"),
    [
        *((AdjointName.OURS, visited) for visited in (1000, 800, 0)),
        (AdjointName.DIFFRAX, 1000),
        (AdjointName.DIFFRAX, 0),
    ],
)
def test_a_row_tells_which_steps_its_backward_pass_visits(name: AdjointName, visited: int) -> None:
    """The work that it was counted with is read back from what was executed; one function counts both ways."""
    expected = 800 if name is AdjointName.OURS else None
    trial = Trial(
        study="s", problem="p", adjoint=name, checkpoints=12, key=PROBLEM, steps=1000, accepted=800,
        expected_steps=expected, reversed_steps=visited,
    )  # fmt: skip
    row = blank_row(trial)
    work = work_of_row(row)
    assert work is not None
    if name is AdjointName.OURS or not visited:
        assert work == Work(steps=1000, reversed_steps=visited, accepted=800)
    assert row.recompute_factor == sum(passes(name, work, 12)) / 1000


def test_points_of_several_flags_stay_apart() -> None:
    """What `profiles show` lists names the flags of each point."""
    found = points([_row(8, 0.05), _row(8, 0.001, flags="--xla_fast")])
    assert [(point.xla_flags, point.run_seconds) for point in found] == [("", 0.05), ("--xla_fast", 0.001)]
