"""A machine of arithmetic: it answers trials from formulas, so that a search is tested in milliseconds."""

import dataclasses
import math
import random
from collections.abc import Callable, Sequence

from autotune.measuring.trial import Rung, Trial
from autotune.model.cells import Cell
from profiles import DeviceKey, Measurement, PeakSource, ProblemKey, Status

PROBLEM = ProblemKey(name="fake:make", components={"program": "p", "source": "s"})
DEVICE = DeviceKey(platform="cpu", kind="fake-cpu", memory_bytes=2**34)


@dataclasses.dataclass
class FakeMachine:
    """Runs trials by two formulas and keeps what it was asked, with the seconds that a real machine would have spent.

    `steps(cell)`, `peak_bytes(cell, checkpoints)` and `seconds(cell, checkpoints)` are the truth; `noise` is the
    standard deviation of one timing as a log ratio; counts that need more than `capacity_bytes` run out of memory.
    """

    steps: Callable[[Cell], int]
    peak_bytes: Callable[[Cell, int], float]
    seconds: Callable[[Cell, int], float]
    noise: float = 0.0
    capacity_bytes: float = math.inf
    compile_seconds: float = 4.0
    seed: int = 0
    asked: list[Trial] = dataclasses.field(default_factory=list)
    spent_seconds: float = 0.0
    closed: bool = False

    def run(self, trials: Sequence[Trial]) -> list[Measurement]:
        """Answer the trials."""
        return [self._one(trial) for trial in trials]

    def close(self) -> None:
        """Note that the runner was closed."""
        self.closed = True

    def _one(self, trial: Trial) -> Measurement:
        self.asked.append(trial)
        row = Measurement(
            study=trial.study,
            problem=trial.key or PROBLEM,
            device=trial.device or DEVICE,
            adjoint=trial.adjoint,
            checkpoints=trial.checkpoints,
            horizon=trial.horizon,
            tolerance=trial.tolerance,
            set_values=trial.set_values,
            x64=trial.settings.x64,
            xla_flags=trial.settings.xla_flags,
            expected_steps=trial.expected_steps,
            tier=trial.tier,
            repeat=trial.repeat,
            steps=trial.steps,
            versions={"jax": "0"},
        )
        cell = Cell(row.case, row.xla_flags, row.tier)
        peak = int(self.peak_bytes(cell, trial.checkpoints))
        self.spent_seconds += self.compile_seconds
        sized = dataclasses.replace(
            row,
            compiled_bytes=peak,
            peak_bytes=peak,
            peak_source=PeakSource.COMPILED,
            compile_seconds=self.compile_seconds,
            steps=self.steps(cell),
            accepted=self.steps(cell),
        )
        if trial.rung is not Rung.RUN or peak > (trial.run_within_bytes or math.inf):
            return sized
        if peak > self.capacity_bytes:
            return dataclasses.replace(sized, status=Status.OUT_OF_MEMORY, message="RESOURCE_EXHAUSTED: fake")
        draw = random.Random(f"{self.seed} {cell} {trial.checkpoints} {len(self.asked)}")
        truth = self.seconds(cell, trial.checkpoints)
        samples = tuple(truth * math.exp(draw.gauss(0, self.noise)) for _ in range(trial.rounds))
        self.spent_seconds += sum(samples)
        return dataclasses.replace(sized, run_seconds=samples)
