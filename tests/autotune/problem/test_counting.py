"""Operations and bytes of a pass, against loops whose cost is known by hand."""

import dataclasses
import json

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

import adjoint
from autotune.problem.costs import PassCost, StepCosts, decode_costs, least_costs
from autotune.problem.counting import pass_cost, step_costs
from autotune.problem.loading import load_problem

WIDTH = 32


def costs(loss, *args) -> StepCosts:
    """Count the passes of a loss that takes an adjoint."""
    found = step_costs(load_problem(lambda *, adjoint: (jax.grad(lambda *a: loss(adjoint, *a)), args)))
    assert found is not None
    return found


def _solved(made, field, y0, solver=None, **options):
    solver = solver or diffrax.Euler()
    options = {"stepsize_controller": diffrax.ConstantStepSize(), "max_steps": 32, **options}
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(field), solver, 0.0, 1.0, 0.1, y0, adjoint=made, **options
    )  # fmt: skip
    return jnp.sum(jnp.asarray(solution.ys))


@pytest.mark.parametrize(("solver", "stages"), [(diffrax.Euler(), 1), (diffrax.Heun(), 2), (diffrax.Tsit5(), 6)])
def test_matrix_products_are_those_of_the_stages(solver, stages: int) -> None:
    """A stage multiplies once forward; reversed, its product and that of its cotangent, and one for the matrix."""
    matrix, y0 = jnp.eye(WIDTH), jnp.ones((WIDTH, WIDTH))

    def loss(made, matrix):
        return _solved(made, lambda t, y, args: jnp.tanh(y @ matrix), y0, solver)

    found, product = costs(loss, matrix), 2 * WIDTH**3
    assert found.replay.matrix_flops == pytest.approx(stages * product, rel=0.03)
    assert found.advance.matrix_flops >= found.replay.matrix_flops
    assert found.reversal.matrix_flops == pytest.approx(3 * stages * product, rel=0.04)


def test_what_never_changes_is_not_counted() -> None:
    """A product of parameters alone may be computed once, before the loop."""
    matrix, y0 = jnp.eye(WIDTH), jnp.ones(WIDTH)
    found = costs(lambda made, m: _solved(made, lambda t, y, args: -y * jnp.sum(m @ m), y0), matrix)
    assert found.replay.matrix_flops == 0


def test_a_state_is_read_and_written_once_a_pass() -> None:
    """An elementwise field: a pass reads its state and leaves the next, whatever it computes in between."""
    y0 = jnp.ones(10_000)
    found = costs(lambda made, y0: _solved(made, lambda t, y, args: -jnp.sin(y), y0), y0)
    for cost in (found.advance, found.replay):
        assert cost.read_bytes == pytest.approx(40_000, abs=200)
        assert cost.written_bytes == pytest.approx(40_000, abs=200)
    assert found.replay.flops == pytest.approx(3 * 10_000, abs=100)  # sin, the step size, the sum; a sign costs nothing
    assert found.reversal.read_bytes == pytest.approx(80_000, abs=200)


def test_lanes_count_together() -> None:
    """A batch of solves whose gradient is taken as one costs as many times one of them."""
    one = costs(lambda made, y: _solved(made, lambda t, y, a: jnp.tanh(y), y), jnp.ones(50))
    many = costs(
        lambda made, y: jnp.sum(jax.vmap(lambda y: _solved(made, lambda t, y, a: jnp.tanh(y), y))(y)), jnp.ones((8, 50))
    )  # fmt: skip
    assert many.replay.flops == pytest.approx(8 * one.replay.flops, rel=0.1)


def test_rejected_steps_and_error_estimates_are_in_no_replay() -> None:
    """The forward sweep controls step sizes; a replay of accepted steps does not."""
    controller = diffrax.PIDController(rtol=1e-3, atol=1e-6)
    found = costs(
        lambda made, y0: _solved(
            made, lambda t, y, a: jnp.tanh(y), y0, diffrax.Tsit5(), stepsize_controller=controller
        ), jnp.ones(1000),
    )  # fmt: skip
    assert found.replay.flops < 0.8 * found.advance.flops


@pytest.mark.parametrize(
    ("function", "flops"),
    [
        (lambda x: jax.lax.cond(x[0] > 0, lambda x: jnp.sin(jnp.sin(x)), jnp.sin, x), 100),  # the cheapest branch
        (lambda x: jax.lax.scan(lambda c, _: (jnp.sin(c), None), x, None, length=5)[0], 500),
        (lambda x: jax.lax.scan(lambda c, _: (c + jnp.sin(x), None), x, None, length=5)[0], 500),  # sin(x) is made once
        (lambda x: jnp.sin(x) + jnp.sin(x), 200),  # so it is here
        (lambda x: jnp.sin(jnp.broadcast_to(x[0], (1000,))), 1),
        (lambda x: jax.lax.while_loop(lambda c: c[0] < 5, jnp.sin, x), 0),
        (lambda x: jax.jit(jnp.cos)(x * 1.0), 100),
    ],
)
def test_operations_that_a_compiler_may_leave_out_are_not_counted(function, flops: int) -> None:
    """Each function is counted by hand."""
    jaxpr = jax.make_jaxpr(function)(jnp.ones(100))
    assert pass_cost(jaxpr, [True]).flops == flops


def test_reading_a_part_reads_no_whole() -> None:
    """What a slice or a gather takes from counts no bytes."""
    path = jnp.ones(1000)
    jaxpr = jax.make_jaxpr(lambda path, i: jax.lax.dynamic_index_in_dim(path, i) * 2)(path, 3)
    assert pass_cost(jaxpr, [False, True]).read_bytes <= 8


def test_of_several_solves_the_least_counts() -> None:
    """Each figure is the smallest; a kind that was never seen makes no costs."""
    large, small = PassCost(flops=5, read_bytes=1), PassCost(flops=3, read_bytes=7)
    kinds = ("advance", "replay", "reversal")
    found = least_costs([(kind, cost) for kind in kinds for cost in (large, small)])
    assert found is not None
    assert found.replay == PassCost(flops=3, read_bytes=1)
    assert least_costs([("advance", large)]) is None


def test_costs_survive_json() -> None:
    """They are noted in a store."""
    step = PassCost(flops=1.5, matrix_flops=2, read_bytes=3, written_bytes=4)
    found = StepCosts(advance=step, replay=step, reversal=step)
    assert decode_costs(json.loads(json.dumps(dataclasses.asdict(found)))) == found


def test_observing_passes_changes_no_gradient() -> None:
    """The traced gradient is the one that is traced without an observer, but for how stages are looped over."""
    y0 = jnp.linspace(0.0, 1.0, 5)

    def gradient(y0):
        made = adjoint.RecursiveCheckpointAdjoint(checkpoints=3)
        return jax.grad(lambda y: _solved(made, lambda t, y, a: -jnp.sin(y), y))(y0)

    seen: list[adjoint.Pass] = []
    with adjoint.observe_passes(seen.append):
        shown = gradient(y0)
    assert {one.kind for one in seen} == {"advance", "replay", "reversal"}
    seen.clear()
    assert eqx.tree_equal(shown, gradient(y0), rtol=1e-6, atol=1e-7)
    assert not seen
