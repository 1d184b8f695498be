"""Solves with windows inside other transformations: held to the same program without windows, or refused in a line."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import adjoint
from adjoint.tiers.disk import SHELF

from .plain import assert_close

pytestmark = pytest.mark.usefixtures("x64")
FACTORS = np.array([1.2, 1.5, 2.0])


@pytest.fixture(params=["host", "disk"])
def tier(request: pytest.FixtureRequest, tmp_path: Any) -> dict[str, Any]:
    """Options of either tier."""
    return {"tier": request.param, "windows": 3} | ({"directory": tmp_path} if request.param == "disk" else {})


def solve(start: Any, weight: Any, options: dict[str, Any], **more: Any) -> Any:
    """Twelve steps that read their counter, so that the first kept leaf begins the same in every solve."""
    loop = functools.partial(adjoint.checkpointed_while_loop, checkpoints=2, max_steps=32, **options, **more)
    return loop(lambda c: c[0] < 12, lambda c: (c[0] + 1, jnp.sin(weight * c[1]) + 0.01 * c[0]), (0, start))[1]


def scanned(weight: Any, options: dict[str, Any]) -> Any:
    """Each solve begins where the last has ended."""
    return jax.lax.scan(lambda x, k: (solve(x, weight * k, options),) * 2, 0.4, FACTORS)[1].sum()


def beside_a_constant(weight: Any, options: dict[str, Any]) -> Any:
    """A solve that no pass of the scan changes, which JAX moves out of it, beside one that each pass changes."""

    def step(x: Any, k: Any) -> Any:
        return solve(x, weight * k, options) + solve(0.7, weight, options), None

    return jax.lax.scan(step, 0.4, FACTORS)[0]


def mapped(weight: Any, options: dict[str, Any]) -> Any:
    """One after the other, by `jax.lax.map`."""
    return jax.lax.map(lambda k: solve(0.4, weight * k, options), jnp.asarray(FACTORS)).sum()


def counted(weight: Any, options: dict[str, Any]) -> Any:
    """By `jax.lax.fori_loop`."""
    return jax.lax.fori_loop(0, 3, lambda k, x: solve(x, weight * (1 + 0.2 * k), options), 0.4)


def lanes_of_scans(weight: Any, options: dict[str, Any]) -> Any:
    """A vmap of a scan."""
    return jax.vmap(lambda w: scanned(w, options))(weight * jnp.array([1.0, 0.8])).sum()


def scan_of_lanes(weight: Any, options: dict[str, Any]) -> Any:
    """A scan of a vmap."""
    lanes = jax.vmap(lambda x, w: solve(x, w, options))
    step = lambda x, k: (lanes(x, weight * k * jnp.array([1.0, 0.8])), None)
    return jax.lax.scan(step, jnp.array([0.4, 0.5]), FACTORS)[0].sum()


def looped(weight: Any, options: dict[str, Any]) -> Any:
    """Inside another loop of ours, which has windows too."""

    def body(c: Any) -> Any:
        return c[0] + 1, solve(c[1], weight, options)

    loop = functools.partial(adjoint.checkpointed_while_loop, checkpoints=1, max_steps=5, **options)
    return loop(lambda c: c[0] < 5, body, (0, 0.4))[1]


def gradient_inside(weight: Any, options: dict[str, Any]) -> Any:
    """Its gradient is taken inside a scan, and the scan is not differentiated."""
    slope = jax.grad(lambda w, x: solve(x, w, options))
    return jax.lax.scan(lambda x, k: (slope(weight * k, x),) * 2, 0.4, FACTORS)[1].sum()


PROGRAMS = [scanned, beside_a_constant, mapped, counted, lanes_of_scans, scan_of_lanes, looped]


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
def test_the_gradient_is_that_without_windows(program: Callable[..., Any], tier: dict[str, Any]) -> None:
    """Whatever the solve stands in."""
    found, expected = (jax.jit(jax.grad(functools.partial(program, options=one)))(1.3) for one in (tier, {}))
    assert_close(found, expected, 1e-10)


def test_a_gradient_inside_a_scan_is_that_without_windows(tier: dict[str, Any]) -> None:
    """Forward and backward sweep in each pass."""
    assert_close(jax.jit(functools.partial(gradient_inside, options=tier))(1.3), gradient_inside(1.3, {}), 1e-10)


def test_a_pullback_of_a_scan_may_be_called_again(tier: dict[str, Any]) -> None:
    """And mapped over cotangents, as `jax.jacrev` does."""
    program = lambda w, options: jax.lax.scan(lambda x, k: (solve(x, w * k, options),) * 2, 0.4, FACTORS)[1]
    pulled = []
    for options in (tier, {}):
        _, pullback = jax.vjp(functools.partial(program, options=options), 1.3)
        pulled.append([pullback(jnp.ones(3)), pullback(jnp.arange(3.0)), pullback(jnp.ones(3))])
    assert_close(*pulled, 1e-10)
    rows = [jax.jacrev(functools.partial(program, options=options))(1.3) for options in (tier, {})]
    assert_close(*rows, 1e-10)


@pytest.mark.parametrize("jit", [False, True])
def test_the_hessian_is_that_without_windows_or_refused(jit: bool, tier: dict[str, Any]) -> None:
    """Host memory holds tangents beside states; a file does not, and says so."""

    def hessian(options: Any) -> Any:
        found = jax.jacfwd(jax.grad(lambda x, w: solve(x, w, options), (0, 1)), (0, 1))
        return (jax.jit(found) if jit else found)(0.3, 1.3)

    if tier["tier"] == "disk":
        with pytest.raises(NotImplementedError, match="The file holds its states, not their tangents"):
            hessian(tier)
    else:
        assert_close(hessian(tier), hessian({}), 1e-10)


def test_forward_mode_needs_no_tier_and_its_gradient_has_one(tier: dict[str, Any]) -> None:
    """A slope is that without windows; reverse over forward hands states over with their tangents."""

    def found(options: Any) -> Any:
        slope = lambda w: jax.jvp(lambda w: solve(0.4, w, options), (w,), (1.0,))[1]
        return jax.jit(lambda w: (slope(w), jax.grad(slope)(w)))(1.3)

    before = len(SHELF._solves)
    assert_close(found(tier), found({}), 1e-10)
    assert len(SHELF._solves) <= before + 1


def test_a_recomputed_solve_has_its_gradient(tier: dict[str, Any]) -> None:
    """`jax.checkpoint` around a solve: no file is left that nobody reads."""
    found = jax.jit(jax.grad(jax.checkpoint(lambda w: solve(0.4, w, tier))))
    before = sum(not one.reversed for one in SHELF._solves.values())
    assert_close(found(1.3), jax.grad(lambda w: solve(0.4, w, {}))(1.3), 1e-10)
    assert sum(not one.reversed for one in SHELF._solves.values()) == before


def test_a_loop_around_that_ends_lane_by_lane_is_refused(tier: dict[str, Any]) -> None:
    """Its solves would hand over other states in each lane."""

    def climb(start: Any) -> Any:
        slope = jax.grad(lambda x: solve(x, 1.3, tier))
        return jax.lax.while_loop(lambda x: x < 2.0, lambda x: x + 1 + slope(x) ** 2, start)

    starts = jnp.array([0.1, 1.5])
    if tier["tier"] == "disk":
        with pytest.raises(NotImplementedError, match="one lane at a time"):
            jax.vmap(climb)(starts)


@pytest.mark.parametrize("leaf", [jax.random.key(0), jax.random.PRNGKey(0), jax.random.split(jax.random.key(1), 2)])
def test_keys_may_be_carried(leaf: Any, tier: dict[str, Any]) -> None:
    """Typed and raw ones, and arrays of them."""

    def final(x: Any, options: Any) -> Any:
        def body(c: Any) -> Any:
            one = c[1] if c[1].ndim == 0 or c[1].dtype == jnp.uint32 else c[1][0]
            now = jax.random.split(one)
            following = now[0] if c[1].ndim == 0 or c[1].dtype == jnp.uint32 else jnp.stack([now[0], now[1]])
            return c[0] + 1, following, jnp.sin(c[2]) + 0.1 * jax.random.normal(now[1])

        loop = functools.partial(adjoint.checkpointed_while_loop, checkpoints=2, max_steps=24, **options)
        return loop(lambda c: c[0] < 11, body, (0, leaf, x))[2]

    found, expected = (jax.jit(jax.grad(functools.partial(final, options=one)))(0.3) for one in (tier, {}))
    assert_close(found, expected, 1e-10)
