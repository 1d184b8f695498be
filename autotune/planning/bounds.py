"""At least so many seconds: what no call can do without on a device, at the peak figures that its maker states.

A bound and no prediction: it knows nothing of launches, of waiting for the host, of latency, or of how far a program
stays below the peak. Operations on matrices go at the rate of dense 16-bit products, the fastest there is, others at
that of 32-bit arithmetic; of bytes only those count that exceed the last-level cache, pass by pass. The largest of the
three times is the bound, since a device may overlap them.
"""

import dataclasses
from collections.abc import Callable, Mapping

from autotune.adjoints import Work, passes
from autotune.choosing.plan_laws import known_works, work_at
from autotune.problem.costs import PassCost, StepCosts
from profiles import AdjointName, Device, Hardware, Plan, PlanRow, Profile, Scalar

Costs = Mapping[tuple[tuple[str, Scalar], ...], StepCosts]
"""What a step of a problem costs at least, by `--set` values."""
A_THOUSAND = 1000
"""Calls that a price is said for."""


def least_seconds(costs: StepCosts, work: Work, checkpoints: int, chip: Hardware, *, devices: int = 1) -> float | None:
    """Bound the seconds of one call with our adjoint from below.

    Args:
        costs: what its passes cost at least.
        work: the steps of the call.
        checkpoints: its count.
        chip: the figures of one device.
        devices: how many the call spans, over which everything is taken to be spread evenly.

    Returns:
        Seconds; None where the catalogue states none of the figures that it takes.
    """
    advances, taped = passes(AdjointName.OURS, work, checkpoints)
    made = ((work.steps, costs.advance), (advances - work.steps, costs.replay), (taped, costs.reversal))

    def total(figure: Callable[[PassCost], float]) -> float:
        return sum(count * figure(cost) for count, cost in made)

    bounds = []
    if chip.flops:
        bounds.append(total(lambda cost: cost.flops) / chip.flops)
    if chip.matrix_flops:
        bounds.append(total(lambda cost: cost.matrix_flops) / chip.matrix_flops)
    if chip.bandwidth and chip.cache is not None:
        cache = devices * chip.cache
        bounds.append(total(lambda cost: _beyond(cost, cache)) / chip.bandwidth)
    return max(bounds) / devices if bounds else None


def _beyond(cost: PassCost, cache: int) -> int:
    """Count the bytes of a pass that cannot have stayed in the cache since the one before."""
    return max(0, cost.read_bytes - cache) + max(0, cost.written_bytes - cache)


def with_bounds(plan: Plan, device: Device, base: Profile, costs: Costs) -> Plan:
    """Add to the rows of a plan for one device what a call takes there at least.

    Args:
        plan: the plan.
        device: its device.
        base: the profile that is planned, whose steps count.
        costs: what a step costs at least.
    """
    if base.adjoint is not AdjointName.OURS or not costs:
        return plan
    works = known_works(base)

    def bounded(row: PlanRow) -> PlanRow:
        cost = costs.get(row.case.set_values)
        if cost is None or row.checkpoints is None:
            return row
        least = least_seconds(cost, work_at(works, row.steps), row.checkpoints, device.hardware)
        price = device.price_per_hour
        spent = None if least is None or price is None else A_THOUSAND * least * price / 3600
        return dataclasses.replace(row, least_seconds=least, least_cost=spent, currency=device.currency)

    return dataclasses.replace(plan, rows=tuple(map(bounded, plan.rows)))
