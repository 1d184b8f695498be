"""What the loop accepts and guarantees: carries, closures, buffers, bounds, nesting, side effects, errors.

The oracle is the same loop as a masked `jax.lax.scan` (`plain.plain_while_loop`).
"""

import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import equinox.internal as eqxi
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from adjoint import checkpointed_while_loop

from .compiled import temporary_bytes
from .plain import assert_close, plain_while_loop

pytestmark = pytest.mark.usefixtures("x64")

ours = functools.partial(checkpointed_while_loop, checkpoints=2)


def gradients(run: Callable[..., Any], loop: Any, *args: Any) -> Any:
    """Return value and gradients of all inexact leaves of `args`, compiled."""

    @jax.jit
    def compiled(args: Any) -> Any:
        moving, fixed = eqx.partition(args, eqx.is_inexact_array)
        return jax.value_and_grad(lambda moving: run(loop, *eqx.combine(moving, fixed)), has_aux=True)(moving)

    return compiled(args)


#
# Carries
#


class Particle(eqx.Module):
    """A carry with a static field, which no leaf holds."""

    position: Any
    kind: str = eqx.field(static=True)


def every_kind_of_leaf(loop: Any, start: Any, weight: Any) -> Any:
    """Floats of two precisions, complex, integers, booleans, keys, Python numbers, None and a static field."""

    def body(carry: Any) -> Any:
        key, draw = jr.split(carry["key"])
        x = carry["particle"].position
        noise = jr.uniform(draw, x.shape, x.dtype)
        small, wave = carry["pair"]
        x = jnp.where(carry["odd"], jnp.sin(weight * x), x + 0.1 * carry["factor"] * noise * wave.real)
        return {
            "particle": Particle(x, "swirl"),
            "pair": [small * jnp.float32(1.1) + x[0].astype(jnp.float32), wave * (0.9 + 0.1j * weight)],
            "count": carry["count"] + 1,
            "odd": ~carry["odd"],
            "key": key,
            "nothing": None,
            "factor": carry["factor"],
            "empty": (),
        }

    init = {
        "particle": Particle(start, "swirl"),
        "pair": [jnp.float32(0.5) * start[0].astype(jnp.float32), start[1] + 0.5j],
        "count": 0,
        "odd": False,
        "key": jr.key(3),
        "nothing": None,
        "factor": 0.7,
        "empty": (),
    }
    final = loop(lambda carry: carry["count"] < 7, body, init)
    small, wave = final["pair"]
    return jnp.sum(final["particle"].position) + small + jnp.abs(wave) ** 2, final


def network_closed_over(loop: Any, network: Any, start: Any, scale: Any) -> Any:
    """A network, an array and a Python number are closed over; the condition looks at the state."""

    def body(carry: Any) -> Any:
        step, y = carry
        return step + 1, y + 0.3 * network(y) * scale

    final = loop(lambda carry: (carry[0] < 9) & (jnp.sum(carry[1] * scale) < 50.0), body, (0, start))
    return jnp.sum(final[1] ** 2), final


def leaves_that_stay_and_leaves_that_move(loop: Any, start: Any, other: Any) -> Any:
    """Leaves returned untouched, exchanged, doubled and overwritten by a closed-over value."""

    def body(carry: Any) -> Any:
        step, fixed, a, b, c, d = carry
        return step + 1, fixed, b * fixed, a, jnp.sin(a) + c * d, other

    final = loop(lambda carry: carry[0] < 6, body, (0, start[0], start[1], start[2], start[0], start[1]))
    return sum(final[1:]), final


def one_bare_array(loop: Any, start: Any) -> Any:
    """The carry is one array; the condition is on its value."""
    final = loop(lambda y: jnp.sum(y) < 40.0, lambda y: y * 1.5 + 0.1 * jnp.cos(y), start)
    return jnp.sum(jnp.log(final)), final


def reads_from_tables(loop: Any, table: Any, start: Any) -> Any:
    """A step looks up what belongs to it, as a scan over inputs does; the gradient of the table is scattered."""

    def body(carry: Any) -> Any:
        step, y = carry
        return step + 1, jnp.tanh(y * table[step] + table[step // 2])

    final = loop(lambda carry: carry[0] < table.shape[0], body, (0, start))
    return jnp.sum(final[1]), final


START = np.array([0.4, -0.7, 1.2])
CARRIES: dict[str, tuple[Callable, tuple]] = {
    "every kind of leaf": (every_kind_of_leaf, (START, 0.8)),
    "network closed over": (network_closed_over, (None, START, 1.3)),
    "leaves that stay and move": (leaves_that_stay_and_leaves_that_move, (START, 0.6)),
    "one bare array": (one_bare_array, (START + 1,)),
    "reads from tables": (reads_from_tables, (np.linspace(0.2, 1.1, 8), START)),
}


def arrays(args: tuple) -> tuple:
    """Make the arguments of a case; None stands for a small network."""
    network = eqx.nn.MLP(3, 3, 4, 1, key=jr.key(0))
    dynamic, static = eqx.partition(network, eqx.is_array)
    network = eqx.combine(jax.tree.map(lambda x: x.astype(jnp.float64), dynamic), static)
    del dynamic, static
    return tuple(network if x is None else jnp.asarray(x) for x in args)


def unwrapped(run: Callable, args: tuple) -> tuple[Callable, tuple]:
    """Keep functions inside modules out of `jax.jit`."""
    dynamic, static = eqx.partition(args, eqx.is_array)
    return lambda loop, *parts: run(loop, *eqx.combine(parts, static)), dynamic


@pytest.mark.parametrize("name", CARRIES)
def test_values_and_gradients_are_those_of_a_scan(name: str) -> None:
    """Any tree may be carried, any value closed over: final carry and every gradient to 1e-12."""
    run, args = CARRIES[name]
    run, args = unwrapped(run, arrays(args))
    assert_close(gradients(run, ours, *args), gradients(run, plain_while_loop, *args))


def test_the_forward_pass_alone_gives_the_same_carry() -> None:
    """Not differentiated, under jit and without it, the loop returns what the scan returns."""
    (_, expected) = every_kind_of_leaf(plain_while_loop, jnp.asarray(START), jnp.asarray(0.8))
    _, found = jax.jit(functools.partial(every_kind_of_leaf, ours))(START, 0.8)
    assert_close(found, expected)
    _, found = every_kind_of_leaf(ours, jnp.asarray(START), jnp.asarray(0.8))
    assert_close(found, expected)


def test_python_numbers_become_arrays_of_strong_type() -> None:
    """Weakly typed input gives the dtype it would have as an array, in every pass."""
    start: Any = (0, 1.5)
    final = ours(lambda carry: carry[0] < 3, lambda carry: (carry[0] + 1, carry[1] * 2), start)
    assert [x.dtype for x in final] == [jnp.array(0).dtype, jnp.float64]
    assert [bool(x.weak_type) for x in final] == [False, False]
    assert_close(list(final), [jnp.array(3), jnp.array(12.0)])


#
# Bounds
#


@pytest.mark.parametrize(("max_steps", "checkpoints"), [(4, None), (4, 2), (1, 5)])
def test_the_bound_ends_the_loop(max_steps: int, checkpoints: int | None) -> None:
    """After max_steps steps the loop stops whatever the condition says; checkpoints may be left to it."""
    run, args = CARRIES["one bare array"]
    found = gradients(run, functools.partial(ours, max_steps=max_steps, checkpoints=checkpoints), *arrays(args))
    assert_close(found, gradients(run, functools.partial(plain_while_loop, max_steps=max_steps), *arrays(args)))


@pytest.mark.parametrize("checkpoints", [None, 3])
def test_no_steps_at_all_is_the_identity(checkpoints: int | None) -> None:
    """max_steps=0 returns the initial carry as strong arrays and passes its cotangent."""
    loop = functools.partial(checkpointed_while_loop, checkpoints=checkpoints, max_steps=0)
    run, args = CARRIES["one bare array"]
    (value, final), (gradient,) = gradients(run, loop, *arrays(args))
    assert_close(final, jnp.asarray(START + 1))
    assert_close(gradient, 1 / jnp.asarray(START + 1))
    assert_close(value, jnp.sum(jnp.log(START + 1)))


def test_a_condition_that_is_a_python_boolean_needs_a_bound_only() -> None:
    """`lambda _: True` with max_steps, as `equinox.internal.scan` writes it."""

    def run(loop: Any, start: Any) -> Any:
        final = loop(lambda carry: True, lambda carry: (carry[0] + 1, jnp.sin(carry[1])), (0, start), max_steps=5)
        return jnp.sum(final[1]), final

    start = jnp.asarray(START)
    assert_close(gradients(run, ours, start), gradients(run, plain_while_loop, start))


#
# Buffers
#


def write_only(loop: Any, start: Any, scale: Any) -> Any:
    """Two float buffers in a nested node, an integer one, one that arrives filled in part and is read where written."""
    buffers = {
        "ys": jnp.zeros((8, 3)),
        "history": jnp.zeros(9).at[0].set(scale),
        "steps": jnp.full(8, -1),
    }

    def body(carry: Any) -> Any:
        step, y, out = carry
        y = jnp.sin(y * scale) + 0.1 * out["history"][step]
        out = {
            "ys": out["ys"].at[step].set(y),
            "history": out["history"].at[step + 1].set(jnp.sum(y)),
            "steps": out["steps"].at[step].set(step),
        }
        return step + 1, y, out

    final = loop(lambda carry: carry[0] < 6, body, (0, start, buffers), buffers=lambda carry: carry[2])
    kept = final[2]["ys"] * jnp.arange(1.0, 25.0).reshape(8, 3)
    return jnp.sum(kept**2) + jnp.prod(final[2]["history"][:7]), final


def some_leaves_are_buffers(loop: Any, start: Any, table: Any) -> Any:
    """One of two arrays is a buffer; its initial values are differentiated where nothing is written."""
    untouched = jnp.array([0.0, 1, 0, 1, 1, 1, 0, 1, 0, 1, 1, 1])

    def body(carry: Any) -> Any:
        step, y, buffer, other = carry
        y = jnp.cos(y) * other[0]
        return step + 1, y, eqxi.buffer_at_set(buffer, 2 * step, jnp.sum(y), pred=step != 2), other + 0.1 * y[0]

    final = loop(
        lambda carry: carry[0] < 5,
        body,
        (0, start, table * untouched, table[:2]),
        buffers=lambda carry: carry[2],
    )
    return jnp.sum(final[2] ** 3) + jnp.sum(final[3]), final


def nested_buffers(loop: Any, start: Any, weight: Any) -> Any:
    """An inner loop writes to a buffer of the outer one, as Diffrax's SaveAt(ts) does."""

    def outer_body(carry: Any) -> Any:
        step, y, out = carry

        def inner_body(inner: Any) -> Any:
            k, z, out = inner
            z = jnp.tanh(weight * z)
            return k + 1, z, out.at[2 * step + k].set(z)

        _, y, out = loop(lambda inner: inner[0] < 2, inner_body, (0, y, out), buffers=lambda inner: inner[2])
        return step + 1, y + 0.1, out

    init = (0, start, jnp.zeros((10, 3)))
    final = loop(lambda carry: carry[0] < 5, outer_body, init, buffers=lambda carry: carry[2])
    return jnp.sum(final[2] * jnp.arange(30.0).reshape(10, 3)), final


BUFFERS: dict[str, tuple[Callable, tuple]] = {
    "write only": (write_only, (START, 0.8)),
    "some leaves": (some_leaves_are_buffers, (START, np.linspace(0.3, 1.4, 12))),
    "nested": (nested_buffers, (START, 0.9)),
}


@pytest.mark.parametrize("name", BUFFERS)
def test_buffers_change_neither_values_nor_gradients(name: str) -> None:
    """What is written, where nothing is written, and what flows back through both."""
    run, args = BUFFERS[name]
    assert_close(gradients(run, ours, *arrays(args)), gradients(run, plain_while_loop, *arrays(args)))


def test_a_buffer_is_not_copied_into_every_checkpoint() -> None:
    """Ten times the checkpoints need ten times the state, however large the buffer is."""

    def program(checkpoints: int) -> Callable:
        def run(start: Any) -> Any:
            def body(carry: Any) -> Any:
                step, y, buffer = carry
                y = jnp.sin(y)
                return step + 1, y, buffer.at[step].set(y)

            init = (0, start, jnp.zeros((200, 1000)))
            loop = functools.partial(checkpointed_while_loop, checkpoints=checkpoints)
            final = loop(lambda carry: carry[0] < 200, body, init, buffers=lambda carry: carry[2])
            return jnp.sum(final[2] ** 2)

        return jax.grad(run)

    few, many = (temporary_bytes(program(c), jax.ShapeDtypeStruct((1000,), jnp.float64)) for c in (2, 22))
    assert many - few == pytest.approx(20 * 8000, rel=0.05)


#
# Nested loops
#


def nested(loop: Any, start: Any, weight: Any) -> Any:
    """A loop in a loop, both differentiable, the inner with a number of steps that depends on the outer."""

    def outer_body(carry: Any) -> Any:
        step, y = carry

        def inner_body(inner: Any) -> Any:
            k, z = inner
            return k + 1, z + 0.2 * jnp.sin(weight * z) * y

        _, z = loop(lambda inner: inner[0] < 1 + step % 3, inner_body, (0, y * 0.5))
        return step + 1, jnp.tanh(z + y)

    final = loop(lambda carry: carry[0] < 5, outer_body, (0, start))
    return jnp.sum(final[1]), final


def test_nested_loops_have_the_gradient_of_nested_scans() -> None:
    """Two levels, the inner one of varying length."""
    args = arrays((START, 0.9))
    assert_close(gradients(nested, ours, *args), gradients(nested, plain_while_loop, *args))


@pytest.mark.parametrize("kind", ["checkpointed", pytest.param("bounded", marks=pytest.mark.slow)])
def test_it_nests_with_the_loops_of_equinox(kind: Any) -> None:
    """Ours outside theirs and theirs outside ours."""
    theirs = functools.partial(eqxi.while_loop, kind=kind, max_steps=8, checkpoints=2)

    def run(loops: Any, start: Any, weight: Any) -> Any:
        outer, inner = loops

        def outer_body(carry: Any) -> Any:
            step, y = carry
            _, y = inner(lambda c: c[0] < 2, lambda c: (c[0] + 1, jnp.sin(weight * c[1])), (0, y))
            return step + 1, y

        final = outer(lambda carry: carry[0] < 4, outer_body, (0, start))
        return jnp.sum(final[1]), final

    args = arrays((START, 0.9))
    expected = gradients(run, (plain_while_loop, plain_while_loop), *args)
    assert_close(gradients(run, (ours, theirs), *args), expected)
    assert_close(gradients(run, (theirs, ours), *args), expected)


def test_a_loop_inside_a_scan_has_the_gradient_of_scans() -> None:
    """The loop is the body of a `jax.lax.scan` under `jax.checkpoint`."""

    def run(loop: Any, start: Any, weight: Any) -> Any:
        @jax.checkpoint
        def step(y: Any, x: Any) -> Any:
            final = loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, jnp.sin(weight * c[1] + x)), (0, y))
            return final[1], jnp.sum(final[1])

        final, sums = jax.lax.scan(step, start, jnp.arange(4.0))
        return jnp.sum(final) + jnp.sum(sums**2), final

    args = arrays((START, 0.9))
    assert_close(gradients(run, ours, *args), gradients(run, plain_while_loop, *args))


#
# Side effects
#


def test_a_callback_inside_the_body_sees_every_step() -> None:
    """`jax.debug.callback` runs once for each step of an undifferentiated loop, with the values of that step."""
    seen: list[float] = []

    @jax.jit
    def run(start: Any) -> Any:
        def body(carry: Any) -> Any:
            jax.debug.callback(lambda x: seen.append(float(x)), carry[1], ordered=True)
            return carry[0] + 1, carry[1] * 2

        return ours(lambda carry: carry[0] < 4, body, (0, start))

    run(1.0)
    jax.effects_barrier()
    assert seen == [1.0, 2.0, 4.0, 8.0]


def test_a_runtime_error_raised_inside_the_body_is_raised() -> None:
    """`equinox.error_if` in the body stops the differentiated program with its own message."""

    @jax.jit
    def run(start: Any, limit: Any) -> Any:
        def body(carry: Any) -> Any:
            step, y = carry
            y = eqx.error_if(y, step == limit, "the step that must not be")
            return step + 1, jnp.sin(y)

        return jax.grad(lambda start: ours(lambda carry: carry[0] < 4, body, (0, start))[1])(start)

    assert np.isfinite(run(0.3, 7))
    with pytest.raises(Exception, match="the step that must not be"):
        jax.block_until_ready(run(0.3, 2))


#
# Errors
#


def count_up(**arguments: Any) -> Any:
    """Call the loop with a simple body."""
    return checkpointed_while_loop(lambda x: x < 3, lambda x: x + 1, 0.0, **arguments)


@pytest.mark.parametrize("checkpoints", [0, -2])
def test_fewer_than_one_checkpoint_is_an_error(checkpoints: int) -> None:
    """The message repeats the number."""
    with pytest.raises(ValueError, match=f"at least one checkpoint.*{checkpoints}"):
        count_up(checkpoints=checkpoints)


def test_neither_checkpoints_nor_a_bound_is_an_error() -> None:
    """The message names both ways out."""
    with pytest.raises(ValueError, match=r"either `max_steps` or `checkpoints`"):
        count_up()


@pytest.mark.parametrize("max_steps", [2.0, "many", np.array(4), True, -1])
def test_a_bound_that_is_no_count_is_an_error(max_steps: Any) -> None:
    """Only integers from zero up; the message repeats what was given."""
    with pytest.raises(ValueError, match="max_steps"):
        count_up(checkpoints=2, max_steps=max_steps)


@pytest.mark.parametrize(
    ("body", "difference"),
    [
        (lambda carry: (carry[0] + 1,), r"input and output structure"),
        (lambda carry: (carry[0] + 1, carry[1][:2]), r"f64\[3\]|float64\[3\]"),
        (lambda carry: (carry[0] + 1, carry[1].astype(jnp.float32)), r"f32\[3\]|float32\[3\]"),
        (lambda carry: {"step": carry[0] + 1, "y": carry[1]}, r"input and output structure"),
    ],
)
def test_a_body_that_changes_the_carry_is_an_error(body: Callable, difference: str) -> None:
    """Structure, shape and dtype must stay; the message shows both sides."""
    with pytest.raises(ValueError, match=difference):
        ours(lambda carry: carry[0] < 3, body, (0, jnp.asarray(START)))
