"""Bounds from the trace alone, against programs whose bytes can be counted by hand and against XLA's own plan."""

import functools

import equinox.internal as eqxi
import jax
import jax.numpy as jnp
import pytest

from autotune.adjoints import make_adjoint
from autotune.problem.loading import Call, load_problem
from autotune.problem.program import compile_traced, trace
from autotune.problem.traced import traced_bytes
from profiles import AdjointName
from tests.conftest import REPOSITORY

PROBLEMS = REPOSITORY / "tests/assets/problems"
KIB = 1024


def bounds(fn, *args):
    """Bound a function's bytes."""
    return traced_bytes(jax.make_jaxpr(fn)(*args))


X = jnp.ones(256)  # 1 KiB


def test_a_chain_of_operations_needs_two_values_at_a_time():
    """The argument is the caller's; each result takes over the buffer of the one before it."""
    assert bounds(lambda x: jnp.sin(jnp.cos(jnp.tan(x))), X).upper == 2 * KIB


def test_values_kept_for_later_are_alive_until_their_last_use():
    """Three results that meet at the end are alive together."""

    def keep(x):
        a, b, c = jnp.sin(x), jnp.cos(x), jnp.tan(x)
        return a * b * c

    assert bounds(keep, X).upper == 4 * KIB


def test_a_loops_carry_is_kept_once():
    """A while loop updates its carry in place; only what a pass needs beside it is added."""
    loop = lambda x: jax.lax.while_loop(lambda v: v[0] < 1.0, lambda v: jnp.sin(v), x)
    plain = bounds(loop, X)
    assert plain.upper <= 3 * KIB + 4 * 64
    assert plain.lower == 2 * KIB


def test_a_scans_stacked_results_are_counted_whole():
    """A hundred stacked states are a hundred states."""
    scan = lambda x: jax.lax.scan(lambda v, _: (jnp.sin(v), v), x, None, length=100)[1]
    found = bounds(scan, X)
    assert 101 * KIB <= found.lower <= found.upper <= 105 * KIB


def test_closed_over_arrays_are_in_both_bounds():
    """They occupy the device as arguments do."""
    data = jnp.ones(2560)
    found = bounds(lambda x: jnp.sum(data) + jnp.sum(x), X)
    assert found.constants == 10 * KIB
    assert 11 * KIB <= found.lower <= found.upper


@pytest.mark.parametrize("adjoint", list(AdjointName))
def test_the_bounds_enclose_what_xla_plans(adjoint):
    """For a real solve's gradient with either adjoint."""
    problem = load_problem(f"{PROBLEMS}/decay.py:make", set_values={"width": 200, "adaptive": False})
    traced = trace(problem.make(make_adjoint(adjoint, 20), 10))
    found, planned = traced_bytes(traced.jaxpr), compile_traced(traced).planned
    assert planned.total is not None
    assert found.lower <= planned.total <= found.upper


@pytest.mark.parametrize("adjoint", list(AdjointName))
def test_the_difference_of_two_traces_is_the_bytes_per_checkpoint(adjoint):
    """Heun carries its state and a few scalars, so a checkpoint costs the state within two per cent."""
    problem = load_problem(f"{PROBLEMS}/decay.py:make", set_values={"width": 2000, "adaptive": False})
    few, many = (traced_bytes(trace(problem.make(make_adjoint(adjoint, c), 10)).jaxpr).upper for c in (64, 128))
    assert (many - few) == pytest.approx(64 * 2000 * 4, rel=0.02)


def test_donated_arguments_lower_the_lower_bound():
    """What may be updated in place need not exist twice."""
    step = jax.jit(lambda w: jnp.sin(w), donate_argnums=0)
    assert bounds(step, X).lower == KIB


def test_branches_free_what_they_were_given():
    """A gradient accumulated inside a conditional needs its old value and the new part, not three of them."""

    def accumulate(total, x):
        return jax.lax.cond(x[0] > 0, lambda t: t + jnp.outer(x, x), lambda t: t, total)

    loop = functools.partial(eqxi.while_loop, kind="lax", max_steps=10)
    whole = lambda x: loop(lambda c: True, lambda c: (accumulate(c[0], c[1]), c[1]), (jnp.zeros((256, 256)), x))
    found = bounds(whole, X)
    assert 2 * 256 * KIB <= found.upper <= 2 * 256 * KIB + 16 * KIB


def test_a_call_object_is_traced_like_a_function():
    """The bounds are those of the whole call, arguments included."""
    call = Call(fn=lambda x, y: x * y, args=(X, X), abstract=False)
    assert traced_bytes(trace(call).jaxpr).upper == 3 * KIB
