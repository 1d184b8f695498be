"""Noise that is remembered from step to step is the noise that Diffrax evaluates at both ends of each."""

import functools

import diffrax
import jax
import jax.numpy as jnp
import pytest

import adjoint
from adjoint.solve import noise

from .plain import assert_close

FIXED, ADAPTIVE = diffrax.ConstantStepSize(), diffrax.PIDController(rtol=1e-1, atol=1e-2, dtmin=0.05)


def solved(scale, start, method, *, solver, controller=FIXED, span=(0.0, 1.0), key=3, area=diffrax.BrownianIncrement):
    """Solve two equations under additive noise on [0, 1]; returns the state at every step."""
    path = diffrax.VirtualBrownianTree(0.0, 1.0, tol=0.02, shape=(2,), key=jax.random.key(key), levy_area=area)
    terms = diffrax.MultiTerm(
        diffrax.ODETerm(lambda t, y, scale: jnp.sin(y) - scale * y),
        diffrax.ControlTerm(lambda t, y, scale: jnp.diag(scale * jnp.ones(2)), path),
    )
    t0, t1 = span
    step = None if isinstance(controller, diffrax.StepTo) else 0.125 if t1 >= t0 else -0.125
    return diffrax.diffeqsolve(
        terms,
        solver,
        t0,
        t1,
        step,
        start,
        args=scale,
        adjoint=method,
        stepsize_controller=controller,
        max_steps=40,
        saveat=diffrax.SaveAt(t1=True, solver_state=True),
    )


def gradient(method, **how):
    """Differentiate a solve in its parameter and initial state."""

    def loss(scale, start):
        return jnp.sum(solved(scale, start, method, **how).ys ** 2)

    return jax.jit(jax.value_and_grad(loss, (0, 1)))(jnp.array([0.5, 0.7]), jnp.array([1.0, -0.3]))


def remembered(monkeypatch):
    """Count how often a solve asks whether its noise can be remembered, and is told that it can."""
    found = []
    asked = noise.remembers

    def told(*args):
        found.append(asked(*args))
        return found[-1]

    monkeypatch.setattr("adjoint.solve.adjoint.remembers", told)
    return found


CASES = {
    "heun, adaptive": {"solver": diffrax.Heun(), "controller": ADAPTIVE},
    "milstein, backwards": {"solver": diffrax.ItoMilstein(), "span": (1.0, 0.0)},
    "with areas": {"solver": diffrax.ShARK(), "controller": ADAPTIVE, "area": diffrax.SpaceTimeLevyArea},
    "at given times": {"solver": diffrax.Euler(), "controller": diffrax.StepTo([0.0, 0.1, 0.5, 0.8, 1.0])},
}
OTHERS = {
    "half steps": {"solver": diffrax.HalfSolver(diffrax.EulerHeun()), "controller": ADAPTIVE},
    "after jumps": {
        "solver": diffrax.Heun(),
        "controller": diffrax.ClipStepSizeController(ADAPTIVE, jump_ts=jnp.array([0.4])),
    },
}


@pytest.mark.parametrize("case", CASES)
def test_gradients_are_those_of_diffrax(x64, monkeypatch, case):
    """Values and gradients agree to rounding, and the noise was remembered."""
    how = CASES[case]
    if isinstance(how.get("controller"), diffrax.StepTo):
        how = how | {"controller": diffrax.StepTo(jnp.array(how["controller"].ts))}
    found = remembered(monkeypatch)
    ours = gradient(adjoint.RecursiveCheckpointAdjoint(2), **how)
    assert found == [True]
    assert_close(ours, gradient(diffrax.RecursiveCheckpointAdjoint(2), **how), 1e-11)


@pytest.mark.parametrize("case", OTHERS)
def test_steps_that_may_begin_elsewhere_evaluate_both_ends(x64, monkeypatch, case):
    """Where a step is not known to be the one interval that noise is asked for, nothing is remembered."""
    found = remembered(monkeypatch)
    ours = gradient(adjoint.RecursiveCheckpointAdjoint(2), **OTHERS[case])
    assert found == [False]
    assert_close(ours, gradient(diffrax.RecursiveCheckpointAdjoint(2), **OTHERS[case]), 1e-11)


def test_each_step_evaluates_the_path_once(monkeypatch):
    """A solve of n steps evaluates it n + 1 times."""
    seen, asked = [], noise.brownian_point

    def counted(path, direction, t):
        jax.debug.callback(lambda t: seen.append(float(t)), t)
        return asked(path, direction, t)

    monkeypatch.setattr(noise, "brownian_point", counted)
    ys = solved(jnp.ones(2), jnp.ones(2), adjoint.RecursiveCheckpointAdjoint(2), solver=diffrax.Euler()).ys
    jax.block_until_ready(ys)
    jax.effects_barrier()
    assert sorted(seen) == pytest.approx([0.125 * k for k in range(9)])


def test_batched_solves_have_noise_of_their_own(x64):
    """Keys may be mapped over, outside of the gradient and inside of it."""

    def loss(scale, key, method):
        return jnp.sum(solved(scale, jnp.ones(2), method, solver=diffrax.Euler(), key=key).ys ** 2)

    def both(method):
        keys, scale = jnp.arange(3), jnp.array([0.5, 0.7])
        inside = jax.grad(lambda scale: jnp.sum(jax.vmap(lambda key: loss(scale, key, method))(keys)))
        outside = jax.vmap(jax.grad(functools.partial(loss, method=method)), (None, 0))
        return jax.jit(lambda scale: (inside(scale), outside(scale, keys)))(scale)

    assert_close(both(adjoint.RecursiveCheckpointAdjoint(2)), both(diffrax.RecursiveCheckpointAdjoint(2)), 1e-11)


def test_a_solve_of_no_length_evaluates_no_path():
    """Not even where the path is not defined, as with Diffrax."""
    found = solved(
        jnp.ones(2), jnp.ones(2), adjoint.RecursiveCheckpointAdjoint(2), solver=diffrax.Euler(), span=(2.0, 2.0)
    )
    assert_close(found.ys[0], jnp.ones(2), 0)


def test_the_solver_state_is_the_users(x64):
    """What a solve returns to go on from has the shape that Diffrax gives it."""
    ours, theirs = (
        solved(jnp.ones(2), jnp.ones(2), method, solver=diffrax.ReversibleHeun()).solver_state
        for method in (adjoint.RecursiveCheckpointAdjoint(2), diffrax.RecursiveCheckpointAdjoint(2))
    )
    assert_close(ours, theirs, 1e-12)
