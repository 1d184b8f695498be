"""One point has the same figures in every output, and each figure says what it rests on."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import typer.testing

from autotune.cli import app
from autotune.cli.commands import recommend, tune
from autotune.measuring.rows import blank_row
from autotune.measuring.trial import Trial
from profiles import Measurement, Profile, ReportExtras, open_store
from profiles.pages.page_data import page_data
from tests.autotune.fake_lab import FakeLab, lab

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


def _unpacked(packed: dict[str, Any]) -> list[dict[str, Any]]:
    """Read the page's records, which it keeps by column."""

    def values(column: Any) -> list[Any]:
        return [column["levels"][code] for code in column["codes"]] if isinstance(column, dict) else column

    columns = {name: values(column) for name, column in packed["columns"].items()}
    return [{name: column[k] for name, column in columns.items()} for k in range(packed["rows"])]


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
    data = page_data(_profile(here), budget_bytes=None, extras=ReportExtras())
    page = {one["checkpoints"]: one for one in _unpacked(data["datasets"]["points"])}
    sides = {"recommend": again, "plan": planned}
    point = shown[tuned["checkpoints"]]
    for name in FIGURES:
        assert tuned[name] == point[name], name
        for side, record in sides.items():
            if record["checkpoints"] in shown:
                assert record[name] == shown[record["checkpoints"]][name], (side, name)
    drawn = page[tuned["checkpoints"]]
    assert [drawn[name] for name in FIGURES] == [point[name] for name in FIGURES]
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


def test_a_tune_times_nothing_under_flags_that_nobody_asked_for(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However small the states are."""
    base = lab()
    small = Scatters(base.steps, lambda cell, count: 10_000 + 100 * count, base.seconds)
    monkeypatch.setattr(tune, "make_machine", lambda settings, search_path=(): small)
    done = runner.invoke(app.app, ["tune", "fake.mod:make", "--budget", "5MB"])
    assert done.exit_code == 0, done.output
    assert {trial.settings.xla_flags for trial in small.asked} == {""}
    assert "--xla-flags auto times calls under --xla_" in done.stdout
