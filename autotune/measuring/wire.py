"""Records as JSON values and back, for the lines between a runner and its worker. Plain values, no jax."""

import dataclasses
import datetime as dt
import json
from collections.abc import Mapping
from typing import Any

from autotune.machine.device import DeviceInfo, LiveBuffer, OtherProcess
from autotune.machine.host import HostMemory
from autotune.machine.targets import Target
from autotune.measuring.trial import KeyPlace, Rung, RunSettings, Trial
from profiles import AdjointName, DeviceKey, Measurement, PeakSource, ProblemKey, Status, Tier, read_values


def encode(record: Any) -> dict[str, Any]:
    """Turn a record into JSON-serialisable values."""
    return json.loads(json.dumps(_plain(record)))


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, dt.datetime):
        return value.isoformat()
    return value


def _maybe(kind: Any, value: Any) -> Any:
    return None if value is None else kind(value)


def decode_trial(values: Mapping[str, Any]) -> Trial:
    """Read a trial back."""
    made = dict(values)
    made["adjoint"] = AdjointName(made["adjoint"])
    made["rung"] = Rung(made["rung"])
    settings = dict(made["settings"])
    if target := settings["target"]:
        settings["target"] = Target(**{**target, "kinds": tuple(target["kinds"])})
    made["settings"] = RunSettings(**settings)
    made["key"] = _maybe(decode_problem_key, made["key"])
    made["set_values"] = read_values(made["set_values"])
    made["key_place"] = _maybe(lambda place: KeyPlace(**place), made["key_place"])
    made["device"] = _maybe(lambda key: DeviceKey(**key), made["device"])
    made["tier"] = _maybe(lambda tier: Tier(**tier), made["tier"])
    return Trial(**made)


def decode_problem_key(values: Mapping[str, Any]) -> ProblemKey:
    """Read a problem's key back."""
    return ProblemKey(**values)


def decode_measurement(values: Mapping[str, Any]) -> Measurement:
    """Read a row back."""
    made = dict(values)
    made["problem"] = decode_problem_key(made["problem"])
    made["device"] = DeviceKey(**made["device"])
    made["adjoint"] = AdjointName(made["adjoint"])
    made["tier"] = _maybe(lambda tier: Tier(**tier), made["tier"])
    made["status"] = Status(made["status"])
    made["peak_source"] = _maybe(PeakSource, made["peak_source"])
    made["run_seconds"] = tuple(made["run_seconds"])
    made["measured_at"] = dt.datetime.fromisoformat(made["measured_at"])
    return Measurement(**made)


def decode_device_info(values: Mapping[str, Any]) -> DeviceInfo:
    """Read a device back."""
    made = dict(values)
    made["live_buffers"] = tuple(LiveBuffer(**{**b, "shape": tuple(b["shape"])}) for b in made["live_buffers"])
    made["other_processes"] = tuple(OtherProcess(**process) for process in made["other_processes"])
    made["host"] = HostMemory(**made["host"])
    made["unknown"] = tuple(made["unknown"])
    return DeviceInfo(**made)
