"""Leaves that others give: held where all of them together are few bytes, computed again elsewhere."""

import diffrax
import jax
import jax.numpy as jnp
import pytest

import adjoint
from adjoint.loop import tape

from .plain import assert_close

HELD = 2048


def gradient(method, controller, batched=False):
    """Differentiate a solve whose last slope is the first of the next step."""

    def loss(rate, start):
        return jnp.sum(
            diffrax.diffeqsolve(
                diffrax.ODETerm(lambda t, y, rate: jnp.sin(rate * y + t)),
                diffrax.Bosh3(),
                0.0,
                1.0,
                0.15,
                start,
                args=rate,
                adjoint=method,
                stepsize_controller=controller,
                max_steps=30,
            ).ys
            ** 2
        )

    def whole(rate, starts):
        return jnp.sum(jax.vmap(loss, (None, 0))(rate, starts)) if batched else loss(rate, starts[0])

    starts = jnp.array([[0.3, -1.0], [2.0, 0.1], [0.5, 0.6]])
    return jax.jit(jax.grad(whole, (0, 1))).lower(jnp.array(1.3), starts).compile(), (jnp.array(1.3), starts)


@pytest.mark.parametrize("most", [0, HELD])
@pytest.mark.parametrize("batched", [False, True])
def test_gradients_do_not_depend_on_what_is_held(x64, monkeypatch, most, batched):
    """Held or computed again, the slope is the same."""
    monkeypatch.setattr(tape, "SMALL_DERIVED_BYTES", most)
    controller = diffrax.PIDController(rtol=1e-3, atol=1e-5)
    ours, args = gradient(adjoint.RecursiveCheckpointAdjoint(3), controller, batched)
    theirs, _ = gradient(diffrax.RecursiveCheckpointAdjoint(3), controller, batched)
    assert_close(ours(*args), theirs(*args), 1e-11)


def test_few_bytes_are_held_and_many_are_not(monkeypatch):
    """A slope of 8 bytes is in each of 20 checkpoints, and in none where that is too much."""

    def taken(most):
        monkeypatch.setattr(tape, "SMALL_DERIVED_BYTES", most)
        compiled, _ = gradient(adjoint.RecursiveCheckpointAdjoint(20), diffrax.ConstantStepSize())
        return compiled.memory_analysis().temp_size_in_bytes

    assert 20 * 8 * 0.5 <= taken(20 * 8) - taken(20 * 8 - 1) <= 20 * 8 + 1024
