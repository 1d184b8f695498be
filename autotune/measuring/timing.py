"""Worker processes whose timings have their device to themselves, whatever else runs on the host. No jax."""

import contextlib
import dataclasses
import os
import re
import time
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from autotune.machine.device import DeviceInfo
from autotune.machine.lock import LOCK_SECONDS, Held, device_lock
from autotune.measuring.runners import ProbeRequest, SubprocessRunner
from autotune.measuring.trial import RunSettings, Trial
from autotune.measuring.wire import encode
from autotune.measuring.worker_process import WorkerProcess
from autotune.problem.costs import StepCosts, decode_costs

_VISIBLE = ("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES")
LEAST_SECONDS = 60.0
"""For so long a device is waited for, however short the time-out of trials is."""
_BUSY = ("compile", "key", "observe", "costs")
"""What keeps a CPU busy, and is never timed itself."""


class TimingLock:
    """Held while something is timed, or shared while something is compiled; knows its device once that was read."""

    def __init__(self, index: int, seconds: float | None = None) -> None:
        """Hold nothing until the device is known; `seconds` are how long to wait for one holder."""
        self._index = index
        self._seconds = LOCK_SECONDS if seconds is None else max(seconds, LEAST_SECONDS)
        self._device: DeviceInfo | None = None

    def know(self, device: DeviceInfo) -> None:
        """Take note of the device."""
        self._device = device

    def __call__(self, *, shared: bool = False) -> contextlib.AbstractContextManager[Held]:
        """Give the lock."""
        if self._device is None:
            return contextlib.nullcontext(Held())
        where = physical_index(self._device.platform, self._index, os.environ)
        return device_lock(self._device.key.fingerprint, index=where, shared=shared, seconds=self._seconds)


@dataclasses.dataclass(slots=True)
class Spent:
    """What the workers of a tune were busy with, in seconds, side by side where several were; grows as they work."""

    seconds: dict[str, float] = dataclasses.field(default_factory=dict)
    calls: dict[str, int] = dataclasses.field(default_factory=dict)
    processes: int = 0

    def add(self, op: str, seconds: float) -> None:
        """Add what one request to a worker took."""
        self.seconds[op] = self.seconds.get(op, 0.0) + seconds
        self.calls[op] = self.calls.get(op, 0) + 1

    def __str__(self) -> str:
        total = sum(self.seconds.values())
        parts = []
        for word, ops in _WORDS.items():
            seconds = sum(self.seconds.get(op, 0.0) for op in ops)
            parts.append(f"{seconds / total:.0%} {word}" if total else f"nothing {word}")
        compiles = self.calls.get("compile", 0)
        return f"{total:.0f} s in {self.processes} processes: {', '.join(parts)}; {compiles} compiles"


_WORDS = {
    "starting and counting": ("device", "key", "observe", "transfer", "drop", "start"),
    "compiling": ("compile",),
    "warming up": ("call",),
    "timing": ("time",),
}


class WorkerMachine(SubprocessRunner):
    """Worker processes that never time on one device at once, nor compile beside a timing, whoever started them."""

    def __init__(self, settings: RunSettings, *, search_path: Sequence[str] = ()) -> None:
        """Start nothing yet."""
        self._lock = TimingLock(settings.device, settings.timeout_seconds)
        self.spent = Spent()
        super().__init__(settings, search_path=search_path, timing_lock=self._lock)

    def device_info(self) -> DeviceInfo:
        """Read the device, which also names the lock."""
        info = super().device_info()
        self._lock.know(info)
        return info

    def step_costs(self, question: ProbeRequest) -> StepCosts | None:
        """Count in a worker what a step costs at least; see `autotune.problem.counting.step_costs`."""
        return decode_costs(self._probe("costs", **encode(question)))

    def _lock_for(self, op: str) -> contextlib.AbstractContextManager[Any]:
        return self._lock(shared=True) if op in _BUSY else super()._lock_for(op)

    def _probe(self, op: str, lane: int = 0, /, **request: Any) -> Any:
        started = time.monotonic()
        try:
            with self._lock_for(op):
                return super()._probe(op, lane, **request)
        finally:
            self.spent.add(op, time.monotonic() - started)

    def _ask(
        self, op: str, slot: int, trial: Trial, request: Mapping[str, Any] = MappingProxyType({})
    ) -> dict[str, Any]:
        started = time.monotonic()
        try:
            return super()._ask(op, slot, trial, request)
        finally:
            self.spent.add(op, time.monotonic() - started)

    def _worker(self, settings: RunSettings, lane: int = 0) -> WorkerProcess:
        before = self._workers.get((settings, lane))
        worker = super()._worker(settings, lane)
        self.spent.processes += worker is not before
        return worker


def physical_index(platform: str, index: int, environment: Mapping[str, str]) -> str:
    """Number a device among all of its host, where a process was shown only some of them."""
    shown = next((environment[name] for name in _VISIBLE if environment.get(name)), "") if platform != "cpu" else ""
    listed = [re.sub(r"[^\w-]+", "-", one.strip()) for one in shown.split(",") if one.strip()]
    return listed[index] if index < len(listed) else str(index)
