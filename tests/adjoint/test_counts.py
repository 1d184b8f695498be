"""What the compiled loop really executes: calls of the body counted inside it, and gradients for many predictions.

One compiled program for each count of checkpoints; the number of steps and its prediction are arguments of it.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import adjoint

from .plain import plain_while_loop

pytestmark = pytest.mark.usefixtures("x64")

PROGRAMS = [(1, None), (2, None), (3, None), (6, None), (3, 9), (4, 4), (7, 40)]
"""Checkpoints and max_steps."""
STEPS = 60
START = np.array([0.3, -0.8, 1.1])
WEIGHT = np.array([[0.9, -0.4, 0.2], [0.1, 0.8, -0.5], [-0.3, 0.6, 0.7]])


class Result(NamedTuple):
    """Final state, gradients with respect to start and weight, and how often the body was called."""

    state: np.ndarray
    of_start: np.ndarray
    of_weight: np.ndarray
    calls: int


def loss(loop: Any, steps: Any, start: Any, weight: Any) -> Any:
    """Run `steps` steps of a recurrent network; every step matters to every gradient."""

    def body(carry: Any) -> Any:
        step, y = carry
        return step + 1, jnp.tanh(weight @ y + 0.1 * jnp.sin(step.astype(y.dtype)))

    final = loop(lambda carry: carry[0] < steps, body, (jnp.array(0), start))[1]
    return jnp.sum(final * jnp.array([1.0, -2.0, 0.5])), final


class Counter:
    """Counts calls from inside a compiled program."""

    def __init__(self) -> None:
        """Begin at zero."""
        self.calls = 0

    def __call__(self) -> None:
        """Count one more."""
        self.calls += 1


@functools.cache
def program(checkpoints: int, max_steps: int | None) -> Any:
    """Compile the gradient once; the result takes the number of steps and what is expected of it."""
    counter = Counter()

    def counted(cond_fun: Any, body_fun: Any, init_val: Any, expected_steps: Any) -> Any:
        def body(carry: Any) -> Any:
            jax.debug.callback(counter)
            return body_fun(carry)

        return adjoint.checkpointed_while_loop(
            cond_fun, body, init_val, checkpoints=checkpoints, max_steps=max_steps, expected_steps=expected_steps
        )

    @jax.jit
    def compiled(steps: Any, expected_steps: Any, start: Any, weight: Any) -> Any:
        loop = functools.partial(counted, expected_steps=expected_steps)
        gradient = jax.grad(functools.partial(loss, loop, steps), argnums=(0, 1), has_aux=True)
        return gradient(start, weight)

    def run(steps: int, expected_steps: int = 0) -> Result:
        counter.calls = 0
        gradients, state = compiled(steps, expected_steps, START, WEIGHT)
        jax.effects_barrier()
        return Result(np.asarray(state), *map(np.asarray, gradients), calls=counter.calls)

    return run


@functools.cache
def plain_program() -> Any:
    """Compile the oracle once."""
    loop = functools.partial(plain_while_loop, max_steps=STEPS)

    @jax.jit
    def compiled(steps: Any, start: Any, weight: Any) -> Any:
        return jax.grad(functools.partial(loss, loop, steps), argnums=(0, 1), has_aux=True)(start, weight)

    @functools.cache
    def run(steps: int) -> Result:
        gradients, state = compiled(steps, START, WEIGHT)
        return Result(np.asarray(state), *map(np.asarray, gradients), calls=0)

    return run


@pytest.fixture(scope="module", autouse=True)
def programs_let_go() -> Any:
    """Forget the compiled programs with the module."""
    yield
    program.cache_clear()
    plain_program.cache_clear()


@given(st.sampled_from(PROGRAMS), st.integers(0, STEPS), st.integers(-3, 90))
def test_gradients_are_those_of_a_plain_scan(which: tuple[int, int | None], steps: int, expected_steps: int) -> None:
    """For any number of steps, checkpoints, bound and prediction, to 1e-12 relative in float64."""
    found = program(*which)(steps, expected_steps)
    expected = plain_program()(steps if which[1] is None else min(steps, which[1]))
    for ours, theirs in zip(found[:3], expected[:3], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-12 * np.abs(theirs).max(initial=0.0))


@given(st.sampled_from(PROGRAMS), st.integers(0, STEPS), st.integers(0, 90))
def test_the_body_is_called_as_often_as_theory_says(
    which: tuple[int, int | None], steps: int, expected_steps: int
) -> None:
    """Real calls equal `executed_steps`, whether the prediction is right, wrong or absent."""
    checkpoints, max_steps = which
    taken = steps if max_steps is None else min(steps, max_steps)
    found = program(*which)(steps, expected_steps)
    # A loop never expects more steps than its bound.
    prediction = expected_steps if max_steps is None else min(expected_steps, max_steps)
    assert found.calls == adjoint.executed_steps(taken, checkpoints, prediction)


@pytest.mark.parametrize(("steps", "expected_steps"), [(149, 0), (400, 0), (700, 0), (700, 500), (700, 700)])
def test_many_checkpoints_are_taken_back_as_theory_says(steps: int, expected_steps: int) -> None:
    """The ranks with few slots and those with many are searched apart; together they are one stack."""
    assert program(150, None)(steps, expected_steps).calls == adjoint.executed_steps(steps, 150, expected_steps)


@pytest.mark.parametrize(("checkpoints", "max_steps"), PROGRAMS)
def test_the_body_is_called_as_often_as_theory_says_from_none_to_many(checkpoints: int, max_steps: int | None) -> None:
    """The same over a grid that random numbers may miss: without a prediction, and with a true one."""
    run = program(checkpoints, max_steps)
    for steps in (0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 13, 21, 34, 55):
        taken = steps if max_steps is None else min(steps, max_steps)
        assert run(steps).calls == adjoint.executed_steps(taken, checkpoints), steps
        assert run(steps, taken).calls == adjoint.executed_steps(taken, checkpoints, taken), steps


@pytest.mark.parametrize(("checkpoints", "max_steps"), [(2, None), (6, None), (7, 40)])
def test_a_long_loop_is_placed_as_theory_says(checkpoints: int, max_steps: int | None) -> None:
    """Hundreds of steps, where targets have moved often: without a prediction, and with one a tenth too low."""
    run = program(checkpoints, max_steps)
    for steps in (333, 1000):
        taken = steps if max_steps is None else max_steps
        assert run(steps).calls == adjoint.executed_steps(taken, checkpoints)
        assert run(steps, taken * 9 // 10).calls == adjoint.executed_steps(taken, checkpoints, taken * 9 // 10)


@pytest.mark.parametrize(("checkpoints", "max_steps"), PROGRAMS)
def test_a_prediction_changes_no_bit_of_the_result(checkpoints: int, max_steps: int | None) -> None:
    """One program, many predictions, absurd ones too: the same bytes."""
    run = program(checkpoints, max_steps)
    for steps in (0, 1, 17, 41):
        first = run(steps)
        for expected_steps in (-5, 1, 5, 16, 17, 18, 41, 50, 1000, 2**31 - 1):
            again = run(steps, expected_steps)
            for one, other in zip(first[:3], again[:3], strict=True):
                np.testing.assert_array_equal(one, other)


def test_no_steps_return_the_start_and_its_cotangent() -> None:
    """A loop whose condition is false at once: the identity, and no gradient for the weight."""
    for which in PROGRAMS:
        found = program(*which)(0)
        np.testing.assert_array_equal(found.state, START)
        np.testing.assert_array_equal(found.of_start, [1.0, -2.0, 0.5])
        np.testing.assert_array_equal(found.of_weight, np.zeros((3, 3)))
        assert found.calls == 0


def test_everything_stored_means_nothing_recomputed() -> None:
    """With a slot for every step of the bound, and with more slots than steps, each step runs forward and taped."""
    for steps in range(5):
        assert program(4, 4)(steps).calls == 2 * steps
        assert program(6, None)(steps).calls == 2 * steps
        assert program(7, 40)(steps).calls == 2 * steps
