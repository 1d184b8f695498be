"""The names of Diffrax that are not public and that the adjoint needs, in one place; a test names them."""

from typing import Any

import diffrax


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


def solve_progress(state: Any) -> tuple[Any, Any, Any, Any]:
    """Return how many steps a solve has made and accepted, its time, and the size of its next step."""
    return state.num_steps, state.num_accepted_steps, *time_step(state)


def tableau_of(solver: Any) -> Any:
    """Return the Butcher tableau of a plain explicit Runge-Kutta solver.

    Args:
        solver: any Diffrax solver.

    Returns:
        A `diffrax.ButcherTableau`; None where the solver is none, overrides how steps are made, or was told how to
        loop over its stages.
    """
    plain = diffrax.AbstractRungeKutta
    own = type(solver)
    # Not isinstance: a `diffrax.HalfSolver` says that it is an instance of what it wraps.
    if not issubclass(own, diffrax.AbstractERK) or solver.scan_kind is not None:
        return None
    if any(getattr(own, name) is not getattr(plain, name) for name in ("step", "init", "func", "_common")):
        return None
    tableau = own.tableau
    return tableau if isinstance(tableau, diffrax.ButcherTableau) and not tableau.implicit else None


def vector_field_is_expensive(terms: Any, t0: Any, y0: Any, args: Any) -> bool:
    """Tell whether Diffrax would evaluate only products of the vector field with the control."""
    return bool(terms.is_vf_expensive(t0, t0, y0, args))
