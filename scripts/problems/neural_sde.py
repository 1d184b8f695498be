"""Fit a neural SDE to noisy oscillations by the energy score: a batch of solves with VirtualBrownianTree.

    dz = drift(t, z) dt + diffusion(t, z) o dW,        path = readout(z)

The data are paths of a noisy pendulum that is pushed around. The energy score compares generated with observed paths,

    2 E|generated - observed| - E|generated - generated'|,

and is smallest where both have the same distribution, so no discriminator is needed.

    ckpt-tune tune scripts/problems/neural_sde.py:make --budget 24MiB
"""

import functools

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float

SOLVERS = {"heun": diffrax.Heun, "euler_heun": diffrax.EulerHeun, "reversible_heun": diffrax.ReversibleHeun}
OBSERVATIONS = 41
NOISES = 4
STEP = 0.02


class NeuralSDE(eqx.Module):
    """Initial law, drift, diffusion, and a linear read-out of one coordinate."""

    initial: eqx.nn.MLP
    drift: eqx.nn.MLP
    diffusion: eqx.nn.MLP
    readout: eqx.nn.Linear

    def __init__(self, hidden: int, width: int, key: Array):
        """Draw the weights; the diffusion starts small."""
        keys = jr.split(key, 4)
        self.initial = eqx.nn.MLP(NOISES, hidden, width, 1, jnp.tanh, key=keys[0])
        self.drift = eqx.nn.MLP(hidden + 1, hidden, width, 1, jnp.tanh, jnp.tanh, key=keys[1])
        diffusion = eqx.nn.MLP(hidden + 1, hidden * NOISES, width, 1, jnp.tanh, key=keys[2])
        last = diffusion.layers[-1]
        self.diffusion = eqx.tree_at(lambda tree: tree.layers[-1].weight, diffusion, 0.1 * last.weight)
        self.readout = eqx.nn.Linear(hidden, 1, key=keys[3])

    def terms(self, brownian: diffrax.AbstractBrownianPath) -> diffrax.MultiTerm:
        """Return drift and diffusion as Diffrax terms."""

        def drift(t, z, args):
            return self.drift(jnp.append(z, jnp.asarray(t, z.dtype)))

        def diffusion(t, z, args):
            return self.diffusion(jnp.append(z, jnp.asarray(t, z.dtype))).reshape(z.size, NOISES)

        return diffrax.MultiTerm(diffrax.ODETerm(drift), diffrax.ControlTerm(diffusion, brownian))


def pendulum_paths(paths: int, horizon: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Simulate d velocity = (-angle - velocity / 5) dt + dW / 2: times, and angles (paths, OBSERVATIONS)."""
    rng = np.random.default_rng(seed)
    times = np.linspace(0.0, horizon, OBSERVATIONS)
    inner, angle, velocity = 50, rng.standard_normal(paths), rng.standard_normal(paths)
    step, kept = horizon / (OBSERVATIONS - 1) / 50, [angle]
    for _ in range(OBSERVATIONS - 1):
        for _ in range(inner):
            kick = 0.5 * np.sqrt(step) * rng.standard_normal(paths)
            velocity = velocity + step * (-angle - velocity / 5) + kick
            angle = angle + step * velocity
        kept.append(angle)
    return times, np.stack(kept, axis=1)


def loss(model, times, observed, key, *, adjoint, solver):
    """Energy score of as many generated paths as are observed."""

    def generate(key) -> Float[Array, " observations"]:
        initial_key, brownian_key = jr.split(key)
        brownian = diffrax.VirtualBrownianTree(times[0], times[-1], tol=STEP / 2, shape=(NOISES,), key=brownian_key)
        solution = diffrax.diffeqsolve(
            model.terms(brownian),
            SOLVERS[solver](),
            t0=times[0],
            t1=times[-1],
            dt0=STEP,
            y0=model.initial(jr.normal(initial_key, (NOISES,))),
            saveat=diffrax.SaveAt(ts=times),
            adjoint=adjoint,
            max_steps=16384,
        )
        return jax.vmap(model.readout)(solution.ys)[:, 0]

    generated = jax.vmap(generate)(jr.split(key, len(observed)))

    def distances(left, right):
        squared = jnp.sum((left[:, None] - right[None]) ** 2, axis=-1)
        return jnp.mean(jnp.sqrt(squared + 1e-6))

    return 2 * distances(generated, observed) - distances(generated, generated)


def make(*, adjoint, horizon=10.0, batch=64, hidden=32, width=32, solver="heun"):
    """Build the gradient of the energy score of `batch` paths until time `horizon`, in steps of 0.02."""
    times, observed = pendulum_paths(batch, float(horizon))
    model = NeuralSDE(hidden, width, jr.key(0))
    objective = functools.partial(loss, adjoint=adjoint, solver=solver)
    return eqx.filter_value_and_grad(objective), (model, jnp.asarray(times), jnp.asarray(observed), jr.key(1))
