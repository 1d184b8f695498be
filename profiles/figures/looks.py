"""How cases differ in every drawing: by colours that the colour-blind can distinguish, and by markers."""

import dataclasses
from collections.abc import Sequence

from profiles.records.records import Case

# Okabe and Ito's palette (2008), less its yellow and black, which vanish on white and on dark.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#7F7F7F")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES = ("-", "--", ":", "-.")


@dataclasses.dataclass(frozen=True, slots=True)
class Look:
    """How one series is drawn."""

    colour: str
    marker: str
    dash: str = "-"


class Series:
    """The look of every case: colour by horizon, marker and dash by what else differs.

    In a small profile either alone distinguishes the cases; together they do for 49 cases.
    """

    def __init__(self, cases: Sequence[Case]) -> None:
        """Give every case its look, in the order of the cases."""
        ordered = sorted(cases, key=lambda case: case.order)
        self._horizons = list(dict.fromkeys(case.horizon for case in ordered))
        self._rest = list(dict.fromkeys(_without_horizon(case) for case in ordered))
        self.shown = ordered

    def look(self, case: Case) -> Look:
        """Return how this case is drawn."""
        horizon, rest = self._horizons.index(case.horizon), self._rest.index(_without_horizon(case))
        # One horizon only: colour would say nothing, so it goes with what differs.
        colour = rest if len(self._horizons) == 1 else horizon
        marker = horizon if len(self._rest) == 1 else rest
        return Look(
            COLOURS[colour % len(COLOURS)],
            MARKERS[marker % len(MARKERS)],
            DASHES[rest % len(DASHES)] if len(self._rest) > 1 else "-",
        )

    def parts(self) -> list[tuple[str, Look]]:
        """Name the horizons and what else differs apart, each with the part of the look that it decides.

        With many cases this says the same as naming every case, in far fewer lines.
        """
        one_horizon, one_rest = len(self._horizons) == 1, len(self._rest) == 1
        found = []
        for horizon in [] if one_horizon else self._horizons:
            look = self.look(next(case for case in self.shown if case.horizon == horizon))
            found.append((str(Case(horizon)), look if one_rest else Look(look.colour, "")))
        for rest in [] if one_rest else self._rest:
            case = next(case for case in self.shown if _without_horizon(case) == rest)
            look = self.look(case)
            name = str(dataclasses.replace(case, horizon=None))
            found.append((name, look if one_horizon else Look("#222222", look.marker, look.dash)))
        return found


def _without_horizon(case: Case) -> tuple[object, ...]:
    """Return what distinguishes a case from others of its horizon."""
    return case.tolerance, case.set_values, case.x64, case.mesh
