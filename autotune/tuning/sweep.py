"""Hand out trials through an Optuna study, measure them, store each result.

`autotune.tuning.queue` makes the study. What to measure is decided by `autotune.search` and enqueued; Optuna hands a
trial to exactly one worker, keeps its heartbeat while it runs, and puts it back once when its worker died.

The study is scratch, made for one tune and thrown away. A result is stored before Optuna hears of it, so a kill in
between measures nothing twice.

Timings of one batch have to alternate, while Optuna knows single trials. So a batch is claimed by as many threads of
`study.optimize` as it has trials, and `Rendezvous` turns their trials into one call of the runner.
"""

import dataclasses
import threading
import time
from collections.abc import Sequence
from typing import Protocol

import optuna
from optuna.trial import TrialState

from autotune.errors import ProblemChangedError
from autotune.measuring.rows import trial_key
from autotune.measuring.trial import Rung, Runner, Trial
from autotune.measuring.wire import decode_trial, encode
from autotune.tuning.queue import JoinedStudy, known_experimental
from autotune.tuning.rendezvous import Rendezvous
from profiles import Measurement

IDLE_POLL_SECONDS = 0.5
CHANGED = "changed"
"""The attribute of a trial whose worker had loaded another problem than the tune's."""


class SweepProgress(Protocol):
    """A listener to a sweep: the screen in a tune, nothing in a test."""

    def started(self, trials: Sequence[Trial]) -> None:
        """Note that a batch begins."""
        ...

    def finished(self, measurement: Measurement) -> None:
        """Note that a trial of the batch is measured and stored."""
        ...


class StoresMeasurements(Protocol):
    """The part of a store that a sweep needs."""

    def put(self, measurement: Measurement) -> None:
        """Store one row durably."""
        ...


class SweepInterrupted(Exception):
    """The sweep was interrupted while its trials ran; nothing of them is kept."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SweepTools:
    """What a sweep works with: who measures, where rows go, and who listens."""

    runner: Runner
    store: StoresMeasurements
    progress: SweepProgress


class Sweep:
    """One process's part in a study. The process that decides what to measure also makes and ends the study."""

    def __init__(self, joined: JoinedStudy, tools: SweepTools) -> None:
        """Take part in a study; see `make_study` and `join_study`."""
        self._study = joined.study
        self._joined = joined
        self._storage = joined.storage
        self._seeded: set[int] = set()
        self._tools = tools
        self._measured: list[Measurement] = []
        self._interrupted = threading.Event()

    @property
    def name(self) -> str:
        """The name of this tune's own study."""
        return self._study.study_name

    @property
    def waiting(self) -> int:
        """How many trials nobody has taken yet."""
        return len(self._study.get_trials(deepcopy=False, states=(TrialState.WAITING,)))

    @property
    def running(self) -> int:
        """How many trials some process has taken and not ended."""
        return len(self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)))

    @property
    def closed(self) -> bool:
        """Whether the study has been ended by the process that made it."""
        return bool(self._study.user_attrs.get("closed"))

    def interrupt(self) -> None:
        """End what runs now, from a signal handler: its results are dropped, what is stored stays."""
        self._interrupted.set()
        self._tools.runner.close()

    def end(self) -> None:
        """Announce to every worker that no more trials will come."""
        self._study.set_user_attr("closed", True)

    def close(self) -> None:
        """Let go of the study's database."""
        self._joined.close()

    def reap(self) -> None:
        """Hand out again, once, what dead workers had taken."""
        with known_experimental():
            optuna.storages.fail_stale_trials(self._study)

    def measure(self, trials: Sequence[Trial], *, alone: bool = False) -> list[Measurement]:
        """Measure a batch, together with whatever workers have joined, until every trial of it has ended.

        Timed trials of the batch that this process takes are timed in alternation. Unless it is `alone`, it takes
        those that are compiled only one by one, and leaves the others to workers.

        Returns:
            The rows that were measured by this process; the store has those of the others too.

        Raises:
            SweepInterrupted: `interrupt` was called.
            ProblemChangedError: somebody edited the problem; what was finished is stored.
        """
        first = len(self._study.get_trials(deepcopy=False))
        for trial in trials:
            self._study.enqueue_trial({}, user_attrs={"trial": encode(trial)})
        self._measured.clear()
        timed = all(trial.rung is Rung.RUN for trial in trials)
        while True:
            self.work(together=len(trials) if timed or alone else 1)
            batch = self._study.get_trials(deepcopy=False)[first:]
            if said := next((trial.user_attrs[CHANGED] for trial in batch if CHANGED in trial.user_attrs), None):
                raise ProblemChangedError(said)
            if not any(trial.state in (TrialState.WAITING, TrialState.RUNNING) for trial in batch):
                return list(self._measured)
            time.sleep(IDLE_POLL_SECONDS)
            self._seed_heartbeats(batch)
            self.reap()  # else the trial of the last worker to die would run for ever

    def _seed_heartbeats(self, batch: Sequence[optuna.trial.FrozenTrial]) -> None:
        """Record one heartbeat, once, for trials that others run.

        Optuna takes only those for stale that have a heartbeat: a worker that died before its first would be waited
        for for ever.
        """
        storage = self._storage
        if not isinstance(storage, optuna.storages.RDBStorage):
            return
        study_id = storage.get_study_id_from_name(self._study.study_name)
        for trial in batch:
            if trial.state is TrialState.RUNNING and trial.number not in self._seeded:
                self._seeded.add(trial.number)
                storage.record_heartbeat(storage.get_trial_id_from_study_id_trial_number(study_id, trial.number))

    def lost(self, trials: Sequence[Trial], rows: Sequence[Measurement]) -> list[Trial]:
        """Return the trials that have no row: their workers died twice."""
        known = {trial_key(row) for row in rows}
        return [trial for trial in trials if trial_key(trial) not in known]

    def work(self, *, together: int = 1) -> int:
        """Take and measure waiting trials until none waits; return how many this process took."""
        taken = 0
        while (waiting := self.waiting) and not self._interrupted.is_set():
            size = min(together, waiting)
            meeting = Rendezvous(size, self._run)
            self._study.optimize(
                lambda trial, meeting=meeting: self._objective(trial, meeting),
                n_trials=size,
                n_jobs=size,
            )
            meeting.check()  # Optuna drops what its last threads raised
            taken += size
        if self._interrupted.is_set():
            raise SweepInterrupted
        return taken

    def _objective(self, handed: optuna.Trial, meeting: Rendezvous) -> float:
        """Measure the trial that Optuna handed out; see the module's header. How it ended stands in its row alone."""
        encoded = handed.user_attrs.get("trial")
        if encoded is None:  # another worker was faster: nothing waits
            meeting.leave()
            raise optuna.TrialPruned
        try:
            meeting.bring(decode_trial(encoded))
        except ProblemChangedError as error:
            handed.set_user_attr(CHANGED, str(error))  # for the process that made the study
            raise
        return 0.0

    def _run(self, trials: Sequence[Trial]) -> list[Measurement]:
        """Measure trials, and store each row before anyone else hears of it."""
        tools = self._tools
        tools.progress.started(trials)
        rows = tools.runner.run(trials)
        if self._interrupted.is_set():
            raise SweepInterrupted
        for row in rows:
            tools.store.put(row)
            self._measured.append(row)
            tools.progress.finished(row)
        return rows
