"""Tune a problem: prepare, search, choose, each step resting on what the store holds.

The store is read anew before every batch, so it does not matter who measured a row: this tune, one that was killed, or
one that runs elsewhere. What a search requests next follows from the rows, and from what is being measured.
"""

import collections
import dataclasses
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from typing import Any, Protocol

from autotune.choosing.recommend import Fit, Recommendation
from autotune.errors import AutotuneError
from autotune.measuring.rows import VERIFIED, blank_row, keep_why, trial_key
from autotune.measuring.timing import Spent
from autotune.measuring.trial import Trial
from autotune.model.cells import Cell
from autotune.model.forecast import Forecast
from autotune.search.history import SearchGoal
from autotune.search.search import Search, TrialRequest
from autotune.search.space import Space
from autotune.tuning.announce import Announced
from autotune.tuning.dry_run import Planned, plan, total_seconds
from autotune.tuning.keeping import Keeping
from autotune.tuning.lab import crew_of, spent_of
from autotune.tuning.lease import Leases
from autotune.tuning.prepare import (
    NOT_COUNTED,
    SMALL_LOOP_FLAG,
    Machine,
    Prepared,
    Reuse,
    Store,
    prepare,
    reuse,
)
from autotune.tuning.request import TuneRequest
from autotune.tuning.stored_choice import CHOICE_NOTE, choice_key, note_of_choice
from autotune.tuning.study_view import write_study_of
from autotune.tuning.sweep import Sweep, SweepProgress, units_of
from autotune.tuning.tier_space import TierSizes
from autotune.tuning.verify import Chooser, Choosing
from profiles import (
    AdjointName,
    Case,
    Measurement,
    ProblemKey,
    ProfilesError,
    Status,
    format_seconds,
    stored_values,
)

SMALL_STATE_BYTES = 2 * 2**10
"""Up to how many bytes a checkpoint the flag is suggested to the user; it is not tried unless they name it."""


class TuneProgress(SweepProgress, Protocol):
    """A listener to a tune."""

    def note(self, text: str) -> None:
        """Show one line that is to stay in sight."""
        ...

    def expect(self, trials: int, seconds: float | None) -> None:
        """Note how many trials are still to come, and how long they will take where that is known."""
        ...

    def say(self, text: str) -> None:
        """Show one line about what is being done."""
        ...


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TuneResult:
    """What a tune found. `hints` are lines for people; `measured` counts the rows that were made, not reused.

    `study_url` opens the Optuna study of all that is stored; None where it could not be written, or the store is in
    memory. `spent` says what the workers were busy with; None where others than this process's own worked.
    """

    prepared: Prepared
    recommendations: tuple[Recommendation, ...]
    rows: tuple[Measurement, ...]
    reused: int
    measured: int
    stale: dict[str, int]
    hints: tuple[str, ...]
    store: str
    study_url: str | None = None
    spent: Spent | None = None

    @property
    def everything_fits(self) -> bool:
        """Whether a count was found at every case."""
        return all(choice.status is Fit.OK for choice in self.recommendations)

    def to_json(self) -> dict[str, Any]:
        """Give the JSON that `tune` prints."""
        return {
            "schema_version": 1,
            "problem": self.prepared.name,
            "device": self.prepared.device.kind,
            "adjoint": str(self.prepared.request.adjoint),
            "store": self.store,
            "study": self.prepared.study,
            "study_url": self.study_url,
            "recommendations": [choice.to_json() for choice in self.recommendations],
        }


def run_tune(request: TuneRequest, *, store: Store, machine: Machine, progress: TuneProgress) -> TuneResult:
    """Tune a problem.

    Args:
        request: the problem, the space, the budget.
        store: where every measurement is kept, and where earlier ones are found.
        machine: who measures; the caller closes it.
        progress: who listens.

    Raises:
        AutotuneError: the problem cannot be loaded or run, or the budget cannot be resolved.
        ProfilesError: the store does not take rows, or is away for too long; rows that were measured wait in a spool.
        KeyboardInterrupt: it was interrupted; every finished measurement is stored.
    """
    store.check_writable()
    prepared = prepare(request, store, machine, progress.say)
    return Tuning(prepared, store, machine, progress).run()


def foresee(request: TuneRequest, *, store: Store, machine: Machine, progress: TuneProgress) -> tuple[Planned, ...]:
    """List the trials that a tune would make now, measuring nothing but the steps; see `autotune.tuning.dry_run`."""
    prepared = prepare(request, store, machine, progress.say)
    known = reuse(prepared, store.measurements(problem_name=prepared.name))
    elsewhere = store.measurements(device=prepared.device.key.kind)
    space = TierSizes(prepared, known.rows, store, None, progress.note).add_to(prepared.space)
    return plan(_question(prepared, space), known.rows, verified=known.verified, elsewhere=elsewhere)


def _question(prepared: Prepared, space: Space) -> SearchGoal:
    """Make the goal of the search."""
    return SearchGoal(
        space=space,
        works=prepared.works,
        adjoint=prepared.request.adjoint,
        budget_bytes=prepared.budget.bytes,
        exhaustive=prepared.request.exhaustive,
    )


class Tuning:
    """One tune on its way."""

    def __init__(self, prepared: Prepared, store: Store, machine: Machine, progress: TuneProgress) -> None:
        """Measure nothing yet."""
        self._prepared = prepared
        self._store = Keeping(store, progress.note)
        self._machine = machine
        self._cost_said = False
        self._leases = Leases(store, prepared.study, prepared.cases, note=progress.note)
        self._progress = Announced(progress, store, prepared, self._leases.tune)
        self._sweep = Sweep(crew_of(machine), self._store, self._progress, may_store=self._leases.check)

    def run(self) -> TuneResult:
        """Search, choose, and note the choices; write the Optuna study, however it ends."""
        try:
            with self._progress, self._leases:
                result = self._run()
        finally:
            self._store.finish()
            study_url = self._write_study()
        return dataclasses.replace(result, study_url=study_url)

    def _write_study(self) -> str | None:
        """Write the Optuna study from the rows; where that fails say so, since nothing rests on it."""
        try:
            return write_study_of(self._prepared, self._store)
        except (AutotuneError, ProfilesError) as error:
            self._progress.note(str(error))
            return None

    def _run(self) -> TuneResult:
        failed = self._store_failures()
        known = self._known()
        self._say_what_is_reused(known)
        self._search(self._prepared.space)
        space = self._space_with_tiers()
        if space != self._prepared.space:
            self._search(space)
        chosen = self._choose(space)
        self._note(chosen)
        found = self._known()
        chosen = self._with_failures(chosen)
        return TuneResult(
            prepared=self._prepared,
            recommendations=chosen,
            rows=(*found.rows, *found.verified, *failed),
            reused=len(known.rows) + len(known.verified),
            measured=self._sweep.measured,
            stale=dict(known.stale),
            hints=tuple(self._hints(chosen)),
            store=self._store.place,
            spent=spent_of(self._machine),
        )

    def _store_failures(self) -> list[Measurement]:
        """Store a row, with its message, for every case that could not be measured at all."""
        prepared, rows = self._prepared, []
        some = next(iter(prepared.keys.values()))
        for case, failure in prepared.failures.items():
            swept = " ".join(f"{key}={value!r}" for key, value in case.set_values)
            trial = Trial(
                **Cell(case).point((prepared.space.counts or (1,))[0]).coordinates(),
                study=prepared.study + NOT_COUNTED,
                problem=prepared.problem,
                adjoint=prepared.request.adjoint,
                settings=prepared.request.settings,
                key=prepared.keys.get(case.set_values)
                or ProblemKey(name=some.name, components={**some.components, "set": swept}),
                device=prepared.device.key,
            )
            message = "\n".join((failure.message, *failure.frames))
            rows.append(dataclasses.replace(blank_row(trial), status=Status.FAILED, message=message))
            keep_why(self._store, trial, "to say why the case could not be measured")
            self._store.put(rows[-1])
            self._progress.finished(rows[-1])
        return rows

    def _with_failures(self, chosen: Sequence[Recommendation]) -> tuple[Recommendation, ...]:
        """Put the cases that could not be measured in their places among the others."""
        prepared = self._prepared
        found = {choice.case: choice for choice in chosen}
        for case, failure in prepared.failures.items():
            found[case] = Recommendation(
                case=case, status=Fit.FAILED, budget_bytes=prepared.budget.bytes,
                margin_bytes=prepared.budget.margin_bytes, message=failure.message,
            )  # fmt: skip
        return tuple(found[case] for case in prepared.cases)

    def _known(self) -> Reuse:
        return reuse(self._prepared, self._store.measurements(problem_name=self._prepared.name))

    def _say_what_is_reused(self, known: Reuse) -> None:
        if known.rows or known.verified:
            count = len(known.rows) + len(known.verified)
            self._progress.note(f"going on with {count} measurements of {self._prepared.name} in {self._store.place}")
        for reason, count in known.stale.items():
            self._progress.note(f"not reusing {count} measurements: {reason}")

    def _search(self, space: Space) -> None:
        """Measure what the search requests until it requests nothing, and nothing is under way."""
        question = _question(self._prepared, space)
        search, known = Search(question), self._known()
        while True:
            self._submit_wanted(search, known)
            if not self._sweep.pending:
                return
            if measured := [row for rows in self._sweep.collect().values() for row in rows]:
                known = self._known()
                there = {trial_key(row) for row in known.rows}
                if not any(trial_key(row) in there for row in measured):
                    # A search that learns nothing would request the same for ever.
                    raise AutotuneError(
                        f"rows of {self._prepared.name} were deleted from {self._store.place} as soon as they were "
                        "stored: see who uses it, and run the same command again"
                    )

    def _submit_wanted(self, search: Search, known: Reuse) -> None:
        """Hand out what the search wants next, while somebody is there to measure it."""
        while self._sweep.room > 0 and (requests := search.next_requests(known.rows, pending=self._sweep.pending)):
            coming = plan(search.question, known.rows, verified=known.verified)
            self._say_what_it_costs(coming)
            forecast = Forecast(known.rows, self._prepared.works, self._prepared.request.adjoint)
            for unit in units_of(requests, alone=self._sweep.crew.alone):
                batch = self._sweep.next_batch(unit[0].batch)
                self._start([dataclasses.replace(asked, batch=batch) for asked in unit], forecast)

    def _say_what_it_costs(self, coming: Sequence[Planned]) -> None:
        """Say how many trials are to come, and once, as soon as it is known, how long they take."""
        seconds = total_seconds(coming)
        self._progress.expect(len(coming), seconds)
        if seconds is not None and not self._cost_said:
            self._cost_said = True
            self._progress.note(f"about {len(coming)} trials to come, {format_seconds(seconds)} of compiling and calls")

    def _start(self, requests: Sequence[TrialRequest], forecast: Forecast, *, final: bool = False) -> Future[Any]:
        """Hand out one unit."""
        trials = [trial_of(self._prepared, asked, forecast, final=final) for asked in requests]
        for trial, asked in zip(trials, requests, strict=True):
            keep_why(self._store, trial, asked.why)
        return self._sweep.start(requests, trials)

    def _space_with_tiers(self) -> Space:
        """Add to the space its cells with every requested tier that holds a state."""
        known = self._known()
        fits = any(row.peak_bytes and row.peak_bytes <= self._prepared.budget.bytes for row in known.rows)
        if not self._prepared.request.tiers or not fits:
            return self._prepared.space  # a tier takes nothing off what a single checkpoint needs
        sizes = TierSizes(self._prepared, known.rows, self._store, self._machine, self._progress.note)
        return sizes.add_to(self._prepared.space)

    def _choose(self, space: Space) -> tuple[Recommendation, ...]:
        """Choose at every case, each choice run under the user's own settings; the final runs of cases overlap."""
        known = self._known()
        chooser = Chooser(self._prepared, known.rows, known.verified)
        forecast = Forecast(known.rows, self._prepared.works, self._prepared.request.adjoint)
        waiting = collections.deque(space.cases)
        under_way: dict[Future[Any], tuple[Case, Choosing]] = {}
        chosen: dict[Case, Recommendation] = {}

        def go_on(case: Case, choosing: Choosing, row: Measurement | None) -> None:
            try:
                asked = next(choosing) if row is None else choosing.send(row)
            except StopIteration as done:
                chosen[case] = done.value
            else:
                under_way[self._start([asked], forecast, final=True)] = case, choosing

        while waiting or under_way:
            while waiting and self._sweep.room > 0:
                case = waiting.popleft()
                cells = [cell for cell in space.cells if cell.case == case]
                go_on(case, chooser.choose(case, cells), None)
            for future, rows in self._sweep.collect().items() if under_way else ():
                go_on(*under_way.pop(future), rows[0])
        return tuple(chosen[case] for case in space.cases)

    def _note(self, chosen: Sequence[Recommendation]) -> None:
        """Keep what was recommended, for `check` and `auto_adjoint`."""
        for choice in chosen:
            key = self._prepared.keys[choice.case.set_values]
            self._store.put_note(
                CHOICE_NOTE,
                choice_key(key, self._prepared.device.key, self._prepared.request.adjoint, choice.case),
                note_of_choice(
                    self._prepared.problem,
                    key,
                    self._prepared.device.key,
                    self._prepared.request.adjoint,
                    choice.to_json() | {"set_values": stored_values(dict(choice.case.set_values))},
                ),
            )

    def _hints(self, chosen: Sequence[Recommendation]) -> Iterator[str]:
        """Say what else was found out that the user may act on."""
        prepared = self._prepared
        if any(seen.note for seen in prepared.observations.values()):
            yield "compiled only: the arguments have shapes and no data, so nothing could be run or timed"
        if prepared.budget.note:
            yield f"budget: {prepared.budget.note}"
        if self._small_loops():
            yield f"small states: --xla-flags auto times calls under {SMALL_LOOP_FLAG} as well"

    def _small_loops(self) -> bool:
        """Return whether a checkpoint is so small that XLA's small-loop flag may be worth a tune of its own."""
        prepared = self._prepared
        flags_given = any(cell.xla_flags for cell in prepared.space.cells)
        if prepared.device.platform != "cpu" or flags_given or not prepared.works:
            return False
        forecast = Forecast(self._known().rows, prepared.works, prepared.request.adjoint)
        sizes = [forecast.state_bytes(variant) for variant in prepared.space.variants]
        return any(size is not None and size <= SMALL_STATE_BYTES for size in sizes)


def trial_of(prepared: Prepared, asked: TrialRequest, forecast: Forecast, *, final: bool = False) -> Trial:
    """Write a request as a trial, with everything that its worker would otherwise have to find out."""
    case = asked.cell.case
    seen = prepared.observations.get(case)
    work = prepared.works.get(case)
    seconds = forecast.seconds_at(asked.cell, asked.checkpoints)
    ours = prepared.request.adjoint is AdjointName.OURS
    expected = work.predicted if work and ours else None
    point = asked.cell.point(asked.checkpoints, expected_steps=expected, repeat=asked.batch)
    return Trial(
        **point.coordinates(),
        study=prepared.study + (VERIFIED if final else ""),
        problem=prepared.problem,
        adjoint=prepared.request.adjoint,
        directory=prepared.request.directory_of(asked.cell.tier),
        rung=asked.rung,
        run_within_bytes=None if prepared.request.exhaustive else prepared.budget.bytes,
        rounds=_rounds(seconds.likely if seconds else None),
        seed=prepared.request.seed,
        settings=dataclasses.replace(prepared.request.settings, own_environment=final),
        key=prepared.keys[case.set_values],
        key_place=prepared.key_place(case.set_values),
        device=prepared.device.key,
        steps=seen.steps if seen else None,
        accepted=seen.accepted if seen else None,
        rejected=seen.rejected if seen else None,
        reversed_steps=work.visited(asked.checkpoints) if work else None,
    )


def _steps(prepared: Prepared, cell: Cell) -> int:
    work = prepared.works.get(cell.case)
    return work.steps if work else 0


def _rounds(seconds: float | None) -> int:
    """Choose how many samples a trial takes: more where a call is short and noise is large beside it."""
    if seconds is None:
        return 5
    return 7 if seconds < 0.1 else 5 if seconds < 5 else 3
