"""Find where a plate insulates from thermometers along its edges, within a memory budget; no solver is involved.

The simulation of scripts/problems/heated_plate.py is a scan of explicit time steps over a grid, whose readings are the
scan's second result. Gradient descent goes through all of its steps; `autotune.auto_adjoint` chooses how many of its
states `adjoint.checkpointed_scan` holds. No count is named anywhere.

    python scripts/examples/plate_inversion.py --budget 4MiB
"""

import argparse
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

import autotune

sys.path.append(str(Path(__file__).parents[1] / "problems"))

from heated_plate import plate, readings  # pyright: ignore[reportMissingImports]

OPTIMIZER = optax.adam(0.03)


def make(*, adjoint, horizon=600, grid=64):
    """Build one step of the inversion: (log conductivity, optimizer state, readings) to (misfit, both anew)."""
    steps = int(horizon)

    def misfit(log_conductivity, read):
        found = readings(log_conductivity, adjoint=adjoint, steps=steps)
        return jnp.mean((found - read) ** 2) / jnp.mean(read**2)

    def step(log_conductivity, state, read):
        value, gradient = jax.value_and_grad(misfit)(log_conductivity, read)
        updates, state = OPTIMIZER.update(gradient, state)
        return value, optax.apply_updates(log_conductivity, updates), state

    truth = jnp.log(jnp.asarray(plate(grid)))
    read = jax.jit(lambda truth: readings(truth, adjoint=adjoint, steps=steps))(truth)
    start = jnp.zeros((grid, grid))
    return step, (start, OPTIMIZER.init(start), read)


def peak_bytes(compiled, device) -> int:
    """Return the peak of the device where its backend keeps one, else what the compiled step plans to use."""
    if statistics := device.memory_stats():
        return statistics["peak_bytes_in_use"]
    planned = compiled.memory_analysis()
    held = planned.argument_size_in_bytes + planned.output_size_in_bytes - planned.alias_size_in_bytes
    return planned.temp_size_in_bytes + held


def main() -> None:
    """Invert."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", default="4MiB", help="bytes of one step: 4MiB, 6GiB, 80%%")
    parser.add_argument("--steps", type=int, default=100, help="steps of the inversion")
    options = parser.parse_args()

    tuned = autotune.auto_adjoint(f"{__file__}:make", budget=options.budget)
    print(f"checkpoints: {tuned.checkpoints}")
    step, (log_conductivity, state, read) = make(adjoint=tuned)
    compiled = jax.jit(step).lower(log_conductivity, state, read).compile()
    truth = np.log(plate(log_conductivity.shape[0]))
    for number in range(options.steps):
        value, log_conductivity, state = compiled(log_conductivity, state, read)
        if number % 10 == 0 or number == options.steps - 1:
            error = float(np.sqrt(np.mean((np.asarray(log_conductivity) - truth) ** 2)) / np.sqrt(np.mean(truth**2)))
            print(f"step {number:4d}  misfit {float(value):.2e}  relative error of the conductivity {error:.3f}")
    print(f"peak {peak_bytes(compiled, jax.devices()[0]) / 2**20:.1f} MiB, budget {options.budget}")


if __name__ == "__main__":
    main()
