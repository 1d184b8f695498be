"""Fit a latent ODE to noisy spirals of different sizes and turning rates: adaptive steps, `vmap` over the batch.

An encoder reads the first observations of a spiral and gives a latent state; the latent state follows

    dz/dt = rotation z + MLP(z)

whose linear part starts as slow and fast rotations; a linear decoder gives the two coordinates back. Every example of
the batch is a solve of its own (`jax.vmap(diffeqsolve)`), with its own steps.

    ckpt-tune tune scripts/problems/spirals.py:make --budget 24MiB
"""

import functools

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float

OBSERVATIONS = 100
SEEN = 10
"""How many of the observations the encoder reads; the rest must be predicted."""


class LatentODE(eqx.Module):
    """Encoder, latent dynamics, decoder."""

    encoder: eqx.nn.MLP
    rotation: Float[Array, "latent latent"]
    field: eqx.nn.MLP
    decoder: eqx.nn.Linear

    def __init__(self, latent: int, width: int, key: Array):
        """Start from rotations of angular speed 1/2 to 4 and a small nonlinear part."""
        encoder_key, field_key, decoder_key = jr.split(key, 3)
        self.encoder = eqx.nn.MLP(2 * SEEN, latent, width, 1, jnp.tanh, key=encoder_key)
        speeds = jnp.linspace(0.5, 4.0, latent // 2)
        self.rotation = jnp.kron(jnp.diag(speeds), jnp.array([[0.0, -1.0], [1.0, 0.0]]))
        field = eqx.nn.MLP(latent, latent, width, 1, jnp.tanh, key=field_key)
        self.field = eqx.tree_at(lambda tree: tree.layers[-1].weight, field, 0.1 * field.layers[-1].weight)
        self.decoder = eqx.nn.Linear(latent, 2, key=decoder_key)

    def __call__(self, t: Array, z: Float[Array, " latent"], args: None) -> Float[Array, " latent"]:
        """Return the latent rate of change."""
        return self.rotation @ z + self.field(z)


def spirals(batch: int, horizon: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Draw spirals: times (OBSERVATIONS,), and noisy coordinates (batch, OBSERVATIONS, 2)."""
    rng = np.random.default_rng(seed)
    times = np.linspace(0.0, horizon, OBSERVATIONS)
    turning = rng.uniform(0.5, 1.5, (batch, 1)) * rng.choice([-1.0, 1.0], (batch, 1))
    phase = rng.uniform(0, 2 * np.pi, (batch, 1))
    radius = rng.uniform(0.5, 1.5, (batch, 1)) * np.exp(-times / horizon)
    angle = phase + turning * times
    clean = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=-1)
    return times, clean + 0.02 * rng.standard_normal(clean.shape)


def loss(model, times, coordinates, *, adjoint, tolerance):
    """Mean squared error of the decoded trajectory over the batch."""

    def predict(seen):
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(model),
            diffrax.Tsit5(),
            t0=times[0],
            t1=times[-1],
            dt0=None,
            y0=model.encoder(seen.reshape(-1)),
            saveat=diffrax.SaveAt(ts=times),
            stepsize_controller=diffrax.PIDController(rtol=tolerance, atol=tolerance),
            adjoint=adjoint,
            max_steps=16384,
        )
        return jax.vmap(model.decoder)(solution.ys)

    return jnp.mean((jax.vmap(predict)(coordinates[:, :SEEN]) - coordinates) ** 2)


def make(*, adjoint, horizon=40.0, tolerance=1e-5, batch=64, latent=32, width=64):
    """Build the gradient of the fit to `batch` spirals observed until time `horizon`."""
    times, coordinates = spirals(batch, float(horizon))
    model = LatentODE(latent, width, jr.key(0))
    objective = functools.partial(loss, adjoint=adjoint, tolerance=tolerance)
    return eqx.filter_value_and_grad(objective), (model, jnp.asarray(times), jnp.asarray(coordinates))
