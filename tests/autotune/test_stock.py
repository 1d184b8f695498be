"""The count of what Diffrax's own adjoint executes."""

import equinox.internal as eqxi
import jax
import jax.numpy as jnp
import pytest

from autotune.stock import stock_executed_steps


def _counted_passes(steps: int, checkpoints: int) -> int:
    """Run Equinox's real loop and count, by a callback in its body, how often the body is executed."""
    calls = []

    def body(carry):
        index, value = carry
        value = jnp.sin(value)
        jax.debug.callback(lambda _: calls.append(1), value)
        return index + 1, value

    def final(value):
        loop = eqxi.while_loop(
            lambda carry: carry[0] < steps, body, (0, value), kind="checkpointed", checkpoints=checkpoints
        )
        return loop[1]

    jax.block_until_ready(jax.jit(jax.grad(final))(1.0))
    jax.effects_barrier()
    return len(calls)


@pytest.mark.parametrize(("steps", "checkpoints"), [(1, 1), (20, 1), (30, 4), (45, 8), (61, 10), (37, 50)])
def test_counts_what_the_real_loop_executes(steps: int, checkpoints: int) -> None:
    """Below, at and beyond the cliff the theory equals the number of real executions of the body."""
    real = _counted_passes(steps, checkpoints)
    assert stock_executed_steps(steps, checkpoints) == real


def test_everything_stored_executes_every_step_twice() -> None:
    """With as many checkpoints as steps there is one first sweep and one taped sweep."""
    assert [stock_executed_steps(n, n) for n in (1, 2, 10, 333)] == [2, 4, 20, 666]


def test_the_count_is_not_monotone_in_the_checkpoints() -> None:
    """More checkpoints can execute more steps: the reason why the tuner never interpolates these counts."""
    assert stock_executed_steps(1000, 30) > stock_executed_steps(1000, 25)
    assert stock_executed_steps(1000, 44) == 3 * 1000 - 44
