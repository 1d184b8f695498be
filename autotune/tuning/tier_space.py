"""The cells that tiers add to a space: how many states each tier holds within its budget, and what a transfer costs.

A tier holds whole states, so its budget becomes a number of windows once the bytes of a state are known: from two
measured counts, or from two traces. The cost of a transfer is measured on this host for a state of that size, and
divided by the seconds of one step. Both are noted in the store, so that a tune that goes on has the same cells.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence

from autotune.machine.tiers import TierBudget, TierRequest
from autotune.measuring.trial import Rung, Runner, Trial
from autotune.model.cells import Cell, Variant
from autotune.model.forecast import Forecast
from autotune.search.space import Space
from autotune.tuning.prepare import Machine, Prepared, Store
from profiles import Measurement, Status, Tier, digest, format_bytes

TIER_NOTE = "tier"
"""Kind of the notes that hold the size and the transfer cost of a tier, by problem, device and budget."""

TRACED_COUNTS = (8, 16)
"""The counts whose traces give the bytes of a state, where no two counts were measured."""


class TierSizes:
    """The sizes of the tiers that a tune is to try."""

    def __init__(
        self,
        prepared: Prepared,
        rows: Sequence[Measurement],
        store: Store,
        machine: Machine | None,
        say: Callable[[str], None],
    ) -> None:
        """Keep what sizing needs.

        Args:
            prepared: the tune.
            rows: what was measured without tiers.
            store: where sizes are noted.
            machine: who measures; None for a dry run, which knows only tiers that were sized before.
            say: called with one line about every tier.
        """
        self._prepared = prepared
        self._forecast = Forecast(rows, prepared.works, prepared.request.adjoint)
        self._store = store
        self._machine = machine
        self._say = say

    def add_to(self, space: Space) -> Space:
        """Add to a space its cells with each tier that holds a state.

        Programs with XLA flags stay without tiers where there is one without flags: each would be searched on its own.
        """
        cells = list(space.cells)
        plain = space.variants[0].xla_flags
        for variant in space.variants:
            for budget in self._prepared.request.tiers if variant.xla_flags == plain else ():
                tier = self._sized(budget, variant)
                cells += [dataclasses.replace(cell, tier=tier) for cell in space.of_variant(variant)] if tier else []
        return dataclasses.replace(space, cells=tuple(cells))

    def _sized(self, budget: TierBudget, variant: Variant) -> Tier | None:
        """Find how many states a tier holds within its budget and what a transfer costs; None where it holds none."""
        key = self._prepared.keys[variant.set_values]
        device = self._prepared.device.key.fingerprint
        note = digest([key.fingerprint, device, variant.xla_flags, dataclasses.astuple(budget)])
        known = self._store.get_note(TIER_NOTE, note)
        if known is not None and known["windows"] * known["state_bytes"] <= budget.free_bytes:
            return Tier(name=budget.name, windows=known["windows"], transfer_cost=known["transfer_cost"])
        if self._machine is None:
            self._say(f"tier {budget.name}: its trials follow once the bytes of a state are known")
            return None
        works = self._prepared.works
        cases = [cell.case for cell in self._prepared.space.of_variant(variant)]
        steps = max((works[case].steps for case in cases if case in works), default=0)
        state_bytes = self._forecast.state_bytes(variant) or self._traced_state_bytes(self._machine, variant)
        if not state_bytes or not steps:
            self._say(f"tier {budget.name}: not tried, since the steps or the bytes of a state are not known")
            return None
        free, size = budget.bytes_here(), format_bytes(state_bytes)
        windows = min(int(free // state_bytes), steps)
        if windows < 1:
            self._say(f"tier {budget.name}: not tried, since {format_bytes(free)} hold no state of {size}")
            return None
        tier = self._machine.tier(
            TierRequest(
                name=budget.name,
                windows=windows,
                state_bytes=math.ceil(state_bytes),
                step_seconds=self._forecast.step_seconds(variant),
                set_values=dict(variant.set_values),
                directory=budget.directory,
            )
        )
        held = {"windows": tier.windows, "transfer_cost": tier.transfer_cost, "state_bytes": math.ceil(state_bytes)}
        self._store.put_note(TIER_NOTE, note, {**held, "name": budget.name})
        cost = f"a transfer takes as long as {tier.transfer_cost:g} step{'' if tier.transfer_cost == 1 else 's'}"
        self._say(f"tier {budget.name}: up to {tier.windows} states of {size}; {cost}")
        return tier

    def _traced_state_bytes(self, machine: Machine, variant: Variant) -> float | None:
        prepared = self._prepared
        case = prepared.space.of_variant(variant)[0].case
        template = Trial(
            **Cell(case, variant.xla_flags).point(1).coordinates(),
            study=prepared.study,
            problem=prepared.problem,
            adjoint=prepared.request.adjoint,
            rung=Rung.TRACED,
            settings=prepared.request.settings,
            key=prepared.keys[case.set_values],
            key_place=prepared.key_place(case.set_values),
            device=prepared.device.key,
        )
        return _per_checkpoint_bytes(machine, template, TRACED_COUNTS)


def _per_checkpoint_bytes(runner: Runner, template: Trial, counts: Sequence[int]) -> float | None:
    """Learn the bytes per checkpoint from the traces of two counts, without a compile; None where a trace fails."""
    traced = runner.run([dataclasses.replace(template, checkpoints=c, rung=Rung.TRACED) for c in counts])
    peaks = [row.peak_bytes for row in traced if row.status is Status.OK]
    if len(peaks) < 2 or peaks[0] is None or peaks[-1] is None:
        return None
    return (peaks[-1] - peaks[0]) / (counts[-1] - counts[0])
