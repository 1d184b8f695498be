"""The loop under JAX's transformations, batching apart: linearisation, Hessians, no jit, several devices."""

import functools
import subprocess
import sys
from typing import Any

import equinox.internal as eqxi
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adjoint import checkpointed_while_loop

from .plain import assert_close, plain_while_loop

pytestmark = pytest.mark.usefixtures("x64")

ours = functools.partial(checkpointed_while_loop, checkpoints=2)
START = np.array([0.4, -0.7, 1.2])


def simple(loop: Any, start: Any, weight: Any) -> Any:
    """A few steps of a coupled map."""

    def body(carry: Any) -> Any:
        step, y = carry
        return step + 1, jnp.sin(weight * y) + 0.3 * jnp.roll(y, 1)

    return loop(lambda carry: carry[0] < 5, body, (0, start))[1]


def with_buffer(loop: Any, start: Any, weight: Any) -> Any:
    """The same with every state kept in a buffer."""

    def body(carry: Any) -> Any:
        step, y, out = carry
        y = jnp.sin(weight * y) + 0.3 * jnp.roll(y, 1)
        return step + 1, y, out.at[step].set(y)

    return loop(lambda c: c[0] < 5, body, (0, start, jnp.zeros((5, 3))), buffers=lambda c: c[2])[2]


def nested(loop: Any, start: Any, weight: Any) -> Any:
    """A loop in a loop."""

    def body(carry: Any) -> Any:
        step, y = carry
        _, y = loop(lambda c: c[0] < 2, lambda c: (c[0] + 1, jnp.sin(weight * c[1]) * y), (0, y + 0.2))
        return step + 1, y + 0.3 * jnp.roll(y, 1)

    return loop(lambda carry: carry[0] < 3, body, (0, start))[1]


RUNS = {"simple": simple, "with buffer": with_buffer, "nested": nested}


def scalar(run: Any, loop: Any) -> Any:
    """Make a scalar function of one vector: start and weight together."""
    return lambda x: jnp.sum(run(loop, x[:3], x[3]) ** 2)


@pytest.mark.parametrize("name", RUNS)
def test_the_hessian_by_forward_over_reverse_is_that_of_a_scan(name: str) -> None:
    """`jax.jacfwd(jax.grad(f))`: the forward pass goes through our backward pass, nested loops included."""
    x = jnp.array([*START, 0.8])
    found, expected = (jax.jit(jax.jacfwd(jax.grad(scalar(RUNS[name], loop))))(x) for loop in (ours, plain_while_loop))
    assert_close(found, expected)


def test_a_hessian_vector_product_is_that_of_a_scan() -> None:
    """`jax.jvp` of the gradient, as optimisers take it, with everything stored."""
    loop = functools.partial(checkpointed_while_loop, max_steps=5, checkpoints=5)
    x = jnp.array([*START, 0.8])
    found, expected = (
        jax.jit(lambda x, f=f: jax.jvp(jax.grad(f), (x,), (jnp.cos(x),)))(x)
        for f in (scalar(simple, loop), scalar(simple, plain_while_loop))
    )
    assert_close(found, expected)


def test_a_linearised_loop_can_be_transposed() -> None:
    """`jax.linearize` gives the value and a linear function whose transpose is the gradient."""
    x = jnp.array([*START, 0.8])
    f, plain = scalar(with_buffer, ours), scalar(with_buffer, plain_while_loop)

    @jax.jit
    def found(x: Any) -> Any:
        value, tangent_map = jax.linearize(f, x)
        return value, jax.linear_transpose(tangent_map, x)(jnp.ones_like(value))[0]

    assert_close(found(x), jax.jit(jax.value_and_grad(plain))(x))


def test_a_pullback_can_be_used_many_times() -> None:
    """`jax.vjp` once, then several cotangents, one of them a zero."""
    start, weight = jnp.asarray(START), jnp.asarray(0.8)
    _, pullback = jax.vjp(functools.partial(with_buffer, ours), start, weight)
    _, expected = jax.vjp(functools.partial(with_buffer, plain_while_loop), start, weight)
    ones = jnp.ones((5, 3))
    for cotangent in (ones, 0 * ones, jnp.arange(15.0).reshape(5, 3)):
        assert_close(pullback(cotangent), expected(cotangent))


def test_a_gradient_without_jit_is_that_of_a_scan() -> None:
    """Called eagerly, operation by operation."""
    args = jnp.asarray(START), jnp.asarray(0.8)
    found, expected = (
        jax.grad(lambda *args, loop=loop: jnp.sum(simple(loop, *args)), argnums=(0, 1))(*args)
        for loop in (ours, plain_while_loop)
    )
    assert_close(found, expected)


def test_a_gradient_with_jit_disabled_is_that_of_a_scan() -> None:
    """Under `jax.disable_jit()` loops run in Python, and conditions may be Python booleans."""
    args = jnp.asarray(START), jnp.asarray(0.8)
    expected = jax.grad(lambda *args: jnp.sum(simple(plain_while_loop, *args)), argnums=(0, 1))(*args)
    with jax.disable_jit():
        found = jax.grad(lambda *args: jnp.sum(simple(ours, *args)), argnums=(0, 1))(*args)
    assert_close(found, expected)


def test_a_loop_is_traced_anew_when_what_it_closes_over_changes() -> None:
    """Two calls of one function under different closed-over values do not share anything stale."""

    @jax.jit
    def both(start: Any, one: Any, other: Any) -> Any:
        return [jax.grad(lambda s, w=w: jnp.sum(simple(ours, s, w)))(start) for w in (one, other)]

    found = both(START, 0.8, -1.1)
    for gradient, weight in zip(found, (0.8, -1.1), strict=True):
        expected = jax.grad(lambda s, w=weight: jnp.sum(simple(plain_while_loop, s, w)))(jnp.asarray(START))
        assert_close(gradient, expected)


def test_a_zero_cotangent_of_an_integer_leaf_is_passed_over() -> None:
    """Integer and boolean outputs take float0 cotangents, as everywhere in JAX."""

    def run(y: Any) -> Any:
        return ours(lambda c: c[0] < 3, lambda c: (c[0] + 1, ~c[1], jnp.sin(c[2])), (0, False, y))

    outputs, pullback = jax.vjp(run, 0.4)
    nothing = [np.zeros(x.shape, jax.dtypes.float0) for x in outputs[:2]]
    (gradient,) = pullback((*nothing, jnp.array(1.0)))
    expected = jax.grad(lambda y: jnp.sin(jnp.sin(jnp.sin(y))))(0.4)
    np.testing.assert_allclose(gradient, expected, rtol=1e-14)


def test_it_composes_with_a_custom_gradient_inside_the_body() -> None:
    """A `jax.custom_vjp` in the body, which has no forward mode, is honoured: here it doubles the cotangent."""

    @jax.custom_vjp
    def doubled(x: Any) -> Any:
        return x

    doubled.defvjp(lambda x: (x, None), lambda _, ct: (2 * ct,))

    def run(y: Any) -> Any:
        return ours(lambda c: c[0] < 3, lambda c: (c[0] + 1, jnp.sin(doubled(c[1]))), (0, y))[1]

    expected = 8 * jax.grad(lambda y: jnp.sin(jnp.sin(jnp.sin(y))))(0.4)
    np.testing.assert_allclose(jax.jit(jax.grad(run))(0.4), expected, rtol=1e-14)


def test_it_composes_with_other_primitives_around_it() -> None:
    """Beside a `jax.custom_jvp` and `equinox.internal.while_loop(kind="lax")`, gradients stay right."""

    def run(y: Any) -> Any:
        y = ours(lambda c: c[0] < 3, lambda c: (c[0] + 1, jnp.sin(c[1])), (0, y))[1]
        count = eqxi.while_loop(lambda n: n < 3, lambda n: n + 1, jnp.array(0), kind="lax")
        return jax.nn.relu(y) * count

    expected = jax.grad(lambda y: 3 * jnp.sin(jnp.sin(jnp.sin(y))))(0.4)
    np.testing.assert_allclose(jax.jit(jax.grad(run))(0.4), expected, rtol=1e-14)


SHARDED = """
import re
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import NamedSharding, PartitionSpec as P
from adjoint import checkpointed_while_loop

assert len(jax.devices()) == 8
mesh = jax.make_mesh((8,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
split, whole = NamedSharding(mesh, P("x")), NamedSharding(mesh, P())
CHECKPOINTS, WIDTH = 6, 4096

def loss(start, weight):
    def body(carry):
        step, y = carry
        return step + 1, jnp.sin(weight * y)
    return jnp.sum(checkpointed_while_loop(lambda c: c[0] < 40, body, (0, start), checkpoints=CHECKPOINTS)[1])

def scanned(start, weight):
    return jnp.sum(jax.lax.scan(lambda y, _: (jnp.sin(weight * y), None), start, None, length=40)[0])

def collectives(text):
    return sorted(re.findall(r"= \\S+ (all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter)", text))

start, weight = np.linspace(0.1, 1, WIDTH), 0.9
compiled = jax.jit(jax.grad(loss), in_shardings=(split, whole)).lower(start, weight).compile()
plain = jax.jit(jax.grad(scanned), in_shardings=(split, whole)).lower(start, weight).compile()
gradient = compiled(jax.device_put(start, split), jax.device_put(weight, whole))
expected = jax.jit(jax.grad(scanned))(start, weight)
np.testing.assert_allclose(gradient, expected, rtol=1e-5)
assert gradient.sharding.is_equivalent_to(split, 1), gradient.sharding
text = compiled.as_text()
assert collectives(text) == collectives(plain.as_text()), collectives(text)
assert f"f32[{CHECKPOINTS},{WIDTH // 8}]" in text
assert f"f32[{CHECKPOINTS},{WIDTH}]" not in text

both = jax.jit(jax.grad(loss, argnums=(0, 1)), in_shardings=(split, whole))
of_start, of_weight = both(jax.device_put(start, split), jax.device_put(weight, whole))
_, expected = jax.jit(jax.grad(scanned, argnums=(0, 1)))(start, weight)
np.testing.assert_allclose(of_weight, expected, rtol=1e-4)
text = both.lower(start, weight).compile().as_text()
assert f"f32[{CHECKPOINTS},{WIDTH // 8}]" in text
assert set(collectives(text)) <= {"all-reduce"}, collectives(text)
print("done")
"""


def test_a_state_over_several_devices_stays_there(tmp_path: Any) -> None:
    """On eight virtual devices: gradients equal, slots split like the state, no collective that a scan has not."""
    done = subprocess.run(
        [sys.executable, "-c", SHARDED],
        capture_output=True,
        text=True,
        check=False,
        env={"XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_PLATFORMS": "cpu", "HOME": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.split() == ["done"]


@pytest.mark.parametrize("jit", [False, True])
def test_reverse_over_reverse_is_refused_and_the_way_named(jit: bool) -> None:
    """A backward sweep has no backward sweep; one whose gradient is not asked for is left alone."""

    def final(y: Any) -> Any:
        loop = functools.partial(checkpointed_while_loop, checkpoints=2, max_steps=32)
        return jnp.sum(loop(lambda c: c[0] < 12, lambda c: (c[0] + 1, jnp.sin(1.3 * c[1])), (0, y))[1])

    twice = jax.jacrev(jax.grad(final))
    with pytest.raises(NotImplementedError, match=r"use forward over reverse, `jax\.jacfwd\(jax\.grad"):
        (jax.jit(twice) if jit else twice)(jnp.array([0.3, 0.4]))
    beside = jax.grad(lambda y: jnp.sum(jax.lax.stop_gradient(jax.grad(final)(y)) * y))
    assert_close(beside(jnp.array([0.3, 0.4])), jax.grad(final)(jnp.array([0.3, 0.4])))
