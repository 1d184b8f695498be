"""`jax.experimental.checkify` around a loop or a solve: what it finds without our loop, it finds with it."""

import functools
from collections.abc import Callable
from typing import Any

import diffrax
import equinox.internal as eqxi
import jax
import jax.numpy as jnp
import pytest
from jax.experimental import checkify

import adjoint

from .plain import assert_close

pytestmark = pytest.mark.usefixtures("x64")
theirs = functools.partial(eqxi.while_loop, kind="checkpointed")


def grown(start: Any, limit: Any, loop: Any) -> Any:
    """Ten steps, each of which checks its state; a leaf that no derivative reads is divided by."""

    def body(carry: Any) -> Any:
        step, y, other = carry
        checkify.check(y < limit, "too large: {y} at {step}", y=y, step=step)
        return step + 1, y * 1.1, other / y

    return loop(lambda carry: carry[0] < 10, body, (0, start, 1.0), checkpoints=3, max_steps=16)[1]


ORDERS: dict[str, Callable[[Any, Any], Any]] = {
    "value": lambda f, errors: checkify.checkify(f, errors=errors)(1.0),
    "jit": lambda f, errors: jax.jit(checkify.checkify(jax.jit(f), errors=errors))(1.0),
    "gradient inside": lambda f, errors: checkify.checkify(jax.grad(f), errors=errors)(1.0),
    "jitted gradient inside": lambda f, errors: checkify.checkify(jax.jit(jax.value_and_grad(f)), errors=errors)(1.0),
    "lanes inside": lambda f, errors: checkify.checkify(jax.vmap(f), errors=errors)(jnp.array([1.0, 0.5])),
    "lanes outside": lambda f, errors: jax.vmap(checkify.checkify(f, errors=errors))(jnp.array([1.0, 0.5])),
}


@pytest.mark.parametrize("limit", [100.0, 1.5])
@pytest.mark.parametrize("errors", ["user", "float"])
@pytest.mark.parametrize("order", ORDERS)
def test_a_loop_reports_what_equinox_reports(order: str, errors: str, limit: float) -> None:
    """The same message at the same step, or none, and the same value."""
    looked_for = {"user": checkify.user_checks, "float": checkify.float_checks}[errors]
    ours, expected = (
        ORDERS[order](functools.partial(grown, limit=limit, loop=loop), looked_for)
        for loop in (adjoint.checkpointed_while_loop, theirs)
    )
    assert ours[0].get() == expected[0].get()
    assert_close(ours[1], expected[1], 1e-12)


@pytest.mark.parametrize("limit", [100.0, 1.5])
def test_a_checked_loop_can_be_differentiated(limit: float) -> None:
    """Equinox's cannot; the backward pass replays the body without its checks."""
    looked_for = checkify.all_checks

    def checked(start: Any) -> Any:
        error, value = checkify.checkify(
            functools.partial(grown, limit=limit, loop=adjoint.checkpointed_while_loop), errors=looked_for
        )(start)
        return value, error

    gradient, error = jax.jit(jax.grad(checked, has_aux=True))(1.0)
    assert_close(gradient, 1.1**10, 1e-12)
    assert (error.get() is None) == (limit == 100.0)


def solved(rate: Any, method: Any, controller: Any, solver: Any) -> Any:
    """A solve whose vector field checks its state."""

    def field(t: Any, y: Any, rate: Any) -> Any:
        checkify.check(jnp.all(y < 1.6), "too large at {t}", t=t)
        return rate * y + 0.1 * jnp.cos(t)

    found = diffrax.diffeqsolve(
        diffrax.ODETerm(field), solver, 0.0, 1.0, 0.05, jnp.array([1.0, 0.3]), rate, adjoint=method,
        stepsize_controller=controller, max_steps=100, throw=False,
    )  # fmt: skip
    assert found.ys is not None
    return jnp.sum(found.ys)


@pytest.mark.parametrize("rate", [0.1, 0.9])
@pytest.mark.parametrize(
    ("controller", "solver"),
    [
        pytest.param(diffrax.ConstantStepSize(), diffrax.Heun(), id="constant", marks=pytest.mark.slow),
        pytest.param(diffrax.PIDController(rtol=1e-5, atol=1e-7), diffrax.Tsit5(), id="adaptive, FSAL"),
        pytest.param(
            diffrax.PIDController(rtol=1e-3, atol=1e-5), diffrax.Heun(), id="adaptive", marks=pytest.mark.slow
        ),
    ],
)
def test_a_solve_reports_what_it_does_with_the_adjoint_of_diffrax(rate: float, controller: Any, solver: Any) -> None:
    """In the field, in value and gradient, either transformation inside the other."""
    for order in ("value", "gradient inside"):
        ours, expected = (
            ORDERS[order](lambda x, method=method: solved(rate * x, method, controller, solver), checkify.user_checks)
            for method in (adjoint.RecursiveCheckpointAdjoint(4), diffrax.RecursiveCheckpointAdjoint(4))
        )
        assert (ours[0].get() is None) == (expected[0].get() is None) == (rate == 0.1)
        assert_close(ours[1], expected[1], 1e-9)

    def checked(x: Any) -> Any:
        error, value = checkify.checkify(
            lambda x: solved(rate * x, adjoint.RecursiveCheckpointAdjoint(4), controller, solver)
        )(x)
        return value, error

    gradient, error = jax.jit(jax.grad(checked, has_aux=True))(1.0)
    assert_close(gradient, ours[1], 1e-9)
    assert (error.get() is None) == (rate == 0.1)


def test_our_own_arithmetic_passes_the_checks_of_floats() -> None:
    """Estimates of an adaptive solve divide by nothing that is zero, as Diffrax's own solve does not."""
    controller = diffrax.PIDController(rtol=1e-5, atol=1e-7)
    gradient = jax.grad(lambda rate: solved(rate, adjoint.RecursiveCheckpointAdjoint(4), controller, diffrax.Tsit5()))
    error, _ = checkify.checkify(jax.jit(gradient), errors=checkify.float_checks)(0.1)
    assert error.get() is None
