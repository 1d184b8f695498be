"""The Optuna study beside a store: every row stands in it, whatever happens it is whole, and no tune reads it."""

import dataclasses
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import autotune
from autotune.measuring.rows import trial_key
from autotune.measuring.trial import Trial
from autotune.search.space import Listed
from autotune.tuning import study_view
from autotune.tuning.request import TuneRequest
from autotune.tuning.study_view import StudyView, study_path, trials_of, write_view
from autotune.tuning.tune import TuneResult, run_tune
from profiles import Literal, Measurement, ProfileStore, Status, Tier, open_store
from tests.autotune.fake_lab import FakeLab, Heard, lab
from tests.conftest import REPOSITORY
from tests.profiles.makers import a_measurement, measurements

REQUEST = TuneRequest(problem="fake.module:make", budget="5MB")
BUDGET = 10_000


@pytest.fixture
def store(tmp_path: Path):
    """A store in a file; its study lies beside it."""
    with open_store(str(tmp_path / "profiles.db")) as opened:
        yield opened


def the_rows() -> list[Measurement]:
    """Rows of every sort: timed, too large, compiled only, out of memory, with a tier, with all kinds of values."""
    timed = a_measurement(checkpoints=4, horizon=10, tolerance=1e-4, set_values={"solver": "heun", "wide": True})
    return [
        dataclasses.replace(timed, peak_bytes=9_000, run_seconds=(0.3, 0.1, 0.2)),
        dataclasses.replace(timed, checkpoints=40, peak_bytes=12_000, run_seconds=(0.05,), recompute_factor=2.5),
        dataclasses.replace(
            timed, checkpoints=8, horizon=20.5, peak_bytes=7_000, run_seconds=(), set_values={"solver": "s", "wide": 1}
        ),
        dataclasses.replace(
            timed, checkpoints=80, peak_bytes=None, run_seconds=(), status=Status.OUT_OF_MEMORY, message="no room",
            xla_flags="--xla_x=1",
        ),
        dataclasses.replace(
            timed, checkpoints=2, peak_bytes=8_000, run_seconds=(0.4,), tolerance=None,
            tier=Tier(name="host", windows=7), set_values={"solver": Literal("(1, 2)"), "wide": None},
        ),
    ]  # fmt: skip


def read_back(url: str) -> optuna.Study:
    """Open the only study of a URL as a user does."""
    (name,) = optuna.get_all_study_names(url)
    return optuna.load_study(study_name=name, storage=url)


def _tune(store: ProfileStore, machine: FakeLab | None = None, heard: Heard | None = None, **changes) -> TuneResult:
    request = dataclasses.replace(REQUEST, **changes)
    return run_tune(request, store=store, machine=machine or lab(), progress=heard or Heard())


def test_every_row_is_a_trial_with_its_parameters_objectives_and_constraint(tmp_path: Path) -> None:
    """Both objectives are minimised; what exceeds the budget is infeasible; a failure keeps its message."""
    rows = the_rows()
    whys = {trial_key(row): f"reason {number}" for number, row in enumerate(rows)}
    view = StudyView(name="p:make-12", rows=rows, whys=whys, budget_bytes=BUDGET)
    study = read_back(write_view(view, tmp_path / "study.db"))
    by_key = {trial.user_attrs["key"]: trial for trial in study.trials}
    trials = [by_key[row.key] for row in rows]
    assert len(study.trials) == len(rows)
    assert [direction.name for direction in study.directions] == ["MINIMIZE", "MINIMIZE"]
    assert study.metric_names == ["run_seconds", "peak_bytes"]
    assert [trial.state.name for trial in trials] == ["COMPLETE", "COMPLETE", "PRUNED", "FAIL", "COMPLETE"]
    assert [trial.values for trial in trials] == [[0.2, 9_000], [0.05, 12_000], None, None, [0.4, 8_000]]
    assert [trial.constraints.get("budget") for trial in trials] == [
        -1000,
        2000,
        -3000,
        None,
        -2000,
    ]
    assert {trial.params["checkpoints"] for trial in study.best_trials} == {4, 2}
    assert [trial.user_attrs["why"] for trial in trials] == [f"reason {number}" for number in range(len(rows))]
    assert trials[1].user_attrs["recompute_factor"] == 2.5
    assert trials[3].user_attrs["message"] == "no room"
    assert [trial.user_attrs["status"] for trial in trials] == ["ok", "ok", "ok", "out_of_memory", "ok"]
    assert trials[0].user_attrs["evidence"] == "run"
    assert trials[2].user_attrs["evidence"] == "compiled"
    assert {trial.user_attrs["steps"] for trial in trials} == {rows[0].steps}
    assert {trial.user_attrs["measured_at"] for trial in trials} == {rows[0].measured_at.isoformat(timespec="seconds")}


def test_parameters_are_numbers_where_they_can_be_and_never_taken_for_one_another(tmp_path: Path) -> None:
    """10 and 20.5 make a range; True and 1, a tuple and a text are four choices; what a problem lacks is left out."""
    url = write_view(StudyView(name="s", rows=the_rows()), tmp_path / "study.db")
    first, _, other, flags, tiered = sorted(
        read_back(url).trials, key=lambda trial: [4, 40, 8, 80, 2].index(trial.params["checkpoints"])
    )
    assert first.params == {
        "checkpoints": 4, "horizon": 10, "tolerance": 1e-4, "set:solver": "'heun'", "set:wide": "True",
        "xla_flags": "", "tier": "device",
    }  # fmt: skip
    assert (other.params["horizon"], other.params["set:wide"]) == (20.5, "1")
    assert flags.params["xla_flags"] == "--xla_x=1"
    assert (tiered.params["tier"], tiered.user_attrs["windows"]) == ("host", 7)
    assert (tiered.params["set:solver"], tiered.params["set:wide"]) == ("(1, 2)", "None")
    assert "tolerance" not in tiered.params
    assert isinstance(first.distributions["horizon"], optuna.distributions.FloatDistribution)
    assert first.distributions["checkpoints"] == optuna.distributions.IntDistribution(2, 80, log=True)


def test_texts_alone_and_booleans_alone_stay_what_they_are(tmp_path: Path) -> None:
    """Where Optuna can tell the values apart, a parameter is the value that the user gave."""
    base = the_rows()[0]
    values = [{"solver": "heun", "wide": True, "size": 3}, {"solver": "tsit5", "wide": False, "size": 4}]
    rows = [dataclasses.replace(base, set_values=chosen) for chosen in values]
    study = read_back(write_view(StudyView(name="s", rows=rows), tmp_path / "study.db"))
    found = [{key: trial.params[f"set:{key}"] for key in values[0]} for trial in study.trials]
    assert sorted(found, key=str) == sorted(values, key=str)
    assert isinstance(study.trials[0].distributions["set:size"], optuna.distributions.IntDistribution)


@given(st.lists(measurements(), min_size=1, max_size=8))
@settings(max_examples=60, deadline=None)
def test_any_rows_make_trials_that_the_tables_give_back(rows: list[Measurement]) -> None:
    """Whatever the values: each survives the double that a table holds and the text of its distribution."""
    trials = trials_of(StudyView(name="s", rows=rows, budget_bytes=BUDGET))
    assert [trial.user_attrs["key"] for trial in trials] == [
        row.key for row in sorted(rows, key=lambda row: (row.measured_at, row.key))
    ]
    for trial in trials:
        for name, value in trial.params.items():
            text = optuna.distributions.distribution_to_json(trial.distributions[name])
            distribution = optuna.distributions.json_to_distribution(text)
            back = distribution.to_external_repr(distribution.to_internal_repr(value))
            assert (back, type(back)) == (value, type(value))


def test_the_tables_hold_what_optuna_itself_would_have_written(tmp_path: Path) -> None:
    """A study whose trials Optuna adds one by one reads back as ours does: parameters, states, times, constraints."""
    view = StudyView(name="s", rows=the_rows(), budget_bytes=BUDGET)
    ours = read_back(write_view(view, tmp_path / "ours.db"))
    storage = optuna.storages.RDBStorage(f"sqlite:///{tmp_path / 'theirs.db'}")
    theirs = optuna.create_study(study_name="s", storage=storage, directions=["minimize", "minimize"])
    theirs.add_trials(trials_of(view))
    assert ours.trials == optuna.load_study(study_name="s", storage=storage).trials
    storage.remove_session()
    storage.engine.dispose()


def test_a_tune_leaves_a_study_of_every_row_and_says_why_each_was_tried(store: ProfileStore) -> None:
    """Beside the store lies one study of all rows of the problem, the failed ones and the final runs included."""
    result = _tune(store, lab(capacity_bytes=3_000_000), budget="50MB")
    assert result.study_url is not None
    study = read_back(result.study_url)
    rows = {row.key: row for row in store.measurements()}
    assert {trial.user_attrs["key"] for trial in study.trials} == set(rows)
    assert {trial.user_attrs["status"] for trial in study.trials} == {"ok", "out_of_memory"}
    assert all(trial.user_attrs["why"] for trial in study.trials)
    finals = [trial for trial in study.trials if rows[trial.user_attrs["key"]].study.endswith("/verified")]
    assert {trial.user_attrs["why"] for trial in finals} == {"final run, your own settings"}
    assert study.user_attrs["budget_bytes"] == 50_000_000
    assert study.study_name == result.prepared.study


def test_a_second_tune_writes_the_study_anew_with_what_both_measured(store: ProfileStore) -> None:
    """Another horizon joins the rows of the first tune, under the budget of the second."""
    first = _tune(store, listed=Listed(horizons=(10,)))
    second = _tune(store, listed=Listed(horizons=(20,)), budget="4MB")
    assert first.study_url == second.study_url
    assert second.study_url is not None
    study = read_back(second.study_url)
    assert {trial.params["horizon"] for trial in study.trials} == {10, 20}
    assert len(study.trials) == len(store.measurements())
    assert study.user_attrs["budget_bytes"] == 4_000_000


@pytest.mark.parametrize("left", ["nothing", "garbage"])
def test_no_tune_reads_the_study(store: ProfileStore, tmp_path: Path, left: str) -> None:
    """Deleted or overwritten, it is written again; nothing is measured a second time."""
    first = _tune(store)
    path = study_path(store.url, first.prepared.study)
    assert path is not None
    before = [trial.params for trial in read_back(f"sqlite:///{path}").trials]
    for file in (
        path,
        *(one for one in tmp_path.iterdir() if one.is_file() and not one.name.startswith("profiles.db-")),
    ):
        if file.name != "profiles.db":
            file.unlink()
    if left == "garbage":
        path.write_bytes(b"no database")
    machine = lab()
    second = _tune(store, machine)
    assert machine.asked == []
    assert second.recommendations == first.recommendations
    assert [trial.params for trial in read_back(f"sqlite:///{path}").trials] == before


def test_an_interrupted_tune_leaves_the_study_of_what_was_measured(store: ProfileStore) -> None:
    """Ctrl-C in the second batch: the rows of the first one stand in the study."""

    class Interrupted(FakeLab):
        batches = 0

        def run(self, trials: Sequence[Trial]) -> list[Measurement]:
            self.batches += 1
            if self.batches == 2:
                raise KeyboardInterrupt
            return super().run(trials)

    base = lab()
    with pytest.raises(KeyboardInterrupt):
        _tune(store, Interrupted(base.steps, base.peak_bytes, base.seconds))
    (path,) = Path(f"{store.place}.studies").iterdir()
    stored = store.measurements()
    assert stored
    assert len(read_back(f"sqlite:///{path}").trials) == len(stored)


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), sqlite3.OperationalError("disk I/O error")])
def test_a_study_that_cannot_be_written_fails_no_tune(
    store: ProfileStore, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """One line says so, the result stands, the study of before is as it was, and no other file is left."""
    before = _tune(store, listed=Listed(horizons=(10,)))
    assert before.study_url is not None
    known = len(read_back(before.study_url).trials)

    def refuse(*_: object) -> None:
        raise error

    monkeypatch.setattr(study_view.os, "replace", refuse)
    heard = Heard()
    result = _tune(store, heard=heard, listed=Listed(horizons=(20,)))
    monkeypatch.undo()
    assert result.everything_fits
    assert result.study_url is None
    (line,) = [line for line in heard.lines if "could not be written" in line]
    assert str(error) in line
    assert len(read_back(before.study_url).trials) == known
    assert len(list(Path(f"{store.place}.studies").iterdir())) == 1


KILLED = """
import os, signal, sys
from pathlib import Path
from autotune.tuning import study_view
from tests.autotune.tuning.test_study_view import the_rows
study_view.os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
study_view.write_view(study_view.StudyView(name="new", rows=the_rows()), Path(sys.argv[1]))
"""


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL is POSIX")
def test_a_kill_while_the_study_is_written_leaves_the_old_one_whole(tmp_path: Path) -> None:
    """At the last moment before the new file takes its place; what is left of it goes with a later study."""
    path = tmp_path / "study.db"
    url = write_view(StudyView(name="old", rows=the_rows()[:2]), path)
    done = subprocess.run([sys.executable, "-c", KILLED, str(path)], cwd=REPOSITORY)
    assert done.returncode == -signal.SIGKILL
    assert len(read_back(url).trials) == 2
    (left,) = [one for one in tmp_path.iterdir() if one != path]
    os.utime(left, (0, 0))
    write_view(StudyView(name="new", rows=the_rows()), path)
    assert list(tmp_path.iterdir()) == [path]
    assert len(read_back(url).trials) == len(the_rows())


def test_several_writers_at_once_leave_a_whole_study(tmp_path: Path) -> None:
    """Tunes of one problem that end in one moment: whoever is last, the file is one of theirs."""
    path, rows = tmp_path / "study.db", the_rows()
    views = [StudyView(name=f"s{number}", rows=rows[:number]) for number in (1, 3, 5)]
    threads = [threading.Thread(target=write_view, args=(view, path)) for view in views]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    study = read_back(f"sqlite:///{path}")
    assert (study.study_name, len(study.trials)) in {(view.name, len(view.rows)) for view in views}
    assert list(tmp_path.iterdir()) == [path]


def test_a_study_lies_beside_its_store_or_in_the_users_folder() -> None:
    """Each store has a folder of its own; a server's is in the data folder and shows no password; memory has none."""
    assert study_path("sqlite:////data/a.db", "p:make-12") == Path("/data/a.db.studies/p-make-12.db")
    assert study_path("sqlite://", "p:make-12") is None
    server = study_path("postgresql://me:hunter2@host/db", "p:make-12")
    assert server is not None
    assert server.name == "p-make-12.db"
    assert "studies" in server.parts
    assert "hunter2" not in str(server)
    assert server != study_path("postgresql://me:hunter2@host/other", "p:make-12")


def test_a_stored_profile_is_written_as_a_study(store: ProfileStore, tmp_path: Path) -> None:
    """`autotune.write_study`: any file, any budget or none, with why each trial was made."""
    result = _tune(store)
    assert result.study_url is not None
    own = read_back(result.study_url)
    study = read_back(autotune.write_study("fake:make", tmp_path / "mine.db", budget="2MB", store=store.url))
    assert [trial.user_attrs for trial in study.trials] == [trial.user_attrs for trial in own.trials]
    assert study.study_name == own.study_name
    assert all(trial.constraints["budget"] == trial.user_attrs["peak_bytes"] - 2_000_000 for trial in study.trials)
    free = read_back(autotune.write_study("fake:make", tmp_path / "free.db", store=store.url))
    assert all(trial.constraints == {} for trial in free.trials)
    with pytest.raises(autotune.AutotuneError, match=r"study .*could not be written"):
        autotune.write_study("fake:make", tmp_path / "mine.db" / "no.db", store=store.url)
