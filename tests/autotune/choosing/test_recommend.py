"""Recommendations from stored rows: the rule, the evidence, the refusals."""

import dataclasses
import datetime as dt
import math
from collections.abc import Sequence
from typing import Any

import pytest

from autotune import AutotuneError
from autotune.adjoints import Work
from autotune.choosing.recommend import (
    Evidence,
    Fit,
    Objective,
    RecommendRequest,
    recommend_from,
    recommend_within,
    works_of,
)
from profiles import AdjointName, Case, Measurement, ProblemKey, Status, Tier
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


@pytest.mark.parametrize("name", AdjointName)
def test_a_count_that_was_measured_at_other_horizons_may_be_chosen_between_them(name: AdjointName) -> None:
    """Of Diffrax nothing but such counts; of ours they join the candidates of the grid."""
    rows = [dataclasses.replace(at(h, 1e-3, count), adjoint=name) for h in (10, 20) for count in (4, 16, 64, 500)]
    (found,) = recommend_from(a_profile(*rows), RecommendRequest(budget_bytes=10**9, horizon=15))
    assert found.status is Fit.OK
    assert found.evidence is Evidence.INTERPOLATED
    assert found.steps == 1500
    if name is AdjointName.DIFFRAX:
        assert found.checkpoints in (16, 64, 500)
    (single,) = recommend_from(
        a_profile(*[row for row in rows if row.checkpoints == 500]), RecommendRequest(budget_bytes=10**9, horizon=15)
    )
    assert single.checkpoints == 500


def test_memory_as_the_objective_needs_no_timing() -> None:
    """With compiled rows alone the fewest executed steps within the budget are recommended."""
    profile = a_profile(a_row(4, None), a_row(64, None), a_row(1000, None))
    (choice,) = recommend_from(profile, RecommendRequest(budget_bytes=7_500_000, objective=Objective.MEMORY))
    assert choice.checkpoints == 64
    assert choice.run_seconds is None


# --- where


def chosen(rows: Sequence[Measurement], budget_bytes: int = 10**9, **asked: Any) -> list[tuple[Any, ...]]:
    """List horizon, tolerance, values and count of each recommendation."""
    found = recommend_from(a_profile(*rows), RecommendRequest(budget_bytes=budget_bytes, **asked))
    return [(c.case.horizon, c.case.tolerance, dict(c.case.set_values), c.checkpoints) for c in found]


def refusal(rows: Sequence[Measurement], **asked: Any) -> str:
    """The words of a request that is refused."""
    with pytest.raises(AutotuneError) as caught:
        chosen(rows, **asked)
    return str(caught.value)


WIDTHS = [a_row(4, 0.9, set_values={"width": 8, "deep": True}), a_row(6, 0.9, set_values={"width": 16, "deep": True})]


def test_values_that_are_set_choose_among_the_cases() -> None:
    """By those keys that are named; a case without them is not meant."""
    assert chosen(WIDTHS, set_values={"width": 16}) == [(10, 1e-3, {"width": 16, "deep": True}, 6)]
    assert len(chosen(WIDTHS, set_values={"deep": True})) == len(chosen(WIDTHS)) == 2
    said = refusal(WIDTHS, set_values={"width": 32, "deep": True})
    assert said.startswith("p:make was not measured with width=32, deep=True; it holds horizon 10")
    assert "width=8" in said
    assert "width=16" in said
    assert "colour=1" in refusal(WIDTHS, set_values={"colour": 1})


def test_a_tolerance_moves_every_case_and_one_case_is_answered_once() -> None:
    """Two horizons at one tolerance of three, then at one that lies between."""
    rows = [
        a_row(count, 0.5, horizon=h, tolerance=t, steps=round(h * 10 * t**-0.2), accepted=round(h * 10 * t**-0.2))
        for h in (10, 20)
        for t in (1e-2, 1e-6)
        for count in (4, 60)
    ]
    assert [case[:2] for case in chosen(rows, tolerance=1e-6)] == [(10, 1e-6), (20, 1e-6)]
    assert [case[:2] for case in chosen(rows, tolerance=1e-4, horizon=20)] == [(20, 1e-4)]
    assert [case[:2] for case in chosen(rows)] == [(10, 1e-6), (10, 1e-2), (20, 1e-6), (20, 1e-2)]


def test_a_mesh_makes_no_other_case() -> None:
    """A problem has one mesh, which nobody names when asking."""
    assert chosen([a_row(4, 0.9, mesh="x=2"), a_row(16, 0.5)]) == [(10, 1e-3, {}, 16)]


def at(horizon: float, tolerance: float, count: int = 500) -> Measurement:
    """A row of a solve with a hundred steps to a unit of horizon, a fifth-order method's to the tolerance."""
    steps = round(100 * horizon * (1e-3 / tolerance) ** 0.2)
    return a_row(count, 1e-5 * steps, horizon=horizon, tolerance=tolerance, steps=steps, accepted=steps)


def test_what_is_asked_between_and_beyond_is_said_of_what() -> None:
    """Both dimensions in one line, the numbers as people write them, a long list shortened."""
    rows = [at(h, t) for h in (10, 20.5) for t in (1e-2, 1e-4)]
    (found,) = recommend_from(a_profile(*rows), RecommendRequest(budget_bytes=10**9, horizon=15, tolerance=1e-3))
    assert found.between == "horizon 15 of 10, 20.5, tolerance 0.001 of 0.0001, 0.01"
    assert found.evidence is Evidence.INTERPOLATED
    said = refusal(rows, horizon=21, tolerance=1e-3)
    assert "not measured at horizon 21 of 10, 20.5, tolerance 0.001 of 0.0001, 0.01: that would be extrap" in said
    assert "horizon 9 of" in refusal(rows, horizon=9)
    assert "tolerance 0.1 of" in refusal(rows, tolerance=0.1)
    (beyond,) = recommend_from(
        a_profile(*rows), RecommendRequest(budget_bytes=10**9, horizon=9, tolerance=1e-3, allow_extrapolation=True)
    )
    assert beyond.evidence is Evidence.EXTRAPOLATED
    eight = [at(h, 1e-3) for h in range(1, 9)]
    assert "of 1, 2, 3, 4, 5, 6, 7, 8:" in refusal(eight, horizon=9)
    assert "of 1, 2, 3, 4 … 9 (9 in all):" in refusal([*eight, at(9, 1e-3)], horizon=10)


def test_a_pair_that_was_not_measured_lies_between_though_each_of_it_was() -> None:
    """Two horizons at one tolerance, one at another: twice the horizon takes twice the steps there too."""
    rows = [at(10, 1e-3), at(20, 1e-3), at(10, 1e-5), at(20, 1e-3, 5)]
    (found,) = recommend_from(a_profile(*rows), RecommendRequest(budget_bytes=10**9, horizon=20, tolerance=1e-5))
    assert found.steps == 2 * rows[2].steps
    assert (found.evidence, found.between) == (Evidence.INTERPOLATED, "")


def test_where_every_count_would_execute_more_than_any_sample_nothing_is_said_of_it() -> None:
    """Four checkpoints at 2,512 steps tell nothing of 5,024; that is no question of memory."""
    rows = [at(10, 1e-3, 4), at(20, 1e-3, 4), at(10, 1e-5, 4)]
    said = refusal(rows, horizon=20, tolerance=1e-5)
    assert "no count that was measured" in said
    assert "says anything of horizon 20, tolerance 1e-5" in said
    assert "tune it there" in said


def test_the_smallest_that_would_do_is_never_within_the_budget() -> None:
    """At horizon 20 memory ran out of everything; that 4 checkpoints take 1.4 MB at 10 is no answer."""
    lost = {"status": Status.OUT_OF_MEMORY, "horizon": 20, "steps": 2000, "accepted": 2000}
    rows = [a_row(4, 0.9), a_row(64, 0.5), a_row(1, None, **lost), a_row(64, None, **lost)]
    _, far = recommend_from(a_profile(*rows), RecommendRequest(budget_bytes=1_400_000))
    assert (far.status, far.smallest_bytes) == (Fit.NOTHING_FITS, 7_400_000)
    _, far = recommend_from(a_profile(*rows), RecommendRequest(budget_bytes=10**9))
    assert (far.status, far.smallest_bytes) == (Fit.NOTHING_FITS, None)


def test_steps_of_other_values_or_of_double_precision_tell_nothing() -> None:
    """The case that is asked for has one horizon, the other one both."""
    rows = [a_row(4, 0.9), a_row(4, 0.9, x64=True), a_row(4, 0.9, x64=True, horizon=30)]
    assert "of 10: that would be" in refusal(rows, horizon=20)
    values = [dataclasses.replace(row, x64=False, set_values={"wide": row.x64}) for row in rows]
    assert "of 10: that would be" in refusal(values, horizon=20, set_values={"wide": False})


def test_a_profile_without_steps_says_so() -> None:
    """Where nothing was observed nothing can be moved to another horizon."""
    rows = [a_row(4, 0.9, steps=None, accepted=None), a_row(4, 0.9, steps=None, accepted=None, horizon=30)]
    assert "holds no steps near horizon 20" in refusal(rows, horizon=20, allow_extrapolation=True)
    assert [case[3] for case in chosen(rows)] == [4, 4]
    assert "measured without a tolerance, so nothing is known at tolerance 0.1" in refusal(
        [a_row(4, 0.9, tolerance=None)], tolerance=0.1
    )
    assert chosen([a_row(4, 0.9, tolerance=None)], horizon=10) == [(10, None, {}, 4)]


def test_steps_are_read_from_the_rows_of_each_case() -> None:
    """A row without steps tells none, and hides none."""
    rows = [a_row(4, 0.9), a_row(8, 0.9, steps=None, accepted=None), a_row(4, 0.9, horizon=20, steps=7, accepted=5)]
    works = works_of(rows)
    assert works[Case(10, 1e-3)] == Work(steps=1000, reversed_steps=1000, accepted=1000)
    assert works[Case(20, 1e-3)] == Work(steps=7, reversed_steps=5, accepted=5)
    assert len(works) == 2


def test_rows_of_an_older_state_of_the_code_are_not_chosen_from() -> None:
    """The newest row of a case says which state is the newest."""
    old = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    before = a_row(16, 0.1, measured_at=old, problem=ProblemKey(name="p:make", components={"source": "b"}))
    assert chosen([before, a_row(4, 0.9)]) == [(10, 1e-3, {}, 4)]


# --- what


def test_counts_that_were_compiled_alone_are_left_out_where_only_what_ran_is_wanted() -> None:
    """Unless nothing was timed there, or memory is what matters, or the case itself was not measured."""
    rows = [a_row(4, 0.9), a_row(16, 0.5), a_row(64, None)]
    assert chosen(rows, measured_only=True)[0][3] == 16
    assert chosen(rows, measured_only=True, objective=Objective.MEMORY)[0][3] == 64
    assert chosen([a_row(4, None), a_row(16, None)], measured_only=True)[0][3] == 16
    assert chosen(rows, budget_bytes=3_100_000, measured_only=True)[0][3] == 16
    far = [a_row(count, 0.9 / count, horizon=20, steps=2000, accepted=2000) for count in (4, 64)]
    moved = chosen([*rows, *far], budget_bytes=4_000_000, measured_only=True, horizon=15)
    assert moved[0][3] not in (4, 16, 64)


HOST = Tier(name="host", windows=50)


def test_a_tier_is_chosen_where_it_may_be() -> None:
    """None named is all that were measured; an empty list is the device alone."""
    rows = [a_row(4, 0.9), a_row(16, 0.5), dataclasses.replace(a_row(16, 0.1), tier=HOST)]

    def tier(**asked: Any) -> Tier | None:
        (found,) = recommend_from(a_profile(*rows), RecommendRequest(budget_bytes=10**9, **asked))
        return found.tier

    assert tier() == tier(tiers=("host",)) == tier(tiers=("disk", "host")) == HOST
    assert tier(tiers=()) is tier(tiers=("disk",)) is None


def test_flags_are_those_that_are_asked_for_or_none() -> None:
    """Where everything was measured under flags, those; what nothing was measured under is refused."""
    rows = [a_row(4, 0.9), a_row(16, 0.1, xla_flags="--f"), a_row(16, 0.2, xla_flags="--g")]

    def flags(rows: Sequence[Measurement], **asked: Any) -> str:
        (found,) = recommend_from(a_profile(*rows), RecommendRequest(budget_bytes=10**9, **asked))
        return found.xla_flags

    assert flags(rows) == flags(rows, xla_flags=("",)) == ""
    assert flags(rows, xla_flags=("--g",)) == "--g"
    assert flags(rows, xla_flags=("--g", "--f")) == flags(rows[1:]) == "--f"
    assert flags(rows, xla_flags=("--h", "--g")) == "--g"
    said = refusal(rows, xla_flags=("--i", "--h"))
    assert "nothing was measured under XLA_FLAGS '--h' or '--i', only under '', '--f', '--g'" in said


def test_the_smallest_that_is_known_is_that_of_the_values_that_are_asked_for() -> None:
    """Of what ended well; None where no bytes are known."""
    lost = a_row(1, None, status=Status.OUT_OF_MEMORY, set_values={"width": 16, "deep": True})

    def smallest(*rows: Measurement) -> list[int | None]:
        request = RecommendRequest(budget_bytes=1000, margin_bytes=5, set_values={"width": 16})
        found = recommend_from(a_profile(*rows), request)
        assert {(one.status, one.checkpoints, one.margin_bytes) for one in found} == {(Fit.NOTHING_FITS, None, 5)}
        return [one.smallest_bytes for one in found]

    assert smallest(*WIDTHS, lost) == [1_600_000]
    assert smallest(WIDTHS[0], dataclasses.replace(WIDTHS[1], peak_bytes=None)) == [None]


def test_what_is_expected_of_the_adjoint_is_what_was_accepted() -> None:
    """Of 1,000 steps 800 were accepted, and the backward pass visits those."""
    (found,) = recommend_from(a_profile(a_row(16, 0.5, accepted=800)), RecommendRequest(budget_bytes=10**9))
    assert (found.steps, found.accepted, found.expected_steps) == (1000, 800, 800)


def test_several_budgets_are_answered_as_each_alone() -> None:
    """In any order, from those in which nothing fits to those in which all does, with what would change each."""
    budgets = [40_000_000, 1_000, 200_000_000, 5_000_000, 40_000_000, 12_345_678]
    together = recommend_within(TYPICAL, RecommendRequest(budget_bytes=1), budgets)
    assert together == [recommend_from(TYPICAL, RecommendRequest(budget_bytes=budget)) for budget in budgets]
    assert [choice.budget_bytes for (choice,) in together] == budgets
    assert len({(choice.checkpoints, choice.runner_up, choice.would_change) for (choice,) in together}) > 2
