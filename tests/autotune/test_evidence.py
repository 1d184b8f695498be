"""One point has the same figures in every output, and each figure says what it rests on."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import typer.testing

from autotune.adjoints import Work, passes, work_of_row
from autotune.choosing.recommend import Evidence, RecommendRequest, recommend_from
from autotune.cli import app
from autotune.cli.commands import recommend, tune
from autotune.measuring.rows import blank_row
from autotune.measuring.trial import Rung, Trial
from profiles.analysis.extras import ReportExtras
from profiles.analysis.pareto import points
from profiles.pages.page_data import page_data
from profiles.records.records import AdjointName, Measurement, Profile
from profiles.store.store import open_store

from .fake_lab import FakeLab, lab
from .fake_machine import PROBLEM

runner = typer.testing.CliRunner()
COUNTS = (4, 16, 30)


class Scatters(FakeLab):
    """A lab whose solves reject steps, whose timings scatter, and which needs a little more in its final run."""

    def run(self, trials: Sequence[Trial]) -> list[Measurement]:
        """Measure, as a real worker counts."""
        rows = []
        for trial, row in zip(trials, super().run(trials), strict=True):
            counted = blank_row(trial)
            extra = 1000 if trial.settings.own_environment else 0
            rows.append(
                dataclasses.replace(
                    row,
                    executed_steps=counted.executed_steps,
                    recompute_factor=counted.recompute_factor,
                    accepted=trial.accepted,
                    peak_bytes=(row.peak_bytes or 0) + extra,
                    run_seconds=tuple(s * (1 + 0.1 * k) for k, s in enumerate(row.run_seconds)),
                )
            )
        return rows

    def observe_all(self, questions: Sequence[Any]) -> list[Any]:
        """Count steps of which a fifth was rejected."""
        found = []
        for seen in super().observe_all(questions):
            (site,) = seen.sites
            steps = site.steps[0]
            good = steps * 4 // 5
            site = dataclasses.replace(site, accepted=(good,), rejected=(steps - good,), max_steps=9999)
            found.append(dataclasses.replace(seen, sites=(site,)))
        return found


def _lab() -> FakeLab:
    base = lab(noise=0.05)
    return Scatters(base.steps, base.peak_bytes, base.seconds, noise=base.noise)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a store and a lab."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CKPT_TUNE_STORE", str(tmp_path / "profiles.db"))
    for module in (tune, recommend):
        monkeypatch.setattr(module, "make_machine", lambda settings, search_path=(): _lab())
    return tmp_path


def _json(*words: str) -> Any:
    done = runner.invoke(app.app, [*words, "--format", "json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def _profile(here: Path) -> Profile:
    with open_store(str(here / "profiles.db")) as store:
        return store.profile("fake:make")


FIGURES = ("peak_bytes", "run_seconds", "recompute_factor")


def test_the_same_point_is_the_same_in_every_output(here: Path) -> None:
    """tune, recommend, profiles show, report (page, CSV of points) and plan agree on bytes, seconds and recompute."""
    counts = ",".join(map(str, COUNTS))
    (tuned,) = _json("tune", "fake.mod:make", "--budget", "5MB", "--checkpoints", counts)["recommendations"]
    assert tuned["checkpoints"] in COUNTS
    (again,) = _json("recommend", "fake:make", "--budget", "5MB")["recommendations"]
    shown = {point["checkpoints"]: point for point in _json("profiles", "show", "fake:make")["points"]}
    size = shown[tuned["checkpoints"]]["peak_bytes"]
    (here / "one.toml").write_text(
        f'[here]\nmemory_bytes = {size + 10}\nplatform = "cpu"\nkind = ["fake-cpu"]\nsource = "a test"\n'
    )
    planned = _json(
        "plan", "fake:make", "--devices", "here", "--catalogue", "one.toml", "--max-recompute", "3", "--margin", "0"
    )["rows"][0]
    assert runner.invoke(app.app, ["report", "fake:make", "--out", "out", "--budget", "5MB"]).exit_code == 0
    page = {
        one["checkpoints"]: one for one in page_data(_profile(here), budget_bytes=None, extras=ReportExtras())["points"]
    }
    sides = {"recommend": again, "plan": planned}
    point = shown[tuned["checkpoints"]]
    for name in FIGURES:
        assert tuned[name] == point[name], name
        for side, record in sides.items():
            if record["checkpoints"] in shown:
                assert record[name] == shown[record["checkpoints"]][name], (side, name)
    drawn = page[tuned["checkpoints"]]
    assert [drawn[key] for key in ("bytes", "seconds", "factor")] == [point[name] for name in FIGURES]
    assert planned["checkpoints"] == tuned["checkpoints"]
    assert planned["seconds_checkpoints"] == planned["checkpoints"]


def test_every_figure_names_its_evidence(here: Path) -> None:
    """In the JSON of each command, and in the columns of its CSV."""
    words = ("tune", "fake.mod:make", "--budget", "5MB", "--checkpoints", "4,16,30")
    (tuned,) = _json(*words)["recommendations"]
    named = {"peak_evidence": "measured", "seconds_evidence": "measured", "recompute_evidence": "computed"}
    assert {key: tuned[key] for key in named} == named
    assert tuned["evidence"] == "measured"
    shown = _json("profiles", "show", "fake:make")["points"]
    assert all({key: point[key] for key in named} == named for point in shown if point["run_seconds"])
    for asked in (words, ("recommend", "fake:make", "--budget", "5MB"), ("profiles", "show", "fake:make")):
        header = runner.invoke(app.app, [*asked, "--format", "csv"]).stdout.splitlines()[0].split(",")
        assert set(named) <= set(header), asked
    planned = _json("plan", "fake:make", "--devices", "l4", "--max-recompute", "3")["rows"][0]
    assert {"bytes_evidence", "steps_evidence", "seconds_checkpoints"} <= set(planned)


def _row(checkpoints: int, *seconds: float, flags: str = "") -> Measurement:
    trial = Trial(
        study="s", problem="fake.mod:make", adjoint=AdjointName.OURS, checkpoints=checkpoints, key=PROBLEM, steps=1000,
        accepted=1000, expected_steps=1000, rung=Rung.RUN,
    )  # fmt: skip
    bytes_ = 1_000_000 + 100_000 * checkpoints
    return dataclasses.replace(
        blank_row(trial), peak_bytes=bytes_, compiled_bytes=bytes_, peak_source="compiled", run_seconds=seconds,
        xla_flags=flags,
    )  # fmt: skip


def _recommended(rows: Sequence[Measurement], budget_bytes: int, **wish: Any) -> Any:
    profile = Profile(name="fake:make", measurements=tuple(rows))
    (choice,) = recommend_from(profile, RecommendRequest(budget_bytes=budget_bytes, **wish))
    return choice


def test_a_count_that_was_only_compiled_has_no_seconds() -> None:
    """Those of the one count that was timed are not its own, and nothing is on its other side."""
    choice = _recommended([_row(2), _row(8, 0.0179, 0.0181)], 1_300_000)
    assert choice.checkpoints == 2
    assert choice.run_seconds is None
    assert choice.seconds_evidence is None
    assert choice.peak_evidence is Evidence.MEASURED


def test_seconds_between_timed_counts_are_said_to_be_interpolated() -> None:
    """And the whole choice is then no more than that."""
    choice = _recommended([_row(2, 0.08), _row(10), _row(30, 0.02), _row(900, 0.019)], 2_100_000, measured_only=False)
    if choice.checkpoints == 10:
        assert choice.seconds_evidence is Evidence.INTERPOLATED
    assert choice.evidence is Evidence.INTERPOLATED


def test_seconds_under_flags_are_not_those_without() -> None:
    """A profile that has both is asked for none; the flagged figure is given where flags are wished for."""
    rows = [_row(8, 0.05), _row(8, 0.001, flags="--xla_fast")]
    plain = _recommended(rows, 5_000_000)
    assert (plain.run_seconds, plain.xla_flags) == (0.05, "")
    flagged = _recommended(rows, 5_000_000, xla_flags=("--xla_fast",))
    assert (flagged.run_seconds, flagged.xla_flags) == (0.001, "--xla_fast")


def test_a_tune_times_nothing_under_flags_that_nobody_asked_for(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However small the states are."""
    base = lab()
    small = Scatters(base.steps, lambda cell, count: 10_000 + 100 * count, base.seconds)
    monkeypatch.setattr(tune, "make_machine", lambda settings, search_path=(): small)
    done = runner.invoke(app.app, ["tune", "fake.mod:make", "--budget", "5MB"])
    assert done.exit_code == 0, done.output
    assert {trial.settings.xla_flags for trial in small.asked} == {""}
    assert "--xla-flags '' --xla-flags --xla_" in done.stdout


@pytest.mark.parametrize(
    ("name", "visited"),
    [
        *((AdjointName.OURS, visited) for visited in (1000, 800, 0)),
        (AdjointName.DIFFRAX, 1000),
        (AdjointName.DIFFRAX, 0),
    ],
)
def test_a_row_tells_which_steps_its_backward_pass_visits(name: AdjointName, visited: int) -> None:
    """The work that it was counted with is read back from what was executed; one function counts both ways."""
    expected = 800 if name is AdjointName.OURS else None
    trial = Trial(
        study="s", problem="p", adjoint=name, checkpoints=12, key=PROBLEM, steps=1000, accepted=800,
        expected_steps=expected, reversed_steps=visited,
    )  # fmt: skip
    row = blank_row(trial)
    work = work_of_row(row)
    assert work is not None
    if name is AdjointName.OURS or not visited:
        assert work == Work(steps=1000, reversed_steps=visited, accepted=800)
    assert row.recompute_factor == sum(passes(name, work, 12)) / 1000


def test_points_of_several_flags_stay_apart() -> None:
    """What `profiles show` lists names the flags of each point."""
    found = points([_row(8, 0.05), _row(8, 0.001, flags="--xla_fast")])
    assert [(point.xla_flags, point.run_seconds) for point in found] == [("", 0.05), ("--xla_fast", 0.001)]
