"""A worker of its own runs solves whose first states lie in a tier."""

import dataclasses
import pathlib

import pytest

from autotune import AutotuneError
from autotune.machine.tiers import TierRequest
from autotune.measuring.runners import ProbeRequest, SubprocessRunner
from autotune.measuring.trial import Rung, RunSettings, Trial
from profiles import AdjointName, Status, Tier
from tests.conftest import REPOSITORY

PROBLEMS = REPOSITORY / "tests/assets/problems"


def _trial(problem: str, directory: pathlib.Path) -> Trial:
    return Trial(
        study="s",
        problem=f"{PROBLEMS / 'tiered.py'}:{problem}",
        adjoint=AdjointName.OURS,
        checkpoints=4,
        expected_steps=60,
        steps=60,
        rung=Rung.RUN,
        rounds=1,
        tier=Tier(name="disk", windows=10, transfer_cost=0.5),
        directory=str(directory),
        settings=RunSettings(timeout_seconds=120.0),
    )


def test_a_worker_runs_a_solve_with_a_tier_and_refuses_a_factory_that_leaves_it_unused(
    tmp_path: pathlib.Path,
) -> None:
    """The row tells the executed steps of the windows; a factory that drops the tier is no measurement of it."""
    with SubprocessRunner(RunSettings(timeout_seconds=120.0)) as runner:
        trials = [_trial(name, tmp_path) for name in ("make", "make_loop", "make_without")]
        solved, looped, dropped = runner.run(trials)
        question_of_steps = ProbeRequest(problem=trials[1].problem)
        assert runner.observe(question_of_steps).steps == 60, "a plain loop may take the tier of any adjoint"
        question = TierRequest(
            name="disk", windows=3, state_bytes=1000, step_seconds=1e-3, set_values={}, directory=str(tmp_path)
        )
        tier = runner.tier(question)
        with pytest.raises(AutotuneError, match=r"the tier disk cannot be used: .*not a directory"):
            runner.tier(dataclasses.replace(question, directory=str(tmp_path / "gone")))
    assert solved.status is looped.status is Status.OK
    assert solved.run_seconds
    assert solved.tier == Tier(name="disk", windows=10, transfer_cost=0.5)
    assert solved.executed_steps is not None
    assert solved.executed_steps < 60 * 4
    assert dropped.status is Status.FAILED
    assert "leaves the tier disk unused" in dropped.message
    assert tier.windows == 3
    assert tier.transfer_cost > 0
    assert not list(tmp_path.iterdir()), "nothing is left in the directory"
