"""What a solver around another answers in its place."""

from typing import Any

import diffrax


class Delegating(diffrax.AbstractAdaptiveSolver):
    """A solver that makes its steps in its own way and is the wrapped one in everything else."""

    solver: Any

    @property
    def term_structure(self) -> Any:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The wrapped solver's."""
        return self.solver.term_structure

    @property
    def interpolation_cls(self) -> Any:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The wrapped solver's."""
        return self.solver.interpolation_cls

    def order(self, terms: Any) -> int | None:
        """Return the wrapped solver's."""
        return self.solver.order(terms)

    def strong_order(self, terms: Any) -> Any:
        """Return the wrapped solver's."""
        return self.solver.strong_order(terms)

    def error_order(self, terms: Any) -> Any:
        """Return the wrapped solver's."""
        return self.solver.error_order(terms)

    def func(self, terms: Any, t0: Any, y0: Any, args: Any) -> Any:
        """Return what the wrapped solver does."""
        return self.solver.func(terms, t0, y0, args)
