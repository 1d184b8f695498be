"""The JSON of the service: the documents of the commands, problems in one line each, who may, and what is written."""

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import typer.testing

from autotune.cli import app
from autotune.errors import AutotuneError
from autotune.serving import server, tokens
from autotune.serving.tokens import Right, Tokens, make_token, read_tokens
from autotune.tuning.announce import UNDER_WAY_NOTE
from profiles import default_url, open_store, to_document
from tests.autotune.serving.service import Service, service
from tests.conftest import REPOSITORY
from tests.profiles.makers import a_measurement, a_sweep

runner = typer.testing.CliRunner()
GPU = "NVIDIA L4"


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a problem on two devices, and another one."""
    path = tmp_path_factory.mktemp("filled") / "profiles.db"
    with open_store(str(path)) as store:
        store.put_all([*a_sweep(), *a_sweep(kind=GPU, speed=0.5), *a_sweep(name="other:make", horizons=(None,))])
    return path


@pytest.fixture(scope="module")
def running(filled: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service of that store, with tokens."""
    with service(str(filled), tmp_path_factory.mktemp("service")) as found:
        yield found


@pytest.fixture
def asked(running: Service) -> Iterator[httpx.Client]:
    """A client that may read."""
    headers = {"authorization": f"Bearer {running.tokens[Right.READ]}"}
    with httpx.Client(base_url=f"{running.address}/api/v1", headers=headers, timeout=60) as client:
        yield client


def printed(*words: str, store: Path) -> Any:
    """What a command prints as JSON."""
    done = runner.invoke(app.app, [*words, "--store", str(store), "--format", "json"])
    assert done.exit_code in (0, 3), done.output
    return json.loads(done.stdout)


PLACES: tuple[tuple[str, dict[str, Any], tuple[str, ...]], ...] = (
    ("profiles", {}, ("profiles", "list")),
    ("profiles/other:make", {}, ("profiles", "show", "other:make")),
    ("recommend", {"profile": "other:make", "budget": "20MiB"},
     ("recommend", "other:make", "--budget", "20MiB", "--force")),
    ("recommend", {"profile": "spirals:make@cpu", "budget": "40MiB", "horizon": "150", "tolerance": "1e-3"},
     ("recommend", "spirals:make@cpu", "--budget", "40MiB", "--horizon", "150", "--tolerance", "1e-3", "--force")),
    ("recommend", {"profile": "other:make", "budget": "50%", "objective": "memory"},
     ("recommend", "other:make", "--budget", "50%", "--objective", "memory", "--force")),
    ("plan", {"profile": "other:make", "devices": "l4,t4-16gb", "max_recompute": "3"},
     ("plan", "other:make", "--devices", "l4,t4-16gb", "--max-recompute", "3")),
    ("compare", {"before": "spirals:make@cpu", "after": f"spirals:make@{GPU}"},
     ("compare", "spirals:make@cpu", f"spirals:make@{GPU}")),
)  # fmt: skip


@pytest.mark.parametrize(("path", "parameters", "words"), PLACES)
def test_an_answer_is_the_document_of_the_command(
    path: str, parameters: dict[str, Any], words: tuple[str, ...], asked: httpx.Client, filled: Path
) -> None:
    """The same names and figures as `--format json`; the store is named without saying where it lies."""
    answer = asked.get(path, params=parameters)
    assert answer.status_code == 200, answer.text
    document, wanted = answer.json(), printed(*words, store=filled)
    document.pop("laws", None)
    if "store" in wanted:
        assert document.pop("store") == Path(wanted.pop("store")).name
    assert document == wanted


def test_rows_of_a_profile_are_the_file_that_export_writes(asked: httpx.Client, filled: Path, tmp_path: Path) -> None:
    """To the last character of the JSON."""
    file = tmp_path / "rows.json"
    assert not runner.invoke(app.app, ["profiles", "export", "other:make", str(file), "--store", str(filled)]).exception
    assert asked.get("profiles/other:make/rows").json() == json.loads(file.read_text())


@pytest.mark.parametrize(
    ("parameters", "names"),
    [
        ({"problem": "other:make"}, ["other:make@cpu:ours"]),
        ({"device": GPU}, [f"spirals:make@{GPU}:ours"]),
        ({"version": "jax 0.10.2"}, ["other:make@cpu:ours", "spirals:make@NVIDIA L4:ours", "spirals:make@cpu:ours"]),
        ({"version": "jax 9"}, []),
    ],
)
def test_profiles_are_narrowed(parameters: dict[str, str], names: list[str], asked: httpx.Client) -> None:
    """By problem, by device, by version."""
    found = asked.get("profiles", params=parameters).json()["profiles"]
    assert sorted(one["name"].partition("#")[0] for one in found) == names


@pytest.mark.parametrize(
    ("path", "status", "kind", "said"),
    [
        ("recommend?profile=nobody:make", 404, "no-such-profile", "no profile is named 'nobody:make'"),
        ("recommend?profile=spirals:make", 409, "ambiguous-profile", "name one of spirals:make@NVIDIA L4"),
        ("recommend?profile=other:make&budget=lots", 422, "bad-request", "query.budget"),
        ("recommend?profile=other:make&budget=6XB", 409, "no-answer", "unknown unit 'XB'; write 6GiB or 6GB"),
        ("recommend?profile=spirals:make@cpu&horizon=9000", 409, "no-answer", "that would be extrapolation"),
        ("recommend?profile=other:make&set=3", 422, "bad-request", "is not KEY=VALUE"),
        ("plan?profile=other:make&devices=l5", 409, "no-answer", "no device is named 'l5'"),
        ("nowhere", 404, "no-such-path", "/api/v1/openapi.json lists what is"),
        ("rows?at_most=0", 422, "bad-request", "query.at_most"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(path: str, status: int, kind: str, said: str, asked: httpx.Client) -> None:
    """`application/problem+json` with what was asked, what was found and what to do."""
    answer = asked.get(path)
    assert answer.headers["content-type"] == "application/problem+json"
    document = answer.json()
    assert (answer.status_code, document["status"], document["type"]) == (status, status, f"urn:ckpt-tune:{kind}")
    assert said in document["detail"]
    assert "\n" not in document["detail"]


def test_every_answer_has_the_headers_that_keep_a_browser_safe(asked: httpx.Client) -> None:
    """No script but from here, none in a page, no evaluation, no frame, nothing kept."""
    for path in ("profiles", "nowhere"):
        headers = asked.get(path).headers
        policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
        assert policy["default-src"] == "'none'"
        assert policy["script-src"] == "'self'"
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"


@pytest.mark.parametrize("path", ["profiles", "recommend?profile=other:make", "rows", "tunes/events", "store"])
def test_without_a_token_nothing_is_answered(path: str, running: Service) -> None:
    """401 with how a token is sent; `/healthz` alone says that the service is there."""
    for headers in ({}, {"authorization": "Bearer ckpt_wrong"}, {"authorization": "Basic eDp5"}):
        answer = httpx.get(f"{running.address}/api/v1/{path}", headers=headers)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"
    assert httpx.get(f"{running.address}/healthz").json()["status"] == "ok"


def test_bodies_that_are_too_large_or_no_rows_are_refused(running: Service) -> None:
    """Counted as they come, whatever the header says; what is no row is named by its number."""
    headers = {"authorization": f"Bearer {running.tokens[Right.WRITE]}"}
    place = f"{running.address}/api/v1/rows"

    def endless() -> Iterator[bytes]:
        for _ in range(40):
            yield b" " * 2**20

    assert httpx.post(place, content=endless(), headers=headers).status_code == 413
    document = to_document([a_measurement(), a_measurement(repeat=1)])
    document["measurements"][1]["checkpoints"] = -1
    for body, status, said in (
        (json.dumps(document), 422, "row 2: checkpoints must be at least 0"),
        (json.dumps(to_document([a_measurement(study="x" * 300)])), 422, "study has 300 characters, 255 are taken"),
        ("{", 400, "not JSON"),
        ("[]", 422, "not a document of measurements"),
        ("[" * 100_000, 400, "not JSON"),
        (json.dumps(to_document([a_measurement(repeat=n) for n in range(1001)])), 413, "1001 rows came at once"),
    ):
        answer = httpx.post(place, content=body, headers=headers)
        assert (answer.status_code, said in answer.json()["detail"]) == (status, True), answer.text


def test_an_answer_follows_what_is_written(tmp_path: Path) -> None:
    """Rows through the service are seen at once, those of others after a while, and deleted ones are gone."""
    url = str(tmp_path / "profiles.db")
    with service(url, tmp_path) as found, open_store(found.url(Right.DELETE)) as store:
        headers = {"authorization": f"Bearer {found.tokens[Right.READ]}"}

        def count(name: str = "spirals:make") -> int | None:
            asked = {"profile": name, "budget": "6MB"}
            answer = httpx.get(f"{found.address}/api/v1/recommend", params=asked, headers=headers)
            return answer.json()["recommendations"][0]["checkpoints"] if answer.status_code == 200 else None

        assert count() is None
        store.put(a_measurement(checkpoints=8, peak_bytes=3_000_000))
        assert count() == 8
        store.put(a_measurement(checkpoints=9, peak_bytes=4_000_000, run_seconds=(0.01,)))
        assert count() == 9
        store.put(a_measurement(checkpoints=9, peak_bytes=7_000_000, run_seconds=(0.01,)))  # the same key, as old
        assert count() == 8
        with open_store(url) as directly:
            directly.put(a_measurement(name="theirs:make"))
        deadline = time.monotonic() + 30
        while count("theirs:make") is None:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        store.delete(store.profile("spirals:make"))
        assert count() is None


def test_tunes_under_way_are_told_as_they_change(tmp_path: Path) -> None:
    """Server-sent events: first what is, then each change, until the note is gone."""
    url = str(tmp_path / "profiles.db")
    with service(url, tmp_path, with_tokens=False) as found, open_store(found.address) as store:
        state = {"tune": "t", "problem": "p:make", "owner": {"place": "desk pid:[1]"}, "done": 1}
        store.put_note(UNDER_WAY_NOTE, "p", state)
        store.put_note(UNDER_WAY_NOTE, "odd", ["no tune"])
        seen = []
        with httpx.stream("GET", f"{found.address}/api/v1/tunes/events", timeout=30) as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            for line in answer.iter_lines():
                if line.startswith("data: "):
                    seen.append(json.loads(line[6:])["tunes"])
                    if len(seen) == 1:
                        store.put_note(UNDER_WAY_NOTE, "p", state | {"done": 2})
                    elif seen[-1]:
                        store.swap_note(UNDER_WAY_NOTE, "p", state | {"done": 2}, None)
                    else:
                        break
    assert [[(one["problem"], one["host"], one["done"], one["silent"]) for one in tunes] for tunes in seen] == [
        [("p:make", "desk", 1, False)], [("p:make", "desk", 2, False)], [],
    ]  # fmt: skip


def test_without_tokens_a_stranger_s_page_gets_nothing(tmp_path: Path) -> None:
    """A name that leads here but is not this host's, and a write that comes from another page, are refused."""
    with service(str(tmp_path / "profiles.db"), tmp_path, with_tokens=False) as found:
        place = f"{found.address}/api/v1/note"
        assert httpx.get(f"{found.address}/api/v1/profiles").status_code == 200
        answer = httpx.get(f"{found.address}/api/v1/profiles", headers={"host": "evil.example"})
        assert answer.status_code == 400
        assert "not to 'evil.example'" in answer.json()["detail"]
        note = {"kind": "a", "key": "b", "value": 1}
        for origin, status in (("http://evil.example", 403), ("null", 403), (found.address, 200)):
            assert httpx.put(place, json=note, headers={"origin": origin}).status_code == status


def test_a_key_of_a_request_stands_for_that_request_alone(running: Service) -> None:
    """The same key with another body, or to another path, is another request; sent again it is the same one."""
    headers = {"authorization": f"Bearer {running.tokens[Right.WRITE]}", "idempotency-key": "one"}
    place = f"{running.address}/api/v1/note"
    swap = {"kind": "keys", "key": "a", "old": None, "new": 1}
    assert httpx.post(f"{place}/swap", json=swap, headers=headers).json() == {"swapped": True}
    assert httpx.post(f"{place}/swap", json=swap, headers=headers).json() == {"swapped": True}
    assert httpx.post(f"{place}/swap", json=swap | {"new": 2}, headers=headers).json() == {"swapped": False}
    note = {"kind": "keys", "key": "a", "value": 3}
    assert httpx.put(place, json=note, headers=headers).json() == {"stored": 1}


# --- tokens


def test_a_token_is_kept_as_its_digest_in_a_file_of_its_owner(tmp_path: Path) -> None:
    """The token itself stands nowhere; names are taken once; each right holds those before it."""
    path = tmp_path / "folder" / "tokens"
    made = make_token(path, Right.WRITE, "node")
    assert made not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    known = Tokens(path)
    found = known.find(made)
    assert found is not None
    assert (found.name, found.right) == ("node", Right.WRITE)
    assert known.find(made + "x") is None
    assert known.find("") is None
    assert Right.READ < Right.WRITE < Right.DELETE
    with pytest.raises(AutotuneError, match="a token named node already"):
        make_token(path, Right.READ, "node")


@pytest.mark.parametrize("line", ["x", "a read", "a own " + "0" * 64 + " now", "a read nothex now"])
def test_a_line_that_is_no_token_is_named(line: str, tmp_path: Path) -> None:
    """With its number and what a line looks like."""
    path = tmp_path / "tokens"
    path.write_text(f"\n{line}\n")
    path.chmod(0o600)
    with pytest.raises(AutotuneError, match=r"line 2 of .*tokens is no token"):
        read_tokens(path)


def test_a_file_that_others_may_write_is_refused(tmp_path: Path) -> None:
    """Whoever may write it could let themselves in."""
    path = tmp_path / "tokens"
    make_token(path, Right.READ, "a")
    path.chmod(0o666)
    with pytest.raises(AutotuneError, match="chmod 600"):
        read_tokens(path)


def test_the_command_makes_tokens_and_wants_one_right(tmp_path: Path) -> None:
    """The token alone is printed, so that a script can take it."""
    path = str(tmp_path / "tokens")
    done = runner.invoke(app.app, ["serve", "token", "--write", "--tokens", path])
    assert done.exit_code == 0, done.output
    found = Tokens(Path(path)).find(done.stdout.strip())
    assert found is not None
    assert (found.name, found.right) == ("write-1", Right.WRITE)
    for words in ((), ("--read", "--delete")):
        done = runner.invoke(app.app, ["serve", "token", *words, "--tokens", path])
        assert done.exit_code == 1
        assert "one of --read, --write and --delete" in done.output


# --- the command


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--host", "0.0.0.0"), "without tokens the service answers to this host alone, and --host 0.0.0.0 is open"),
        (("--host", "::"), "is open to others"),
        (("--tokens", "nowhere"), "there is no file of tokens nowhere"),
        (("--tls-cert", "a.pem"), "--tls-cert and --tls-key belong together"),
        (("--tls-cert", "a.pem", "--tls-key", "b.pem"), "the TLS file a.pem cannot be read"),
        (("--root-path", "x"), "--root-path is a path, such as /ckpt-tune"),
        (("--store", "https://tuner:8787"), "the store is a service itself"),
        (("--host", "203.0.113.7", "--tokens", "TOKENS"), "cannot listen on 203.0.113.7"),
    ],
)
def test_what_cannot_be_served_is_refused_in_one_line(
    words: tuple[str, ...], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 1, before anything listens."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(server, "default_path", lambda: tmp_path / "none")
    make_token(tmp_path / "TOKENS", Right.READ, "a")
    done = runner.invoke(app.app, ["serve", "--port", "0", *words])
    assert done.exit_code == 1, done.output
    assert said in " ".join(done.output.split())
    assert tokens.PREFIX not in done.output


def test_a_port_that_is_taken_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what to do about it."""
    monkeypatch.setattr(server, "default_path", lambda: tmp_path / "none")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = runner.invoke(app.app, ["serve", "--port", str(taken.getsockname()[1])])
    assert done.exit_code == 1
    assert "another process has it" in " ".join(done.output.split())


def test_a_service_ends_well_when_told_to_and_logs_requests(tmp_path: Path) -> None:
    """SIGTERM ends it with 0, a stream that is open included; the log is JSON without what was asked."""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "XDG_CONFIG_HOME": str(tmp_path)}
    process = subprocess.Popen(
        [sys.executable, "-m", "autotune.cli", "serve", "--port", "0", "--store", default_url()],
        stderr=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip
    assert process.stderr is not None
    address = process.stderr.readline().split(" at ")[1].split()[0]
    with httpx.stream("GET", f"{address}/api/v1/tunes/events", timeout=30) as answer:
        assert answer.status_code == 200
        assert httpx.get(f"{address}/api/v1/profiles?problem=s3cret").status_code == 200
        process.send_signal(signal.SIGTERM)
        said = process.communicate(timeout=60)[1].splitlines()
    assert process.returncode == 0, said
    assert "has ended" in said[-1]
    lines = [json.loads(line) for line in said if line.startswith("{")]
    (line,) = [line for line in lines if line["path"] == "/api/v1/profiles"]
    assert (line["method"], line["status"], line["client"]) == ("GET", 200, "127.0.0.1")
    assert "s3cret" not in "".join(said)
