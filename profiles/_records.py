"""The records that cross module boundaries: keys, measurements, profiles, and the errors of this package.

Everything here is a frozen dataclass of plain Python values, so a record can be printed, stored, compared, or made by
hand in a test. This package never imports jax. Units are in the names: `*_bytes` are bytes, `*_seconds` seconds.
"""

import dataclasses
import datetime as dt
import enum
import hashlib
import json
from collections.abc import Mapping
from typing import Any

Scalar = bool | int | float | str
"""What a swept `--set` value may be."""


class ProfilesError(Exception):
    """Base of every error that this package raises for the user to mend; its text is one clear line."""


class Status(enum.StrEnum):
    """How a trial ended. Anything but `OK` is a row too: a failure is a fact about the device."""

    OK = "ok"
    OUT_OF_MEMORY = "out_of_memory"
    TIMED_OUT = "timed_out"
    FAILED = "failed"
    NOT_FINITE = "not_finite"


class PeakSource(enum.StrEnum):
    """Which rung of the probe the peak of a row comes from."""

    TRACED = "traced"
    COMPILED = "compiled"
    RUN = "run"


class AdjointName(enum.StrEnum):
    """Whose adjoint a row was measured with."""

    OURS = "ours"
    DIFFRAX = "diffrax"


def digest(value: Any) -> str:
    """Hash a JSON-serialisable value to 16 hexadecimal digits, independent of the order of mapping keys."""
    text = json.dumps(value, sort_keys=True, default=str, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ProblemKey:
    """Which problem was measured, by named components so that a mismatch can be explained to a person.

    `name` is what people call it (`spirals:make`); `components` maps a component's name (`program`, `source`, `set`,
    `shapes`, `x64`) to its digest or short text. Two keys are the same problem when their components are equal.
    """

    name: str
    components: Mapping[str, str]

    @property
    def fingerprint(self) -> str:
        """One digest of name and components, to index by; show people `components` instead."""
        return digest([self.name, dict(self.components)])


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DeviceKey:
    """On what device a row was measured. `memory_bytes` is the device's total, None where the backend cannot tell."""

    platform: str
    kind: str
    count: int = 1
    memory_bytes: int | None = None

    @property
    def fingerprint(self) -> str:
        """One digest of platform, kind and count; memory is left out since its reading may differ by a few pages."""
        return digest([self.platform, self.kind, self.count])


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One trial of one problem at one point, however it ended.

    `steps` are passes of the loop body in the forward solve (the largest over vmap lanes and call sites), of which
    `accepted` were accepted and `rejected` were not; `executed_steps` are all passes, first sweep, recomputation and
    reversal; `recompute_factor` is `executed_steps / steps`. `peak_bytes` is the larger of the compiled and the
    run-time figure and `peak_source` says which. None means unknown, never zero.
    """

    study: str
    problem: ProblemKey
    device: DeviceKey
    adjoint: AdjointName
    checkpoints: int
    horizon: int | float | None = None
    tolerance: float | None = None
    set_values: Mapping[str, Scalar] = dataclasses.field(default_factory=dict)
    x64: bool = False
    xla_flags: str = ""
    allocator: str = ""
    mesh: str = ""
    repeat: int = 0
    expected_steps: int | None = None
    steps: int | None = None
    accepted: int | None = None
    rejected: int | None = None
    executed_steps: int | None = None
    recompute_factor: float | None = None
    temp_bytes: int | None = None
    argument_bytes: int | None = None
    output_bytes: int | None = None
    alias_bytes: int | None = None
    constant_bytes: int | None = None
    compiled_bytes: int | None = None
    run_bytes: int | None = None
    peak_bytes: int | None = None
    peak_source: PeakSource | None = None
    trace_seconds: float | None = None
    compile_seconds: float | None = None
    run_seconds: tuple[float, ...] = ()
    status: Status = Status.OK
    message: str = ""
    versions: Mapping[str, str] = dataclasses.field(default_factory=dict)
    host: str = ""
    seed: int | None = None
    measured_at: dt.datetime = dataclasses.field(default_factory=lambda: dt.datetime.now(dt.UTC))

    @property
    def key(self) -> str:
        """The unique key of a row: study, problem, device, every swept parameter, and the repeat."""
        return digest([
            self.study, self.problem.fingerprint, self.device.fingerprint, str(self.adjoint), self.checkpoints,
            self.horizon, self.tolerance, dict(self.set_values), self.x64, self.xla_flags, self.allocator, self.mesh,
            self.expected_steps, self.repeat,
        ])  # fmt: skip

    @property
    def run_median_seconds(self) -> float | None:
        """The median of the timed calls, None where nothing was timed."""
        if not self.run_seconds:
            return None
        ordered = sorted(self.run_seconds)
        middle = len(ordered) // 2
        return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
