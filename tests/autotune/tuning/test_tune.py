"""A tune from end to end, on machines of arithmetic and a real store."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import pytest

from autotune import AutotuneError, TuneResult
from autotune.adjoints import Work, passes
from autotune.choosing.recommend import Evidence, Fit
from autotune.measuring.runners import ProbeRequest
from autotune.measuring.trial import Trial
from autotune.problem.steps import Observation
from autotune.search.space import Listed
from autotune.tuning import prepare
from autotune.tuning.prepare import Machine
from autotune.tuning.request import TuneRequest
from autotune.tuning.tune import foresee, run_tune
from profiles import AdjointName, Measurement, ProblemKey, ProfileStore, Status, open_store
from tests.autotune.fake_lab import FakeLab, Heard, lab, rejecting_lab

REQUEST = TuneRequest(problem="fake.module:make", budget="5MB")


@pytest.fixture
def store():
    """A store in memory."""
    with open_store("sqlite://") as opened:
        yield opened


def _tune(
    store: ProfileStore, machine: Machine, request: TuneRequest = REQUEST, heard: Heard | None = None
) -> TuneResult:
    return run_tune(request, store=store, machine=machine, progress=heard or Heard())


def test_the_recommendation_was_run_under_the_users_settings_within_the_budget(store: ProfileStore) -> None:
    """What is recommended has a row that was measured in the user's own environment, and its bytes fit."""
    machine = lab()
    (choice,) = _tune(store, machine).recommendations
    assert choice.status is Fit.OK
    assert choice.evidence is Evidence.MEASURED
    assert choice.peak_bytes is not None
    assert choice.peak_bytes <= 5_000_000
    final = [trial for trial in machine.asked if trial.settings.own_environment]
    assert [trial.checkpoints for trial in final] == [choice.checkpoints]
    assert choice.expected_steps == 1000


def test_what_grows_in_its_final_run_is_not_recommended(store: ProfileStore) -> None:
    """A count that fits in the sweep and not under the user's settings gives way to one that does."""

    class Grows(FakeLab):
        def run(self, trials: Sequence[Trial]) -> list[Measurement]:
            rows = super().run(trials)
            return [
                dataclasses.replace(row, peak_bytes=(row.peak_bytes or 0) + 700_000)
                if trial.settings.own_environment
                else row
                for row, trial in zip(rows, trials, strict=True)
            ]

    base = lab()
    (choice,) = _tune(store, Grows(base.steps, base.peak_bytes, base.seconds)).recommendations
    assert choice.status is Fit.OK
    assert choice.peak_bytes is not None
    assert choice.peak_bytes <= 5_000_000
    assert (choice.checkpoints or 0) <= 33


def test_nothing_fits_tells_the_smallest_bytes_that_do(store: ProfileStore) -> None:
    """With a hopeless budget the answer names the least bytes, and with exactly that budget something fits."""
    result = _tune(store, lab(), dataclasses.replace(REQUEST, budget=1000))
    (choice,) = result.recommendations
    assert choice.status is Fit.NOTHING_FITS
    assert not result.everything_fits
    assert choice.smallest_bytes == 1_100_000
    again = _tune(store, lab(), dataclasses.replace(REQUEST, budget=choice.smallest_bytes))
    assert again.recommendations[0].checkpoints == 1


def test_a_trial_has_the_steps_that_are_visited_at_its_count(store: ProfileStore) -> None:
    """All of them on one side of 20 checkpoints, the accepted ones on the other."""
    machine = rejecting_lab()
    _tune(store, machine)
    assert {trial.reversed_steps for trial in machine.asked if trial.checkpoints < 20} == {1000}
    assert {trial.reversed_steps for trial in machine.asked if trial.checkpoints >= 20} == {800}


def test_steps_that_were_noted_without_the_count_from_which_on_are_counted_again(
    store: ProfileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an earlier version noted them; once."""
    with monkeypatch.context() as patch:
        noted = prepare._to_note

        def without(seen: Observation) -> dict[str, Any]:
            note = noted(seen)
            for site in note["sites"]:
                del site["accepted_from"]
            return note

        patch.setattr(prepare, "_to_note", without)
        _tune(store, rejecting_lab())
    observed = []
    for _ in range(2):
        machine = rejecting_lab()
        _tune(store, machine)
        observed.append(machine.observed)
    assert observed == [1, 0]


def test_a_second_tune_measures_nothing(store: ProfileStore) -> None:
    """Everything is reused: no trial, no counting of steps, the same answer, and it is said."""
    first = _tune(store, lab())
    machine, heard = lab(), Heard()
    second = _tune(store, machine, heard=heard)
    assert machine.asked == []
    assert machine.observed == 0
    assert second.recommendations == first.recommendations
    assert any("going on with" in line for line in heard.lines)


def test_changed_code_is_measured_again_and_both_sides_are_named(store: ProfileStore) -> None:
    """Rows of another state of the code are not reused; the component is named with both values."""
    _tune(store, lab())
    changed = ProblemKey(name="fake:make", components={"program": "p", "source": "other"})
    machine, heard = lab(key=changed), Heard()
    _tune(store, machine, heard=heard)
    assert machine.asked
    (line,) = [line for line in heard.lines if "not reusing" in line]
    assert "source of the module: stored s, here other" in line


def test_a_tune_that_was_cut_off_goes_on(store: ProfileStore) -> None:
    """After a kill in the middle only what is missing is measured: no trial twice, the same answer as uncut."""

    class Killed(Exception):
        pass

    class Dies(FakeLab):
        batches = 0

        def run(self, trials: Sequence[Trial]) -> list[Measurement]:
            self.batches += 1
            if self.batches == 2:
                raise Killed
            return super().run(trials)

    base = lab()
    first = Dies(base.steps, base.peak_bytes, base.seconds)
    with pytest.raises(Killed):
        _tune(store, first)
    second = lab()
    result = _tune(store, second)
    places = [(t.checkpoints, t.repeat, t.settings.own_environment) for t in first.asked + second.asked]
    assert len(places) == len(set(places))
    with open_store("sqlite://") as uncut:
        assert result.recommendations[0].checkpoints == _tune(uncut, lab()).recommendations[0].checkpoints


def test_every_case_gets_its_recommendation(store: ProfileStore) -> None:
    """Horizons and tolerances are crossed, and each combination is answered in order."""
    listed = Listed(horizons=(5, 10.0), tolerances=(1e-3, 1e-4))
    result = _tune(store, lab(), dataclasses.replace(REQUEST, listed=listed))
    places = [(choice.case.horizon, choice.case.tolerance) for choice in result.recommendations]
    assert places == [(5, 1e-3), (5, 1e-4), (10.0, 1e-3), (10.0, 1e-4)]
    assert [choice.steps for choice in result.recommendations] == [500, 500, 1000, 1000]


def test_a_dry_run_measures_nothing_and_lists_what_comes(store: ProfileStore) -> None:
    """The list begins with what a tune would really begin with, and ends with the final run."""
    machine = lab()
    planned = foresee(REQUEST, store=store, machine=machine, progress=Heard())
    assert machine.asked == []
    assert planned[-1].final
    heard = Heard()
    _tune(store, machine, heard=heard)
    assert [one.request.checkpoints for one in planned[:2]] == [trial.checkpoints for trial in heard.batches[0]]


def test_a_dry_run_after_a_tune_is_empty(store: ProfileStore) -> None:
    """When everything is stored there is nothing left to do."""
    _tune(store, lab())
    assert foresee(REQUEST, store=store, machine=lab(), progress=Heard()) == ()


def test_diffrax_adjoint_is_tuned_without_a_prediction(store: ProfileStore) -> None:
    """Diffrax's adjoint has no expected_steps: none is handed on, none recommended."""
    machine = lab(AdjointName.DIFFRAX)
    result = _tune(store, machine, dataclasses.replace(REQUEST, adjoint=AdjointName.DIFFRAX))
    assert {trial.expected_steps for trial in machine.asked} == {None}
    assert result.recommendations[0].expected_steps is None


def test_a_bad_budget_is_an_error_before_anything_runs(store: ProfileStore) -> None:
    """A text that is no budget is refused before the problem is looked at."""
    machine = lab()
    with pytest.raises(AutotuneError, match="6XB"):
        _tune(store, machine, dataclasses.replace(REQUEST, budget="6XB"))
    assert machine.observed == 0


def test_the_json_has_the_contracts_fields(store: ProfileStore) -> None:
    """Scripts may rely on every field that the contract names."""
    document = _tune(store, lab()).to_json()
    assert set(document) >= {"schema_version", "problem", "device", "adjoint", "store", "recommendations"}
    assert set(document["recommendations"][0]) >= {
        "horizon", "tolerance", "status", "budget_bytes", "margin_bytes", "checkpoints", "expected_steps", "steps",
        "accepted", "peak_bytes", "peak_source", "run_seconds", "recompute_factor", "evidence", "smallest_bytes",
    }  # fmt: skip


def test_failed_trials_are_kept_as_rows(store: ProfileStore) -> None:
    """What ran out of memory is in the store with its status."""
    _tune(store, lab(capacity_bytes=3_000_000), dataclasses.replace(REQUEST, budget="50MB"))
    stored = store.measurements(problem_name="fake:make")
    assert any(row.status is Status.OUT_OF_MEMORY for row in stored)
    assert any(row.status is Status.OK and row.run_seconds for row in stored)


def test_the_margin_is_taken_off_the_budget(store: ProfileStore) -> None:
    """A margin of a half halves what may be recommended, and is reported."""
    (choice,) = _tune(store, lab(), dataclasses.replace(REQUEST, margin=0.5)).recommendations
    assert (choice.budget_bytes, choice.margin_bytes) == (2_500_000, 2_500_000)
    assert (choice.peak_bytes or 0) <= 2_500_000


@pytest.mark.parametrize("bound", [1000, 4096])
@pytest.mark.parametrize("share", [0.1, 0.5, 1.5, 50.0])
def test_everything_stored_is_found_where_it_is_faster_by_far_and_only_where_it_fits(
    store: ProfileStore, bound: int, share: float
) -> None:
    """Twenty times, without a schedule, at the loop's bound; by brute force over all counts, of eight programs."""
    machine = Bounded(
        steps=lambda cell: 1000,
        peak_bytes=lambda cell, count: 10**6 + 1000 * count,
        seconds=lambda cell, count: jumping(count, bound),
        bound=bound,
    )
    budget = 10**6 + int(share * 10**6)
    (choice,) = _tune(store, machine, dataclasses.replace(REQUEST, budget=budget)).recommendations
    fitting = [count for count in (*range(1, 1001), bound) if 10**6 + 1000 * count <= budget]
    assert choice.checkpoints is not None
    assert choice.peak_bytes == 10**6 + 1000 * choice.checkpoints <= budget
    assert jumping(choice.checkpoints, bound) <= 1.05 * min(jumping(count, bound) for count in fitting)
    swept = {trial.checkpoints for trial in machine.asked if not trial.settings.own_environment}
    assert len(swept) + sum(trial.settings.own_environment for trial in machine.asked) <= 8


@dataclasses.dataclass
class Bounded(FakeLab):
    """A lab whose loop knows a bound on its steps."""

    bound: int = 0

    def observe_all(self, questions: Sequence[ProbeRequest]) -> list[Observation]:
        """Count the steps, and know the bound."""
        seen = super().observe_all(questions)
        return [
            dataclasses.replace(one, sites=tuple(dataclasses.replace(s, max_steps=self.bound) for s in one.sites))
            for one in seen
        ]


def jumping(count: int, bound: int) -> float:
    """Seconds that follow the executed steps, and are a twentieth where everything is stored without a schedule."""
    advances, taped = passes(AdjointName.OURS, Work(steps=1000, reversed_steps=1000), min(count, 1000))
    return (1e-5 * advances + 5e-5 * taped) / (20 if count >= bound else 1)
