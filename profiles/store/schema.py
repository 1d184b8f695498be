"""The tables of a store, as this version of ckpt-tune reads and writes them.

`profiles.store.migrations` makes them step by step; a test holds the two together. Types are chosen to give every value
back exactly on every database: text for what a database would round, re-zone or reorder (horizons, which are int or
float; times; mappings; samples), 64-bit integers for bytes, doubles for the rest.
"""

import json
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from profiles.errors import RecordError
from profiles.records.flat import COLUMNS, NULLABLE_TEXT, Column, Kind, flatten, time_of, time_text, unflatten
from profiles.records.records import Measurement

METADATA = sa.MetaData()

KEY_LENGTH = 64
"""Room for a digest; databases other than SQLite and PostgreSQL index only text of a stated length."""

SHORT_TEXT = frozenset(
    {"study", "problem_name", "device_kind", "device_platform", "adjoint", "status", "peak_source", "tier"}
)
"""Text columns that are searched for, so kept in a type that can be indexed."""


def _column_type(column: Column) -> sa.types.TypeEngine[Any]:
    """Choose the database type of a column."""
    if column.name in ("key", "problem_fingerprint"):
        return sa.String(KEY_LENGTH)
    if column.name in SHORT_TEXT:
        return sa.String(255)
    if column.kind is Kind.INTEGER:
        return sa.BigInteger()
    if column.kind is Kind.REAL:
        return sa.Double()
    return sa.Boolean() if column.kind is Kind.BOOLEAN else sa.Text()


def _nullable(column: Column) -> bool:
    """Return whether a column may be empty; a text never is, but where its absence means unknown."""
    required = (
        "device_count", "device_planned", "checkpoints", "repeat", "x64", "set_values", "versions", "run_seconds",
        "measured_at",
    )  # fmt: skip
    if column.name in required or column.name == "problem_components":
        return False
    return column.kind is not Kind.TEXT or column.name in NULLABLE_TEXT


MEASUREMENTS = sa.Table(
    "ckpt_tune_measurements",
    METADATA,
    *(sa.Column(c.name, _column_type(c), primary_key=c.name == "key", nullable=_nullable(c)) for c in COLUMNS),
    sa.Index("ckpt_tune_measurements_by_study", "study"),
    sa.Index("ckpt_tune_measurements_by_problem", "problem_name"),
)
"""One row per measurement, by `Measurement.key`."""

NOTES = sa.Table(
    "ckpt_tune_notes",
    METADATA,
    sa.Column("kind", sa.String(64), primary_key=True),
    sa.Column("key", sa.String(255), primary_key=True),
    sa.Column("value", sa.Text(), nullable=False),
    sa.Column("written_at", sa.Text(), nullable=False),
)
"""JSON documents by kind and key: observed steps, sizes of tiers, choices, names of profiles."""

VERSIONS = sa.Table(
    "ckpt_tune_schema",
    METADATA,
    sa.Column("version", sa.Integer(), primary_key=True, autoincrement=False),
    sa.Column("applied_at", sa.Text(), nullable=False),
    sa.Column("applied_by", sa.Text(), nullable=False),
)
"""One row per migration that was applied; the largest is the store's version. The same in every version."""


def to_row(measurement: Measurement) -> dict[str, Any]:
    """Write a measurement as a row of `MEASUREMENTS`."""
    values: dict[str, Any] = flatten(measurement)
    for column in COLUMNS:
        value = values[column.name]
        if column.kind in (Kind.MAPPING, Kind.REALS) or (column.kind is Kind.NUMBER and value is not None):
            values[column.name] = json.dumps(value, sort_keys=True)
        elif column.kind is Kind.TIME:
            values[column.name] = time_text(measurement.measured_at)
    return values


def from_row(row: Mapping[str, Any]) -> Measurement:
    """Read a row of `MEASUREMENTS`.

    Raises:
        RecordError: the row is not a measurement.
    """
    values = dict(row)
    for column in COLUMNS:
        value = values.get(column.name)
        try:
            if column.kind in (Kind.MAPPING, Kind.REALS) or (column.kind is Kind.NUMBER and value is not None):
                values[column.name] = json.loads(str(value))
            elif column.kind is Kind.TIME:
                values[column.name] = time_of(str(value))
        except (TypeError, ValueError, RecursionError) as error:
            raise RecordError(f"{column.name} is no {column.kind}: {str(value)[:80]!r}") from error
    return unflatten(values)
