"""How a store's tables come about, one versioned step after the other.

Each step runs in one transaction together with the row that records it, so a store is always exactly at one version,
whatever kills the process. A released step is never changed; a new one is added, `profiles.store.schema` follows, and a
database file of the released version joins `tests/assets`. A store from a newer version is refused: its rows may mean
something that this version does not know.
"""

import dataclasses
import datetime as dt
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import sqlalchemy as sa

from profiles.errors import StoreVersionError
from profiles.store.schema import VERSIONS

_LOCK_NUMBER = 0x636B7074  # "ckpt": PostgreSQL's advisory locks are named by a number


@dataclasses.dataclass(frozen=True, slots=True)
class Step:
    """One migration: the version that it leads to and what it does to a connection."""

    version: int
    apply: Callable[[sa.Connection], None]


def _first_tables(connection: sa.Connection) -> None:
    """Make the tables of version 1. Written out here, since `profiles.store.schema` moves on and this must not."""
    key, short, long, whole, real = sa.String(64), sa.String(255), sa.Text(), sa.BigInteger(), sa.Double()
    required: dict[str, sa.types.TypeEngine] = {
        "study": short, "problem_name": short, "problem_fingerprint": key, "problem_components": long,
        "device_platform": short, "device_kind": short, "device_count": whole, "adjoint": short, "checkpoints": whole,
        "set_values": long, "x64": sa.Boolean(), "xla_flags": long, "allocator": long, "mesh": long, "repeat": whole,
        "run_seconds": long, "status": short, "message": long, "versions": long, "host": long, "measured_at": long,
    }  # fmt: skip
    optional: dict[str, sa.types.TypeEngine] = {
        "device_memory_bytes": whole, "horizon": long, "tolerance": real, "expected_steps": whole, "steps": whole,
        "accepted": whole, "rejected": whole, "executed_steps": whole, "recompute_factor": real, "temp_bytes": whole,
        "argument_bytes": whole, "output_bytes": whole, "alias_bytes": whole, "constant_bytes": whole,
        "compiled_bytes": whole, "run_bytes": whole, "peak_bytes": whole, "peak_source": short, "trace_seconds": real,
        "compile_seconds": real, "seed": whole,
    }  # fmt: skip
    tables = sa.MetaData()
    sa.Table(
        "ckpt_tune_measurements",
        tables,
        sa.Column("key", key, primary_key=True),
        *(sa.Column(name, kind, nullable=False) for name, kind in required.items()),
        *(sa.Column(name, kind, nullable=True) for name, kind in optional.items()),
        sa.Index("ckpt_tune_measurements_by_study", "study"),
        sa.Index("ckpt_tune_measurements_by_problem", "problem_name"),
    )
    sa.Table(
        "ckpt_tune_notes",
        tables,
        sa.Column("kind", key, primary_key=True),
        sa.Column("key", short, primary_key=True),
        sa.Column("value", long, nullable=False),
        sa.Column("written_at", long, nullable=False),
    )
    tables.create_all(connection, checkfirst=False)


def _tiers(connection: sa.Connection) -> None:
    """Add which tier a row was measured with; those of version 1 had none."""
    added: dict[str, sa.types.TypeEngine] = {"windows": sa.BigInteger(), "transfer_cost": sa.Double()}
    columns = [f"{name} {kind.compile(connection.dialect)}" for name, kind in added.items()]
    for column in ("tier VARCHAR(255) DEFAULT '' NOT NULL", *columns):
        connection.execute(sa.text(f"ALTER TABLE ckpt_tune_measurements ADD COLUMN {column}"))


def _planned(connection: sa.Connection) -> None:
    """Add what is compiled for devices that are not there; the rows of versions 1 and 2 were all measured."""
    size = sa.BigInteger().compile(connection.dialect)
    for column in (
        "device_planned BOOLEAN DEFAULT FALSE NOT NULL",
        f"host_bytes {size}",
        f"compiled_peak_bytes {size}",
    ):
        connection.execute(sa.text(f"ALTER TABLE ckpt_tune_measurements ADD COLUMN {column}"))


STEPS: tuple[Step, ...] = (Step(1, _first_tables), Step(2, _tiers), Step(3, _planned))
"""Every step, oldest first."""

SCHEMA_VERSION = STEPS[-1].version
"""The version that this ckpt-tune reads and writes."""


def stored_version(connection: sa.Connection) -> int:
    """Read a store's version; 0 where there are no tables of ours."""
    if not sa.inspect(connection).has_table(VERSIONS.name):
        return 0
    return connection.execute(sa.select(sa.func.max(VERSIONS.c.version))).scalar() or 0


def check_version(version: int, place: str, *, known: int = SCHEMA_VERSION) -> None:
    """Refuse a store that is newer than this version.

    Raises:
        StoreVersionError: it is, with both versions named.
    """
    if version > known:
        raise StoreVersionError(
            f"the store {place} has schema version {version}, this ckpt-tune knows up to {known}: "
            "upgrade ckpt-tune, or name another store with --store"
        )


def migrate(
    begin: Callable[[], AbstractContextManager[sa.Connection]],
    place: str,
    *,
    steps: Sequence[Step] = STEPS,
    applied_by: str,
) -> int:
    """Bring a store to the newest version, step by step.

    Args:
        begin: opens one writing transaction as a context manager, committed when it ends well.
        place: the store's name in messages.
        steps: every known step, oldest first.
        applied_by: the version of ckpt-tune, for the record.

    Returns:
        The number of steps that were applied; processes that start at once apply each step once.

    Raises:
        StoreVersionError: the store is newer than the last step.
    """
    applied = 0
    for step in steps:
        with begin() as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK_NUMBER)))
            version = stored_version(connection)
            check_version(version, place, known=steps[-1].version)
            if version >= step.version:
                continue
            if version == 0:
                VERSIONS.create(connection, checkfirst=True)
            step.apply(connection)
            now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
            connection.execute(VERSIONS.insert().values(version=step.version, applied_at=now, applied_by=applied_by))
            applied += 1
    return applied
