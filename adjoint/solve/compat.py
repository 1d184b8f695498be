"""The names of Diffrax that are not public and that the adjoint needs, in one place; a test names them."""

from typing import Any

import diffrax
import jax.numpy as jnp
import jax.tree_util as jtu
from equinox.internal import nondifferentiable

try:  # only `adjoint.solve.noise` needs them, which can do without
    from diffrax._brownian.tree import _levy_diff
    from diffrax._custom_types import levy_tree_transpose
    from diffrax._misc import linear_rescale
except ImportError:
    _levy_diff = levy_tree_transpose = linear_rescale = None


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
        A `diffrax.ButcherTableau`; None where the solver is none, overrides how steps are made, or has been given a
        way to loop over its stages.
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
    """Return whether Diffrax would evaluate only products of the vector field with the control."""
    return bool(terms.is_vf_expensive(t0, t0, y0, args))


def one_interval(solver: Any) -> bool:
    """Return whether a solver is known to ask a control for its increment over the whole of a step and for no other."""
    own = type(solver)
    if _levy_diff is None or levy_tree_transpose is None or linear_rescale is None:
        return False
    if issubclass(own, diffrax.AbstractERK):
        return own.step is diffrax.AbstractRungeKutta.step
    if issubclass(own, diffrax.AbstractSRK):
        return own.step is diffrax.AbstractSRK.step
    return own in {
        diffrax.Euler,
        diffrax.EulerHeun,
        diffrax.ItoMilstein,
        diffrax.StratonovichMilstein,
        diffrax.ReversibleHeun,
    }


def brownian_point(path: Any, direction: Any, t: Any) -> Any:
    """Evaluate a `diffrax.VirtualBrownianTree` at one time, in the units that it computes in.

    Args:
        path: the path.
        direction: 1, or -1 where the solve runs backwards in time.
        t: the solve's time, which runs forwards.

    Returns:
        What `brownian_increment` takes.
    """
    at = nondifferentiable(jnp.where(direction == 1, t, -t), name="t1")
    assert linear_rescale is not None
    return path._evaluate(linear_rescale(path.t0, at, path.t1))


def brownian_increment(path: Any, direction: Any, before: Any, after: Any) -> Any:
    """Compute what `path.evaluate(t0, t1, use_levy=True)` does, from the path at both ends of a step of the solve."""

    def either(ahead: Any, back: Any) -> Any:
        return jtu.tree_map(lambda a, b: jnp.where(direction == 1, a, b), ahead, back)

    assert _levy_diff is not None and levy_tree_transpose is not None
    found = jtu.tree_map(_levy_diff, path.shape, either(before, after), either(after, before))
    return path._denormalise_bm_inc(levy_tree_transpose(path.shape, found))
