"""Who executes trials: worker processes, this process, or a recorded sweep. No jax until this process measures."""

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from autotune._batch import Failure, run_batch
from autotune._cache import compilation_cache, prune
from autotune._device import DeviceInfo
from autotune._errors import AutotuneError
from autotune._parts import Composition, decode_composition
from autotune._problem import Problem, load_problem
from autotune._process import WorkerEndedError, WorkerProcess
from autotune._rows import UNKNOWN_DEVICE, blank_row
from autotune._steps import Observation, decode_observation
from autotune._trial import Rung, RunSettings, Trial
from autotune._wire import decode_device_info, decode_measurement, decode_problem_key, encode
from profiles._records import Measurement, ProblemKey, Scalar, Status

if TYPE_CHECKING:
    from autotune._measure import Prepared

RECYCLE_BYTES = 3 * 2**29
"""A worker with more resident memory than this between batches is replaced: each compile leaves 10 to 35 MB."""

DROP_SECONDS = 60.0
"""How long a worker may take to forget a batch before it is replaced."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What to probe: a problem by its name for workers, its `--set` values, and where."""

    problem: str
    set_values: Mapping[str, Scalar] = dataclasses.field(default_factory=dict)
    horizon: int | float | None = None
    tolerance: float | None = None


class SubprocessRunner:
    """Runs trials in worker processes, one per setting, so that nothing that a trial does can end the sweep.

    Not thread-safe: several threads take a runner each, and share `timing_lock`.
    """

    def __init__(
        self,
        settings: RunSettings | None = None,
        *,
        search_path: Sequence[str] = (),
        timing_lock: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext,
        started: Callable[[Trial, str], None] | None = None,
    ):
        """Start nothing yet.

        Args:
            settings: for probes (`device_info`, `observe`, `problem_key`); trials bring their own.
            search_path: folders that workers search for the problem's modules, after their own.
            timing_lock: makes what is held while a trial is called or timed, so that several runners on one device
                do not overlap.
            started: told of each trial and phase (`compile`, `call`, `time`) as it begins.
        """
        self._settings = settings or RunSettings()
        self._search_path = list(search_path)
        self._timing_lock = timing_lock
        self._started = started or (lambda trial, phase: None)
        self._workers: dict[RunSettings, WorkerProcess] = {}
        self._held: dict[int, WorkerProcess] = {}
        self._closed = False

    def __enter__(self) -> "SubprocessRunner":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End all workers and bring the compilation cache within its limit.

        Another thread may call this to interrupt `run`, which then returns failed rows for what is not done.
        """
        self._closed = True
        for worker in list(self._workers.values()):
            worker.close()
        prune(compilation_cache(os.environ))

    def device_info(self) -> DeviceInfo:
        """Read the device in a worker, so that this process leaves it alone."""
        settings = self._settings
        return decode_device_info(self._probe("device", platform=settings.platform, device=settings.device))

    def problem_key(self, question: Question) -> ProblemKey:
        """Fingerprint a problem in a worker."""
        return decode_problem_key(self._probe("key", **encode(question)))

    def observe(
        self, question: Question, *, repeats: int = 1, variations: Sequence[Mapping[str, Scalar]] = ()
    ) -> Observation:
        """Count a problem's steps in a worker; see `autotune._probe.observe`."""
        asked = {"repeats": repeats, "variations": [dict(values) for values in variations]}
        return decode_observation(self._probe("observe", **encode(question), **asked))

    def composition(self, problem: str, row: Measurement) -> Composition | None:
        """Part a row's compiled bytes in a worker; see `autotune._composition.composition`."""
        found = self._probe("composition", problem=problem, row=encode(row))
        return None if found is None else decode_composition(found)

    def run(self, trials: Sequence[Trial]) -> list[Measurement]:
        """Measure trials; one row each, in their order, whatever happens to them."""
        self._held.clear()
        rows = run_batch(trials, self)
        self._release(rows)
        return rows

    def compile(self, slot: int, trial: Trial) -> tuple[Measurement, bool] | Failure:
        """Compile a trial in its worker."""
        return self._ask_row("compile", slot, trial, {"trial": encode(trial)})

    def call(self, slot: int, trial: Trial) -> tuple[Measurement, bool] | Failure:
        """Call a compiled trial once in its worker, compiling it again where that worker is gone."""
        return self._regain(slot, trial) or self._ask_row("call", slot, trial)

    def time(self, slot: int, trial: Trial) -> float | Failure:
        """Take one sample in the trial's worker, compiling and calling it again where that worker is gone."""
        if failed := self._regain(slot, trial, called=True):
            return failed
        answer = self._ask("time", slot, trial)
        if "failure" in answer:
            return answer["failure"]
        return answer.get("seconds", answer)

    def _regain(self, slot: int, trial: Trial, *, called: bool = False) -> Failure | None:
        """Bring a trial back whose worker was ended by another trial; None when it is there."""
        holder = self._held.get(slot)
        if holder is not None and holder.alive:
            return None
        for phase in (self.compile, self.call)[: 2 if called else 1]:
            answer = phase(slot, trial)
            if isinstance(answer, dict):
                return answer
            row, ready = answer
            if not ready:
                return {"status": row.status, "message": row.message}
        return None

    def _ask_row(
        self, op: str, slot: int, trial: Trial, request: Mapping[str, Any] = MappingProxyType({})
    ) -> tuple[Measurement, bool] | Failure:
        answer = self._ask(op, slot, trial, request)
        if "row" not in answer:
            return answer
        return decode_measurement(answer["row"]), answer["ready"]

    def _ask(
        self, op: str, slot: int, trial: Trial, request: Mapping[str, Any] = MappingProxyType({})
    ) -> dict[str, Any]:
        """Ask the trial's worker, starting one where there is none; what ends it is the trial's failure."""
        if self._closed:
            return {"status": Status.FAILED, "message": "not run: the runner was closed"}
        self._started(trial, op)
        worker = self._worker(trial.settings)
        self._held[slot] = worker
        with self._timing_lock() if op in ("call", "time") else contextlib.nullcontext():
            try:
                return worker.ask(
                    op, timeout_seconds=trial.settings.timeout_seconds, search_path=self._search_path,
                    name=str(slot), **request,
                )  # fmt: skip
            except WorkerEndedError as error:
                return {"status": error.status, "message": str(error)}
            except AutotuneError as error:
                return {"status": Status.FAILED, "message": "\n".join((str(error), *error.frames))}
            except BaseException:
                # Ctrl-C above all: an answer still to come must not be taken for the next request's.
                worker.kill()
                raise

    def _worker(self, settings: RunSettings) -> WorkerProcess:
        worker = self._workers.get(settings)
        if worker is None or not worker.alive:
            worker = self._workers[settings] = WorkerProcess(settings)
        return worker

    def _probe(self, op: str, **request: Any) -> Any:
        worker = self._worker(self._settings)
        try:
            return worker.ask(
                op, timeout_seconds=self._settings.timeout_seconds, search_path=self._search_path, **request
            )
        except WorkerEndedError as error:
            raise AutotuneError(f"{error}; run the problem by itself to see why") from error
        except KeyboardInterrupt:
            worker.kill()
            raise

    def _release(self, rows: Iterable[Measurement]) -> None:
        """Forget the batch's programs, and end workers that have grown or whose peak cannot be reset."""
        on_cpu = all(row.device.platform in ("cpu", UNKNOWN_DEVICE.platform) for row in rows)
        for worker in self._workers.values():
            if not worker.alive:
                continue
            with contextlib.suppress(WorkerEndedError):
                worker.ask("drop", timeout_seconds=DROP_SECONDS)
            if worker.resident_bytes > RECYCLE_BYTES or not on_cpu:
                worker.close()
        self._held.clear()


class InProcessRunner:
    """Runs trials in this process, as it is: what ends a trial's process ends this one."""

    def __init__(self, problem: Problem | None = None):
        """Prepare nothing yet.

        Args:
            problem: taken for every trial, whatever its name says; loaded by name where None.
        """
        self._problem = problem
        self._loaded: dict[str, Problem] = {}
        self._prepared: dict[int, tuple[Measurement, Prepared]] = {}

    def run(self, trials: Sequence[Trial]) -> list[Measurement]:
        """Measure trials; one row each, in their order.

        Raises:
            AutotuneError: a trial's settings cannot hold in a process that has started.
        """
        for trial in trials:
            _check_settings(trial.settings)
        try:
            return run_batch(trials, self)
        finally:
            self._prepared.clear()

    def close(self) -> None:
        """Nothing was started."""

    def device_info(self) -> DeviceInfo:
        """Read this process's default device."""
        from autotune._device import device_info

        return device_info()

    def problem_key(self, question: Question) -> ProblemKey:
        """Fingerprint a problem."""
        from autotune._fingerprint import problem_key

        problem = self._named(question.problem, question.set_values)
        return problem_key(problem, horizon=question.horizon, tolerance=question.tolerance)

    def observe(
        self, question: Question, *, repeats: int = 1, variations: Sequence[Mapping[str, Scalar]] = ()
    ) -> Observation:
        """Count a problem's steps."""
        from autotune._probe import observe

        problem = self._named(question.problem, question.set_values)
        return observe(problem, question.horizon, question.tolerance, repeats=repeats, variations=variations)

    def composition(self, problem: str, row: Measurement) -> Composition | None:
        """Part a row's compiled bytes."""
        from autotune._composition import composition

        return composition(self._named(problem, row.set_values), row)

    def compile(self, slot: int, trial: Trial) -> tuple[Measurement, bool] | Failure:
        """Compile a trial."""
        from autotune._measure import compile_trial

        try:
            problem = self._named(trial.problem, trial.set_values)
        except AutotuneError as error:
            return {"status": Status.FAILED, "message": "\n".join((str(error), *error.frames))}
        row, prepared = compile_trial(problem, trial)
        if prepared is not None:
            self._prepared[slot] = row, prepared
        return row, prepared is not None

    def call(self, slot: int, trial: Trial) -> tuple[Measurement, bool] | Failure:
        """Call a compiled trial once."""
        from autotune._measure import first_call

        return first_call(*self._prepared[slot])

    def time(self, slot: int, trial: Trial) -> float | Failure:
        """Take one sample."""
        from autotune._measure import failure

        try:
            return self._prepared[slot][1].time_once()
        except Exception as error:
            return failure(error)

    def _named(self, problem: str, set_values: Mapping[str, Scalar]) -> Problem:
        if self._problem is not None:
            return self._problem.with_set({**self._problem.set_values, **set_values})
        if problem not in self._loaded:
            self._loaded[problem] = load_problem(problem)
        return self._loaded[problem].with_set(set_values)


def _check_settings(settings: RunSettings) -> None:
    import jax.numpy as jnp

    if settings.x64 and jnp.result_type(float) != jnp.float64:
        raise AutotuneError("x64 was asked for, and is off in this process; set JAX_ENABLE_X64=1, or use a worker")
    if settings.xla_flags and settings.xla_flags not in os.environ.get("XLA_FLAGS", ""):
        raise AutotuneError(
            f"XLA flags {settings.xla_flags!r} cannot be set in a process that has started; use a worker"
        )
    if settings.memory_limit_bytes is not None or settings.timeout_seconds is not None:
        raise AutotuneError("a memory limit or a timeout needs a process of its own; use a worker")


class ReplayRunner:
    """Answers trials from the rows of a recorded sweep, so that a search is tried without a device."""

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
        """Nothing was started."""

    def _answer(self, trial: Trial) -> Measurement:
        found = self._rows.get(_point(trial))
        if not found:
            message = f"the recorded sweep has no row for {trial.checkpoints} checkpoints at this point"
            return dataclasses.replace(blank_row(trial), status=Status.FAILED, message=message)
        # Rows of repeats differ in `repeat`; the trial's own where it is there.
        exact = [row for row in found if row.repeat == trial.repeat] or found
        row = max(exact, key=lambda row: (len(row.run_seconds), row.peak_bytes is not None, row.measured_at))
        row = dataclasses.replace(row, study=trial.study, repeat=trial.repeat, expected_steps=trial.expected_steps)
        if trial.rung is Rung.RUN:
            return row
        if row.status is not Status.OK and row.compiled_bytes is not None:
            row = dataclasses.replace(row, status=Status.OK, message="")
        return dataclasses.replace(row, run_bytes=None, run_seconds=())


def _point(at: Measurement | Trial) -> tuple[Any, ...]:
    flags = at.xla_flags if isinstance(at, Measurement) else at.settings.xla_flags
    x64 = at.x64 if isinstance(at, Measurement) else at.settings.x64
    swept = tuple(sorted((key, repr(value)) for key, value in at.set_values.items()))
    return at.adjoint, at.checkpoints, repr(at.horizon), at.tolerance, swept, x64, flags
