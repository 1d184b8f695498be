"""The theory of schedules, held to exhaustive search, to `checkpoint_schedules`, and to a machine that executes it."""

import itertools
import math
import subprocess
import sys

import checkpoint_schedules
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import adjoint
from adjoint.theory import schedule as theory

from .reversal import Machine, advances_by_recursion, advances_by_search

COUNTS = st.integers(1, 40)
STEPS = st.integers(0, 400)


def actions(steps: int, checkpoints: int, expected_steps: int | None = None) -> list[tuple[str, int, int, int]]:
    """List a schedule as plain tuples."""
    return [(a.kind, a.start, a.stop, a.slot) for a in theory.schedule(steps, checkpoints, expected_steps)]


def ratio(steps: int, checkpoints: int, expected_steps: int | None = None) -> float:
    """Compute executed steps over the offline optimum."""
    return theory.executed_steps(steps, checkpoints, expected_steps) / theory.optimal_steps(steps, checkpoints)


def sampled_steps(first: int, last: int, count: int) -> list[int]:
    """Sample steps evenly in the logarithm, every one of the small ones included."""
    small = np.arange(first, min(first + count // 2, last + 1))
    return sorted({*map(int, small), *map(int, np.geomspace(first, last, count).round())})


#
# The offline optimum
#


@pytest.mark.parametrize(("steps", "slots"), list(itertools.product(range(9), range(1, 5))))
def test_the_advances_are_the_fewest_of_all_schedules(steps: int, slots: int) -> None:
    """A search that assumes nothing of a schedule's structure finds none with fewer advances, and one with as many."""
    assert theory.advances(steps, slots) == advances_by_search(steps, slots)


def test_the_advances_are_those_of_dynamic_programming() -> None:
    """The closed form equals the best over every place for the next checkpoint, for all n < 130 and up to 11 slots."""
    for steps, slots in itertools.product(range(130), range(1, 12)):
        assert theory.advances(steps, slots) == advances_by_recursion(steps, slots), (steps, slots)


def test_the_split_is_the_largest_optimal_one() -> None:
    """Placing the next checkpoint there keeps the optimum; no larger distance does."""
    for steps, slots in itertools.product(range(2, 100), range(2, 10)):
        costs = {
            near: near + advances_by_recursion(steps - near, slots - 1) + advances_by_recursion(near, slots)
            for near in range(1, steps)
        }
        best = min(costs.values())
        found = theory.split(steps, slots)
        assert costs[found] == best, (steps, slots)
        assert all(cost > best for near, cost in costs.items() if near > found), (steps, slots)


@given(st.integers(0, 10**9), st.integers(1, 300))
def test_the_repetition_number_is_the_smallest_that_holds_the_block(steps: int, slots: int) -> None:
    """binom(s + r, s) reaches the steps at r and not before."""
    r = theory.repetition(steps, slots)
    assert math.comb(slots + r, slots) >= steps
    assert r == 0 or math.comb(slots + r - 1, slots) < steps


def test_the_optimum_counts_the_taped_steps_the_last_forward_step_and_the_advances() -> None:
    """Spelled out for small cases that can be done by hand."""
    assert [adjoint.optimal_steps(n, 1) for n in range(5)] == [0, 2, 4, 7, 11]
    assert [adjoint.optimal_steps(n, n) for n in range(1, 6)] == [2, 4, 6, 8, 10]
    assert adjoint.optimal_steps(10, 3) == 10 + 1 + 15


def test_the_optimum_agrees_with_checkpoint_schedules() -> None:
    """One more than that package's count, which leaves the last step of the forward pass to the taped one."""
    for steps, slots in itertools.product((1, 2, 3, 5, 8, 17, 40, 61), (1, 2, 3, 5, 8)):
        theirs = checkpoint_schedules.optimal_steps_binomial(steps, slots)
        assert adjoint.optimal_steps(steps, slots) == theirs + 1, (steps, slots)


def forward_steps(schedule: checkpoint_schedules.CheckpointSchedule, steps: int) -> int:
    """Count the forward steps of a schedule of that package, the taped ones included."""
    total = 0
    for action in schedule:
        if isinstance(action, checkpoint_schedules.Forward):
            total += min(action.n1, steps) - action.n0
        if isinstance(action, checkpoint_schedules.EndForward):
            schedule.finalize(steps)
        if isinstance(action, checkpoint_schedules.EndReverse):
            return total
    raise AssertionError("the schedule ended without reversing everything")


@pytest.mark.parametrize(("steps", "slots"), [(1, 1), (2, 1), (6, 2), (11, 3), (16, 4), (24, 3), (30, 6)])
def test_the_schedules_of_checkpoint_schedules_take_as_many_steps(steps: int, slots: int) -> None:
    """Executed action by action, two schedules of that package take the optimum without the last forward step."""
    multistage = checkpoint_schedules.MultistageCheckpointSchedule(steps, slots, 0)
    assert forward_steps(multistage, steps) == adjoint.optimal_steps(steps, slots) - 1
    if slots < steps:
        revolve = checkpoint_schedules.Revolve(steps, slots)
        assert forward_steps(revolve, steps) == adjoint.optimal_steps(steps, slots) - 1


#
# Our schedule, executed
#


@given(STEPS, COUNTS, st.none() | st.integers(0, 600))
def test_every_action_is_legal_and_counted(steps: int, checkpoints: int, expected_steps: int | None) -> None:
    """Every state is there when it is used, no slot is one too many, the evaluations are those promised."""
    machine = Machine(steps, checkpoints).execute(actions(steps, checkpoints, expected_steps))
    executed = adjoint.executed_steps(steps, checkpoints, expected_steps)
    assert machine.evaluations == executed
    assert executed >= adjoint.optimal_steps(steps, checkpoints)


def test_every_action_is_legal_for_all_small_cases() -> None:
    """The same for every n up to 16, c up to 6 and prediction up to 20: nothing is left to chance where corners are."""
    for steps, checkpoints in itertools.product(range(17), range(1, 7)):
        for expected_steps in (None, *range(21)):
            machine = Machine(steps, checkpoints).execute(actions(steps, checkpoints, expected_steps))
            assert machine.evaluations == adjoint.executed_steps(steps, checkpoints, expected_steps)


@given(STEPS, COUNTS)
def test_an_exact_prediction_is_counted_in_closed_form(steps: int, checkpoints: int) -> None:
    """The formula counts what the actions take, without listing where the checkpoints stand."""
    machine = Machine(steps, checkpoints).execute(actions(steps, checkpoints, steps))
    assert machine.evaluations == adjoint.executed_steps(steps, checkpoints, steps)


def test_a_billion_steps_are_counted_at_once() -> None:
    """At most the repetition number above the optimum, at sizes where nothing can be listed."""
    for steps, checkpoints in itertools.product((2**31, math.comb(60, 12)), (1, 2, 300, 10**6, 2**31)):
        above = adjoint.executed_steps(steps, checkpoints, steps) - adjoint.optimal_steps(steps, checkpoints)
        assert 0 <= above <= theory.repetition(steps, checkpoints)


@given(STEPS, COUNTS, st.none() | st.integers(0, 600))
def test_checkpoints_stand_in_order_within_the_solve(steps: int, checkpoints: int, expected_steps: int | None) -> None:
    """They begin with the initial state, increase, stay below the last step and fit the slots."""
    ends = adjoint.placement(steps, checkpoints, expected_steps)
    assert ends == sorted(set(ends))
    assert len(ends) <= checkpoints
    assert (ends[0] == 0 and ends[-1] < steps) if steps else ends == []


@given(st.integers(1, 300), COUNTS)
def test_the_forward_sweep_of_the_schedule_stands_where_placement_says(steps: int, checkpoints: int) -> None:
    """What is stored before the first reversal is the placement."""
    first = itertools.takewhile(lambda action: action[0] != "reverse", actions(steps, checkpoints))
    reached, stored = 0, {}
    for kind, start, stop, slot in first:
        if reached < steps and kind == "store":
            stored[slot] = start
        reached = max(reached, stop)
    assert sorted(stored.values()) == adjoint.placement(steps, checkpoints)


@given(st.integers(1, 200), COUNTS, st.none() | st.integers(0, 300))
def test_the_tree_holds_every_store_under_the_checkpoint_it_was_reached_from(
    steps: int, checkpoints: int, expected_steps: int | None
) -> None:
    """Replaying the actions finds for each store the same slot, end of block, count of sweeps and nearest parent."""
    nodes = adjoint.schedule_tree(steps, checkpoints, expected_steps)
    held: dict[int, int] = {}
    sweeps, end, seen = 0, steps, 0
    for kind, start, stop, slot in actions(steps, checkpoints, expected_steps):
        if kind == "advance":
            sweeps += 1
        elif kind == "reverse":
            end = start
        else:
            below = [index for other, index in held.items() if other < slot]
            held = {other: index for other, index in held.items() if other < slot} | {slot: seen}
            node = nodes[seen]
            assert (node.start, node.stop, node.slot, node.sweep) == (start, end, slot, sweeps)
            assert node.parent == (max(below) if below else None)
            assert stop == start
            seen += 1
    assert seen == len(nodes)


def test_nothing_is_recomputed_where_everything_is_stored() -> None:
    """With as many checkpoints as steps each step runs once forward and once taped, unless more was expected."""
    for steps in range(40):
        for expected_steps in (None, 0, steps // 2, steps):
            assert adjoint.executed_steps(steps, max(steps, 1), expected_steps) == 2 * steps


def test_no_steps_make_no_actions() -> None:
    """A solve of no steps has no schedule, no tree and no executed steps."""
    assert actions(0, 3) == []
    assert adjoint.schedule_tree(0, 3) == []
    assert adjoint.placement(0, 3) == []
    assert adjoint.executed_steps(0, 3) == adjoint.optimal_steps(0, 3) == 0


#
# How far from the optimum
#


def test_a_true_prediction_costs_at_most_the_repetition_number() -> None:
    """With expected_steps == steps: at most the optimum plus r, and more checkpoints are never slower."""
    for steps in sampled_steps(1, 100_000, 80):
        before = None
        for checkpoints in (*range(1, 40), *range(40, 257, 12)):
            executed = adjoint.executed_steps(steps, checkpoints, steps)
            bound = adjoint.optimal_steps(steps, checkpoints) + adjoint.repetition(steps, checkpoints)
            assert executed <= bound, (steps, checkpoints)
            assert before is None or executed <= before, (steps, checkpoints)
            before = executed


@pytest.mark.slow
def test_a_true_prediction_costs_at_most_the_repetition_number_everywhere() -> None:
    """The same for every n up to 1500 with every c up to 256, and on a finer sample up to 100,000."""
    for steps in (*range(1, 1500), *sampled_steps(1500, 100_000, 150)):
        before = None
        for checkpoints in range(1, 257):
            executed = adjoint.executed_steps(steps, checkpoints, steps)
            bound = adjoint.optimal_steps(steps, checkpoints) + adjoint.repetition(steps, checkpoints)
            assert executed <= bound, (steps, checkpoints)
            assert before is None or executed <= before, (steps, checkpoints)
            before = executed


def check_unknown(counts: list[int], checkpoints: list[int]) -> None:
    """Assert the bound of a solve whose number of steps nobody predicted."""
    worst = max((ratio(n, c), n, c) for n in counts for c in checkpoints)
    assert worst[0] <= 1.35, worst


def test_an_unknown_number_of_steps_costs_at_most_a_third_more() -> None:
    """Without a prediction: at most 1.35 times the optimum, on a sample of n <= 100,000 and c in 2..256."""
    check_unknown(sampled_steps(1, 100_000, 80), [2, 3, 4, 5, 7, 10, 16, 25, 64, 100, 256])


@pytest.mark.slow
@pytest.mark.parametrize("low", range(2, 257, 32))
def test_an_unknown_number_of_steps_costs_at_most_a_third_more_everywhere(low: int) -> None:
    """The same for every c in 2..256, every n up to 200 and a sample beyond."""
    counts = [*range(1, 200), *map(int, np.geomspace(200, 100_000, 120))]
    check_unknown(counts, list(range(low, min(low + 32, 257))))


WRONG = [2, 3, 4, 6, 10, 16, 32, 64, 128, 256]


def check_predicted(counts: list[int], checkpoints: list[int]) -> None:
    """Assert the bounds of a solve that was expected to take up to a tenth more or fewer steps than it did."""
    for steps, c in itertools.product(counts, checkpoints):
        # A sweep that runs past the last checkpoint costs up to the repetition number more, whatever was expected.
        slack = adjoint.repetition(steps, c) / adjoint.optimal_steps(steps, c)
        for share in (1.02, 1.05, 1.1):
            found = ratio(steps, c, math.floor(share * steps))
            assert found <= 1.08 + slack, (steps, c, share, found)
        for share in (0.98, 0.95, 0.9):
            found = ratio(steps, c, math.ceil(share * steps))
            assert found <= (1.2 if c >= 3 else 2.0) + slack, (steps, c, share, found)


def test_a_prediction_wrong_by_a_tenth_costs_little() -> None:
    """Up to 10 % too many expected: at most 1.08 times the optimum; too few: 1.2, and 2 for two checkpoints."""
    check_predicted(sampled_steps(20, 100_000, 40), WRONG)


@pytest.mark.slow
@pytest.mark.parametrize("low", range(2, 257, 32))
def test_a_prediction_wrong_by_a_tenth_costs_little_everywhere(low: int) -> None:
    """The same for every c in 2..256."""
    check_predicted(sampled_steps(20, 100_000, 120), list(range(low, min(low + 32, 257))))


#
# Defaults, errors, imports
#


def test_the_default_count_is_the_number_that_diffrax_takes() -> None:
    """About sqrt(2 max_steps): the formula in the code of Equinox's loop, which Diffrax uses."""
    for max_steps in (*range(2, 3000), 4096, 10**5, 10**6, 10**9):
        theirs = math.floor(-1.5 + math.sqrt(2 * max_steps + 0.25)) + 1
        assert adjoint.default_checkpoints(max_steps) == theirs, max_steps
    assert adjoint.default_checkpoints(1) == 1
    assert adjoint.default_checkpoints(4096) == 90


def test_the_default_count_stays_exact_where_floating_point_does_not() -> None:
    """For bounds beyond 2^53 it is still the smallest c with max_steps < (c + 1)(c + 2) / 2."""
    for c in (10**6, 10**9, 10**12 + 7):
        edge = (c + 1) * (c + 2) // 2
        assert adjoint.default_checkpoints(edge - 1) == c
        assert adjoint.default_checkpoints(edge) == c + 1


@pytest.mark.parametrize("function", ["optimal_steps", "executed_steps", "placement", "schedule_tree"])
def test_bad_numbers_are_refused_by_name(function: str) -> None:
    """Negative steps and fewer than one checkpoint are errors that repeat the number."""
    with pytest.raises(ValueError, match=r"steps must be at least 0, got -1"):
        getattr(adjoint, function)(-1, 3)
    with pytest.raises(ValueError, match=r"at least one checkpoint.*checkpoints=0"):
        getattr(adjoint, function)(3, 0)


def test_a_bound_below_one_has_no_default_count() -> None:
    """`default_checkpoints` asks for at least one step."""
    with pytest.raises(ValueError, match=r"max_steps must be at least 1, got 0"):
        adjoint.default_checkpoints(0)


def test_theory_loads_no_jax() -> None:
    """Importing `adjoint` and calling every function of the theory leaves jax, numpy, equinox and diffrax unloaded."""
    code = """
import sys
import adjoint
adjoint.optimal_steps(100, 5), adjoint.executed_steps(100, 5, 90), adjoint.default_checkpoints(4096)
adjoint.placement(100, 5), adjoint.schedule_tree(20, 3), list(adjoint.schedule(20, 3)), adjoint.repetition(20, 3)
assert adjoint.__all__ == dir(adjoint)
print(*(name for name in ("jax", "numpy", "equinox", "diffrax") if name in sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_an_unknown_name_is_an_attribute_error() -> None:
    """The lazy package says which name it does not have."""
    with pytest.raises(AttributeError, match=r"No adjoint attribute nothing"):
        adjoint.nothing  # noqa: B018 -- reading it is the point


@pytest.mark.parametrize("slots", [2, 3, 5, 70])
@pytest.mark.parametrize("steps", [10**6, 10**12, 10**16 + 1])
def test_the_repetition_number_of_very_many_steps_is_found_at_once(steps: int, slots: int) -> None:
    """It is the smallest whose binomial is not below the steps, also where it is itself a large number."""
    found = theory.repetition(steps, slots)
    assert math.comb(slots + found, slots) >= steps > math.comb(slots + found - 1, slots)
