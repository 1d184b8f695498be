"""A part of what `scripts/bench_faults.py` draws at random: no command line and no file ends in a traceback."""

import os
import pathlib
import random

import pytest
import typer.testing
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from autotune.cli import app
from profiles import TableError, export_table, import_table, open_store
from tests.faults.fuzzing import garbled, words_of_a_command
from tests.profiles.makers import a_measurement

ROWS = [a_measurement(repeat=k, checkpoints=2 + k) for k in range(4)]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store with one profile, which no command line may harm."""
    path = tmp_path_factory.mktemp("fuzz") / "a.db"
    with open_store(str(path)) as opened:
        opened.put_all(ROWS)
    return str(path)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32))
def test_no_command_line_ends_in_a_traceback(
    seed: int, store: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Data, or one clear line; what was stored is still there."""
    monkeypatch.chdir(tmp_path)
    words = [*words_of_a_command(random.Random(seed)), "--store", store]
    done = typer.testing.CliRunner().invoke(app.app, words)
    assert done.exit_code in (0, 1, 2, 3, 4), (words, done.output)
    with open_store(store, read_only=True) as opened:
        assert {row.key for row in ROWS} <= {row.key for row in opened.measurements()}


@settings(max_examples=100)
@given(seed=st.integers(0, 2**32), ending=st.sampled_from(["csv", "json", "parquet"]))
def test_a_garbled_file_is_rows_or_one_line(seed: int, ending: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """What is read may be stored; what cannot be read is said with the file's name."""
    path = tmp_path_factory.mktemp("garbled") / f"rows.{ending}"
    export_table(ROWS, path)
    path.write_bytes(garbled(path.read_bytes(), random.Random(seed)))
    try:
        rows = import_table(path)
    except TableError as error:
        text = str(error)
        assert str(path) in text
        assert "\n" not in text
        assert len(text) < 1000
        return
    with open_store("sqlite://") as opened:
        opened.put_all(rows)
        assert {row.key for row in opened.measurements()} == {row.key for row in rows}
        assert os.path.exists(path)


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("schedule", "--steps", "1000000", "--checkpoints", "1000000"), 1),
        (("schedule", "--steps", "1000000", "--checkpoints", "3", "--format", "json"), 1),
        (("plan", "spirals:make", "--horizons", "1e15"), 0),
    ],
)
@pytest.mark.timeout(120)
def test_what_is_too_large_is_answered_or_refused_at_once(words: tuple[str, ...], code: int, store: str) -> None:
    """Neither runs for minutes."""
    more = ["--store", store] if words[0] == "plan" else []
    done = typer.testing.CliRunner().invoke(app.app, [*words, *more])
    assert done.exit_code == code, done.output
    if code:
        assert "too many to lay out" in done.stderr
