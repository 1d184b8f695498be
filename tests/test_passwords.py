"""No output and no error shows the password of a store, however it is written in the store's name."""

import os
import subprocess
import sys
import traceback
from pathlib import Path

import pytest
import typer.testing

from autotune.cli import app
from autotune.cli.commands import check, recommend, tune
from profiles import StoreError, hide_passwords, open_store, without_password
from tests.autotune.fake_lab import lab
from tests.conftest import REPOSITORY

SECRET = "hunter2x"
PIECE = "zebra7"
NOWHERE = "127.0.0.1:1/none?connect_timeout=2"
URLS = (
    f"postgresql://me:{SECRET}@{NOWHERE}",
    f"postgresql://me:{SECRET}@{PIECE}@{NOWHERE}",
    f"postgresql://me:{SECRET}/{PIECE}@{NOWHERE}",
    f"postgresql://me:{PIECE}@{SECRET}:{PIECE}@{NOWHERE}",
    f"postgresql://me:{PIECE}@a/{SECRET}?{PIECE}@{NOWHERE}",
    f"postgresql://me:{SECRET}#{PIECE} 9@{NOWHERE}",
    f"postgresql://me:{SECRET}%40{PIECE}@{NOWHERE}",
    f"postgresql://me@127.0.0.1:1/none?connect_timeout=2&password={SECRET}",
    f"postgresql://127.0.0.1:1/none?user=me&password={SECRET}&connect_timeout=2",
    f"postgresql://me:{SECRET}@127.0.0.1:notaport/none",
    f"postgresql://me:{SECRET}@127.0.0.1:1/none?nosuchoption=1&password={SECRET}",
    f"nosuchdatabase://me:{SECRET}@{PIECE}@127.0.0.1/none",
    f"://me:{SECRET}@{NOWHERE}",
    f"host=127.0.0.1 port=1 password={SECRET}",
)
COMMANDS = {
    "tune": ("tune", "fake.mod:make", "--budget", "5MB"),
    "dry run": ("tune", "fake.mod:make", "--budget", "5MB", "--dry-run"),
    "recommend": ("recommend", "fake:make", "--budget", "5MB"),
    "check": ("check", "fake:make"),
    "report": ("report", "fake:make", "--out", "out"),
    "plan": ("plan", "fake:make", "--devices", "l4", "--max-recompute", "3"),
    "compare": ("compare", "fake:make", "fake:make"),
    "list": ("profiles", "list"),
    "show": ("profiles", "show", "fake:make"),
    "export": ("profiles", "export", "fake:make", "out.json"),
    "import": ("profiles", "import", "out.json"),
    "delete": ("profiles", "delete", "fake:make"),
    "device": ("device",),
}
"""One call of every command that opens a store or names one, in an order in which each finds what it needs."""

runner = typer.testing.CliRunner()


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, on a machine of arithmetic."""
    monkeypatch.chdir(tmp_path)
    for module in (check, tune, recommend):
        monkeypatch.setattr(module, "make_machine", lambda settings, search_path=(): lab())
    monkeypatch.setattr("autotune.tuning.lab.make_machine", lambda settings, search_path=(): lab())
    return tmp_path


def formats(words: tuple[str, ...]) -> list[tuple[str, ...]]:
    """List the ways to ask for a command's data."""
    has = words[0] in ("tune", "recommend", "check", "plan", "compare", "device") or words[:2] in (
        ("profiles", "list"), ("profiles", "show"),
    )  # fmt: skip
    return [(*words, "--format", name) for name in ("table", "json", "csv")] if has else [words]


def assert_hidden(text: str) -> None:
    """Neither the password nor a piece of it stands in a text."""
    for piece in (SECRET, PIECE):
        assert piece not in text, text


@pytest.mark.parametrize("url", URLS)
@pytest.mark.parametrize("name", COMMANDS)
def test_no_command_shows_the_password_of_a_store_that_cannot_be_opened(
    name: str, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether the environment or an option names the store: every output and every error of every command."""
    monkeypatch.setenv("CKPT_TUNE_STORE", url)
    words = COMMANDS[name]
    for asked in formats(words):
        done = runner.invoke(app.app, list(asked))
        assert done.exit_code == (0 if name == "device" else 1), done.output
        assert_hidden(done.output)
    if name != "device":
        monkeypatch.delenv("CKPT_TUNE_STORE")
        assert_hidden(runner.invoke(app.app, [*words, "--store", url]).output)


def test_no_command_shows_the_password_of_a_store_that_it_uses(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands that end well, in all formats, and the files that they write."""
    monkeypatch.setenv("CKPT_TUNE_STORE", f"sqlite:///{here}/profiles.db?password={SECRET}")
    for name, words in COMMANDS.items():
        for asked in formats(words):
            done = runner.invoke(app.app, list(asked))
            assert done.exit_code == 0, (name, done.output)
            assert_hidden(done.output)
    for path in here.rglob("*"):
        if path.is_file():
            assert SECRET.encode() not in path.read_bytes(), path


@pytest.mark.parametrize("url", URLS)
def test_a_wrong_call_does_not_repeat_the_password(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store's name in the place of something else is shown without it, by the whole program."""
    done = subprocess.run(
        [sys.executable, "-m", "autotune.cli", "profiles", "list", url], capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )  # fmt: skip
    assert done.returncode == 2
    assert_hidden(done.stdout + done.stderr)


def test_a_bugs_traceback_does_not_show_the_password(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 70 prints everything but that."""
    monkeypatch.setenv("CKPT_TUNE_STORE", URLS[1])

    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError(f"connecting to {URLS[1]} as {PIECE}")

    monkeypatch.setattr(tune, "open_store", broken)
    done = runner.invoke(app.app, ["tune", "fake.mod:make"])
    assert done.exit_code == 70
    assert "ZeroDivisionError" in done.output
    assert_hidden(done.output)


@pytest.mark.parametrize("url", URLS)
def test_the_library_raises_without_the_password(url: str) -> None:
    """A whole traceback of a store that cannot be opened, its causes included."""
    with pytest.raises(StoreError) as caught:
        open_store(url.replace("postgresql:", "postgresql+psycopg:"))
    assert_hidden("".join(traceback.format_exception(caught.value)))


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("postgresql+psycopg://me:pw@host:5432/db", "postgresql+psycopg://me:***@host:5432/db"),
        ("postgresql://me@host/db", "postgresql://me@host/db"),
        ("postgresql://host/db?sslmode=require", "postgresql://host/db?sslmode=require"),
        ("postgresql://me:p@w/x@host/db", "postgresql://me:***@host/db"),
        ("postgresql://me@host/db?password=pw&sslmode=require", "postgresql://me@host/db?password=***"),
        ("sqlite:////data/me:x@y.db", "sqlite:////data/me:x@y.db"),
        ("/data/profiles.db", "/data/profiles.db"),
        ("sqlite://", "sqlite://"),
    ],
)
def test_all_but_the_password_is_shown(name: str, shown: str) -> None:
    """Host, database and options that are no secret stay."""
    assert without_password(name) == shown
    assert hide_passwords(f"the store {name} is locked") == f"the store {shown} is locked"
