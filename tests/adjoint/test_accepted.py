"""Adaptive solves reverse their accepted steps only, where that gives the gradient of the whole solve."""

import logging
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import adjoint
from adjoint.loop import recorded

from .compiled import temporary_bytes
from .plain import assert_close

pytestmark = pytest.mark.usefixtures("x64")

STAGES = 3
"""Vector field evaluations of a Bosh3 step; its first stage is the last of the step before."""
reversals: list[None] = []


@jax.custom_vjp
def counted(y: Any) -> Any:
    """Be the identity, and count how often it is reversed."""
    return y


counted.defvjp(
    lambda y: (y, None), lambda _, ct: (jax.debug.callback(lambda: reversals.append(None)), ct)[1:]
)  # fmt: skip


def field(t: Any, y: Any, args: Any) -> Any:
    """A few fast swings, at which steps are rejected."""
    return counted(args * jnp.sin(y) + 3.0 * jnp.exp(-300.0 * jnp.sin(t) ** 2))


class Differentiated(diffrax.PIDController):
    """A controller whose next step depends differentiably on the state, as one of a third party may."""

    def adapt_step_size(self, t0: Any, t1: Any, y0: Any, y1_candidate: Any, *rest: Any) -> Any:
        """Shrink the next step a little where the state is large."""
        keep, next_t0, next_t1, *others = super().adapt_step_size(t0, t1, y0, y1_candidate, *rest)
        shrink = 1.0 - 0.01 * jnp.tanh(jnp.sum(y1_candidate) ** 2)
        return keep, next_t0, next_t0 + (next_t1 - next_t0) * shrink, *others


CONTROLLER = diffrax.PIDController(rtol=1e-4, atol=1e-6)


def solve(parameters: Any, with_adjoint: Any, controller: Any = CONTROLLER, **options: Any) -> Any:
    """Solve, in at most 512 steps if nothing else is said."""
    rate, y0, t1 = parameters
    return diffrax.diffeqsolve(
        diffrax.ODETerm(field), diffrax.Bosh3(), 0.0, t1, 0.5, y0, rate,
        stepsize_controller=controller, adjoint=with_adjoint, **{"max_steps": 512, **options},
    )  # fmt: skip


def loss(parameters: Any, with_adjoint: Any, **options: Any) -> Any:
    """Return a scalar of the solution, and the numbers of steps."""
    solution = solve(parameters, with_adjoint, **options)
    return jnp.sum(solution.ys**2), solution.stats


PARAMETERS = np.array(-0.4), np.array([1.0, 0.3]), np.array(7.0)


def gradient(with_adjoint: Any, moving: int = 2, **options: Any) -> tuple[Any, Any, int]:
    """Differentiate the first `moving` parameters; also return the statistics and how many steps were reversed."""

    def of(*parameters: Any) -> Any:
        return loss((*parameters, *PARAMETERS[moving:]), with_adjoint, **options)

    reversals.clear()
    run = jax.jit(jax.grad(of, argnums=tuple(range(moving)), has_aux=True))
    found, stats = jax.block_until_ready(run(*PARAMETERS[:moving]))
    jax.effects_barrier()
    return found, stats, len(reversals)


ours, theirs = adjoint.RecursiveCheckpointAdjoint(checkpoints=7), diffrax.RecursiveCheckpointAdjoint(checkpoints=7)


def test_only_accepted_steps_are_reversed() -> None:
    """The vector field is transposed for no rejected step, and the gradient is Diffrax's."""
    found, stats, count = gradient(ours)
    expected, _, _ = gradient(theirs)
    assert stats["num_rejected_steps"] > 0.1 * stats["num_steps"]
    assert count == STAGES * stats["num_accepted_steps"] + 1  # the first slope of all
    assert_close(found, expected, 1e-10)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"moving": 3}, "the times of its steps are differentiated"),
        ({"controller": Differentiated(rtol=1e-4, atol=1e-6)}, "the times of its steps are differentiated"),
    ],
    ids=["end", "controller"],
)
def test_differentiated_times_are_noticed(options: dict[str, Any], reason: str, caplog: Any) -> None:
    """Where the times depend on what is differentiated all passes are replayed, and the log says so once."""
    recorded._said.clear()
    with caplog.at_level(logging.INFO, logger="adjoint"):
        found, stats, count = gradient(ours, **options)
        gradient(ours, **options)
    expected, _, _ = gradient(theirs, **options)
    assert count > STAGES * stats["num_steps"]
    assert [reason in record.message for record in caplog.records if record.name == "adjoint.loop.recorded"] == [True]
    assert_close(found, expected, 1e-10)


@pytest.mark.parametrize("max_steps", [10, 11, *(pytest.param(m, marks=pytest.mark.slow) for m in (9, 12))])
def test_a_solve_cut_short_keeps_its_last_pass(max_steps: int) -> None:
    """Whether `max_steps` ends it on an accepted pass or on a rejected one."""
    options = {"max_steps": max_steps, "throw": False, "saveat": diffrax.SaveAt(steps=True, t1=True)}
    found, expected = (
        jax.grad(
            lambda r, a=a: jnp.sum(
                jnp.where(jnp.isfinite(x := solve((r, *PARAMETERS[1:]), a, **options).ys), x, 0.0) ** 2
            )
        )(PARAMETERS[0])
        for a in (ours, theirs)
    )
    assert_close(found, expected, 1e-10)


def test_lanes_that_accept_at_different_passes_have_their_own_gradients() -> None:
    """Under vmap every pass is replayed, and each lane's gradient is Diffrax's."""
    starts = jnp.array([[1.0, 0.3], [2.5, -1.0], [0.1, 4.0]])

    def total(rate: Any, starts: Any, with_adjoint: Any) -> Any:
        return jnp.sum(jax.vmap(lambda y: loss((rate, y, PARAMETERS[2]), with_adjoint)[0])(starts))

    found, expected = (jax.grad(total, argnums=(0, 1))(PARAMETERS[0], starts, a) for a in (ours, theirs))
    assert_close(found, expected, 1e-10)


@pytest.mark.parametrize("checkpoints", [3, *(pytest.param(c, marks=pytest.mark.slow) for c in (1, 8))])
def test_gradients_of_each_lane_are_its_own(checkpoints: int) -> None:
    """Under vmap of grad lanes run out at different passes; some when a checkpoint was due, some on rejected passes."""
    count = 24
    starts = jax.random.normal(jax.random.key(1), (count, 2)) * jnp.linspace(0.1, 6.0, count)[:, None]

    def each(with_adjoint: Any, max_steps: int) -> Any:
        def one(rate: Any, y: Any) -> Any:
            options = {"max_steps": max_steps, "throw": False}
            return loss((rate, y, PARAMETERS[2]), with_adjoint, **options)[0]

        return jax.jit(jax.vmap(jax.grad(one, argnums=(0, 1)), in_axes=(None, 0)))(PARAMETERS[0], starts)

    kinds = adjoint.RecursiveCheckpointAdjoint, diffrax.RecursiveCheckpointAdjoint
    for max_steps in (512, 20):
        found, expected = (each(kind(checkpoints=checkpoints), max_steps) for kind in kinds)
        assert_close(found, expected, 1e-9)


def test_a_record_that_is_large_beside_the_checkpoints_is_not_kept() -> None:
    """With a million steps allowed there is no record: memory does not grow with the bound."""
    sizes = [
        temporary_bytes(
            jax.grad(lambda r, m=m: loss((r, *PARAMETERS[1:]), ours, max_steps=m, throw=False)[0]), PARAMETERS[0]
        )
        for m in (10**5, 10**6)
    ]
    assert sizes[1] <= sizes[0] + 1024


def test_no_error_is_estimated_in_a_replay() -> None:
    """The compiled program takes the root of an error norm in the forward sweep only."""
    run = jax.jit(jax.grad(lambda r: loss((r, *PARAMETERS[1:]), ours)[0]))
    lines = run.lower(PARAMETERS[0]).compile().as_text().splitlines()
    powers = [line for line in lines if " power(" in line or " sqrt(" in line]
    assert powers
    assert not [line for line in powers if "transpose(" in line]
