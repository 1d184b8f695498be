"""How sure a recommendation is: the interval of a median against all samples of coins, and what would change it."""

import dataclasses
import itertools
import math

import pytest

import adjoint
from autotune.adjoints import Work
from autotune.choosing.outlook import interval, outlook
from autotune.choosing.recommendation import Evidence, Fit, Option, Recommendation
from autotune.model.cells import Cell
from autotune.model.ranges import Range
from profiles import AdjointName, Case

CASE = Case(10.0, None)
WORK = Work(steps=100, reversed_steps=100, accepted=100, everything=400)
SAID = Recommendation(
    case=CASE, status=Fit.OK, budget_bytes=1000, checkpoints=20, expected_steps=100, peak_bytes=900, run_seconds=1.0
)


def option(checkpoints: int, size: float, seconds: float | None, *, timed: bool = True) -> Option:
    """A candidate whose figures are exact."""
    return Option(
        cell=Cell(CASE), checkpoints=checkpoints, peak=Range(size, size, size), executed_steps=None, timed=timed,
        seconds=None if seconds is None else Range(seconds, seconds, seconds),
    )  # fmt: skip


@pytest.mark.parametrize("count", range(3, 16))
def test_the_interval_of_a_median_misses_it_as_rarely_as_it_says(count: int) -> None:
    """Of n samples each lies above the median or below it with equal chance: all 2^n ways are gone through."""
    low, high = interval(list(range(count)))  # type: ignore[misc]
    # With b samples below the median it lies between the values of ranks b - 1 and b.
    missed = sum(
        math.comb(count, below) for below in range(count + 1) if not low < below <= high
    ) / 2**count  # fmt: skip
    assert missed <= 0.05 or (low, high) == (0, count - 1)
    tighter = sum(math.comb(count, below) for below in range(count + 1) if not low + 1 < below <= high - 1) / 2**count
    assert tighter > 0.05


def test_the_order_of_samples_does_not_matter_and_few_say_nothing() -> None:
    """Every permutation of four; two samples bound nothing."""
    assert {interval(one) for one in itertools.permutations([3.0, 1.0, 2.0, 5.0])} == {(1.0, 5.0)}
    assert interval([1.0, 2.0]) is None


def test_the_runner_up_is_the_next_best_that_fits() -> None:
    """Not the choice itself, nor what exceeds the budget, nor what was not timed or forecast."""
    others = [option(20, 900, 1.0), option(30, 950, None), option(16, 800, 1.2), option(12, 700, 1.1)]
    found = outlook(SAID, [*others, option(40, 5000, 0.2)], WORK, AdjointName.OURS)
    assert (found.runner_up, found.runner_up_seconds) == (16, 1.2)


def test_more_memory_is_mentioned_where_it_buys_a_tenth_and_the_least_that_does() -> None:
    """Of three larger counts the second is the smallest that is worth it."""
    larger = [option(30, 1500, 0.95), option(60, 1000 + 2**20, 0.5, timed=False), option(90, 2**30, 0.25)]
    found = outlook(SAID, [option(20, 900, 1.0), *larger], WORK, AdjointName.OURS)
    assert found.would_change[0] == "with 1 MiB more: 2.0x faster at 60 checkpoints (forecast)"
    assert not any("faster" in line for line in outlook(SAID, larger[:1], WORK, AdjointName.OURS).would_change)


def test_more_steps_fit_and_cost_what_the_adjoint_executes_with_the_old_prediction() -> None:
    """Counted by the adjoint's own theory: 125 steps placed for 100."""
    (line,) = outlook(SAID, [], WORK, AdjointName.OURS).would_change
    ratio = adjoint.executed_steps(125, 20, 100) / adjoint.executed_steps(100, 20, 100)
    assert line.startswith("more steps up to max_steps=400 fit as well")
    assert line.endswith(f"25% more would execute {ratio:.2f}x the steps")
    without = dataclasses.replace(WORK, everything=None)
    assert "max_steps" not in outlook(SAID, [], without, AdjointName.OURS).would_change[0]
    assert outlook(SAID, [], None, AdjointName.OURS).would_change == ()


def test_what_was_said_stays() -> None:
    """Only what is added differs."""
    found = outlook(SAID, [option(16, 800, 1.2)], WORK, AdjointName.OURS)
    added = {"runner_up": None, "runner_up_seconds": None, "would_change": ()}
    assert dataclasses.replace(found, **added) == SAID
    assert SAID.steps_evidence is None
    assert Evidence.MEASURED == "measured"
