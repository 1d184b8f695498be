"""What a plan for other devices rests on: theory, and the laws of bytes and steps that everything else uses too."""

import math
from collections.abc import Callable, Sequence

from autotune.adjoints import Work, executed_steps, passes
from autotune.choosing.recommend import works_of
from autotune.machine.tiers import HOST
from autotune.model.bytes_law import BytesLaw
from autotune.model.steps_law import StepsLaw
from autotune.stock import stock_most_executed_steps
from profiles import AdjointName, Laws, Measurement, Profile, Tier


def plan_laws(profile: Profile) -> Laws:
    """Make what `profiles.plan` is handed for a profile."""
    return Laws(
        recompute=_recompute(profile),
        sizes=lambda measured: BytesLaw(measured, profile.adjoint),
        steps=steps_law,
        windowed=_windowed if profile.adjoint is AdjointName.OURS else None,
    )


def steps_law(rows: Sequence[Measurement]) -> StepsLaw:
    """Fit the law of steps to the rows of one setting."""
    return StepsLaw({(case.horizon, case.tolerance): work for case, work in works_of(rows).items()})


def _recompute(profile: Profile) -> Callable[[int, int], float]:
    """Make the recompute factor of (steps, checkpoints), by theory; infinite where theory says nothing.

    Of our adjoint it is that of the profile's own work, which may leave rejected steps out; at steps that were not
    measured their share is that of the nearest which were.
    """
    works = {work.steps: work for case in profile.cases for work in works_of(profile.rows(case)).values()}

    def factor(steps: int, checkpoints: int) -> float:
        if profile.adjoint is not AdjointName.OURS:
            most = stock_most_executed_steps(steps, checkpoints)
            return math.inf if most is None else most / steps
        near = works[min(works, key=lambda known: abs(math.log(known / steps)))] if works else None
        share = near.reversed_steps / near.steps if near else 1.0
        visited = near.reversed_steps if near and near.steps == steps else round(share * steps)
        accepted = near.predicted if near and near.steps == steps else visited
        least = near.accepted_from if near else 1
        work = Work(steps=steps, reversed_steps=visited, accepted=accepted, accepted_from=least)
        return sum(passes(AdjointName.OURS, work, checkpoints)) / steps

    return factor


def _windowed(steps: int, checkpoints: int, windows: int) -> float:
    """Compute our adjoint's recompute factor with states in host memory, a transfer at the price of a step."""
    tier = Tier(name=HOST, windows=windows)
    return executed_steps(AdjointName.OURS, steps, checkpoints, steps, tier) / steps
