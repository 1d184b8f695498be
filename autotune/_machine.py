"""Make the machine of a command: worker processes on a device, or a recorded sweep in their place."""

import contextlib
import dataclasses
from collections.abc import Sequence

from autotune._device import DeviceInfo
from autotune._errors import AutotuneError
from autotune._host import host_memory
from autotune._lock import device_lock
from autotune._prepare import Machine
from autotune._runners import Question, ReplayRunner, SubprocessRunner
from autotune._steps import Observation, SiteSteps
from autotune._trial import RunSettings
from profiles._records import DeviceKey, Measurement, ProblemKey


class TimingLock:
    """Held while something is timed; knows its device once that was read."""

    def __init__(self, index: int) -> None:
        """Hold nothing until the device is known."""
        self._index = index
        self.device_fingerprint: str | None = None

    def __call__(self) -> contextlib.AbstractContextManager[None]:
        """Give the lock."""
        if self.device_fingerprint is None:
            return contextlib.nullcontext()
        return device_lock(self.device_fingerprint, index=self._index)


class WorkerMachine(SubprocessRunner):
    """Worker processes that never time on one device at once, whatever processes they belong to."""

    def __init__(self, settings: RunSettings, *, search_path: Sequence[str] = ()) -> None:
        """Start nothing yet."""
        self._lock = TimingLock(settings.device)
        super().__init__(settings, search_path=search_path, timing_lock=self._lock)

    def device_info(self) -> DeviceInfo:
        """Read the device, which also names the lock."""
        info = super().device_info()
        self._lock.device_fingerprint = info.key.fingerprint
        return info


class ReplayMachine(ReplayRunner):
    """A recorded sweep that answers as its device did."""

    def __init__(self, rows: Sequence[Measurement], place: str) -> None:
        """Index the rows of one problem on one device.

        Raises:
            AutotuneError: there are none, or they are of several devices.
        """
        devices = {row.device.fingerprint: row.device for row in rows}
        if len(devices) != 1:
            found = ", ".join(device.kind for device in devices.values()) or "nothing"
            raise AutotuneError(f"--replay needs a store with one device's rows of this problem; {place} has {found}")
        super().__init__(rows)
        self._recorded = list(rows)

    def device_info(self) -> DeviceInfo:
        """Describe the recorded device."""
        newest = self._recorded[-1]
        return dataclasses.replace(described_device(newest.device), versions=newest.versions)

    def problem_key(self, question: Question) -> ProblemKey:
        """Give the recorded key for these `--set` values.

        Raises:
            AutotuneError: nothing was recorded with them.
        """
        for row in reversed(self._recorded):
            if dict(row.set_values) == dict(question.set_values):
                return row.problem
        asked = ", ".join(f"{key}={value}" for key, value in question.set_values.items()) or "no --set values"
        raise AutotuneError(f"the recorded sweep holds nothing with {asked}")

    def observe(self, question: Question) -> Observation:
        """Give the recorded steps of a case."""
        for row in reversed(self._recorded):
            same = (row.horizon, row.tolerance, dict(row.set_values)) == (
                question.horizon, question.tolerance, dict(question.set_values),
            )  # fmt: skip
            if same and row.steps:
                site = SiteSteps(
                    site="recorded",
                    steps=(row.steps,),
                    accepted=() if row.accepted is None else (row.accepted,),
                    rejected=() if row.rejected is None else (row.rejected,),
                )
                return Observation(horizon=row.horizon, tolerance=row.tolerance, sites=(site,), repeats=1)
        raise AutotuneError(
            f"the recorded sweep holds no steps at horizon {question.horizon}, tolerance {question.tolerance}"
        )


def described_device(key: DeviceKey) -> DeviceInfo:
    """Describe a device that is not here, as a store knows it: all of its memory counts as free."""
    return DeviceInfo(
        platform=key.platform, kind=key.kind, index=0, count=key.count, total_bytes=key.memory_bytes,
        limit_bytes=key.memory_bytes, in_use_bytes=None, free_bytes=key.memory_bytes, host=host_memory(),
    )  # fmt: skip


def replay_rows(rows: Sequence[Measurement], problem: str) -> list[Measurement]:
    """Pick the recorded rows of a problem, by its name or by what the command line calls it."""
    stem = problem.rpartition("/")[2].replace(".py:", ":")
    wanted = stem.rpartition(".")[2] if ":" in stem and "." in stem.partition(":")[0] else stem
    return [row for row in rows if row.problem.name in (problem, stem, wanted)]


def make_machine(settings: RunSettings, *, search_path: Sequence[str] = ()) -> Machine:
    """Make the machine that measures on this host."""
    return WorkerMachine(settings, search_path=search_path)
