"""Choosing again while a training runs, from rows made by hand: nothing is measured, and no device is read."""

import dataclasses
from typing import Any

import numpy as np
import pytest

import adjoint
from autotune import AdjointSchedule, AutoChoice, AutotuneError, Recommendation, StepMonitor
from autotune.adjoints import Work
from autotune.choosing.recommend import Evidence, Fit, RecommendRequest, recommend_from
from autotune.machine.budget import Budget
from autotune.runtime import monitor
from autotune.runtime.monitor import STEPS_RANGE, choose_at, work_at
from profiles import Case, Measurement
from tests.autotune.rows import a_profile, a_row

BUDGET = 10_000_000
ROWS = tuple(
    a_row(count, 1e-5 * adjoint.executed_steps(1000, count, 1000), argument_bytes=500_000)
    for count in (9, 20, 45, 1000)
)


def choice_of(rows: tuple[Measurement, ...] = ROWS, budget_bytes: int = BUDGET, **changes: Any) -> AutoChoice:
    """A choice as the first look at the problem makes it: 45 checkpoints take 5.5 MB."""
    (chosen,) = recommend_from(a_profile(*rows), RecommendRequest(budget_bytes=budget_bytes, measured_only=True))
    return AutoChoice(
        recommendation=dataclasses.replace(chosen, **changes), problem=rows[0].problem, rows=rows,
        budget=Budget(bytes=budget_bytes, margin_bytes=0, asked=str(budget_bytes)), source="profile", cost_seconds=0.0,
    )  # fmt: skip


class Free:
    """A device of which only the free bytes are known."""

    free_bytes: int | None = None


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Free:
    """A device whose free bytes the test sets."""
    found = Free()
    monkeypatch.setattr(monitor, "device_info", lambda device: found)
    return found


@pytest.fixture
def watching(monkeypatch: pytest.MonkeyPatch, device: Free) -> StepMonitor:
    """A monitor of a solve of 1,000 steps with 45 checkpoints."""
    monkeypatch.setattr(monitor, "auto_choice", lambda ask, store: choice_of())
    return StepMonitor("p:make", budget=BUDGET, horizon=10, tolerance=1e-3)


def test_the_first_choice_is_the_one_that_was_made(watching: StepMonitor) -> None:
    """Its adjoint has its count and its prediction."""
    assert (watching.choice.checkpoints, watching.adjoint.checkpoints) == (45, 45)
    assert watching.adjoint.expected_steps == 1000


@pytest.mark.parametrize(("steps", "again"), [(1000, False), (1150, False), (1151, True), (870, False), (869, True)])
def test_steps_may_leave_what_was_predicted_by_fifteen_per_cent(watching: StepMonitor, steps: int, again: bool) -> None:
    """Either way; then the prediction follows, and later steps are compared with that."""
    assert STEPS_RANGE == 1.15
    assert watching.update(steps) is again
    assert watching.adjoint.expected_steps == (steps if again else 1000)
    assert watching.choice.recommendation.evidence is (Evidence.INTERPOLATED if again else Evidence.MEASURED)
    assert watching.update(steps) is False


def test_of_a_batch_the_largest_counts(watching: StepMonitor) -> None:
    """Accepted steps are what is predicted; all steps are what the solve makes."""
    assert watching.update({"num_accepted_steps": np.array([1000, 900]), "num_steps": np.array([3000, 10])}) is False
    assert watching.update({"num_accepted_steps": np.array([100, 2000]), "num_steps": np.array([2500, 200])})
    chosen = watching.choice.recommendation
    assert (chosen.expected_steps, chosen.steps, chosen.accepted) == (2000, 2500, 2000)
    assert chosen.between == "stored laws"


def test_more_steps_take_what_is_fastest_then_within_the_same_budget(watching: StepMonitor) -> None:
    """The count that is chosen fits for certain, and is one that the laws tell of."""
    watching.update(3000)
    chosen = watching.choice.recommendation
    assert chosen.checkpoints is not None
    assert chosen.peak_high_bytes is not None
    assert chosen.peak_high_bytes <= BUDGET
    assert 45 <= chosen.checkpoints <= 90


@pytest.mark.parametrize(("free", "again"), [(None, False), (5_000_000, False), (4_999_999, True), (10**9, False)])
def test_what_is_held_by_the_arguments_counts_as_free(
    watching: StepMonitor, device: Free, free: int | None, again: bool
) -> None:
    """45 checkpoints take 5.5 MB, of which half a megabyte are arguments that are held already."""
    device.free_bytes = free
    assert watching.update(1000) is again
    peak = watching.choice.recommendation.peak_high_bytes
    assert peak is not None
    assert peak <= (5_500_000 if free is None else free + 500_000)
    assert watching.adjoint.expected_steps == 1000


def test_where_nothing_fits_any_more_it_says_what_is_left_and_what_is_needed(
    watching: StepMonitor, device: Free
) -> None:
    """The choice stays as it was."""
    device.free_bytes = 100_000
    with pytest.raises(AutotuneError, match=r"p:make: 600000 bytes are left and the smallest count needs \d+"):
        watching.update(1000)
    assert watching.choice.checkpoints == 45


def test_less_memory_and_more_steps_at_once_are_one_new_choice(watching: StepMonitor, device: Free) -> None:
    """Within what is left, at the steps that there are."""
    device.free_bytes = 3_000_000
    assert watching.update(1300)
    chosen = watching.choice.recommendation
    assert (chosen.expected_steps, chosen.budget_bytes) == (1300, 3_500_000)
    assert (chosen.peak_high_bytes or 0) <= 3_500_000


def test_choosing_at_the_steps_that_were_measured_is_the_first_choice_again() -> None:
    """And other steps are told by the same laws; what cannot fit says the least."""
    work = Work(steps=1000, reversed_steps=1000, accepted=1000)
    made = choice_of()
    assert (choose_at(made, work, 5_500_000).checkpoints or 0) >= 40
    nothing = choose_at(made, work, 1_000_000)
    assert (nothing.status, nothing.checkpoints) == (Fit.NOTHING_FITS, None)
    assert nothing.smallest_bytes is not None
    assert 1_500_000 <= nothing.smallest_bytes <= 1_900_000
    empty = choose_at(dataclasses.replace(made, rows=(a_row(9, None, xla_flags="--f"),)), work, BUDGET)
    assert (empty.status, empty.smallest_bytes) == (Fit.NOTHING_FITS, None)


@pytest.mark.parametrize(
    ("visits", "work"),
    [
        ({9: 1000, 20: 800, 45: 800}, Work(steps=2000, reversed_steps=1500, accepted_from=20)),
        ({20: 800, 45: 800}, Work(steps=2000, reversed_steps=1500)),
        ({9: 1000, 20: 1000, 45: 1000}, Work(steps=2000, reversed_steps=2000, accepted=1500)),
    ],
    ids=["both", "accepted", "all"],
)
def test_which_steps_of_another_solve_are_visited_is_what_the_rows_show(visits: dict[int, int], work: Work) -> None:
    """From a count on, always, or never are rejected ones left out."""
    rows = tuple(
        a_row(
            count, 1e-5 * (1000 - count), steps=1000, accepted=800,
            executed_steps=adjoint.executed_steps(visited, count, visited) + 1000 - visited,
        )
        for count, visited in visits.items()
    )  # fmt: skip
    assert work_at(choice_of(rows), 2000, 1500) == work
    elsewhere = choice_of(rows, case=Case(11.0, 1e-3))
    assert work_at(elsewhere, 2000, 1500) == work


# --- a curriculum


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The questions of the first looks, each answered by rows of a hundred steps to a unit of horizon."""
    questions: list[Any] = []

    def answer(ask: Any, store: str | None) -> AutoChoice:
        questions.append((ask.horizon, ask.tolerance))
        steps = round(100 * ask.horizon * (1e-3 / (ask.tolerance or 1e-3)) ** 0.2)
        rows = tuple(
            dataclasses.replace(
                row, horizon=ask.horizon, tolerance=ask.tolerance, steps=steps, accepted=steps,
                run_seconds=(1e-5 * adjoint.executed_steps(steps, row.checkpoints, steps),) * 3,
            )
            for row in ROWS
        )  # fmt: skip
        return choice_of(rows)

    monkeypatch.setattr(monitor, "auto_choice", answer)
    return questions


def test_a_schedule_looks_at_the_ends_alone_and_tells_what_lies_between(asked: list[Any]) -> None:
    """Three horizons and three tolerances: four looks, nine entries."""
    schedule = AdjointSchedule(
        "p:make", budget=BUDGET, horizons=[10, 5, 20], tolerances=[1e-3, 1e-5, 1e-4], set_values={}
    )
    assert sorted(asked) == [(5, 1e-5), (5, 1e-3), (20, 1e-5), (20, 1e-3)]
    assert schedule.expected_steps(horizon=10, tolerance=1e-3) == pytest.approx(1000, rel=0.01)
    assert schedule.expected_steps(horizon=10, tolerance=1e-4) == pytest.approx(1000 * 10**0.2, rel=0.01)
    made = schedule(horizon=20, tolerance=1e-5)
    assert made.expected_steps == schedule.expected_steps(horizon=20, tolerance=1e-5)
    counts = [schedule(horizon=h, tolerance=t).checkpoints for h in (5, 10, 20) for t in (1e-3, 1e-4, 1e-5)]
    assert schedule.checkpoints == max(counts)


def test_what_was_not_listed_is_refused_with_what_was(asked: list[Any]) -> None:
    """A single horizon is one look."""
    schedule = AdjointSchedule("p:make", budget=BUDGET, horizons=[10.0])
    assert asked == [(10.0, None)]
    with pytest.raises(AutotuneError, match=r"horizon 7.0, .* were not listed; the schedule has horizon 10"):
        schedule(horizon=7.0)
    with pytest.raises(AutotuneError, match="were not listed"):
        schedule.expected_steps(horizon=10.0, tolerance=1e-3)


def test_a_curriculum_of_which_a_part_fits_nowhere_is_refused(
    asked: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The parts are named."""
    nothing = Recommendation(case=Case(5), status=Fit.NOTHING_FITS, budget_bytes=BUDGET)
    monkeypatch.setattr(
        monitor, "recommend_from",
        lambda profile, request: [nothing] if request.horizon == 5 else recommend_from(profile, request),
    )  # fmt: skip
    with pytest.raises(AutotuneError, match=r"nothing of p:make fits the budget at horizon 5$"):
        AdjointSchedule("p:make", budget=BUDGET, horizons=[5, 10])


def test_a_choice_says_itself_in_one_line() -> None:
    """With what it rests on and what asking cost."""
    said = str(choice_of())
    assert said == (
        "p:make at horizon 10, tolerance 1e-3: 45 checkpoints of 1000 steps, peak 5.25 MiB, 29.6 ms a call, recompute "
        "factor 2.96, budget 9.54 MiB; measured, from a profile, in 0 s"
    )
    bare = str(choice_of(run_seconds=None, recompute_factor=None, peak_bytes=None, accepted=None, between="laws"))
    assert "45 checkpoints of ? steps, peak unknown, budget 9.54 MiB; measured (laws), from" in bare
