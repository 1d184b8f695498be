"""A fake machine that also answers what has to be known before a tune, and a progress that keeps what it hears."""

import dataclasses
from collections.abc import Sequence

from autotune.adjoints import Work, passes
from autotune.machine.device import DeviceInfo
from autotune.machine.host import host_memory
from autotune.machine.tiers import TierRequest
from autotune.measuring.runners import ProbeRequest
from autotune.measuring.trial import Trial
from autotune.model.cells import Cell, scalar_items
from autotune.problem.costs import PassCost, StepCosts
from autotune.problem.steps import Observation, SiteSteps
from profiles import AdjointName, Case, Measurement, ProblemKey, Tier
from tests.autotune.fake_machine import DEVICE, PROBLEM, FakeMachine


@dataclasses.dataclass
class FakeLab(FakeMachine):
    """A machine of arithmetic with a device and a problem."""

    key: ProblemKey = PROBLEM
    observed: int = 0
    counted: int = 0

    def device_info(self) -> DeviceInfo:
        """Describe the fake device."""
        return DeviceInfo(
            platform=DEVICE.platform, kind=DEVICE.kind, index=0, count=1, total_bytes=DEVICE.memory_bytes,
            limit_bytes=DEVICE.memory_bytes, in_use_bytes=None, free_bytes=DEVICE.memory_bytes, host=host_memory(),
        )  # fmt: skip

    def problem_key(self, question: ProbeRequest) -> ProblemKey:
        """Give the fake problem's key."""
        return self.key

    def observe_all(self, questions: Sequence[ProbeRequest]) -> list[Observation]:
        """Count the fake problem's steps."""
        return [self._observe(question) for question in questions]

    def step_costs(self, question: ProbeRequest) -> StepCosts | None:
        """Count the fake problem's operations: a thousand for a step, three times as many to reverse one."""
        self.counted += 1
        step = PassCost(flops=1000.0)
        return StepCosts(advance=step, replay=step, reversal=PassCost(flops=3000.0))

    def tier(self, question: TierRequest) -> Tier:
        """Take a transfer to cost as much as one step."""
        return Tier(name=question.name, windows=question.windows, transfer_cost=1.0)

    def _observe(self, question: ProbeRequest) -> Observation:
        self.observed += 1
        case = Case(question.horizon, question.tolerance, scalar_items(question.set_values))
        site = SiteSteps(site="fake.py:1", steps=(self.steps(Cell(case)),))
        return Observation(
            horizon=question.horizon, tolerance=question.tolerance, sites=(site,), repeats=1, differentiated=True
        )


class Heard:
    """Keeps what a tune says."""

    def __init__(self) -> None:
        """Keep nothing yet."""
        self.lines: list[str] = []
        self.rows: list[Measurement] = []
        self.batches: list[list[Trial]] = []

    def say(self, text: str) -> None:
        """Keep a line."""
        self.lines.append(text)

    note = say

    def expect(self, trials: int, seconds: float | None) -> None:
        """Hear how much is left."""

    def started(self, trials: Sequence[Trial]) -> None:
        """Keep a batch."""
        self.batches.append(list(trials))

    def finished(self, measurement: Measurement) -> None:
        """Keep a row."""
        self.rows.append(measurement)


def lab(name: AdjointName = AdjointName.OURS, **changes: object) -> FakeLab:
    """A lab whose problem takes 100 steps per unit of horizon, 1 MB and 100 kB per checkpoint."""

    def steps(cell: Cell) -> int:
        return int(100 * (cell.case.horizon or 10))

    def seconds(cell: Cell, checkpoints: int) -> float:
        advances, taped = passes(name, Work(steps=steps(cell), reversed_steps=steps(cell)), checkpoints, cell.tier)
        return 1e-3 + 2e-5 * advances + 1e-4 * taped

    made = FakeLab(steps=steps, peak_bytes=lambda cell, count: 1_000_000 + 100_000 * count, seconds=seconds)
    return dataclasses.replace(made, **changes)


class Rejects(FakeLab):
    """A lab whose solve rejects a fifth of its steps, and leaves them out from 20 checkpoints on."""

    def _observe(self, question: ProbeRequest) -> Observation:
        seen = super()._observe(question)
        solve = SiteSteps(site="a", steps=(1000,), accepted=(800,), rejected=(200,), max_steps=4096, accepted_from=20)
        return dataclasses.replace(seen, sites=(solve,))


def rejecting_lab() -> Rejects:
    """Make a lab that rejects steps, with the bytes and seconds of any other."""
    base = lab()
    return Rejects(base.steps, base.peak_bytes, base.seconds)
