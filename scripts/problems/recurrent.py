"""Train a gated recurrent network to add two numbers that lie far apart in a long sequence.

Every sequence holds random numbers and two marks; the answer is the sum of the two that are marked (Hochreiter and
Schmidhuber 1997). One step a number, so the horizon is the length; the default is too long to keep every step's tape on
a small device. There is no differential equation: the network is scanned by `adjoint.checkpointed_scan`.

    ckpt-tune tune scripts/problems/recurrent.py:make --budget 16MiB
"""

import jax
import jax.numpy as jnp
import numpy as np

from adjoint import checkpointed_scan


def network(hidden: int, seed: int = 0) -> dict[str, jax.Array]:
    """Draw the weights of a minimal gated unit and of what reads it in the end."""
    rng = np.random.default_rng(seed)
    shapes = {"gate": (hidden + 2, hidden), "candidate": (hidden + 2, hidden), "answer": (hidden, 1)}
    weights = {name: rng.standard_normal(shape) / np.sqrt(shape[0]) for name, shape in shapes.items()}
    # A gate that is nearly shut at first remembers.
    weights["bias"] = np.full(hidden, -3.0)
    return {name: jnp.asarray(value) for name, value in weights.items()}


def sequences(length: int, batch: int, seed: int = 0) -> tuple[jax.Array, jax.Array]:
    """Make numbers with marks, (length, batch, 2), and the sums of the marked ones, (batch,)."""
    rng = np.random.default_rng(seed)
    numbers = rng.uniform(0.0, 1.0, (length, batch))
    marks = np.zeros((length, batch))
    half = max(length // 2, 1)
    for part in (rng.integers(0, half, batch), rng.integers(length - half, length, batch)):
        marks[part, np.arange(batch)] = 1.0
    return jnp.asarray(np.stack([numbers, marks], axis=-1)), jnp.asarray((numbers * marks).sum(axis=0))


def answers(weights, numbers, *, adjoint):
    """Run the network over (length, batch, 2); return its answers (batch,)."""

    def cell(h, x):
        seen = jnp.concatenate([h, x], axis=-1)
        gate = jax.nn.sigmoid(seen @ weights["gate"] + weights["bias"])
        return h + gate * (jnp.tanh(seen @ weights["candidate"]) - h), None

    start = jnp.zeros((numbers.shape[1], weights["bias"].size), numbers.dtype)
    last, _ = checkpointed_scan(cell, start, numbers, checkpoints=adjoint.checkpoints)
    return (last @ weights["answer"])[:, 0]


def make(*, adjoint, horizon=2000, batch=16, hidden=64):
    """Build the gradient of the mean squared error, and its arguments: the weights, the numbers, their sums."""

    def loss(weights, numbers, sums):
        return jnp.mean((answers(weights, numbers, adjoint=adjoint) - sums) ** 2)

    return jax.value_and_grad(loss), (network(hidden), *sequences(int(horizon), batch))
