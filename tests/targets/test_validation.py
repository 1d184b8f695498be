"""The part of the validation that compares a device with itself as a target; the runner answers from formulas."""

import argparse
import csv
import dataclasses
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from autotune import AutotuneError
from autotune.measuring.trial import Rung, Trial
from autotune.problem.steps import Observation, SiteSteps
from profiles import DeviceKey, Measurement, ProblemKey, Status
from tests.conftest import REPOSITORY

HERE = DeviceKey(platform="gpu", kind="NVIDIA H100 80GB HBM3", memory_bytes=80 * 10**9)


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The script as a module; its neighbours are found beside it."""
    monkeypatch.syspath_prepend(str(REPOSITORY / "scripts" / "validation"))
    names = ("targets", "memory", "rows")
    yield importlib.import_module("targets")
    for name in names:
        sys.modules.pop(name, None)


@dataclasses.dataclass
class Runner:
    """Plans a million bytes and 1,000 for each checkpoint; running takes 5 % more. `fails` to plan where told to."""

    fails: bool = False

    def observe(self, question: object) -> Observation:
        """See 100 steps."""
        site = SiteSteps(site="here:1", steps=(100,), accepted=(90,), rejected=(10,))
        return Observation(horizon=None, tolerance=None, sites=(site,), repeats=1)

    def run(self, trials: list[Trial]) -> list[Measurement]:
        """Answer one trial: for the device itself, or for the target, which is never run."""
        (trial,) = trials
        target = trial.settings.target
        assert (trial.rung is Rung.COMPILED) == (target is not None)
        size = 1_000_000 + 1_000 * trial.checkpoints
        row = Measurement(
            study="s", problem=ProblemKey(name="p", components={}), device=HERE if target is None else target.key,
            adjoint=trial.adjoint, checkpoints=trial.checkpoints, compiled_bytes=size, peak_bytes=size,
        )  # fmt: skip
        if target is None:
            return [dataclasses.replace(row, peak_bytes=round(1.05 * size))]
        failed = {"status": Status.FAILED, "message": "XLA refuses\nat length", "peak_bytes": None}
        return [dataclasses.replace(row, **failed) if self.fails else row]


def _rows(script: ModuleType, tmp_path: Path, runner: Runner) -> tuple[bool, list[dict[str, str]]]:
    table = script.Table(tmp_path / "targets.csv", {"platform": "gpu", "device": HERE.kind})
    options = argparse.Namespace(platform="cpu", timeout=10.0, quick=True)
    broken = script.validate("spirals", script.target_like(HERE.kind), runner, table, options)
    with (tmp_path / "targets.csv").open() as file:
        return broken, list(csv.DictReader(file))


def test_what_running_takes_beyond_the_plan_is_the_margin(script: ModuleType, tmp_path: Path) -> None:
    """Each count has a row with both figures and their ratio."""
    broken, rows = _rows(script, tmp_path, Runner())
    assert not broken
    assert [int(row["checkpoints"]) for row in rows] == list(script.COUNTS)
    assert all(float(row["beyond"]) == pytest.approx(0.05, abs=1e-5) for row in rows)
    assert all(int(row["planned_bytes"]) == 1_000_000 + 1_000 * int(row["checkpoints"]) for row in rows)


def test_a_program_that_compiles_on_the_device_alone_breaks_the_promise(script: ModuleType, tmp_path: Path) -> None:
    """The row has the compiler's words, and no ratio."""
    broken, rows = _rows(script, tmp_path, Runner(fails=True))
    assert broken
    assert {row["complaint"] for row in rows} == {"XLA refuses"}
    assert {row["beyond"] for row in rows} == {""}


def test_a_device_that_is_no_target_is_refused(script: ModuleType) -> None:
    """A CPU, say: the script then writes one row that says so."""
    with pytest.raises(AutotuneError, match="not in the catalogue"):
        script.target_like("cpu")
