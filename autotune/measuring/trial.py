"""A trial: one point to measure and the settings of the process that measures it. Plain values, no jax."""

import dataclasses
import enum
from collections.abc import Sequence
from typing import Protocol

from autotune.machine.targets import Target
from profiles import AdjointName, DeviceKey, Measurement, Point, ProblemKey


class Rung(enum.StrEnum):
    """How far a measurement goes: trace only, compile too, or run and time as well."""

    TRACED = "traced"
    COMPILED = "compiled"
    RUN = "run"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RunSettings:
    """What must be fixed before jax starts in the process that measures.

    `own_environment` runs the trial under the user's settings as they are (the final verification); otherwise the
    worker sets EQX_ON_ERROR=nan and the allocator settings. `memory_limit_bytes` is set as RLIMIT_AS (Linux). With a
    `target` the process compiles for that device, which is not here, and runs nothing on any other.
    """

    platform: str | None = None
    device: int = 0
    x64: bool = False
    xla_flags: str = ""
    timeout_seconds: float | None = None
    memory_limit_bytes: int | None = None
    own_environment: bool = False
    target: Target | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class KeyPlace:
    """Where in its sweep a problem's key was taken; whoever loads the problem takes it there again and compares."""

    horizon: int | float | None = None
    tolerance: float | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Trial(Point):
    """One point of the space, to be measured. `problem` is the command line's `FILE.py:factory` or `module:factory`.

    A trial on the run rung whose compiled bytes exceed `run_within_bytes` is compiled only: it could not be chosen, so
    running it would be in vain.

    `directory` is where the file of a disk tier lies on the host that measures.

    `key_place` is where `key` was taken: a worker process compares the key of what it loaded with it, and refuses to
    measure something else. None compares nothing.

    `settings` are those of the process; its flags and floats are the point's.

    `key`, `device` and the observed `steps`, `accepted`, `rejected` go into the row as they are; where a key is None
    the runner finds it out, which costs one trace, and steps that are None stay unknown. `reversed_steps` are those
    that the backward pass visits, all of `steps` where it is None.
    """

    study: str
    problem: str
    adjoint: AdjointName
    directory: str | None = None
    rung: Rung = Rung.RUN
    run_within_bytes: int | None = None
    rounds: int = 5
    seed: int = 0
    settings: RunSettings = dataclasses.field(default_factory=RunSettings)
    key: ProblemKey | None = None
    key_place: KeyPlace | None = None
    device: DeviceKey | None = None
    steps: int | None = None
    accepted: int | None = None
    rejected: int | None = None
    reversed_steps: int | None = None

    def __post_init__(self) -> None:
        Point.__post_init__(self)
        if (self.settings.x64 and not self.x64) or self.settings.xla_flags not in ("", self.xla_flags):
            raise ValueError(f"the process of a trial would have {self.settings}, and its point has not")
        settings = dataclasses.replace(self.settings, x64=self.x64, xla_flags=self.xla_flags)
        object.__setattr__(self, "settings", settings)

    def ends_compiled(self, compiled_bytes: int | None) -> bool:
        """Return whether the trial ends once it is compiled: its rung ends there, or it is too large to be run."""
        limit = self.run_within_bytes
        too_large = limit is not None and compiled_bytes is not None and compiled_bytes > limit
        return self.rung is Rung.COMPILED or too_large


class Runner(Protocol):
    """Who executes trials: in this process, in worker processes, or from a recorded sweep."""

    def run(self, trials: Sequence[Trial]) -> list[Measurement]:
        """Measure the trials, timed calls shuffled and interleaved between them.

        One row per trial, in their order; never raises for a trial that fails: its status says how.
        """
        ...

    def close(self) -> None:
        """End whatever the runner started."""
        ...
