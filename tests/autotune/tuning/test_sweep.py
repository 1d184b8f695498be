"""Units under way: stored as they come, in whatever order; each trial is measured once."""

import dataclasses
import threading
from collections.abc import Collection, Sequence
from concurrent.futures import Future
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autotune.choosing.recommend import Fit
from autotune.errors import AutotuneError
from autotune.measuring.trial import Rung, Trial
from autotune.model.cells import Cell
from autotune.search.search import TrialRequest
from autotune.search.space import Listed
from autotune.tuning import tune as tune_module
from autotune.tuning.lab import crew_of
from autotune.tuning.request import TuneRequest
from autotune.tuning.sweep import Alone, Sweep, units_of
from autotune.tuning.tune import TuneResult, run_tune
from profiles import AdjointName, Case, Measurement, open_store
from tests.autotune.fake_lab import FakeLab, Heard, lab


class MemoryStore:
    """Keeps rows in a list, in the order in which they came."""

    def __init__(self) -> None:
        self.rows: list[Measurement] = []

    def put(self, measurement: Measurement) -> None:
        """Keep the row."""
        self.rows.append(measurement)


class Several:
    """A crew of arithmetic whose units end in the order that a test draws."""

    alone = False

    def __init__(self, machine: FakeLab, size: int, draw: Any = None) -> None:
        self.machine = machine
        self.size = size
        self.draw = draw or (lambda count: 0)
        self.most = 0
        self.submitted: list[list[Trial]] = []
        self._waiting: dict[Future[Any], list[Trial]] = {}

    def submit(self, trials: Sequence[Trial]) -> Future[Any]:
        """Take a unit."""
        future: Future[Any] = Future()
        self._waiting[future] = list(trials)
        self.submitted.append(list(trials))
        self.most = max(self.most, len(self._waiting))
        return future

    def wait(self, futures: Collection[Future[Any]]) -> list[Future[Any]]:
        """End one of them."""
        future = list(futures)[self.draw(len(futures)) % len(futures)]
        future.set_result(self.machine.run(self._waiting.pop(future)))
        return [future]

    def rows(self, future: Future[Any]) -> list[Measurement]:
        """Return its rows."""
        return future.result()


def asked(checkpoints: int, horizon: float = 10, rung: Rung = Rung.RUN, flags: str = "") -> TrialRequest:
    """Request a trial."""
    return TrialRequest(cell=Cell(Case(horizon), flags), checkpoints=checkpoints, rung=rung, why="a test")


def trial(request: TrialRequest) -> Trial:
    """Make a trial of a request."""
    return Trial(
        study="s", problem="p.py:make", adjoint=AdjointName.OURS, checkpoints=request.checkpoints,
        horizon=request.cell.case.horizon, rung=request.rung, repeat=request.batch,
    )  # fmt: skip


def start(sweep: Sweep, *requests: TrialRequest) -> Future[Any]:
    """Hand out a unit."""
    return sweep.start(requests, [trial(one) for one in requests])


def test_what_is_compared_stays_together_and_what_is_compiled_is_a_unit_each() -> None:
    """One case, its flags included, is one unit; a machine that is alone gets everything at once."""
    batch = [asked(1), asked(2, rung=Rung.COMPILED), asked(4), asked(4, flags="--f"), asked(4, 20)]
    batch += [asked(8, rung=Rung.COMPILED)]
    assert units_of(batch, alone=True) == [batch]
    assert units_of(batch, alone=False) == [[batch[0], batch[2], batch[3]], [batch[4]], [batch[1]], [batch[5]]]


def test_rows_are_stored_and_told_as_their_units_end() -> None:
    """Not in the order of asking; what is under way is known until then."""
    store, heard = MemoryStore(), Heard()
    sweep = Sweep(Several(lab(), 3, lambda count: count - 1), store, heard)
    first, last = start(sweep, asked(1), asked(2)), start(sweep, asked(4))
    assert sweep.room == 1
    assert [one.checkpoints for one in sweep.pending] == [1, 2, 4]
    assert list(sweep.collect()) == [last]
    assert [row.checkpoints for row in store.rows] == [row.checkpoints for row in heard.rows] == [4]
    assert [one.checkpoints for one in sweep.pending] == [1, 2]
    assert list(sweep.collect()) == [first]
    assert [row.checkpoints for row in store.rows] == [4, 1, 2]
    assert sweep.measured == 3
    assert sweep.pending == []


def test_no_two_units_share_a_number() -> None:
    """Rows of one batch were timed in alternation; those of two units were not."""
    sweep = Sweep(Several(lab(), 3), MemoryStore(), Heard())
    assert [sweep.next_batch(wanted) for wanted in (0, 0, 1, 5, 2)] == [0, 1, 2, 5, 6]


def test_an_error_of_the_store_ends_the_sweep_with_that_error() -> None:
    """A full disk surfaces as itself."""

    class Full(MemoryStore):
        def put(self, measurement: Measurement) -> None:
            raise OSError(28, "No space left on device")

    sweep = Sweep(Alone(lab()), Full(), Heard())
    start(sweep, asked(1))
    with pytest.raises(OSError, match="No space left"):
        sweep.collect()


def test_nothing_is_stored_once_another_tune_has_taken_over() -> None:
    """The rows of who may not store any more are dropped."""

    def refuse() -> None:
        raise AutotuneError("another one measures")

    store = MemoryStore()
    sweep = Sweep(Alone(lab()), store, Heard(), may_store=refuse)
    start(sweep, asked(1))
    with pytest.raises(AutotuneError, match="another one measures"):
        sweep.collect()
    assert store.rows == []


def tune_with(crew: Any, machine: FakeLab, **changes: Any) -> tuple[TuneResult, list[Measurement]]:
    """Tune with a crew in the place of the machine's own."""
    request = dataclasses.replace(TuneRequest(problem="fake.module:make", budget="5MB"), **changes)
    with pytest.MonkeyPatch.context() as patch, open_store("sqlite://") as store:
        patch.setattr(tune_module, "crew_of", lambda _: crew)
        result = run_tune(request, store=store, machine=machine, progress=Heard())
        return result, store.measurements()


WIDE = Listed(horizons=(5, 10), set_values={"width": (8, 16, 32)})


@pytest.fixture(scope="module")
def alone() -> TuneResult:
    """What one machine finds in the wide space."""
    result, _ = tune_with(Alone(lab()), lab(), listed=WIDE)
    return result


@settings(max_examples=5)
@given(size=st.integers(2, 5), order=st.lists(st.integers(0, 100), min_size=10, max_size=30))
def test_any_number_of_workers_in_any_order_find_what_one_finds(alone: TuneResult, size: int, order: list[int]) -> None:
    """The same count at every case; no trial twice, none left; and workers are busy where there is something to do."""
    drawn = iter(order)
    machine = lab()
    crew = Several(machine, size, lambda count: next(drawn, 0))
    result, rows = tune_with(crew, machine, listed=WIDE)
    chosen = [(choice.case, choice.checkpoints, choice.peak_bytes) for choice in result.recommendations]
    assert chosen == [(choice.case, choice.checkpoints, choice.peak_bytes) for choice in alone.recommendations]
    assert all(choice.status is Fit.OK for choice in result.recommendations)
    places = [(t.checkpoints, t.horizon, t.tolerance, str(t.set_values), t.repeat, t.study) for t in machine.asked]
    assert len(places) == len(set(places)) == len(rows)
    assert crew.most >= min(size, 3), "three variants wait for nobody"


@settings(max_examples=4)
@given(order=st.lists(st.integers(0, 100), min_size=10, max_size=30))
def test_a_whole_grid_is_the_same_for_four_workers(order: list[int]) -> None:
    """Every count once at every horizon, whatever the order of answers; a unit is one case."""
    drawn = iter(order)
    machine = lab()
    crew = Several(machine, 4, lambda count: next(drawn, 0))
    listed = Listed(horizons=(5, 10, 20), counts=tuple(range(1, 16)))
    _, rows = tune_with(crew, machine, listed=listed, exhaustive=True)
    sweep = {(row.horizon, row.checkpoints) for row in rows if not row.study.endswith("/verified")}
    assert sweep == {(horizon, count) for horizon in (5, 10, 20) for count in range(1, 16)}
    for unit in crew.submitted:
        assert len({(one.horizon, one.repeat) for one in unit}) == 1
    numbers = [unit[0].repeat for unit in crew.submitted if not unit[0].study.endswith("/verified")]
    assert len(numbers) == len(set(numbers))


def test_final_runs_of_cases_overlap_and_their_failures_go_on_by_themselves() -> None:
    """Each case's next best is tried while others are still measured."""

    class Grows(FakeLab):
        def run(self, trials: Sequence[Trial]) -> list[Measurement]:
            rows = super().run(trials)
            if trials[0].settings.own_environment and trials[0].horizon == 5:
                return [dataclasses.replace(row, peak_bytes=(row.peak_bytes or 0) + 700_000) for row in rows]
            return rows

    base = lab()
    machine = Grows(base.steps, base.peak_bytes, base.seconds)
    crew = Several(machine, 2)
    result, rows = tune_with(crew, machine, listed=Listed(horizons=(5, 10)))
    finals = [row for row in rows if row.study.endswith("/verified")]
    assert [choice.case.horizon for choice in result.recommendations] == [5, 10]
    assert all(choice.status is Fit.OK for choice in result.recommendations)
    assert len([row for row in finals if row.horizon == 5]) > len([row for row in finals if row.horizon == 10]) == 1


def test_a_machine_by_itself_is_a_crew_of_one() -> None:
    """In this thread, so that Ctrl-C reaches what runs."""
    here: list[Any] = []

    class Looks(FakeLab):
        def run(self, trials: Sequence[Trial]) -> list[Measurement]:
            here.append(threading.current_thread())
            return super().run(trials)

    base = lab()
    crew = crew_of(Looks(base.steps, base.peak_bytes, base.seconds))
    assert (crew.alone, crew.size) == (True, 1)
    future = crew.submit([trial(asked(1))])
    assert crew.wait([future]) == [future]
    assert [row.checkpoints for row in crew.rows(future)] == [1]
    assert here == [threading.main_thread()]
