"""CLUSTER.md does what it says: its certificates, its commands, its batch system and its manifest.

The batch system is Debian's `bash` in the place of Slurm's `sbatch`: everything else is dask-jobqueue's own.
"""

import ast
import contextlib
import importlib.util
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.testing

from autotune.cli import app
from profiles import Status, open_store
from tests.conftest import REPOSITORY
from tests.test_docs import COMMANDS, command_of, options_of

PAGE = (REPOSITORY / "CLUSTER.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", PAGE, re.DOTALL)
SHELL = [line[2:] for kind, text in BLOCKS if kind == "console" for line in text.splitlines()]
(SLURM,) = (text for kind, text in BLOCKS if kind == "python")
(MANIFEST,) = (text for kind, text in BLOCKS if kind == "yaml")
PROBLEM = REPOSITORY / "tests" / "assets" / "problems" / "decay.py"
LONGEST_SECONDS = 120.0

needs_dask = pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("distributed", "dask_jobqueue")),
    reason="the extra `cluster` and dask-jobqueue are not installed",
)
needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="there is no openssl here")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the certificates that the page makes, and the problem under the name that the page gives it."""
    monkeypatch.chdir(tmp_path)
    for line in SHELL:
        if line.startswith("openssl"):
            subprocess.run(shlex.split(line.replace("rsa:3072", "rsa:2048")), check=True, capture_output=True)
    shutil.copy(PROBLEM, tmp_path / "my_model.py")
    return tmp_path


@contextlib.contextmanager
def running(words: list[str], output: Path, ready: Callable[[str], bool], **environment: str) -> Iterator[str]:
    """Run a program until it is ready, and end it afterwards."""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), **environment}
    with output.open("w") as file:
        process = subprocess.Popen(words, stdout=file, stderr=subprocess.STDOUT, env=environment)
    try:
        end = time.monotonic() + LONGEST_SECONDS
        while not ready(output.read_text()):
            assert process.poll() is None, output.read_text()
            assert time.monotonic() < end, output.read_text()
            time.sleep(0.1)
        yield output.read_text()
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)


def ckpt_tune(*words: str) -> list[str]:
    """Call the command of this checkout."""
    return [sys.executable, "-m", "autotune.cli", *words]


def tls_options(line: str) -> list[str]:
    """Take the options about TLS from a line of the page."""
    words = shlex.split(line)
    return [word for k, word in enumerate(words) if word.startswith("--tls") or words[k - 1].startswith("--tls")]


def line_with(text: str) -> str:
    """Find the line of the page that has a text."""
    return next(line for line in SHELL if text in line)


@needs_dask
@needs_openssl
def test_a_tune_over_tls_with_a_problem_that_is_shipped(folder: Path) -> None:
    """From the page's certificates to a recommendation, with Dask's scheduler and our commands; strangers stay out."""
    scheduler = shlex.split(line_with("dask scheduler --protocol tls"))[2:]
    words = [sys.executable, "-m", "distributed.cli.dask_scheduler", *scheduler, "--host", "127.0.0.1", "--port", "0"]
    words[words.index("127.0.0.1:8787")] = "127.0.0.1:0"
    with running(words, folder / "scheduler.txt", lambda said: "Scheduler at:" in said) as said:
        address = re.findall(r"tls://[\d.:]+", said)[0]
        elsewhere = folder / "elsewhere"
        elsewhere.mkdir()
        worker = ckpt_tune("worker", address, *tls_options(line_with("ckpt-tune worker tls:")))
        with running(worker, folder / "worker.txt", lambda said: "measures on" in said):
            (folder / "my_model.py").rename(elsewhere / "my_model.py")
            tls = tls_options(line_with("ckpt-tune tune my_model.py:make --cluster tls://node1"))
            tune = ["tune", f"{elsewhere}/my_model.py:make", "--cluster", address, "--ship", "--store", "s.db"]
            tune += ["--checkpoints", "2,8", "--horizon", "2", "--budget", "1MiB"]
            stranger = typer.testing.CliRunner().invoke(app.app, tune)
            assert stranger.exit_code == 1
            assert "needs certificates" in stranger.stderr
            done = subprocess.run(
                ckpt_tune(*tune, *tls),
                capture_output=True,
                text=True,
                env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            )
            assert done.returncode == 0, done.stderr
            assert "Traceback" not in done.stderr
    with open_store("s.db", read_only=True) as store:
        rows = store.measurements()
    assert {row.checkpoints for row in rows} <= {2, 8}
    assert all(row.status is Status.OK and row.run_seconds and row.host for row in rows)


@pytest.mark.slow
@needs_dask
@needs_openssl
def test_the_slurm_script_starts_workers_that_measure(folder: Path) -> None:
    """The page's script as it is, with the address of loopback and a stand-in for `sbatch`, which runs jobs here."""
    binaries = folder / "bin"
    binaries.mkdir()
    (binaries / "sbatch").write_text('#!/bin/bash\nsetsid bash "$1" >"$1.log" 2>&1 &\necho "Submitted batch job $!"\n')
    (binaries / "scancel").write_text('#!/bin/bash\nfor job in "$@"; do kill -- "-$job"; done\n')
    for file in binaries.iterdir():
        file.chmod(0o755)
    script = SLURM.replace('"port": 8786', '"port": 0, "host": "127.0.0.1"').replace("jobs=4", "jobs=2")
    assert script.count("127.0.0.1") == 1
    (folder / "slurm_cluster.py").write_text(script)
    path = f"{binaries}:{os.environ['PATH']}"
    words = [sys.executable, "slurm_cluster.py"]
    with running(words, folder / "slurm.txt", lambda said: "tls://" in said, PATH=path, PYTHONUNBUFFERED="1") as said:
        address = re.findall(r"tls://[\d.:]+", said)[0]
        tune = shlex.split(line_with("tls://login1:8786"))[1:]
        tune[tune.index("tls://login1:8786")] = address
        words = ckpt_tune(*tune, "--store", "s.db", "--checkpoints", "2,8", "--horizon", "2")
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
        done = subprocess.run(words, capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr
    with open_store("s.db", read_only=True) as store:
        assert {row.checkpoints for row in store.measurements()} == {2, 8}


def test_every_command_of_the_page_exists_with_its_options() -> None:
    """Ours are looked up in the command line; `--wait` and others in the text belong to some command of ours."""
    ours = [line for line in SHELL if line.startswith("ckpt-tune")]
    assert len(ours) >= 6
    for line in ours:
        _, command = command_of(line)
        for word in shlex.split(line):
            assert not word.startswith("--") or word in options_of(command)
    known = {written for command in COMMANDS.values() for written in options_of(command)}
    assert {f"--{name}" for name in re.findall(r"`--([a-z-]+)`", PAGE)} <= known


def test_the_slurm_script_names_a_module_that_a_worker_can_load_first() -> None:
    """Dask calls `dask_setup` of it."""
    (preload,) = re.findall(r'"--preload", "([\w.]+)"', SLURM)
    path = REPOSITORY / f"{preload.replace('.', '/')}.py"
    assert "dask_setup" in {node.name for node in ast.walk(ast.parse(path.read_text())) if hasattr(node, "name")}  # pyright: ignore


@needs_dask
def test_the_manifest_is_yaml_and_its_commands_exist() -> None:
    """Deployments and a service, whose ports and secrets agree."""
    import yaml

    documents: list[Any] = list(yaml.safe_load_all(MANIFEST))
    kinds = [document["kind"] for document in documents]
    assert kinds == ["Deployment", "Service", "Deployment"]
    (worker,) = documents[2]["spec"]["template"]["spec"]["containers"]
    words = worker["args"]
    assert words[:2] == ["ckpt-tune", "worker"]
    assert {word for word in words if word.startswith("--")} <= set(options_of(COMMANDS["ckpt-tune worker"]))
    port = documents[1]["spec"]["ports"][0]["port"]
    assert words[2] == f"tls://{documents[1]['metadata']['name']}:{port}"
    (scheduler,) = documents[0]["spec"]["template"]["spec"]["containers"]
    done = subprocess.run([sys.executable, "-m", "dask", "scheduler", "--help"], capture_output=True, text=True)
    assert all(word in done.stdout for word in scheduler["args"] if word.startswith("--") and word != "--no-dashboard")
