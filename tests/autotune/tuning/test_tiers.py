"""Tiers in a tune: how they are sized, when they are tried, and what comes of them."""

import dataclasses
from collections.abc import Sequence

import pytest

from autotune import AutotuneError, Recommendation, TuneResult
from autotune.choosing.recommend import Fit, RecommendRequest, recommend_from
from autotune.cli.tables import usage_lines
from autotune.machine.tiers import TierBudget, TierRequest
from autotune.measuring.trial import Trial
from autotune.search.space import Listed
from autotune.tuning.lab import ReplayMachine
from autotune.tuning.request import TuneRequest
from autotune.tuning.tier_space import TIER_NOTE
from autotune.tuning.tune import foresee, run_tune
from profiles import AdjointName, Case, Measurement, ProfileStore, Tier, open_store
from tests.autotune.fake_lab import FakeLab, Heard, lab

HOST = TierBudget(name="host", budget="5MB")
REQUEST = TuneRequest(problem="fake.module:make", budget="1500kB", tiers=(HOST,))


@pytest.fixture
def store():
    """A store in memory."""
    with open_store("sqlite://") as opened:
        yield opened


def _tune(store: ProfileStore, machine: FakeLab, request: TuneRequest = REQUEST) -> TuneResult:
    return run_tune(request, store=store, machine=machine, progress=Heard())


def test_a_tier_that_pays_is_recommended_with_the_windows_that_its_budget_holds(store: ProfileStore) -> None:
    """States of 100 kB: 5 MB hold 50 of them, and with them a call within the same device budget is faster."""
    (alone,) = _tune(store, lab(), dataclasses.replace(REQUEST, tiers=())).recommendations
    result = _tune(store, lab())
    (choice,) = result.recommendations
    assert choice.tier == Tier(name="host", windows=50, transfer_cost=1.0)
    assert choice.peak_bytes is not None
    assert choice.peak_bytes <= 1_500_000
    assert alone.tier is None
    assert (choice.run_seconds or 1) < 0.95 * (alone.run_seconds or 0)
    assert (choice.recompute_factor or 9) < (alone.recompute_factor or 0)
    assert 'tier="host", windows=50, transfer_cost=1' in usage_lines(choice, AdjointName.OURS)[1]
    document = result.to_json()["recommendations"][0]
    assert (document["tier"], document["windows"], document["directory"]) == ("host", 50, None)


def test_resident_memory_does_not_swell_a_state(store: ProfileStore) -> None:
    """Windows are told from what was compiled: what a run was seen to need scatters by more than a state."""

    class Scatters(FakeLab):
        def run(self, trials: Sequence[Trial]) -> list[Measurement]:
            rows = super().run(trials)
            return [
                dataclasses.replace(row, peak_bytes=(row.peak_bytes or 0) + 90_000 * (row.checkpoints % 2))
                for row in rows
            ]

    base = lab()
    _tune(store, Scatters(base.steps, base.peak_bytes, base.seconds))
    (note,) = store.notes(TIER_NOTE).values()
    assert (note["windows"], note["state_bytes"]) == (50, 100_000)


def test_a_tier_too_large_at_the_best_count_is_tried_with_fewer_checkpoints(store: ProfileStore) -> None:
    """States on their way take memory: where the best count no longer fits with them, a smaller one may be faster."""
    base = lab()

    def peak_bytes(cell, checkpoints: int) -> float:
        return base.peak_bytes(cell, checkpoints) + (250_000 if cell.tier else 0)

    (choice,) = _tune(store, dataclasses.replace(base, peak_bytes=peak_bytes)).recommendations
    assert choice.tier is not None
    assert choice.checkpoints in (1, 2)
    assert (choice.peak_bytes or 0) <= 1_500_000


def test_a_tier_is_not_tried_where_everything_fits_without_it(store: ProfileStore) -> None:
    """Where the best count stores everything, no tier saves a step."""
    machine = lab()
    _tune(store, machine, dataclasses.replace(REQUEST, budget="1GB"))
    assert not [trial for trial in machine.asked if trial.tier]


def test_a_tier_is_not_sized_where_nothing_fits(store: ProfileStore) -> None:
    """A tier takes nothing off what one checkpoint needs."""
    machine = lab()
    (choice,) = _tune(store, machine, dataclasses.replace(REQUEST, budget=1000)).recommendations
    assert choice.status is Fit.NOTHING_FITS
    assert not store.notes(TIER_NOTE)


def test_a_tier_too_small_for_a_state_is_left_out_with_a_word(store: ProfileStore) -> None:
    """The line names both sizes."""
    heard = Heard()
    request = dataclasses.replace(REQUEST, tiers=(TierBudget(name="host", budget="90kB"),))
    result = run_tune(request, store=store, machine=lab(), progress=heard)
    assert result.recommendations[0].tier is None
    assert any("tier host: not tried" in line and "hold no state of" in line for line in heard.lines)


def test_a_tier_that_is_slow_is_timed_once_and_left(store: ProfileStore) -> None:
    """Steps saved are not seconds saved: where transfers cost more, the device alone is recommended."""
    base = lab()

    def seconds(cell, checkpoints: int) -> float:
        return base.seconds(dataclasses.replace(cell, tier=None), checkpoints) * (2.0 if cell.tier else 1.0)

    machine = dataclasses.replace(base, seconds=seconds)
    (choice,) = _tune(store, machine).recommendations
    assert choice.tier is None
    assert len([trial for trial in machine.asked if trial.tier]) == 1


def test_a_tune_that_goes_on_has_the_same_tiers_and_measures_nothing_twice(store: ProfileStore) -> None:
    """Windows and cost are noted, so that another reading of the clock makes no new program."""

    class Drifting(FakeLab):
        def tier(self, question: TierRequest) -> Tier:
            return Tier(name=question.name, windows=question.windows, transfer_cost=1.0 + len(self.asked))

    base = lab()
    first = _tune(store, Drifting(base.steps, base.peak_bytes, base.seconds))
    again = Drifting(base.steps, base.peak_bytes, base.seconds)
    second = _tune(store, again)
    assert again.asked == []
    assert second.recommendations == first.recommendations


def test_a_dry_run_lists_trials_with_tiers_once_they_are_sized(store: ProfileStore) -> None:
    """Before anything was measured a line says that they will follow; no tier is measured for a dry run."""
    heard = Heard()
    planned = foresee(REQUEST, store=store, machine=lab(), progress=heard)
    assert not [one for one in planned if one.request.cell.tier]
    assert any("tier host: its trials follow" in line for line in heard.lines)
    _tune(store, lab())
    whole = foresee(dataclasses.replace(REQUEST, exhaustive=True), store=store, machine=lab(), progress=heard)
    assert [one for one in whole if one.request.cell.tier]


def test_every_cell_is_measured_with_every_tier_where_all_is_asked_for(store: ProfileStore) -> None:
    """`--exhaustive` leaves no cell out, and the counts of the user are tried with tiers too."""
    machine = lab()
    listed = Listed(horizons=(5, 10), counts=(2, 4))
    _tune(store, machine, dataclasses.replace(REQUEST, exhaustive=True, listed=listed))
    with_tier = {(trial.horizon, trial.checkpoints) for trial in machine.asked if trial.tier}
    assert with_tier == {(5, 2), (5, 4), (10, 2), (10, 4)}


def test_rows_with_tiers_answer_recommend_where_they_may(store: ProfileStore) -> None:
    """A stored profile recommends its tier, unless the wish rules it out."""
    _tune(store, lab())
    (profile,) = store.profiles()
    wish = RecommendRequest(budget_bytes=1_500_000)
    assert recommend_from(profile, wish)[0].tier is not None
    assert recommend_from(profile, dataclasses.replace(wish, tiers=()))[0].tier is None
    assert recommend_from(profile, dataclasses.replace(wish, tiers=("disk",)))[0].tier is None


def test_a_recorded_sweep_replays_its_tiers(store: ProfileStore) -> None:
    """A replay takes the tiers that were recorded, and says so where there are none."""
    recorded = _tune(store, lab())
    machine = ReplayMachine(store.measurements(), "here")
    with open_store("sqlite://") as other:
        replayed = run_tune(REQUEST, store=other, machine=machine, progress=Heard())
    assert replayed.recommendations[0].tier == recorded.recommendations[0].tier
    question = TierRequest(name="disk", windows=1, state_bytes=1, step_seconds=1.0, set_values={})
    with pytest.raises(AutotuneError, match="nothing with the tier disk"):
        machine.tier(question)


def test_a_disk_tier_is_written_with_its_directory() -> None:
    """What is printed can be pasted; where the directory is not known, a name stands for it."""
    choice = Recommendation(
        case=Case(), status=Fit.OK, budget_bytes=1, checkpoints=4, tier=Tier(name="disk", windows=9)
    )
    assert 'tier="disk", windows=9, directory="DIR"' in usage_lines(choice, AdjointName.OURS)[1]
    assert 'directory="/scratch"' in usage_lines(dataclasses.replace(choice, directory="/scratch"), AdjointName.OURS)[1]
