"""Who may: bearer tokens, of which a file keeps digests alone, and browsers that have shown one.

A token is 256 random bits, so that a plain digest of it tells nobody the token. A line of the file is one token: its
name, its right, its digest, when it was made. Taking a line away takes the right away, at once.
"""

import dataclasses
import datetime as dt
import enum
import hashlib
import hmac
import os
import re
import secrets
import stat
import threading
import time
from pathlib import Path

import platformdirs

from autotune.errors import AutotuneError

PREFIX = "ckpt_"
"""How a token begins, so that one that lies about somewhere is known for what it is."""
SESSION_SECONDS = 12 * 3600.0
MOST_SESSIONS = 1000
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")


class Right(enum.IntEnum):
    """What a token may; each right holds those before it."""

    READ = 1
    WRITE = 2
    DELETE = 3


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """One line of the file."""

    name: str
    right: Right
    digest: str
    made_at: str


def default_path() -> Path:
    """Name the file of tokens that is taken where none is named."""
    return Path(platformdirs.user_config_dir("ckpt-tune", appauthor=False)) / "tokens"


def make_token(path: Path, right: Right, name: str) -> str:
    """Add a token to a file, which is made where it is not there, for its owner alone.

    Returns:
        The token; it is not kept anywhere.

    Raises:
        AutotuneError: the name is none or taken, or the file cannot be written.
    """
    if not _NAME.fullmatch(name):
        raise AutotuneError(f"a token's name is letters, digits, '.', '_' and '-', 64 at most, found {name!r}")
    if any(token.name == name for token in read_tokens(path)):
        raise AutotuneError(f"{path} has a token named {name} already: take its line out first, or choose another name")
    token = PREFIX + secrets.token_urlsafe(32)
    moment = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    line = f"{name} {right.name.lower()} {_digest(token)} {moment}\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(file, line.encode())
        finally:
            os.close(file)
    except OSError as error:
        raise AutotuneError(f"the file of tokens {path} cannot be written: {error.strerror}") from error
    return token


def read_tokens(path: Path) -> tuple[Token, ...]:
    """Read a file of tokens; one that is not there has none.

    Raises:
        AutotuneError: others may write it, it cannot be read, or a line of it is no token.
    """
    try:
        mode = path.stat().st_mode
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ()
    except (OSError, UnicodeDecodeError) as error:
        raise AutotuneError(f"the file of tokens {path} cannot be read: {error}") from error
    if os.name == "posix" and mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise AutotuneError(f"the file of tokens {path} may be written by others than its owner: chmod 600 {path}")
    return tuple(_read_line(path, number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip())


def _read_line(path: Path, number: int, line: str) -> Token:
    parts = line.split()
    rights = {right.name.lower(): right for right in Right}
    if len(parts) != 4 or parts[1] not in rights or not re.fullmatch(r"[0-9a-f]{64}", parts[2]):
        raise AutotuneError(
            f"line {number} of {path} is no token (NAME read|write|delete DIGEST TIME): take it out, and make another "
            "with `ckpt-tune serve token`"
        )
    return Token(name=parts[0], right=rights[parts[1]], digest=parts[2], made_at=parts[3])


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()


class Tokens:
    """The tokens of a file, read again when it changes, and the browsers that have shown one."""

    def __init__(self, path: Path) -> None:
        """Read the file; see `read_tokens`."""
        self._path = path
        self._lock = threading.Lock()
        self._stamp: object = None
        self._tokens: tuple[Token, ...] = ()
        self._sessions: dict[str, tuple[str, float]] = {}
        self._read()

    def __bool__(self) -> bool:
        return bool(self._tokens)

    def find(self, token: str) -> Token | None:
        """Find whose token it is, taking the same time whichever it is."""
        self._read()
        wanted, found = _digest(token), None
        for one in self._tokens:
            if hmac.compare_digest(one.digest, wanted):
                found = one
        return found

    def begin_session(self, token: Token) -> str:
        """Remember a browser that has shown a token, and return what it shows from now on."""
        session = secrets.token_urlsafe(32)
        now = time.monotonic()
        with self._lock:
            self._sessions = {key: kept for key, kept in self._sessions.items() if kept[1] > now}
            while len(self._sessions) >= MOST_SESSIONS:
                del self._sessions[next(iter(self._sessions))]
            self._sessions[_digest(session)] = token.digest, now + SESSION_SECONDS
        return session

    def of_session(self, session: str) -> Token | None:
        """Find the token that a browser has shown, while it is in the file."""
        self._read()
        digest, ends = self._sessions.get(_digest(session), ("", 0.0))
        if ends <= time.monotonic():
            return None
        return next((token for token in self._tokens if token.digest == digest), None)

    def end_session(self, session: str) -> None:
        """Forget a browser."""
        with self._lock:
            self._sessions.pop(_digest(session), None)

    def _read(self) -> None:
        """Read the file where it changed; a file that went wrong meanwhile lets nobody in."""
        try:
            state = self._path.stat()
            stamp: object = (state.st_mtime_ns, state.st_size, state.st_ino)
        except OSError:
            stamp = "gone"
        if stamp == self._stamp:
            return
        with self._lock:
            first = self._stamp is None
            try:
                self._tokens = read_tokens(self._path)
            except AutotuneError:
                if first:
                    raise
                self._tokens = ()
            self._stamp = stamp
