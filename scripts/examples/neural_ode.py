"""Train a neural ODE on spiking neurons within a memory budget; no checkpoint count is named anywhere.

The data are voltages of FitzHugh-Nagumo neurons under different currents. The model sees the current and the first
voltage; its state is augmented with hidden variables, since the voltage alone does not determine what comes next. As
training goes on the solve takes more steps than at the first weights; a monitor chooses again when needed.

    python scripts/examples/neural_ode.py --budget 8MiB
"""

import argparse

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax

import autotune

OPTIMIZER = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(2e-3))


class NeuralODE(eqx.Module):
    """Rates of change of the augmented state (voltage first) under a current."""

    field: eqx.nn.MLP
    hidden_start: jax.Array

    def __init__(self, hidden: int, width: int, key: jax.Array):
        """Draw the weights; the last layer is small, so that nothing moves fast at first."""
        field = eqx.nn.MLP(hidden + 2, hidden + 1, width, 2, jnp.tanh, key=key)
        self.field = eqx.tree_at(lambda mlp: mlp.layers[-1].weight, field, 0.1 * field.layers[-1].weight)
        self.hidden_start = jnp.zeros(hidden)

    def __call__(self, t, state, current):
        """Return the rate of change."""
        return self.field(jnp.append(state, current))


def neurons(count: int, horizon: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Simulate: times (60,), currents (count,), voltages (count, 60)."""
    rng = np.random.default_rng(seed)
    times = np.linspace(0.0, horizon, 60)
    currents = rng.uniform(0.2, 1.0, count)
    voltage, recovery = rng.uniform(-1, 1, count), np.zeros(count)
    kept = [voltage]
    for span in np.diff(times):
        for _ in range(100):
            change = voltage - voltage**3 / 3 - recovery + currents, 0.08 * (voltage + 0.7 - 0.8 * recovery)
            voltage, recovery = voltage + span / 100 * change[0], recovery + span / 100 * change[1]
        kept.append(voltage)
    return times, currents, np.stack(kept, axis=1)


def make(*, adjoint, horizon=60.0, tolerance=1e-4, batch=128, hidden=31, width=64):
    """Build one training step: (model, optimizer state, times, currents, voltages) to (loss, statistics, both anew)."""

    def loss(model, times, currents, voltages):
        def voltage(current, first):
            solution = diffrax.diffeqsolve(
                diffrax.ODETerm(model),
                diffrax.Tsit5(),
                t0=times[0],
                t1=times[-1],
                dt0=0.1,
                y0=jnp.append(first, model.hidden_start),
                args=current,
                saveat=diffrax.SaveAt(ts=times, fn=lambda t, state, args: state[0]),
                stepsize_controller=diffrax.PIDController(
                    rtol=tolerance, atol=tolerance, dtmax=0.2
                ),  # spikes are short
                adjoint=adjoint,
                max_steps=8192,
            )
            return solution.ys, solution.stats

        predicted, stats = jax.vmap(voltage)(currents, voltages[:, 0])
        return jnp.mean((predicted - voltages) ** 2), stats

    def step(model, state, times, currents, voltages):
        gradient_of = eqx.filter_value_and_grad(loss, has_aux=True)
        (value, stats), gradient = gradient_of(model, times, currents, voltages)
        updates, state = OPTIMIZER.update(gradient, state)
        return value, stats, eqx.apply_updates(model, updates), state

    model = NeuralODE(hidden, width, jr.key(0))
    data = map(jnp.asarray, neurons(batch, float(horizon)))
    return step, (model, OPTIMIZER.init(eqx.filter(model, eqx.is_inexact_array)), *data)


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
    parser.add_argument("--budget", default="8MiB", help="bytes of one training step: 8MiB, 6GiB, 80%%")
    parser.add_argument("--steps", type=int, default=300, help="training steps")
    options = parser.parse_args()

    monitor = autotune.StepMonitor(f"{__file__}:make", budget=options.budget)
    _, (model, state, times, *batch) = make(adjoint=monitor.adjoint)
    _, currents, voltages = neurons(4096, float(times[-1]), seed=1)
    rng = np.random.default_rng(0)
    compiled, peaks = None, []
    for number in range(options.steps):
        if compiled is None:
            print(f"adjoint: {monitor.adjoint}")
            step, _ = make(adjoint=monitor.adjoint)
            compiled = eqx.filter_jit(step).lower(model, state, times, *batch).compile()
        chosen = rng.integers(0, len(currents), len(batch[0]))
        batch = jnp.asarray(currents[chosen]), jnp.asarray(voltages[chosen])
        value, stats, model, state = compiled(model, state, times, *batch)
        if number % 20 == 0 or number == options.steps - 1:
            print(f"step {number:4d}  loss {float(value):.4f}  solver steps {int(stats['num_steps'].max())}")
            peaks.append(peak_bytes(compiled.compiled, jax.devices()[0]))
            if monitor.update(stats):
                compiled = None
    print(f"peak {max(peaks) / 2**20:.1f} MiB, budget {options.budget}")


if __name__ == "__main__":
    main()
