"""The names of Diffrax that are not public and that the adjoint needs, in one place; a test names them."""

from typing import Any


def solve_loop(adjoint: Any, **kwargs: Any) -> Any:
    """Run Diffrax's solve with the given loops, as every `diffrax.AbstractAdjoint` does.

    Args:
        adjoint: the adjoint.
        **kwargs: what `AbstractAdjoint.loop` received, `inner_while_loop` and `outer_while_loop`.

    Returns:
        The final state of the solve and its extra statistics.
    """
    return adjoint._loop(**kwargs)


def time_step(state: Any) -> tuple[Any, Any]:
    """Return the time at which a solve's state stands and the size of its next step."""
    return state.tprev, state.tnext - state.tprev
