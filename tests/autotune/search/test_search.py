"""The search, on machines of arithmetic whose best answer is known by brute force."""

import dataclasses
import math

import pytest

from autotune.adjoints import Work, passes
from autotune.measuring.trial import Rung, Trial
from autotune.model.cells import Cell
from autotune.search.history import SearchGoal
from autotune.search.search import Search, TrialRequest
from autotune.search.space import Listed, Space, build_space, grid_counts
from autotune.tuning.dry_run import plan
from profiles import AdjointName, Measurement, Status
from tests.autotune.fake_machine import FakeMachine

STOCK = AdjointName.DIFFRAX


def _steps(cell: Cell) -> int:
    horizon = cell.case.horizon or 10
    tolerance = cell.case.tolerance or 1e-3
    return int(100 * horizon * (1e-3 / tolerance) ** 0.2)


def _convex_bytes(cell: Cell, checkpoints: int) -> float:
    return max(5e6 + 2e5 * checkpoints, 3e6 + 3e5 * checkpoints)


def _machine(store_seconds: float = 2e-6, **changes: object) -> FakeMachine:
    """A machine whose seconds have the jagged curve of Diffrax's adjoint, plus a price for each stored state."""

    def seconds(cell: Cell, checkpoints: int) -> float:
        advances, taped = passes(STOCK, Work(steps=_steps(cell), reversed_steps=_steps(cell)), checkpoints)
        return 1e-3 + 2e-5 * advances + 1e-4 * taped + store_seconds * checkpoints

    machine = FakeMachine(steps=_steps, peak_bytes=_convex_bytes, seconds=seconds, noise=0.03)
    return dataclasses.replace(machine, **changes)


def _question(space: Space, budget_bytes: int | None, **changes: object) -> SearchGoal:
    works = {cell.case: Work(steps=_steps(cell), reversed_steps=_steps(cell)) for cell in space.cells}
    question = SearchGoal(space=space, works=works, adjoint=STOCK, budget_bytes=budget_bytes)
    return dataclasses.replace(question, **changes)


def _trial(request: TrialRequest, run_within_bytes: int | None = None) -> Trial:
    case = request.cell.case
    return Trial(
        study="s",
        problem="fake.py:make",
        adjoint=STOCK,
        checkpoints=request.checkpoints,
        horizon=case.horizon,
        tolerance=case.tolerance,
        set_values=dict(case.set_values),
        repeat=request.batch,
        rung=request.rung,
        run_within_bytes=run_within_bytes,
        xla_flags=request.cell.xla_flags,
    )


def _search(machine: FakeMachine, question: SearchGoal) -> list[Measurement]:
    """Run a search to its end; a row replaces the row of the same key, as in a store."""
    rows: dict[str, Measurement] = {}
    while requests := Search(question).next_requests(list(rows.values())):
        limit = None if question.exhaustive else question.budget_bytes
        rows |= {row.key: row for row in machine.run([_trial(request, limit) for request in requests])}
        assert len(machine.asked) < 1000, "the search does not end"
    return list(rows.values())


def _fastest_found(machine: FakeMachine, rows: list[Measurement], cell: Cell, budget_bytes: float) -> float:
    """True seconds of the fastest timed row of a cell that fits."""
    timed = [row for row in rows if row.run_seconds and row.case == cell.case and (row.peak_bytes or 0) <= budget_bytes]
    best = min(timed, key=lambda row: row.run_median_seconds or math.inf)
    return machine.seconds(cell, best.checkpoints)


def _true_best(machine: FakeMachine, cell: Cell, budget_bytes: float) -> float:
    """Least true seconds over every count that fits, by brute force."""
    fits = (c for c in range(1, _steps(cell) + 1) if machine.peak_bytes(cell, c) <= budget_bytes)
    return min(machine.seconds(cell, count) for count in fits)


@pytest.mark.parametrize("budget_bytes", [6_000_000, 8_000_000, 20_000_000, 50_000_000, 400_000_000])
@pytest.mark.parametrize("store_seconds", [2e-6, 2e-4])
def test_one_case_is_solved_in_few_trials(budget_bytes: int, store_seconds: float) -> None:
    """The best timed count is within 6 % of the brute-force best that fits, from at most eleven trials."""
    machine = _machine(store_seconds)
    space = build_space(Listed(horizons=(10,)))
    rows = _search(machine, _question(space, budget_bytes))
    found = _fastest_found(machine, rows, space.cells[0], budget_bytes)
    assert found <= 1.06 * _true_best(machine, space.cells[0], budget_bytes)
    assert len(machine.asked) <= 11


def test_cells_that_share_a_program_share_its_laws() -> None:
    """Fifteen cases cost far fewer than a fifth of the trials of the grid, and timing is not done where it is known."""
    space = build_space(Listed(horizons=(2, 5, 10, 20, 40), tolerances=(1e-2, 1e-3, 1e-4)))
    machine = _machine()
    _search(machine, _question(space, 20_000_000))
    grid = sum(len(grid_counts(_steps(cell))) for cell in space.cells)
    assert len(machine.asked) <= grid / 5 - len(space.cells), "room for one final run of every case must be left"


def test_nothing_known_to_exceed_the_budget_is_run() -> None:
    """Only counts whose bytes are within the budget are ever run; others are compiled at most."""
    machine = _machine()
    space = build_space(Listed(horizons=(10, 40)))
    rows = _search(machine, _question(space, 9_000_000))
    assert any(row.run_seconds for row in rows)
    assert all(not row.run_seconds for row in rows if _convex_bytes(space.cells[0], row.checkpoints) > 9_000_000)


def test_where_nothing_fits_the_smallest_counts_are_compiled() -> None:
    """A hopeless budget is answered from compiles alone, down to one checkpoint, which says what would do."""
    machine = _machine()
    rows = _search(machine, _question(build_space(Listed(horizons=(10,))), 1_000))
    assert not any(row.run_seconds for row in rows)
    assert min(row.checkpoints for row in rows) == 1


def test_an_exhaustive_search_runs_every_listed_count_of_every_case() -> None:
    """`--exhaustive` leaves nothing out, whatever the budget."""
    machine = _machine()
    space = build_space(Listed(horizons=(2, 5), counts=(2, 4, 8, 16)))
    _search(machine, _question(space, 1_000, exhaustive=True))
    asked = {(trial.horizon, trial.checkpoints) for trial in machine.asked if trial.rung is Rung.RUN}
    assert asked == {(h, c) for h in (2, 5) for c in (2, 4, 8, 16)}
    assert len(machine.asked) == 8


def test_an_exhaustive_search_under_a_budget_is_foreseen() -> None:
    """The play-through runs what the search runs, beyond the budget too, and so comes to an end."""
    machine = _machine()
    question = _question(build_space(Listed(horizons=(2, 5), counts=(2, 4, 8, 16))), 5_500_000, exhaustive=True)
    known = machine.run([_trial(request) for request in Search(question).next_requests([])])
    coming = [(one.request.cell.case.horizon, one.request.checkpoints, one.final) for one in plan(question, known)]
    assert coming == [(5, 2, False), (5, 4, False), (5, 8, False), (5, 16, False), (2, 2, True), (5, 2, True)]


def test_running_out_of_memory_rules_out_larger_counts() -> None:
    """Once a count ran out of memory no larger count of that case is run."""
    machine = _machine(capacity_bytes=8e6)
    space = build_space(Listed(horizons=(10,), counts=tuple(range(1, 65))))
    _search(machine, _question(space, None, exhaustive=True))
    failed = [trial.checkpoints for trial in machine.asked if _convex_bytes(space.cells[0], trial.checkpoints) > 8e6]
    assert 1 <= len(failed) <= 6, "one batch at most, where 49 counts do not fit"


def test_a_search_goes_on_from_any_prefix_of_its_rows() -> None:
    """Cut off after any batch, a fresh search asks for exactly what the uncut one would have asked next."""
    space = build_space(Listed(horizons=(5, 40)))
    question = _question(space, 20_000_000)
    machine = _machine(noise=0.0)
    rows: dict[str, Measurement] = {}
    history: list[tuple[TrialRequest, ...]] = []
    while requests := Search(question).next_requests(list(rows.values())):
        history.append(requests)
        rows |= {row.key: row for row in machine.run([_trial(request) for request in requests])}
    for cut in range(len(history)):
        prefix = {row.key: row for batch in history[:cut] for row in _machine(noise=0.0).run([*map(_trial, batch)])}
        assert Search(question).next_requests(list(prefix.values())) == history[cut]


def test_flags_that_do_not_pay_cost_one_trial() -> None:
    """A second set of XLA flags that changes nothing is timed once and then left alone."""
    machine = _machine(noise=0.0)
    space = build_space(Listed(horizons=(10,), xla_flags=("", "--xla_useless")))
    _search(machine, _question(space, 20_000_000))
    assert sum(trial.settings.xla_flags == "--xla_useless" for trial in machine.asked) == 1


def test_flags_that_pay_are_searched_like_the_rest() -> None:
    """Flags that halve the time get a search of their own."""
    plain = _machine(noise=0.0)
    machine = dataclasses.replace(
        plain, seconds=lambda cell, count: plain.seconds(cell, count) / (2 if cell.xla_flags else 1)
    )
    space = build_space(Listed(horizons=(10,), xla_flags=("", "--xla_quick")))
    _search(machine, _question(space, 20_000_000))
    assert sum(trial.settings.xla_flags == "--xla_quick" for trial in machine.asked) >= 3


def test_a_program_that_only_fails_is_given_up() -> None:
    """A factory that raises for one value of a `--set` key costs two trials there and none elsewhere."""
    good = _machine()

    class HalfBroken:
        asked = good.asked

        def run(self, trials: list[Trial]) -> list[Measurement]:
            rows = good.run(trials)
            broken = [row.set_values["solver"] == "bad" for row in rows]
            failed = {"status": Status.FAILED, "run_seconds": (), "peak_bytes": None, "message": "ValueError: no"}
            return [dataclasses.replace(r, **failed) if b else r for r, b in zip(rows, broken, strict=True)]

    space = build_space(Listed(horizons=(10,), set_values={"solver": ("bad", "good")}))
    rows: dict[str, Measurement] = {}
    machine = HalfBroken()
    while requests := Search(_question(space, 20_000_000)).next_requests(list(rows.values())):
        rows |= {row.key: row for row in machine.run([_trial(request) for request in requests])}
    assert sum(row.set_values["solver"] == "bad" for row in rows.values()) <= 3
    assert any(row.run_seconds for row in rows.values())
