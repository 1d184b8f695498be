"""Tiers in a tune: what may be asked, how they are sized, when they are tried, and what comes of them."""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

import pytest

from autotune.adjoints import make_adjoint
from autotune.choosing.recommend import Fit, Recommendation, RecommendRequest, recommend_from
from autotune.cli.tables import usage_lines
from autotune.errors import AutotuneError
from autotune.machine.tiers import TierBudget, TierRequest, read_tiers, transfer_cost
from autotune.measuring.runners import ProbeRequest, SubprocessRunner
from autotune.measuring.trial import Rung, RunSettings, Trial
from autotune.search.space import Listed
from autotune.tuning.lab import ReplayMachine
from autotune.tuning.request import TuneRequest
from autotune.tuning.tier_space import TIER_NOTE
from autotune.tuning.tune import TuneResult, foresee, run_tune
from profiles.records.records import AdjointName, Case, Measurement, Status, Tier
from profiles.store.store import ProfileStore, open_store

from .fake_lab import FakeLab, Heard, lab

HOST = TierBudget(name="host", budget="5MB")
REQUEST = TuneRequest(problem="fake.module:make", budget="1500kB", tiers=(HOST,))
PROBLEMS = pathlib.Path(__file__).parents[1] / "assets" / "problems"


@pytest.fixture
def store():
    """A store in memory; its scratch study then is in memory too."""
    with open_store("sqlite://") as opened:
        yield opened


def _tune(store: ProfileStore, machine: FakeLab, request: TuneRequest = REQUEST) -> TuneResult:
    return run_tune(request, store=store, machine=machine, progress=Heard())


# --- what is asked


def _read(listed: str, **options: str | None) -> tuple[TierBudget, ...]:
    return read_tiers(listed, **{"host_budget": None, "disk_budget": None, "disk_directory": None, **options})


def test_tiers_are_read_in_the_order_in_which_they_are_listed(tmp_path: pathlib.Path) -> None:
    """The device needs no naming; the others come with their budgets and the disk with its directory."""
    assert _read("device") == _read("") == ()
    assert _read("device,host", host_budget="1MiB") == (TierBudget(name="host", budget="1MiB"),)
    both = _read("disk, host", disk_directory=str(tmp_path), disk_budget="10%")
    assert [tier.name for tier in both] == ["disk", "host"]
    assert both[0] == TierBudget(name="disk", budget="10%", directory=str(tmp_path))
    assert 0 < both[0].bytes_here() <= both[0].free_bytes


@pytest.mark.parametrize(
    ("listed", "options", "said"),
    [
        ("device,tape", {}, "'tape' is not a tier; list some of device, host, disk"),
        ("device,disk", {}, "needs --disk-directory"),
        ("device,disk", {"disk_directory": "/no/such/place"}, "/no/such/place: it is not a directory"),
        ("device", {"host_budget": "1GiB"}, "--host-budget 1GiB is for a tier that is not used; add host"),
        ("host", {"disk_directory": "/tmp"}, "add disk to --tiers host"),
        ("host", {"host_budget": "a lot"}, "'a lot' is not a number of bytes"),
        ("host", {"host_budget": "0%"}, "'0%' is not a share"),
        ("host", {"host_budget": "9999TiB"}, "--host-budget 9999TiB is more than the .* free in the host's memory"),
    ],
)
def test_what_cannot_be_had_is_refused_before_anything_runs(listed: str, options: dict[str, str], said: str) -> None:
    """One line says what was asked, what was found and what to do."""
    with pytest.raises(AutotuneError, match=said):
        _read(listed, **options)


def test_the_cost_of_a_transfer_is_its_seconds_in_steps_to_two_digits() -> None:
    """Two digits, so that a tune that goes on does not take a new program for every reading of the clock."""
    question = TierRequest(name="host", windows=4, state_bytes=8, step_seconds=0.003, set_values={})
    assert transfer_cost(question, 0.0123456) == 4.1
    assert transfer_cost(dataclasses.replace(question, step_seconds=None), 1.0) == 1.0


def test_the_adjoint_of_a_trial_has_its_tier() -> None:
    """All that the row says of the tier reaches the adjoint; a host tier has no directory."""
    made = make_adjoint(AdjointName.OURS, 8, 100, Tier(name="disk", windows=5, transfer_cost=0.5), "/tmp")
    assert (made.tier, made.windows, made.transfer_cost, made.directory) == ("disk", 5, 0.5, "/tmp")
    assert make_adjoint(AdjointName.OURS, 8, 100, Tier(name="host", windows=5)).directory is None
    assert make_adjoint(AdjointName.OURS, 8, 100).tier is None


# --- a tune


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
    _, made = usage_lines(choice, AdjointName.OURS)
    assert 'tier="disk", windows=9, directory="DIR"' in made
    _, made = usage_lines(dataclasses.replace(choice, directory="/scratch"), AdjointName.OURS)
    assert 'directory="/scratch"' in made


@pytest.mark.parametrize("name", AdjointName)
def test_what_is_printed_can_be_pasted_where_adjoint_is_a_parameter(name: AdjointName) -> None:
    """Both lines run inside a function whose parameter is called `adjoint`, and make the adjoint that was chosen."""
    choice = Recommendation(
        case=Case(), status=Fit.OK, budget_bytes=1, checkpoints=4, xla_flags="--xla_some_flag=1",
        expected_steps=9 if name is AdjointName.OURS else None,
    )  # fmt: skip
    imported, made = usage_lines(choice, name)
    scope: dict[str, Any] = {}
    exec(f"def make(*, adjoint):\n    {imported}\n    return {made}", scope)
    found = scope["make"](adjoint=None)
    assert found.checkpoints == 4
    assert type(found).__module__.partition(".")[0] == ("adjoint" if name is AdjointName.OURS else "diffrax")


# --- real processes


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
