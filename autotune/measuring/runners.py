"""Who executes trials: worker processes, or this process. No jax until this process measures."""

import concurrent.futures
import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from autotune.errors import AutotuneError, ProblemChangedError
from autotune.machine.cache import compilation_cache, prune
from autotune.machine.device import DeviceInfo
from autotune.machine.tiers import TierRequest, transfer_cost
from autotune.measuring.batch import Failure, run_batch
from autotune.measuring.rows import UNKNOWN_DEVICE
from autotune.measuring.trial import KeyPlace, RunSettings, Trial
from autotune.measuring.wire import decode_device_info, decode_measurement, decode_problem_key, encode
from autotune.measuring.worker_process import WorkerEndedError, WorkerProcess
from autotune.problem.loading import Problem, load_problem
from autotune.problem.steps import Observation, decode_observation, seen_or_failed
from profiles import AdjointName, Measurement, ProblemKey, Scalar, Status, Tier

if TYPE_CHECKING:
    from autotune.measuring.measure import CompiledTrial

RECYCLE_BYTES = 3 * 2**29
"""A worker with more resident memory than this between batches is replaced: each compile leaves 10 to 35 MB."""

MOST_LANES = 2
"""How many processes trace and compile at once on a CPU: each uses one core, most of the time, and memory."""

LANE_BYTES = 4 * 2**30
"""What has to be free for each of them."""

DROP_SECONDS = 60.0
"""How long a worker may take to forget a batch before it is replaced."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ProbeRequest:
    """What to probe: a problem by its name for workers, its `--set` values, and where.

    Where `key` is given, it was taken at `key_place`, and a worker that has loaded something else says so. Where
    `adjoint` is given, counting steps also finds out whether a backward pass goes through a solve. With `shapes_only` a
    problem is fingerprinted without computing its data.
    """

    problem: str
    set_values: Mapping[str, Scalar] = dataclasses.field(default_factory=dict)
    horizon: int | float | None = None
    tolerance: float | None = None
    key: ProblemKey | None = None
    key_place: KeyPlace | None = None
    adjoint: AdjointName | None = None
    shapes_only: bool = False


class SubprocessRunner:
    """A runner of trials in worker processes, so that nothing that a trial does can end the sweep.

    There is one process per setting; on a CPU, once `device_info` has seen it, up to MOST_LANES of them trace and
    compile side by side. What is timed is timed alone. Not thread-safe: several threads take a runner each, and share
    `timing_lock`.
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
            started: called with each trial and phase (`compile`, `call`, `time`) as it begins.
        """
        self._settings = settings or RunSettings()
        self._search_path = list(search_path)
        self._timing_lock = timing_lock
        self._started = started or (lambda trial, phase: None)
        self._workers: dict[tuple[RunSettings, int], WorkerProcess] = {}
        self._held: dict[int, WorkerProcess] = {}
        self._compiled: dict[int, tuple[Measurement, bool] | Failure] = {}
        self._lanes = 1
        self._lane_of: dict[str, int] = {}
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
        found = decode_device_info(self._probe("device", platform=settings.platform, device=settings.device))
        self._lanes = lanes(found)
        return found

    def problem_key(self, question: ProbeRequest) -> ProblemKey:
        """Fingerprint a problem in a worker."""
        return decode_problem_key(self._probe("key", **encode(question)))

    def observe(
        self, question: ProbeRequest, *, repeats: int = 1, variations: Sequence[Mapping[str, Scalar]] = ()
    ) -> Observation:
        """Count a problem's steps in a worker; see `autotune.problem.probe.observe`."""
        return self._observe(question, repeats=repeats, variations=variations)

    def observe_all(self, questions: Sequence[ProbeRequest]) -> list[Observation]:
        """Count the steps of several cases, in as many processes as there are lanes.

        Returns:
            What was seen; of a case that cannot be counted, why.

        Raises:
            ProblemChangedError: somebody edited the problem meanwhile.
        """

        def ask(lane: int) -> list[Observation]:
            mine = questions[lane :: self._lanes]
            return [seen_or_failed(lambda asked: self._observe(asked, lane), question) for question in mine]

        found: list[Observation | None] = [None] * len(questions)
        for lane, seen in enumerate(self._side_by_side(ask, list(range(min(self._lanes, len(questions)))))):
            found[lane :: self._lanes] = seen
        return [one for one in found if one is not None]

    def _observe(
        self,
        question: ProbeRequest,
        lane: int = 0,
        *,
        repeats: int = 1,
        variations: Sequence[Mapping[str, Scalar]] = (),
    ) -> Observation:
        asked = {"repeats": repeats, "variations": [dict(values) for values in variations]}
        return decode_observation(self._probe("observe", lane, **encode(question), **asked))

    def tier(self, question: TierRequest) -> Tier:
        """Measure what a transfer to a tier costs, in a worker, while nothing else is timed."""
        with self._timing_lock():
            seconds = self._probe(
                "transfer", tier=question.name, state_bytes=question.state_bytes, directory=question.directory
            )
        return Tier(name=question.name, windows=question.windows, transfer_cost=transfer_cost(question, seconds))

    def run(self, trials: Sequence[Trial]) -> list[Measurement]:
        """Measure trials; one row each, in their order, whatever happens to them."""
        self._held.clear()
        self._compiled = self._compile_side_by_side(trials)
        rows = run_batch(trials, self)
        self._release(rows)
        return rows

    def _compile_side_by_side(self, trials: Sequence[Trial]) -> dict[int, tuple[Measurement, bool] | Failure]:
        """Compile a batch in as many processes as there are lanes; nothing where one process does it all."""
        by_lane: dict[int, list[int]] = {lane: [] for lane in range(min(self._lanes, len(trials)))}
        if len(by_lane) < 2:
            return {}
        for slot, trial in enumerate(trials):
            # A program that was traced before is found again where that was.
            shortest = min(by_lane, key=lambda lane: len(by_lane[lane]))
            by_lane[self._lane_of.setdefault(_program_of(trial), shortest)].append(slot)

        def compile_all(slots: Sequence[int]) -> dict[int, tuple[Measurement, bool] | Failure]:
            return {slot: self.compile(slot, trials[slot]) for slot in slots}

        found = self._side_by_side(compile_all, list(by_lane.values()))
        return {slot: answer for answers in found for slot, answer in answers.items()}

    def _side_by_side(self, work: Callable[[Any], Any], parts: Sequence[Any]) -> list[Any]:
        """Do parts of the work in threads, one for each, which all have workers of their own."""
        if len(parts) < 2:
            return [work(part) for part in parts]
        with concurrent.futures.ThreadPoolExecutor(len(parts)) as pool:
            try:
                return list(pool.map(work, parts))
            except BaseException:
                for worker in list(self._workers.values()):
                    worker.kill()  # which ends what the other threads wait for
                raise

    def compile(self, slot: int, trial: Trial) -> tuple[Measurement, bool] | Failure:
        """Compile a trial in its worker, where that was not done already."""
        if slot in self._compiled:
            return self._compiled.pop(slot)
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
        worker = self._worker(trial.settings, self._lane_of.get(_program_of(trial), 0))
        self._held[slot] = worker
        with self._lock_for(op) as held:
            try:
                limit = trial.settings.timeout_seconds
                answer = worker.ask(op, timeout_seconds=limit, search_path=self._search_path, name=str(slot), **request)
                if op != "time" or held is None or not held.lost:
                    return answer
            except WorkerEndedError as error:
                return {"status": error.status, "message": str(error)}
            except ProblemChangedError:
                raise  # no failure of this trial: nothing that follows would be about the problem that is tuned
            except AutotuneError as error:
                return {"status": Status.FAILED, "message": "\n".join((str(error), *error.frames))}
            except BaseException:
                # Ctrl-C above all: an answer still to come must not be taken for the next request's.
                worker.kill()
                raise
        # This process was stopped, and another one may have timed beside the sample.
        return self._ask(op, slot, trial, request)

    def _lock_for(self, op: str) -> contextlib.AbstractContextManager[Any]:
        return self._timing_lock() if op in ("call", "time") else contextlib.nullcontext()

    def _worker(self, settings: RunSettings, lane: int = 0) -> WorkerProcess:
        worker = self._workers.get((settings, lane))
        if worker is None or not worker.alive:
            worker = self._workers[settings, lane] = WorkerProcess(settings)
        return worker

    def _probe(self, op: str, lane: int = 0, /, **request: Any) -> Any:
        worker = self._worker(self._settings, lane)
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
        idle = ("cpu", UNKNOWN_DEVICE.platform)
        on_cpu = all(row.device.platform in idle or row.device.planned for row in rows)
        for worker in self._workers.values():
            if not worker.alive:
                continue
            with contextlib.suppress(WorkerEndedError):
                worker.ask("drop", timeout_seconds=DROP_SECONDS)
            if worker.resident_bytes > RECYCLE_BYTES or not on_cpu:
                worker.close()
        self._held.clear()


def lanes(device: DeviceInfo) -> int:
    """Choose how many processes compile side by side: one on an accelerator, which two would have to share."""
    if device.platform != "cpu":
        return 1
    return max(1, min(MOST_LANES, os.cpu_count() or 1, (device.free_bytes or 0) // LANE_BYTES))


def _program_of(trial: Trial) -> str:
    """Name what a trial compiles, whatever is then done with it."""
    at = trial.horizon, trial.tolerance, trial.set_values
    return repr((trial.problem, trial.adjoint, trial.checkpoints, trial.tier, *at))


class InProcessRunner:
    """A runner of trials in this process, as it is: what ends a trial's process ends this one."""

    def __init__(self, problem: Problem | None = None):
        """Prepare nothing yet.

        Args:
            problem: taken for every trial, whatever its name says; loaded by name where None.
        """
        self._problem = problem
        self._loaded: dict[str, Problem] = {}
        self._prepared: dict[int, tuple[Measurement, CompiledTrial]] = {}

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
        """Do nothing: nothing was started."""

    def device_info(self) -> DeviceInfo:
        """Read this process's default device."""
        from autotune.machine.device import device_info

        return device_info()

    def problem_key(self, question: ProbeRequest) -> ProblemKey:
        """Fingerprint a problem."""
        from autotune.problem.fingerprint import problem_key

        problem = self._named(question.problem, question.set_values)
        return problem_key(problem, horizon=question.horizon, tolerance=question.tolerance)

    def observe(
        self, question: ProbeRequest, *, repeats: int = 1, variations: Sequence[Mapping[str, Scalar]] = ()
    ) -> Observation:
        """Count a problem's steps."""
        from autotune.problem.probe import observe

        problem = self._named(question.problem, question.set_values)
        return observe(
            problem, question.horizon, question.tolerance, repeats=repeats, variations=variations,
            adjoint=question.adjoint,
        )  # fmt: skip

    def compile(self, slot: int, trial: Trial) -> tuple[Measurement, bool] | Failure:
        """Compile a trial."""
        from autotune.measuring.measure import compile_trial

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
        from autotune.measuring.measure import first_call

        return first_call(*self._prepared[slot])

    def time(self, slot: int, trial: Trial) -> float | Failure:
        """Take one sample."""
        from autotune.measuring.measure import failure

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
        raise AutotuneError("x64 is requested, and off in this process; set JAX_ENABLE_X64=1, or use a worker")
    if settings.xla_flags and settings.xla_flags not in os.environ.get("XLA_FLAGS", ""):
        raise AutotuneError(
            f"XLA flags {settings.xla_flags!r} cannot be set in a process that has started; use a worker"
        )
    if settings.memory_limit_bytes is not None or settings.timeout_seconds is not None:
        raise AutotuneError("a memory limit or a timeout needs a process of its own; use a worker")
