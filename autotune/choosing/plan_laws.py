"""What a plan for other devices rests on: theory, and the laws of bytes and steps that everything else uses too."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence

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
    works = known_works(profile)

    def factor(steps: int, checkpoints: int) -> float:
        if profile.adjoint is not AdjointName.OURS:
            most = stock_most_executed_steps(steps, checkpoints)
            return math.inf if most is None else most / steps
        work = work_at(works, steps)
        return sum(passes(AdjointName.OURS, work, checkpoints)) / steps

    return factor


def known_works(profile: Profile) -> dict[int, Work]:
    """Give the work of every case of a profile, by its steps."""
    return {work.steps: work for case in profile.cases for work in works_of(profile.rows(case)).values()}


def work_at(works: Mapping[int, Work], steps: int) -> Work:
    """Give the work of a solve of so many steps: of the nearest that is known, its parts in proportion."""
    near = works[min(works, key=lambda known: abs(math.log(known / steps)))] if works else None
    if near is not None and near.steps == steps:
        return dataclasses.replace(near, accepted=near.predicted)
    visited = round(near.reversed_steps / near.steps * steps) if near else steps
    least = near.accepted_from if near else 1
    return Work(steps=steps, reversed_steps=visited, accepted=visited, accepted_from=least)


def _windowed(steps: int, checkpoints: int, windows: int) -> float:
    """Compute our adjoint's recompute factor with states in host memory, a transfer at the price of a step."""
    tier = Tier(name=HOST, windows=windows)
    return executed_steps(AdjointName.OURS, steps, checkpoints, steps, tier) / steps
