"""Make the machine of a command: worker processes on a device, or a recorded sweep in their place."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

from autotune.errors import AutotuneError
from autotune.machine.device import DeviceInfo
from autotune.machine.host import host_memory
from autotune.machine.tiers import TierRequest
from autotune.measuring.executor import ExecutorMachine, LocalMachines
from autotune.measuring.rows import blank_row
from autotune.measuring.runners import ProbeRequest
from autotune.measuring.timing import Spent, WorkerMachine
from autotune.measuring.trial import Rung, RunSettings, Trial
from autotune.problem.steps import Observation, SiteSteps, seen_or_failed
from autotune.tuning.prepare import Machine
from autotune.tuning.sweep import Alone, Crew
from profiles import DeviceKey, Measurement, ProblemKey, Status, Tier


class ReplayRunner:
    """A runner that answers trials from the rows of a recorded sweep, so that a search is tried without a device."""

    def __init__(self, rows: Iterable[Measurement]):
        """Index the rows.

        Args:
            rows: of one problem and device; where several answer a trial, the one that went furthest does.
        """
        self._rows: dict[tuple[Any, ...], list[Measurement]] = {}
        for row in rows:
            self._rows.setdefault(_point(row), []).append(row)
        self.asked: list[Trial] = []

    def run(self, trials: Sequence[Trial]) -> list[Measurement]:
        """Answer trials; a point that was never recorded is a failed row that says so."""
        self.asked += trials
        return [self._answer(trial) for trial in trials]

    def close(self) -> None:
        """Do nothing: nothing was started."""

    def _answer(self, trial: Trial) -> Measurement:
        found = self._rows.get(_point(trial))
        if not found:
            message = f"the recorded sweep has no row for {trial.checkpoints} checkpoints at this point"
            return dataclasses.replace(blank_row(trial), status=Status.FAILED, message=message)
        # Rows of repeats differ in `repeat`; the trial's own where it is there.
        exact = [row for row in found if row.repeat == trial.repeat] or found
        row = max(exact, key=lambda row: (len(row.run_seconds), row.peak_bytes is not None, row.measured_at))
        row = dataclasses.replace(row, study=trial.study, repeat=trial.repeat, expected_steps=trial.expected_steps)
        if trial.rung is Rung.RUN and not trial.ends_compiled(row.compiled_bytes):
            return row
        if row.status is not Status.OK and row.compiled_bytes is not None:
            row = dataclasses.replace(row, status=Status.OK, message="")
        return dataclasses.replace(row, run_bytes=None, run_seconds=())


def _point(at: Measurement | Trial) -> tuple[Any, ...]:
    """Identify a point among recorded rows, which know a mesh, a prediction and repeats that a trial does not."""
    found = at.coordinates() | {"mesh": "", "expected_steps": None, "repeat": 0, "horizon": repr(at.horizon)}
    found["set_values"] = tuple((key, repr(value)) for key, value in at.set_values.items())
    return at.adjoint, *found.values()


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

    def problem_key(self, question: ProbeRequest) -> ProblemKey:
        """Give the recorded key for these `--set` values.

        Raises:
            AutotuneError: nothing was recorded with them.
        """
        for row in reversed(self._recorded):
            if dict(row.set_values) == dict(question.set_values):
                return row.problem
        wanted = ", ".join(f"{key}={value}" for key, value in question.set_values.items()) or "no --set values"
        raise AutotuneError(f"the recorded sweep holds nothing with {wanted}")

    def observe_all(self, questions: Sequence[ProbeRequest]) -> list[Observation]:
        """Give the recorded steps of cases."""
        return [seen_or_failed(self._observe, question) for question in questions]

    def tier(self, question: TierRequest) -> Tier:
        """Give the recorded tier.

        Raises:
            AutotuneError: nothing was recorded with it.
        """
        for row in reversed(self._recorded):
            if row.tier and row.tier.name == question.name and dict(row.set_values) == dict(question.set_values):
                return row.tier
        raise AutotuneError(f"the recorded sweep holds nothing with the tier {question.name}; leave it out of --tiers")

    def _observe(self, question: ProbeRequest) -> Observation:
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


def make_machine(settings: RunSettings, *, search_path: Sequence[str] = ()) -> WorkerMachine:
    """Make the machine that measures on this host."""
    return WorkerMachine(settings, search_path=search_path)


def make_machines(settings: RunSettings, *, search_path: Sequence[str] = (), size: int) -> Machine:
    """Make several machines that measure on this host."""
    return LocalMachines(settings, search_path=search_path, size=size)


def crew_of(machine: Machine) -> Crew:
    """Hand out units to a machine: several at once where others measure for it, one at a time otherwise."""
    return machine if isinstance(machine, ExecutorMachine) else Alone(machine)


def spent_of(machine: Machine) -> Spent | None:
    """Return what the workers of a machine were busy with; None of one that leaves the work to others."""
    return machine.spent if isinstance(machine, WorkerMachine) else None
