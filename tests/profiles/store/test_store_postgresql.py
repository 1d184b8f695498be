"""The store on PostgreSQL: the contract, and a server that goes away. Needs a server of the tests' own."""

import os
import time
import uuid

import pytest
import sqlalchemy as sa

from profiles import StoreError, open_store, parse_url
from tests.contracts.store import SharedStoreContract
from tests.profiles.makers import a_measurement

SERVER = os.environ.get("CKPT_TUNE_TEST_POSTGRESQL", "")

needs_server = pytest.mark.skipif(
    not SERVER, reason="CKPT_TUNE_TEST_POSTGRESQL names no PostgreSQL server (postgresql+psycopg://user@host/database)"
)


@pytest.fixture
def url():
    """An empty schema on the tests' server, gone afterwards."""
    name = f"ckpt_tune_{uuid.uuid4().hex[:12]}"
    engine = sa.create_engine(parse_url(SERVER))
    with engine.begin() as connection:
        connection.exec_driver_sql(f"CREATE SCHEMA {name}")
    named = parse_url(SERVER).update_query_dict({"options": f"-csearch_path={name}", "application_name": name})
    yield named.render_as_string(hide_password=False)
    with engine.begin() as connection:
        connection.exec_driver_sql(f"DROP SCHEMA {name} CASCADE")
    engine.dispose()


@needs_server
class TestPostgresql(SharedStoreContract):
    """The contract on PostgreSQL."""

    @pytest.fixture
    def url(self, url: str) -> str:
        """An empty schema on the tests' server."""
        return url


@needs_server
def test_no_connection_is_held_between_two_calls(url: str):
    """A store that is open but idle holds no connection, so none can be lost or left behind."""
    store = open_store(url)
    store.put(a_measurement())
    question = sa.text("SELECT count(*) FROM pg_stat_activity WHERE application_name = :name")
    name = sa.engine.make_url(url).query["application_name"]
    engine = sa.create_engine(parse_url(SERVER))
    for _ in range(100):  # a server process takes a moment to notice that its client is gone
        with engine.begin() as connection:
            held = connection.execute(question, {"name": name}).scalar()
        if held == 0:
            break
        time.sleep(0.05)
    engine.dispose()
    assert held == 0


@needs_server
def test_a_connection_lost_inside_a_write_is_tried_again(url: str, monkeypatch: pytest.MonkeyPatch):
    """A server that ends the connection in the middle of a transaction gets the same write once more."""
    import profiles.store.store as module

    store = open_store(url)
    write_row, calls = module.write_rows, []

    def dying(connection, *arguments):
        calls.append(1)
        write_row(connection, *arguments)
        if len(calls) == 1:
            connection.exec_driver_sql("SELECT pg_terminate_backend(pg_backend_pid())")

    monkeypatch.setattr(module, "write_rows", dying)
    store.put(a_measurement())
    assert len(calls) == 2
    assert store.measurements() == [a_measurement()]
    store.close()


def test_a_server_that_is_not_there_is_said_without_the_password():
    """One line names the server, hides the password and says what to do."""
    pytest.importorskip("psycopg")
    with pytest.raises(StoreError, match="the database says") as error:
        open_store("postgresql://user:secret@127.0.0.1:1/none?connect_timeout=2")
    assert "\n" not in str(error.value)
    assert "secret" not in str(error.value)
    assert "127.0.0.1" in str(error.value)
