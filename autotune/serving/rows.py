"""Rows that a client sends: what they must be, as a schema and as a check, before a database sees them."""

import json
from typing import Any

from autotune.serving.problems import Refusal
from profiles import COLUMNS, AdjointName, Measurement, PeakSource, RecordError, Status, from_document

_SHORT = ("study", "problem_name", "device_kind", "device_platform")
_MOST_CHARACTERS = 255
"""Of the texts that a database keeps in columns of a stated length."""
_CHOICES: dict[str, list[Any]] = {
    "adjoint": [str(one) for one in AdjointName],
    "status": [str(one) for one in Status],
    "peak_source": [*(str(one) for one in PeakSource), None],
    "tier": ["", "host", "disk"],
}
_KINDS: dict[str, dict[str, Any]] = {
    "text": {"type": "string"},
    "integer": {"type": ["integer", "null"], "minimum": 0, "maximum": 2**63 - 1},
    "real": {"type": ["number", "null"]},
    "number": {"type": ["number", "null"]},
    "boolean": {"type": "boolean"},
    "reals": {"type": "array", "items": {"type": "number"}},
    "mapping": {"type": "object"},
    "time": {"type": "string", "format": "date-time"},
}
_DERIVED = ("key", "problem_fingerprint")


def _column_schema(column: Any) -> dict[str, Any]:
    found = dict(_KINDS[str(column.kind)])
    if column.name in _CHOICES:
        found = {"enum": _CHOICES[column.name]}
    elif column.name in _SHORT:
        found["maxLength"] = _MOST_CHARACTERS
    unit = f" ({column.unit})" if column.unit else ""
    return {**found, "description": f"{column.meaning}{unit}"}


DOCUMENT_SCHEMA: dict[str, Any] = {
    "type": "object",
    "title": "Measurements",
    "required": ["format", "schema_version", "measurements"],
    "properties": {
        "format": {"const": "ckpt-tune measurements"},
        "schema_version": {"const": 1},
        "measurements": {
            "type": "array",
            "items": {
                "type": "object",
                "title": "Measurement",
                "required": [column.name for column in COLUMNS if column.name not in _DERIVED],
                "properties": {column.name: _column_schema(column) for column in COLUMNS},
            },
        },
    },
}
"""The document of `ckpt-tune profiles export FILE.json`, as JSON Schema has it."""
MEASUREMENTS_REF = "#/components/schemas/Measurements"


def checked_rows(raw: bytes, *, at_most: int) -> list[Measurement]:
    """Read the rows of a request's body.

    Raises:
        Refusal: it is not such a document, holds too many rows, or one that a store cannot hold.
    """
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise Refusal(400, "bad-request", f"the body is not JSON: {error}") from None
    try:
        rows = from_document(document)
    except (RecordError, RecursionError) as error:
        raise Refusal(422, "bad-rows", str(error)) from None
    if len(rows) > at_most:
        raise Refusal(413, "too-large", f"{len(rows)} rows came at once, {at_most} are taken: send several requests")
    for number, row in enumerate(rows, start=1):
        texts = {
            "study": row.study, "problem_name": row.problem.name,
            "device_kind": row.device.kind, "device_platform": row.device.platform,
        }  # fmt: skip
        for name, text in texts.items():
            if len(text) > _MOST_CHARACTERS:
                raise Refusal(
                    422, "bad-rows",
                    f"row {number}: {name} has {len(text)} characters, {_MOST_CHARACTERS} are taken: shorten it",
                )  # fmt: skip
        if row.seed is not None and not -(2**63) <= row.seed < 2**63:
            raise Refusal(422, "bad-rows", f"row {number}: seed must fit in 64 bits, found {row.seed}")
    return rows
