"""What the compiler allocates: one checkpoint costs one carry, batched or not, and never more than Diffrax's."""

import functools
import itertools
from typing import Any

import diffrax
import equinox as eqx
import equinox.internal as eqxi
import jax
import jax.numpy as jnp
import pytest

import adjoint

from .compiled import temporary_bytes

STEPS = 1000


def loss(loop: Any, start: Any, weight: Any) -> Any:
    """A thousand steps of an elementwise map over a state of one or two leaves."""

    def body(carry: Any) -> Any:
        step, y, z = carry
        return step + 1, jnp.sin(weight * y) + 0.1 * z[: y.shape[0]].sum(), jnp.cos(z) * y[0]

    final = loop(lambda carry: carry[0] < STEPS, body, (0, *start))
    return sum(jnp.sum(x) for x in final[1:])


def gradient_bytes(loop: Any, floats: int) -> int:
    """Return the temporary bytes of the gradient with a state of so many floats in two leaves of unequal size."""
    shapes = (floats - floats // 4,), (floats // 4,)
    start = tuple(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes)
    return temporary_bytes(jax.grad(functools.partial(loss, loop), argnums=(0, 1)), start, jnp.float32(1.0))


def ours(checkpoints: int) -> Any:
    """Our loop."""
    return functools.partial(adjoint.checkpointed_while_loop, checkpoints=checkpoints)


def theirs(checkpoints: int) -> Any:
    """Equinox's loop, which Diffrax's adjoint runs."""
    return functools.partial(eqxi.while_loop, kind="checkpointed", checkpoints=checkpoints)


FEW = [(10_000, (2, 16, 256))]
MANY = [(floats, (2, 3, 4, 8, 16, 32, 64, 128, 256)) for floats in (10_000, 100_000, 1_000_000)]


@pytest.mark.parametrize(("floats", "counts"), [*FEW, *(pytest.param(*case, marks=pytest.mark.slow) for case in MANY)])
def test_a_checkpoint_costs_one_carry(floats: int, counts: tuple[int, ...]) -> None:
    """Temporary bytes are a line in the count whose slope is the carry's bytes within 2 %, between any two counts."""
    found = {c: gradient_bytes(ours(c), floats) for c in counts}
    for few, many in itertools.pairwise(counts):
        slope = (found[many] - found[few]) / (many - few)
        # The step, rank and repetition numbers of each checkpoint are a few integers beside its state.
        assert slope == pytest.approx(4 * floats, rel=0.02, abs=64), (few, many)


@pytest.mark.parametrize(
    ("floats", "counts"),
    [(10_000, (2, 16)), *(pytest.param(*case, marks=pytest.mark.slow) for case in MANY)],
)
def test_it_never_needs_more_than_equinox(floats: int, counts: tuple[int, ...]) -> None:
    """At equal counts at most the bytes of Equinox's loop and 64 KiB."""
    for checkpoints in counts:
        found, expected = (gradient_bytes(loop(checkpoints), floats) for loop in (ours, theirs))
        assert found <= expected + 2**16, (checkpoints, found, expected)


def batched_loss(loop: Any, start: Any, weight: Any) -> Any:
    """Lanes that share a weight, each taking its own number of steps."""

    def one(start: Any, steps: Any) -> Any:
        def body(carry: Any) -> Any:
            return carry[0] + 1, jnp.tanh(weight @ carry[1])

        return jnp.sum(loop(lambda carry: carry[0] < steps, body, (0, start))[1])

    return jnp.sum(jax.vmap(one)(start, jnp.arange(start.shape[0]) + STEPS))


def batched_bytes(checkpoints: int, lanes: int, width: int) -> int:
    """Return the temporary bytes of the gradient of a mapped loop."""
    start = jax.ShapeDtypeStruct((lanes, width), jnp.float32)
    weight = jax.ShapeDtypeStruct((width, width), jnp.float32)
    gradient = jax.grad(functools.partial(batched_loss, ours(checkpoints)), argnums=(0, 1))
    return temporary_bytes(gradient, start, weight)


def test_mapping_adds_no_copy_of_the_checkpoints() -> None:
    """A checkpoint of a mapped loop costs the bytes of the batched carry within 2 %, its steps included."""
    lanes, width = 32, 100
    few, many = (batched_bytes(c, lanes, width) for c in (4, 104))
    # Each lane carries its own step beside its state.
    assert (many - few) / 100 == pytest.approx(4 * lanes * (width + 1), rel=0.02)


def test_lanes_share_one_gradient_of_what_they_share() -> None:
    """With eight times the lanes the bytes grow by the lanes' states, not by eight gradients of the weight."""
    width = 256
    few, many = (batched_bytes(4, lanes, width) for lanes in (8, 64))
    one_gradient = 4 * width * width
    assert many - few < 2 * one_gradient
    assert few < 6 * one_gradient


@pytest.mark.slow
def test_mapped_solves_need_little_more_than_one_batched_solve() -> None:
    """256 examples of a network of width 256: at most 1.5 times the bytes of Diffrax for one batched solve.

    With 8 checkpoints, as `scripts/bench_vmap.py` measures; with few the activations of one taped step, all stages of
    all examples at once, weigh more (1.63 times at 4).
    """
    batch, width, size = 256, 256, 64
    shapes = {"a": (width, size), "b": (width,), "c": (width, width), "d": (width,), "e": (size, width)}
    network = {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in shapes.items()}
    start = jax.ShapeDtypeStruct((batch, size), jnp.float32)

    def field(t: Any, y: Any, network: Any) -> Any:
        hidden = jnp.tanh(y @ network["a"].T + network["b"])
        hidden = jnp.tanh(hidden @ network["c"].T + network["d"])
        return jnp.tanh(hidden @ network["e"].T)

    def solve(with_adjoint: Any, network: Any, y0: Any) -> Any:
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(field),
            diffrax.Tsit5(),
            0.0,
            1.0,
            0.02,
            y0,
            args=network,
            adjoint=with_adjoint,
            max_steps=64,
        )
        assert solution.ys is not None
        return jnp.sum(solution.ys**2)

    with_ours = adjoint.RecursiveCheckpointAdjoint(checkpoints=8)
    with_theirs = diffrax.RecursiveCheckpointAdjoint(checkpoints=8)

    def mapped(network: Any, start: Any) -> Any:
        return jnp.sum(jax.vmap(functools.partial(solve, with_ours, network))(start))

    found = temporary_bytes(jax.grad(mapped), network, start)
    expected = temporary_bytes(jax.grad(functools.partial(solve, with_theirs)), network, start)
    assert found <= 1.5 * expected, (found, expected)


def solve_bytes(with_adjoint: Any, solver: Any, floats: int) -> int:
    """Return the temporary bytes of the gradient of an elementwise solve."""

    def loss(rate: Any, y0: Any) -> Any:
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(lambda t, y, args: -args * jnp.sin(y)),
            solver,
            0.0,
            1.0,
            0.001,
            y0,
            args=rate,
            adjoint=with_adjoint,
            stepsize_controller=diffrax.PIDController(rtol=1e-3, atol=1e-6),
        )
        assert solution.ys is not None
        return jnp.sum(solution.ys)

    return temporary_bytes(
        jax.grad(loss, argnums=(0, 1)), jnp.float32(1.0), jax.ShapeDtypeStruct((floats,), jnp.float32)
    )


SOLVERS = {"Heun": diffrax.Heun(), "Tsit5": diffrax.Tsit5(), "ReversibleHeun": diffrax.ReversibleHeun()}


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("Heun", (2,)),
        *(pytest.param(name, (2, 4, 8, 16, 32, 64, 128, 256), marks=pytest.mark.slow) for name in SOLVERS),
    ],
)
def test_a_solve_never_needs_more_than_with_diffrax(name: str, counts: tuple[int, ...]) -> None:
    """At equal checkpoints at most the bytes of Diffrax's adjoint and 64 KiB."""
    for checkpoints in counts:
        found, expected = (
            solve_bytes(kind(checkpoints=checkpoints), SOLVERS[name], 10_000)
            for kind in (adjoint.RecursiveCheckpointAdjoint, diffrax.RecursiveCheckpointAdjoint)
        )
        assert found <= expected + 2**16, (checkpoints, found, expected)


@pytest.mark.parametrize("name", ["Heun", "Tsit5"])
def test_a_checkpoint_of_a_solve_costs_one_state(name: str) -> None:
    """Within 2 %, also where the solver carries its last slope, which Diffrax stores beside the state."""
    floats = 10_000
    few, many = (
        solve_bytes(adjoint.RecursiveCheckpointAdjoint(checkpoints=c), SOLVERS[name], floats) for c in (4, 104)
    )
    assert (many - few) / 100 == pytest.approx(4 * floats, rel=0.02)


LANES, WIDE, NARROW = 16, 160, 16
"""Lanes, and sizes of a network whose middle layer is larger than what a step may keep of its stages."""


class Network(eqx.Module):
    """Three layers, and what may be made of them."""

    layers: list[Any]

    def __call__(self, t: Any, y: Any, args: Any) -> Any:
        """Evaluate."""
        del t, args
        for layer in self.layers:
            y = jnp.tanh(layer @ y)
        return y


def mapped_solve(network: Network, ys: Any, *, way: str) -> Any:
    """Solve from many states at once; the network comes in by one of many ways."""
    field = lambda t, y, args: network(t, y, args)
    terms: dict[str, Any] = {
        "args": lambda t, y, args: args(t, y, None),
        "module": network,
        "method": network.__call__,
        "partial": functools.partial(lambda network, *given: network(*given), network),
        "combine": lambda *given: eqx.combine(*eqx.partition(network, eqx.is_array))(*given),
    }
    decay = lambda t, y, args: -y
    control = diffrax.LinearInterpolation(jnp.linspace(0, 1.1, WIDE), network.layers[1])
    driven = diffrax.ControlTerm(lambda t, y, args: jnp.tanh(y[:, None]) * jnp.ones((1, WIDE)), control).to_ode()
    term = driven if way == "control" else diffrax.ODETerm(decay if way == "saved" else terms.get(way, field))
    saveat = diffrax.SaveAt(ts=[0.3, 0.9], fn=field) if way == "saved" else diffrax.SaveAt(t1=True)
    event = diffrax.Event(lambda t, y, args, **_: jnp.sum(network(t, y, args)) - 1e6) if way == "event" else None
    adaptive = way == "adaptive"
    controller = diffrax.PIDController(rtol=1e-3, atol=1e-4) if adaptive else diffrax.ConstantStepSize()

    def solve(y: Any) -> Any:
        solution = diffrax.diffeqsolve(
            term,
            diffrax.Heun(),
            0.0,
            1.0,
            0.1,
            y,
            network if way == "args" else None,
            saveat=saveat,
            event=event,
            stepsize_controller=controller,
            max_steps=16,
            adjoint=adjoint.RecursiveCheckpointAdjoint(3),
        )
        return solution.ys

    return jnp.sum(jax.vmap(jax.jit(solve) if way == "jit" else solve)(ys))


WAYS = ("closure", "adaptive")
MORE_WAYS = ("args", "combine", "saved", "module", "method", "partial", "event", "control", "jit")


@pytest.mark.parametrize("way", [*WAYS, *(pytest.param(way, marks=pytest.mark.slow) for way in MORE_WAYS)])
def test_lanes_share_one_accumulator_however_the_parameters_come_in(way: str) -> None:
    """All temporary bytes of the gradient are less than an accumulator for every lane would take."""
    sizes = (WIDE, NARROW), (WIDE, WIDE), (NARROW, WIDE)
    network = Network([jax.ShapeDtypeStruct(size, jnp.float32) for size in sizes])
    ys = jax.ShapeDtypeStruct((LANES, NARROW), jnp.float32)
    each = 4 * WIDE * WIDE
    assert temporary_bytes(jax.grad(functools.partial(mapped_solve, way=way)), network, ys) < LANES * each / 2
