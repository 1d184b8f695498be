"""Which steps the backward pass visits at a count: what is counted beforehand, against calls of a real field."""

import dataclasses
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
import pytest

import adjoint
from autotune.adjoints import Work, make_adjoint
from autotune.choosing.recommend import works_of
from autotune.measuring.rows import blank_row
from autotune.measuring.trial import Trial
from autotune.problem.loading import load_problem
from autotune.problem.probe import observe
from autotune.problem.steps import Observation
from profiles import AdjointName, Measurement

MAX_STEPS = 4096
STAGES = 2
"""Calls of the field in a pass of Heun, whose first stage is not the last of the step before."""
SEEN_ON_THE_WAY = 0.02
"""Where all passes are visited, the adjoint places for a number of them that it learns as it goes."""
calls: list[None] = []


def field(t: Any, y: Any, rate: Any) -> Any:
    """A few fast swings, at which steps are rejected; counts its calls."""
    jax.debug.callback(lambda: calls.append(None))
    return rate * jnp.sin(y) + 3.0 * jnp.exp(-300.0 * jnp.sin(t) ** 2)


def make(*, adjoint: Any, size: int = 2, solver: str = "Heun", lanes: int = 0, max_steps: int = MAX_STEPS):
    """A gradient through a solve of `size` floats, over lanes that do the same if there are any."""

    def loss(rate: Any) -> Any:
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(field), getattr(diffrax, solver)(), 0.0, 7.0, 0.5, jnp.linspace(1.0, 0.3, size), rate,
            stepsize_controller=diffrax.PIDController(rtol=1e-3, atol=1e-5), adjoint=adjoint, max_steps=max_steps,
        )  # fmt: skip
        assert solution.ys is not None
        return jnp.sum(solution.ys**2)

    gradient = jax.grad(loss)
    return (jax.vmap(gradient), (jnp.full(lanes, -0.4),)) if lanes else (gradient, (jnp.array(-0.4),))


def seen(**values: Any) -> Observation:
    """Count the steps of the problem."""
    return observe(load_problem(make, set_values=values))


def threshold(**values: Any) -> int | None:
    """Give from which count on the one solve of the problem leaves rejected steps out."""
    (site,) = seen(**values).sites
    return site.accepted_from


def worked(**values: Any) -> tuple[Observation, Work]:
    """Count the steps of the problem, which rejects some."""
    found = seen(**values)
    work = found.work()
    assert work is not None
    assert work.predicted < 0.9 * work.steps
    return found, work


def row_of(found: Observation, work: Work, checkpoints: int) -> Measurement:
    """Make the row of a count as the tuner makes it before anything is measured."""
    trial = Trial(
        study="s", problem="m:make", adjoint=AdjointName.OURS, checkpoints=checkpoints, expected_steps=work.predicted,
        steps=found.steps, accepted=found.accepted, rejected=found.rejected, reversed_steps=work.visited(checkpoints),
    )  # fmt: skip
    return blank_row(trial)


def passes_made(work: Work, checkpoints: int, **values: Any) -> float:
    """Differentiate with the adjoint of the tuner, and count the passes; all lanes make one together."""
    ours = make_adjoint(AdjointName.OURS, checkpoints, work.predicted)
    fn, args = make(adjoint=ours, **values)
    calls.clear()
    jax.block_until_ready(jax.jit(fn)(*args))
    jax.effects_barrier()
    return len(calls) / STAGES


def test_below_the_threshold_all_passes_are_visited_and_from_it_on_the_accepted_ones() -> None:
    """Executed steps are those that were made on either side of it, and rows of both sides show where it lies."""
    found, work = worked(size=512)
    assert work.accepted_from == 64  # 4,096 times of 4 bytes are an eighth of 64 states of 512 floats
    assert (work.visited(63), work.visited(64)) == (found.steps, found.accepted)
    made = {count: row_of(found, work, count) for count in (6, 63, 64)}
    for count in (6, 63):
        executed = passes_made(work, count, size=512)
        assert made[count].executed_steps == pytest.approx(executed, rel=SEEN_ON_THE_WAY), count
    assert made[64].executed_steps == passes_made(work, 64, size=512)
    (told,) = works_of(made.values()).values()
    # Rows of counts below the bound on the steps tell nothing of it, nor of the counts that follow from it.
    assert told == dataclasses.replace(work, switches=(), everything=None)


@pytest.mark.parametrize("values", [{"size": 2}, {"size": 512, "lanes": 2}], ids=["small", "mapped"])
def test_a_small_state_and_a_mapped_solve_have_all_passes_visited(values: dict[str, int]) -> None:
    """At any count that a solve could use, of two floats; at any at all, under vmap."""
    found, work = worked(**values)
    assert work.visited(MAX_STEPS) == found.steps
    executed = passes_made(work, 9, **values)
    assert row_of(found, work, 9).executed_steps == pytest.approx(executed, rel=SEEN_ON_THE_WAY)


@pytest.mark.parametrize(
    ("values", "count"),
    [
        ({"size": 2, "solver": "Tsit5"}, 8 * 4 * MAX_STEPS // (2 * 4)),
        ({"size": 2, "solver": "Tsit5", "max_steps": 512}, 1),
        ({"size": 4096, "solver": "Tsit5"}, 8),
        ({"size": 2, "solver": "Tsit5", "max_steps": None}, None),
    ],
)
def test_the_threshold_is_that_of_the_record_of_times(values: dict[str, Any], count: int | None) -> None:
    """One of 2 KiB is always kept, a larger one from eight times its bytes of states on, none without bound."""
    assert threshold(**values) == count


def test_a_solve_of_fixed_steps_has_no_threshold() -> None:
    """It rejects none; the controller decides, whatever the state."""
    state = jax.eval_shape(lambda: None)
    for controller in (diffrax.ConstantStepSize(), diffrax.StepTo(jnp.linspace(0.0, 1.0, 5))):
        assert adjoint.accepted_steps_from(state, controller, 100) is None
