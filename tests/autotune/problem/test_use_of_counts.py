"""What counts as a use of the adjoint, and whether a backward pass goes through it."""

import json
from pathlib import Path

import diffrax
import pytest
import typer.testing

from autotune import AutotuneError
from autotune.cli import app
from autotune.problem.loading import load_problem
from autotune.problem.probe import NOT_SEEN, observe
from autotune.problem.probe_adjoint import ProbeAdjoint
from autotune.problem.steps import Observation
from profiles import AdjointName
from tests.conftest import REPOSITORY

USES = REPOSITORY / "tests/assets/problems/uses_of_counts.py"
runner = typer.testing.CliRunner()


def seen(factory: str, name: AdjointName | None = AdjointName.OURS, horizon: int = 10, **values: bool) -> Observation:
    """Observe a factory."""
    return observe(load_problem(f"{USES}:{factory}", set_values=values), horizon, adjoint=name)


@pytest.mark.parametrize("name", list(AdjointName))
@pytest.mark.parametrize(
    ("factory", "expected"),
    [
        ("make_loss_of_solve", False),
        ("make_gradient_of_solve", True),
        ("make_gradient_of_something_else", False),
        ("make_library", True),
    ],
)
def test_a_backward_pass_is_seen_in_the_trace(factory: str, expected: bool, name: AdjointName) -> None:
    """Where none goes through the solve the program is the same whatever the count, with either adjoint."""
    assert seen(factory, name).differentiated is expected


@pytest.mark.parametrize(
    ("factory", "expected"),
    [
        ("make_loss_of_loop", False),
        ("make_gradient_of_loop", True),
        ("make_loss_of_scan", False),
        ("make_gradient_of_scan", True),
    ],
)
def test_the_backward_pass_of_plain_loops_and_scans_is_seen_too(factory: str, expected: bool) -> None:
    """Its steps are observed either way."""
    found = seen(factory)
    assert found.differentiated is expected
    assert found.steps == 10


def test_one_step_tells_nothing_of_the_backward_pass() -> None:
    """A loop of one step holds one state whatever is asked for: that is no forgotten gradient."""
    assert seen("make_gradient_of_loop", horizon=1).differentiated is None


@pytest.mark.parametrize("factory", ["make_library", "make_unbounded_library"])
def test_reading_the_counts_is_a_use_and_nothing_is_run_that_nobody_observes(factory: str) -> None:
    """The steps stay unknown, and no state is allocated for the probe's huge count."""
    found = seen(factory, None)
    assert found.reads_counts
    assert (found.steps, found.note) == (None, NOT_SEEN)


def test_an_adjoint_that_is_only_passed_about_is_not_used() -> None:
    """Flattening a PyTree reads every field, and is no use of the counts."""
    with pytest.raises(AutotuneError, match="never used its adjoint"):
        seen("make_unused")


def test_the_probe_is_what_diffrax_calls_an_adjoint_with_checkpoints() -> None:
    """Code that asks for the class takes the path that it takes in training."""
    probe = ProbeAdjoint()
    assert isinstance(probe, diffrax.RecursiveCheckpointAdjoint)
    assert probe.checkpoints == probe.checkpoints >= 20_000
    assert seen("make_asks_for_the_class").steps == 10


def _tune(tmp_path: Path, factory: str, *words: str) -> typer.testing.Result:
    store = ("--store", str(tmp_path / "s.db"), "--quiet", "--format", "json")
    return runner.invoke(app.app, ["tune", f"{USES}:{factory}", "--checkpoints", "2,8", *words, *store])


def test_a_forgotten_gradient_is_one_line_and_can_be_meant(tmp_path: Path) -> None:
    """Exit code 1 with what to return; with --forward-only it is measured, and nothing is recomputed."""
    done = _tune(tmp_path, "make_loss_of_loop")
    assert done.exit_code == 1
    (line,) = done.stderr.splitlines()
    assert "takes no gradient through its solves" in line
    assert "--forward-only" in line
    meant = _tune(tmp_path, "make_loss_of_loop", "--forward-only")
    assert meant.exit_code == 0, meant.stderr
    (choice,) = json.loads(meant.stdout)["recommendations"]
    assert choice["recompute_factor"] == 1.0


def test_a_library_with_an_adjoint_of_its_own_is_tuned_once_its_steps_are_said(tmp_path: Path) -> None:
    """Without them one line asks; with them counts are compiled, timed and recommended."""
    done = _tune(tmp_path, "make_library")
    assert done.exit_code == 1
    assert "say how many steps it takes with --steps N" in done.stderr
    told = _tune(tmp_path, "make_library", "--steps", "10")
    assert told.exit_code == 0, told.stderr
    (choice,) = json.loads(told.stdout)["recommendations"]
    assert (choice["status"], choice["steps"], choice["evidence"]) == ("ok", 10, "measured")


def test_a_point_that_fails_is_a_row_and_the_others_go_on(tmp_path: Path) -> None:
    """A tolerance whose solve meets max_steps: exit code 1 at the end, the other recommended, a row with its words."""
    done = _tune(tmp_path, "make_meets_max_steps", "--tolerance", "1e-9,1e-2")
    assert done.exit_code == 1
    assert "reached max_steps=200" in done.stderr
    lost, found = json.loads(done.stdout)["recommendations"]
    assert (lost["status"], found["status"]) == ("failed", "ok")
    assert "reached max_steps=200" in lost["message"]
    from profiles import open_store

    with open_store(str(tmp_path / "s.db")) as store:
        (row,) = store.measurements(status="failed")
    assert row.tolerance == 1e-9
    assert "reached max_steps=200" in row.message
    again = _tune(tmp_path, "make_meets_max_steps", "--tolerance", "1e-9,1e-2")
    assert again.exit_code == 1
    assert json.loads(again.stdout)["recommendations"][1]["checkpoints"] == found["checkpoints"]
