"""Read `--set KEY=VALUE,VALUE`: each value is a Python literal, and a text is what cannot be one. No jax.

    widths=(8,8),(16,16)        two tuples
    solver=tsit5,dopri5         two texts
    batch=32,64 rate=1e-3       numbers
    dense=true,False bound=None bools and None; `true`, `false` and `null` as other languages write them
    name="8"                    a text that would be a number

Commas inside brackets and quotes separate nothing.
"""

import ast
from collections.abc import Iterable
from typing import Any

from autotune.errors import AutotuneError
from profiles import RecordError, Scalar, read_value

_WORDS = {"true": True, "false": False, "null": None}
_BRACKETS = {"(": ")", "[": "]", "{": "}"}


def set_option(texts: Iterable[str]) -> dict[str, tuple[Scalar, ...]]:
    """Read the option, repeatable; the same key again adds values.

    Raises:
        AutotuneError: a text is not KEY=VALUE, or a bracket in it is never closed.
    """
    values: dict[str, list[Scalar]] = {}
    for text in texts:
        key, equals, listed = text.partition("=")
        found = _split(text, listed)
        if not equals or not key.strip().isidentifier() or not found:
            raise AutotuneError(f"--set {text!r} is not KEY=VALUE[,VALUE…], KEY a parameter that the factory takes")
        values.setdefault(key.strip(), []).extend(found)
    return {key: unique(listed) for key, listed in values.items()}


def unique(values: Iterable[Scalar]) -> tuple[Scalar, ...]:
    """Drop repeats, keeping order; 1, 1.0 and True are three values."""
    return tuple({(type(value), value): value for value in values}.values())


def as_written(value: Any) -> str:
    """Write a value so that `set_option` reads it back: a text as it is where it is one by itself."""
    return value if isinstance(value, str) and _stands_by_itself(value) else repr(value)


def _stands_by_itself(text: str) -> bool:
    """Return whether a text needs no quotes."""
    try:
        return bool(text) and text.strip() == text and _split(text, text) == [text]
    except AutotuneError:  # a bracket in it is never closed
        return False


def _split(whole: str, rest: str) -> list[Scalar]:
    """Read value after value; a literal ends at the first comma up to which it is one."""
    found: list[Scalar] = []
    start = 0
    while start < len(rest):
        ends = [place for place in range(start, len(rest)) if rest[place] == ","] + [len(rest)]
        for end in ends:
            literal, value = _literal(rest[start:end])
            if literal:
                break
        else:
            end = _end_of_text(whole, rest, start)
            value = rest[start:end].strip()
        if rest[start:end].strip():
            found.append(read_value(value))
        start = end + 1
    return found


def _literal(text: str) -> tuple[bool, Any]:
    """Read a text as a literal; return whether it is one, and its value."""
    text = text.strip()
    if text.lower() in _WORDS:
        return True, _WORDS[text.lower()]
    try:
        value = ast.literal_eval(text)
        read_value(value)
    except (ValueError, SyntaxError, RecordError, MemoryError, RecursionError, TypeError):
        return False, None
    return True, value


def _end_of_text(whole: str, rest: str, start: int) -> int:
    """Find the comma that ends a text: the first outside brackets."""
    closing: list[str] = []
    for place in range(start, len(rest)):
        character = rest[place]
        if character in _BRACKETS:
            closing.append(_BRACKETS[character])
        elif closing and character == closing[-1]:
            closing.pop()
        elif character == "," and not closing:
            return place
    if closing:
        raise AutotuneError(
            f"--set {whole!r}: {closing[-1]!r} is missing; write a Python literal, or quote what is meant as a text"
        )
    return len(rest)
