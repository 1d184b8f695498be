"""Search hyperparameters with Optuna where every trial has another size, and no trial dies of memory.

The model is a neural ODE that learns to separate two rings. A trial draws its width and its batch, so each needs
another number of checkpoints. `auto_adjoint` finds that number within one budget for all; a size that fits at no count
is refused before it runs, and the trial is pruned. The figures of each choice are attributes of its trial.

    python scripts/examples/hyperparameter_search.py --trials 12
"""

import argparse

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import optax
import optuna

import autotune

OPTIMIZER = optax.adam(1e-2)


def rings(count: int, key) -> tuple[jax.Array, jax.Array]:
    """Draw points on two noisy rings: positions (count, 2), and which ring (count,)."""
    angle_key, noise_key = jr.split(key)
    outer = jnp.arange(count) % 2
    angle = jr.uniform(angle_key, (count,), maxval=2 * jnp.pi)
    radius = 1.0 + outer + 0.1 * jr.normal(noise_key, (count,))
    return radius[:, None] * jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=1), outer


def make(*, adjoint, width=64, batch=256):
    """Build one training step: (model, optimizer state, positions, rings) to (loss, model, optimizer state)."""

    def loss(model, positions, labels):
        field, readout = model
        start = jnp.concatenate([positions, jnp.zeros((len(positions), 1))], axis=1)
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(lambda t, state, args: jax.vmap(field)(state)),
            diffrax.Heun(),
            t0=0.0,
            t1=1.0,
            dt0=0.02,
            y0=start,
            adjoint=adjoint,
            max_steps=64,
        )
        scores = jax.vmap(readout)(solution.ys[0])[:, 0]
        return jnp.mean(optax.sigmoid_binary_cross_entropy(scores, labels))

    @eqx.filter_jit
    def step(model, state, positions, labels):
        value, gradient = eqx.filter_value_and_grad(loss)(model, positions, labels)
        updates, state = OPTIMIZER.update(gradient, state)
        return value, eqx.apply_updates(model, updates), state

    field_key, readout_key, data_key = jr.split(jr.key(0), 3)
    model = eqx.nn.MLP(3, 3, width, 2, jnp.tanh, key=field_key), eqx.nn.Linear(3, 1, key=readout_key)
    state = OPTIMIZER.init(eqx.filter(model, eqx.is_inexact_array))
    return step, (model, state, *rings(batch, data_key))


def objective(trial: optuna.Trial, budget: str, steps: int) -> float:
    """Train one size within the budget; return its last loss."""
    size = {
        "width": trial.suggest_categorical("width", [16, 64, 256]),
        "batch": trial.suggest_int("batch", 64, 512, step=64),
    }
    try:
        adjoint = autotune.auto_adjoint(make, budget=budget, set_values=size)
    except autotune.AutotuneError as error:  # nothing fits, with the smallest bytes that would do
        trial.set_user_attr("refused", str(error))
        raise optuna.TrialPruned from None
    for name, value in autotune.summary(adjoint, prefix="ckpt_tune.").items():
        trial.set_user_attr(name, value)
    step, (model, state, *data) = make(adjoint=adjoint, **size)
    with autotune.explain_memory(adjoint):
        for _ in range(steps):
            loss, model, state = step(model, state, *data)
        return float(loss)


def main() -> None:
    """Search."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", default="2MiB", help="bytes of one training step")
    parser.add_argument("--trials", type=int, default=12, help="trials of the search")
    parser.add_argument("--steps", type=int, default=100, help="training steps of a trial")
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(lambda trial: objective(trial, options.budget, options.steps), n_trials=options.trials)
    print(f"{'width':>5} {'batch':>5}  outcome")
    for trial in study.trials:
        count = trial.user_attrs.get("ckpt_tune.checkpoints")
        said = f"loss {trial.value:.3f} with {count} checkpoints" if count else trial.user_attrs["refused"]
        print(f"{trial.params['width']:5} {trial.params['batch']:5}  {said}")
    print(f"best {study.best_params}, loss {study.best_value:.3f}")


if __name__ == "__main__":
    main()
