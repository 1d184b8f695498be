"""Steps of a stochastic solve that begin where the noise of the step before ended.

A Brownian path of Diffrax is evaluated by descending a tree, once for each end of a step, which is most of what the
step of a small system costs. Steps follow each other without a gap, so one end is known: the solver's state remembers
it, and every step descends once. The increments are the same.
"""

from typing import Any

import diffrax
import equinox as eqx

from .accepted import GAPLESS
from .compat import brownian_increment, brownian_point, one_interval
from .delegating import Delegating
from .stages import WrittenOut


def _is_remembered(term: Any) -> bool:
    """Return whether a term, as Diffrax wraps it, is one of noise whose increments are those of its path."""
    inner = getattr(term, "term", None)
    return type(inner) is diffrax.ControlTerm and type(inner.control) is diffrax.VirtualBrownianTree


def _noise_terms(terms: Any) -> list[Any]:
    """List the terms of noise of a solve."""
    several = type(terms) is diffrax.MultiTerm
    return [term for term in (terms.terms if several else (terms,)) if _is_remembered(term)]


def points(terms: Any, t: Any) -> tuple[Any, ...]:
    """Evaluate the path of each term of noise at a time of the solve."""
    return tuple(brownian_point(term.term.control, term.direction, t) for term in _noise_terms(terms))


class _OneStep(diffrax.AbstractBrownianPath):
    """A path on the interval of one step, where both ends are known."""

    path: Any
    direction: Any
    before: Any
    after: Any

    @property
    def t0(self) -> Any:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The path's."""
        return self.path.t0

    @property
    def t1(self) -> Any:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The path's."""
        return self.path.t1

    @property
    def levy_area(self) -> Any:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The path's."""
        return self.path.levy_area

    def evaluate(self, t0: Any, t1: Any = None, left: bool = True, use_levy: bool = False) -> Any:
        """Return the increment over the step; see `diffrax.AbstractBrownianPath.evaluate`."""
        del t0, t1, left
        found = brownian_increment(self.path, self.direction, self.before, self.after)
        return found if use_levy else found.W


class Remembering(Delegating):
    """A solver whose state is (the wrapped solver's, where the path of each term of noise stands)."""

    def init(self, terms: Any, t0: Any, t1: Any, y0: Any, args: Any) -> Any:
        """Return the wrapped solver's state, and the paths at the start."""
        return self.solver.init(terms, t0, t1, y0, args), points(terms, t0)

    def step(
        self, terms: Any, t0: Any, t1: Any, y0: Any, args: Any, solver_state: Any, made_jump: Any
    ) -> tuple[Any, Any, dict[str, Any], Any, Any]:
        """Make one step; see `diffrax.AbstractSolver.step`."""
        state, before = solver_state
        after = points(terms, t1)
        known = [
            _OneStep(term.term.control, term.direction, *ends)
            for term, *ends in zip(_noise_terms(terms), before, after, strict=True)
        ]
        here = eqx.tree_at(lambda terms: [term.term.control for term in _noise_terms(terms)], terms, known)
        y1, error, dense, state, result = self.solver.step(here, t0, t1, y0, args, state, made_jump)
        return y1, error, dense, (state, after), result


def remembers(solver: Any, terms: Any, controller: Any) -> bool:
    """Return whether the noise of a solve can be remembered from step to step.

    Args:
        solver: as the solve will run it.
        terms: the solve's terms.
        controller: its step size controller.
    """
    inner = solver.solver if isinstance(solver, WrittenOut) else solver
    return bool(_noise_terms(terms)) and one_interval(inner) and type(controller) in GAPLESS
