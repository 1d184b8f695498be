"""Every command that reads profiles, on the measured profiles of the six shipped problems."""

import json
import math
import pathlib
import time

import pytest
import typer.testing

from autotune.cli import app
from autotune.stock import MOST_SIMULATED, stock_executed_steps, stock_most_executed_steps
from profiles import open_store
from tests.conftest import REPOSITORY

PROBLEMS = ("lynx_hare", "neural_cde", "neural_sde", "reaction_diffusion", "robertson", "spirals")
runner = typer.testing.CliRunner()


def call(*arguments: str, code: int = 0) -> typer.testing.Result:
    """Run a command, which ends with `code`."""
    done = runner.invoke(app.app, list(arguments))
    assert done.exit_code == code, done.output
    return done


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A store of all six, and the names of both adjoints' profiles by problem."""
    store = tmp_path_factory.mktemp("reference") / "profiles.db"
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("CKPT_TUNE_STORE", str(store))
        for problem in PROBLEMS:
            call("profiles", "import", str(REPOSITORY / "profiles" / "reference" / f"{problem}.csv"))
        with open_store(str(store)) as opened:
            return {f"{p.name} {p.adjoint}": p.qualified_name for p in opened.profiles()} | {"store": str(store)}


@pytest.fixture(autouse=True)
def _stored(names: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CKPT_TUNE_STORE", names["store"])


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("adjoint", ["ours", "diffrax"])
def test_a_plan_for_large_devices_is_quick(names: dict[str, str], problem: str, adjoint: str) -> None:
    """A device that holds a billion checkpoints of a small state is no reason to count them one by one."""
    name = names[f"{problem}:make {adjoint}"]
    started = time.perf_counter()
    done = call("plan", name, "--devices", "l4,a100-40gb,h100-80gb,tpu-v5e", "--max-recompute", "3", "--format", "json")
    assert time.perf_counter() - started < 20  # seconds; a minute and more before there was a closed form
    document = json.loads(done.stdout)
    assert len({row["device"] for row in document["rows"]}) == 4
    for row in document["rows"]:
        assert row["checkpoints"] >= 1
        assert 2.0 <= row["recompute_factor"] <= 3.0
        assert row["smallest_bytes"] <= row["needed_bytes"] <= row["saturated_bytes"]
    assert all(one["steps"] >= row["steps"] for one in document["longest_horizons"] for row in document["rows"])


@pytest.mark.parametrize("problem", PROBLEMS)
def test_what_a_problem_recommends_fits_and_is_measured(names: dict[str, str], problem: str) -> None:
    """A GiB holds every one of them; a KiB none, and the smallest bytes are said."""
    name = names[f"{problem}:make ours"]
    done = call("recommend", name, "--budget", "1GiB", "--force", "--format", "json")
    for choice in json.loads(done.stdout)["recommendations"]:
        assert choice["status"] == "ok"
        assert choice["peak_bytes"] <= 2**30
    refused = call("recommend", name, "--budget", "1KiB", "--force", code=3)
    assert "MiB" in refused.output or "KiB" in refused.output


@pytest.mark.parametrize("problem", PROBLEMS)
def test_a_problem_is_shown_compared_and_reported(names: dict[str, str], problem: str, tmp_path: pathlib.Path) -> None:
    """`show`, `compare` with Diffrax's adjoint and `report` name the problem and write their files."""
    ours, stock = names[f"{problem}:make ours"], names[f"{problem}:make diffrax"]
    assert problem in call("profiles", "show", ours).output
    compared = json.loads(call("compare", ours, stock, "--format", "json").stdout)
    assert compared["points"]
    assert any(change["what"] == "adjoint" for change in compared["changes"])
    call("report", ours, "--out", str(tmp_path), "--budget", "1GiB")
    written = {path.suffix for path in tmp_path.rglob("*") if path.is_file()}
    assert {".csv", ".png", ".svg", ".html"} <= written


@pytest.mark.parametrize("checkpoints", [1, 2, 5, 17, 40])
def test_the_bound_on_diffrax_is_one(checkpoints: int) -> None:
    """Algorithm I advances no step twice, so the bound of long solves holds of short ones, where all is counted."""
    for steps in range(checkpoints, (checkpoints + 1) * (checkpoints + 2) // 2):
        assert stock_executed_steps(steps, checkpoints) <= 3 * steps - checkpoints
    assert stock_most_executed_steps(400, checkpoints) == stock_executed_steps(400, checkpoints)
    assert stock_most_executed_steps(MOST_SIMULATED + 1, checkpoints) is None
    many = MOST_SIMULATED - checkpoints
    assert stock_most_executed_steps(MOST_SIMULATED + 1, many) == 3 * (MOST_SIMULATED + 1) - many
    assert math.isclose(stock_most_executed_steps(2**40, 2**40) or 0, 2**41)
