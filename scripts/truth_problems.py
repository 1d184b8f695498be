"""Four problems that differ from the shipped six, for `bench_truth.py`: each is all that the six are not.

`tiny` makes 20,000 steps of a state of two numbers, so that dispatch is most of its time; `few` makes four steps of a
large one, so that a count has next to nothing to choose from; `loop` is a plain checkpointed loop without Diffrax; and
`nbody` has the pair state of a symplectic solver.
"""

from typing import Any

import diffrax
import jax
import jax.numpy as jnp
import jax.random as jr

from adjoint import checkpointed_while_loop

SOFTENING = 0.05


def _swing(t: Any, y: Any, rates: Any) -> Any:
    del t
    return jnp.stack([y[1], -rates[0] * jnp.sin(y[0]) - rates[1] * y[1]])


def tiny(*, adjoint: Any, horizon: int = 20_000) -> tuple[Any, tuple[Any, ...]]:
    """Build the gradient of a damped pendulum's end by its two rates, in `horizon` steps of Euler's method."""

    def loss(rates: Any) -> Any:
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(_swing), diffrax.Euler(), 0.0, 0.001 * horizon, 0.001, jnp.array([1.0, 0.0]), rates,
            adjoint=adjoint, max_steps=horizon + 1,
        )  # fmt: skip
        assert solution.ys is not None
        return jnp.sum(solution.ys[-1] ** 2)

    return jax.value_and_grad(loss), (jnp.array([4.0, 0.1]),)


def few(*, adjoint: Any, horizon: int = 4, width: int = 384) -> tuple[Any, tuple[Any, ...]]:
    """Build the gradient of a flow of `width` points in as many dimensions, in `horizon` steps of Heun's method."""
    weights = jr.normal(jr.key(0), (width, width)) / width**0.5

    def loss(weights: Any) -> Any:
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(lambda t, y, w: jnp.tanh(y @ w)), diffrax.Heun(), 0.0, 1.0, 1.0 / horizon,
            jnp.ones((width, width)), weights, adjoint=adjoint, max_steps=horizon + 4,
        )  # fmt: skip
        assert solution.ys is not None
        return jnp.mean(solution.ys[-1] ** 2)

    return jax.value_and_grad(loss), (weights,)


def loop(*, adjoint: Any, horizon: int = 2_000, width: int = 64) -> tuple[Any, tuple[Any, ...]]:
    """Build the gradient of a recurrent cell of `width` units after `horizon` passes of a plain loop."""
    weights = jr.normal(jr.key(1), (width, width)) / width**0.5
    drive = jr.normal(jr.key(2), (horizon, width))

    def loss(weights: Any, drive: Any) -> Any:
        def step(carry: Any) -> Any:
            k, y = carry
            return k + 1, jnp.tanh(weights @ y + 0.1 * drive[k])

        _, y = checkpointed_while_loop(
            lambda carry: carry[0] < horizon, step, (0, jnp.zeros(width)), max_steps=horizon,
            checkpoints=adjoint.checkpoints, expected_steps=adjoint.expected_steps,
        )  # fmt: skip
        return jnp.sum(y**2)

    return jax.value_and_grad(loss), (weights, drive)


def nbody(*, adjoint: Any, horizon: int = 500, bodies: int = 48) -> tuple[Any, tuple[Any, ...]]:
    """Build the gradient of where `bodies` bodies come to lie by their masses, in `horizon` leapfrog-like steps."""
    places = jr.normal(jr.key(3), (bodies, 3))
    speeds = 0.3 * jr.normal(jr.key(4), (bodies, 3))

    def pull(t: Any, q: Any, masses: Any) -> Any:
        del t
        apart = q[None] - q[:, None]
        cubed = (jnp.sum(apart**2, axis=-1) + SOFTENING) ** 1.5
        return jnp.sum(masses[None, :, None] * apart / cubed[..., None], axis=1)

    terms = (diffrax.ODETerm(pull), diffrax.ODETerm(lambda t, p, args: p))

    def loss(masses: Any) -> Any:
        solution = diffrax.diffeqsolve(
            terms, diffrax.SemiImplicitEuler(), 0.0, 0.004 * horizon, 0.004, (speeds, places), masses,
            adjoint=adjoint, max_steps=2 * horizon,
        )  # fmt: skip
        assert solution.ys is not None
        return jnp.mean(solution.ys[1][-1] ** 2)

    return jax.value_and_grad(loss), (jnp.ones(bodies) / bodies,)
