"""Train a neural CDE to classify irregular time series within a memory budget; no checkpoint count is named anywhere.

Each series has a fifth of its observations missing at random; the class is whether its oscillation speeds up or slows
down. Training goes from short to long series (a curriculum): a longer series takes more steps, so each length has its
own adjoint, and only the shortest and the longest are measured.

    python scripts/examples/neural_cde.py --budget 6MiB
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

OPTIMIZER = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(5e-3))
LENGTHS = (50, 100, 200)


class NeuralCDE(eqx.Module):
    """Initial state from the first observation, vector field, classifier."""

    initial: eqx.nn.Linear
    field: eqx.nn.MLP
    classifier: eqx.nn.Linear

    def __init__(self, hidden: int, width: int, key: jax.Array):
        """Draw the weights."""
        keys = jr.split(key, 3)
        self.initial = eqx.nn.Linear(2, hidden, key=keys[0])
        self.field = eqx.nn.MLP(hidden, hidden * 2, width, 1, jnp.tanh, jnp.tanh, key=keys[1])
        self.classifier = eqx.nn.Linear(hidden, 1, key=keys[2])

    def __call__(self, t, state, args):
        """Return the matrix that the path's rate of change is multiplied by."""
        return self.field(state).reshape(state.size, 2)


def series(count: int, length: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw times (length,), values (count, length) with NaN where one is missing, labels (count,)."""
    rng = np.random.default_rng(seed)
    times = np.linspace(0.0, length / 10, length)
    labels = rng.integers(0, 2, count)
    change = np.where(labels, 1.0, -1.0)[:, None] * 0.5
    phase = rng.uniform(0, 2 * np.pi, (count, 1))
    values = np.sin(phase + times * (1.5 + change * (times / times[-1] - 0.5)))
    missing = rng.uniform(size=values.shape) < 0.2
    missing[:, [0, -1]] = False
    return times, np.where(missing, np.nan, values), labels


def paths(times, values):
    """Return the coefficients of a cubic through what was observed, with time as a channel."""
    observed = jnp.stack([jnp.broadcast_to(times, values.shape), values], axis=-1)
    return jax.vmap(lambda one: diffrax.backward_hermite_coefficients(times, one))(observed)


def make(*, adjoint, horizon=LENGTHS[-1], tolerance=1e-5, batch=128, hidden=32, width=32):
    """Build one training step for a batch of series of `horizon` observations."""

    def loss(model, times, coefficients, labels):
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
                max_steps=8192,
            )
            assert solution.ys is not None
            return model.classifier(solution.ys[-1])[0]

        logits = jax.vmap(logit)(coefficients)
        return jnp.mean(jax.nn.softplus(logits) - labels * logits), jnp.mean((logits > 0) == labels)

    def step(model, state, times, coefficients, labels):
        gradient_of = eqx.filter_value_and_grad(loss, has_aux=True)
        (value, accuracy), gradient = gradient_of(model, times, coefficients, labels)
        updates, state = OPTIMIZER.update(gradient, state)
        return value, accuracy, eqx.apply_updates(model, updates), state

    model = NeuralCDE(hidden, width, jr.key(0))
    times, values, labels = map(jnp.asarray, series(batch, int(horizon)))
    state = OPTIMIZER.init(eqx.filter(model, eqx.is_inexact_array))
    return step, (model, state, times, paths(times, values), labels)


def peak_bytes(compiled, device) -> int:
    """Return the peak of the device where its backend keeps one, else what the compiled step plans to use."""
    if statistics := device.memory_stats():
        return statistics["peak_bytes_in_use"]
    planned = compiled.memory_analysis()
    held = planned.argument_size_in_bytes + planned.output_size_in_bytes - planned.alias_size_in_bytes
    return planned.temp_size_in_bytes + held


def main() -> None:
    """Train, from short to long series."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", default="6MiB", help="bytes of one training step: 6MiB, 6GiB, 80%%")
    parser.add_argument("--steps", type=int, default=60, help="training steps at each length")
    options = parser.parse_args()

    schedule = autotune.AdjointSchedule(f"{__file__}:make", budget=options.budget, horizons=LENGTHS)
    trained, peaks, rng = None, [], np.random.default_rng(0)
    for length in LENGTHS:
        tuned = schedule(horizon=length)
        print(f"length {length}: {tuned}")
        step, (model, state, times, coefficients, labels) = make(adjoint=tuned, horizon=length)
        compiled = eqx.filter_jit(step).lower(model, state, times, coefficients, labels).compile()
        model, state = trained or (model, state)
        _, values, classes = series(2048, length, seed=1)
        for number in range(options.steps):
            chosen = rng.integers(0, len(classes), len(labels))
            batch = paths(times, jnp.asarray(values[chosen])), jnp.asarray(classes[chosen])
            value, accuracy, model, state = compiled(model, state, times, *batch)
            if number % 20 == 0 or number == options.steps - 1:
                print(f"  step {number:4d}  loss {float(value):.4f}  accuracy {float(accuracy):.2f}")
        trained = model, state
        peaks.append(peak_bytes(compiled.compiled, jax.devices()[0]))
    print(f"peak {max(peaks) / 2**20:.1f} MiB, budget {options.budget}")


if __name__ == "__main__":
    main()
