"""What is not differentiated costs nothing and refuses nothing: the loop raises exactly where Equinox's raises.

`equinox.internal.nondifferentiable` raises where a tangent reaches it, `nondifferentiable_backward` where a cotangent
does; both mark what a loop must leave alone. The oracle is Equinox's own loop, on the same body.
"""

import functools
from collections.abc import Callable
from typing import Any

import equinox.internal as eqxi
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.custom_derivatives import SymbolicZero

from adjoint import checkpointed_while_loop

from .compiled import temporary_bytes

pytestmark = pytest.mark.usefixtures("x64")

ours = functools.partial(checkpointed_while_loop, checkpoints=2, max_steps=4)
theirs = functools.partial(eqxi.while_loop, kind="checkpointed", checkpoints=2, max_steps=4)


@jax.custom_vjp
def refuse_cotangent(x: Any) -> Any:
    """Return `x`; raise where the loop hands back a cotangent, a zero that is no symbolic one included."""
    return x


def _refuse_forward(x: Any) -> Any:
    return x.value, None


def _refuse_backward(_: None, cotangent: Any) -> Any:
    if not isinstance(cotangent, SymbolicZero):
        raise RuntimeError("Unexpected cotangent.")
    return (cotangent,)


refuse_cotangent.defvjp(_refuse_forward, _refuse_backward, symbolic_zeros=True)


def four_steps(carry: Any) -> Any:
    """Go on for four steps."""
    return carry[0] < 4


def unperturbed_part(loop: Any, x: Any) -> Any:
    """A part that nothing differentiable reaches refuses tangents."""

    def body(carry: Any) -> Any:
        step, y, z = carry
        return step + 1, jnp.sin(y) * z, eqxi.nondifferentiable(z) * 0.9

    return loop(four_steps, body, (0, x, 1.1))[1]


def part_that_becomes_perturbed(loop: Any, x: Any) -> Any:
    """A part that refuses tangents is reached by one in the second step."""

    def body(carry: Any) -> Any:
        step, y, z = carry
        return step + 1, jnp.sin(y), eqxi.nondifferentiable(z) * 0.9 + y

    return loop(four_steps, body, (0, x, 1.1))[1]


def chain_of_perturbations(loop: Any, x: Any) -> Any:
    """The last of three parts is reached in the third step only, and refuses."""

    def body(carry: Any) -> Any:
        step, a, b, c = carry
        return step + 1, jnp.sin(a), b + a, eqxi.nondifferentiable(c) + b

    return loop(four_steps, body, (0, x, 1.1, 0.3))[1]


def part_without_cotangent(loop: Any, x: Any) -> Any:
    """A perturbed part that refuses cotangents does not matter to the loss."""

    def body(carry: Any) -> Any:
        step, y, z = carry
        return step + 1, jnp.sin(y), eqxi.nondifferentiable_backward(z * y)

    return loop(four_steps, body, (0, x, x))[1]


def part_with_cotangent(loop: Any, x: Any) -> Any:
    """The same part is used in the loss."""

    def body(carry: Any) -> Any:
        step, y, z = carry
        return step + 1, jnp.sin(y), eqxi.nondifferentiable_backward(z * y)

    return loop(four_steps, body, (0, x, x))[2]


def part_with_cotangent_at_a_distance(loop: Any, x: Any) -> Any:
    """The part that refuses cotangents reaches the loss by way of two others."""

    def body(carry: Any) -> Any:
        step, a, b, c = carry
        return step + 1, a + b, b * c, jnp.sin(eqxi.nondifferentiable_backward(c))

    return loop(four_steps, body, (0, x, x, x))[1]


def closed_over_unperturbed(loop: Any, x: Any) -> Any:
    """A closed-over constant refuses tangents."""
    constant = jnp.array(0.7)

    def body(carry: Any) -> Any:
        return carry[0] + 1, jnp.sin(carry[1]) * eqxi.nondifferentiable(constant)

    return loop(four_steps, body, (0, x))[1]


def closed_over_perturbed(loop: Any, x: Any) -> Any:
    """A closed-over differentiated value refuses tangents."""

    def body(carry: Any) -> Any:
        return carry[0] + 1, jnp.sin(carry[1]) * eqxi.nondifferentiable(x)

    return loop(four_steps, body, (0, 0.3))[1]


def unperturbed_output(loop: Any, x: Any) -> Any:
    """What comes out of the loop unperturbed refuses tangents afterwards."""

    def body(carry: Any) -> Any:
        step, y, z = carry
        return step + 1, jnp.sin(y) * z, z * 0.9

    _, y, z = loop(four_steps, body, (0, x, 1.1))
    return y * eqxi.nondifferentiable(z)


def perturbed_output(loop: Any, x: Any) -> Any:
    """What comes out of the loop perturbed refuses tangents afterwards."""

    def body(carry: Any) -> Any:
        step, y, z = carry
        return step + 1, jnp.sin(y), z * y

    _, y, z = loop(four_steps, body, (0, x, 1.1))
    return y * eqxi.nondifferentiable(z)


def input_without_cotangent(loop: Any, x: Any) -> Any:
    """An initial value that the loss does not depend on refuses cotangents before the loop."""

    def body(carry: Any) -> Any:
        step, y, z = carry
        return step + 1, jnp.sin(y), z * y

    return loop(four_steps, body, (0, x, refuse_cotangent(x)))[1]


def input_with_cotangent(loop: Any, x: Any) -> Any:
    """An initial value that the loss depends on refuses cotangents before the loop."""

    def body(carry: Any) -> Any:
        step, y, z = carry
        return step + 1, jnp.sin(y), z * y

    return loop(four_steps, body, (0, x, refuse_cotangent(x)))[2]


def buffer_of_unperturbed(loop: Any, x: Any) -> Any:
    """A buffer to which only unperturbed values are written refuses tangents afterwards."""

    def body(carry: Any) -> Any:
        step, y, z, buffer = carry
        return step + 1, jnp.sin(y) * z, z * 0.9, buffer.at[step].set(z)

    final = loop(four_steps, body, (0, x, 1.1, jnp.zeros(4)), buffers=lambda carry: carry[3])
    return final[1] + jnp.sum(eqxi.nondifferentiable(final[3]))


def buffer_without_cotangent(loop: Any, x: Any) -> Any:
    """Values written to a buffer that the loss ignores refuse cotangents."""

    def body(carry: Any) -> Any:
        step, y, buffer = carry
        return step + 1, jnp.sin(y), buffer.at[step].set(eqxi.nondifferentiable_backward(y))

    return loop(four_steps, body, (0, x, jnp.zeros(4)), buffers=lambda carry: carry[2])[1]


def buffer_with_cotangent(loop: Any, x: Any) -> Any:
    """Values written to a buffer that the loss reads refuse cotangents."""

    def body(carry: Any) -> Any:
        step, y, buffer = carry
        return step + 1, jnp.sin(y), buffer.at[step].set(eqxi.nondifferentiable_backward(y))

    return jnp.sum(loop(four_steps, body, (0, x, jnp.zeros(4)), buffers=lambda carry: carry[2])[2])


def stopped_inside(loop: Any, x: Any) -> Any:
    """`stop_gradient` inside the body keeps a part unperturbed, so that it may refuse tangents."""

    def body(carry: Any) -> Any:
        step, y, z = carry
        return step + 1, jnp.sin(y) + z, eqxi.nondifferentiable(jax.lax.stop_gradient(y) * z)

    return loop(four_steps, body, (0, x, 1.1))[1]


def inner_loop_unperturbed(loop: Any, x: Any) -> Any:
    """An inner loop over unperturbed values refuses tangents."""

    def body(carry: Any) -> Any:
        step, y, z = carry
        _, z = loop(lambda c: c[0] < 2, lambda c: (c[0] + 1, eqxi.nondifferentiable(c[1]) * 0.9), (0, z))
        return step + 1, jnp.sin(y) * z, z

    return loop(four_steps, body, (0, x, 1.1))[1]


def nothing_reaches_the_loss(loop: Any, x: Any) -> Any:
    """The loss depends on a part that no differentiated value reaches: its gradient is zero."""

    def body(carry: Any) -> Any:
        step, y, z = carry
        return step + 1, eqxi.nondifferentiable_backward(jnp.sin(y)), z * 0.9

    return loop(four_steps, body, (0, x, 1.1))[2]


def integers_only(loop: Any, x: Any) -> Any:
    """A loop over integers, with a differentiated value closed over that only decides."""

    def body(carry: Any) -> Any:
        return carry[0] + 1, carry[1] + (x > 0.1).astype(jnp.int64)

    return loop(four_steps, body, (0, jnp.array(0)))[1] * x


CASES: dict[str, Callable] = {
    case.__name__: case
    for case in (
        unperturbed_part,
        part_that_becomes_perturbed,
        chain_of_perturbations,
        part_without_cotangent,
        part_with_cotangent,
        part_with_cotangent_at_a_distance,
        closed_over_unperturbed,
        closed_over_perturbed,
        unperturbed_output,
        perturbed_output,
        input_without_cotangent,
        input_with_cotangent,
        buffer_of_unperturbed,
        buffer_without_cotangent,
        buffer_with_cotangent,
        stopped_inside,
        inner_loop_unperturbed,
        nothing_reaches_the_loss,
        integers_only,
    )
}
ACCEPTED = {
    "unperturbed_part",
    "part_without_cotangent",
    "closed_over_unperturbed",
    "unperturbed_output",
    "input_without_cotangent",
    "buffer_of_unperturbed",
    "buffer_without_cotangent",
    "stopped_inside",
    "inner_loop_unperturbed",
    "nothing_reaches_the_loss",
    "integers_only",
}


def outcome(case: Callable, loop: Any) -> str:
    """Trace the gradient and tell whether that was refused; nothing is compiled."""
    try:
        jax.eval_shape(jax.grad(functools.partial(case, loop)), jnp.array(0.4))
    except Exception as error:
        message = str(error)
        assert "Unexpected tangent" in message or "Unexpected cotangent" in message, message
        return "refused"
    return "accepted"


@pytest.mark.parametrize("name", CASES)
def test_what_must_not_be_differentiated_is_refused_where_equinox_refuses_it(name: str) -> None:
    """Accepted or refused alike, and as this file says."""
    found = outcome(CASES[name], ours)
    assert found == outcome(CASES[name], theirs)
    assert found == ("accepted" if name in ACCEPTED else "refused")


def test_a_condition_is_never_differentiated() -> None:
    """It may refuse tangents of the carry, which it only looks at in order to decide."""

    def run(x: Any) -> Any:
        def cond(carry: Any) -> Any:
            return eqxi.nondifferentiable(carry[1]) < 40.0

        return ours(cond, lambda carry: (carry[0] + 1, carry[1] * 2.0), (0, x))[1]

    assert jax.jit(jax.grad(run))(1.0) == 16.0


@pytest.mark.slow
def test_what_is_accepted_has_the_gradient_of_equinox() -> None:
    """Value and gradient of all accepted cases, compiled as one program each."""

    def losses(loop: Any) -> Callable:
        return lambda xs: jnp.stack([CASES[name](loop, x) for name, x in zip(sorted(ACCEPTED), xs, strict=True)])

    xs = jnp.linspace(0.3, 0.8, len(ACCEPTED))

    def both(loop: Any) -> Any:
        values, pullback = jax.vjp(losses(loop), xs)
        return values, pullback(jnp.ones_like(values))[0]

    for found, expected in zip(
        jax.jit(both, static_argnums=0)(ours), jax.jit(both, static_argnums=0)(theirs), strict=True
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-12)


def gradient_bytes(body: Callable, init: Callable, pick: Callable, checkpoints: int) -> int:
    """Return the temporary bytes of a gradient through 500 steps."""

    def run(start: Any) -> Any:
        final = checkpointed_while_loop(lambda c: c[0] < 500, body, init(start), checkpoints=checkpoints)
        return jnp.sum(pick(final) ** 2)

    return temporary_bytes(jax.grad(run), jax.ShapeDtypeStruct((1000,), jnp.float64))


def test_what_a_replay_does_not_read_is_not_stored() -> None:
    """A running sum beside the state costs no checkpoint: its old values are never needed."""

    def body(carry: Any) -> Any:
        step, y, total = carry
        y = jnp.sin(y)
        return step + 1, y, total + y

    grown = [
        gradient_bytes(body, lambda start: (0, start, jnp.zeros_like(start)), lambda final: final[2], checkpoints)
        for checkpoints in (4, 24)
    ]
    assert grown[1] - grown[0] == pytest.approx(20 * 8000, rel=0.05)


def test_what_stays_the_same_is_not_stored() -> None:
    """A leaf that the body returns untouched is kept once, not in every checkpoint."""

    def body(carry: Any) -> Any:
        step, y, fixed = carry
        return step + 1, jnp.sin(y * fixed), fixed

    grown = [
        gradient_bytes(body, lambda start: (0, start, start + 1), lambda final: final[1], checkpoints)
        for checkpoints in (4, 24)
    ]
    assert grown[1] - grown[0] == pytest.approx(20 * 8000, rel=0.05)
