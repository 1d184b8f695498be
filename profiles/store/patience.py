"""A server that goes away and comes back: what is tried again, for how long, and when nobody waits for an answer more.

Every access to a store is one transaction that may run twice. Where a server drops it (it restarts, ends the session,
cuts what was idle), it is tried again with growing waits for `patience_seconds`. A server that takes a request and says
nothing is hung up on after `ANSWER_SECONDS`, which is one such drop. What opens a store waits for no server that is not
there, so that a mistyped address is said at once.
"""

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, IntegrityError, InterfaceError, OperationalError, SQLAlchemyError

from profiles.errors import StoreError

T = TypeVar("T")

PATIENCE_SECONDS = 60.0
"""For how long an access is tried again where the user says nothing else."""
PATIENCE_VARIABLE = "CKPT_TUNE_STORE_PATIENCE"
"""The environment variable that says for how many seconds."""
ANSWER_SECONDS = 60.0
"""A server that does not answer for so long is taken to be gone."""
CONNECT_OPTIONS = {
    "connect_timeout": 10, "keepalives_idle": 20, "keepalives_interval": 5, "keepalives_count": 4,
    "tcp_user_timeout": 30_000,
}  # fmt: skip
"""How PostgreSQL's drivers find out that a server is gone, where the store's URL says nothing else."""

_WAITS = (0.1, 0.3, 1.0, 2.0, 5.0)
"""Seconds before each new try; the last one from then on."""
_CONFLICTS = 20
"""How often two writers may meet on one row before that is an error."""
_HOPELESS = ("28", "3D", "42", "53100", "53200")
"""States (or their classes) in which a server will say the same again: who may not, what is not there, no room."""
_COMING = ("starting up", "shutting down", "in recovery", "not yet accepting", "too many clients", "connection slots")
"""What a server says that is there, and serves nobody yet."""


def patience_seconds() -> float:
    """Return for how long an access is tried again, as the environment or this module says.

    Raises:
        StoreError: the environment's text is no number of seconds.
    """
    text = os.environ.get(PATIENCE_VARIABLE, "").strip()
    try:
        seconds = float(text) if text else PATIENCE_SECONDS
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < 1e6:
        raise StoreError(f"{PATIENCE_VARIABLE} must be a number of seconds from 0, found {text!r}")
    return seconds


def patiently(work: Callable[[], T], seconds: float, *, server: bool, opening: bool = False) -> T:
    """Run an access to a store, again where it may succeed in a moment.

    Args:
        work: one transaction, which may run twice: a lost connection leaves open whether the commit arrived.
        seconds: for how long.
        server: whether a server answers; a file is there or not.
        opening: whether this is the first access, which waits for no server that is not there.

    Raises:
        SQLAlchemyError: what the last try raised.
    """
    until, tries, conflicts = time.monotonic() + seconds, 0, 0
    while True:
        try:
            return work()
        except SQLAlchemyError as error:
            if isinstance(error, IntegrityError):  # another process inserted the same key between our look and ours
                conflicts += 1
                if conflicts > _CONFLICTS:
                    raise
                time.sleep(0.01 * conflicts)
                continue
            wait = _WAITS[min(tries, len(_WAITS) - 1)]
            if not server or not is_away(error, opening=opening) or time.monotonic() + wait > until:
                raise
            tries += 1
            time.sleep(wait)


def is_away(error: BaseException, *, opening: bool = False) -> bool:
    """Return whether a server is gone for now, and may be back in a moment."""
    if not isinstance(error, DBAPIError):
        return False
    state = str(getattr(error.orig, "sqlstate", None) or "")
    if state.startswith(_HOPELESS):
        return False
    if opening and not error.connection_invalidated and not state:
        return any(sign in str(error.orig) for sign in _COMING)
    return error.connection_invalidated or isinstance(error, OperationalError | InterfaceError)


@contextlib.contextmanager
def hung_up_on(connection: sa.Connection) -> Iterator[None]:
    """Hang up on a server that takes longer than `ANSWER_SECONDS`; who waits for its answer sees that it is gone."""
    fileno: Any = getattr(connection.connection.driver_connection, "fileno", None)
    if fileno is None:
        yield
        return
    line = socket.socket(fileno=os.dup(fileno()))
    timer = threading.Timer(ANSWER_SECONDS, _hang_up, (line,))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        line.close()


def _hang_up(line: socket.socket) -> None:
    with contextlib.suppress(OSError):
        line.shutdown(socket.SHUT_RDWR)
