"""Units of trials under way: handed to whoever measures, taken back in whatever order they come, stored at once.

A unit is what one device measures in one go; its timed trials alternate there. Only this process stores, so that a row
is in the store before anything follows from it, and a kill in between measures nothing twice.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import Future
from typing import Any, Protocol

from autotune.measuring.trial import Rung, Runner, Trial
from autotune.search.search import TrialRequest
from profiles import Measurement


class SweepProgress(Protocol):
    """A listener to a sweep: the screen in a tune, nothing in a test."""

    def started(self, trials: Sequence[Trial]) -> None:
        """Note that a unit begins."""
        ...

    def finished(self, measurement: Measurement) -> None:
        """Note that a trial of a unit is measured and stored."""
        ...


class StoresMeasurements(Protocol):
    """The part of a store that a sweep needs."""

    def put(self, measurement: Measurement) -> None:
        """Store one row durably."""
        ...


class Crew(Protocol):
    """Whoever measures units. One that is `alone` measures in this thread, one unit at a time."""

    alone: bool

    @property
    def size(self) -> int:
        """How many units may be under way at once now."""
        ...

    def submit(self, trials: Sequence[Trial]) -> Future[Any]:
        """Have a unit measured."""
        ...

    def wait(self, futures: Collection[Future[Any]]) -> list[Future[Any]]:
        """Return the units that are done, none where none was for a moment."""
        ...

    def rows(self, future: Future[Any]) -> list[Measurement]:
        """Return the rows of a unit that is done; raises what keeps everything from being measured."""
        ...


class Alone:
    """A crew of one machine, which measures in this thread."""

    alone = True
    size = 1

    def __init__(self, machine: Runner) -> None:
        """Measure with a machine that the caller closes."""
        self._machine = machine

    def submit(self, trials: Sequence[Trial]) -> Future[list[Measurement]]:
        """Measure a unit."""
        done: Future[list[Measurement]] = Future()
        done.set_result(self._machine.run(trials))
        return done

    def wait(self, futures: Collection[Future[list[Measurement]]]) -> list[Future[list[Measurement]]]:
        """Return every unit: none is submitted without being measured."""
        return list(futures)

    def rows(self, future: Future[list[Measurement]]) -> list[Measurement]:
        """Return the rows of a unit."""
        return future.result()


class Sweep:
    """The units of one tune that are under way."""

    def __init__(
        self,
        crew: Crew,
        store: StoresMeasurements,
        progress: SweepProgress,
        *,
        may_store: Callable[[], None] = lambda: None,
    ) -> None:
        """Hand out nothing yet.

        Args:
            crew: who measures.
            store: where rows go.
            progress: who listens.
            may_store: raises where rows must not be stored any more.
        """
        self.crew = crew
        self._store = store
        self._progress = progress
        self._may_store = may_store
        self._under_way: dict[Future[Any], tuple[TrialRequest, ...]] = {}
        self._last_batch = -1
        self.measured = 0
        """How many rows were stored."""

    @property
    def room(self) -> int:
        """How many more units could be measured at once now."""
        return self.crew.size - len(self._under_way)

    @property
    def pending(self) -> list[TrialRequest]:
        """What is under way."""
        return [asked for unit in self._under_way.values() for asked in unit]

    def next_batch(self, wanted: int) -> int:
        """Number a batch: as wanted, or beyond those that were numbered before; no two units share a number."""
        self._last_batch = max(wanted, self._last_batch + 1)
        return self._last_batch

    def start(self, requests: Sequence[TrialRequest], trials: Sequence[Trial]) -> Future[Any]:
        """Hand out a unit: the trials of these requests."""
        self._progress.started(trials)
        future = self.crew.submit(trials)
        self._under_way[future] = tuple(requests)
        return future

    def collect(self) -> dict[Future[Any], list[Measurement]]:
        """Wait for units, at most for a moment, and store their rows.

        Raises:
            AutotuneError: nothing can be measured any more; what came before is stored.
        """
        found: dict[Future[Any], list[Measurement]] = {}
        for future in self.crew.wait(self._under_way):
            rows = self.crew.rows(future)
            self._may_store()
            for row in rows:
                self._store.put(row)
                self.measured += 1
                self._progress.finished(row)
            del self._under_way[future]
            found[future] = rows
        return found


def units_of(requests: Iterable[TrialRequest], *, alone: bool) -> list[list[TrialRequest]]:
    """Divide a batch into units.

    What is timed at one case stays together, since it is compared; what is only compiled is a unit each. A machine
    that is alone gets everything in one unit, whose programs it compiles side by side.
    """
    if alone:
        return [list(requests)]
    timed: dict[Any, list[TrialRequest]] = {}
    others: list[list[TrialRequest]] = []
    for asked in requests:
        if asked.rung is Rung.RUN:
            timed.setdefault(asked.cell.case, []).append(asked)
        else:
            others.append([asked])
    return [*timed.values(), *others]
