"""Stores that are damaged, malformed or deleted: a training goes on, and a command says in one line what it found."""

import contextlib
import logging
import os
import pathlib
import random
import shutil
import sqlite3
import stat

import pytest
import typer.testing
from hypothesis import given, settings
from hypothesis import strategies as st

import autotune
from autotune.cli import app
from autotune.runtime.opening import opened_if_readable
from profiles import ProfilesError, StoreError, StoreNameError, open_store
from tests.assets.problems import decay
from tests.profiles.makers import a_measurement

runner = typer.testing.CliRunner()

DAMAGES = {
    "samples": "UPDATE ckpt_tune_measurements SET run_seconds = '[0.1' WHERE repeat = 1",
    "samples of texts": "UPDATE ckpt_tune_measurements SET run_seconds = '[\"a\"]' WHERE repeat = 1",
    "no samples": "UPDATE ckpt_tune_measurements SET run_seconds = '7' WHERE repeat = 1",
    "time": "UPDATE ckpt_tune_measurements SET measured_at = 'soon' WHERE repeat = 1",
    "year 1": "UPDATE ckpt_tune_measurements SET measured_at = '0001-01-01T00:00:00+14:00' WHERE repeat = 1",
    "status": "UPDATE ckpt_tune_measurements SET status = 'odd' WHERE repeat = 1",
    "adjoint": "UPDATE ckpt_tune_measurements SET adjoint = 'theirs' WHERE repeat = 1",
    "count": "UPDATE ckpt_tune_measurements SET checkpoints = 'many' WHERE repeat = 1",
    "bytes": "UPDATE ckpt_tune_measurements SET peak_bytes = -5 WHERE repeat = 1",
    "real": "UPDATE ckpt_tune_measurements SET tolerance = 'x' WHERE repeat = 1",
    "infinite": "UPDATE ckpt_tune_measurements SET recompute_factor = 9e999 WHERE repeat = 1",
    "components": "UPDATE ckpt_tune_measurements SET problem_components = '[1, 2]' WHERE repeat = 1",
    "versions": "UPDATE ckpt_tune_measurements SET versions = 'null' WHERE repeat = 1",
    "values": "UPDATE ckpt_tune_measurements SET set_values = '[7]' WHERE repeat = 1",
    "horizon": "UPDATE ckpt_tune_measurements SET horizon = '\"far\"' WHERE repeat = 1",
    "not UTF-8": "UPDATE ckpt_tune_measurements SET host = CAST(x'ff41' AS TEXT) WHERE repeat = 1",
    "a blob": "UPDATE ckpt_tune_measurements SET run_seconds = x'00ff' WHERE repeat = 1",
    "deep": f"UPDATE ckpt_tune_measurements SET run_seconds = '{'[' * 20000}' WHERE repeat = 1",
    "note": "INSERT INTO ckpt_tune_notes VALUES ('profile-name', 'x', '{', '2026')",
    "table": "DROP TABLE ckpt_tune_notes",
}


def filled(path: pathlib.Path) -> pathlib.Path:
    """Make a store with four rows in one file."""
    with open_store(str(path)) as store:
        store.put_all([a_measurement(repeat=k, checkpoints=2 + k) for k in range(4)])
        store.put_note("steps", "k", {"sites": []})
    return path


def damage(path: pathlib.Path, statement: str) -> None:
    """Change a store by hand."""
    connection = sqlite3.connect(path)
    connection.execute(statement)
    connection.commit()
    connection.close()


@pytest.mark.parametrize("how", DAMAGES)
def test_a_training_reads_around_damage(how: str, tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture) -> None:
    """Sound rows are read, a damaged one is passed over with a warning that says where; other readers get one line."""
    path = filled(tmp_path / "a.db")
    damage(path, DAMAGES[how])
    with caplog.at_level(logging.WARNING, "autotune"), opened_if_readable(str(path)) as store:
        assert store is not None
        if how in ("not UTF-8",):
            with pytest.raises(StoreError):
                store.measurements()
        else:
            rows = store.measurements()
            assert {0, 2, 3} <= {row.repeat for row in rows}
            if how not in ("note", "table"):
                assert len(caplog.records) == 1
                assert str(path) in caplog.text
    with open_store(str(path)) as store, contextlib.suppress(ProfilesError):  # and nothing else
        store.profiles()


def test_a_training_with_a_damaged_store_is_told_once_and_gets_its_adjoint(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A page of garbage: the probe takes the store's place, and the name of a profile gets the default count."""
    path = filled(tmp_path / "a.db")
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(path.stat().st_size - 4096))
    with caplog.at_level(logging.WARNING, "autotune"):
        assert autotune.auto_adjoint("spirals:make", budget="1MiB", store=str(path)).checkpoints is None
    assert len(caplog.records) == 1
    assert str(path) in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING, "autotune"):
        chosen = autotune.auto_adjoint(decay.make, budget="1MiB", store=str(path), horizon=1, objective="memory")
    assert chosen.checkpoints is not None
    assert str(path) in caplog.text


@pytest.mark.parametrize("url", ["nosuch://x", "postgresql+nodriver://h/d", "~nosuchuser/a.db"])
def test_a_mistyped_store_is_an_error_at_once(url: str) -> None:
    """Nothing is probed for a name that is none."""
    with pytest.raises(StoreNameError), opened_if_readable(url):
        pass


def call(*words: str) -> typer.testing.Result:
    """Run the command line."""
    return runner.invoke(app.app, list(words))


COMMANDS = (
    ("profiles", "list"),
    ("profiles", "list", "--format", "json"),
    ("profiles", "show", "spirals:make"),
    ("profiles", "export", "spirals:make", "OUT.csv"),
    ("recommend", "spirals:make", "--budget", "3MB", "--force"),
    ("plan", "spirals:make"),
    ("compare", "spirals:make", "spirals:make"),
)


@settings(max_examples=25)
@given(seed=st.integers(0, 2**32), how=st.sampled_from(["flip", "cut", "zero", "newer"]), which=st.integers(0, 6))
def test_no_command_meets_a_damaged_store_with_a_traceback(
    tmp_path_factory: pytest.TempPathFactory, seed: int, how: str, which: int
) -> None:
    """Bytes flipped, pages cut or emptied, a newer schema: data, or one line and exit 1; the file is as it was."""
    chance, folder = random.Random(seed), tmp_path_factory.mktemp("damaged")
    path = filled(folder / "a.db")
    data = bytearray(path.read_bytes())
    if how == "flip":
        for _ in range(chance.randint(1, 40)):
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    elif how == "cut":
        del data[chance.randrange(len(data)) :]
    elif how == "zero":
        page = 4096 * chance.randrange(len(data) // 4096)
        data[page : page + 4096] = bytes(4096)
    path.write_bytes(data)
    if how == "newer":
        damage(path, "INSERT INTO ckpt_tune_schema VALUES (99, 'later', 'later')")
    before = path.read_bytes()
    words = [str(folder / word) if word == "OUT.csv" else word for word in COMMANDS[which]]
    done = call(*words, "--store", str(path))
    assert done.exit_code in (0, 1, 3), done.output
    assert "Traceback" not in done.output
    if done.exit_code == 1:
        assert len(done.stderr.strip().splitlines()) == 1
    assert path.read_bytes() == before


@pytest.mark.parametrize("words", [*COMMANDS, ("profiles", "delete", "spirals:make"), ("check", "a.py:make")])
def test_a_command_that_reads_makes_no_store(words: tuple[str, ...], tmp_path: pathlib.Path) -> None:
    """A mistyped path is said, and is not there afterwards."""
    place = tmp_path / "mistyped" / "a.db"
    done = call(*words, "--store", str(place))
    assert done.exit_code == 1, done.output
    assert "does not exist" in done.stderr
    assert not place.parent.exists()


def test_a_second_import_says_that_nothing_is_new(tmp_path: pathlib.Path) -> None:
    """The rows that were there are counted as such."""
    path = filled(tmp_path / "a.db")
    file, other = str(tmp_path / "rows.csv"), str(tmp_path / "b.db")
    assert call("profiles", "export", "spirals:make", file, "--store", str(path)).exit_code == 0
    assert "stored 4 measurements" in call("profiles", "import", file, "--store", other).stderr
    assert "stored 0 measurements" in (again := call("profiles", "import", file, "--store", other).stderr)
    assert "4 were there already" in again


def test_what_is_made_is_the_users_alone(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Store and study, whatever the umask."""
    from autotune.tuning.request import TuneRequest
    from autotune.tuning.tune import run_tune
    from tests.autotune.fake_lab import Heard, lab

    before = os.umask(0)
    try:
        with open_store(str(tmp_path / "a.db")) as store:
            request = TuneRequest(problem="fake.module:make", budget="5MB")
            run_tune(request, store=store, machine=lab(), progress=Heard())
    finally:
        os.umask(before)
    made = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.suffix for path in made} == {".db"}
    assert len(made) == 2
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in made)


def test_a_garbage_study_is_written_anew(tmp_path: pathlib.Path) -> None:
    """The study is a view, and what lies in its place is no matter."""
    import optuna

    from autotune.tuning.request import TuneRequest
    from autotune.tuning.tune import run_tune
    from tests.autotune.fake_lab import Heard, lab

    with open_store(str(tmp_path / "a?b#c%20d.db")) as store:
        request = TuneRequest(problem="fake.module:make", budget="5MB")
        run_tune(request, store=store, machine=lab(), progress=Heard())
        (study,) = (tmp_path / "a?b#c%20d.db.studies").iterdir()
        study.write_bytes(b"garbage")
        result = run_tune(request, store=store, machine=lab(), progress=Heard())
        assert result.study_url is not None
        storage = optuna.storages.RDBStorage(result.study_url)
        loaded = optuna.load_study(study_name=result.prepared.study, storage=storage)
        assert len(loaded.trials) == len(store.measurements())
        storage.remove_session()
        storage.engine.dispose()  # else its connection is found unclosed in whichever test comes later
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a?b#c%20d.db", "a?b#c%20d.db.studies"]


@pytest.mark.parametrize("name", ["a?b", "a#b", "a%20b", "a b", "ü", "a?mode=ro", "file:x"])
def test_a_path_is_one_store_by_its_path_and_by_its_url(name: str, tmp_path: pathlib.Path) -> None:
    """What one process stores under a path another finds under the URL that it is given."""
    with open_store(str(tmp_path / name)) as store:
        store.put(a_measurement())
        url, place = store.url, store.place
    assert place == str(tmp_path / name)
    with open_store(url, read_only=True) as again:
        assert again.place == place
        assert again.measurements() == [a_measurement()]
    # Whoever reads a file with a write-ahead log may leave its two helpers beside it.
    assert {path.name.removesuffix("-wal").removesuffix("-shm") for path in tmp_path.iterdir()} == {name}


@pytest.mark.parametrize("name", ["a@b:make", "a#1:make", "@", "#x", "m@cpu:ours", "a@b#c@d"])
def test_a_profile_is_found_by_the_name_that_is_printed(name: str, tmp_path: pathlib.Path) -> None:
    """By its name and by each narrower one, whatever its name holds."""
    with open_store(str(tmp_path / "a.db")) as store:
        store.put(a_measurement(name=name))
        store.put(a_measurement(name="other:make"))
        (profile,) = (one for one in store.profiles() if one.name == name)
        for text in (name, profile.qualified_name, f"{name}@cpu", f"{name}#{profile.id[:6]}", f"#{profile.id}"):
            assert store.profile(text) == profile


def test_a_profile_that_is_deleted_in_mid_tune_is_one_line(tmp_path: pathlib.Path) -> None:
    """Somebody takes the rows away as they come."""
    from autotune import AutotuneError
    from autotune.tuning.request import TuneRequest
    from autotune.tuning.tune import run_tune
    from tests.autotune.fake_lab import Heard, lab

    with open_store(str(tmp_path / "a.db")) as store:

        class Deletes(Heard):
            def finished(self, measurement) -> None:
                store.delete([measurement])

        with pytest.raises(AutotuneError, match="were deleted from"):
            run_tune(
                TuneRequest(problem="fake.module:make", budget="5MB"), store=store, machine=lab(), progress=Deletes()
            )
    shutil.rmtree(tmp_path / "a.db.studies", ignore_errors=True)
