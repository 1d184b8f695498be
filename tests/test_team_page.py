"""The README's set-up for a team does what it says: its five commands, with a service that is killed in between."""

import os
import re
import shlex
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from profiles import Status, StoreError, open_store
from profiles.store import served
from tests.conftest import REPOSITORY
from tests.profiles.makers import a_measurement

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
BLOCK = re.search(r"### A team: one service\n.*?```console\n(.*?)```", README, re.DOTALL)
PROBLEM = REPOSITORY / "tests" / "assets" / "problems" / "decay.py"

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="there is no openssl here")


class Team:
    """The five commands in a folder, on a port that is free."""

    def __init__(self, folder: Path) -> None:
        """Read the commands, and find a port."""
        assert BLOCK is not None
        self.folder = folder
        self.commands = [line.removeprefix("$ ") for line in BLOCK[1].splitlines()]
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.environment = {
            **os.environ, "PYTHONPATH": str(REPOSITORY), "XDG_DATA_HOME": str(folder / "data"), "JAX_PLATFORMS": "cpu",
        }  # fmt: skip
        self.token = ""
        self.service: subprocess.Popen[bytes] | None = None

    def words(self, number: int) -> list[str]:
        """Split a command into its words, with this port and this token in it."""
        text = self.commands[number].replace("8787", str(self.port)).replace("rsa:3072", "rsa:2048")
        words = shlex.split(text.replace("ckpt_…", self.token), comments=True)
        return [sys.executable, "-m", "autotune.cli", *words[1:]] if words[0] == "ckpt-tune" else words

    def run(self, words: list[str]) -> str:
        """Run a command to its end."""
        done = subprocess.run(words, cwd=self.folder, env=self.environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def serve(self) -> None:
        """Start the service, and wait until it answers."""
        with (self.folder / "serve.log").open("a") as log:
            self.service = subprocess.Popen(
                self.words(2), cwd=self.folder, env=self.environment, stdout=log, stderr=log
            )
        deadline = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                assert self.service.poll() is None, (self.folder / "serve.log").read_text()
                assert time.monotonic() < deadline
                time.sleep(0.02)

    def kill(self) -> None:
        """Kill the service, as a host that loses its power does."""
        assert self.service is not None
        self.service.send_signal(signal.SIGKILL)
        self.service.wait()


@pytest.fixture
def team(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Team]:
    """The first four commands, run."""
    made = Team(tmp_path)
    made.run(made.words(0))
    made.token = made.run(made.words(1)).strip()
    made.serve()
    export = made.words(3)
    assert export[0] == "export"
    variables = dict(word.split("=", 1) for word in export[1:])
    made.environment |= variables
    monkeypatch.chdir(tmp_path)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    try:
        yield made
    finally:
        made.kill()


def test_there_are_five_commands() -> None:
    """A certificate, a token, the service, a node's environment, a tune."""
    assert BLOCK is not None
    assert len(BLOCK[1].splitlines()) == 5


def test_a_node_reads_and_writes_over_tls_as_the_page_says(team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the variables of the page alone; a certificate that the node does not know is refused."""
    with open_store() as store:
        store.put(a_measurement())
        assert store.measurements() == [a_measurement()]
        with pytest.raises(StoreError, match="may write, this needs one that may delete"):
            store.delete([a_measurement()])
    with open_store(str(team.folder / "team.db")) as directly:
        assert directly.measurements() == [a_measurement()]
    monkeypatch.setattr(served, "WAIT_SECONDS", ())
    monkeypatch.setenv("SSL_CERT_FILE", ssl.get_default_verify_paths().openssl_cafile)
    with pytest.raises(StoreError, match="did not answer"):
        open_store()


@pytest.mark.slow
def test_the_tune_of_the_page_measures_into_the_service(team: Team) -> None:
    """Its rows are in the service's store, and the service recommends from them."""
    shutil.copy(PROBLEM, team.folder / "my_model.py")
    assert "my_model:make" in team.run([*team.words(4)[:-1], "2MiB"])
    listed = team.run([sys.executable, "-m", "autotune.cli", "profiles", "list"])
    assert "my_model:make" in listed
    asked = ["recommend", "my_model:make", "--budget", "2MiB", "--force"]
    assert "checkpoints" in team.run([sys.executable, "-m", "autotune.cli", *asked])
    with open_store(str(team.folder / "team.db")) as directly:
        assert any(row.status is Status.OK and row.run_seconds for row in directly.measurements())


@pytest.mark.slow
def test_a_service_that_is_killed_loses_nothing_that_it_acknowledged(team: Team) -> None:
    """Four writers, three kills in the middle of their work: every row is there, once, and none waits any more."""
    rows: list[list[str]] = [[] for _ in range(4)]
    ended = threading.Event()

    def write(number: int) -> None:
        with open_store() as store:
            repeat = 0
            while not ended.is_set():
                row = a_measurement(study=f"writer {number}", repeat=repeat)
                store.put(row)
                rows[number].append(row.key)
                repeat += 1

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(3):
        time.sleep(1.5)
        team.kill()
        team.serve()
    time.sleep(1.5)
    ended.set()
    for thread in threads:
        thread.join(60)
    with open_store():
        pass  # delivers what may wait
    with open_store(str(team.folder / "team.db")) as directly:
        there = [row.key for row in directly.measurements()]
    sent = [key for keys in rows for key in keys]
    assert len(sent) > 20
    assert sorted(there) == sorted(sent)
