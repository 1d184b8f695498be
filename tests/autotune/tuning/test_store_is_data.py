"""Nothing that a store names is imported: code runs where the user's own command line names it, and nowhere else."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from autotune.tuning.request import TuneRequest
from autotune.tuning.stored_choice import CHOICE_NOTE
from autotune.tuning.tune import run_tune
from profiles import ProfileStore, open_store
from tests.autotune.fake_lab import Heard, lab
from tests.conftest import REPOSITORY

EVIL = "import pathlib\npathlib.Path('owned').touch()\n\n\ndef make(*, adjoint):\n    raise SystemExit\n"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder in which lies a module that leaves a mark when it is imported."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil.py").write_text(EVIL)
    return tmp_path


@pytest.fixture
def store(here: Path) -> ProfileStore:
    """A store with a tune of an honest problem, whose notes somebody has changed to name the module."""
    opened = open_store(str(here / "profiles.db"))
    run_tune(TuneRequest(problem="fake.module:make", budget="5MB"), store=opened, machine=lab(), progress=Heard())
    for key, note in opened.notes(CHOICE_NOTE).items():
        opened.put_note(CHOICE_NOTE, key, note | {"problem": "evil:make"})
    return opened


def _command(here: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "CKPT_TUNE_STORE": str(here / "profiles.db"), "PYTHONPATH": str(REPOSITORY)}
    return subprocess.run(
        [sys.executable, "-m", "autotune.cli", *words], cwd=here, env=environment, capture_output=True, text=True
    )


def test_recommend_imports_nothing_that_the_store_names(here: Path, store: ProfileStore) -> None:
    """With a real store and real workers: the device is compared, the module named in the store stays unread."""
    done = _command(here, "recommend", "fake:make", "--budget", "5MB")
    assert "does not hold here: device: stored fake-cpu" in done.stderr
    assert "its code was not compared" in done.stderr
    assert not (here / "owned").exists()


def test_recommend_compares_the_code_that_the_user_names(here: Path, store: ProfileStore) -> None:
    """The same module, named on the command line, is what the user wants to be run."""
    done = _command(here, "recommend", "fake:make", "--budget", "5MB", "--problem", "evil:make")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert (here / "owned").exists()


@pytest.mark.parametrize(
    "words",
    [("profiles", "list"), ("profiles", "show", "fake:make"), ("report", "fake:make", "--out", "out"),
     ("plan", "fake:make", "--devices", "l4", "--max-recompute", "3"), ("compare", "fake:make", "fake:make"),
     ("recommend", "fake:make", "--budget", "5MB", "--force"), ("profiles", "export", "fake:make", "x.csv")],
)  # fmt: skip
def test_no_command_on_a_profile_imports_what_the_store_names(
    here: Path, store: ProfileStore, words: tuple[str, ...]
) -> None:
    """Every other command that reads a profile ends well, and the mark is not there."""
    done = _command(here, *words)
    assert done.returncode == 0, done.stderr
    assert not (here / "owned").exists()
