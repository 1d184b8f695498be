"""Tune for devices that are not here: compile for them, and choose by what XLA plans for their memory.

Nothing is run, so there are no seconds: steps are counted by this machine's probe, executed steps follow from the
schedule, and of the counts that fit the one that executes the fewest steps is chosen. A handful of compilations per
case is enough, since bytes nearly follow a line in the count; the count that is chosen has been compiled itself.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Sequence

from autotune.adjoints import Work, passes
from autotune.choosing.describe import Known, describe
from autotune.choosing.recommend import Evidence, Fit, Option, Recommendation
from autotune.errors import AutotuneError
from autotune.machine.compilers import search_path
from autotune.machine.device import DeviceInfo, Nvidia, versions
from autotune.machine.host import host_memory
from autotune.machine.targets import Target
from autotune.machine.tiers import TierRequest
from autotune.measuring.rows import keep_why
from autotune.measuring.runners import ProbeRequest
from autotune.measuring.trial import Rung, RunSettings, Trial
from autotune.model.cells import Cell, cell_of
from autotune.model.forecast import Forecast
from autotune.model.ranges import Range
from autotune.planning.bounds import least_seconds
from autotune.planning.step_costs import PlanningMachine, counted_costs
from autotune.problem.costs import StepCosts
from autotune.problem.steps import Observation
from autotune.search.search import TOLERABLE_FACTOR, TrialRequest
from autotune.search.space import grid_counts
from autotune.tuning.prepare import GIVEN, Machine, Prepared, Store, prepare, reuse
from autotune.tuning.request import TuneRequest
from autotune.tuning.tune import TuneProgress, TuneResult, trial_of
from profiles import AdjointName, Case, Measurement, ProblemKey, Status, Tier, format_bytes, load_devices

MOST_COMPILES = 14
"""How many rounds of compilations one case may take."""
MATTERS = 0.01
"""A share of executed steps below which a further compilation is not worth its seconds."""
_FAILURES = 2
"""So many counts that fail to compile, and none that does, end a case."""


class TargetMachine:
    """A machine that counts steps here and compiles for a target."""

    def __init__(self, machine: Machine, target: Target, steps: int | None = None) -> None:
        """Take the machine that loads and runs the problem here; `steps` that are given are not counted."""
        self._machine = machine
        self._target = target
        self._steps = steps

    def device_info(self) -> DeviceInfo:
        """Describe the target: what JAX may take of it counts as free."""
        self._machine.device_info()
        return target_info(self._target)

    def problem_key(self, question: ProbeRequest) -> ProblemKey:
        """Fingerprint a problem, which depends neither on the device nor on its data."""
        return self._machine.problem_key(dataclasses.replace(question, shapes_only=True))

    def observe_all(self, questions: Sequence[ProbeRequest]) -> list[Observation]:
        """Count a problem's steps on this machine, where they were not given."""
        if self._steps is not None:
            return [Observation(horizon=one.horizon, tolerance=one.tolerance, note=GIVEN) for one in questions]
        return self._machine.observe_all(questions)

    def tier(self, question: TierRequest) -> Tier:
        """Refuse: a transfer can only be timed where it happens."""
        raise AutotuneError(f"the tier {question.name} cannot be timed on {self._target.name}, which is not here")

    def run(self, trials: Sequence[Trial]) -> list[Measurement]:
        """Compile trials for the target; one row each."""
        return self._machine.run(trials)

    def close(self) -> None:
        """Do nothing: the machine is its caller's."""


def target_info(target: Target) -> DeviceInfo:
    """Describe a target as a device, as far as it is known without it."""
    return DeviceInfo(
        platform=target.compilers, kind=target.kinds[0], index=0, count=target.count, total_bytes=target.memory_bytes,
        limit_bytes=target.available_bytes, in_use_bytes=None, free_bytes=target.available_bytes, host=host_memory(),
        versions=versions(), unknown=("the device is not here: what is said of it is what sources state",),
        planned_for=target.count,
    )  # fmt: skip


def tune_target(
    request: TuneRequest, target: Target, *, store: Store, machine: PlanningMachine, progress: TuneProgress
) -> TuneResult:
    """Tune a problem for a device that is not here.

    Args:
        request: the problem, the space, the budget; its settings say where steps are counted.
        target: the device.
        store: where every compilation is kept, and where earlier ones are found.
        machine: who loads, runs and compiles; the caller closes it.
        progress: who listens.

    Raises:
        AutotuneError: the compilers are missing, the problem cannot be loaded, or its steps are unknown.
    """
    search_path(target.compilers)  # refused before anything runs
    store.check_writable()
    prepared = prepare_target(request, target, store=store, machine=machine, say=progress.say)
    return TargetTuning(prepared, target, store, machine, progress).run()


def prepare_target(
    request: TuneRequest, target: Target, *, store: Store, machine: Machine, say: Callable[[str], None]
) -> Prepared:
    """Find out what has to be known before the first compilation; see `autotune.tuning.prepare`.

    Raises:
        AutotuneError: as `prepare`; or the steps are unknown, or a tier was named.
    """
    if request.tiers:
        raise AutotuneError("--tiers is measured, and --target measures nothing: leave one of them out")
    prepared = prepare(request, store, TargetMachine(machine, target, request.steps), say)
    works = dict(prepared.works)
    for case in prepared.space.cases:
        if case not in works and request.steps is not None:
            works[case] = Work(steps=request.steps, reversed_steps=request.steps)
        if case not in works:
            raise AutotuneError(
                f"the steps of {prepared.name} are unknown at {case}: its arguments have no data; give --steps N"
            )
    asked = request.settings
    settings = RunSettings(target=target, x64=asked.x64, timeout_seconds=asked.timeout_seconds)
    return dataclasses.replace(
        prepared, works=works, request=dataclasses.replace(prepared.request, settings=settings)
    )  # fmt: skip


def here_too(target: Target, nvidia: Nvidia | None = None) -> str:
    """Say that this machine has the target itself; empty where it does not, as far as the driver's tool knows."""
    names = {kind.lower() for kind in target.kinds}
    kind = next((name for name in (nvidia or Nvidia()).names() if name.lower() in names), None)
    return f"this machine has a {kind}: leave --target {target.name} out to measure on it" if kind else ""


class TargetTuning:
    """One tune for a target on its way."""

    def __init__(
        self, prepared: Prepared, target: Target, store: Store, machine: PlanningMachine, progress: TuneProgress
    ) -> None:
        """Start with what the store knows."""
        self.prepared = prepared
        self._target = target
        self._store = store
        self._machine = machine
        self._progress = progress
        self._measured = 0
        known = reuse(prepared, store.measurements(problem_name=prepared.name))
        self.rows = list(known.rows)
        self._reused = len(known.rows)
        self._stale = dict(known.stale)

    def run(self) -> TuneResult:
        """Compile, choose, and describe what was chosen."""
        if self._reused:
            self._progress.note(f"going on with {self._reused} compilations for {self._target.name}")
        cells = sorted(self.prepared.space.cells, key=lambda cell: -self._work(cell).steps)
        for cell in cells:
            self.search(cell)
        failed = [self._failed(case) for case in self.prepared.failures]
        chosen = {choice.case: choice for choice in (*map(self.choose, self.prepared.space.cases), *failed)}
        return TuneResult(
            prepared=self.prepared,
            recommendations=tuple(chosen[case] for case in self.prepared.cases),
            rows=tuple(self.rows),
            reused=self._reused,
            measured=self._measured,
            stale=self._stale,
            hints=tuple(self._hints()),
            store=self._store.place,
        )

    def search(self, cell: Cell) -> None:
        """Compile counts at a cell until the best one that fits is known."""
        for attempt in range(MOST_COMPILES):
            counts = self.missing(cell, self._next(cell, attempt))
            if not counts:
                return
            self.compile(cell, counts, "what fits" if attempt else "counts that enclose all others")

    def missing(self, cell: Cell, counts: Iterable[int]) -> list[int]:
        """Return those of some counts that were not compiled at a cell."""
        return [count for count in counts if not self._has(cell, count)]

    def steps(self, cell: Cell) -> int:
        """Return the steps of a cell, which is the most that a count may be."""
        return self._work(cell).steps

    def compile(self, cell: Cell, counts: Sequence[int], why: str) -> None:
        """Compile counts at a cell for the target, and store their rows."""
        if not counts:
            return
        forecast = self._forecast()
        asked = [TrialRequest(cell=cell, checkpoints=count, rung=Rung.COMPILED, why=why) for count in counts]
        trials = [trial_of(self.prepared, one, forecast) for one in asked]
        work = self._work(cell)
        trials = [
            dataclasses.replace(trial, steps=trial.steps or work.steps, reversed_steps=work.visited(trial.checkpoints))
            for trial in trials
        ]
        for trial in trials:
            keep_why(self._store, trial, why)
        self._progress.started(trials)
        for row in self._machine.run(trials):
            self._store.put(row)
            self.rows.append(row)
            self._progress.finished(row)
        self._measured += len(trials)

    def choose(self, case: Case) -> Recommendation:
        """Choose at a case, over its cells, the compiled count that executes the fewest steps within the budget."""
        prepared = self.prepared
        cells = [cell for cell in prepared.space.cells if cell.case == case]
        base = Recommendation(
            case=cells[0].case, status=Fit.NOTHING_FITS, budget_bytes=prepared.budget.bytes,
            margin_bytes=prepared.budget.margin_bytes,
        )  # fmt: skip
        rows = [row for row in self.rows if cell_of(row) in cells]
        fitting = [row for row in rows if self._fits(row)]
        if not fitting:
            sizes = [row.peak_bytes for row in rows if row.status is Status.OK and row.peak_bytes]
            broken = [row for row in rows if row.status not in (Status.OK, Status.OUT_OF_MEMORY)]
            if broken and not sizes:
                return dataclasses.replace(base, status=Fit.FAILED, message=broken[-1].message or broken[-1].status)
            return dataclasses.replace(base, smallest_bytes=min(sizes, default=None))
        best = min(fitting, key=lambda row: (self._passes(cell_of(row), row.checkpoints), row.peak_bytes))
        cell, peak = cell_of(best), best.peak_bytes
        assert peak is not None
        option = Option(
            cell=cell, checkpoints=best.checkpoints, peak=Range(peak, peak, peak), seconds=None,
            executed_steps=self._passes(cell, best.checkpoints), timed=False,
        )  # fmt: skip
        known = Known(rows=self.rows, forecast=self._forecast(), evidence=Evidence.MEASURED)
        chosen = describe(option, self._work(cell), prepared.request.adjoint, base, known=known)
        costs = self.costs(cell.case)
        if costs is None:
            return chosen
        chip, count = load_devices()[self._target.name].hardware, self._target.count
        least = least_seconds(costs, self._work(cell), best.checkpoints, chip, devices=count)
        return dataclasses.replace(chosen, least_seconds=least)

    def costs(self, case: Case) -> StepCosts | None:
        """Tell what a step costs at least, counted once for each problem; None for Diffrax's adjoint, or not known."""
        if self.prepared.request.adjoint is not AdjointName.OURS:
            return None
        place = self.prepared.key_place(case.set_values)
        question = ProbeRequest(
            problem=self.prepared.problem, set_values=dict(case.set_values), horizon=place.horizon,
            tolerance=place.tolerance, key=self.prepared.keys[case.set_values], key_place=place, shapes_only=True,
        )  # fmt: skip
        return counted_costs(question, self._store, self._machine, self._progress.say)

    def _failed(self, case: object) -> Recommendation:
        failure = next(failure for failed, failure in self.prepared.failures.items() if failed == case)
        return Recommendation(
            case=next(one for one in self.prepared.cases if one == case), status=Fit.FAILED, message=failure.message,
            budget_bytes=self.prepared.budget.bytes, margin_bytes=self.prepared.budget.margin_bytes,
        )  # fmt: skip

    def _next(self, cell: Cell, attempt: int) -> list[int]:
        """Name the counts to compile next at a cell; none where no other could be worth it."""
        request, counts = self.prepared.request, self._counts(cell)
        if request.exhaustive or (self.prepared.space.counts is not None and len(counts) <= 3):
            grid = grid_counts(self._work(cell).steps)
            return list(counts if self.prepared.space.counts else [c for c in grid if c in counts])
        here = [row for row in self.rows if cell_of(row) == cell]
        fine = [row for row in here if row.status is Status.OK]
        if len(here) - len(fine) >= _FAILURES and not fine:
            lost = [row for row in here if row.status is not Status.OUT_OF_MEMORY]
            return [] if lost else self._smaller(here)
        if not here and not any(cell_of(row).variant == cell.variant for row in self.rows):
            return self.enclosing(cell)
        low = max((row.checkpoints for row in fine if self._fits(row)), default=0)
        high = min((row.checkpoints for row in here if not self._fits(row)), default=counts[-1] + 1)
        forecast, budget = self._forecast(), self.prepared.budget.bytes
        sizes = {count: forecast.bytes_at(cell, count) for count in counts if low < count < high}
        between = [count for count, size in sizes.items() if size is None or size.low <= budget]
        best = min(between, key=lambda count: (self._passes(cell, count), count), default=None)
        enough = (1 - MATTERS) * self._least(cell, filter(self._fits, fine)) if low else math.inf
        if best is None and not low:
            return [counts[0]]  # certain of what the least is before anything is said
        if best is None or self._passes(cell, best) >= enough:
            return self._cheaper(cell, low, counts)
        if attempt and attempt % 3 == 0:  # where bytes do not follow a line, the line must not creep
            return [between[len(between) // 2]]
        likely = [count for count in between if (size := sizes[count]) and size.likely <= budget]
        ours = self.prepared.request.adjoint is AdjointName.OURS
        return [best if ours and best in likely else max(likely, default=between[0])]

    def _cheaper(self, cell: Cell, low: int, counts: Sequence[int]) -> list[int]:
        """Name the smallest count that executes no more steps than the largest that fits."""
        same = [count for count in counts if count < low and self._passes(cell, count) <= self._passes(cell, low)]
        return same[:1]

    def _smaller(self, here: Sequence[Measurement]) -> list[int]:
        """Go below the smallest count that ran out of memory as it was compiled."""
        least = min(row.checkpoints for row in here)
        return [max(1, least // 4)] if least > 1 else []

    def enclosing(self, cell: Cell) -> list[int]:
        """Choose a small count, one near the cliff, and everything stored."""
        work, counts = self._work(cell), self._counts(cell)
        cliff = next((count for count in counts if count * count >= 2 * work.steps), counts[-1])
        tolerable = [count for count in counts if self._passes(cell, count) <= TOLERABLE_FACTOR * work.steps]
        return sorted({min((tolerable or counts)[0], max(counts[0], cliff // 3)), cliff, counts[-1]})

    def _counts(self, cell: Cell) -> Sequence[int]:
        """List the counts that may be chosen: the user's, else all up to one for every step that is reversed."""
        if self.prepared.space.counts is not None:
            return self.prepared.space.counts
        work = self._work(cell)
        most = max(1, work.visited(work.reversed_steps) or work.steps)
        ours = self.prepared.request.adjoint is AdjointName.OURS
        return range(1, most + 1) if ours else grid_counts(most, at_most=60)

    def _fits(self, row: Measurement) -> bool:
        return row.status is Status.OK and (row.peak_bytes or math.inf) <= self.prepared.budget.bytes

    def _has(self, cell: Cell, count: int) -> bool:
        return any(row.checkpoints == count and cell_of(row) == cell for row in self.rows)

    def _least(self, cell: Cell, rows: Iterable[Measurement]) -> int:
        return min(self._passes(cell, row.checkpoints) for row in rows)

    def _passes(self, cell: Cell, count: int) -> int:
        return sum(passes(self.prepared.request.adjoint, self._work(cell), count))

    def _work(self, cell: Cell) -> Work:
        return self.prepared.works[cell.case]

    def _forecast(self) -> Forecast:
        return Forecast(self.rows, self.prepared.works, self.prepared.request.adjoint)

    def _hints(self) -> Iterator[str]:
        """Say what the figures are, and what they are not."""
        target = self._target
        yield (
            f"compiled for {target.name} and not run: EQX_ON_ERROR=nan, no progress meters, no autotuning of kernels; "
            "a matrix product may need more workspace on the device"
        )
        yield f"JAX may take {format_bytes(target.available_bytes)} there: {target.available_note}"
        if self.prepared.budget.note:
            yield f"budget: {self.prepared.budget.note}"
        if said := here_too(target):
            yield said
