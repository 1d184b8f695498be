"""Recommendations from stored rows: the rule, the evidence, the refusals."""

import dataclasses
import math

import pytest

from autotune import AutotuneError
from autotune.choosing.recommend import Evidence, Fit, Objective, RecommendRequest, recommend_from
from profiles import AdjointName, Status
from tests.autotune.rows import a_profile, a_row

TYPICAL = a_profile(a_row(4, 0.9), a_row(16, 0.5), a_row(64, 0.3), a_row(1000, 0.2))


def test_the_least_seconds_within_the_budget_are_recommended() -> None:
    """Of the counts that fit, the fastest; everything stored where that fits and is the fastest."""
    (choice,) = recommend_from(TYPICAL, RecommendRequest(budget_bytes=200_000_000))
    assert (choice.checkpoints, choice.evidence, choice.recompute_factor) == (1000, Evidence.MEASURED, 2.0)


def test_fewer_checkpoints_are_recommended_where_they_are_faster() -> None:
    """A front where more memory is slower is taken as it was measured."""
    profile = a_profile(a_row(4, 0.9), a_row(16, 0.2), a_row(64, 0.5), a_row(1000, 0.9))
    (choice,) = recommend_from(profile, RecommendRequest(budget_bytes=200_000_000))
    assert choice.checkpoints is not None
    assert choice.checkpoints <= 32


@pytest.mark.parametrize("budget_bytes", [1_500_000, 3_000_000, 9_000_000, 50_000_000])
def test_what_is_recommended_is_certain_to_fit(budget_bytes: int) -> None:
    """The upper bound of the peak is within the budget, whatever lies between measured counts."""
    (choice,) = recommend_from(TYPICAL, RecommendRequest(budget_bytes=budget_bytes))
    assert choice.status is Fit.OK
    assert choice.peak_high_bytes is not None
    assert choice.peak_high_bytes <= budget_bytes
    assert choice.checkpoints is not None
    assert 1_000_000 + 100_000 * choice.checkpoints <= budget_bytes


def test_an_unmeasured_count_is_said_to_be_interpolated_and_between_what() -> None:
    """A count between measured ones says so, with its neighbours."""
    found = [
        recommend_from(TYPICAL, RecommendRequest(budget_bytes=b))[0] for b in range(3_000_000, 60_000_000, 3_000_000)
    ]
    between = [choice for choice in found if choice.evidence is Evidence.INTERPOLATED]
    assert between
    assert all(choice.checkpoints not in (4, 16, 64, 1000) for choice in between)
    assert all("of the measured counts" in choice.between for choice in between)


def test_nothing_fits_names_the_smallest_that_is_known() -> None:
    """Below the smallest measured peak the answer is that peak."""
    (choice,) = recommend_from(TYPICAL, RecommendRequest(budget_bytes=1_000))
    assert (choice.status, choice.smallest_bytes) == (Fit.NOTHING_FITS, 1_400_000)


def test_a_horizon_between_measured_ones_is_interpolated_and_one_beyond_refused() -> None:
    """Steps between 10 and 40 follow the power law; 80 is refused unless extrapolation is allowed."""
    far = {"horizon": 40, "steps": 4000, "accepted": 4000}
    profile = a_profile(a_row(4, 0.9), a_row(64, 0.3), a_row(1000, 0.2), a_row(64, 1.3, **far), a_row(4000, 0.8, **far))
    (choice,) = recommend_from(profile, RecommendRequest(budget_bytes=20_000_000, horizon=20))
    assert choice.evidence is Evidence.INTERPOLATED
    assert choice.steps is not None
    assert math.isclose(choice.steps, 2000, rel_tol=0.01)
    with pytest.raises(AutotuneError, match=r"horizon 80 .*--allow-extrapolation"):
        recommend_from(profile, RecommendRequest(budget_bytes=20_000_000, horizon=80))
    (beyond,) = recommend_from(profile, RecommendRequest(budget_bytes=20_000_000, horizon=80, allow_extrapolation=True))
    assert beyond.evidence is Evidence.EXTRAPOLATED
    assert beyond.steps is not None
    assert math.isclose(beyond.steps, 8000, rel_tol=0.01)


def test_without_a_horizon_every_measured_case_is_answered() -> None:
    """Asking for none gives one recommendation for each case."""
    profile = a_profile(a_row(4, 0.9), a_row(4, 0.4, horizon=5, steps=500, accepted=500))
    assert [choice.case.horizon for choice in recommend_from(profile, RecommendRequest(budget_bytes=2_000_000))] == [
        5,
        10,
    ]


def test_a_horizon_of_a_problem_without_one_is_refused() -> None:
    """A profile that was measured without horizons cannot answer for one."""
    with pytest.raises(AutotuneError, match="measured without a horizon"):
        recommend_from(a_profile(a_row(4, 0.9, horizon=None)), RecommendRequest(budget_bytes=2_000_000, horizon=3))


def test_a_count_that_failed_is_never_recommended() -> None:
    """Neither a count that ran out of memory, nor a larger one, nor one whose gradient was not finite."""
    lost = a_row(64, None, status=Status.OUT_OF_MEMORY)
    bad = a_row(16, None, status=Status.NOT_FINITE, peak_bytes=None, compiled_bytes=None)
    profile = a_profile(a_row(4, 0.9), bad, lost, a_row(1000, None))
    (choice,) = recommend_from(profile, RecommendRequest(budget_bytes=200_000_000))
    assert choice.checkpoints is not None
    assert choice.checkpoints < 64
    assert choice.checkpoints != 16


def test_nothing_is_said_of_diffrax_between_its_measured_counts() -> None:
    """Diffrax's curves are neither lines nor monotone: only counts that were measured are recommended."""
    rows = [dataclasses.replace(row, adjoint=AdjointName.DIFFRAX) for row in TYPICAL.measurements]
    for budget in range(2_000_000, 110_000_000, 5_000_000):
        (choice,) = recommend_from(a_profile(*rows), RecommendRequest(budget_bytes=budget))
        assert choice.checkpoints in (4, 16, 64, 1000)
        assert choice.expected_steps is None


def test_memory_as_the_objective_needs_no_timing() -> None:
    """With compiled rows alone the fewest executed steps within the budget are recommended."""
    profile = a_profile(a_row(4, None), a_row(64, None), a_row(1000, None))
    (choice,) = recommend_from(profile, RecommendRequest(budget_bytes=7_500_000, objective=Objective.MEMORY))
    assert choice.checkpoints == 64
    assert choice.run_seconds is None
