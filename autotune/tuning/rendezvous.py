"""Where the threads of a batch meet, so that their trials are measured in one call."""

import threading
from collections.abc import Callable, Sequence

from autotune.measuring.trial import Trial
from profiles import Measurement


class Rendezvous:
    """A meeting of several threads, whose trials become one call; each thread gets its row."""

    def __init__(self, size: int, run: Callable[[Sequence[Trial]], list[Measurement]]) -> None:
        self._expected = size
        self._run = run
        self._trials: list[Trial] = []
        self._rows: list[Measurement] | None = None
        self._error: BaseException | None = None
        self._changed = threading.Condition()

    def bring(self, trial: Trial) -> Measurement:
        """Wait for the other threads' trials, have all measured by the last to come, and return this one's row."""
        with self._changed:
            place = len(self._trials)
            self._trials.append(trial)
            self._complete()
            self._changed.wait_for(lambda: self._rows is not None or self._error is not None)
            if self._error is not None:
                raise self._error
            assert self._rows is not None
            return self._rows[place]

    def leave(self) -> None:
        """Drop out: the others need not wait."""
        with self._changed:
            self._expected -= 1
            self._complete()

    def check(self) -> None:
        """Raise what measuring raised, if it did."""
        if self._error is not None:
            raise self._error

    def _complete(self) -> None:
        if self._trials and len(self._trials) == self._expected:
            try:
                self._rows = self._run(self._trials)
            except BaseException as error:  # handed on to every thread that waits
                self._error = error
            self._changed.notify_all()
