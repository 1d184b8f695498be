"""The command line: what it prints where, its exit codes, its options, and what it does not load."""

import json
import pathlib
import subprocess
import sys
import types

import optuna
import pytest
import typer.testing

from autotune import AutotuneError
from autotune.cli import app
from autotune.cli.commands import recommend
from autotune.cli.commands import tune as tune_command
from autotune.cli.schedule_view import draw_sweeps, draw_tree, view_schedule
from profiles import open_store
from tests.autotune.fake_lab import lab
from tests.conftest import REPOSITORY

runner = typer.testing.CliRunner()


@pytest.fixture
def here(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """An empty folder with a store of its own, on a machine of arithmetic."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CKPT_TUNE_STORE", str(tmp_path / "profiles.db"))
    monkeypatch.setattr(tune_command, "make_machine", lambda settings, search_path: lab())
    monkeypatch.setattr(recommend, "make_machine", lambda settings, search_path: lab())
    return tmp_path


def _call(*arguments: str) -> typer.testing.Result:
    return runner.invoke(app.app, list(arguments))


def test_help_of_every_command_loads_nothing_heavy() -> None:
    """`--help` answers without jax, numpy, pandas, optuna, Altair or SQLAlchemy."""
    code = (
        "import sys\nfrom autotune.cli import app\n"
        "try:\n    app.app(['tune', '--help'])\nexcept SystemExit:\n    pass\n"
        "heavy = {'jax', 'numpy', 'pandas', 'optuna', 'altair', 'vl_convert', 'sqlalchemy', 'diffrax', 'scipy'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY, check=True)
    assert done.stderr.strip() == "[]"
    assert "--budget" in done.stdout


def test_a_tune_prints_data_on_stdout_and_progress_on_stderr(here: pathlib.Path) -> None:
    """JSON on standard output is whole and alone; every trial is told on standard error; the store is named."""
    done = _call("tune", "fake.mod:make", "--budget", "5MB", "--format", "json")
    assert done.exit_code == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["store"] == str(here / "profiles.db")
    assert document["recommendations"][0]["status"] == "ok"
    assert "a call" in done.stderr


def test_quiet_says_nothing(here: pathlib.Path) -> None:
    """With --quiet standard error is empty."""
    done = _call("tune", "fake.mod:make", "--budget", "5MB", "--format", "json", "--quiet")
    assert done.stderr == ""


def test_the_table_names_everything_a_user_needs_next(here: pathlib.Path) -> None:
    """The table has the front, the adjoint to write down, the store, and how to get the report; every figure a unit."""
    done = _call("tune", "fake.mod:make", "--budget", "5MB")
    assert "use         from adjoint import RecursiveCheckpointAdjoint\n" in done.stdout
    assert "\n            RecursiveCheckpointAdjoint(checkpoints=" in done.stdout
    assert str(here / "profiles.db") in done.stdout
    assert "ckpt-tune report fake:make --out DIR" in done.stdout
    assert "MiB" in done.stdout


def test_the_last_lines_of_a_tune_open_its_study(here: pathlib.Path) -> None:
    """The dashboard's command names the file, the call below it loads the study, and JSON has the same URL."""
    said = _call("tune", "fake.mod:make", "--budget", "5MB").stdout
    dashboard, call = said.splitlines()[-2:]
    command, url = dashboard.removeprefix("study").split()
    assert command == "optuna-dashboard"
    assert pathlib.Path(url.removeprefix("sqlite:///")).parent == here / "profiles.db.studies"
    opened = optuna.storages.RDBStorage(url)

    def load_study(study_name: str, storage: str) -> optuna.Study:
        assert storage == url
        return optuna.load_study(study_name=study_name, storage=opened)

    study = eval(call, {"optuna": types.SimpleNamespace(load_study=load_study)})
    with open_store(str(here / "profiles.db")) as store:
        assert len(study.trials) == len(store.measurements())
    document = json.loads(_call("tune", "fake.mod:make", "--budget", "5MB", "--format", "json").stdout)
    assert document["study_url"] == url
    assert document["study"] == study.study_name
    opened.remove_session()
    opened.engine.dispose()  # else its connection is found unclosed in whichever test comes later


def test_a_tune_without_a_file_to_keep_prints_no_study(here: pathlib.Path) -> None:
    """A store in memory has no study beside it."""
    done = _call("tune", "fake.mod:make", "--budget", "5MB", "--store", "sqlite://")
    assert done.exit_code == 0
    assert "optuna" not in done.stdout


def test_a_tune_with_tiers_prints_what_to_paste_and_plan_tells_what_host_memory_buys(here: pathlib.Path) -> None:
    """The tier stands in the table, in the adjoint to write down, and in the plan of a device that falls short."""
    done = _call("tune", "fake.mod:make", "--budget", "1500kB", "--tiers", "device,host", "--host-budget", "5MB")
    assert done.exit_code == 0, done.stderr
    assert 'tier="host", windows=50, transfer_cost=1)' in done.stdout
    assert "host, 50 windows" in done.stdout
    assert "tier host: up to 50 states of 97.7 KiB; a transfer takes as long as 1 step" in done.stderr
    (here / "small.toml").write_text('[small]\nmemory_bytes = 1700000\nplatform = "gpu"\nsource = "a test"\n')
    asked = ("plan", "fake:make", "--devices", "small", "--catalogue", "small.toml", "--max-recompute", "3.5")
    said = "does not fit on small alone within recompute factor 3.5"
    assert f"{said}; fits with " in _call(*asked).stdout
    assert f"{said}, nor with " in _call(*asked, "--host-budget", "200kB").stdout


def test_nothing_fits_exits_with_3_and_the_smallest_bytes(here: pathlib.Path) -> None:
    """A hopeless budget is exit code 3, and its line says the bytes that would do."""
    done = _call("tune", "fake.mod:make", "--budget", "1000", "--format", "json")
    assert done.exit_code == 3
    assert json.loads(done.stdout)["recommendations"][0]["smallest_bytes"] == 1_100_000
    table = _call("tune", "fake.mod:make", "--budget", "1000")
    assert table.exit_code == 3
    assert "1100000 bytes" in table.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("tune",), 2, "PROBLEM"),
        (("tune", "p:make", "--no-such"), 2, "--no-such"),
        (("tune", "p:make", "--horizon", "ten"), 1, "--horizon 'ten'"),
        (("tune", "p:make", "--checkpoints", "0"), 1, "--checkpoints '0'"),
        (("tune", "p:make", "--set", "x"), 1, "--set 'x'"),
        (("tune", "p:make", "--budget", "6XB"), 1, "6XB"),
        (("tune", "p:make", "--tiers", "device,tape"), 1, "'tape' is not a tier"),
        (("tune", "p:make", "--host-budget", "1GiB"), 1, "add host to --tiers device"),
        (("tune", "p:make", "--tiers", "host", "--adjoint", "diffrax"), 1, "--tiers host is for our adjoint"),
        (("tune", "p:make", "--tiers", "host", "--largest", "horizon"), 1, "leave --tiers out"),
        (("plan", "p:make", "--host-budget", "much"), 1, "'much' is not a number of bytes"),
        (("recommend", "nothing"), 1, "nothing"),
        (("profiles", "show", "nothing"), 1, "nothing"),
        (("schedule", "--steps", "0", "--checkpoints", "3"), 2, "--steps"),
    ],
)
def test_bad_input_is_one_line_and_its_code(
    here: pathlib.Path, arguments: tuple[str, ...], code: int, said: str
) -> None:
    """What a user can mend is exit code 1 or 2 and names what was asked; there is no traceback."""
    done = _call(*arguments)
    assert done.exit_code == code
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_bug_keeps_its_traceback_and_exits_with_70(here: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is no error of the user's is exit code 70 with the traceback."""

    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("ours")

    monkeypatch.setattr(tune_command, "run_tune", broken)
    done = _call("tune", "fake.mod:make")
    assert done.exit_code == 70
    assert "ZeroDivisionError: ours" in done.stderr
    assert "Traceback" in done.stderr


def test_an_interrupt_exits_with_130_and_says_how_to_go_on(here: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C is exit code 130, and what was measured is said to be stored."""

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(tune_command, "run_tune", interrupted)
    done = _call("tune", "fake.mod:make")
    assert done.exit_code == 130
    assert "the same command goes on" in done.stderr


def test_user_frames_follow_the_line_of_their_error(here: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the user's code raised, their own frames come after the one line."""

    def raised(*_: object, **__: object) -> None:
        raise AutotuneError("make raised: ValueError: no", frames=("  mine.py:3 in make\n    raise ValueError",))

    monkeypatch.setattr(tune_command, "run_tune", raised)
    lines = _call("tune", "fake.mod:make").stderr.splitlines()
    assert lines == ["ckpt-tune: make raised: ValueError: no", "  mine.py:3 in make", "    raise ValueError"]


def test_options_of_the_users_pyproject_hold_and_the_command_line_wins(here: pathlib.Path) -> None:
    """A table in pyproject.toml sets options of the commands that have them; a typed option is stronger."""
    (here / "pyproject.toml").write_text('[tool.ckpt-tune]\nbudget = "3MB"\nhorizon = [5, 10]\nadjoint = "ours"\n')
    document = json.loads(_call("tune", "fake.mod:make", "--format", "json").stdout)
    assert [r["horizon"] for r in document["recommendations"]] == [5, 10]
    assert {r["budget_bytes"] for r in document["recommendations"]} == {3_000_000}
    document = json.loads(_call("tune", "fake.mod:make", "--budget", "4MB", "--format", "json").stdout)
    assert {r["budget_bytes"] for r in document["recommendations"]} == {4_000_000}


def test_an_unknown_key_in_pyproject_is_one_line(here: pathlib.Path) -> None:
    """A key that no command has is named, with the nearest that one does."""
    (here / "pyproject.toml").write_text('[tool.ckpt-tune]\nbugdet = "3MB"\n')
    done = _call("tune", "fake.mod:make")
    assert done.exit_code == 1
    assert "'bugdet'" in done.stderr
    assert "'budget'" in done.stderr


def test_a_dry_run_lists_trials_and_stores_nothing(here: pathlib.Path) -> None:
    """--dry-run prints what would be measured; the store stays without measurements."""
    done = _call("tune", "fake.mod:make", "--budget", "5MB", "--dry-run", "--format", "json")
    assert done.exit_code == 0
    assert json.loads(done.stdout)["trials"]
    with open_store(str(here / "profiles.db")) as store:
        assert store.measurements() == []


def test_a_recorded_sweep_is_replayed_without_a_device(here: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """--replay answers from a store: no machine is made, and the recommendation is one that was recorded."""
    assert (
        _call("tune", "fake.mod:make", "--budget", "5MB", "--checkpoints", "4,16,30,40", "--exhaustive").exit_code == 0
    )

    def no_machine(*_: object, **__: object) -> None:
        raise AssertionError("a machine was made")

    monkeypatch.setattr(tune_command, "make_machine", no_machine)
    done = _call(
        "tune", "fake:make", "--budget", "5MB", "--checkpoints", "4,16,30,40", "--replay", str(here / "profiles.db"),
        "--format", "json",
    )  # fmt: skip
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["recommendations"][0]["checkpoints"] == 40


def test_recommend_reads_the_profile_and_refuses_another_device(
    here: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stored profile recommends what its tune did; on another device it is refused with both names, --force aside."""
    tuned = json.loads(_call("tune", "fake.mod:make", "--budget", "5MB", "--format", "json").stdout)
    done = _call("recommend", "fake:make", "--budget", "5MB", "--format", "json")
    assert done.exit_code == 0, done.stderr
    count = json.loads(done.stdout)["recommendations"][0]["checkpoints"]
    assert abs(count - tuned["recommendations"][0]["checkpoints"]) <= 3
    other = lab()
    info = other.device_info()
    import dataclasses

    monkeypatch.setattr(type(other), "device_info", lambda self: dataclasses.replace(info, kind="other-cpu"))
    refused = _call("recommend", "fake:make", "--budget", "5MB")
    assert refused.exit_code == 1
    assert "fake-cpu" in refused.stderr
    assert "other-cpu" in refused.stderr
    assert _call("recommend", "fake:make", "--budget", "5MB", "--force").exit_code == 0


def test_profiles_are_listed_shown_exported_deleted_and_imported(here: pathlib.Path) -> None:
    """A profile goes to a file and comes back to the last row."""
    _call("tune", "fake.mod:make", "--budget", "5MB", "--quiet")
    listed = json.loads(_call("profiles", "list", "--format", "json").stdout)
    assert [profile["problem"] for profile in listed["profiles"]] == ["fake:make"]
    before = _call("profiles", "show", "fake:make", "--format", "csv").stdout
    exported = _call("profiles", "export", "fake:make", "out.json")
    assert str(pathlib.Path("out.json")) in exported.stderr
    assert _call("profiles", "delete", "fake:make").exit_code == 0
    assert json.loads(_call("profiles", "list", "--format", "json").stdout)["profiles"] == []
    assert _call("profiles", "import", "out.json").exit_code == 0
    assert _call("profiles", "show", "fake:make", "--format", "csv").stdout == before


def test_a_report_names_every_file_it_wrote(here: pathlib.Path) -> None:
    """Each file of the report is named on the screen and is there."""
    _call("tune", "fake.mod:make", "--budget", "5MB", "--quiet")
    done = _call("report", "fake:make", "--out", "out", "--budget", "5MB")
    assert done.exit_code == 0, done.stderr
    named = [line.removeprefix("wrote ") for line in done.stdout.splitlines()]
    assert sorted(named) == sorted(str(path) for path in pathlib.Path("out").iterdir())
    assert "out/report.html" in named


def test_a_schedule_is_drawn_with_a_line_for_every_step() -> None:
    """64 steps with 6 checkpoints: each line reverses the next step down, holding at most 6 states."""
    view = view_schedule(64, 6, 64)
    assert [line.reversed_step for line in view.sweeps] == list(range(63, -1, -1))
    assert all(len({*line.held, *line.stored}) <= 6 for line in view.sweeps)
    assert all(line.start in line.held or index == 0 for index, line in enumerate(view.sweeps))
    advanced = sum(line.reversed_step - line.start for line in view.sweeps)
    assert advanced + 64 <= view.executed_steps, "taped passes and advances are all that is executed"
    drawn = draw_sweeps(view)
    assert len(drawn) == 65
    assert max(map(len, drawn)) <= 70
    assert len(draw_tree(view)) == len(view.nodes)


def test_a_long_schedule_says_what_it_leaves_out() -> None:
    """Ten thousand steps are scaled to the screen, and what is not drawn is counted."""
    view = view_schedule(10_000, 20, None, most_sweeps=400)
    drawn = draw_sweeps(view, 80)
    assert max(map(len, drawn)) <= 90
    assert "9600 more sweeps" in drawn[-1]
