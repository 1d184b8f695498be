"""Infer the rates of an epidemic with NumPyro: an ODE in a model, whose gradients are within a memory budget.

Hamiltonian Monte Carlo takes thousands of gradients through the solve. What is tuned is one of them: the factory
returns the gradient of the potential that NUTS will take.

    python scripts/examples/numpyro_ode.py --samples 500
"""

import argparse
import functools

import diffrax
import jax
import jax.numpy as jnp
import jax.random as jr
import numpyro
import numpyro.distributions as dist
from numpyro.infer import MCMC, NUTS
from numpyro.infer.util import potential_energy

import autotune

DAYS = jnp.arange(1.0, 31.0)
RATES = {"infection": 0.5, "recovery": 0.2}


def infected(rates, adjoint):
    """Solve for the infected share of the population on each day."""

    def change(t, state, rates):
        susceptible, ill = state
        caught = rates["infection"] * susceptible * ill
        return -caught, caught - rates["recovery"] * ill

    return diffrax.diffeqsolve(
        diffrax.ODETerm(change),
        diffrax.Heun(),
        t0=0.0,
        t1=DAYS[-1],
        dt0=0.25,
        y0=(jnp.array(0.99), jnp.array(0.01)),
        args=rates,
        saveat=diffrax.SaveAt(ts=DAYS),
        adjoint=adjoint,
        max_steps=256,
    ).ys[1]


def model(adjoint, observed=None):
    """Two rates with their priors, and shares that are seen through log-normal noise."""
    rates = {name: numpyro.sample(name, dist.LogNormal(-1.0, 0.5)) for name in RATES}
    numpyro.sample("shares", dist.LogNormal(jnp.log(infected(rates, adjoint)), 0.1), obs=observed)


@functools.cache
def data():
    """Simulate thirty days, once."""
    exact = infected(RATES, diffrax.DirectAdjoint())
    return exact * jnp.exp(0.1 * jr.normal(jr.key(0), DAYS.shape))


def make(*, adjoint):
    """Build what NUTS evaluates again and again: the gradient of the potential, at a point of its unbounded space."""
    potential = functools.partial(potential_energy, model, (adjoint, data()), {})
    return jax.jit(jax.value_and_grad(potential)), (dict.fromkeys(RATES, jnp.array(-1.0)),)


def main() -> None:
    """Sample."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", default="32KiB", help="bytes of one gradient")
    parser.add_argument("--samples", type=int, default=500, help="samples, after as many for warming up")
    options = parser.parse_args()
    adjoint = autotune.auto_adjoint(make, budget=options.budget)
    print(f"adjoint: {adjoint}")
    chain = MCMC(NUTS(model), num_warmup=options.samples, num_samples=options.samples, progress_bar=False)
    chain.run(jr.key(2), adjoint, data())
    for name, samples in chain.get_samples().items():
        print(f"{name}: {samples.mean():.3f} ± {samples.std():.3f}, true {RATES[name]}")


if __name__ == "__main__":
    main()
