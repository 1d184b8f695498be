"""Who measures a case on a store: one tune at a time, so that two of one problem share their rows and double none.

A tune takes the leases of all its cases, in one order that all tunes have, and gives them back as it ends. Another one
that wants one of them says so in a line, waits, and goes on from the rows that it finds then. A tune that shows no sign
of life for a while (killed, or stopped) loses its leases to who waits; where it wakes up, it stores nothing any more.

Signs of life are counted and not dated: hosts need not agree about the time.
"""

import dataclasses
import secrets
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from autotune.errors import AutotuneError
from autotune.measuring.errands import Owner
from profiles import Case, ProfilesError, StoreAwayError, is_sqlite_file, parse_url

LEASE_NOTE = "lease"
"""Kind of the notes that hold which tune measures a case."""
LIFE_NOTE = "tune alive"
"""Kind of the notes in which a tune counts on while it lives."""
BEAT_SECONDS = 5.0
GRACE_SECONDS = 30.0
"""A tune whose count stands still for this long is taken for dead."""
POLL_SECONDS = 1.0


class SharesNotes(Protocol):
    """The part of a store that leases need."""

    @property
    def url(self) -> str:
        """Its name for other processes."""
        ...

    def get_note(self, kind: str, key: str) -> Any:
        """Read a document."""
        ...

    def put_note(self, kind: str, key: str, value: Any) -> None:
        """Store a document."""
        ...

    def swap_note(self, kind: str, key: str, old: Any, new: Any) -> bool:
        """Put a document in the place of another one, or of none, unless somebody was faster."""
        ...


class Leases:
    """The cases of one tune on one store. A context manager: taken on the way in, given back on the way out."""

    def __init__(self, store: SharesNotes, study: str, cases: Iterable[Case], *, note: Callable[[str], None]) -> None:
        """Take nothing yet.

        Args:
            store: where leases are noted; one in memory needs none.
            study: the study of the tune's profile.
            cases: what it measures.
            note: called with one line where another tune has to be waited for.
        """
        self._store = store
        self._cases = {f"{study} {_name(case)}": str(case) for case in cases} if _is_shared(store.url) else {}
        self._note = note
        self._mine = {"tune": secrets.token_hex(8), **dataclasses.asdict(Owner.this())}
        self._ended = threading.Event()
        self._beating = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> "Leases":
        if self._cases:
            self._store.put_note(LIFE_NOTE, self._mine["tune"], 0)
            self._beating.start()
            try:
                for key in sorted(self._cases):
                    self._take(key)
            except BaseException:
                self.__exit__()
                raise
        return self

    def __exit__(self, *exception: object) -> None:
        self._ended.set()
        if not self._cases:
            return
        self._beating.join()
        try:
            for key in self._cases:
                self._store.swap_note(LEASE_NOTE, key, self._mine, None)
            self._forget(self._mine)
        except ProfilesError:
            pass  # the store is gone; others see that this tune's count stands still

    def check(self) -> None:
        """Refuse to go on where another tune has taken a case over.

        Raises:
            AutotuneError: one has.
        """
        for key, case in self._cases.items():
            try:
                holder = self._store.get_note(LEASE_NOTE, key)
            except StoreAwayError:
                return  # nobody can take it over either; what was measured is kept until the store is back
            if holder != self._mine:
                by = f" ({_who(holder)})" if holder else ""
                raise AutotuneError(
                    f"this tune was silent for over {GRACE_SECONDS:.0f} s, and another one{by} measures {case} now; "
                    "what was finished before is stored, and the same command goes on from there"
                )

    def _take(self, key: str) -> None:
        """Take one lease, waiting for whoever has it."""
        said: Any = None
        seen, since, looked = None, time.monotonic(), time.monotonic()
        while True:
            holder = self._store.get_note(LEASE_NOTE, key)
            life = None if holder is None else self._store.get_note(LIFE_NOTE, holder["tune"])
            # While the store was away, or this process stopped, nobody's signs of life could be seen.
            blind = time.monotonic() - looked > POLL_SECONDS + BEAT_SECONDS
            looked = time.monotonic()
            if (holder, life) != seen or blind:
                seen, since = (holder, life), time.monotonic()
            dead = holder is not None and (_has_ended(holder) or time.monotonic() - since > GRACE_SECONDS)
            if holder is None or dead:
                self._store.swap_note(LEASE_NOTE, key, holder, self._mine)
                if holder is not None:
                    self._forget(holder)
                if self._store.get_note(LEASE_NOTE, key) == self._mine:
                    return
                continue
            if holder != said:
                said = holder
                self._note(
                    f"another tune ({_who(holder)}) measures {self._cases[key]} on this store: waiting for its rows"
                )
            time.sleep(POLL_SECONDS)

    def _forget(self, holder: dict[str, Any]) -> None:
        """Take away the count of a tune that is over."""
        life = self._store.get_note(LIFE_NOTE, holder["tune"])
        if life is not None:
            self._store.swap_note(LIFE_NOTE, holder["tune"], life, None)

    def _beat(self) -> None:
        """Count on until the tune ends."""
        count = 0
        while not self._ended.wait(BEAT_SECONDS):
            count += 1
            try:
                self._store.put_note(LIFE_NOTE, self._mine["tune"], count)
            except ProfilesError:
                continue  # the next one may come through


def _is_shared(url: str) -> bool:
    parsed = parse_url(url)
    return is_sqlite_file(parsed) or parsed.get_backend_name() != "sqlite"


def _name(case: Case) -> str:
    return repr((case.horizon, case.tolerance, tuple(case.set_values), case.x64))


def _who(holder: dict[str, Any]) -> str:
    return f"process {holder['pid']} on {holder['place'].partition(' ')[0]}"


def _has_ended(holder: dict[str, Any]) -> bool:
    """Return whether a tune of this host is known to have ended."""
    return Owner(place=holder["place"], pid=holder["pid"], began=holder["began"]).gone()
