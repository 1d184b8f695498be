"""A measurement as one flat row of named columns, and back: what the store, the tables and the page agree on.

`COLUMNS` is the one place that names the columns, their kind, their unit and their meaning. A flat row maps column
names to plain Python values; mappings and lists stay mappings and lists here, and each file format writes them in its
own way.
"""

import dataclasses
import datetime as dt
import enum
from collections.abc import Mapping
from typing import Any

from profiles.errors import RecordError
from profiles.records.records import DeviceKey, Measurement, ProblemKey, Tier
from profiles.records.values import stored_values


class Kind(enum.StrEnum):
    """What a column holds. `NUMBER` is an int or a float and keeps which; all kinds but text may be None."""

    TEXT = "text"
    INTEGER = "integer"
    REAL = "real"
    NUMBER = "number"
    BOOLEAN = "boolean"
    REALS = "reals"
    MAPPING = "mapping"
    TIME = "time"


@dataclasses.dataclass(frozen=True, slots=True)
class Column:
    """One column: its name, kind, unit (empty where there is none) and meaning."""

    name: str
    kind: Kind
    unit: str
    meaning: str


COLUMNS = (
    Column("key", Kind.TEXT, "", "unique key of the row, derived from study, problem, device and parameters"),
    Column("study", Kind.TEXT, "", "study that measured the row"),
    Column("problem_name", Kind.TEXT, "", "what people call the problem, FILE:factory"),
    Column("problem_fingerprint", Kind.TEXT, "", "digest of the problem's name and components"),
    Column("problem_components", Kind.MAPPING, "", "the problem's components by name"),
    Column("device_platform", Kind.TEXT, "", "cpu, gpu or tpu"),
    Column("device_kind", Kind.TEXT, "", "the device's model, as its backend names it"),
    Column("device_count", Kind.INTEGER, "devices", "devices that the call ran on"),
    Column("device_memory_bytes", Kind.INTEGER, "bytes", "the device's total memory, empty where unknown"),
    Column("device_planned", Kind.BOOLEAN, "", "whether the device was not there: compiled for it, and not run"),
    Column("adjoint", Kind.TEXT, "", "ours or diffrax"),
    Column("checkpoints", Kind.INTEGER, "states", "states held at once, the initial state included"),
    Column("horizon", Kind.NUMBER, "", "end time or number of steps, as swept; empty where the factory takes none"),
    Column("tolerance", Kind.REAL, "", "relative tolerance, as swept; empty where the factory takes none"),
    Column("set_values", Kind.MAPPING, "", "values of --set by key"),
    Column("x64", Kind.BOOLEAN, "", "whether 64-bit types were enabled"),
    Column("xla_flags", Kind.TEXT, "", "XLA_FLAGS of the process that measured"),
    Column("allocator", Kind.TEXT, "", "allocator settings of that process"),
    Column("mesh", Kind.TEXT, "", "how the call was sharded, empty for one device"),
    Column("repeat", Kind.INTEGER, "", "number of the repeat at this point, from 0"),
    Column("expected_steps", Kind.INTEGER, "steps", "predicted steps given to the adjoint, empty for none"),
    Column("tier", Kind.TEXT, "", "host or disk: the slower memory that held first states of windows; empty for none"),
    Column("windows", Kind.INTEGER, "states", "states that it might hold"),
    Column("transfer_cost", Kind.REAL, "steps", "handing over and fetching one of them, in steps"),
    Column("steps", Kind.INTEGER, "steps", "passes of the loop body in the forward solve"),
    Column("accepted", Kind.INTEGER, "steps", "accepted steps"),
    Column("rejected", Kind.INTEGER, "steps", "rejected steps"),
    Column("executed_steps", Kind.INTEGER, "steps", "all passes: first sweep, recomputation and reversal"),
    Column("recompute_factor", Kind.REAL, "executed/steps", "executed steps over steps; 2 when all is stored"),
    Column("temp_bytes", Kind.INTEGER, "bytes", "compiled temporary buffers"),
    Column("argument_bytes", Kind.INTEGER, "bytes", "compiled arguments"),
    Column("output_bytes", Kind.INTEGER, "bytes", "compiled outputs"),
    Column("alias_bytes", Kind.INTEGER, "bytes", "outputs that share memory with arguments"),
    Column("constant_bytes", Kind.INTEGER, "bytes", "arrays that the function closes over"),
    Column("compiled_bytes", Kind.INTEGER, "bytes", "compiled total: all of the above, aliases once"),
    Column("host_bytes", Kind.INTEGER, "bytes", "compiled buffers in host memory, beside the device's"),
    Column("compiled_peak_bytes", Kind.INTEGER, "bytes", "the compiler's own peak of the program, where it states one"),
    Column("run_bytes", Kind.INTEGER, "bytes", "peak while running, empty where the backend does not report it"),
    Column("peak_bytes", Kind.INTEGER, "bytes", "the larger of the compiled and the run-time figure"),
    Column("peak_source", Kind.TEXT, "", "traced, compiled or run: where peak_bytes comes from"),
    Column("trace_seconds", Kind.REAL, "s", "time to trace"),
    Column("compile_seconds", Kind.REAL, "s", "time to compile"),
    Column("run_seconds", Kind.REALS, "s", "every timed call"),
    Column("status", Kind.TEXT, "", "ok, out_of_memory, timed_out, failed or not_finite"),
    Column("message", Kind.TEXT, "", "what was said when it did not end well"),
    Column("versions", Kind.MAPPING, "", "versions of jax, jaxlib, equinox, diffrax and ckpt-tune"),
    Column("host", Kind.TEXT, "", "host that measured"),
    Column("seed", Kind.INTEGER, "", "seed of the trial"),
    Column("measured_at", Kind.TIME, "UTC", "when the row was measured"),
)
"""Every column of a measurement, in the order in which tables and files show them."""

NULLABLE_TEXT = frozenset({"peak_source"})
"""Text columns whose empty value means unknown."""

DERIVED = frozenset({"key", "problem_fingerprint"})
"""Columns that follow from the others."""

ADDED = {
    "tier": "", "windows": None, "transfer_cost": None,
    "device_planned": False, "host_bytes": None, "compiled_peak_bytes": None,
}  # fmt: skip
"""Columns that came later, and what they hold in a file that was written before."""

_NESTED = {
    "problem_name", "problem_fingerprint", "problem_components", "device_platform", "device_kind", "device_count",
    "device_memory_bytes", "device_planned", "key", "tier", "windows", "transfer_cost",
}  # fmt: skip
"""Columns that are no field of a measurement; every other column is one, by its name."""
_PLAIN = tuple(column.name for column in COLUMNS if column.name not in _NESTED)


def flatten(row: Measurement) -> dict[str, Any]:
    """Spread a measurement over the columns, in their order.

    Enumerations become their text, the time stays a `datetime` in UTC, samples become a list, mappings stay mappings.
    """
    values: dict[str, Any] = {name: getattr(row, name) for name in _PLAIN}
    values |= {
        "key": row.key,
        "problem_name": row.problem.name,
        "problem_fingerprint": row.problem.fingerprint,
        "problem_components": dict(row.problem.components),
        "device_platform": row.device.platform,
        "device_kind": row.device.kind,
        "device_count": row.device.count,
        "device_memory_bytes": row.device.memory_bytes,
        "device_planned": row.device.planned,
        "adjoint": str(row.adjoint),
        "status": str(row.status),
        "peak_source": None if row.peak_source is None else str(row.peak_source),
        "run_seconds": list(row.run_seconds),
        "set_values": stored_values(row.set_values),
        "tier": row.tier.name if row.tier else "",
        "windows": row.tier.windows if row.tier else None,
        "transfer_cost": row.tier.transfer_cost if row.tier else None,
        "versions": dict(row.versions),
    }
    return {column.name: values[column.name] for column in COLUMNS}


def unflatten(values: Mapping[str, Any]) -> Measurement:
    """Bring a flat row back to the measurement that it was. Derived columns (key, fingerprint) are not read.

    Raises:
        RecordError: a column is missing or holds what it cannot.
    """
    values = {**ADDED, **values}
    missing = [column.name for column in COLUMNS if column.name not in values and column.name not in DERIVED]
    if missing:
        raise RecordError(f"a measurement needs all {len(COLUMNS)} columns, found none named {', '.join(missing)}")
    try:
        return Measurement(
            problem=ProblemKey(name=values["problem_name"], components=values["problem_components"]),
            device=DeviceKey(
                platform=values["device_platform"],
                kind=values["device_kind"],
                count=values["device_count"],
                memory_bytes=values["device_memory_bytes"],
                planned=bool(values["device_planned"]),
            ),
            tier=_tier(values),
            **{name: values[name] for name in _PLAIN},
        )
    except RecordError:
        raise
    except (TypeError, ValueError, AttributeError, OverflowError, KeyError, RecursionError) as error:
        raise RecordError(f"not a measurement: {error}") from error


def checked(row: Measurement) -> Measurement:
    """Give a row back that may have been measured, and refuse one that cannot: what comes from a file is anybody's.

    Raises:
        RecordError: it held no state, took no or negative time, or was measured before 1970.
    """
    seconds = (*row.run_seconds, *(s for s in (row.trace_seconds, row.compile_seconds) if s is not None))
    if row.checkpoints < 1:
        raise RecordError(f"checkpoints must be at least 1, found {row.checkpoints}")
    if any(sample <= 0 for sample in row.run_seconds) or any(sample < 0 for sample in seconds):
        raise RecordError(f"a call takes more than 0 seconds, found {min(seconds):g}")
    if row.recompute_factor is not None and row.recompute_factor <= 0:
        raise RecordError(f"recompute_factor is above 0, or unknown, found {row.recompute_factor:g}")
    if not 1970 <= row.measured_at.year < 9000:
        raise RecordError(f"measured_at must be from 1970 on, found {row.measured_at.isoformat()}")
    return row


def _tier(values: Mapping[str, Any]) -> Tier | None:
    if not values["tier"]:
        return None
    return Tier(name=values["tier"], windows=values["windows"], transfer_cost=values["transfer_cost"])


def time_text(moment: dt.datetime) -> str:
    """Write a time as ISO 8601 in UTC with microseconds, so that texts sort as times do."""
    return moment.astimezone(dt.UTC).isoformat(timespec="microseconds")


def time_of(text: str) -> dt.datetime:
    """Read what `time_text` wrote.

    Raises:
        RecordError: the text is not a time with a zone.
    """
    try:
        moment = dt.datetime.fromisoformat(text)
    except ValueError as error:
        raise RecordError(f"a time must be ISO 8601 with its zone, found {text!r}") from error
    if moment.tzinfo is None:
        raise RecordError(f"a time must name its zone, found {text!r}")
    return moment
