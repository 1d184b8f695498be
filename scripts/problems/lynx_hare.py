"""Fit a universal differential equation to the Hudson Bay record of hare and lynx, 1900 to 1920.

The Lotka-Volterra equations with unknown rates, plus a small neural network for what they leave out, in logarithms so
that both populations stay positive:

    d log(hare)/dt =  a - b lynx + network_1(log hare, log lynx)
    d log(lynx)/dt = -c + d hare + network_2(log hare, log lynx)

An ensemble of such models, from different initial weights, is fitted at once (its spread is the usual measure of how
far the fit may be trusted); the members are one system of differential equations with one step size.

    ckpt-tune tune scripts/problems/lynx_hare.py:make --budget 2MiB
"""

import csv
import functools
import pathlib

import diffrax
import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float

SOLVERS = {"bosh3": diffrax.Bosh3, "tsit5": diffrax.Tsit5, "dopri5": diffrax.Dopri5, "heun": diffrax.Heun}
LAST_YEAR = 20


class Ecology(eqx.Module):
    """One member: four positive rates as logarithms, the initial state, and the network for what is left out."""

    log_rates: Float[Array, "4"]
    initial: Float[Array, "2"]
    network: eqx.nn.MLP

    def __init__(self, width: int, key: Array):
        """Start near the textbook's rates, perturbed by `key`, with a network that is nearly zero."""
        rates_key, network_key = jr.split(key)
        textbook = jnp.log(jnp.array([0.5, 0.025, 0.8, 0.025]))
        self.log_rates = textbook + 0.1 * jr.normal(rates_key, (4,))
        self.initial = jnp.log(jnp.array([30.0, 4.0]))
        network = eqx.nn.MLP(2, 2, width, 2, jnp.tanh, key=network_key)
        last = network.layers[-1]
        self.network = eqx.tree_at(lambda tree: tree.layers[-1].weight, network, 0.01 * last.weight)

    def __call__(self, log_populations: Float[Array, "2"]) -> Float[Array, "2"]:
        """Return the rates of change of the logarithms, per year."""
        growth, predation, death, benefit = jnp.exp(self.log_rates)
        hare, lynx = jnp.exp(log_populations)
        known = jnp.stack([growth - predation * lynx, benefit * hare - death])
        return known + self.network((log_populations - 3.0) / 2)


def record() -> tuple[np.ndarray, np.ndarray]:
    """Read the table that lies beside this file: years since 1900, and the populations in thousands, (21, 2)."""
    with pathlib.Path(__file__).with_name("lynx_hare.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(line for line in file if not line.startswith("#")))
    years = np.array([float(row["year"]) - 1900 for row in rows])
    return years, np.array([[float(row["hare"]), float(row["lynx"])] for row in rows])


def loss(model, years, log_populations, *, adjoint, tolerance, solver):
    """Mean squared error of the logarithms over the record, averaged over the ensemble."""

    def vector_field(t, y, model):
        return eqx.filter_vmap(lambda member, state: member(state))(model, y)

    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(vector_field),
        SOLVERS[solver](),
        t0=0.0,
        t1=years[-1],
        dt0=None,
        y0=model.initial,
        args=model,
        saveat=diffrax.SaveAt(ts=years),
        stepsize_controller=diffrax.PIDController(rtol=tolerance, atol=tolerance),
        adjoint=adjoint,
        max_steps=16384,
    )
    return jnp.mean((solution.ys - log_populations[:, None, :]) ** 2)


def make(*, adjoint, horizon=LAST_YEAR, tolerance=1e-6, members=512, width=8, solver="bosh3"):
    """Build the gradient of the fit over the first `horizon` years of the record (1 to 20)."""
    if not 1 <= horizon <= LAST_YEAR:
        raise ValueError(f"horizon={horizon} years, but the record holds the years 1 to {LAST_YEAR} after 1900.")
    years, populations = record()
    kept = years <= horizon
    keys = jr.split(jr.key(0), members)
    model = eqx.filter_vmap(functools.partial(Ecology, width))(keys)
    objective = functools.partial(loss, adjoint=adjoint, tolerance=tolerance, solver=solver)
    args = (model, jnp.asarray(years[kept]), jnp.asarray(np.log(populations[kept])))
    return eqx.filter_value_and_grad(objective), args
