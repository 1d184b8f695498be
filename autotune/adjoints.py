"""Make the adjoint of a trial, and count what it executes: the one answer to how many passes there are."""

import dataclasses
import functools
from typing import Any

from autotune.stock import stock_executed_steps
from profiles import AdjointName, Measurement, Tier


def make_adjoint(
    name: AdjointName,
    checkpoints: int,
    expected_steps: int | None = None,
    tier: Tier | None = None,
    directory: str | None = None,
) -> Any:
    """Make the adjoint that is handed to the factory.

    Args:
        name: whose.
        checkpoints: its count.
        expected_steps: our adjoint's prediction; Diffrax's has none and leaves it out.
        tier: where our adjoint holds the first states of windows; None for nowhere.
        directory: where the file of the disk tier lies; None for other tiers.
    """
    if name is AdjointName.DIFFRAX:
        import diffrax

        return diffrax.RecursiveCheckpointAdjoint(checkpoints=checkpoints)
    import adjoint

    held: dict[str, Any] = {}
    if tier is not None:
        held = {"tier": tier.name, "windows": tier.windows, "transfer_cost": tier.transfer_cost, "directory": directory}
    return adjoint.RecursiveCheckpointAdjoint(checkpoints=checkpoints, expected_steps=expected_steps, **held)


def executed_steps(
    name: AdjointName, steps: int, checkpoints: int, expected_steps: int | None = None, tier: Tier | None = None
) -> int:
    """Count all passes of the body: first sweep, recomputation, and one taped pass for each reversed step.

    Args:
        name: whose adjoint.
        steps: passes of the body in the forward solve.
        checkpoints: its count.
        expected_steps: the prediction it was given; ours places as well as it can without one.
        tier: where ours holds the first states of windows.
    """
    if name is AdjointName.DIFFRAX:
        return stock_executed_steps(steps, checkpoints)
    import adjoint

    if tier is not None:
        return adjoint.windowed_steps(steps, checkpoints, tier.windows, expected_steps, tier.transfer_cost)
    return adjoint.executed_steps(steps, checkpoints, expected_steps)


def transfer_steps(steps: int, checkpoints: int, tier: Tier | None) -> float:
    """Count what the transfers of a predicted solve cost beside its executed steps, in steps; 0 without a tier."""
    if tier is None:
        return 0.0
    import adjoint

    planned = adjoint.plan_windows(steps, checkpoints, tier.windows, tier.transfer_cost)
    return (planned.windows - 1) * tier.transfer_cost


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """The work of one case.

    `steps` are passes of the body in the forward solve, `reversed_steps` those that the backward pass visits: our
    adjoint leaves rejected steps out of an adaptive solve that is not mapped; 0 where no gradient is taken.
    `accepted` is what our adjoint is given to expect; None where it is the same as `reversed_steps`.
    """

    steps: int
    reversed_steps: int
    accepted: int | None = None

    @property
    def predicted(self) -> int:
        """What `expected_steps` is to say."""
        return self.reversed_steps if self.accepted is None else self.accepted


@functools.lru_cache(maxsize=65536)
def passes(name: AdjointName, work: Work, checkpoints: int, tier: Tier | None = None) -> tuple[int, int]:
    """Split the executed steps of a call into untaped advances and taped passes; transfers are not counted.

    For our adjoint the placement follows from the prediction that it is given; passes that were rejected and are not
    visited again are made only once.
    """
    if work.reversed_steps == 0:
        return work.steps, 0
    if name is AdjointName.DIFFRAX:
        return executed_steps(name, work.steps, checkpoints) - work.steps, work.steps
    taped = work.reversed_steps
    executed = executed_steps(name, taped, checkpoints, work.predicted, tier)
    return executed - taped + (work.steps - taped), taped


def work_of_row(row: Measurement) -> Work | None:
    """Infer a row's work; None where its steps were not counted.

    A row keeps what was executed, from which follows which steps were visited: accepted ones, all, or none.
    """
    if not row.steps:
        return None
    accepted = row.accepted or row.steps
    found = [Work(steps=row.steps, reversed_steps=taped, accepted=accepted) for taped in (accepted, row.steps, 0)]
    for work in found:
        if row.executed_steps == sum(passes(row.adjoint, work, row.checkpoints, row.tier)):
            return work
    return found[0]
