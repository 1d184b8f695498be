"""What a tune does now, noted in its store, so that whoever asks the store (a service's page, say) can follow it.

The note is written anew at most every few seconds, and is gone when the tune ends. Nothing rests on it: a store that
does not take it stops no tune, and a tune that is killed leaves it behind, as it was last written.
"""

import contextlib
import dataclasses
import datetime as dt
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from autotune.measuring.errands import Owner
from autotune.measuring.trial import Rung, Trial
from autotune.tuning.lease import SharesNotes, has_ended, is_shared
from profiles import Measurement, ProfilesError, Status

if TYPE_CHECKING:
    from autotune.tuning.prepare import Prepared
    from autotune.tuning.tune import TuneProgress

UNDER_WAY_NOTE = "tune under way"
"""Kind of the notes that hold what tunes do now, by study and a number of the tune's own."""
ANNOUNCE_SECONDS = 2.0
"""A note is written no more often than this, but for its first and last state."""
MOST_FAILURES = 5
"""How many failures a note keeps, the newest."""


class Announced:
    """A listener to a tune that hands on what it hears, and notes in the store where the tune is.

    A context manager: the note is there on the way in and gone on the way out.
    """

    def __init__(self, progress: "TuneProgress", store: SharesNotes, prepared: "Prepared", tune: str) -> None:
        """Announce nothing yet.

        Args:
            progress: who else listens.
            store: where the note goes; one in memory gets none.
            prepared: the tune.
            tune: its own number, under which it shows signs of life (`Leases.tune`).
        """
        self._progress = progress
        self._store = store if is_shared(store.url) else None
        self._key = f"{prepared.study} {tune}"
        self._study = prepared.study
        self._best_seconds: float | None = None
        self._state: dict[str, Any] = {
            "tune": tune,
            "problem": prepared.name,
            "study": prepared.study,
            "device": prepared.device.kind,
            "adjoint": str(prepared.request.adjoint),
            "budget_bytes": prepared.budget.bytes,
            "cases": [str(case) for case in prepared.cases],
            "owner": dataclasses.asdict(Owner.this()),
            "began_at": _now(),
            "doing": "preparing",
            "done": 0,
            "left": None,
            "left_seconds": None,
            "best": None,
            "failed": 0,
            "failures": [],
        }
        self._written: Any = None
        self._written_at = float("-inf")

    def __enter__(self) -> "Announced":
        self._forget_the_dead()
        self._write(at_once=True)
        return self

    def __exit__(self, *exception: object) -> None:
        if self._store is not None and self._written is not None:
            with contextlib.suppress(ProfilesError):  # the store is gone; who reads it sees that the note stands still
                self._store.swap_note(UNDER_WAY_NOTE, self._key, self._written, None)

    def say(self, text: str) -> None:
        """Hand on, and note as what is being done."""
        self._progress.say(text)
        self._state["doing"] = text
        self._write()

    def note(self, text: str) -> None:
        """Hand on."""
        self._progress.note(text)

    def expect(self, trials: int, seconds: float | None) -> None:
        """Hand on, and note how much is left."""
        self._progress.expect(trials, seconds)
        self._state |= {"left": trials, "left_seconds": seconds}
        self._write()

    def started(self, trials: Sequence[Trial]) -> None:
        """Hand on, and note what is measured now."""
        self._progress.started(trials)
        counts = ", ".join(map(str, sorted(trial.checkpoints for trial in trials)))
        timed = any(trial.rung is Rung.RUN for trial in trials)
        doing = "final run" if trials[0].settings.own_environment else "timing" if timed else "compiling"
        cases = ", ".join(dict.fromkeys(str(trial.case) for trial in trials))
        self._state["doing"] = f"{doing}: {counts} checkpoints at {cases}"
        self._write()

    def finished(self, measurement: Measurement) -> None:
        """Hand on, and note how it ended."""
        self._progress.finished(measurement)
        state, seconds = self._state, measurement.run_median_seconds
        state["done"] += 1
        if state["left"]:
            state["left"] -= 1
        where = {"checkpoints": measurement.checkpoints, "case": str(measurement.case)}
        if measurement.status is not Status.OK:
            lines = measurement.message.splitlines() or [""]
            failure = where | {"status": str(measurement.status), "message": lines[0][:300]}
            state["failed"] += 1
            state["failures"] = [*state["failures"], failure][-MOST_FAILURES:]
        elif seconds is not None and (self._best_seconds is None or seconds < self._best_seconds):
            self._best_seconds = seconds
            state["best"] = where | {"run_seconds": seconds, "peak_bytes": measurement.peak_bytes}
        self._write()

    def _write(self, *, at_once: bool = False) -> None:
        now = time.monotonic()
        if self._store is None or (not at_once and now - self._written_at < ANNOUNCE_SECONDS):
            return
        self._written_at, state = now, {**self._state, "at": _now()}
        try:
            self._store.put_note(UNDER_WAY_NOTE, self._key, state)
            self._written = state
        except ProfilesError:
            pass  # the next one may come through

    def _forget_the_dead(self) -> None:
        """Take away the notes of this profile's tunes on this host that were killed."""
        if self._store is None:
            return
        try:
            for key, state in self._store.notes(UNDER_WAY_NOTE).items():
                if state.get("study") == self._study and has_ended(state["owner"]):
                    self._store.swap_note(UNDER_WAY_NOTE, key, state, None)
        except (ProfilesError, AttributeError, KeyError, TypeError):
            pass  # what it is does not matter here


def _now() -> str:
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
