"""The store's schema: the steps make what the code reads, once, whole, and never from a newer version."""

import contextlib
import dataclasses
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from profiles import SCHEMA_VERSION, DeviceKey, StoreError, StoreVersionError, Tier, open_store
from profiles.store.migrations import STEPS, Step, migrate
from profiles.store.schema import METADATA
from tests.conftest import REPOSITORY
from tests.profiles.makers import a_measurement, same

ASSETS = REPOSITORY / "tests" / "assets"


@pytest.fixture
def memory() -> Iterator[Callable[[], sa.Engine]]:
    """Makes databases in memory whose DDL is transactional, as the store's own engine makes it."""
    from profiles import parse_url
    from profiles.store.engine import make_engine

    with contextlib.ExitStack() as opened:

        def make() -> sa.Engine:
            engine = make_engine(parse_url("sqlite://"), read_only=False, busy_seconds=1.0)
            opened.callback(engine.dispose)
            return engine

        yield make


def shape(engine: sa.Engine) -> dict[str, object]:
    """Tables, columns with type and nullability, keys and indices, as the database itself tells them."""
    inspector = sa.inspect(engine)
    return {
        table: (
            {c["name"]: (str(c["type"]), c["nullable"]) for c in inspector.get_columns(table)},
            inspector.get_pk_constraint(table)["constrained_columns"],
            sorted((index["name"], tuple(index["column_names"])) for index in inspector.get_indexes(table)),
        )
        for table in inspector.get_table_names()
    }


def test_the_steps_make_the_tables_that_the_code_reads(memory: Callable[[], sa.Engine]):
    """A store made by the migrations has exactly the columns, types, keys and indices of the schema."""
    stepped, described = memory(), memory()
    migrate(stepped.begin, "x", applied_by="test")
    METADATA.create_all(described)
    assert shape(stepped) == shape(described)


def test_versions_count_up_from_one():
    """Steps are numbered without gaps, and the last is the version of the schema."""
    assert [step.version for step in STEPS] == list(range(1, SCHEMA_VERSION + 1))


def test_a_step_is_applied_once_with_its_record(memory: Callable[[], sa.Engine]):
    """Every step leaves one record; a second migration applies nothing."""
    engine = memory()
    assert migrate(engine.begin, "x", applied_by="1.2.3") == len(STEPS)
    assert migrate(engine.begin, "x", applied_by="9") == 0
    with engine.connect() as connection:
        rows = connection.exec_driver_sql("SELECT version, applied_by FROM ckpt_tune_schema").fetchall()
    assert [tuple(row) for row in rows] == [(step.version, "1.2.3") for step in STEPS]


def test_a_step_that_fails_half_way_leaves_the_version_before_it(memory: Callable[[], sa.Engine]):
    """A step and its record are one transaction: what it did before it failed is gone, later it goes through."""

    def half(connection: sa.Connection) -> None:
        connection.exec_driver_sql("CREATE TABLE half (a INTEGER)")
        raise RuntimeError("killed here")

    def whole(connection: sa.Connection) -> None:
        connection.exec_driver_sql("CREATE TABLE half (a INTEGER)")

    engine = memory()
    migrate(engine.begin, "x", applied_by="test")
    before = shape(engine)
    with pytest.raises(RuntimeError, match="killed here"):
        migrate(engine.begin, "x", steps=[*STEPS, Step(SCHEMA_VERSION + 1, half)], applied_by="test")
    assert shape(engine) == before
    with engine.connect() as connection:
        newest = connection.exec_driver_sql("SELECT max(version) FROM ckpt_tune_schema").scalar()
    assert newest == SCHEMA_VERSION
    assert migrate(engine.begin, "x", steps=[*STEPS, Step(SCHEMA_VERSION + 1, whole)], applied_by="test") == 1


def test_an_older_store_is_upgraded_when_it_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A store at an earlier version keeps its rows and gains the new step; to read only it is refused with a word."""
    path = tmp_path / "s.db"
    with open_store(str(path)) as store:
        store.put(a_measurement())

    def more(connection: sa.Connection) -> None:
        connection.exec_driver_sql("CREATE TABLE more (a INTEGER)")

    steps = (*STEPS, Step(SCHEMA_VERSION + 1, more))
    monkeypatch.setattr("profiles.store.store.SCHEMA_VERSION", SCHEMA_VERSION + 1)
    monkeypatch.setattr("profiles.store.migrations.migrate.__kwdefaults__", {"steps": steps})
    monkeypatch.setattr("profiles.store.migrations.check_version.__kwdefaults__", {"known": SCHEMA_VERSION + 1})
    with pytest.raises(StoreError, match=f"older schema version {SCHEMA_VERSION}"):
        open_store(str(path), read_only=True)
    with open_store(str(path)) as store:
        assert store.measurements() == [a_measurement()]
    with sqlite3.connect(path) as raw:
        assert raw.execute("SELECT max(version) FROM ckpt_tune_schema").fetchone() == (SCHEMA_VERSION + 1,)
        assert raw.execute("SELECT count(*) FROM more").fetchone() == (0,)
    raw.close()


@pytest.mark.parametrize("read_only", [False, True])
def test_a_store_from_a_newer_version_is_refused_with_both_versions(tmp_path: Path, read_only: bool):
    """The message names the store's version and ours, and the file stays as it is."""
    path = tmp_path / "s.db"
    open_store(str(path)).close()
    with sqlite3.connect(path) as raw:
        raw.execute("INSERT INTO ckpt_tune_schema VALUES (?, 'later', '9.9')", (SCHEMA_VERSION + 41,))
    raw.close()
    before = path.read_bytes()
    with pytest.raises(StoreVersionError, match=rf"version {SCHEMA_VERSION + 41}, .* up to {SCHEMA_VERSION}\b"):
        open_store(str(path), read_only=read_only)
    assert path.read_bytes() == before


def frozen_rows(version: int):
    """The rows that every frozen database was given when its schema was released."""
    rows = [
        a_measurement(set_values={"batch": 4, "solver": "Tsit5"}),
        a_measurement(
            horizon=100.0,
            tolerance=None,
            status="out_of_memory",
            message='RESOURCE_EXHAUSTED: out of\n"memory"',
            peak_bytes=None,
            peak_source=None,
            run_seconds=(),
            minutes=1,
        ),
    ]
    tier = Tier(name="disk", windows=1000, transfer_cost=0.25)
    rows += [a_measurement(tier=tier, minutes=2)] if version >= 2 else []
    planned = DeviceKey(platform="tpu", kind="TPU v5 lite", count=4, memory_bytes=16 * 10**9, planned=True)
    held = a_measurement(device=planned, host_bytes=7, compiled_peak_bytes=8, minutes=3)
    return [*rows, held] if version >= 3 else rows


def test_every_released_schema_has_its_frozen_database():
    """No schema is released without a file of it."""
    assert sorted(path.name for path in ASSETS.glob("store_v*.db")) == [f"store_v{s.version}.db" for s in STEPS]


@pytest.mark.parametrize("version", [step.version for step in STEPS])
def test_a_store_of_every_released_schema_opens_with_all_it_held(tmp_path: Path, version: int):
    """A database file kept from the release opens today, upgraded, with its rows, notes and names."""
    path = tmp_path / "s.db"
    shutil.copy(ASSETS / f"store_v{version}.db", path)
    with open_store(str(path)) as store:
        found = store.measurements()
        assert store.get_note("law", "spirals:make") == {"bytes_per_checkpoint": 1024.5}
        assert store.profile("first light").measurements == tuple(row for row in found if not row.device.planned)
    expected = [dataclasses.replace(row) for row in frozen_rows(version)]
    assert all(same(one, other) for one, other in zip(found, expected, strict=True))
    with sqlite3.connect(path) as raw:
        assert raw.execute("SELECT max(version) FROM ckpt_tune_schema").fetchone() == (SCHEMA_VERSION,)
    raw.close()
