"""Statements that write rows and documents: plain SQL, which every database knows."""

import datetime as dt
import json
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from profiles.errors import StoreError
from profiles.records.records import digest

KEYS_AT_ONCE = 500
"""How many keys one statement names: below every database's limit of parameters."""


def write_rows(connection: sa.Connection, table: sa.Table, keys: Sequence[str], rows: Sequence[dict[str, Any]]) -> None:
    """Update the rows whose keys are there and insert the others."""
    there: set[tuple[Any, ...]] = set()
    for start in range(0, len(rows), KEYS_AT_ONCE):
        some = rows[start : start + KEYS_AT_ONCE]
        last = table.c[keys[-1]].in_([row[keys[-1]] for row in some])
        found = connection.execute(sa.select(*(table.c[key] for key in keys)).where(last))
        there.update(tuple(row) for row in found)
    old = [row for row in rows if tuple(row[key] for key in keys) in there]
    new = [row for row in rows if tuple(row[key] for key in keys) not in there]
    if old:
        where = [table.c[key] == sa.bindparam(f"old_{key}") for key in keys]
        update = (
            sa.update(table).where(*where).values({c.name: sa.bindparam(c.name) for c in table.c if c.name not in keys})
        )
        connection.execute(update, [row | {f"old_{key}": row[key] for key in keys} for row in old])
    if new:
        connection.execute(sa.insert(table), new)


def swap_row(
    connection: sa.Connection, table: sa.Table, old: dict[str, str] | None, new: dict[str, str], keep: bool
) -> bool:
    """Put a document in the place of another one, unless another one than `old` is there.

    Args:
        connection: within a writing transaction.
        table: where documents are.
        old: what must be there; None for nothing.
        new: what is there then; only its kind and key count where nothing shall be.
        keep: whether `new` shall be there.

    Returns:
        Whether that was done.
    """
    there = (table.c.kind == new["kind"]) & (table.c.key == new["key"])
    if old is not None:
        same = there & (table.c.value == old["value"])
        change = sa.update(table).where(same).values(new) if keep else sa.delete(table).where(same)
        return connection.execute(change).rowcount == 1
    if connection.execute(sa.select(table.c.key).where(there)).first() is not None:
        return False
    if keep:
        connection.execute(sa.insert(table), [new])
    return True


def try_to_write(connection: sa.Connection, *tables: sa.Table) -> None:
    """Have a database say whether rows may be inserted, changed and deleted, without doing any of it."""
    for table in tables:
        nothing = sa.select(*table.c).where(sa.false())
        connection.execute(sa.insert(table).from_select([column.name for column in table.c], nothing))
        connection.execute(sa.update(table).where(sa.false()).values({next(iter(table.c)).name: ""}))
        connection.execute(sa.delete(table).where(sa.false()))


def note_row(kind: str, key: str, value: Any) -> dict[str, str]:
    """Write a document as a row of its table.

    Raises:
        StoreError: it is not JSON.
    """
    try:
        text = json.dumps(value, sort_keys=True)
    except (TypeError, ValueError) as error:
        raise StoreError(f"a note of kind {kind!r} must be JSON: {error}") from error
    now = dt.datetime.now(dt.UTC).isoformat(timespec="microseconds")
    return {"kind": kind, "key": note_key(key), "value": text, "written_at": now}


def note_key(key: str) -> str:
    """Fit a note's key in its column."""
    return key if len(key) <= 255 else digest(key)
