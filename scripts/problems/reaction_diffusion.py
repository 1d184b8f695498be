"""Recover the feed map of a Gray-Scott reaction from one image of the pattern it made.

Two chemicals on a periodic square, one time unit a step:

    du/dt = 0.16 lap(u) - u v^2 + feed(x, y) (1 - u)
    dv/dt = 0.08 lap(v) + u v^2 - (feed(x, y) + kill) v

The unknowns are a coarse map of the feed rate and the kill rate. One state of the default 384 x 384 grid is 1.125 MiB,
so a few hundred steps cannot all be kept on a small device: checkpoints decide.

    ckpt-tune tune scripts/problems/reaction_diffusion.py:make --budget 64MiB
"""

import functools

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

SOLVERS = {"euler": diffrax.Euler, "heun": diffrax.Heun, "ralston": diffrax.Ralston}
PATCHES = 8
FEED, KILL = 0.037, 0.06
"""Rates at which stripes and spots coexist."""


class Rates(eqx.Module):
    """The unknowns, as logarithms: the feed rate on PATCHES x PATCHES nodes and one kill rate."""

    log_feed: Float[Array, "patches patches"]
    log_kill: Float[Array, ""]


def laplacian(field: Float[Array, "2 n n"]) -> Float[Array, "2 n n"]:
    """Sum of the four neighbours less four times the point, on the torus."""
    neighbours = sum(jnp.roll(field, shift, axis) for shift in (-1, 1) for axis in (-2, -1))
    return neighbours - 4 * field


def vector_field(t, state, rates):
    """Gray-Scott; `state` is (2, n, n), `rates` the feed map on the grid and the kill rate."""
    feed, kill = rates
    u, v = state
    reaction = u * v * v
    source = jnp.stack([feed * (1 - u) - reaction, reaction - (feed + kill) * v])
    return jnp.array([0.16, 0.08], state.dtype)[:, None, None] * laplacian(state) + source


def seeded(grid: int, seed: int = 0) -> np.ndarray:
    """Make the initial state: u = 1, v = 0, but for square seeds at random places, and slight noise."""
    rng = np.random.default_rng(seed)
    u, v = np.ones((grid, grid)), np.zeros((grid, grid))
    side = max(2, grid // 24)
    for row, column in rng.integers(0, grid - side, (24, 2)):
        u[row : row + side, column : column + side] = 0.5
        v[row : row + side, column : column + side] = 0.25
    return np.stack([u, v]) + 0.01 * rng.standard_normal((2, grid, grid))


def on_grid(rates: Rates, grid: int) -> tuple[Float[Array, "n n"], Float[Array, ""]]:
    """Return the feed rate at every point of the grid, and the kill rate."""
    return jax.image.resize(jnp.exp(rates.log_feed), (grid, grid), "linear"), jnp.exp(rates.log_kill)


@functools.partial(jax.jit, static_argnames="steps")
def photographed(rates, initial, steps):
    """Make the data: the second chemical after `steps` time units, by Euler's rule written out."""
    rates_on_grid = on_grid(rates, initial.shape[-1])
    return jax.lax.fori_loop(0, steps, lambda step, y: y + vector_field(step, y, rates_on_grid), initial)[1]


def pattern(rates, initial, *, adjoint, horizon, solver):
    """Solve from `initial` for `horizon` time units and return the last state."""
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(vector_field),
        SOLVERS[solver](),
        t0=0.0,
        t1=float(horizon),
        dt0=1.0,
        y0=initial,
        args=on_grid(rates, initial.shape[-1]),
        adjoint=adjoint,
        max_steps=int(horizon) + 2,
    )
    assert solution.ys is not None
    return solution.ys[-1]


def loss(rates, initial, observed, *, adjoint, horizon, solver):
    """Mean squared difference of the second chemical from its observed image, over the image's variance."""
    final = pattern(rates, initial, adjoint=adjoint, horizon=horizon, solver=solver)
    return jnp.mean((final[1] - observed) ** 2) / jnp.var(observed)


def make(*, adjoint, horizon=500, grid=384, solver="euler"):
    """Build the gradient of the misfit after `horizon` steps on a `grid` x `grid` torus."""
    flat = Rates(jnp.full((PATCHES, PATCHES), np.log(FEED)), jnp.asarray(np.log(KILL)))
    nodes = np.linspace(0, 2 * np.pi, PATCHES, endpoint=False)
    true_map = np.log(FEED) + 0.2 * np.sin(nodes)[:, None] * np.cos(nodes)
    truth = Rates(jnp.asarray(true_map), jnp.asarray(np.log(KILL)))
    initial = jnp.asarray(seeded(grid))
    observed = photographed(truth, initial, int(horizon))
    objective = functools.partial(loss, adjoint=adjoint, horizon=horizon, solver=solver)
    return eqx.filter_value_and_grad(objective), (flat, initial, observed)
