"""Classify irregularly sampled series with a neural controlled differential equation.

Each series is a noisy oscillation with missing observations; the class is whether its frequency rises or falls. The
path is a cubic through what was observed, the hidden state follows dz = f(z) dX, and the last hidden state is
classified. The number of steps grows with the length of the series, which is what makes memory run out.

    ckpt-tune tune scripts/problems/neural_cde.py:make --budget 16MiB --horizon 100,200,400
"""

import functools

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float

CHANNELS = 2
"""Time, and the value at that time."""


class NeuralCDE(eqx.Module):
    """Initial state from the first observation, vector field, and a linear classifier."""

    initial: eqx.nn.Linear
    field: eqx.nn.MLP
    classifier: eqx.nn.Linear
    hidden: int = eqx.field(static=True)

    def __init__(self, hidden: int, width: int, key: Array):
        """Draw the weights; tanh at the end of the field keeps long series stable."""
        keys = jr.split(key, 3)
        self.initial = eqx.nn.Linear(CHANNELS, hidden, key=keys[0])
        self.field = eqx.nn.MLP(hidden, hidden * CHANNELS, width, 1, jnp.tanh, jnp.tanh, key=keys[1])
        self.classifier = eqx.nn.Linear(hidden, 1, key=keys[2])
        self.hidden = hidden

    def __call__(self, t: Array, z: Float[Array, " hidden"], args: None) -> Float[Array, "hidden channels"]:
        """Return the matrix that the path's rate of change is multiplied by."""
        return self.field(z).reshape(self.hidden, CHANNELS)


def series(batch: int, length: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw times (length,), values (batch, length) with NaN where one is missing, and labels (batch,)."""
    rng = np.random.default_rng(seed)
    times = np.arange(length) / 10.0
    labels = rng.integers(0, 2, batch)
    rising = np.where(labels, 1.0, -1.0)[:, None]
    angle = 2.0 * times + rising * 0.5 * times[-1] * (times / times[-1] - 0.5) ** 2
    values = np.sin(angle + rng.uniform(0, 2 * np.pi, (batch, 1))) + 0.1 * rng.standard_normal((batch, length))
    missing = rng.uniform(size=values.shape) < 0.3
    missing[:, [0, -1]] = False
    return times, np.where(missing, np.nan, values), labels


def loss(model, times, coefficients, labels, *, adjoint, tolerance):
    """Binary cross-entropy over the batch."""

    def logit(coefficients):
        path = diffrax.CubicInterpolation(times, coefficients)
        solution = diffrax.diffeqsolve(
            diffrax.ControlTerm(model, path).to_ode(),
            diffrax.Tsit5(),
            t0=times[0],
            t1=times[-1],
            dt0=None,
            y0=model.initial(path.evaluate(times[0])),
            stepsize_controller=diffrax.PIDController(rtol=tolerance, atol=tolerance),
            adjoint=adjoint,
            max_steps=16384,
        )
        assert solution.ys is not None
        return model.classifier(solution.ys[-1])[0]

    logits = jax.vmap(logit)(coefficients)
    return jnp.mean(jax.nn.softplus(logits) - labels * logits)


def make(*, adjoint, horizon=200, tolerance=1e-4, batch=64, hidden=32, width=64):
    """Build the gradient of the classification of `batch` series of `horizon` observations each."""
    length = round(horizon)
    if length < 2:
        raise ValueError(f"horizon={horizon}: it is the number of observations of a series, at least 2.")
    times, values, labels = (jnp.asarray(array) for array in series(batch, length))
    paths = jnp.stack([jnp.broadcast_to(times, values.shape), values], axis=-1)
    coefficients = jax.vmap(lambda path: diffrax.backward_hermite_coefficients(times, path))(paths)
    model = NeuralCDE(hidden, width, jr.key(0))
    objective = functools.partial(loss, adjoint=adjoint, tolerance=tolerance)
    return eqx.filter_value_and_grad(objective), (model, times, coefficients, labels)
