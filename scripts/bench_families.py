"""The problems that `bench_adjoint.py` times: one gradient each, small enough to run in seconds on 2 cores.

A family builds, for an adjoint, a loss of (parameters, initial state); the benchmark differentiates both. Sizes are
fixed here, so that a figure names its family and nothing else.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
import jax.random as jr

Loss = Callable[[Any, Any], jax.Array]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Family:
    """A problem.

    `build(adjoint)` gives the loss, `make(key)` its arguments; `counts` are the checkpoints to compare at, `steps`
    about how many steps the solve makes. `together` builds the loss of solves that `jax.vmap` maps as one solve
    of a larger state.
    """

    name: str
    build: Callable[[Any], Loss]
    make: Callable[[jax.Array], tuple[Any, Any]]
    counts: tuple[int, ...]
    steps: int
    adaptive: bool = False
    together: Callable[[Any], Loss] | None = None


def _mlp(key: jax.Array, width_in: int, width: int, width_out: int | None = None) -> tuple[jax.Array, ...]:
    first, second = jr.split(key)
    out = width_in if width_out is None else width_out
    return (
        jr.normal(first, (width, width_in)) / jnp.sqrt(width_in),
        jnp.zeros(width),
        jr.normal(second, (out, width)) / jnp.sqrt(width),
        jnp.zeros(out),
    )


def _field(t: Any, y: jax.Array, args: Any) -> jax.Array:
    del t
    w1, b1, w2, b2 = args
    return jnp.tanh(y @ w1.T + b1) @ w2.T + b2


def _loss(
    terms: Callable[[Any], Any],
    solver: Any,
    adjoint: Any,
    span: tuple[float, float | None],
    **options: Any,
) -> Loss:
    t1, dt0 = span

    def loss(params, y0):
        solution = diffrax.diffeqsolve(
            terms(params), solver, 0.0, t1, dt0, y0, params, adjoint=adjoint, throw=False, **options
        )
        return jnp.sum(jnp.square(solution.ys))

    return loss


@dataclasses.dataclass(frozen=True)
class ConstantSteps:
    """The loss of an ODE solved with steps of one size, for any adjoint."""

    solver: Any
    steps: int
    dt: float = 0.01
    field: Callable[..., Any] = _field

    def __call__(self, adjoint: Any) -> Loss:
        """Build the loss."""
        term, span = diffrax.ODETerm(self.field), (self.steps * self.dt, self.dt)
        return _loss(lambda _: term, self.solver, adjoint, span, max_steps=self.steps + 8)


def _adaptive(solver: Any, field: Callable, t1: float, rtol: float, **options: Any) -> Callable[[Any], Loss]:
    term, controller = diffrax.ODETerm(field), diffrax.PIDController(rtol=rtol, atol=rtol * 1e-2)
    return lambda adjoint: _loss(
        lambda _: term, solver, adjoint, (t1, None), stepsize_controller=controller, max_steps=4096, **options
    )


def _heat(t: Any, y: jax.Array, args: Any) -> jax.Array:
    del t
    diffusion, reaction = args
    near = jnp.roll(y, 1, 0) + jnp.roll(y, -1, 0) + jnp.roll(y, 1, 1) + jnp.roll(y, -1, 1)
    return diffusion * (near - 4 * y) + reaction * (y - y**3)


def _oscillator(t: Any, y: jax.Array, args: Any) -> jax.Array:
    del t
    return jnp.stack([y[1], -args[0] * y[0] - args[1] * y[1]])


def _robertson(t: Any, y: jax.Array, args: Any) -> jax.Array:
    del t
    first = -args[0] * y[0] + args[1] * y[1] * y[2]
    third = args[2] * y[1] ** 2
    return jnp.stack([first, -first - third, third])


def _lorenz96(t: Any, y: jax.Array, args: Any) -> jax.Array:
    del t
    return (jnp.roll(y, -1) - jnp.roll(y, 2)) * jnp.roll(y, 1) - y + args[0]


def _pulsed(t: Any, y: jax.Array, args: Any) -> jax.Array:
    return _field(t, y, args) - 3.0 * y + 4.0 * jax.nn.sigmoid(100.0 * (jnp.sin(3.0 * t) - 0.6))


def _sde(adjoint: Any) -> Loss:
    steps, dt = 400, 0.0025
    path = diffrax.VirtualBrownianTree(0.0, steps * dt, tol=dt / 2, shape=(16,), key=jr.key(7))
    noise = diffrax.ControlTerm(lambda t, y, args: 0.1 * jnp.diag(jnp.tanh(y)), path)
    terms = diffrax.MultiTerm(diffrax.ODETerm(_field), noise)
    return _loss(lambda _: terms, diffrax.Heun(), adjoint, (steps * dt, dt), max_steps=steps + 8)


def _cde(adjoint: Any) -> Loss:
    times = jnp.linspace(0.0, 4.0, 65)
    values = jnp.stack([times, jnp.sin(times), jnp.cos(2 * times)], axis=-1)
    path = diffrax.CubicInterpolation(times, diffrax.backward_hermite_coefficients(times, values))

    def vector_field(t, y, args):
        return jnp.tanh(_field(t, y, args)).reshape(16, 3)

    def terms(_):
        return diffrax.ControlTerm(vector_field, path).to_ode()

    return _loss(terms, diffrax.Tsit5(), adjoint, (4.0, 0.01), max_steps=408)


_SINGLE = ConstantSteps(diffrax.Tsit5(), 200)


def _vmapped(adjoint: Any) -> Loss:
    single = _SINGLE(adjoint)

    def loss(params, y0):
        return jnp.sum(jax.vmap(single, in_axes=(None, 0))(params, y0))

    return loss


def _normal(*shape: int) -> Callable[[jax.Array], jax.Array]:
    return lambda key: jr.normal(key, shape)


def _with_mlp(shape: tuple[int, ...], width: int, out: int | None = None) -> Callable[[jax.Array], tuple[Any, Any]]:
    def make(key):
        of_params, of_state = jr.split(key)
        return _mlp(of_params, shape[-1], width, out), jr.normal(of_state, shape)

    return make


def _with_params(*params: float, state: Callable[[jax.Array], jax.Array]) -> Callable[[jax.Array], tuple[Any, Any]]:
    return lambda key: (jnp.array(params), state(key))


FAMILIES: tuple[Family, ...] = (
    Family(
        name="tiny_mlp",
        build=ConstantSteps(diffrax.Bosh3(), 1000),
        make=_with_mlp((4,), 32),
        counts=(4, 16, 32, 64, 128),
        steps=1000,
    ),
    Family(
        name="matmul_batch",
        build=ConstantSteps(diffrax.Tsit5(), 128),
        make=_with_mlp((128, 64), 256),
        counts=(3, 6, 12, 24, 64),
        steps=128,
    ),
    Family(
        name="large_pde",
        build=ConstantSteps(diffrax.Heun(), 400, 0.05, _heat),
        make=_with_params(0.2, 0.1, state=_normal(256, 256)),
        counts=(4, 8, 16, 32, 100),
        steps=400,
    ),
    Family(
        name="stiff_implicit",
        build=lambda adjoint: _loss(
            lambda _: diffrax.ODETerm(_robertson),
            diffrax.Kvaerno3(root_finder=diffrax.VeryChord(rtol=1e-5, atol=1e-7)),
            adjoint,
            (10.0, 0.05),
            max_steps=208,
        ),
        # After the first transient, which steps of this size would not get through.
        make=lambda key: (jnp.array([0.04, 1e4, 3e7]), jnp.array([0.9851721, 3.386395e-05, 0.0147940])),
        counts=(3, 6, 12, 24, 64),
        steps=200,
    ),
    Family(name="sde", build=_sde, make=_with_mlp((16,), 32), counts=(4, 8, 16, 32, 100), steps=400),
    Family(name="cde", build=_cde, make=_with_mlp((16,), 32, 48), counts=(4, 8, 16, 32, 100), steps=400),
    Family(
        name="vmapped_batch",
        build=_vmapped,
        make=_with_mlp((64, 8), 64),
        counts=(4, 8, 16, 32, 100),
        steps=200,
        together=_SINGLE,
    ),
    Family(
        name="long_tiny",
        build=ConstantSteps(diffrax.Ralston(), 20_000, 0.001, _oscillator),
        make=_with_params(1.0, 0.05, state=_normal(2)),
        counts=(8, 16, 64, 128, 256),
        steps=20_000,
    ),
    Family(
        name="adaptive_lorenz96",
        build=_adaptive(diffrax.Dopri5(), _lorenz96, 8.0, 1e-5),
        make=_with_params(8.0, state=_normal(40)),
        counts=(4, 8, 16, 32, 100),
        steps=250,
        adaptive=True,
    ),
    Family(
        name="adaptive_stiff",
        build=_adaptive(diffrax.Kvaerno5(), _robertson, 1e4, 1e-5),
        make=lambda key: (jnp.array([0.04, 1e4, 3e7]), jnp.array([1.0, 0.0, 0.0])),
        counts=(3, 6, 12, 24, 48),
        steps=100,
        adaptive=True,
    ),
    Family(
        name="adaptive_pulsed",
        build=_adaptive(diffrax.Tsit5(), _pulsed, 20.0, 1e-4),
        make=_with_mlp((64, 32), 64),
        counts=(4, 8, 16, 32, 100),
        steps=300,
        adaptive=True,
    ),
)
"""Every family, by which figures are reported."""
