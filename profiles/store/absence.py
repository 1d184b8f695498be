"""What a served store goes on with while its service is away: what it read last, and a spool for what it would write.

Rows that would be written wait in the spool (`profiles.store.spool`), durable, until the service answers again: to this
process or to the next that opens the store to write. Notes wait in memory, the last of each key. What was read before
is answered from memory, with the rows that wait among the others; what was not, cannot be answered.
"""

import copy
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

from profiles.errors import StoreAwayError
from profiles.records.records import Measurement
from profiles.store.spool import Spool

logger = logging.getLogger(__name__)

TRY_AGAIN_SECONDS = 5.0
"""How often a service that is away is asked whether it is back."""
MOST_ANSWERS = 64
"""Answers that are remembered, the newest."""


class Absence:
    """The state of one served store. Safe to use from several threads."""

    def __init__(self, store: str, place: str) -> None:
        """Take the service to be there.

        Args:
            store: the address, by which the spool is found again.
            place: the store's name for people.
        """
        self.spool = Spool(store)
        self._place = place
        self._lock = threading.Lock()
        self._away = False
        self._next_try = 0.0
        self._answers: OrderedDict[Hashable, Any] = OrderedDict()
        self._notes: dict[tuple[str, str], Any] = {}

    @property
    def is_away(self) -> bool:
        """Whether the service did not answer last."""
        return self._away

    def check(self) -> None:
        """Return where a request is worth a try.

        Raises:
            StoreAwayError: the service was asked a moment ago, and did not answer.
        """
        with self._lock:
            if self._away and time.monotonic() < self._next_try:
                raise StoreAwayError(f"the store {self._place} is away")

    def left(self) -> None:
        """Note that the service did not answer."""
        with self._lock:
            self._away, self._next_try = True, time.monotonic() + TRY_AGAIN_SECONDS

    def came_back(self) -> bool:
        """Note that the service answered, and return whether it was away before."""
        with self._lock:
            was, self._away = self._away, False
            return was

    def remember(self, question: Hashable, answer: Any) -> Any:
        """Keep an answer, and return it."""
        with self._lock:
            self._answers[question] = answer
            self._answers.move_to_end(question)
            while len(self._answers) > MOST_ANSWERS:
                self._answers.popitem(last=False)
        return answer

    def recall(self, question: Hashable, error: StoreAwayError) -> Any:
        """Return what was answered last.

        Raises:
            StoreAwayError: nothing was.
        """
        with self._lock:
            if question not in self._answers:
                raise error
            return copy.copy(self._answers[question])

    def keep_rows(self, rows: Sequence[Measurement]) -> None:
        """Keep rows in the spool until they can be delivered."""
        first = not self.spool.path.exists()
        self.spool.append(rows)
        if first:
            logger.warning(
                "the store %s is away: rows wait in %s until it is back, and nothing is lost",
                self._place,
                self.spool.path,
            )

    def keep_note(self, kind: str, key: str, value: Any) -> None:
        """Keep a note in memory until it can be delivered."""
        with self._lock:
            self._notes[kind, key] = value

    def waiting_rows(self, wanted: Mapping[str, Any]) -> list[Measurement]:
        """List the rows that wait and meet the conditions, by the names of a request's parameters."""

        def meets(row: Measurement) -> bool:
            has = {
                "study": row.study, "problem": row.problem.name, "device": row.device.kind, "status": str(row.status),
            }  # fmt: skip
            return all(str(value) == has[name] for name, value in wanted.items() if name in has and value is not None)

        return [row for row in self.spool.rows() if meets(row)]

    def deliver(self, put_all: Callable[[Sequence[Measurement]], object], put_note: Callable[..., object]) -> None:
        """Hand over what waits.

        Raises:
            StoreError: the store refuses it, or is away again; it goes on waiting.
        """
        count = self.spool.deliver(put_all)
        if count:
            logger.warning("the store %s is back: %d rows that waited are stored", self._place, count)
        while self._notes:
            with self._lock:
                (kind, key), value = next(iter(self._notes.items()))
            put_note(kind, key, value)
            with self._lock:
                if self._notes.get((kind, key)) is value:
                    del self._notes[kind, key]

    def say_what_waits(self) -> None:
        """Say at the end of a command that rows wait, and what becomes of them."""
        if self._away and self.spool.path.exists():
            logger.warning(
                "the store %s is still away: %d rows wait in %s; the next command that writes to it delivers them",
                self._place, len(self.spool.rows()), self.spool.path,
            )  # fmt: skip
