"""The loop under `jax.vmap`, in every order with differentiation: never wrong, whatever is shared between lanes.

Each problem is a scalar loss of values that the lanes share and of values of their own; each transformation turns such
a loss into arrays. The oracle is the same transformation of the same problem over plain scans: a masked scan for the
bare loop, `diffrax.DirectAdjoint` for solves.
"""

import functools
from collections.abc import Callable
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import adjoint

from .plain import assert_close, plain_while_loop

pytestmark = pytest.mark.usefixtures("x64")

LANES = 3
SHARED = {"weight": np.array([[0.9, -0.4], [0.1, 0.8]]), "bias": np.array([0.2, -0.3])}
OWN = {"start": np.array([[0.4, -0.7], [1.1, 0.3], [-0.5, 0.9]]), "rate": np.array([0.6, 2.9, 1.4])}
STEPS = np.array([5, 0, 7])
LOSS_WEIGHTS = np.array([1.0, -0.7, 2.3])


#
# Problems: functions of (loop or adjoint, mix, shared, own, steps); `mix` is a collective over lanes, or the identity.
#


def recurrent(loop: Any, mix: Callable, shared: Any, own: Any, steps: Any) -> Any:
    """A loop whose lanes take different numbers of steps, one of them none."""

    def body(carry: Any) -> Any:
        step, y = carry
        return step + 1, jnp.tanh(shared["weight"] @ mix(y) + shared["bias"] * own["rate"])

    final = loop(lambda carry: carry[0] < steps, body, (0, own["start"]))[1]
    return jnp.sum(final * jnp.array([1.0, -2.0]))


def buffered(loop: Any, mix: Callable, shared: Any, own: Any, steps: Any) -> Any:
    """The same with every state written to a buffer that starts out differentiable."""

    def body(carry: Any) -> Any:
        step, y, out = carry
        y = jnp.tanh(shared["weight"] @ mix(y) + shared["bias"] * own["rate"])
        return step + 1, y, out.at[step].set(y)

    # Buffer rows that are written over must not be differentiable.
    untouched = (jnp.arange(9) >= 7)[:, None]
    init = (0, own["start"], untouched * own["rate"] * shared["bias"])
    final = loop(lambda carry: carry[0] < steps, body, init, buffers=lambda carry: carry[2])
    return jnp.sum(final[2] ** 2 * jnp.arange(1.0, 10.0)[:, None])


def solve(adjoint_of: Any, mix: Callable, shared: Any, own: Any, **arguments: Any) -> Any:
    """Solve a small nonlinear system with a Runge-Kutta method, whose stages are a loop of their own."""

    def field(t: Any, y: Any, args: Any) -> Any:
        return jnp.tanh(args["weight"] @ mix(y) + args["bias"] * jnp.cos(t)) - own["rate"] * y

    settings: dict[str, Any] = {"max_steps": 16, "dt0": 0.1, **arguments}
    return diffrax.diffeqsolve(
        diffrax.ODETerm(field),
        diffrax.Bosh3(),
        t0=0.0,
        t1=0.6,
        y0=own["start"],
        args=shared,
        adjoint=adjoint_of,
        **settings,
    )


def fixed_solve(adjoint_of: Any, mix: Callable, shared: Any, own: Any, steps: Any) -> Any:
    """Constant steps."""
    del steps
    return jnp.sum(solve(adjoint_of, mix, shared, own).ys ** 2)


def saved_solve(adjoint_of: Any, mix: Callable, shared: Any, own: Any, steps: Any) -> Any:
    """Values saved at given times, by a loop inside the loop that writes to a buffer."""
    del steps
    saveat = diffrax.SaveAt(ts=jnp.array([0.05, 0.3, 0.55]))
    ys = solve(adjoint_of, mix, shared, own, saveat=saveat).ys
    return jnp.sum(ys**2 * jnp.array([1.0, 2.0, -1.0])[:, None])


def adaptive_solve(adjoint_of: Any, mix: Callable, shared: Any, own: Any, steps: Any) -> Any:
    """Adaptive steps, of which each lane takes another number."""
    del steps
    controller = diffrax.PIDController(rtol=1e-3, atol=1e-4)
    return jnp.sum(solve(adjoint_of, mix, shared, own, stepsize_controller=controller).ys ** 2)


PROBLEMS: dict[str, Callable] = {
    "recurrent": recurrent,
    "buffered": buffered,
    "fixed solve": fixed_solve,
    "saved solve": saved_solve,
    "adaptive solve": adaptive_solve,
}
LOOPS = {"recurrent", "buffered"}


#
# Transformations of a loss(mix, shared, own, steps)
#


def unmixed(y: Any) -> Any:
    """No collective."""
    return y


def over_lanes(loss: Callable, mix: Callable = unmixed, **arguments: Any) -> Callable:
    """Map a loss over the lanes' own values."""
    return jax.vmap(functools.partial(loss, mix), in_axes=(None, 0, 0), **arguments)


def weighted(mapped: Callable) -> Callable:
    """Sum mapped losses with a weight for each lane, so that lanes cannot be exchanged unnoticed."""
    return lambda shared, own, steps: jnp.sum(mapped(shared, own, steps) * LOSS_WEIGHTS[: len(steps)])


def grad_of_vmap(loss: Callable, shared: Any, own: Any, steps: Any) -> Any:
    """One gradient of the shared values, summed over lanes."""
    return jax.grad(weighted(over_lanes(loss)), argnums=(0, 1))(shared, own, steps)


def vmap_of_grad(loss: Callable, shared: Any, own: Any, steps: Any) -> Any:
    """A gradient of the shared values for each lane."""
    gradient = jax.grad(functools.partial(loss, unmixed), argnums=(0, 1))
    return jax.vmap(gradient, in_axes=(None, 0, 0))(shared, own, steps)


def jacrev_of_vmap(loss: Callable, shared: Any, own: Any, steps: Any) -> Any:
    """Cotangents mapped over a loop that is batched already."""
    return jax.jacrev(over_lanes(loss))(shared, own, steps)


def jacfwd_of_grad(loss: Callable, shared: Any, own: Any, steps: Any) -> Any:
    """A Hessian of the summed loss: tangents mapped over both sweeps."""
    return jax.jacfwd(jax.grad(weighted(over_lanes(loss))))(shared, own, steps)


def nested_vmap(loss: Callable, shared: Any, own: Any, steps: Any) -> Any:
    """Two maps, the biases differing over the outer one, the lanes over the inner one; both sums in one gradient."""

    def outer(weight: Any, bias: Any, own: Any) -> Any:
        inner = over_lanes(loss)
        mapped = jax.vmap(lambda b: inner({"weight": weight, "bias": b}, own, steps))
        return jnp.sum(mapped(bias) * LOSS_WEIGHTS * jnp.array([[1.0], [0.3]]))

    biases = jnp.stack([shared["bias"], 2 * shared["bias"]])
    return jax.grad(outer, argnums=(0, 1, 2))(shared["weight"], biases, own)


def vmap_of_grad_of_vmap(loss: Callable, shared: Any, own: Any, steps: Any) -> Any:
    """A map inside the gradient, one outside: sums over the inner lanes, a gradient for each outer lane."""
    gradient = jax.grad(weighted(over_lanes(loss)), argnums=(0, 1))
    stacked = jax.tree.map(lambda x: jnp.stack([x, 0.5 * x]), own)
    return jax.vmap(gradient, in_axes=(None, 0, None))(shared, stacked, steps)


def collective(loss: Callable, shared: Any, own: Any, steps: Any) -> Any:
    """Lanes see one another at every step, by a named axis."""

    def mix(y: Any) -> Any:
        return 0.8 * y + 0.2 * jax.lax.pmean(y, "lanes")

    return jax.grad(weighted(over_lanes(loss, mix, axis_name="lanes")), argnums=(0, 1))(shared, own, steps)


def one_lane(loss: Callable, shared: Any, own: Any, steps: Any) -> Any:
    """An axis of size one."""
    own, steps = jax.tree.map(lambda x: x[2:], (own, steps))
    both = jax.vmap(jax.grad(functools.partial(loss, unmixed)), in_axes=(None, 0, 0))(shared, own, steps)
    return both, jax.grad(weighted(over_lanes(loss)), argnums=(0, 1))(shared, own, steps)


def partly_batched(loss: Callable, shared: Any, own: Any, steps: Any) -> Any:
    """One shared value and one of the lanes' own change sides; axes other than the first are mapped."""
    bias = jnp.linspace(0.5, 1.5, LANES) * shared["bias"][:, None]

    def total(weight: Any, bias: Any, start: Any, rate: Any) -> Any:
        def one(bias: Any, start: Any, steps: Any) -> Any:
            return loss(unmixed, {"weight": weight, "bias": bias}, {"start": start, "rate": rate}, steps)

        return jnp.sum(jax.vmap(one, in_axes=(1, 1, 0))(bias, start, steps) * LOSS_WEIGHTS)

    return jax.grad(total, argnums=(0, 1, 2, 3))(shared["weight"], bias, own["start"].T, own["rate"][2])


def all_batched(loss: Callable, shared: Any, own: Any, steps: Any) -> Any:
    """Nothing is shared."""
    stacked = jax.tree.map(lambda x: jnp.stack([x, 0.5 * x, -x]), shared)

    def total(shared: Any, own: Any) -> Any:
        return jnp.sum(jax.vmap(functools.partial(loss, unmixed))(shared, own, steps) * LOSS_WEIGHTS)

    return jax.grad(total, argnums=(0, 1))(stacked, own)


def spmd_axis_name(loss: Callable, shared: Any, own: Any, steps: Any) -> Any:
    """The mapped axis lies along a mesh axis, and a sharding constraint inside the step says so."""
    mesh = jax.make_mesh((1,), ("lanes",), axis_types=(jax.sharding.AxisType.Auto,))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())

    def mix(y: Any) -> Any:
        return jax.lax.with_sharding_constraint(y, sharding)

    mapped = over_lanes(loss, mix, spmd_axis_name="lanes")
    return jax.grad(weighted(mapped), argnums=(0, 1))(shared, own, steps)


TRANSFORMATIONS: dict[str, Callable] = {
    transformation.__name__: transformation
    for transformation in (
        grad_of_vmap,
        vmap_of_grad,
        jacrev_of_vmap,
        jacfwd_of_grad,
        nested_vmap,
        vmap_of_grad_of_vmap,
        collective,
        one_lane,
        partly_batched,
        all_batched,
        spmd_axis_name,
    )
}

ALWAYS = {
    *(("recurrent", name) for name in TRANSFORMATIONS),
    ("buffered", "grad_of_vmap"),
    ("buffered", "vmap_of_grad"),
    ("buffered", "jacfwd_of_grad"),
    ("buffered", "partly_batched"),
    ("fixed solve", "jacrev_of_vmap"),
    ("fixed solve", "collective"),
    ("saved solve", "grad_of_vmap"),
    ("saved solve", "vmap_of_grad"),
    ("adaptive solve", "grad_of_vmap"),
    ("adaptive solve", "vmap_of_grad"),
}
"""The cells that every run tests; the rest of the matrix is slow."""

CELLS = [
    pytest.param(problem, name, marks=() if (problem, name) in ALWAYS else pytest.mark.slow)
    for problem in PROBLEMS
    for name in TRANSFORMATIONS
]


def evaluate(problem: str, transformation: str, adjoint_or_loop: Any) -> Any:
    """Compile and run one cell."""
    loss = functools.partial(PROBLEMS[problem], adjoint_or_loop)
    return jax.jit(functools.partial(TRANSFORMATIONS[transformation], loss))(SHARED, OWN, STEPS)


@pytest.mark.parametrize(("problem", "transformation"), CELLS)
def test_batching_and_differentiation_commute_as_over_scans(problem: str, transformation: str) -> None:
    """One cell of the matrix: every array it returns equals the one over plain scans."""
    if problem in LOOPS:
        ours: Any = functools.partial(adjoint.checkpointed_while_loop, checkpoints=2)
        plain: Any = functools.partial(plain_while_loop, max_steps=9)
    else:
        ours, plain = adjoint.RecursiveCheckpointAdjoint(checkpoints=2), diffrax.DirectAdjoint()
    found, expected = evaluate(problem, transformation, ours), evaluate(problem, transformation, plain)
    assert all(np.abs(np.asarray(leaf)).max() > 1e-3 for leaf in jax.tree.leaves(expected))
    assert_close(found, expected, relative=1e-12 if problem in LOOPS else 1e-10)


def test_the_lanes_of_the_adaptive_solve_take_different_numbers_of_steps() -> None:
    """Else the matrix would not test what it says."""

    def count(own: Any) -> Any:
        controller = diffrax.PIDController(rtol=1e-3, atol=1e-4)
        solution = solve(diffrax.DirectAdjoint(), unmixed, SHARED, own, stepsize_controller=controller)
        return solution.stats["num_steps"]

    counts = jax.jit(jax.vmap(count))(jax.tree.map(jnp.asarray, OWN))
    assert len(set(counts.tolist())) >= 2, counts


@pytest.mark.parametrize("transformation", ["grad_of_vmap", pytest.param("vmap_of_grad", marks=pytest.mark.slow)])
def test_batching_holds_where_everything_is_stored(transformation: str) -> None:
    """The loop without recomputation, bounded by as many steps as it has checkpoints."""
    found = evaluate("buffered", transformation, functools.partial(adjoint.checkpointed_while_loop, max_steps=9))
    stored = functools.partial(adjoint.checkpointed_while_loop, max_steps=9, checkpoints=9)
    plain = functools.partial(plain_while_loop, max_steps=9)
    assert_close(evaluate("buffered", transformation, stored), evaluate("buffered", transformation, plain))
    assert_close(found, evaluate("buffered", transformation, plain))


def counted_calls(in_axes: tuple[int | None, int | None], steps: Any, expected_steps: Any) -> tuple[np.ndarray, int]:
    """Take the gradient of mapped loops; return it, and the passes that were really made."""
    calls = []

    def loss(start: Any, steps: Any, expected_steps: Any) -> Any:
        def body(carry: Any) -> Any:
            # Mapped over lanes, the callback is called once for each of them in every pass.
            jax.debug.callback(lambda _: calls.append(1), carry[1])
            return carry[0] + 1, jnp.sin(carry[1])

        return adjoint.checkpointed_while_loop(
            lambda carry: carry[0] < steps, body, (0, start), checkpoints=3, expected_steps=expected_steps
        )[1]

    mapped = jax.vmap(loss, in_axes=(0, *in_axes))
    start = jnp.linspace(0.2, 0.9, 4)
    gradient = jax.jit(jax.grad(lambda start: jnp.sum(mapped(start, steps, expected_steps))))(start)
    jax.effects_barrier()
    assert len(calls) % 4 == 0
    return np.asarray(gradient), len(calls) // 4


def test_lanes_share_one_schedule_for_the_longest_of_them() -> None:
    """Passes are those of the lane with most steps and the largest prediction; each lane keeps its own result."""
    steps = np.array([4, 17, 0, 9])
    gradient, passes = counted_calls((0, 0), steps, np.array([2, 15, 1, 12]))
    assert passes == adjoint.executed_steps(17, 3, 15)
    for lane, (start, count) in enumerate(zip(np.linspace(0.2, 0.9, 4), steps, strict=True)):
        slope, y = 1.0, start
        for _ in range(count):
            slope, y = slope * np.cos(y), np.sin(y)
        np.testing.assert_allclose(gradient[lane], slope, rtol=1e-13)


def test_lanes_that_take_equal_steps_are_reversed_like_one() -> None:
    """With the number of steps and its prediction shared, the passes are those of a single lane."""
    _, passes = counted_calls((None, None), 20, 20)
    assert passes == adjoint.executed_steps(20, 3, 20)
