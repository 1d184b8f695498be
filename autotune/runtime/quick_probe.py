"""The quick probe of a training process: three compiles, each timed once, in this very process."""

import contextlib
import dataclasses
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from autotune.choosing.recommend import Objective
from autotune.errors import AutotuneError
from autotune.machine.budget import Budget
from autotune.machine.device import DeviceInfo
from autotune.measuring.rows import keep_why
from autotune.measuring.trial import Rung, RunSettings, Trial
from autotune.model.cells import Cell
from autotune.problem.loading import Problem
from autotune.problem.steps import Observation, stored_observation
from autotune.search.history import Past, SearchGoal
from autotune.search.search import UNLIKELY
from autotune.search.space import Listed, Space, build_space
from autotune.tuning.prepare import STEPS_NOTE, no_gradient, study_name
from profiles import AdjointName, Measurement, ProblemKey, ProfilesError, ProfileStore, Scalar, read_values

logger = logging.getLogger("autotune")

ROUNDS = 1
"""How many samples it takes of each count at least, beside the first call; more while all of them cost next to nothing
(`autotune.measuring.batch.CHEAP_SECONDS`)."""
NEARLY = 1.3
"""The largest count that fits is measured where it is so many times the cliff: below that it executes as many steps."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class AutoRequest:
    """A request of a training process; see `auto_adjoint`."""

    problem: str | Callable[..., Any]
    budget: str | int
    horizon: int | float | None = None
    tolerance: float | None = None
    set_values: Mapping[str, Scalar] = dataclasses.field(default_factory=dict)
    objective: Objective = Objective.TIME
    tiers: tuple[str, ...] = ()
    directory: str | None = None
    device: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "set_values", read_values(self.set_values))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Known:
    """What is known of the one cell of the request."""

    known: Past
    question: SearchGoal
    cell: Cell


class Probe:
    """The measuring, in this process, of the few counts that a choice needs."""

    def __init__(
        self,
        ask: AutoRequest,
        problem: Problem,
        *,
        key: ProblemKey,
        info: DeviceInfo,
        budget: Budget,
        store: ProfileStore | None,
    ) -> None:
        """Keep the request, and where rows go; None for a store that cannot be had."""
        self._ask = ask
        self._problem = problem
        self._key = key
        self._info = info
        self._budget = budget
        self._store = store

    def run(self, rows: Sequence[Measurement]) -> list[Measurement]:
        """Count steps, measure the cliff, all steps, and one count that follows from these; store and return the rows.

        What fits is timed at once, so that nothing is compiled twice.
        """
        seen = self._observed()
        rung = Rung.RUN if self._ask.objective is Objective.TIME and seen.steps else Rung.COMPILED
        if not seen.steps:
            return self._measure(seen, [1, 32, 1024], rung)
        ends = self._ends(seen)
        made = self._measure(seen, ends, rung)
        past = self._past([*rows, *made], seen)
        if (third := self._third(ends, past)) is not None:
            made += self._measure(seen, [third], rung)
            past = self._past([*rows, *made], seen)
        if not past.known.any_fits(past.cell):
            made += self._measure(seen, [1], rung)
        return made

    def _ends(self, seen: Observation) -> list[int]:
        """List about sqrt(2 n), and every step in a slot of its own."""
        assert seen.steps is not None
        work = seen.work()
        bound = work.everything if work else None
        below = seen.steps if bound is None else max(1, min(seen.steps, bound - 1))
        return sorted({min(below, math.isqrt(2 * seen.steps) + 1), below})

    def _third(self, ends: Sequence[int], past: _Known) -> int | None:
        """Pick one more count: everything stored, or the largest that fits, or a small one; None where none is left."""
        work, known = past.question.works[past.cell.case], past.known
        cliff, below = ends[0], ends[-1]
        sizes = {count: known.forecast.bytes_at(past.cell, count) for count in (cliff, below)}
        fits = {count for count, size in sizes.items() if size is not None and past.question.fits(size.likely)}
        if not fits:
            return max(1, cliff // 4) if cliff > 1 else None
        largest = max(known.fitting(past.cell), default=cliff)
        if below not in fits and largest >= NEARLY * cliff:
            return largest
        if work.everything is None:
            return None
        others = known.forecast.bytes_at(past.cell, work.everything - 1)
        may = others is not None and past.question.fits(UNLIKELY * others.likely)
        return work.everything if may else None

    def _space(self) -> Space:
        """Make the space of the one cell that is asked for."""
        ask = self._ask
        return build_space(
            Listed(
                horizons=() if ask.horizon is None else (ask.horizon,),
                tolerances=() if ask.tolerance is None else (ask.tolerance,),
                set_values={key: (value,) for key, value in ask.set_values.items()},
                x64=_x64(),
            )
        )

    def _past(self, rows: Sequence[Measurement], seen: Observation) -> _Known:
        space = self._space()
        case = space.cells[0].case
        work = seen.work()
        works = {} if work is None else {case: work}
        question = SearchGoal(
            space=space, works=works, adjoint=AdjointName.OURS, budget_bytes=self._budget.bytes
        )  # fmt: skip
        return _Known(known=Past(rows, question), question=question, cell=space.cells[0])

    def _observed(self) -> Observation:
        from autotune.problem.probe import observe

        note = f"{self._key.fingerprint} {self._ask.horizon!r} {self._ask.tolerance!r}"
        stored = None
        if self._store is not None:
            with contextlib.suppress(ProfilesError):  # it was said before, when rows were read, and is counted anew
                stored = stored_observation(self._store.get_note(STEPS_NOTE, note))
        if stored is not None:
            return stored
        seen = observe(self._problem, self._ask.horizon, self._ask.tolerance, adjoint=AdjointName.OURS)
        if seen.differentiated is False:
            raise AutotuneError(no_gradient(self._problem.name))
        self._write(lambda store: store.put_note(STEPS_NOTE, note, dataclasses.asdict(seen)))
        return seen

    def _measure(self, seen: Observation, counts: Sequence[int], rung: Rung) -> list[Measurement]:
        """Measure counts in this process, and store the rows."""
        from autotune.measuring.runners import InProcessRunner

        (cell,), work = self._space().cells, seen.work()
        trials = [
            Trial(
                **cell.point(count, expected_steps=seen.accepted).coordinates(),
                study=study_name(self._key, self._info.key, AdjointName.OURS) + "/auto",
                problem=self._problem.name,
                adjoint=AdjointName.OURS,
                rung=rung,
                run_within_bytes=self._budget.bytes,
                rounds=ROUNDS,
                settings=RunSettings(device=self._ask.device),
                key=self._key,
                device=self._info.key,
                steps=seen.steps,
                accepted=seen.accepted,
                rejected=seen.rejected,
                reversed_steps=work.visited(count) if work else None,
            )
            for count in counts
        ]
        rows = InProcessRunner(self._problem).run(trials)
        self._write(lambda store: [store.put(row) for row in rows])
        self._write(lambda store: [keep_why(store, trial, "quick probe of auto_adjoint") for trial in trials])
        return rows

    def _write(self, write: Callable[[ProfileStore], Any]) -> None:
        """Store something where it can be stored; a choice does not fail for a store that cannot be written."""
        if self._store is None or self._store.read_only:
            return
        try:
            write(self._store)
        except ProfilesError as error:
            logger.warning("the probe's results were not stored: %s", error)


def _x64() -> bool:
    import jax

    return bool(jax.config.read("jax_enable_x64"))
