"""A machine behind an executor: whatever is to be found out or measured is an errand that another runs. No jax."""

import concurrent.futures
import dataclasses
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Executor, Future
from typing import Any

from autotune.errors import AutotuneError, NobodyMeasuresError, ProblemChangedError, one_line
from autotune.machine.device import DeviceInfo
from autotune.machine.tiers import TierRequest
from autotune.measuring.errands import Answer, Benches, Errand, Owner, compared_versions, run_errand
from autotune.measuring.runners import ProbeRequest
from autotune.measuring.trial import RunSettings, Trial
from autotune.problem.steps import Observation
from profiles import DeviceKey, Measurement, ProblemKey, Tier

TICK_SECONDS = 1.0
"""How long to wait for a result before looking whether there is more to do."""
GOES_ON = "every finished measurement is stored, and the same command goes on from there"
_GONE = "the executor measures no more"


class ExecutorMachine:
    """A machine whose work is done wherever an executor runs it, several units of trials at once.

    A unit is one call of a runner: its timed trials alternate on one device. The executor is the caller's to end.
    """

    alone = False

    def __init__(
        self,
        executor: Executor | None,
        settings: RunSettings,
        *,
        search_path: Sequence[str] = (),
        size: int = 1,
        run: Callable[[Errand], Answer] = run_errand,
    ) -> None:
        """Submit nothing yet.

        Args:
            executor: who runs errands.
            settings: for probes; trials bring their own.
            search_path: folders that the problem's modules are searched in.
            size: how many units may be under way at once.
            run: what the executor calls.
        """
        self._executor = executor
        self._run = run
        self._size = size
        self._device: DeviceKey | None = None
        self._common = Errand(
            op="", owner=Owner.this(), versions=compared_versions(), settings=settings, search_path=tuple(search_path)
        )

    @property
    def size(self) -> int:
        """How many units may be under way at once."""
        return self._size

    def device_info(self) -> DeviceInfo:
        """Read the device of whoever answers; all that follows must be measured on its kind."""
        info: DeviceInfo = self._ask("device")
        self._device = info.key
        return info

    def problem_key(self, question: ProbeRequest) -> ProblemKey:
        """Fingerprint a problem."""
        return self._ask("key", questions=(question,))

    def observe_all(self, questions: Sequence[ProbeRequest]) -> list[Observation]:
        """Count a problem's steps at several cases, as many at once as there are places."""
        size = min(self.size, len(questions))
        parts = [tuple(questions[k::size]) for k in range(size)]
        waiting = [self._send(self._errand("observe", questions=part)) for part in parts]
        found: list[Any] = [None] * len(questions)
        for k, future in enumerate(waiting):
            found[k::size] = self._value(future)
        return found

    def tier(self, question: TierRequest) -> Tier:
        """Measure what a transfer to a tier costs."""
        return self._ask("tier", tier=question)

    def run(self, trials: Sequence[Trial]) -> list[Measurement]:
        """Measure one unit; one row each, in their order."""
        return self._value(self.submit(trials))

    def submit(self, trials: Sequence[Trial]) -> Future[Answer]:
        """Have a unit measured; `rows` reads what came of it."""
        return self._send(self._errand("run", trials=tuple(trials)))

    def wait(self, futures: Collection[Future[Answer]]) -> list[Future[Answer]]:
        """Wait until a unit is done, or for a moment: then there may be places for more of them."""
        done, _ = concurrent.futures.wait(futures, TICK_SECONDS, concurrent.futures.FIRST_COMPLETED)
        return [future for future in futures if future in done]

    def rows(self, future: Future[Answer]) -> list[Measurement]:
        """Return the rows of a unit that is done.

        Raises:
            AutotuneError: nobody could measure it.
        """
        try:
            answer = future.result()
        except (concurrent.futures.CancelledError, concurrent.futures.BrokenExecutor) as error:
            raise NobodyMeasuresError(f"{_GONE}: {one_line(error)}; {GOES_ON}") from error
        if answer.dropped:
            raise NobodyMeasuresError(f"{_GONE}: {answer.message}; {GOES_ON}")
        if answer.refused:
            raise ProblemChangedError(f"{self._where(answer)}{answer.message}", frames=answer.frames)
        if answer.message:
            raise AutotuneError(f"{self._where(answer)}{answer.message}", frames=answer.frames)
        return answer.value

    def close(self) -> None:
        """Give up what was not begun; what runs elsewhere is its executor's."""

    def _where(self, answer: Answer) -> str:
        """Say who answered, where that is not this process."""
        return f"the worker on {answer.place}: " if answer.refused else ""

    def _errand(self, op: str, **what: Any) -> Errand:
        return dataclasses.replace(self._common, op=op, device=self._device, **what)

    def _ask(self, op: str, **what: Any) -> Any:
        return self._value(self._send(self._errand(op, **what)))

    def _value(self, future: Future[Answer]) -> Any:
        try:
            while not self.wait([future]):
                pass
        except BaseException:
            future.cancel()
            raise
        return self.rows(future)

    def _send(self, errand: Errand) -> Future[Answer]:
        assert self._executor is not None
        try:
            return self._executor.submit(self._run, errand)
        except RuntimeError as error:  # a broken pool is one too
            raise NobodyMeasuresError(f"{_GONE}: {one_line(error)}; {GOES_ON}") from error


class LocalMachines(ExecutorMachine):
    """Several machines of this host, one a thread: compiles overlap, and what is timed is timed alone."""

    def __init__(self, settings: RunSettings, *, search_path: Sequence[str] = (), size: int) -> None:
        """Start nothing yet."""
        self._benches = Benches()
        self._threads = concurrent.futures.ThreadPoolExecutor(size)
        super().__init__(self._threads, settings, search_path=search_path, size=size, run=self._benches.run)

    def close(self) -> None:
        """End every machine and its thread; what runs is dropped."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._benches.close()
        self._threads.shutdown()

    def _where(self, answer: Answer) -> str:
        return ""
