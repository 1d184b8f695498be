"""Estimate the three rate constants of Robertson's stiff reaction from a series of experiments, with Kvaerno5.

    A -> B,   B + B -> C + B,   B + C -> A + C        with rates 0.04, 3e7 and 1e4

Each experiment starts from another mixture and is a solve of its own (`jax.vmap`), implicit, with its own adaptive
steps. The concentrations are sampled at times that are evenly spaced in logarithm; rates are fitted as logarithms,
since they span nine decades. Rejected steps are common here. Tolerances below 1e-4 need float64 (`--x64`).

    ckpt-tune tune scripts/problems/robertson.py:make --budget 8MiB --tolerance 1e-7 --x64
"""

import functools

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.integrate import odeint

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


@functools.cache
def experiments_made(experiments: int, horizon: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Make the data with another solver (LSODA): times, mixtures (experiments, 3), and what was observed then."""
    times = np.geomspace(1e-3, horizon, OBSERVATIONS)
    share = np.random.default_rng(0).uniform(0.5, 1.0, experiments)
    mixtures = np.stack([share, np.zeros(experiments), 1 - share], axis=1)
    slow, fast, back = TRUE_RATES

    def field(state, t):
        a, b, c = state
        decay, burst, reverse = slow * a, fast * b * b, back * b * c
        return reverse - decay, decay - reverse - burst, burst

    from_start = np.concatenate([[0.0], times])
    made = [odeint(field, mixture, from_start, rtol=1e-8, atol=1e-12)[1:] for mixture in mixtures]
    return times, mixtures, np.stack(made) * [1.0, SCALE, 1.0]


def make(*, adjoint, horizon=1e5, tolerance=1e-4, experiments=256, solver="kvaerno5"):
    """Build the gradient of the misfit of `experiments` reactions observed until time `horizon`."""
    data = (jnp.asarray(array) for array in experiments_made(experiments, float(horizon)))
    guess = jnp.log(jnp.asarray(TRUE_RATES * np.array([1.5, 0.6, 2.0])))
    solve = functools.partial(concentrations, adjoint=adjoint, tolerance=tolerance, solver=solver)
    return eqx.filter_value_and_grad(functools.partial(loss, solve=solve)), (guess, *data)
