"""Stop a training and go on with it: optax, Equinox's serialisation, and an adjoint that is chosen anew at each start.

Saved are the weights, the optimizer's state and the number of steps; never the adjoint. A restart may find another
device, or less memory, so it asks again: where the store knows the answer that takes a moment and measures nothing.

    python scripts/examples/restart.py --until 50
    python scripts/examples/restart.py --until 100
"""

import argparse
from pathlib import Path

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import optax

import autotune

OPTIMIZER = optax.adam(3e-3)


class Damped(eqx.Module):
    """A spring whose force is learned."""

    force: eqx.nn.MLP

    def __call__(self, t, state, args):
        """Return the rate of change of place and speed."""
        return jnp.stack([state[1], self.force(state)[0]])


def start() -> tuple[Damped, optax.OptState, jax.Array]:
    """Make what is saved: the model, the optimizer's state, and how many steps were made."""
    model = Damped(eqx.nn.MLP(2, 1, 16, 1, jnp.tanh, key=jr.key(0)))
    return model, OPTIMIZER.init(eqx.filter(model, eqx.is_inexact_array)), jnp.array(0)


def make(*, adjoint, horizon=5.0):
    """Build one training step: (model, optimizer state, starts, ends) to (loss, model, optimizer state)."""

    def solve(field, first):
        return diffrax.diffeqsolve(
            diffrax.ODETerm(field),
            diffrax.Heun(),
            t0=0.0,
            t1=horizon,
            dt0=0.05,
            y0=first,
            adjoint=adjoint,
            max_steps=256,
        ).ys[0]

    def loss(model, firsts, lasts):
        return jnp.mean((jax.vmap(lambda first: solve(model, first))(firsts) - lasts) ** 2)

    @eqx.filter_jit
    def step(model, state, firsts, lasts):
        value, gradient = eqx.filter_value_and_grad(loss)(model, firsts, lasts)
        updates, state = OPTIMIZER.update(gradient, state)
        return value, eqx.apply_updates(model, updates), state

    firsts = jr.normal(jr.key(1), (16, 2))
    lasts = jax.vmap(lambda first: solve(lambda t, y, args: jnp.stack([y[1], -y[0] - 0.2 * y[1]]), first))(firsts)
    model, state, _ = start()
    return step, (model, state, firsts, lasts)


def main() -> None:
    """Go on from the file, if there is one, until `--until` steps are made."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", default="256KiB", help="bytes of one training step")
    parser.add_argument("--until", type=int, default=100, help="training steps, those before the restart included")
    parser.add_argument("--file", type=Path, default=Path("restart.eqx"), help="where the training is kept")
    options = parser.parse_args()
    saved = start()
    if options.file.exists():
        saved = eqx.tree_deserialise_leaves(options.file, saved)
    model, state, made = saved
    choice = autotune.auto_choice(autotune.AutoRequest(problem=make, budget=options.budget))
    print(f"step {int(made):4d}  {choice.checkpoints} checkpoints, from a {choice.source}")
    step, (_, _, *data) = make(adjoint=choice.adjoint)
    value = jnp.inf
    with autotune.explain_memory(choice):
        for number in range(int(made), options.until):
            value, model, state = step(model, state, *data)
            if number % 25 == 24:
                eqx.tree_serialise_leaves(options.file, (model, state, jnp.array(number + 1)))
    print(f"step {options.until:4d}  loss {float(value):.5f}")


if __name__ == "__main__":
    main()
