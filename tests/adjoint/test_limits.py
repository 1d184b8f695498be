"""How many states may be held, as people say it: "all", and bytes in the place of a count, in loops and solves."""

import functools
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
import pytest

import adjoint
from adjoint import RecursiveCheckpointAdjoint, checkpointed_while_loop
from adjoint.theory.limits import Room, asked_for

from .compiled import temporary_bytes

FLOATS, STEPS = 1000, 60


@pytest.mark.parametrize(
    ("text", "expected"),
    [("2GiB", 2**31), ("1.5 KiB", 1536), ("3e3", 3000), ("10 MB", 10**7), (4096, 4096), ("7b", 7)],
)
def test_amounts_are_read_as_written(text: Any, expected: int) -> None:
    """Binary and decimal units, fractions, spaces."""
    assert asked_for(None, text) == Room(expected)


@pytest.mark.parametrize("text", ["", "GiB", "-1", "0", "1 GiBs", "1.2.3", 0, -5, 1.5, True])
def test_what_is_no_amount_is_refused_in_one_line(text: Any) -> None:
    """The line says what was found."""
    with pytest.raises(ValueError, match="`checkpoint_bytes` must be a number of bytes") as raised:
        asked_for(None, text)
    assert "\n" not in str(raised.value)


def loop_bytes(*, mapped: int = 0, **options: Any) -> int:
    """Return temporary bytes of the gradient of a loop over so many floats, mapped over lanes where there are any."""

    def loss(start: Any) -> Any:
        return checkpointed_while_loop(
            lambda carry: carry[0] < STEPS, lambda carry: (carry[0] + 1, jnp.sin(carry[1])), (0, start), **options
        )[1].sum()

    shape = (mapped, FLOATS) if mapped else (FLOATS,)
    whole = (lambda x: jax.vmap(loss)(x).sum()) if mapped else loss
    return temporary_bytes(jax.grad(whole), jax.ShapeDtypeStruct(shape, jnp.float32))


def solve_bytes(**options: Any) -> int:
    """Return temporary bytes of the gradient of an adaptive solve."""

    def loss(start: Any) -> Any:
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(lambda t, y, args: -y * jnp.cos(t)), diffrax.Heun(), 0.0, 5.0, 0.1, start,
            stepsize_controller=diffrax.PIDController(rtol=1e-4, atol=1e-4), max_steps=STEPS,
            adjoint=RecursiveCheckpointAdjoint(**options),
        )  # fmt: skip
        assert solution.ys is not None
        return jnp.sum(solution.ys)

    return temporary_bytes(jax.grad(loss), jax.ShapeDtypeStruct((FLOATS,), jnp.float32))


@pytest.mark.parametrize("measured", [functools.partial(loop_bytes, max_steps=STEPS), solve_bytes])
def test_bytes_and_all_are_counts(measured: Any) -> None:
    """As many states as fit, one for every step at most, and "all" of them."""
    # Diffrax's state is the solution and a few numbers beside it, less than a hundredth of it.
    by_bytes = measured(checkpoint_bytes=12 * 4 * FLOATS + 3 * FLOATS)
    assert by_bytes == pytest.approx(measured(checkpoints=12), abs=2 * FLOATS)
    assert measured(checkpoint_bytes="1GiB") == measured(checkpoints="all")


def test_bytes_are_those_of_the_batch_that_is_differentiated() -> None:
    """Under `grad` of `vmap` a state is that of all lanes."""
    by_bytes = loop_bytes(mapped=5, max_steps=STEPS, checkpoint_bytes=12 * 5 * 4 * FLOATS + 2 * FLOATS)
    assert by_bytes == loop_bytes(mapped=5, max_steps=STEPS, checkpoints=12)


def test_bytes_need_no_bound_on_steps() -> None:
    """The count follows from them alone."""
    assert loop_bytes(checkpoint_bytes=12 * 4 * FLOATS + 2 * FLOATS) == loop_bytes(checkpoints=12)


def test_what_cannot_be_is_refused_in_one_line() -> None:
    """All of an unbounded number; a count and bytes; bytes for less than one state, with the size of one."""
    with pytest.raises(ValueError, match='`checkpoints="all"` needs `max_steps`'):
        loop_bytes(checkpoints="all")
    with pytest.raises(ValueError, match="Either `checkpoints` or `checkpoint_bytes`"):
        loop_bytes(checkpoints=3, checkpoint_bytes=3)
    with pytest.raises(ValueError, match=f"one takes {4 * FLOATS + 4} bytes"):
        loop_bytes(checkpoint_bytes=4 * FLOATS - 1)


def test_an_adjoint_with_bytes_is_a_pytree_and_a_static_argument() -> None:
    """Texts in its fields are no arrays."""
    made = adjoint.RecursiveCheckpointAdjoint(checkpoint_bytes="2MiB")
    assert jax.tree.leaves(made) == []
    assert adjoint.RecursiveCheckpointAdjoint(checkpoints="all").checkpoints == "all"
