"""The ways in which users write `fn`: jitted, donating, vmapped, nested, with modules, with shapes instead of data."""

import functools

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import lineax

import adjoint as ckpt


def _solve(adjoint, y0, weights, steps, **kwargs):
    return diffrax.diffeqsolve(
        diffrax.ODETerm(lambda t, y, w: jnp.tanh(w @ y)), diffrax.Euler(), 0.0, 0.1 * steps, 0.1, y0, weights,
        adjoint=adjoint, **kwargs,
    )  # fmt: skip


def make_donating(*, adjoint, horizon=5, size=256, jit="jax"):
    """A training step that consumes its parameters."""

    def step(weights, y0):
        loss = lambda w: jnp.sum(_solve(adjoint, y0, w, horizon).ys)
        value, gradient = jax.value_and_grad(loss)(weights)
        return value, weights - 0.1 * gradient

    weights, y0 = 0.1 * jnp.eye(size), jnp.ones(size)
    jitted = jax.jit(step, donate_argnums=0) if jit == "jax" else eqx.filter_jit(step, donate="all-except-first")
    if jit == "eqx":
        return eqx.filter_jit(lambda y0, weights: step(weights, y0), donate="all-except-first"), (y0, weights)
    return jitted, (weights, y0)


def make_static(*, adjoint, horizon=5):
    """A jitted function with a static argument in the middle."""

    @functools.partial(jax.jit, static_argnums=1)
    def loss(weights, steps, y0):
        return jax.grad(lambda w: jnp.sum(_solve(adjoint, y0, w, steps).ys))(weights)

    return loss, (jnp.eye(3), horizon, jnp.ones(3))


def make_closing_over(*, adjoint, size=300, jit="none"):
    """A function that closes over data as large as its arguments."""
    data = jnp.ones((size, size)) / size

    def loss(y0):
        return jnp.sum(_solve(adjoint, y0, data, 4).ys)

    wrap = {"none": lambda f: f, "jax": jax.jit, "eqx": eqx.filter_jit}[jit]
    return wrap(jax.grad(loss)), (jnp.ones(size),)


class Field(eqx.Module):
    """A vector field with a function inside, as real models have."""

    layer: eqx.nn.Linear
    activation: object

    def __call__(self, t, y, args):
        """Evaluate."""
        return self.activation(self.layer(y))


def make_module(*, adjoint, horizon=5):
    """The usual Equinox idiom."""
    field = Field(eqx.nn.Linear(3, 3, key=jax.random.key(0)), jnp.tanh)

    def loss(field, y0):
        sol = diffrax.diffeqsolve(
            diffrax.ODETerm(field), diffrax.Euler(), 0.0, 0.1 * horizon, 0.1, y0, adjoint=adjoint
        )  # fmt: skip
        return jnp.sum(sol.ys), field.activation

    return eqx.filter_value_and_grad(loss, has_aux=True), (field, jnp.ones(3))


def make_abstract(*, adjoint, horizon=5, gib=1):
    """A problem larger than this machine, given by shapes."""
    size = (2**14, int(gib * 2**14))
    return (
        jax.grad(lambda y0, w: jnp.sum(_solve_elementwise(adjoint, y0, w, horizon))),
        (jax.ShapeDtypeStruct(size, jnp.float32), jax.ShapeDtypeStruct((), jnp.float32)),
    )


def _solve_elementwise(adjoint, y0, w, steps):
    return diffrax.diffeqsolve(
        diffrax.ODETerm(lambda t, y, w: jnp.sin(w * y)), diffrax.Euler(), 0.0, 0.1 * steps, 0.1, y0, w, adjoint=adjoint
    ).ys


def make_closed_over_tracer(*, adjoint, horizon=7):
    """The vector field closes over what is differentiated."""

    def loss(w):
        field = lambda t, y, args: jnp.tanh(w @ y)
        return jnp.sum(
            diffrax.diffeqsolve(
                diffrax.ODETerm(field), diffrax.Euler(), 0.0, 0.1 * horizon, 0.1, jnp.ones(3), adjoint=adjoint
            ).ys
        )  # fmt: skip

    return jax.value_and_grad(loss), (jnp.eye(3),)


def make_batch(*, adjoint, lanes=4):
    """Lanes that end after different numbers of steps."""

    def loss(w, ends):
        def one(end):
            return diffrax.diffeqsolve(
                diffrax.ODETerm(lambda t, y, w: -w * y), diffrax.Euler(), 0.0, end, 0.1, jnp.ones(2), w, adjoint=adjoint
            ).ys

        return jnp.sum(jax.vmap(one)(ends))

    return jax.grad(loss), (jnp.array(0.5), 0.1 * jnp.arange(1, lanes + 1) * 3.0)


def make_two_solves(*, adjoint):
    """Two call sites, one of them visited twice, and a third that feeds on both."""

    def loss(w):
        first = _solve(adjoint, jnp.ones(3), w, 5).ys
        total = 0.0
        for steps in (8, 12):
            total = total + jnp.sum(
                _solve_again(adjoint, w, steps, first[-1]),
            )
        return total

    return jax.grad(loss), (jnp.eye(3),)


def _solve_again(adjoint, w, steps, y0):
    return diffrax.diffeqsolve(
        diffrax.ODETerm(lambda t, y, w: jnp.tanh(w @ y)), diffrax.Euler(), 0.0, 0.1 * steps, 0.1, y0, w, adjoint=adjoint
    ).ys


def make_nested(*, adjoint):
    """A solve inside the vector field of a solve."""

    def loss(w):
        def outer(t, y, args):
            inner = diffrax.diffeqsolve(
                diffrax.ODETerm(lambda s, z, a: -z), diffrax.Euler(), 0.0, 0.3, 0.1, y, adjoint=adjoint
            )
            return w * inner.ys[-1]

        return jnp.sum(
            diffrax.diffeqsolve(
                diffrax.ODETerm(outer), diffrax.Euler(), 0.0, 1.0, 0.1, jnp.ones(2), adjoint=adjoint
            ).ys
        )  # fmt: skip

    return jax.grad(loss), (jnp.array(0.5),)


def make_hessian(*, adjoint, horizon=4):
    """Forward over reverse."""
    loss = lambda w: jnp.sum(_solve(adjoint, jnp.ones(2), w, horizon).ys)
    return jax.hessian(lambda s: loss(s * jnp.eye(2))), (jnp.array(0.3),)


def _diagonal(w, y):
    return lineax.DiagonalLinearOperator(0.3 * jnp.ones(3))


def make_sde(*, adjoint, seed=0):
    """Random increments from a tree, and a --set key that varies them."""

    def loss(w, y0):
        path = diffrax.VirtualBrownianTree(0.0, 1.0, 1e-2, (3,), jax.random.key(seed), diffrax.SpaceTimeLevyArea)
        terms = diffrax.MultiTerm(
            diffrax.ODETerm(lambda t, y, w: -w * y), diffrax.ControlTerm(lambda t, y, w: _diagonal(w, y), path)
        )
        sol = diffrax.diffeqsolve(
            terms, diffrax.ShARK(), 0.0, 1.0, 0.05, y0, w, adjoint=adjoint,
            stepsize_controller=diffrax.PIDController(rtol=1e-2, atol=1e-2, dtmin=1e-2),
        )  # fmt: skip
        return jnp.sum(sol.ys)

    return jax.grad(loss), (jnp.array(0.5), jnp.ones(3))


def make_plain_loop(*, adjoint, horizon=9):
    """A loop without Diffrax, which gets the counts."""

    def loss(w):
        _, y = ckpt.checkpointed_while_loop(
            lambda carry: carry[0] < horizon, lambda carry: (carry[0] + 1, jnp.tanh(w @ carry[1])),
            (0, jnp.ones(3)), checkpoints=adjoint.checkpoints, expected_steps=adjoint.expected_steps,
        )  # fmt: skip
        return jnp.sum(y)

    return jax.value_and_grad(loss), (jnp.eye(3) - 0.2,)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _module_level_gradient(checkpoints, steps, w):
    def loss(w):
        loop = ckpt.checkpointed_while_loop(
            lambda carry: carry[0] < steps, lambda carry: (carry[0] + 1, jnp.tanh(w * carry[1])), (0, jnp.ones(3)),
            checkpoints=checkpoints,
        )  # fmt: skip
        return jnp.sum(loop[1])

    return jax.grad(loss)(w)


def make_module_level(*, adjoint, horizon=6):
    """A plain loop inside a function that is jitted once for the whole module."""
    return _module_level_gradient, (adjoint.checkpoints, horizon, jnp.array(0.7))
