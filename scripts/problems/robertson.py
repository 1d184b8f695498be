"""Estimate the three rate constants of Robertson's stiff reaction from a series of experiments, with Kvaerno5.

    A -> B,   B + B -> C + B,   B + C -> A + C        with rates 0.04, 3e7 and 1e4

Each experiment starts from another mixture and is a solve of its own (`jax.vmap`), implicit, with its own adaptive
steps. The concentrations are sampled at times that are evenly spaced in logarithm; rates are fitted as logarithms, since
they span nine decades. Rejected steps are common here. Tolerances below 1e-4 need float64 (`--x64`).

    ckpt-tune tune scripts/problems/robertson.py:make --budget 8MiB --tolerance 1e-7 --x64
"""

import functools

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

SOLVERS = {"kvaerno3": diffrax.Kvaerno3, "kvaerno5": diffrax.Kvaerno5}
TRUE_RATES = np.array([0.04, 3e7, 1e4])
OBSERVATIONS = 30
SCALE = 100.0
"""B stays below 4e-5; counted in hundredths it needs no absolute tolerance of its own."""


def vector_field(t, state: Float[Array, "3"], rates: Float[Array, "3"]) -> Float[Array, "3"]:
    """Return the rates of change of A, SCALE * B and C."""
    a, b, c = state
    slow, fast, back = rates
    decay, burst, reverse = slow * a, fast / SCALE**2 * b * b, back / SCALE * b * c
    return jnp.stack([reverse - decay, SCALE * (decay - reverse - burst), burst])


def concentrations(log_rates, times, mixture, *, adjoint, tolerance, solver):
    """Solve one experiment: the three concentrations at `times`."""
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(vector_field),
        SOLVERS[solver](),
        t0=0.0,
        t1=times[-1],
        dt0=1e-6,
        y0=mixture,
        args=jnp.exp(log_rates),
        saveat=diffrax.SaveAt(ts=times),
        stepsize_controller=diffrax.PIDController(rtol=tolerance, atol=tolerance),
        adjoint=adjoint,
        max_steps=4096,
    )
    return solution.ys


def loss(log_rates, times, mixtures, observed, *, solve):
    """Mean squared error, each chemical over its largest observed concentration."""
    predicted = jax.vmap(lambda mixture: solve(log_rates, times, mixture))(mixtures)
    return jnp.mean(((predicted - observed) / jnp.max(observed, axis=(0, 1))) ** 2)


def make(*, adjoint, horizon=1e5, tolerance=1e-4, experiments=256, solver="kvaerno5"):
    """Build the gradient of the misfit of `experiments` reactions observed until time `horizon`."""
    rng = np.random.default_rng(0)
    share = rng.uniform(0.5, 1.0, experiments)
    mixtures = jnp.asarray(np.stack([share, np.zeros(experiments), 1 - share], axis=1))
    times = jnp.asarray(np.geomspace(1e-3, float(horizon), OBSERVATIONS))
    solve = functools.partial(concentrations, tolerance=tolerance, solver=solver)
    observe = functools.partial(solve, jnp.log(jnp.asarray(TRUE_RATES)), times, adjoint=diffrax.ForwardMode())
    observed = eqx.filter_jit(jax.vmap(observe))(mixtures)
    guess = jnp.log(jnp.asarray(TRUE_RATES * np.array([1.5, 0.6, 2.0])))
    objective = functools.partial(loss, solve=functools.partial(solve, adjoint=adjoint))
    return eqx.filter_value_and_grad(objective), (guess, times, mixtures, observed)
