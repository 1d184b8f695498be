"""The tunes under way, as the store's notes tell: what each measures now, done, left, best so far, what failed.

Nobody tells the service that a tune has died. One whose note and whose count of life both stand still for
`GRACE_SECONDS`, as seen from here, is shown as silent.
"""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

from starlette.concurrency import run_in_threadpool

from autotune.serving.problems import Refusal, dumps
from autotune.tuning.announce import UNDER_WAY_NOTE
from autotune.tuning.lease import GRACE_SECONDS, LIFE_NOTE
from profiles import ProfilesError, ProfileStore

POLL_SECONDS = 1.0
KEEP_ALIVE_SECONDS = 15.0
MOST_LISTENERS = 200
_SHOWN = (
    "problem", "study", "device", "adjoint", "budget_bytes", "cases", "began_at", "at", "doing", "done", "left",
    "left_seconds", "best", "failed", "failures",
)  # fmt: skip


class TunesUnderWay:
    """Follows the tunes of a store. Safe to use from several threads."""

    def __init__(self, store: ProfileStore) -> None:
        """Have seen nothing yet."""
        self._store = store
        self._lock = threading.Lock()
        self._seen: dict[str, tuple[Any, float]] = {}
        self._read_at = float("-inf")
        self._states: list[dict[str, Any]] = []
        self._listeners = 0

    def read(self) -> dict[str, Any]:
        """Read the state of every tune, at most once in `POLL_SECONDS` whoever asks.

        Raises:
            StoreError: the store cannot be read.
        """
        with self._lock:
            now = time.monotonic()
            if now - self._read_at >= POLL_SECONDS / 2:
                notes = self._store.notes(UNDER_WAY_NOTE)
                lives = self._store.notes(LIFE_NOTE) if notes else {}
                self._states = [state for key, note in notes.items() if (state := self._state(key, note, lives, now))]
                self._seen = {key: seen for key, seen in self._seen.items() if key in notes}
                self._read_at = now
            return {"schema_version": 1, "tunes": self._states}

    def _state(self, key: str, note: Any, lives: dict[str, Any], now: float) -> dict[str, Any] | None:
        """Bring one note together with the tune's count of life; None where it is no such note."""
        if not isinstance(note, dict) or not isinstance(note.get("problem"), str):
            return None
        signs = (note, lives.get(str(note.get("tune"))))
        if key not in self._seen or self._seen[key][0] != signs:
            self._seen[key] = signs, now
        owner = note.get("owner")
        place = str(owner.get("place", "")) if isinstance(owner, dict) else ""
        state = {name: note.get(name) for name in _SHOWN}
        return {"id": key, "host": place.partition(" ")[0], **state, "silent": now - self._seen[key][1] > GRACE_SECONDS}

    def check_room(self) -> None:
        """Refuse a listener where there are too many.

        Raises:
            Refusal: there are.
        """
        if self._listeners >= MOST_LISTENERS:
            said = f"{MOST_LISTENERS} follow the tunes already; ask /api/v1/tunes instead"
            raise Refusal(429, "too-many", said, headers={"retry-after": "10"})

    async def events(self, ended: Callable[[], bool]) -> AsyncIterator[bytes]:
        """Yield server-sent events, one whenever a state has changed, until the service ends or nobody listens."""
        self._listeners += 1
        try:
            last, spoken = b"", time.monotonic()
            yield b"retry: 2000\n\n"
            while not ended():
                try:
                    data = dumps(await run_in_threadpool(self.read))
                except ProfilesError:
                    data = dumps({"schema_version": 1, "tunes": [], "away": True})
                if data != last:
                    last, spoken = data, time.monotonic()
                    yield b"event: tunes\ndata: " + data + b"\n\n"
                elif time.monotonic() - spoken > KEEP_ALIVE_SECONDS:
                    spoken = time.monotonic()
                    yield b": still here\n\n"
                await asyncio.sleep(POLL_SECONDS)
        finally:
            self._listeners -= 1
