"""A tiny neural field solved with fixed or adaptive steps: the plainest problem, used by most tests."""

import diffrax
import equinox as eqx
import jax.numpy as jnp


def make(*, adjoint, horizon=10, tolerance=1e-3, width=3, adaptive=True, throw=True, max_steps=4096):
    """Gradient of the final state's sum; `horizon` is the end time."""
    controller = diffrax.PIDController(rtol=tolerance, atol=tolerance) if adaptive else diffrax.ConstantStepSize()

    def loss(weights, y0):
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(lambda t, y, w: jnp.tanh(w @ y) * jnp.cos(t)),
            diffrax.Heun(), 0.0, float(horizon), 0.1, y0, weights,
            stepsize_controller=controller, adjoint=adjoint, max_steps=max_steps, throw=throw,
        )  # fmt: skip
        return jnp.sum(solution.ys)

    return eqx.filter_value_and_grad(loss), (jnp.eye(width) - 0.3, jnp.linspace(0.1, 1.0, width))


def make_nan(*, adjoint):
    """A gradient that is not a number."""
    fn, args = make(adjoint=adjoint, adaptive=False, horizon=1)
    return lambda w, y: fn(w * jnp.nan, y), args


def make_raising(*, adjoint, horizon=1):
    """A factory that raises."""
    return _inner(horizon)


def _inner(horizon):
    raise KeyError(f"no data for horizon {horizon}")


def make_unused(*, adjoint):
    """A function that never solves anything."""
    return (lambda x: jnp.sum(x)), (jnp.ones(3),)


def make_triple(*, adjoint):
    """Something that is no problem."""
    return 1, 2, 3


not_a_factory = 7
