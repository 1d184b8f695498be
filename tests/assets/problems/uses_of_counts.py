"""Factories that use an adjoint, or its counts, in ways that a tuner has to see through."""

import diffrax
import equinox.internal as eqxi
import jax
import jax.numpy as jnp

from adjoint import checkpointed_scan, checkpointed_while_loop


def _solve(adjoint, w, horizon):
    field = diffrax.ODETerm(lambda t, y, w: jnp.tanh(w * y))
    return diffrax.diffeqsolve(field, diffrax.Heun(), 0.0, 0.1 * horizon, 0.1, jnp.ones(3), w, adjoint=adjoint).ys


def _loop(adjoint, w, horizon):
    step = lambda c: (c[0] + 1, jnp.tanh(w * c[1]))
    return checkpointed_while_loop(
        lambda c: c[0] < horizon, step, (0, jnp.ones(3)), max_steps=int(horizon), checkpoints=adjoint.checkpoints
    )[1]


def _scan(adjoint, w, horizon):
    step = lambda y, x: (jnp.tanh(w * y + x), None)
    return checkpointed_scan(step, jnp.ones(3), jnp.linspace(0.0, 1.0, int(horizon)), checkpoints=adjoint.checkpoints)[
        0
    ]


def make_loss_of_solve(*, adjoint, horizon=10):
    """The gradient was forgotten."""
    return lambda w: jnp.sum(_solve(adjoint, w, horizon)), (jnp.float32(0.3),)


def make_loss_of_loop(*, adjoint, horizon=10):
    """The gradient of a plain loop was forgotten."""
    return lambda w: jnp.sum(_loop(adjoint, w, horizon)), (jnp.float32(0.3),)


def make_gradient_of_solve(*, adjoint, horizon=10):
    """As it should be."""
    return jax.grad(lambda w: jnp.sum(_solve(adjoint, w, horizon))), (jnp.float32(0.3),)


def make_gradient_of_loop(*, adjoint, horizon=10):
    """As it should be, with a plain loop."""
    return jax.grad(lambda w: jnp.sum(_loop(adjoint, w, horizon))), (jnp.float32(0.3),)


def make_loss_of_scan(*, adjoint, horizon=10):
    """The gradient of a scan was forgotten."""
    return lambda w: jnp.sum(_scan(adjoint, w, horizon)), (jnp.float32(0.3),)


def make_gradient_of_scan(*, adjoint, horizon=10):
    """As it should be, with a scan."""
    return jax.grad(lambda w: jnp.sum(_scan(adjoint, w, horizon))), (jnp.float32(0.3),)


def make_gradient_of_something_else(*, adjoint, horizon=10):
    """A gradient is taken, but the solve does not depend on what it is taken of."""
    return jax.grad(lambda w: w * jnp.sum(_solve(adjoint, jnp.float32(0.3), horizon))), (jnp.float32(0.3),)


def make_library(*, adjoint, horizon=10, gradient=True):
    """A library that takes a count and makes Diffrax's adjoint of it."""
    own = diffrax.RecursiveCheckpointAdjoint(checkpoints=adjoint.checkpoints)
    loss = lambda w: jnp.sum(_solve(own, w, horizon))
    return (jax.grad(loss) if gradient else loss), (jnp.float32(0.3),)


def make_unbounded_library(*, adjoint, horizon=10):
    """A library that hands a count to a loop of its own."""

    def loss(w):
        step = lambda c: (c[0] + 1, jnp.tanh(w * c[1]))
        end = eqxi.while_loop(
            lambda c: c[0] < horizon, step, (jnp.int32(0), jnp.ones(1000)), kind="checkpointed",
            checkpoints=adjoint.checkpoints,
        )  # fmt: skip
        return jnp.sum(end[1])

    return jax.grad(loss), (jnp.float32(0.3),)


def make_asks_for_the_class(*, adjoint, horizon=10):
    """A library that takes another path for an adjoint that is not Diffrax's: twice as many steps."""
    times = 1 if isinstance(adjoint, diffrax.RecursiveCheckpointAdjoint) else 2
    return jax.grad(lambda w: jnp.sum(_solve(adjoint, w, times * horizon))), (jnp.float32(0.3),)


def make_unused(*, adjoint, horizon=10):
    """The adjoint is passed through a jit, and neither it nor its counts are used."""
    import equinox as eqx

    eqx.filter_jit(lambda module, x: x)(adjoint, jnp.ones(()))
    return jax.grad(lambda w: jnp.tanh(w * horizon)), (jnp.float32(0.3),)


def make_meets_max_steps(*, adjoint, horizon=10, tolerance=1e-3):
    """At small tolerances the solve takes more steps than it may."""
    field = diffrax.ODETerm(lambda t, y, w: -w * y)

    def loss(w):
        return jnp.sum(
            diffrax.diffeqsolve(
                field, diffrax.Heun(), 0.0, float(horizon), 0.1, jnp.ones(3), w, adjoint=adjoint, max_steps=200,
                stepsize_controller=diffrax.PIDController(rtol=tolerance, atol=tolerance),
            ).ys
        )  # fmt: skip

    return jax.value_and_grad(loss), (jnp.float32(0.3),)
