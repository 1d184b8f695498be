"""A store's name without its password, for every message and every output. Plain texts, no SQLAlchemy.

Nothing is parsed as a database library would: a password may hold characters that should have been escaped (`@`, `/`,
`:`, `?`, blanks), and such a library then takes a part of it for a host or a database. So everything between the user's
name and the last `@` counts as password, and so does all that follows `password=`. Too much may be hidden, never too
little.
"""

import os
import re
import sys
from collections.abc import Iterable
from urllib.parse import unquote

HIDDEN = "***"

STORE_VARIABLE = "CKPT_TUNE_STORE"
"""The environment variable that names the store where `--store` does not."""

_SCHEME = re.compile(r"\s*([\w+.-]*):/+")
_OPTION = re.compile(r"(?i)([\w.%-]*(?:pass|pwd|secret|token)[\w.%-]*\s*=).*", re.DOTALL)
_TOKEN = re.compile(r"[\w+.-]*:/+[^\s'\"]+")
_LEAST = 3
"""Shorter pieces are not looked for in other texts: they stand in every word."""


def is_served(text: str) -> bool:
    """Return whether a store's name is the address of a service (`ckpt-tune serve`)."""
    scheme = _SCHEME.match(text)
    return scheme is not None and scheme[1].lower() in ("http", "https")


def without_password(text: str) -> str:
    """Write a store's name, a URL or a path, without its password."""
    scheme = _SCHEME.match(text)
    if scheme is not None and scheme[1] != "sqlite":
        before, after = _at_last(text[scheme.end() :])
        user, colon, _ = before.partition(":")
        if colon:
            text = f"{scheme[0]}{user}:{HIDDEN}@{after}"
    return _OPTION.sub(rf"\1{HIDDEN}", text)


def _at_last(rest: str) -> tuple[str, str]:
    """Split what may be user and password from what follows, at the last `@`, which a library may have escaped."""
    ends = list(re.finditer("@|%40", rest))
    return (rest[: ends[-1].start()], rest[ends[-1].end() :]) if ends else ("", rest)


def hide_passwords(text: str, names: Iterable[str] = ()) -> str:
    """Write any text without passwords: those of URLs that stand in it, and those of stores, wherever they stand.

    Args:
        text: a message, a traceback.
        names: the stores, by their full names, passwords included.
    """
    pieces = {piece for name in names for piece in _secrets(name) if len(piece) >= _LEAST}
    for piece in sorted(pieces, key=len, reverse=True):
        text = text.replace(piece, HIDDEN)
    return _TOKEN.sub(lambda found: without_password(found[0]), text)


def named_stores() -> list[str]:
    """List the stores that this process's environment and command line name, passwords included."""
    spoken = [word.partition("=")[2] if word.startswith("--") else word for word in sys.argv[1:]]
    return [name for name in (os.environ.get(STORE_VARIABLE, ""), *spoken) if name]


def _secrets(name: str) -> Iterable[str]:
    """List what may be the password in a store's name, or a part of it, as written and unescaped."""
    found: list[str] = []
    scheme = _SCHEME.match(name)
    if scheme is not None and scheme[1] != "sqlite":
        _, colon, password = _at_last(name[scheme.end() :])[0].partition(":")
        found += [password, *re.split(r"[@/:?&=\s]|%40", password)] if colon else []
    option = _OPTION.search(name)
    if option is not None:
        value = option[0][len(option[1]) :]
        found += [value, *re.split(r"[&\s]", value)[:1]]
    return [*found, *map(unquote, found)]
