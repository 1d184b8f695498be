"""Make the adjoint that a trial asks for, and count what it executes."""

from typing import Any

from autotune._stock import stock_executed_steps
from profiles._records import AdjointName


def make_adjoint(name: AdjointName, checkpoints: int, expected_steps: int | None = None) -> Any:
    """Make the adjoint that is handed to the factory.

    Args:
        name: whose.
        checkpoints: its count.
        expected_steps: our adjoint's prediction; Diffrax's has none and leaves it out.
    """
    if name is AdjointName.DIFFRAX:
        import diffrax

        return diffrax.RecursiveCheckpointAdjoint(checkpoints=checkpoints)
    import adjoint

    return adjoint.RecursiveCheckpointAdjoint(checkpoints=checkpoints, expected_steps=expected_steps)


def executed_steps(name: AdjointName, steps: int, checkpoints: int, expected_steps: int | None = None) -> int:
    """Count all passes of the body: first sweep, recomputation, and one taped pass for each reversed step.

    Args:
        name: whose adjoint.
        steps: passes of the body in the forward solve.
        checkpoints: its count.
        expected_steps: the prediction it was given; ours places as well as it can without one.
    """
    if name is AdjointName.DIFFRAX:
        return stock_executed_steps(steps, checkpoints)
    import adjoint

    return adjoint.executed_steps(steps, checkpoints, expected_steps)


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
