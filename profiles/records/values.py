"""What a swept `--set` value may be: None, a bool, a number, a text, or any other Python literal.

A literal that is not a scalar (a tuple, a list, a dict) is kept as its text, so that it can key a row and stands in
every database and file format; `plain_value` gives the value itself.
"""

import ast
import dataclasses
from collections.abc import Mapping
from typing import Any

from profiles.errors import RecordError


@dataclasses.dataclass(frozen=True, slots=True)
class Literal:
    """A Python literal that is not a scalar, by its text as `repr` writes it; equal texts are equal values."""

    literal: str

    @property
    def value(self) -> Any:
        """The value itself, made anew each time."""
        return ast.literal_eval(self.literal)

    def __str__(self) -> str:
        return self.literal

    def __repr__(self) -> str:
        return self.literal


Scalar = bool | int | float | str | Literal | None
"""What a swept `--set` value may be, as records hold it."""


def clean_text(value: Any) -> str:
    """Make a string that every database and file format can hold: no NUL and no lone surrogate."""
    return str(value).replace("\x00", "\ufffd").encode("utf-8", "replace").decode("utf-8")


def read_value(value: Any) -> Scalar:
    """Read a `--set` value, as a person, a library or a store gives it.

    Raises:
        RecordError: it is not a Python literal.
    """
    if value is None or isinstance(value, Literal):
        return value
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, Mapping) and list(value) == ["literal"] and isinstance(value["literal"], str):
        return read_value(_evaluated(value["literal"]))
    if isinstance(value, tuple | list | dict | set | frozenset | bytes | complex):
        text = clean_text(repr(value))
        if _evaluated(text) != value:
            raise RecordError(f"a --set value must be a Python literal, found {value!r}")
        return Literal(text)
    item = getattr(value, "item", None)
    plain = item() if callable(item) else value
    if not isinstance(plain, bool | int | float) or plain != plain:  # NaN equals nothing, so it can key no row
        raise RecordError(f"a --set value must be a Python literal, found {value!r} ({type(value).__name__})")
    return plain


def _evaluated(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
        raise RecordError(f"a --set value must be a Python literal, found {text!r}") from error


def read_values(values: Mapping[str, Any]) -> dict[str, Scalar]:
    """Read `--set` values by key."""
    return {key: read_value(value) for key, value in values.items()}


def plain_value(value: Scalar) -> Any:
    """Give the Python value that a factory gets."""
    return value.value if isinstance(value, Literal) else value


def stored_value(value: Scalar) -> Any:
    """Write a value as JSON holds it; `read_value` reads it back, a tuple as a tuple and a list as a list."""
    return {"literal": value.literal} if isinstance(value, Literal) else value


def stored_values(values: Mapping[str, Scalar]) -> dict[str, Any]:
    """Write `--set` values by key as JSON holds them."""
    return {key: stored_value(value) for key, value in values.items()}
