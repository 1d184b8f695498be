"""Measurements as one JSON document, as files of `profiles export` and the service over HTTP hold them."""

from collections.abc import Iterable, Mapping
from typing import Any

from profiles.errors import RecordError
from profiles.records.flat import flatten, time_of, time_text, unflatten
from profiles.records.records import Measurement

JSON_FORMAT = {"format": "ckpt-tune measurements", "schema_version": 1}
"""What a document of measurements says of itself."""


def to_document(rows: Iterable[Measurement]) -> dict[str, Any]:
    """Write measurements as a document of plain JSON values."""
    return {**JSON_FORMAT, "measurements": [_plain(flatten(row)) for row in rows]}


def rows_in_document(document: Any) -> list[dict[str, Any]]:
    """List the flat rows of a document, their times read.

    Raises:
        ValueError: it is no document of measurements, or of another version.
        KeyError: a row has no time.
        TypeError: a row is no mapping.
    """
    found = {key: document.get(key) for key in JSON_FORMAT} if isinstance(document, dict) else document
    if found != JSON_FORMAT:
        raise ValueError(f"it should say {JSON_FORMAT}, it says {str(found)[:80]}")
    return [{**values, "measured_at": time_of(values["measured_at"])} for values in document["measurements"]]


def from_document(document: Any) -> list[Measurement]:
    """Read the measurements of a document.

    Raises:
        RecordError: it is none, or one of its rows is not a measurement (its number is given).
    """
    try:
        listed = rows_in_document(document)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RecordError(f"not a document of measurements as ckpt-tune exports them: {error}") from error
    found = []
    for number, values in enumerate(listed, start=1):
        try:
            found.append(unflatten(values))
        except RecordError as error:
            raise RecordError(f"row {number}: {error}") from error
    return found


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Write the values of a flat row as JSON holds them."""
    return {name: time_text(value) if hasattr(value, "isoformat") else value for name, value in values.items()}
