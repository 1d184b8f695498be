"""The store over HTTP: the contract, what each token may, and a service that is away, slow, or of another version."""

import contextlib
import json
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from autotune.serving.tokens import Right
from profiles import NoSuchProfile, ProfileStore, StoreError, StoreVersionError, open_store
from profiles.store import served
from tests.autotune.serving.service import Service, service
from tests.contracts.store import SharedStoreContract
from tests.profiles.makers import a_measurement, a_sweep
from tests.profiles.store.test_store_postgresql import needs_server
from tests.profiles.store.test_store_postgresql import url as postgresql

__all__ = ["postgresql"]


class TestServed(SharedStoreContract):
    """The contract, through a service of an SQLite file and a token that may do everything."""

    @pytest.fixture
    def url(self, tmp_path: Path) -> Iterator[str]:
        """The address of an empty store."""
        with service(str(tmp_path / "profiles.db"), tmp_path) as running:
            yield running.url(Right.DELETE)


@needs_server
class TestServedFromPostgresql(SharedStoreContract):
    """The contract, through a service of a PostgreSQL database."""

    @pytest.fixture
    def url(self, postgresql: str, tmp_path: Path) -> Iterator[str]:
        """The address of an empty store."""
        with service(postgresql, tmp_path) as running:
            yield running.url(Right.DELETE)


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Service]:
    """A service with tokens of an empty store."""
    with service(str(tmp_path / "profiles.db"), tmp_path) as found:
        yield found


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Repeat requests without pauses."""
    monkeypatch.setattr(served, "WAIT_SECONDS", (0.0, 0.0, 0.0))


WRITES = {
    "put": lambda store: store.put(a_measurement()),
    "check_writable": lambda store: store.check_writable(),
    "put_note": lambda store: store.put_note("a", "b", 1),
    "swap_note": lambda store: store.swap_note("a", "b", None, 1),
}


@pytest.mark.parametrize("write", WRITES)
def test_a_token_that_may_read_may_not_write(write: str, running: Service):
    """The line names the token, what it may, and what would be needed; nothing is written."""
    with open_store(running.url(Right.READ)) as store:
        with pytest.raises(StoreError, match=r"the token read may read, this needs one that may write"):
            WRITES[write](store)
        assert store.measurements() == []
        assert store.notes("a") == {}


def test_finding_out_whether_rows_are_taken_and_which_are_there_writes_nothing(running: Service):
    """One who may write is told so; of many keys those of stored rows come back."""
    rows = [a_measurement(repeat=repeat) for repeat in range(3)]
    with open_store(running.url(Right.WRITE)) as store:
        store.check_writable()
        assert store.measurements() == []
        store.put_all(rows[:2])
        keys = [*(row.key for row in rows), *(f"{number:064x}" for number in range(1000))]
        assert store.known_keys(keys) == {row.key for row in rows[:2]}
        assert store.known_keys([]) == set()
    with open_store(running.url(Right.WRITE), read_only=True) as store, pytest.raises(StoreError, match="read only"):
        store.check_writable()


def test_a_token_that_may_write_may_not_delete(running: Service):
    """Deleting needs a right of its own."""
    with open_store(running.url(Right.WRITE)) as store:
        store.put(a_measurement())
        with pytest.raises(StoreError, match="needs one that may delete"):
            store.delete([a_measurement()])
        assert store.measurements() == [a_measurement()]


def test_a_token_that_is_taken_out_of_the_file_lets_nobody_in(running: Service):
    """At once, and without a restart; the others go on."""
    with open_store(running.url(Right.READ)) as reader, open_store(running.url(Right.WRITE)) as writer:
        lines = running.tokens_file.read_text().splitlines(keepends=True)
        running.tokens_file.write_text("".join(line for line in lines if not line.startswith("read ")))
        with pytest.raises(StoreError, match="not in the service's file"):
            reader.measurements()
        writer.put(a_measurement())


def test_a_token_from_the_environment_counts_and_is_in_no_message(
    running: Service, monkeypatch: pytest.MonkeyPatch, at_once: None
):
    """`CKPT_TUNE_TOKEN` serves an address without one, and is not printed when something goes wrong."""
    with pytest.raises(StoreError, match="no token was shown"):
        open_store(running.address)
    monkeypatch.setenv("CKPT_TUNE_TOKEN", running.tokens[Right.READ])
    with open_store(running.address) as store:
        assert store.measurements() == []
    monkeypatch.setenv("CKPT_TUNE_TOKEN", "ckpt_s3cret")
    with pytest.raises(StoreError) as caught:
        open_store(running.address)
    assert "s3cret" not in str(caught.value)
    with pytest.raises(StoreError) as caught:
        open_store("http://me:ckpt_s3cret@127.0.0.1:1")
    assert "s3cret" not in str(caught.value)
    assert "http://me:***@127.0.0.1:1 did not answer" in str(caught.value)


def test_a_token_is_not_sent_in_the_clear_to_another_host(monkeypatch: pytest.MonkeyPatch):
    """Refused before anything is sent; both ways out are named."""
    monkeypatch.setenv("CKPT_TUNE_TOKEN", "ckpt_s3cret")
    with pytest.raises(StoreError, match=r"not encrypted.*write https://, or reach it on 127.0.0.1"):
        open_store("http://tuner.example:8787")


@pytest.mark.parametrize("address", ["http://", "https://host:port", "http://host:8787/?a=b"])
def test_what_is_no_address_is_refused(address: str):
    """One line that shows how an address is written."""
    with pytest.raises(StoreError, match="write https://HOST:8787"):
        open_store(address)


def test_profiles_are_found_without_reading_the_others(running: Service):
    """A name is looked up among summaries, as among profiles themselves."""
    with open_store(running.url(Right.WRITE)) as store:
        store.put_all([*a_sweep(), *a_sweep(name="other:make")])
        assert store.profile("other:make").measurements == tuple(
            sorted(a_sweep(name="other:make"), key=lambda row: (row.measured_at, row.key))
        )
        with pytest.raises(NoSuchProfile, match="holds other:make, spirals:make"):
            store.profile("x")


def test_rows_are_read_in_portions_and_each_once(running: Service, monkeypatch: pytest.MonkeyPatch):
    """More rows than one answer holds, some measured at the same moment."""
    monkeypatch.setattr(served, "ROWS_AT_ONCE", 7)
    rows = [a_measurement(repeat=repeat, minutes=repeat // 5) for repeat in range(40)]
    with open_store(running.url(Right.WRITE)) as store:
        assert store.put_all(rows) == 40
        assert [row.repeat for row in store.measurements()] == [
            row.repeat for row in sorted(rows, key=lambda row: (row.measured_at, row.key))
        ]
        assert len(store.measurements(at_most=10)) == 10


@pytest.fixture
def flaky(running: Service) -> Iterator[tuple[str, list[tuple[str, int]]]]:
    """An address that hands requests on to the service, and loses the first answer of each write."""
    lost: list[tuple[str, int]] = []
    seen: set[str] = set()

    class Proxy(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.0"

        def handle_one(self) -> None:
            import httpx

            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            kept = {name: value for name, value in self.headers.items() if name.lower() not in ("host", "connection")}
            answer = httpx.request(self.command, running.address + self.path, headers=kept, content=body or None)
            key = self.headers.get("idempotency-key")
            if key and key not in seen:
                seen.add(key)
                lost.append((self.path, answer.status_code))
                self.connection.close()  # it was done, and nobody hears of it
                return
            self.send_response(answer.status_code)
            self.send_header("content-type", answer.headers["content-type"])
            self.end_headers()
            self.wfile.write(answer.content)

        do_GET = do_POST = do_PUT = handle_one

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

        def handle(self) -> None:
            with contextlib.suppress(OSError, ValueError):
                super().handle()

        def finish(self) -> None:
            with contextlib.suppress(OSError, ValueError):
                super().finish()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://x:{running.tokens[Right.DELETE]}@127.0.0.1:{server.server_port}", lost
    server.shutdown()
    server.server_close()


def test_a_request_whose_answer_is_lost_is_sent_again_and_done_once(
    flaky: tuple[str, list[tuple[str, int]]], at_once: None
):
    """Rows are there once; a swap that was done says so; a deletion counts what it deleted the first time."""
    address, lost = flaky
    with open_store(address) as store:
        store.put(a_measurement())
        assert store.measurements() == [a_measurement()]
        assert store.swap_note("a", "k", None, 1)
        assert store.get_note("a", "k") == 1
        assert store.delete([a_measurement()]) == 1
        assert store.measurements() == []
    assert [path for path, _ in lost] == ["/api/v1/rows", "/api/v1/note/swap", "/api/v1/rows/delete"]
    assert {status for _, status in lost} == {200}


@pytest.fixture
def answering() -> Iterator[tuple[str, list[Any]]]:
    """A server that answers with what stands in a list, one after the other, the last for ever."""
    answers: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, document = answers.pop(0) if len(answers) > 1 else answers[0]
            self.send_response(status)
            self.end_headers()
            self.wfile.write(document if isinstance(document, bytes) else json.dumps(document).encode())

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", answers
    server.shutdown()
    server.server_close()


def test_a_busy_service_is_asked_again(answering: tuple[str, list[Any]], at_once: None):
    """503, 429 and what a proxy says while the service is away; then the answer counts."""
    address, answers = answering
    answers += [(503, b""), (502, b"<html>"), (429, {}), (200, {"stamp": "1"})]
    with open_store(address) as store:
        assert store.stamp() == "1"


def test_who_is_no_service_is_named(answering: tuple[str, list[Any]], at_once: None):
    """Some other server is not taken for an empty store."""
    address, answers = answering
    answers.append((200, b"<html>hello</html>"))
    with pytest.raises(StoreError, match=r"no service of ckpt-tune: it answered 200"):
        open_store(address)


@pytest.mark.parametrize(("client", "older"), [(2, "client"), (99, "service")])
def test_another_version_is_refused_in_one_line_that_says_which_side_is_older(
    client: int, older: str, running: Service, monkeypatch: pytest.MonkeyPatch
):
    """Rows of another schema may mean something else."""
    monkeypatch.setattr(served, "SCHEMA_VERSION", client)
    with pytest.raises(StoreVersionError, match=rf"schema {client}, .*the {older} is older .*upgrade the {older}"):
        open_store(running.url(Right.READ))


@pytest.mark.filterwarnings("ignore:(os.fork|This process):")
def test_a_fork_does_not_share_the_connections_of_its_parent(running: Service):
    """Parent and child read and write the same store at once."""
    with open_store(running.url(Right.WRITE)) as store:
        store.put(a_measurement())
        child = os.fork()
        if child == 0:
            code = 1
            try:
                store.put(a_measurement(repeat=1))
                code = 0 if len(store.measurements()) == 2 else 2
            finally:
                os._exit(code)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        assert len(store.measurements()) == 2


def test_a_served_store_is_a_store(running: Service):
    """Whoever takes a `ProfileStore` takes this one, and its place has no token."""
    with open_store(running.url(Right.READ)) as store:
        assert isinstance(store, ProfileStore)
        assert store.place == running.address.replace("://", "://team:***@")
        assert store.url == running.url(Right.READ)
