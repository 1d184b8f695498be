"""Find how well each part of a plate conducts heat, from thermometers along its edges.

A plate of unit temperature lies in the cold, and loses its heat through its edges, by an explicit scheme,

    du/dt = div(conductivity(x, y) grad u),        u = 0 outside,

one time step a step of `adjoint.checkpointed_scan`: a simulation without a solver's library. The thermometers read at
every step are the scan's second result. One state of the default 256 x 256 grid is 256 KiB.

    ckpt-tune tune scripts/problems/heated_plate.py:make --budget 32MiB
"""

import jax
import jax.numpy as jnp
import numpy as np

from adjoint import checkpointed_scan

STEP = 0.2
"""In units of grid spacing squared over unit conductivity; stable to 1 / 4 over the largest."""


def plate(grid: int) -> np.ndarray:
    """Make the true conductivity: 1, with a region that insulates."""
    row, column = np.mgrid[0:grid, 0:grid] / grid
    return 1.0 - 0.7 * np.exp(-(((row - 0.3) / 0.15) ** 2) - ((column - 0.4) / 0.2) ** 2)


def losses(temperature, conductivity):
    """Compute the divergence of the flow of heat; both arguments and the result are (grid, grid)."""
    # Between two points conducts what their mean does; outside it is as cold, and conducts, as at the edge.
    warm, inside = jnp.pad(temperature, 1), jnp.pad(conductivity, 1, mode="edge")
    change = 0.0
    for axis in (0, 1):
        flow = 0.5 * (inside + jnp.roll(inside, -1, axis)) * (jnp.roll(warm, -1, axis) - warm)
        change = change + flow - jnp.roll(flow, 1, axis)
    return change[1:-1, 1:-1]


def readings(log_conductivity, *, adjoint, steps):
    """Simulate; return the temperatures along two edges at every step, (steps, 2, grid)."""
    conductivity = jnp.exp(log_conductivity)

    def step(temperature, _):
        temperature = temperature + STEP * losses(temperature, conductivity)
        return temperature, jnp.stack([temperature[0], temperature[:, 0]])

    start = jnp.ones_like(conductivity)
    _, read = checkpointed_scan(step, start, length=steps, checkpoints=adjoint.checkpoints)
    return read


def make(*, adjoint, horizon=1000, grid=256):
    """Build the gradient of the misfit, and its arguments: the logarithm of the conductivity, and what was read."""
    steps = int(horizon)

    def misfit(log_conductivity, read):
        found = readings(log_conductivity, adjoint=adjoint, steps=steps)
        return jnp.mean((found - read) ** 2) / jnp.mean(read**2)

    truth = jnp.log(jnp.asarray(plate(grid)))
    read = jax.jit(lambda truth: readings(truth, adjoint=adjoint, steps=steps))(truth)
    return jax.value_and_grad(misfit), (jnp.zeros((grid, grid)), read)
