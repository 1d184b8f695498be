"""The records that cross module boundaries: keys, measurements, cases, profiles.

Everything here is a frozen dataclass of plain Python values, so a record can be printed, stored, compared, or made by
hand in a test. This package never imports jax. Units are in the names: `*_bytes` are bytes, `*_seconds` seconds.
"""

import dataclasses
import datetime as dt
import enum
import math
import operator
import statistics
from collections.abc import Iterable, Mapping
from typing import Any

from profiles.errors import RecordError
from profiles.records.keys import SWEPT_COMPONENTS as SWEPT_COMPONENTS
from profiles.records.keys import DeviceKey as DeviceKey
from profiles.records.keys import ProblemKey as ProblemKey
from profiles.records.keys import digest as digest
from profiles.records.keys import integer, sorted_mapping
from profiles.records.shown import ShownProfile
from profiles.records.values import Scalar as Scalar
from profiles.records.values import clean_text, read_value


class Status(enum.StrEnum):
    """How a trial ended. Anything but `OK` is a row too: a failure says something about the device."""

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


def _real(name: str, value: Any) -> float:
    """Read a finite figure as a plain float."""
    number = float(value) + 0.0  # minus zero becomes zero: SQLite would make it so on the way
    if not math.isfinite(number):
        raise RecordError(f"{name} must be finite, found {number}; unknown is None")
    return number


def _horizon(value: Any) -> int | float:
    """Read a horizon as a plain int or float, whichever it is: a factory may treat 100 and 100. differently."""
    try:
        number = operator.index(value)
    except TypeError:
        return _real("horizon", value)
    if abs(number) > 2**53:
        raise RecordError(f"horizon must be at most 2**53 in size to differ from its neighbours, found {number}")
    return number


def _short(value: float) -> str:
    """Write a tolerance as people do: 1e-3, 0.05."""
    if 0.01 <= abs(value) < 1000 or value == 0:
        return f"{value:g}"
    mantissa, _, exponent = f"{value:e}".partition("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Tier:
    """A slower memory that holds the first states of windows while the device reverses another one.

    `name` is `host` or `disk`, `windows` the number of states that it may hold, `transfer_cost` the seconds of handing
    over and fetching one state over those of one step. Its directory is the business of the host that measures.

    Raises:
        RecordError: no state can be held, or the cost is not a finite number of steps.
    """

    name: str
    windows: int
    transfer_cost: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", clean_text(self.name))
        object.__setattr__(self, "windows", integer("windows", self.windows))
        object.__setattr__(self, "transfer_cost", _real("transfer_cost", self.transfer_cost))
        if not self.name or not self.windows or self.transfer_cost < 0:
            raise RecordError(f"a tier has a name, at least 1 window and a cost of at least 0 steps, found {self!r}")

    def __str__(self) -> str:
        return f"{self.name}, {self.windows} window{'s' if self.windows > 1 else ''}"


@dataclasses.dataclass(frozen=True, slots=True)
class Case:
    """What decides the result of a call, and so which rows may be compared with each other.

    Rows of one case differ only in what is free to choose: checkpoints, expected steps, tier, XLA flags, allocator.
    `set_values` are (key, value) pairs sorted by key, so that a case can be a dictionary's key.
    """

    horizon: int | float | None = None
    tolerance: float | None = None
    set_values: tuple[tuple[str, Scalar], ...] = ()
    x64: bool = False
    mesh: str = ""

    @property
    def order(self) -> tuple[Any, ...]:
        """A sort key: None first, then by horizon, tolerance, and the rest by its text."""
        horizon = (self.horizon is not None, self.horizon or 0)
        tolerance = (self.tolerance is not None, self.tolerance or 0.0)
        return horizon, tolerance, repr(self.set_values), self.x64, self.mesh

    def __str__(self) -> str:
        parts = [] if self.horizon is None else [f"horizon {self.horizon}"]
        parts += [] if self.tolerance is None else [f"tolerance {_short(self.tolerance)}"]
        parts += [f"{key}={value}" for key, value in self.set_values]
        parts += ["x64"] if self.x64 else []
        parts += [f"mesh {self.mesh}"] if self.mesh else []
        return ", ".join(parts) or "the only case"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """Where a trial stands in the space that is searched: the only list of what can be varied.

    What is requested, measured and stored are points with more beside them: `Measurement`, and the trials of a tuner.
    A dimension of the space is one field here and, for the store, its column in `profiles.COLUMNS`.

    `checkpoints` and `expected_steps` go to the adjoint, as `tier` does; `horizon`, `tolerance` and `set_values` to the
    problem; `x64` and `xla_flags` to the process. `mesh` is how the call was sharded, `repeat` numbers measurements.

    Raises:
        RecordError: a count is negative or beyond 64 bits, or a figure is not finite.
    """

    checkpoints: int
    horizon: int | float | None = None
    tolerance: float | None = None
    set_values: Mapping[str, Scalar] = dataclasses.field(default_factory=dict)
    x64: bool = False
    xla_flags: str = ""
    mesh: str = ""
    expected_steps: int | None = None
    tier: Tier | None = None
    repeat: int = 0

    def __post_init__(self) -> None:
        set_field = object.__setattr__
        for name in ("xla_flags", "mesh"):
            set_field(self, name, clean_text(getattr(self, name)))
        for name in ("checkpoints", "expected_steps", "repeat"):
            if getattr(self, name) is not None:
                set_field(self, name, integer(name, getattr(self, name)))
        if self.tolerance is not None:
            set_field(self, "tolerance", _real("tolerance", self.tolerance))
        if self.horizon is not None:
            set_field(self, "horizon", _horizon(self.horizon))
        set_field(self, "x64", bool(self.x64))
        set_field(self, "set_values", sorted_mapping(self.set_values, read_value))

    @property
    def case(self) -> Case:
        """What this point may be compared within."""
        return Case(self.horizon, self.tolerance, tuple(sorted(self.set_values.items())), self.x64, self.mesh)

    def coordinates(self) -> dict[str, Any]:
        """Give the point's own fields by name, without what a subclass adds: to make another record at this point."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(Point)}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Measurement(Point):
    """One trial of one problem at one point, however it ended.

    `steps` are passes of the loop body in the forward solve (the largest over vmap lanes and call sites), of which
    `accepted` were accepted and `rejected` were not; `executed_steps` are all passes, first sweep, recomputation and
    reversal; `recompute_factor` is `executed_steps / steps`. `peak_bytes` is the larger of the compiled and the
    run-time figure and `peak_source` says which. None means unknown, never zero. `measured_at` must know its time
    zone and is kept in UTC.

    Values are brought to plain Python types as the record is made (numpy's scalars, mappings, lists), so that a row
    read back from any store or file equals the row that was written.

    Raises:
        RecordError: a count is negative or beyond 64 bits, a figure is not finite, or the time has no zone.
    """

    study: str
    problem: ProblemKey
    device: DeviceKey
    adjoint: AdjointName
    allocator: str = ""
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
    host_bytes: int | None = None
    compiled_peak_bytes: int | None = None
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

    def __post_init__(self) -> None:
        Point.__post_init__(self)  # super() does not find its class where slots made it anew
        set_field = object.__setattr__
        for name in ("study", "allocator", "message", "host"):
            set_field(self, name, clean_text(getattr(self, name)))
        for name, kind in _ENUM_FIELDS.items():
            if getattr(self, name) is not None:
                set_field(self, name, kind(getattr(self, name)))
        for name in _COUNT_FIELDS:
            if getattr(self, name) is not None:
                set_field(self, name, integer(name, getattr(self, name)))
        for name in ("recompute_factor", "trace_seconds", "compile_seconds"):
            if getattr(self, name) is not None:
                set_field(self, name, _real(name, getattr(self, name)))
        if self.seed is not None:
            set_field(self, "seed", operator.index(self.seed))
            if not -(2**63) <= self.seed < 2**63:
                raise RecordError(f"seed must be within 64 bits, found {self.seed}")
        set_field(self, "run_seconds", tuple(_real("run_seconds", sample) for sample in self.run_seconds))
        set_field(self, "versions", sorted_mapping(self.versions, clean_text))
        if self.measured_at.tzinfo is None:
            raise RecordError(f"measured_at must know its time zone, found {self.measured_at.isoformat()}")
        try:
            set_field(self, "measured_at", self.measured_at.astimezone(dt.UTC))
        except OverflowError:
            raise RecordError(f"measured_at is beyond the calendar: {self.measured_at.isoformat()}") from None

    @property
    def key(self) -> str:
        """The unique key of a row: study, problem, device, every swept parameter, and the repeat."""
        return digest([
            self.study, self.problem.fingerprint, self.device.fingerprint, str(self.adjoint), self.checkpoints,
            self.horizon, self.tolerance, dict(self.set_values), self.x64, self.xla_flags, self.allocator, self.mesh,
            self.expected_steps, self.repeat, *([] if self.tier is None else [dataclasses.astuple(self.tier)]),
        ])  # fmt: skip

    @property
    def run_median_seconds(self) -> float | None:
        """The median of the timed calls, None where nothing was timed."""
        return statistics.median(self.run_seconds) if self.run_seconds else None


_ENUM_FIELDS = {"adjoint": AdjointName, "status": Status, "peak_source": PeakSource}
_COUNT_FIELDS = (
    "steps", "accepted", "rejected", "executed_steps", "temp_bytes",
    "argument_bytes", "output_bytes", "alias_bytes", "constant_bytes", "compiled_bytes", "host_bytes",
    "compiled_peak_bytes", "run_bytes", "peak_bytes",
)  # fmt: skip


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Profile(ShownProfile):
    """All that was measured of one problem, in one state of its code, on one kind of device, with one adjoint.

    `name` is the label that a person gave it, else the problem's name. `measurements` are every row, failures
    included, oldest first; there is at least one.

    Raises:
        RecordError: there is no measurement.
    """

    name: str
    measurements: tuple[Measurement, ...]
    _by_case: dict[Case, list[Measurement]] = dataclasses.field(
        init=False, repr=False, compare=False, hash=False, default_factory=dict
    )

    def __post_init__(self) -> None:
        if not self.measurements:
            raise RecordError(f"profile {self.name!r} must hold at least one measurement, found none")
        object.__setattr__(self, "measurements", tuple(in_order(self.measurements)))

    @property
    def newest(self) -> Measurement:
        """The row that was measured last."""
        return self.measurements[-1]

    @property
    def problem(self) -> ProblemKey:
        """The problem as it was last measured."""
        return self.newest.problem

    @property
    def device(self) -> DeviceKey:
        """The device as it was last seen."""
        return self.newest.device

    @property
    def adjoint(self) -> AdjointName:
        """Whose adjoint was measured."""
        return self.newest.adjoint

    @property
    def id(self) -> str:
        """Sixteen digits that no other profile has, the same on every machine."""
        return profile_id(self.newest)

    @property
    def qualified_name(self) -> str:
        """The name that is never ambiguous: `name@kind:adjoint#id`."""
        return f"{self.name}@{self.device.label}:{self.adjoint}#{self.id[:8]}"

    @property
    def cases(self) -> tuple[Case, ...]:
        """The cases that were measured, by horizon, tolerance and `--set` values."""
        return tuple(sorted(self._cases(), key=lambda case: case.order))

    def _cases(self) -> dict[Case, list[Measurement]]:
        """Sort the rows by their cases, once: a large profile is asked for them again and again."""
        if not self._by_case:
            for row in self.measurements:
                self._by_case.setdefault(row.case, []).append(row)
        return self._by_case

    def rows(self, case: Case) -> tuple[Measurement, ...]:
        """List the rows of one case that belong to the newest state of its code, oldest first.

        Rows of an older fingerprint stay in `measurements`, and are not compared with newer ones.
        """
        rows = self._cases().get(case, [])
        newest = rows[-1].problem if rows else None
        return tuple(row for row in rows if row.problem is newest or row.problem == newest)


def in_order(rows: Iterable[Measurement]) -> list[Measurement]:
    """Sort rows by when they were measured, and rows of one moment by their keys."""
    moments: dict[dt.datetime, list[Measurement]] = {}
    for row in rows:
        moments.setdefault(row.measured_at, []).append(row)
    ordered = (moments[moment] for moment in sorted(moments))
    return [row for same in ordered for row in (sorted(same, key=lambda row: row.key) if len(same) > 1 else same)]


def profile_id(row: Measurement) -> str:
    """Digest what puts rows into one profile: the problem's generation, the device and the adjoint."""
    return profile_key(row.problem, row.device, row.adjoint)


def profile_key(problem: ProblemKey, device: DeviceKey, adjoint: AdjointName) -> str:
    """Digest what one profile holds the measurements of."""
    return digest([problem.generation, device.fingerprint, str(adjoint)])
