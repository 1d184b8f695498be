"""Find the speed of sound inside a body from recordings at its surface, within a memory budget (a PDE constraint).

Full-waveform inversion: acoustic waves from a few sources cross the unknown body,

    d pressure/dt = rate,        d rate/dt = speed(x, y)^2 laplacian(pressure) + source,

and are recorded along the upper edge. The speed is found by gradient descent through the solve, whose every step would
have to be kept without checkpoints. No count is named anywhere.

    python scripts/examples/wave_inversion.py --budget 24MiB
"""

import argparse

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

import autotune

OPTIMIZER = optax.adam(0.02)
STEP = 0.4
"""Time step, in units of grid spacing over unit speed; stable to 1 / sqrt(2) over the largest speed."""
SHOTS = 4


def body(grid: int) -> np.ndarray:
    """Make the true speed: 1, with a slow and a fast inclusion."""
    row, column = np.mgrid[0:grid, 0:grid] / grid
    slow = np.exp(-(((row - 0.45) / 0.12) ** 2) - ((column - 0.3) / 0.12) ** 2)
    fast = np.exp(-(((row - 0.55) / 0.1) ** 2) - ((column - 0.7) / 0.1) ** 2)
    return 1.0 - 0.2 * slow + 0.2 * fast


def laplacian(field):
    """Sum of the four neighbours less four times the point; the pressure is zero outside."""
    padded = jnp.pad(field, 1)
    return padded[2:, 1:-1] + padded[:-2, 1:-1] + padded[1:-1, 2:] + padded[1:-1, :-2] - 4 * field


def recordings(log_speed, sources, *, adjoint, steps):
    """Solve for every source; return the pressures along the upper edge, (shots, times, grid)."""
    grid = log_speed.shape[0]
    squared = jnp.exp(2 * log_speed)

    def one_shot(column):
        def change_of_pressure(t, rate, args):
            return rate

        def change_of_rate(t, pressure, args):
            phase = (0.3 * (t - 8)) ** 2
            return (squared * laplacian(pressure)).at[2, column].add((1 - 2 * phase) * jnp.exp(-phase))

        solution = diffrax.diffeqsolve(
            (diffrax.ODETerm(change_of_pressure), diffrax.ODETerm(change_of_rate)),
            diffrax.SemiImplicitEuler(),
            t0=0.0,
            t1=STEP * steps,
            dt0=STEP,
            y0=(jnp.zeros((grid, grid)), jnp.zeros((grid, grid))),
            saveat=diffrax.SaveAt(ts=STEP * jnp.arange(4, steps + 1, 4), fn=lambda t, state, args: state[0][2]),
            adjoint=adjoint,
            max_steps=steps + 2,
        )
        return solution.ys

    return jax.vmap(one_shot)(sources)


def make(*, adjoint, horizon=400, grid=64):
    """Build one step of the inversion: (log speed, optimizer state, sources, recorded) to (loss, both anew)."""
    steps = int(horizon)

    def loss(log_speed, sources, recorded):
        predicted = recordings(log_speed, sources, adjoint=adjoint, steps=steps)
        return jnp.mean((predicted - recorded) ** 2) / jnp.mean(recorded**2)

    def step(log_speed, state, sources, recorded):
        value, gradient = jax.value_and_grad(loss)(log_speed, sources, recorded)
        updates, state = OPTIMIZER.update(gradient, state)
        return value, optax.apply_updates(log_speed, updates), state

    sources = jnp.asarray(np.linspace(grid // 8, grid - 1 - grid // 8, SHOTS).astype(int))
    observe = eqx.filter_jit(lambda speed: recordings(speed, sources, adjoint=diffrax.ForwardMode(), steps=steps))
    recorded = observe(jnp.log(jnp.asarray(body(grid))))
    start = jnp.zeros((grid, grid))
    return step, (start, OPTIMIZER.init(start), sources, recorded)


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
    parser.add_argument("--budget", default="24MiB", help="bytes of one step: 24MiB, 6GiB, 80%%")
    parser.add_argument("--steps", type=int, default=60, help="steps of the inversion")
    options = parser.parse_args()

    tuned = autotune.auto_adjoint(f"{__file__}:make", budget=options.budget)
    print(f"adjoint: {tuned}")
    step, (log_speed, *rest) = make(adjoint=tuned)
    state, sources, recorded = rest
    compiled = jax.jit(step).lower(log_speed, state, sources, recorded).compile()
    truth = np.log(body(log_speed.shape[0]))
    for number in range(options.steps):
        value, log_speed, state = compiled(log_speed, state, sources, recorded)
        if number % 10 == 0 or number == options.steps - 1:
            error = float(np.sqrt(np.mean((np.asarray(log_speed) - truth) ** 2)) / np.sqrt(np.mean(truth**2)))
            print(f"step {number:4d}  misfit {float(value):.4f}  relative error of the speed {error:.3f}")
    print(f"peak {peak_bytes(compiled, jax.devices()[0]) / 2**20:.1f} MiB, budget {options.budget}")


if __name__ == "__main__":
    main()
