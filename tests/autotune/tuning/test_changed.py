"""A problem that is edited while it is tuned: no row of the new code is stored under the old key."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import pytest
import typer.testing

from autotune.cli import app
from autotune.cli.commands import tune as tune_command
from autotune.errors import ProblemChangedError
from autotune.measuring.runners import ProbeRequest, SubprocessRunner
from autotune.measuring.trial import KeyPlace, Rung, RunSettings, Trial
from autotune.problem.fingerprint import problem_key
from autotune.problem.loading import load_problem
from autotune.search.space import Listed
from autotune.tuning.lab import make_machine
from autotune.tuning.request import TuneRequest
from autotune.tuning.tune import run_tune
from profiles import AdjointName, Measurement, Status, open_store
from tests.autotune.fake_lab import FakeLab, Heard, lab

CODE = """
import jax
import jax.numpy as jnp
from adjoint import checkpointed_while_loop
from rate import RATE


def make(*, adjoint, horizon=40):
    def loss(w):
        step = lambda c: (c[0] + 1, c[1] + RATE * jnp.tanh(w * c[1]))
        start = (0, jnp.ones(8))
        end = checkpointed_while_loop(
            lambda c: c[0] < horizon, step, start, max_steps=horizon, checkpoints=adjoint.checkpoints
        )
        return jnp.sum(end[1] ** 2)

    return jax.value_and_grad(loss), (jnp.full(8, 0.3),)
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A problem of a file and a neighbour that it imports."""
    (tmp_path / "rate.py").write_text("RATE = 0.01\n")
    path = tmp_path / "edited_problem.py"
    path.write_text(CODE)
    return path


def edit(file: Path) -> None:
    """Change the code by one character, so that its size stays."""
    file.write_text(file.read_text().replace("tanh", "cosh").replace("0.01", "0.02"))


def test_the_key_is_that_of_the_code_that_was_loaded(file: Path) -> None:
    """A file that is edited after it was loaded does not lend its text to what still runs."""
    before = load_problem(f"{file}:make")
    edit(file)
    edit(file.parent / "rate.py")
    after = load_problem(f"{file}:make")
    assert before.loaded != after.loaded
    assert before.factory.__code__ is not after.factory.__code__
    old, new = (problem_key(problem).components for problem in (before, after))
    assert old["source"] != new["source"]
    file.write_text(CODE)
    assert problem_key(before).components == old


@pytest.mark.parametrize("edited", ["edited_problem.py", "rate.py"])
def test_a_worker_that_loaded_something_else_measures_nothing(file: Path, edited: str) -> None:
    """A worker that starts after the edit, here for the final run, says what changed; one that runs goes on."""
    question = ProbeRequest(problem=f"{file}:make", horizon=40)
    with SubprocessRunner(RunSettings()) as runner:
        key = runner.problem_key(question)
        trial = Trial(
            study="s", problem=question.problem, adjoint=AdjointName.OURS, checkpoints=4, horizon=80, key=key,
            key_place=KeyPlace(horizon=40), rung=Rung.COMPILED,
        )  # fmt: skip
        (row,) = runner.run([trial])
        assert row.status is Status.OK, row.message
        edit(file.parent / edited)
        (row,) = runner.run([dataclasses.replace(trial, checkpoints=8)])
        assert row.status is Status.OK, row.message
        with pytest.raises(ProblemChangedError, match=r"source of the module: stored .*run the same command") as caught:
            runner.run([dataclasses.replace(trial, settings=RunSettings(own_environment=True))])
        assert "\n" not in str(caught.value)
    with SubprocessRunner(RunSettings()) as runner, pytest.raises(ProblemChangedError):
        runner.observe(dataclasses.replace(question, key=key, key_place=KeyPlace(horizon=40)))


class ChangesAtTheEnd(FakeLab):
    """A lab whose problem is another one in its final run."""

    def run(self, trials: Sequence[Trial]) -> list[Measurement]:
        """Measure what a sweep asks for."""
        assert all(trial.key_place == KeyPlace() for trial in trials)
        if trials[0].settings.own_environment:
            raise ProblemChangedError("fake:make was changed while it was tuned")
        return super().run(trials)


def test_a_tune_ends_in_one_line_and_keeps_what_was_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 1; the rows from before the edit are stored, no failed row and no choice beside them."""
    base = lab()
    monkeypatch.setattr(
        tune_command, "make_machine",
        lambda settings, search_path: ChangesAtTheEnd(base.steps, base.peak_bytes, base.seconds),
    )  # fmt: skip
    store = str(tmp_path / "s.db")
    done = typer.testing.CliRunner().invoke(
        app.app, ["tune", "fake.mod:make", "--budget", "5MB", "--store", store, "--quiet"]
    )
    assert done.exit_code == 1
    assert done.stderr == "ckpt-tune: fake:make was changed while it was tuned\n"
    with open_store(store) as opened:
        rows = opened.measurements()
        assert rows
        assert all(row.status is Status.OK for row in rows)
        assert opened.notes("choice") == {}


@pytest.mark.slow
def test_a_file_edited_while_it_is_really_tuned_ends_the_tune(file: Path) -> None:
    """With real workers: every stored row has the key from before the edit, and nothing is recommended."""

    class Edits(Heard):
        def finished(self, measurement: Measurement) -> None:
            super().finished(measurement)
            if len(self.rows) == 1:
                edit(file)

    request = TuneRequest(problem=f"{file}:make", listed=Listed(counts=(4, 8)))
    machine = make_machine(request.settings)
    with open_store("sqlite://") as store:
        try:
            with pytest.raises(ProblemChangedError, match="edited_problem:make was changed while it was tuned"):
                run_tune(request, store=store, machine=machine, progress=Edits())
        finally:
            machine.close()
        rows = store.measurements()
    assert rows
    assert len({row.problem.fingerprint for row in rows}) == 1
