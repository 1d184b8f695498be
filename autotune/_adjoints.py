"""Make the adjoint that a trial asks for, and count what it executes."""

from typing import Any

from autotune._stock import stock_executed_steps
from profiles._records import AdjointName, Tier


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


def reversed_steps(name: AdjointName, steps: int, accepted: int | None) -> int:
    """Count the steps that the backward pass visits, which is what `expected_steps` predicts.

    Diffrax's visits every pass of the forward solve, rejected ones too. Ours leaves rejected ones out of an adaptive
    solve that is not mapped; which solves are cannot be told from here, so they are counted, and what is said of ours
    is never less than what it executes.

    Args:
        name: whose adjoint.
        steps: passes of the body in the forward solve.
        accepted: those that were accepted, None for a plain loop.
    """
    del name, accepted
    return steps
