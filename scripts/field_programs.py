"""The programs that `bench_field.py` times: what people write with Diffrax, small, after documentation and papers.

Each takes an adjoint and returns a function and its arguments; the function returns gradients (or Newton steps, or
Hessians), so that one call is what its user waits for. Everything is float64 but where a program says otherwise.
"""

import functools
from collections.abc import Callable
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr

Program = Callable[[Any], tuple[Callable[..., Any], tuple[Any, ...]]]
PROGRAMS: dict[str, Program] = {}
PID = functools.partial(diffrax.PIDController, rtol=1e-6, atol=1e-8)


def program(make: Program) -> Program:
    """List a program under its function's name."""
    PROGRAMS[make.__name__] = make
    return make


def _solve(
    field: Any, adjoint: Any, span: tuple[Any, Any, Any], y0: Any, args: Any, *, solver: Any = None, **options: Any
) -> Any:
    t0, t1, dt0 = span
    options.setdefault("stepsize_controller", PID())
    terms = field if isinstance(field, diffrax.AbstractTerm) else diffrax.ODETerm(field)
    return diffrax.diffeqsolve(terms, solver or diffrax.Tsit5(), t0, t1, dt0, y0, args, adjoint=adjoint, **options)


# --- small adaptive fits


def _predator_prey(t: Any, y: Any, p: Any) -> Any:
    del t
    prey, hunters = y
    return jnp.stack([p[0] * prey - p[1] * prey * hunters, p[3] * prey * hunters - p[2] * hunters])


RATES, ANIMALS = jnp.array([0.9, 0.4, 0.8, 0.3]), jnp.array([2.0, 1.0])
OBSERVED = jnp.linspace(0.0, 10.0, 11)


def _fit(adjoint: Any, max_steps: int | None, **options: Any) -> Callable[[Any], Any]:
    def loss(p):
        solution = _solve(
            _predator_prey, adjoint, (0.0, 10.0, None), ANIMALS, p, saveat=diffrax.SaveAt(ts=OBSERVED),
            max_steps=max_steps, **options,
        )  # fmt: skip
        return jnp.mean((solution.ys - jnp.cos(OBSERVED)[:, None]) ** 2)

    return loss


@program
def fit_thousand_steps(adjoint):
    """A predator-prey fit, at most 1,000 steps."""
    return jax.value_and_grad(_fit(adjoint, 1_000)), (RATES,)


@program
def fit_default_steps(adjoint):
    """The same with Diffrax's default bound."""
    return jax.value_and_grad(_fit(adjoint, 4_096)), (RATES,)


@program
def fit_million_steps(adjoint):
    """The same with a bound that nobody thought about."""
    return jax.value_and_grad(_fit(adjoint, 1_000_000)), (RATES,)


@program
def fit_ten_million_steps(adjoint):
    """The same with a larger one."""
    return jax.value_and_grad(_fit(adjoint, 10_000_000)), (RATES,)


@program
def fit_clipped(adjoint):
    """The step size clipped at the observations."""
    controller = diffrax.ClipStepSizeController(PID(), step_ts=OBSERVED)
    return jax.value_and_grad(_fit(adjoint, 4_096, stepsize_controller=controller)), (RATES,)


@program
def fit_stiff(adjoint):
    """An implicit solver."""

    def field(t, y, p):
        del t
        fast = -p[0] * (y[0] - jnp.cos(y[1]))
        return jnp.stack([fast, p[1] * y[0]])

    def loss(p):
        solution = _solve(field, adjoint, (0.0, 2.0, None), jnp.array([0.5, 0.0]), p, solver=diffrax.Kvaerno5())
        return jnp.sum(solution.ys**2)

    return jax.value_and_grad(loss), (jnp.array([200.0, 1.0]),)


@program
def fit_half_precision(adjoint):
    """Everything in float16 but the times, constant steps."""

    def loss(p):
        solution = _solve(
            lambda t, y, p: -p * jnp.sin(y), adjoint, (0.0, 1.0, 0.02), jnp.ones(8, jnp.float16), p,
            stepsize_controller=diffrax.ConstantStepSize(),
        )  # fmt: skip
        return jnp.sum(solution.ys.astype(jnp.float32) ** 2)

    return jax.value_and_grad(loss), (jnp.float16(0.7),)


@program
def fit_single_precision(adjoint):
    """A pendulum in float32 with loose tolerances."""

    def loss(p):
        solution = _solve(
            lambda t, y, p: jnp.stack([y[1], -p * jnp.sin(y[0])]), adjoint, (0.0, 5.0, 0.1),
            jnp.array([1.0, 0.0], jnp.float32), p, stepsize_controller=diffrax.PIDController(rtol=1e-3, atol=1e-3),
        )  # fmt: skip
        return jnp.sum(solution.ys**2)

    return jax.value_and_grad(loss), (jnp.float32(9.8),)


@program
def constant_steps_short(adjoint):
    """Thirty steps of one size."""

    def loss(p):
        solution = _solve(
            _predator_prey, adjoint, (0.0, 3.0, 0.1), ANIMALS, p, stepsize_controller=diffrax.ConstantStepSize()
        )
        return jnp.sum(solution.ys**2)

    return jax.value_and_grad(loss), (RATES,)


# --- second order


@program
def newton_fit(adjoint):
    """A Newton step on the fit; the Hessian by central differences of gradients, which both sides can do."""
    gradient = jax.grad(_fit(adjoint, 1_000))

    def step(p):
        columns = jax.vmap(lambda d: (gradient(p + 1e-5 * d) - gradient(p - 1e-5 * d)) / 2e-5)(jnp.eye(4))
        return p - jnp.linalg.solve(columns + 1e-3 * jnp.eye(4), gradient(p))

    return step, (RATES,)


@program
def gauss_newton(adjoint):
    """Residuals' Jacobian by reverse mode, then one Gauss-Newton step."""

    def residuals(p):
        solution = _solve(
            _predator_prey, adjoint, (0.0, 10.0, None), ANIMALS, p, saveat=diffrax.SaveAt(ts=OBSERVED), max_steps=1_000
        )
        return (solution.ys - jnp.cos(OBSERVED)[:, None]).ravel()

    def step(p):
        jacobian, value = jax.jacrev(residuals)(p), residuals(p)
        return p - jnp.linalg.lstsq(jacobian, value)[0]

    return step, (RATES,)


@program
def root_of_a_solve(adjoint):
    """Newton on a shooting problem: the initial slope that reaches a target."""

    def miss(slope):
        y0 = jnp.stack([0.0, slope])
        solution = _solve(
            lambda t, y, p: jnp.stack([y[1], -9.8 + 0.1 * y[1] ** 2]), adjoint, (0.0, 1.0, None), y0, None
        )
        return solution.ys[-1, 0] - 3.0

    def newton(slope):
        def once(slope, _):
            value, derivative = jax.value_and_grad(miss)(slope)
            return slope - value / derivative, None

        return jax.lax.scan(once, slope, None, length=4)[0]

    return newton, (jnp.array(8.0),)


# --- many solves


@program
def multistart(adjoint):
    """Sixteen fits at once, `vmap` of the gradient."""
    starts = RATES * jnp.exp(0.1 * jr.normal(jr.key(0), (16, 4)))
    return jax.vmap(jax.value_and_grad(_fit(adjoint, 1_000))), (starts,)


@program
def ensemble(adjoint):
    """Thirty-two initial states, the gradient of their mean."""

    def loss(p, states):
        one = lambda y: _solve(_predator_prey, adjoint, (0.0, 5.0, None), y, p).ys[-1]
        return jnp.mean(jax.vmap(one)(states) ** 2)

    return jax.value_and_grad(loss), (RATES, ANIMALS * jnp.exp(0.2 * jr.normal(jr.key(1), (32, 2))))


@program
def scan_of_solves(adjoint):
    """Two hundred short solves in a scan, each from where the last one ended."""

    def loss(p):
        def step(carry, t):
            solution = _solve(
                lambda t, y, p: -p * y, adjoint, (t, t + 1.0, None), carry, p,
                stepsize_controller=diffrax.PIDController(rtol=1e-3, atol=1e-3),
            )  # fmt: skip
            return solution.ys[-1] + 1.0, None

        return jnp.sum(jax.lax.scan(step, jnp.ones(2), jnp.arange(200.0))[0])

    return jax.value_and_grad(loss), (jnp.array(0.5),)


def _linear(key: jax.Array, out: int, into: int) -> Any:
    return eqx.nn.Linear(into, out, key=key)


class _Cell(eqx.Module):
    """A recurrent cell whose hidden state flows between observations."""

    field: eqx.nn.MLP
    gate: eqx.nn.GRUCell

    def __init__(self, key: jax.Array) -> None:
        first, second = jr.split(key)
        self.field = eqx.nn.MLP(8, 8, 16, 1, activation=jnp.tanh, key=first)
        self.gate = eqx.nn.GRUCell(2, 8, key=second)


@program
def ode_rnn(adjoint):
    """An ODE-RNN: forty observations, a solve between each two."""
    cell = _Cell(jr.key(2))
    arrays, static = eqx.partition(cell, eqx.is_inexact_array)

    def loss(arrays, data):
        cell = eqx.combine(arrays, static)

        def step(hidden, seen):
            flown = _solve(
                lambda t, y, a: cell.field(y), adjoint, (0.0, 0.5, None), hidden, None,
                stepsize_controller=diffrax.PIDController(rtol=1e-3, atol=1e-4),
            ).ys[-1]  # fmt: skip
            return cell.gate(seen, flown), None

        return jnp.sum(jax.lax.scan(step, jnp.zeros(8), data)[0] ** 2)

    return jax.value_and_grad(loss), (arrays, jr.normal(jr.key(3), (40, 2)))


@program
def doses(adjoint):
    """A pharmacokinetic model: six doses, a solve after each, unrolled."""

    def field(t, y, p):
        del t
        return jnp.stack([-p[0] * y[0], p[0] * y[0] - p[1] * y[1]])

    def loss(p):
        y = jnp.zeros(2)
        for k in range(6):
            y = y.at[0].add(1.0)
            y = _solve(field, adjoint, (4.0 * k, 4.0 * k + 4, None), y, p, max_steps=256).ys[-1]
        return jnp.sum(y**2)

    return jax.value_and_grad(loss), (jnp.array([1.1, 0.3]),)


# --- events, steady states, parts of one's own


@program
def bouncing_ball(adjoint):
    """The time of an event, found by a root finder, differentiated by the height."""

    def time(height):
        event = diffrax.Event(lambda t, y, args, **kwargs: y[0], optimistix_newton())
        solution = _solve(
            lambda t, y, a: jnp.stack([y[1], jnp.full_like(y[1], -9.8)]), adjoint, (0.0, 10.0, 0.1),
            jnp.stack([height, jnp.zeros_like(height)]), None, event=event,
        )  # fmt: skip
        return solution.ts[-1]

    return jax.value_and_grad(time), (jnp.array(3.0),)


def optimistix_newton() -> Any:
    """Make the root finder that Diffrax's documentation uses with events."""
    import optimistix

    return optimistix.Newton(1e-8, 1e-8)


@program
def steady_state(adjoint):
    """Until nothing moves any more."""

    def loss(p):
        event = diffrax.Event(diffrax.steady_state_event(rtol=1e-4, atol=1e-6))
        solution = _solve(
            lambda t, y, p: jnp.stack([p[0] - y[0] * y[1], y[0] - p[1] * y[1]]), adjoint, (0.0, jnp.inf, 0.1),
            jnp.array([1.0, 0.5]), p, event=event,
        )  # fmt: skip
        return jnp.sum(solution.ys[-1] ** 2)

    return jax.value_and_grad(loss), (jnp.array([1.0, 2.0]),)


class _Halving(diffrax.AbstractStepSizeController):
    """A controller of one's own around Diffrax's: no step larger than a tenth."""

    inner: Any

    def wrap(self, direction):
        return _Halving(self.inner.wrap(direction))

    def init(self, *args, **kwargs):
        return self.inner.init(*args, **kwargs)

    def adapt_step_size(self, *args, **kwargs):
        keep, start, stop, jump, state, result = self.inner.adapt_step_size(*args, **kwargs)
        return keep, start, jnp.minimum(stop, start + 0.1), jump, state, result


@program
def own_controller(adjoint):
    """Predator and prey under that controller."""
    return jax.value_and_grad(_fit(adjoint, 1_000, stepsize_controller=_Halving(PID()))), (RATES,)


class _Midpoint(diffrax.AbstractSolver):
    """A solver of one's own without error estimates."""

    term_structure = diffrax.AbstractTerm
    interpolation_cls = diffrax.LocalLinearInterpolation

    def order(self, terms):
        return 2

    def init(self, terms, t0, t1, y0, args):
        return None

    def step(self, terms, t0, t1, y0, args, solver_state, made_jump):
        del solver_state, made_jump
        half = (t1 - t0) / 2
        middle = y0 + half * terms.vf(t0, y0, args)
        y1 = y0 + (t1 - t0) * terms.vf(t0 + half, middle, args)
        return y1, None, {"y0": y0, "y1": y1}, None, diffrax.RESULTS.successful

    def func(self, terms, t0, y0, args):
        return terms.vf(t0, y0, args)


@program
def own_solver(adjoint):
    """A hundred and twenty steps of it."""

    def loss(p):
        solution = _solve(
            _predator_prey, adjoint, (0.0, 6.0, 0.05), ANIMALS, p, solver=_Midpoint(),
            stepsize_controller=diffrax.ConstantStepSize(),
        )  # fmt: skip
        return jnp.sum(solution.ys**2)

    return jax.value_and_grad(loss), (RATES,)


@program
def forced(adjoint):
    """A field with an interpolated forcing."""
    times = jnp.linspace(0.0, 10.0, 41)
    forcing = diffrax.LinearInterpolation(times, jnp.sin(times) ** 3)

    def loss(p):
        field = lambda t, y, p: jnp.stack([y[1], -p[0] * y[0] - p[1] * y[1] + forcing.evaluate(t)])
        return jnp.sum(_solve(field, adjoint, (0.0, 10.0, None), jnp.array([1.0, 0.0]), p).ys ** 2)

    return jax.value_and_grad(loss), (jnp.array([2.0, 0.3]),)


@program
def integer_leaves(adjoint):
    """A state that carries an index beside its numbers."""

    def field(t, y, p):
        del t
        return {"x": -p[y["which"].astype(int)] * y["x"], "which": jnp.zeros_like(y["which"])}

    def loss(p):
        y0 = {"x": jnp.ones(3), "which": jnp.array(1)}
        solution = _solve(
            field, adjoint, (0.0, 2.0, 0.02), y0, p, solver=diffrax.Euler(),
            stepsize_controller=diffrax.ConstantStepSize(),
        )  # fmt: skip
        return jnp.sum(solution.ys["x"] ** 2)

    return jax.value_and_grad(loss), (RATES,)


# --- stochastic and learned


@program
def langevin(adjoint):
    """Overdamped Langevin dynamics, four hundred steps."""
    path = diffrax.VirtualBrownianTree(0.0, 4.0, tol=5e-3, shape=(4,), key=jr.key(4))

    def loss(p):
        drift = diffrax.ODETerm(lambda t, y, p: -p[0] * y**3 + p[1] * y)
        noise = diffrax.ControlTerm(lambda t, y, p: p[2] * jnp.eye(4), path)
        solution = _solve(
            diffrax.MultiTerm(drift, noise), adjoint, (0.0, 4.0, 0.01), jnp.ones(4), p, solver=diffrax.Euler(),
            stepsize_controller=diffrax.ConstantStepSize(),
        )  # fmt: skip
        return jnp.mean(solution.ys**2)

    return jax.value_and_grad(loss), (jnp.array([0.5, 0.8, 0.2]),)


@program
def latent_ode(adjoint):
    """An MLP as the field, saved at twenty times, a batch of eight."""
    model = eqx.nn.MLP(4, 4, 32, 2, activation=jax.nn.softplus, key=jr.key(5))
    arrays, static = eqx.partition(model, eqx.is_inexact_array)
    times = jnp.linspace(0.0, 2.0, 20)

    def loss(arrays, states):
        model = eqx.combine(arrays, static)
        one = lambda y: _solve(
            lambda t, y, a: model(y), adjoint, (0.0, 2.0, 0.1), y, None, saveat=diffrax.SaveAt(ts=times),
            stepsize_controller=diffrax.PIDController(rtol=1e-3, atol=1e-6),
        ).ys  # fmt: skip
        return jnp.mean(jax.vmap(one)(states) ** 2)

    return jax.value_and_grad(loss), (arrays, jr.normal(jr.key(6), (8, 4)))


@program
def continuous_flow(adjoint):
    """A continuous normalising flow in two dimensions: the exact divergence of an MLP."""
    model = eqx.nn.MLP(3, 2, 16, 1, activation=jnp.tanh, key=jr.key(7))
    arrays, static = eqx.partition(model, eqx.is_inexact_array)

    def loss(arrays, points):
        model = eqx.combine(arrays, static)

        def field(t, y, a):
            at = lambda x: model(jnp.append(x, t))
            return at(y[0]), jnp.trace(jax.jacfwd(at)(y[0]))

        one = lambda x: _solve(
            field, adjoint, (0.0, 1.0, 0.1), (x, jnp.zeros(())), None,
            stepsize_controller=diffrax.ConstantStepSize(),
        ).ys[1][-1]  # fmt: skip
        return jnp.mean(jax.vmap(one)(points))

    return jax.value_and_grad(loss), (arrays, jr.normal(jr.key(8), (16, 2)))


@program
def equinox_state(adjoint):
    """Twenty layers of a residual flow, each a short solve with the same field."""
    model = eqx.nn.MLP(6, 6, 12, 1, activation=jnp.tanh, key=jr.key(9))
    arrays, static = eqx.partition(model, eqx.is_inexact_array)

    def loss(arrays, x):
        model = eqx.combine(arrays, static)

        def layer(x, scale):
            return _solve(
                lambda t, y, s: s * model(y), adjoint, (0.0, 1.0, 0.25), x, scale,
                stepsize_controller=diffrax.ConstantStepSize(), max_steps=16,
            ).ys[-1], None  # fmt: skip

        return jnp.sum(jax.lax.scan(layer, x, jnp.linspace(0.1, 1.0, 20))[0] ** 2)

    return jax.value_and_grad(loss), (arrays, jnp.ones(6))


# --- physics


@program
def open_qubit(adjoint):
    """A driven qubit that decays: a density matrix, complex."""

    def field(t, rho, p):
        sx = jnp.array([[0, 1], [1, 0]], complex)
        sm = jnp.array([[0, 1], [0, 0]], complex)
        h = p[0] * jnp.cos(p[1] * t) * sx + 0.5 * jnp.array([[1, 0], [0, -1]], complex)
        number = sm.conj().T @ sm
        decay = sm @ rho @ sm.conj().T - 0.5 * (number @ rho + rho @ number)
        return -1j * (h @ rho - rho @ h) + p[2] * decay

    def loss(p):
        rho = jnp.array([[1, 0], [0, 0]], complex)
        return jnp.real(_solve(field, adjoint, (0.0, 4.0, 0.05), rho, p).ys[-1, 1, 1])

    return jax.value_and_grad(loss), (jnp.array([0.7, 1.0, 0.1]),)


@program
def qubit_hessian(adjoint):
    """The curvature of a pulse: forward over reverse differences of a real two-level system."""

    def field(t, y, p):
        return jnp.stack([y[1] * (p[0] + p[1] * t), -y[0] * (p[0] + p[2] * t**2)])

    def loss(p):
        return jnp.sum(_solve(field, adjoint, (0.0, 3.0, 0.05), jnp.array([1.0, 0.0]), p).ys ** 4)

    gradient = jax.grad(loss)
    columns = lambda p: jax.vmap(lambda d: (gradient(p + 1e-5 * d) - gradient(p - 1e-5 * d)) / 2e-5)(jnp.eye(3))
    return columns, (jnp.array([1.0, 0.5, 0.2]),)


@program
def two_body(adjoint):
    """A Kepler orbit to a tight tolerance."""

    def field(t, y, mass):
        del t
        return jnp.concatenate([y[2:], -mass * y[:2] / jnp.sum(y[:2] ** 2) ** 1.5])

    def loss(mass):
        controller = diffrax.PIDController(rtol=1e-9, atol=1e-9)
        y0 = jnp.array([1.0, 0.0, 0.0, 0.8])
        return jnp.sum(
            _solve(
                field, adjoint, (0.0, 6.0, None), y0, mass, solver=diffrax.Dopri8(), stepsize_controller=controller
            ).ys
        )

    return jax.value_and_grad(loss), (jnp.array(1.0),)


@program
def heat_rod(adjoint):
    """Sixty-four points of a rod, an explicit adaptive solver."""

    def field(t, y, p):
        del t
        near = jnp.roll(y, 1) + jnp.roll(y, -1) - 2 * y
        return p[0] * near - p[1] * y**3

    def loss(p):
        y0 = jnp.sin(jnp.linspace(0, 2 * jnp.pi, 64))
        return jnp.sum(_solve(field, adjoint, (0.0, 10.0, None), y0, p).ys ** 2)

    return jax.value_and_grad(loss), (jnp.array([1.0, 0.1]),)
