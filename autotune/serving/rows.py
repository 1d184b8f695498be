"""Rows that a client sends: what they must be, as a schema and as a check, before a database sees them."""

import json
from typing import Any

from autotune.serving.problems import Refusal
from profiles import COLUMNS, AdjointName, Measurement, PeakSource, RecordError, Status, from_document

MOST_ROWS = 1000
"""Rows in one answer, or in one request."""
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
_WHOLE = {"type": "integer", "minimum": 0, "maximum": 2**63 - 1}
_OWN: dict[str, dict[str, Any]] = {
    "device_count": _WHOLE | {"minimum": 1},
    "checkpoints": _WHOLE,
    "repeat": _WHOLE,
    "seed": {"type": ["integer", "null"], "minimum": -(2**63), "maximum": 2**63 - 1},
    "horizon": {"type": ["number", "null"], "minimum": -(2**53), "maximum": 2**53},
    "set_values": {"type": "object", "additionalProperties": {"type": ["string", "number", "boolean", "null"]}},
    "versions": {"type": "object", "additionalProperties": {"type": "string"}},
    "problem_components": {"type": "object", "additionalProperties": {"type": "string"}},
    "measured_at": {"type": "string", "format": "date-time", "pattern": r"^[12][0-9]{3}-.*(Z|[+-][0-9:]+)$"},
}
"""Columns that hold less than their kind does."""
_WITH_A_TIER = {
    "if": {"properties": {"tier": {"enum": ["host", "disk"]}}},
    "then": {
        "properties": {"windows": _WHOLE | {"minimum": 1}, "transfer_cost": {"type": "number", "minimum": 0}},
    },
}


def _column_schema(column: Any) -> dict[str, Any]:
    found = dict(_KINDS[str(column.kind)])
    if column.name in _CHOICES:
        found = {"enum": _CHOICES[column.name]}
    elif column.name in _OWN:
        found = dict(_OWN[column.name])
    elif column.name in _SHORT:
        found["maxLength"] = _MOST_CHARACTERS
    unit = f" ({column.unit})" if column.unit else ""
    if column.name == "set_values":
        unit = '; a tuple, say, which JSON has no word for, is {"literal": "(1, 2)"}'
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
            "maxItems": MOST_ROWS,
            "items": {
                "type": "object",
                "title": "Measurement",
                "required": [column.name for column in COLUMNS if column.name not in _DERIVED],
                "properties": {column.name: _column_schema(column) for column in COLUMNS},
                **_WITH_A_TIER,
            },
        },
    },
}
"""The document of `ckpt-tune profiles export FILE.json`, as JSON Schema has it."""
_INTEGERS = tuple(column.name for column in COLUMNS if str(column.kind) == "integer")
MEASUREMENTS_REF = "#/components/schemas/Measurements"


def checked_rows(raw: bytes) -> list[Measurement]:
    """Read the rows of a request's body.

    Raises:
        Refusal: it is not such a document, holds too many rows, or one that a store cannot hold.
    """
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise Refusal(400, "bad-request", f"the body is not JSON: {error}") from None
    _bring_whole_numbers_home(document)
    _check_types(document)
    try:
        rows = from_document(document)
    except (RecordError, RecursionError) as error:
        raise Refusal(422, "bad-rows", str(error)) from None
    if len(rows) > MOST_ROWS:
        raise Refusal(413, "too-large", f"{len(rows)} rows came at once, {MOST_ROWS} are taken: send several requests")
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


_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,), "integer": (int,), "number": (int, float), "boolean": (bool,), "null": (type(None),),
    "array": (list,), "object": (dict,),
}  # fmt: skip


def _check_types(document: Any) -> None:
    """Look whether every column holds what its schema says; what holds together is left to the record.

    Raises:
        Refusal: one does not.
    """
    rows = document.get("measurements") if isinstance(document, dict) else None
    columns = DOCUMENT_SCHEMA["properties"]["measurements"]["items"]["properties"]
    for number, row in enumerate(rows if isinstance(rows, list) else (), start=1):
        for name, schema in columns.items() if isinstance(row, dict) else ():
            if name in row and not _is_of(schema, row[name]):
                wanted = schema.get("type", schema.get("enum"))
                found = repr(row[name])[:60]
                raise Refusal(422, "bad-rows", f"row {number}: {name} is one of {wanted}, found {found}")


def _is_of(schema: dict[str, Any], value: Any) -> bool:
    """Tell whether a value has the type that a schema names, and so its parts."""
    if "enum" in schema:
        return value in schema["enum"]
    named = schema["type"]
    kinds = (named,) if isinstance(named, str) else named
    if isinstance(value, bool):
        return "boolean" in kinds
    if not any(isinstance(value, _TYPES[kind]) for kind in kinds):
        return False
    if isinstance(value, list) and "items" in schema:
        return all(_is_of(schema["items"], one) for one in value)
    if isinstance(value, dict) and "additionalProperties" in schema:
        parts = [one for one in value.values() if not (isinstance(one, dict) and set(one) == {"literal"})]
        return all(_is_of(schema["additionalProperties"], one) for one in parts)
    return True


def _bring_whole_numbers_home(document: Any) -> None:
    """Read 3.0 as 3 where a column holds whole numbers: to JSON Schema they are one."""
    rows = document.get("measurements") if isinstance(document, dict) else None
    for row in rows if isinstance(rows, list) else ():
        for name in _INTEGERS if isinstance(row, dict) else ():
            if isinstance(row.get(name), float) and row[name].is_integer():
                row[name] = int(row[name])
