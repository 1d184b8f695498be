"""Fit an ODE with Optimistix: BFGS over a solve whose gradient is within a memory budget.

python scripts/examples/optimistix_fit.py --budget 32KiB
"""

import argparse

import diffrax
import jax
import jax.numpy as jnp
import optimistix

import autotune

TIMES = jnp.linspace(0.0, 10.0, 40)
EXACT = jnp.array([1.1, 0.4, 0.4, 0.1])


def populations(log_rates, adjoint):
    """Solve the Lotka-Volterra equations for their logarithms: (40, 2)."""

    def change(t, state, rates):
        growth, predation, death, benefit = rates
        prey, predators = jnp.exp(state)
        return jnp.stack([growth - predation * predators, benefit * prey - death])

    return diffrax.diffeqsolve(
        diffrax.ODETerm(change),
        diffrax.Tsit5(),
        t0=TIMES[0],
        t1=TIMES[-1],
        dt0=0.1,
        y0=jnp.log(jnp.array([10.0, 5.0])),
        args=jnp.exp(log_rates),
        saveat=diffrax.SaveAt(ts=TIMES),
        adjoint=adjoint,
        max_steps=256,
    ).ys


def misfit(log_rates, settings):
    """Measure the squared distance from the data, as Optimistix calls it: fn(y, args)."""
    adjoint, observed = settings
    return jnp.mean((populations(log_rates, adjoint) - observed) ** 2)


def make(*, adjoint):
    """Build one gradient of the misfit, at the guess that the fit starts from."""
    observed = populations(jnp.log(EXACT), diffrax.DirectAdjoint())
    gradient = jax.value_and_grad(lambda log_rates, observed: misfit(log_rates, (adjoint, observed)))
    return jax.jit(gradient), (jnp.log(EXACT) + 0.3, observed)


def main() -> None:
    """Fit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", default="32KiB", help="bytes of one gradient")
    options = parser.parse_args()
    adjoint = autotune.auto_adjoint(make, budget=options.budget)
    print(f"adjoint: {adjoint}")
    _, (guess, observed) = make(adjoint=adjoint)
    # Reverse mode: one sweep for the whole gradient, however many parameters there are.
    found = optimistix.minimise(
        misfit,
        optimistix.BFGS(rtol=1e-5, atol=1e-7),
        guess,
        args=(adjoint, observed),
        options={"autodiff_mode": "bwd"},
        max_steps=200,
        throw=False,
    )
    print(f"rates: {jnp.round(jnp.exp(found.value), 3).tolist()}, exact {EXACT.tolist()}")
    print(f"misfit {float(misfit(found.value, (adjoint, observed))):.2e}")


if __name__ == "__main__":
    main()
