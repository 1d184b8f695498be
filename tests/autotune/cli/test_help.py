"""What a shell completes: problems from files, profiles from the store."""

from pathlib import Path

import pytest

from autotune.cli.help import complete_problem, complete_profile
from profiles import open_store
from tests.autotune.rows import a_row


def test_a_problem_is_completed_by_its_file_and_then_by_its_factories(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python files and folders; behind the colon the functions that take an adjoint."""
    monkeypatch.chdir(tmp_path)
    text = "def make(*, adjoint): ...\ndef make_large(adjoint, width=3): ...\ndef helper(x): ...\n"
    (tmp_path / "model.py").write_text(text)
    (tmp_path / "model.txt").write_text("")
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "other.py").write_text("def (")
    assert complete_problem("mo") == ["model.py:", "models/"]
    assert complete_problem("models/") == ["models/other.py:"]
    assert complete_problem("model.py:") == ["model.py:make", "model.py:make_large"]
    assert complete_problem("model.py:make_") == ["model.py:make_large"]
    assert complete_problem("models/other.py:") == []
    assert complete_problem("nowhere/x") == []


def test_a_profile_is_completed_from_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its name; a store that is not there completes nothing, and is not made."""
    place = tmp_path / "profiles.db"
    monkeypatch.setenv("CKPT_TUNE_STORE", str(place))
    assert complete_profile("") == []
    assert not place.exists()
    with open_store() as store:
        store.put(a_row(3, 0.1))
    assert complete_profile("p:") == ["p:make"]
    assert complete_profile("q") == []
