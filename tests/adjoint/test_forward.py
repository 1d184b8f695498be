"""The loop in forward mode, and in nestings of forward mode with one reverse pass; a masked scan is the oracle."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import diffrax
import jax
import jax.lax as lax
import jax.numpy as jnp
import numpy as np
import pytest

import adjoint
from adjoint import checkpointed_while_loop

from .compiled import temporary_bytes
from .plain import assert_close, plain_while_loop
from .test_transformations import RUNS, START, scalar

pytestmark = pytest.mark.usefixtures("x64")

ours = functools.partial(checkpointed_while_loop, checkpoints=2)
POINT = np.array([*START, 0.8])
Scalar = Callable[[Any], Any]


def along(f: Scalar) -> Scalar:
    """The slope along a direction that moves with the point."""
    return lambda x: jax.jvp(f, (x,), (jnp.cos(x),))[1]


def linearised(f: Scalar) -> Scalar:
    """The same by `jax.linearize`."""
    return lambda x: jax.linearize(f, x)[1](jnp.cos(x))


def transposed(f: Scalar) -> Scalar:
    """The gradient by transposing what forward mode gives."""
    return lambda x: jax.linear_transpose(lambda v: jax.jvp(f, (x,), (v,))[1], x)(jnp.ones(()))[0]


def scanned(f: Scalar) -> Scalar:
    """Move a few times along what is computed."""

    def run(x: Any) -> Any:
        return jnp.sum(lax.scan(lambda x, c: (0.9 * x + 0.1 * f(c * x), f(x)), x, jnp.array([0.9, 1.1]))[1])

    return run


def mapped(f: Scalar) -> Scalar:
    """Two lanes whose sum of squares counts."""
    return lambda x: jnp.sum(jax.vmap(f)(jnp.stack([x, 1.1 * x])) ** 2)


def chosen(f: Scalar) -> Scalar:
    """One branch of a conditional on a value."""
    return lambda x: lax.cond(x[0] > 0, f, jnp.sum, x)


@jax.custom_jvp
def ruled(x: Any) -> Any:
    """A function whose derivative is a loop's, mapped: by its own rule forward mode is asked for inside a vmap."""
    return jnp.sum(x)


@ruled.defjvp
def _(primals: Any, tangents: Any) -> Any:
    run = functools.partial(RUNS["simple"], Chosen.loop)
    lane = lambda x, v: jax.jvp(lambda x: jnp.sum(run(x[:3], x[3])), (x,), (v,))
    xs, vs = (jnp.stack([x, 0.9 * x]) for x in (*primals, *tangents))
    return tuple(jnp.sum(x) for x in jax.vmap(lane)(xs, vs))


class Chosen:
    """The loop that the rule above runs; set by its test."""

    loop: Any = ours


remat, grad, jacfwd = jax.checkpoint, jax.grad, jax.jacfwd

FIRST = {
    "jvp": along,
    "jacfwd": jacfwd,
    "linearize": linearised,
    "transpose of jvp": transposed,
    "jvp of scan": lambda f: along(scanned(f)),
    "jvp of cond": lambda f: along(chosen(f)),
    "jvp of vmap": lambda f: along(mapped(f)),
    "vmap of jacfwd": lambda f: lambda x: jax.vmap(jacfwd(f))(jnp.stack([x, 1.1 * x])),
    "jvp of remat": lambda f: along(remat(f)),
    "grad of remat of scan": lambda f: grad(remat(scanned(f))),
    "linearize of remat": lambda f: linearised(remat(f)),
}
SECOND = {
    "forward over reverse": lambda f: jacfwd(grad(f)),
    "reverse over forward": lambda f: grad(along(f)),
    "forward over forward": lambda f: along(along(f)),
    "reverse over linearize": lambda f: grad(linearised(f)),
    "forward over linearize": lambda f: along(linearised(f)),
    "linearize of jvp": lambda f: linearised(along(f)),
    "grad of vmap of jvp": lambda f: grad(mapped(along(f))),
    "jvp of grad of vmap": lambda f: along(lambda x: jnp.sum(grad(mapped(f))(x) ** 2)),
    "grad of remat of jvp": lambda f: grad(remat(along(f))),
    "grad of jvp of remat": lambda f: grad(along(remat(f))),
    "jvp of grad of remat": lambda f: jacfwd(grad(remat(f))),
    "grad of jvp of scan": lambda f: grad(along(scanned(f))),
    "jvp of grad of scan of remat": lambda f: jacfwd(grad(scanned(remat(f)))),
    "grad of scan of jvp": lambda f: grad(scanned(along(f))),
    "grad of cond of jvp": lambda f: grad(chosen(along(f))),
}
THIRD = {
    "forward over forward over reverse": lambda f: jacfwd(jacfwd(grad(f))),
    "forward over reverse over forward": lambda f: jacfwd(grad(along(f))),
    "reverse over forward over forward": lambda f: grad(along(along(f))),
}
EVERY_RUN = {
    "simple": (
        *("jvp", "linearize", "transpose of jvp", "jvp of cond", "reverse over linearize", "forward over linearize"),
        *("grad of remat of jvp", "grad of jvp of remat", "grad of scan of jvp", "jvp of grad of scan of remat"),
    ),
    "with buffer": (
        *("jacfwd", "jvp of scan", "jvp of vmap", "grad of remat of scan", "linearize of remat"),
        *("grad of vmap of jvp", "reverse over forward over forward"),
    ),
    "nested": ("jvp", "reverse over forward", "grad of cond of jvp"),
}


def asked(run: str, names: Sequence[str], loop: Any) -> dict[str, Any]:
    """Compile all that is asked of one loop as one program, and run it."""
    f = scalar(RUNS[run], loop)
    every = {**FIRST, **SECOND, **THIRD}
    return jax.jit(lambda x: {name: every[name](f)(x) for name in names})(POINT)


@pytest.mark.parametrize(
    ("run", "names"),
    [
        *EVERY_RUN.items(),
        *(pytest.param(run, [*FIRST, *SECOND, *THIRD], marks=pytest.mark.slow) for run in RUNS),
    ],
)
def test_every_nesting_of_forward_mode_is_that_of_a_scan(run: str, names: Sequence[str]) -> None:
    """First, second and third derivatives, with loops, branches, lanes and recomputation around and between."""
    assert_close(asked(run, names, ours), asked(run, names, plain_while_loop), 1e-10)


def test_forward_mode_is_that_of_central_differences() -> None:
    """And reverse over forward that of its own slope."""
    f = scalar(RUNS["with buffer"], ours)
    for run, width in ((f, 1e-6), (along(f), 1e-6)):
        slope = jax.jit(along(run))(POINT)
        ahead, behind = (jax.jit(run)(POINT + s * width * np.cos(POINT)) for s in (1, -1))
        np.testing.assert_allclose(slope, (ahead - behind) / (2 * width), rtol=1e-7)


def test_a_rule_that_maps_forward_mode_can_be_transposed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop is batched after it was pushed forward and before it comes apart."""
    found, expected = [], []
    for loop, into in ((ours, found), (plain_while_loop, expected)):
        monkeypatch.setattr(Chosen, "loop", loop)
        jax.clear_caches()
        into.append(jax.grad(lambda x: jnp.sin(ruled(x)))(jnp.asarray(POINT)))
    assert_close(found, expected)


@pytest.mark.parametrize("jit", [False, True])
def test_a_step_is_made_once_with_its_tangents(jit: bool) -> None:
    """`jax.jvp` and the linear function of `jax.linearize` each run one loop; nothing is stored."""
    calls: list[int] = []

    def run(y: Any) -> Any:
        def body(carry: Any) -> Any:
            jax.debug.callback(lambda k: calls.append(int(k)), carry[0])
            return carry[0] + 1, jnp.sin(carry[1])

        return ours(lambda carry: carry[0] < 9, body, (0, y))[1]

    push = lambda y: jax.jvp(run, (y,), (1.0,))
    jax.block_until_ready((jax.jit(push) if jit else push)(0.4))
    jax.effects_barrier()
    assert sorted(calls) == list(range(9))


STEPS, FLOATS = 400, 4096


def long_loop(y: Any, *, checkpoints: int) -> Any:
    """Many steps of a large state."""
    loop = functools.partial(checkpointed_while_loop, checkpoints=checkpoints)
    return jnp.sum(loop(lambda c: c[0] < STEPS, lambda c: (c[0] + 1, jnp.sin(c[1]) + 0.1 * c[1][0]), (0, y))[1])


def test_forward_mode_stores_nothing_and_reverse_over_forward_its_checkpoints() -> None:
    """In bytes: a jvp takes a few states whatever the count, its gradient a state and its tangent a checkpoint."""
    struct, state = jax.ShapeDtypeStruct((FLOATS,), jnp.float32), 4 * FLOATS

    def bytes_of(make: Callable, checkpoints: int) -> int:
        return temporary_bytes(make(functools.partial(long_loop, checkpoints=checkpoints)), struct)

    assert bytes_of(along, 50) < 8 * state
    assert bytes_of(linearised, 50) < 8 * state
    few, many = (bytes_of(lambda f: jax.grad(along(f)), checkpoints) for checkpoints in (4, 20))
    assert (many - few) / 16 == pytest.approx(2 * state, rel=0.02)
    few, many = (bytes_of(lambda f: jax.grad(jax.checkpoint(f)), checkpoints) for checkpoints in (4, 20))
    assert (many - few) / 16 == pytest.approx(state, rel=0.02)


def test_a_jacobian_by_forward_mode_makes_the_primal_steps_once() -> None:
    """Under `jax.jacfwd` only tangents are mapped."""
    jaxpr = jax.make_jaxpr(jax.jacfwd(functools.partial(long_loop, checkpoints=2)))(jnp.zeros(3))
    (eqn,) = (eqn for eqn in jaxpr.eqns if eqn.primitive.name.startswith("checkpointed_while"))
    shapes = [v.aval.shape for v in eqn.outvars]
    assert (3,) in shapes
    assert (3, 3) in shapes


@pytest.mark.parametrize("make", [lambda f: grad(lambda x: jnp.sum(grad(f)(x))), lambda f: grad(_value_beside(f))])
def test_reverse_over_reverse_is_refused_in_our_words(make: Any) -> None:
    """Whichever of the results is differentiated again, the gradient or the value beside it."""
    f = functools.partial(long_loop, checkpoints=2)
    with pytest.raises(NotImplementedError, match=r"use forward over reverse, `jax\.jacfwd\(jax\.grad"):
        jax.jit(make(f))(jnp.ones(3))


def _value_beside(f: Scalar) -> Scalar:
    return lambda x: jax.value_and_grad(f)(x)[0]


def test_mapped_tangents_of_one_primal_are_not_transposed() -> None:
    """What is not supported is refused in one line."""
    f, x = functools.partial(long_loop, checkpoints=2), jnp.ones(3)
    many = jax.vmap(lambda v: jax.jvp(f, (x,), (v,))[1])
    with pytest.raises(NotImplementedError, match=r"Differentiate inside the `jax\.vmap`"):
        jax.linear_transpose(many, jnp.eye(3))(jnp.ones(3))


def test_a_body_that_has_no_forward_mode_says_so() -> None:
    """In one line, which names the way out for a solver; its gradient is had as before."""

    @jax.custom_vjp
    def doubled(x: Any) -> Any:
        return x

    doubled.defvjp(lambda x: (x, None), lambda _, ct: (2 * ct,))
    run = lambda y: ours(lambda c: c[0] < 3, lambda c: (c[0] + 1, jnp.sin(doubled(c[1]))), (0, y))[1]
    with pytest.raises(TypeError, match=r"in forward mode what has a `jax\.custom_vjp`.*scan_kind"):
        jax.jit(along(lambda x: run(x[0])))(POINT)
    assert float(jax.grad(run)(0.4)) > 0


#
# Solves
#


def solve(with_adjoint: Any, x: Any, *, adaptive: bool, saveat: diffrax.SaveAt) -> Any:
    """A forced, coupled field; what it closes over, its start and its end depend on x."""
    controller = diffrax.PIDController(rtol=1e-2, atol=1e-3) if adaptive else diffrax.ConstantStepSize()
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(lambda t, y, args: jnp.sin(x[3] * y) - 0.3 * jnp.roll(y, 1) * y * t),
        diffrax.Heun(),
        0.0,
        1.5 + 0.1 * lax.stop_gradient(x[0]),
        0.9 if adaptive else 0.3,
        x[:3],
        adjoint=with_adjoint,
        stepsize_controller=controller,
        max_steps=32 if adaptive else 16,
        saveat=saveat,
    )
    assert solution.ys is not None
    return jnp.sum(solution.ys**2)


SOLVES = {
    "fixed": {"adaptive": False, "saveat": diffrax.SaveAt(t1=True)},
    "adaptive": {"adaptive": True, "saveat": diffrax.SaveAt(ts=[0.2, 0.5, 1.4])},
}
OF_SOLVES = {
    "fixed": ("jvp", "linearize", "forward over reverse"),
    "adaptive": ("jvp", "reverse over forward", "grad of vmap of jvp"),
}


@pytest.mark.parametrize("name", SOLVES)
def test_a_solve_has_the_derivatives_of_direct_differentiation(name: str) -> None:
    """Of first and second order; a vmap between; and those of `diffrax.ForwardMode` where it has them."""
    every = {**FIRST, **SECOND}

    def found(with_adjoint: Any, names: tuple[str, ...]) -> Any:
        f = lambda x: solve(with_adjoint, x, **SOLVES[name])
        return jax.jit(lambda x: {name: every[name](f)(x) for name in names})(POINT)

    by_ours = found(adjoint.RecursiveCheckpointAdjoint(3), OF_SOLVES[name])
    assert_close(by_ours, found(diffrax.DirectAdjoint(), OF_SOLVES[name]), 1e-9)
    assert_close({"jvp": by_ours["jvp"]}, found(diffrax.ForwardMode(), ("jvp",)), 1e-9)


def test_a_solver_that_keeps_its_loop_over_stages_names_the_way_out() -> None:
    """An implicit one, whose loop has no forward mode unless it is told."""

    def final(y: Any) -> Any:
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(lambda t, y, args: -(y**3)),
            diffrax.Kvaerno3(),
            0.0,
            1.0,
            0.1,
            y,
            stepsize_controller=diffrax.PIDController(rtol=1e-3, atol=1e-3),
            adjoint=adjoint.RecursiveCheckpointAdjoint(3),
        )
        assert solution.ys is not None
        return solution.ys[0]

    with pytest.raises(TypeError, match=r"scan_kind='bounded'"):
        jax.jit(lambda y: jax.jvp(final, (y,), (1.0,))[1]).lower(0.7)
