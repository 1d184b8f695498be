"""Counting the steps of plain loops without differentiating them."""

import jax
import jax.numpy as jnp

import adjoint


def _loss(x: jax.Array, steps: jax.Array) -> jax.Array:
    def body(carry):
        inner = adjoint.checkpointed_while_loop(
            lambda c: c[0] < 2, lambda c: (c[0] + 1, jnp.sin(c[1])), (0, carry[1]), checkpoints=2
        )
        return carry[0] + 1, inner[1]

    return adjoint.checkpointed_while_loop(lambda c: c[0] < steps, body, (0, x), checkpoints=3)[1]


def test_steps_of_outermost_loops_are_reported_and_gradients_are_zero() -> None:
    """One report for each run, with the line that made the loop; loops inside loops are not steps of the solve."""
    seen: list[tuple[str, int]] = []
    with adjoint.observe_steps(lambda site, steps, _: seen.append((site, steps))):
        gradient = jax.jit(jax.grad(_loss))(jnp.array(0.5), jnp.array(7))
    jax.effects_barrier()
    assert [steps for _, steps in seen] == [7]
    assert seen[0][0].startswith("test_observe.py:")
    assert gradient == 0
    assert jax.grad(_loss)(jnp.array(0.5), jnp.array(7)) != 0


def test_the_longest_lane_counts_under_vmap() -> None:
    """A batch is one loop, as long as its longest lane."""
    seen: list[tuple[int, int | None]] = []
    with adjoint.observe_steps(lambda _, steps, bound: seen.append((steps, bound))):
        jax.vmap(_loss)(jnp.array([0.5, 0.1]), jnp.array([3, 9]))
    jax.effects_barrier()
    assert set(seen) == {(9, None)}


def test_the_bound_of_a_loop_is_reported() -> None:
    """So that whoever chooses a count knows from which one on everything is stored."""
    seen: list[int | None] = []
    with adjoint.observe_steps(lambda site, steps, bound: seen.append(bound)):
        adjoint.checkpointed_while_loop(lambda y: y < 3.0, lambda y: y + 1.0, jnp.array(0.0), max_steps=11)
    jax.effects_barrier()
    assert seen == [11]
