"""Train a recurrent network on sequences of thousands of steps within a memory budget; there is no equation to solve.

The network of scripts/problems/recurrent.py is scanned by `adjoint.checkpointed_scan`, whose count of checkpoints comes
from `autotune.auto_adjoint`, as a solve's does. No count is named anywhere.

    python scripts/examples/long_memory.py --budget 4MiB
"""

import argparse
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import optax

import autotune

sys.path.append(str(Path(__file__).parents[1] / "problems"))

from recurrent import answers, network, sequences  # pyright: ignore[reportMissingImports]

OPTIMIZER = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(3e-3))


def make(*, adjoint, horizon=1000, batch=32, hidden=64):
    """Build one training step: (weights, optimizer state, numbers, sums) to (loss, both anew)."""

    def loss(weights, numbers, sums):
        return jnp.mean((answers(weights, numbers, adjoint=adjoint) - sums) ** 2)

    def step(weights, state, numbers, sums):
        value, gradient = jax.value_and_grad(loss)(weights, numbers, sums)
        updates, state = OPTIMIZER.update(gradient, state)
        return value, optax.apply_updates(weights, updates), state

    weights = network(hidden)
    return step, (weights, OPTIMIZER.init(weights), *sequences(int(horizon), batch))


def peak_bytes(compiled, device) -> int:
    """Return the peak of the device where its backend keeps one, else what the compiled step plans to use."""
    if statistics := device.memory_stats():
        return statistics["peak_bytes_in_use"]
    planned = compiled.memory_analysis()
    held = planned.argument_size_in_bytes + planned.output_size_in_bytes - planned.alias_size_in_bytes
    return planned.temp_size_in_bytes + held


def main() -> None:
    """Train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", default="4MiB", help="bytes of one training step: 4MiB, 6GiB, 80%%")
    parser.add_argument("--steps", type=int, default=300, help="training steps")
    options = parser.parse_args()

    tuned = autotune.auto_adjoint(f"{__file__}:make", budget=options.budget)
    print(f"checkpoints: {tuned.checkpoints}")
    step, (weights, state, numbers, sums) = make(adjoint=tuned)
    compiled = jax.jit(step).lower(weights, state, numbers, sums).compile()
    for number in range(options.steps):
        numbers, sums = sequences(*numbers.shape[:2], seed=number)
        value, weights, state = compiled(weights, state, numbers, sums)
        if number % 20 == 0 or number == options.steps - 1:
            print(f"step {number:4d}  loss {float(value):.4f}  (0.17 without remembering anything)")
    print(f"peak {peak_bytes(compiled, jax.devices()[0]) / 2**20:.1f} MiB, budget {options.budget}")


if __name__ == "__main__":
    main()
