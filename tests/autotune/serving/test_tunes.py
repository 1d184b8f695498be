"""A tune whose store is a service: it writes through it, can be followed, and survives its absence."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from autotune.choosing.recommend import Fit
from autotune.measuring.trial import Trial
from autotune.search.space import Listed
from autotune.serving.tokens import Right
from autotune.tuning.announce import UNDER_WAY_NOTE
from autotune.tuning.request import TuneRequest
from autotune.tuning.tune import run_tune
from profiles import Measurement, Status, open_store
from profiles.store import absence, served
from tests.autotune.fake_lab import FakeLab, Heard, lab
from tests.autotune.serving.service import Service, service

REQUEST = TuneRequest(problem="fake.module:make", budget="5MB", listed=Listed(horizons=(10, 20)))


@pytest.fixture(autouse=True)
def own_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A data folder of this test (studies, spools), notes that are written at once, and no pauses."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setattr("autotune.tuning.announce.ANNOUNCE_SECONDS", 0.0)
    monkeypatch.setattr("autotune.tuning.lease.GRACE_SECONDS", 0.5)
    monkeypatch.setattr("autotune.tuning.lease.POLL_SECONDS", 0.1)
    monkeypatch.setattr(served, "WAIT_SECONDS", (0.0,))
    monkeypatch.setattr(absence, "TRY_AGAIN_SECONDS", 0.0)


class Watched(FakeLab):
    """A lab that lets somebody look before each unit is measured."""

    def run(self, trials: Sequence[Trial]) -> list[Measurement]:
        """Measure, after a look."""
        self.look()
        return super().run(trials)


def watched(look: Any) -> Watched:
    """Make such a lab."""
    base = lab()
    made = Watched(base.steps, base.peak_bytes, base.seconds)
    made.look = look
    return made


def tune(running: Service, machine: FakeLab) -> Any:
    """Tune through the service, with a token that may write."""
    with open_store(running.url(Right.WRITE)) as store:
        return run_tune(REQUEST, store=store, machine=machine, progress=Heard())


def test_a_tune_through_the_service_can_be_followed_and_leaves_what_a_tune_leaves(tmp_path: Path) -> None:
    """While it runs others see what it does; afterwards its rows and choices are in the database, and no note of it."""
    url, seen = str(tmp_path / "profiles.db"), []
    with service(url, tmp_path) as running:
        headers = {"authorization": f"Bearer {running.tokens[Right.READ]}"}

        def look() -> None:
            with open_store(url) as directly:
                seen.extend(directly.notes(UNDER_WAY_NOTE).values())

        result = tune(running, watched(look))
        assert httpx.get(f"{running.address}/api/v1/tunes", headers=headers).json()["tunes"] == []
    assert result.everything_fits
    assert seen[0]["problem"] == "fake:make"
    assert [state["done"] for state in seen] == sorted(state["done"] for state in seen)
    assert seen[-1]["done"] > 3
    assert "final run" in seen[-1]["doing"]
    assert seen[-1]["best"]["run_seconds"] > 0
    assert all(state["budget_bytes"] == 5_000_000 and len(state["cases"]) == 2 for state in seen)
    with open_store(url) as store:
        assert {row.key for row in store.measurements()} == {row.key for row in result.rows}
        assert len(store.notes("choice")) == 2
        assert store.notes(UNDER_WAY_NOTE) == {}
        assert store.notes("lease") == {}


def test_failures_of_a_tune_are_told(tmp_path: Path) -> None:
    """With their count and the first line of what was said."""
    url, seen = str(tmp_path / "profiles.db"), []

    def look() -> None:
        with open_store(url) as directly:
            seen.extend(directly.notes(UNDER_WAY_NOTE).values())

    machine = watched(look)
    machine.peak_bytes = lambda cell, count: 1_000_000 + 100_000 * count
    normal = machine.run

    def failing(trials: Sequence[Trial]) -> list[Measurement]:
        import dataclasses

        rows = normal(trials)
        return [
            dataclasses.replace(row, status=Status.FAILED, message="no luck\nframe") if row.checkpoints == 1 else row
            for row in rows
        ]

    machine.run = failing
    with open_store(url) as store:
        request = TuneRequest(problem="fake.module:make", budget="5MB", listed=Listed(counts=(1, 4, 8)))
        run_tune(request, store=store, machine=machine, progress=Heard())
    told = [state for state in seen if state["failed"]]
    assert told
    assert {(one["checkpoints"], one["status"], one["message"]) for one in told[-1]["failures"]} == {
        (1, "failed", "no luck")
    }


def test_a_service_that_goes_away_in_mid_tune_costs_no_measurement(tmp_path: Path) -> None:
    """The tune goes on with what it has and ends well; the next one finds every row, and measures nothing."""
    url = str(tmp_path / "profiles.db")
    opened = service(url, tmp_path)
    running, looks = opened.__enter__(), []

    def look() -> None:
        looks.append(1)
        if len(looks) == 2:
            opened.__exit__(None, None, None)

    first = tune(running, watched(look))
    assert len(looks) > 2
    assert all(choice.status is Fit.OK for choice in first.recommendations)
    with open_store(url) as directly:
        there = len(directly.measurements())
    assert 0 < there < len(first.rows)
    port = int(running.address.rpartition(":")[2])
    with service(url, tmp_path, port=port, tokens=running.tokens):
        again = watched(lambda: looks.append(2))
        second = tune(running, again)
    assert again.asked == []
    assert {row.key for row in second.rows} == {row.key for row in first.rows}
    with open_store(url) as directly:
        assert len(directly.measurements()) == len(first.rows)
