"""Where the adjoint's program becomes another one: the counts that are named, against the compiled programs themselves.

The oracle is the lowered text: the multiset of its operations, and whether sweeps are handed over as one function, is
the same for two counts of one path, and not for two beside a switch.
"""

import collections
import itertools
import re

import jax
import jax.numpy as jnp
import pytest

import adjoint


def operations(checkpoints: int, *, max_steps: int, expected_steps: int | None = None) -> tuple:
    """Count the operations of a gradient's lowered text, by name; and its custom calls."""

    def loss(x):
        def body(carry):
            return carry[0] + 1, jnp.sin(carry[1])

        found = adjoint.checkpointed_while_loop(
            lambda carry: carry[1] < 1e9, body, (0, x), checkpoints=checkpoints, max_steps=max_steps,
            expected_steps=expected_steps,
        )  # fmt: skip
        return found[1]

    text = jax.jit(jax.grad(loss)).lower(jnp.array(0.5)).as_text()
    return tuple(sorted(collections.Counter(re.findall(r"(?:stablehlo|chlo)\.\w+|xla_cpu\w+", text)).items()))


@pytest.mark.parametrize(("max_steps", "inside"), [(300, (2, 129)), (5000, (2, 129, 2049))])
def test_the_counts_that_are_named_are_those_at_which_the_program_changes(max_steps: int, inside: tuple) -> None:
    """Both sides of every switch differ, and what lies between two of them does not."""
    switches = adjoint.switching_counts(max_steps)
    assert switches == (*inside, max_steps)
    for switch in switches:
        below, at = (operations(count, max_steps=max_steps) for count in (switch - 1, switch))
        assert below != at, f"nothing changes at {switch}"
    for first, after in itertools.pairwise(switches):
        counts = sorted({first, first + 1, (first + after) // 2, after - 1})
        assert len({operations(count, max_steps=max_steps) for count in counts}) == 1, f"from {first} to {after}"


def test_a_count_from_which_rejected_steps_are_left_out_is_one_of_them() -> None:
    """Where it lies within the bound; and no bound means no count that stores everything."""
    assert adjoint.switching_counts(1000, accepted_from=40) == (2, 40, 129, 1000)
    assert adjoint.switching_counts(30, accepted_from=40) == (2, 30)
    assert adjoint.switching_counts(None) == (2, 129, 2049)
    assert adjoint.switching_counts(1) == ()


def test_a_bound_below_one_is_refused() -> None:
    """In the words of the other functions of the theory."""
    with pytest.raises(ValueError, match="max_steps must be at least 1, got 0"):
        adjoint.switching_counts(0)
