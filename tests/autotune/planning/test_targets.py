"""Tunes for devices that are not here, on machines of arithmetic: what is compiled, chosen and stored."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import pytest

from autotune import AutotuneError
from autotune.adjoints import Work, passes
from autotune.choosing.recommend import Evidence, Fit
from autotune.machine.device import Nvidia
from autotune.machine.targets import Target, find_targets
from autotune.machine.tiers import TierBudget
from autotune.measuring.runners import ProbeRequest
from autotune.measuring.trial import Rung, Trial
from autotune.planning import targets
from autotune.planning.targets import here_too, tune_target
from autotune.problem.steps import Observation
from autotune.search.space import Listed
from autotune.tuning.request import TuneRequest
from autotune.tuning.tune import run_tune
from profiles import AdjointName, Measurement, ProfileStore, Status, open_store
from tests.autotune.fake_lab import FakeLab, Heard, lab, rejecting_lab

REQUEST = TuneRequest(problem="fake.module:make", budget="5MB")


@pytest.fixture(autouse=True)
def _compilers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The compilers count as installed; no fake machine starts them."""
    monkeypatch.setattr(targets, "search_path", lambda kind: Path(kind))


@pytest.fixture
def store():
    """A store in memory."""
    with open_store("sqlite://") as opened:
        yield opened


def h100() -> Target:
    """The target of most tests."""
    return find_targets(["h100-80gb"], environment={})[0]


def _tune(store: ProfileStore, machine: FakeLab, request: TuneRequest = REQUEST):
    return tune_target(request, h100(), store=store, machine=machine, progress=Heard())


@pytest.mark.parametrize("budget", [1_250_000, 3_300_000, 4_999_999, 90_000_000, 101_000_000])
@pytest.mark.parametrize("horizon", [2.0, 10.0])
def test_the_choice_is_the_best_count_that_fits(store: ProfileStore, budget: int, horizon: float) -> None:
    """By brute force over every count: none within the budget executes 1 % fewer steps than the chosen one."""
    machine = lab()
    listed = Listed(horizons=(horizon,))
    (choice,) = _tune(store, machine, dataclasses.replace(REQUEST, budget=budget, listed=listed)).recommendations
    steps = int(100 * horizon)
    work = Work(steps=steps, reversed_steps=steps)
    fits = [count for count in range(1, steps + 1) if 1_000_000 + 100_000 * count <= budget]
    best = min(sum(passes(AdjointName.OURS, work, count)) for count in fits)
    assert choice.status is Fit.OK
    assert choice.checkpoints in fits
    assert sum(passes(AdjointName.OURS, work, choice.checkpoints)) <= best / 0.99
    assert choice.peak_bytes == 1_000_000 + 100_000 * choice.checkpoints
    assert len(machine.asked) <= 8


def test_nothing_is_run_and_every_figure_says_that_it_was_planned(store: ProfileStore) -> None:
    """Trials end compiled, in the target's process; the choice has no seconds, and its evidence is `planned`."""
    machine = lab()
    (choice,) = _tune(store, machine).recommendations
    assert {trial.rung for trial in machine.asked} == {Rung.COMPILED}
    assert {trial.settings.target for trial in machine.asked} == {h100()}
    assert (choice.evidence, choice.peak_evidence) == (Evidence.PLANNED, Evidence.PLANNED)
    assert choice.run_seconds is None
    assert choice.recompute_evidence is Evidence.COMPUTED


def test_a_trial_has_the_steps_that_are_visited_at_its_count(store: ProfileStore) -> None:
    """All of them on one side of 20 checkpoints, the accepted ones on the other."""
    machine = rejecting_lab()
    _tune(store, machine)
    assert {trial.reversed_steps for trial in machine.asked if trial.checkpoints < 20} == {1000}
    assert {trial.reversed_steps for trial in machine.asked if trial.checkpoints >= 20} == {800}


def test_what_was_planned_is_a_profile_of_its_own(store: ProfileStore) -> None:
    """A tune on a device that is here neither reuses nor mentions it; a second plan compiles nothing."""
    machine = lab()
    _tune(store, machine)
    asked = len(machine.asked)
    again = _tune(store, machine)
    assert (len(machine.asked), again.measured, again.reused) == (asked, 0, asked)
    assert machine.observed == 1
    result = run_tune(REQUEST, store=store, machine=machine, progress=Heard())
    assert result.stale == {}
    assert not any(row.device.planned for row in result.rows)
    assert {profile.device.planned for profile in store.profiles()} == {True, False}


def test_where_nothing_fits_the_smallest_that_was_compiled_is_said(store: ProfileStore) -> None:
    """One checkpoint is tried before that is claimed."""
    (choice,) = _tune(store, lab(), dataclasses.replace(REQUEST, budget=1_050_000)).recommendations
    assert (choice.status, choice.smallest_bytes) == (Fit.NOTHING_FITS, 1_100_000)


class OutOfMemoryAbove(FakeLab):
    """A compiler that refuses what is too large without saying how large it is, as libtpu does."""

    def run(self, trials: Sequence[Trial]) -> list[Measurement]:
        """Answer large counts with a refusal."""
        rows = super().run(trials)
        return [
            row
            if row.checkpoints <= 20
            else dataclasses.replace(row, status=Status.OUT_OF_MEMORY, peak_bytes=None, compiled_bytes=None)
            for row in rows
        ]


def test_a_compiler_that_refuses_what_is_too_large_bounds_the_search(store: ProfileStore) -> None:
    """The largest count that compiles is found although nothing is known of those that do not."""
    machine = lab()
    refuses = OutOfMemoryAbove(**{f.name: getattr(machine, f.name) for f in dataclasses.fields(machine)})
    (choice,) = _tune(store, refuses, dataclasses.replace(REQUEST, budget="1GB")).recommendations
    assert choice.status is Fit.OK
    assert choice.checkpoints is not None
    assert 18 <= choice.checkpoints <= 20


class Refuses(FakeLab):
    """A compiler that cannot compile the program at all."""

    def run(self, trials: Sequence[Trial]) -> list[Measurement]:
        """Fail every trial."""
        return [
            dataclasses.replace(row, status=Status.FAILED, message="UNIMPLEMENTED: no", peak_bytes=None)
            for row in super().run(trials)
        ]


def test_a_target_that_the_compiler_refuses_is_a_failure_with_its_message(store: ProfileStore) -> None:
    """It ends after a few tries, and the compiler's word is in the answer and in the rows."""
    machine = lab()
    refuses = Refuses(**{f.name: getattr(machine, f.name) for f in dataclasses.fields(machine)})
    (choice,) = _tune(store, refuses).recommendations
    assert (choice.status, choice.message) == (Fit.FAILED, "UNIMPLEMENTED: no")
    assert len(refuses.asked) <= 3
    assert {row.status for row in store.measurements()} == {Status.FAILED}


class NoData(FakeLab):
    """A problem whose arguments have shapes and no data."""

    def observe_all(self, questions: Sequence) -> list[Observation]:
        """See nothing."""
        return [Observation(horizon=q.horizon, tolerance=q.tolerance, note="no data") for q in questions]


def test_unknown_steps_are_asked_for_in_one_line_and_taken_where_given(store: ProfileStore) -> None:
    """Arguments may be larger than this machine: `--steps` stands for what could not be counted."""
    machine = lab()
    blind = NoData(**{f.name: getattr(machine, f.name) for f in dataclasses.fields(machine)})
    with pytest.raises(AutotuneError, match=r"--steps N$"):
        _tune(store, blind)
    (choice,) = _tune(store, blind, dataclasses.replace(REQUEST, steps=1000)).recommendations
    assert (choice.status, choice.steps) == (Fit.OK, 1000)


def test_tiers_are_refused_since_a_transfer_is_measured(store: ProfileStore) -> None:
    """What a transfer costs on a device that is not here is not guessed."""
    with pytest.raises(AutotuneError, match="--tiers is measured"):
        _tune(store, lab(), dataclasses.replace(REQUEST, tiers=(TierBudget(name="host"),)))


def test_a_share_is_one_of_what_jax_may_take(store: ProfileStore) -> None:
    """`50%` of an H100 is half of the preallocated three quarters, less the margin of a tenth."""
    result = _tune(store, lab(), dataclasses.replace(REQUEST, budget="50%"))
    assert result.prepared.budget.bytes == int(0.9 * 0.5 * 60 * 10**9)


def test_a_machine_that_has_the_device_says_so() -> None:
    """The driver's tool names the cards; no backend is started."""

    def asked(arguments: Sequence[str]) -> str:
        assert arguments[0] == "--query-gpu=name"
        return "NVIDIA H100 80GB HBM3\n"

    assert "leave --target h100-80gb out" in here_too(h100(), Nvidia(asked))
    assert here_too(find_targets(["l4"])[0], Nvidia(asked)) == ""
    assert here_too(h100(), Nvidia(lambda arguments: None)) == ""


def test_a_choice_has_a_bound_of_seconds_and_no_seconds(store: ProfileStore) -> None:
    """Operations are counted once for a problem and noted; the bound is theirs over the device's rate."""
    machine = lab()
    (choice,) = _tune(store, machine).recommendations
    work = Work(steps=choice.steps or 0, reversed_steps=choice.steps or 0)
    advances, taped = passes(AdjointName.OURS, work, choice.checkpoints or 0)
    assert choice.least_seconds == pytest.approx((advances * 1000 + taped * 3000) / 67e12)
    assert choice.run_seconds is None
    assert choice.seconds_evidence is None
    _tune(store, machine)
    assert machine.counted == 1


def test_operations_that_cannot_be_counted_leave_the_bound_out(store: ProfileStore) -> None:
    """And end no tune."""

    class Uncounted(FakeLab):
        def step_costs(self, question: ProbeRequest) -> None:
            raise AutotuneError("the factory raised")

    machine = lab()
    uncounted = Uncounted(**{f.name: getattr(machine, f.name) for f in dataclasses.fields(machine)})
    (choice,) = _tune(store, uncounted).recommendations
    assert (choice.status, choice.least_seconds) == (Fit.OK, None)


def test_for_the_adjoint_of_diffrax_nothing_is_bounded(store: ProfileStore) -> None:
    """Only passes of ours are counted."""
    machine = lab()
    (choice,) = _tune(store, machine, dataclasses.replace(REQUEST, adjoint=AdjointName.DIFFRAX)).recommendations
    assert (choice.least_seconds, machine.counted) == (None, 0)
