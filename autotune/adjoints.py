"""Make the adjoint of a trial, and count what it executes: the one answer to how many passes there are."""

import bisect
import dataclasses
import functools
from collections.abc import Iterable
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

    `steps` are passes of the body in the forward solve, `reversed_steps` those that the backward pass visits with
    `accepted_from` checkpoints or more: our adjoint then leaves rejected steps out of an adaptive solve that is not
    mapped. With fewer it visits all. Where it never leaves any out, `reversed_steps` are all steps, and `accepted_from`
    says nothing; where no gradient is taken, `reversed_steps` are 0. `accepted` is what our adjoint is given to expect;
    None where it is the same as `reversed_steps`. `switches` are the counts from which on the adjoint's program is
    another one (`adjoint.switching_counts`), and `everything` the one of them that stores every state without a
    schedule; None where no bound on the steps is known.
    """

    steps: int
    reversed_steps: int
    accepted: int | None = None
    accepted_from: int = 1
    switches: tuple[int, ...] = ()
    everything: int | None = None

    def path(self, checkpoints: int) -> int:
        """Number the path that the program takes with so many checkpoints."""
        return bisect.bisect_right(self.switches, checkpoints)

    @property
    def predicted(self) -> int:
        """What `expected_steps` is to say."""
        return self.reversed_steps if self.accepted is None else self.accepted

    def visited(self, checkpoints: int) -> int:
        """Count the steps that the backward pass visits with so many checkpoints."""
        every = self.reversed_steps and checkpoints < self.accepted_from
        return self.steps if every else self.reversed_steps


@functools.lru_cache(maxsize=65536)
def passes(
    name: AdjointName, work: Work, checkpoints: int, tier: Tier | None = None, expected_steps: int | None = None
) -> tuple[int, int]:
    """Split the executed steps of a call into untaped advances and taped passes; transfers are not counted.

    For our adjoint the placement follows from the prediction that it is given, `work.predicted` if `expected_steps` is
    None. Passes that were rejected and are not visited again are made only once; where they are, the adjoint places for
    the prediction times the passes that an accepted step takes, as it sees while it solves.
    """
    if work.reversed_steps == 0:
        return work.steps, 0
    if name is AdjointName.DIFFRAX:
        return executed_steps(name, work.steps, checkpoints) - work.steps, work.steps
    taped = work.visited(checkpoints)
    expected = work.predicted if expected_steps is None else expected_steps
    if taped == work.steps and work.predicted:
        expected = round(expected * work.steps / work.predicted)
    executed = executed_steps(name, taped, checkpoints, expected, tier)
    return executed - taped + (work.steps - taped), taped


def work_of_row(row: Measurement) -> Work | None:
    """Infer a row's work; None where its steps were not counted.

    A row keeps what was executed, from which follows which steps were visited at its count: accepted ones, all, or
    none. Where nothing of this explains it, they are taken for the accepted ones.
    """
    if not row.steps:
        return None
    return _explained(row) or Work(**_counted(row), reversed_steps=row.accepted or row.steps)


def work_of_rows(rows: Iterable[Measurement]) -> Work | None:
    """Infer the work of a case from its rows, the newest last; None where no steps were counted.

    The newest row tells the steps. Where rows at small counts visited all of them and rows at larger counts the
    accepted ones alone, `accepted_from` is the smallest of the latter: what lies between is taken to visit all.
    """
    counted = [row for row in rows if row.steps]
    if not counted:
        return None
    newest = work_of_row(counted[-1])
    assert newest is not None
    most = max(row.checkpoints for row in counted)
    if newest.reversed_steps and counted[-1].adjoint is AdjointName.OURS and most >= newest.steps:
        # Nobody measures more checkpoints than there are steps but for the loop's own bound.
        newest = dataclasses.replace(newest, switches=_switches(most), everything=most)
    telling = [(row.checkpoints, work) for row in counted if (work := _explained(row)) and work.predicted < work.steps]
    every = [count for count, work in telling if work.reversed_steps == work.steps]
    accepted = [count for count, work in telling if work.reversed_steps == work.predicted]
    if not newest.reversed_steps or not every or not accepted:
        return newest
    least = min((count for count in accepted if count > max(every)), default=max(every) + 1)
    return dataclasses.replace(newest, reversed_steps=newest.predicted, accepted_from=least)


def _switches(max_steps: int) -> tuple[int, ...]:
    import adjoint

    return adjoint.switching_counts(max_steps)


def _explained(row: Measurement) -> Work | None:
    """Find the work that executes at the row's count what the row executed; None where none does."""
    steps = _counted(row)
    for taped in (steps["accepted"], steps["steps"], 0):
        work = Work(**steps, reversed_steps=taped)
        if row.executed_steps == sum(passes(row.adjoint, work, row.checkpoints, row.tier)):
            return work
    # Rows of reference profiles were counted as if the placement did not follow the passes.
    if row.executed_steps == executed_steps(row.adjoint, row.steps or 0, row.checkpoints, steps["accepted"], row.tier):
        return Work(**steps, reversed_steps=steps["steps"])
    return None


def _counted(row: Measurement) -> dict[str, Any]:
    """Read the steps that were counted, and those that were accepted."""
    assert row.steps
    return {"steps": row.steps, "accepted": row.accepted or row.steps}
