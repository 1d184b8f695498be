"""Choosing again while a training runs: other horizons, more steps than predicted, less memory than there was.

Nothing here measures or reads a database: the rows of the first choice hold the laws of bytes and seconds, and a choice
at other steps follows from them. A new choice is made between steps of the training, never within one.
"""

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from autotune.adjoints import Work, work_of_rows
from autotune.choosing.describe import Known, describe
from autotune.choosing.recommend import (
    Evidence,
    Fit,
    Objective,
    Recommendation,
    RecommendRequest,
    options,
    rank,
    recommend_from,
    works_of,
)
from autotune.errors import AutotuneError
from autotune.machine.device import device_info
from autotune.model.cells import cell_of
from autotune.model.forecast import Forecast
from autotune.runtime.auto import AutoChoice, auto_choice
from autotune.runtime.quick_probe import AutoRequest
from profiles import AdjointName, Measurement, Profile, read_values

logger = logging.getLogger("autotune")

STEPS_RANGE = 1.15
"""Steps may leave what was predicted by this factor, either way, before a choice is made again. Within it a prediction
that is off costs 2 % of the executed steps in the median, and at most 10 %."""


class StepMonitor:
    """The adjoint of a training, chosen again when the solve or the memory has changed.

    monitor = autotune.StepMonitor(make, budget="6GiB", horizon=10.0)
    step = make_step(monitor.adjoint)
    for index, batch in enumerate(batches):
        model, stats = step(model, batch)
        if index % 100 == 0 and monitor.update(stats):
            step = make_step(monitor.adjoint)

    A prediction alone needs no new compile, where the step takes it as a traced integer. It keeps the checkpoints where
    they belong while the number of steps drifts, and `update` chooses another count where that has become worth it:

        expected = monitor.expected_steps
        model, stats = step(model, batch, jnp.asarray(expected))  # RecursiveCheckpointAdjoint(count, expected_steps=…)
        expected = monitor.expect(stats)
    """

    def __init__(
        self,
        problem: str | Callable[..., Any],
        *,
        budget: str | int,
        horizon: int | float | None = None,
        tolerance: float | None = None,
        set_values: Mapping[str, Any] | None = None,
        store: str | None = None,
        device: int = 0,
    ) -> None:
        """Choose as `auto_adjoint` does; the arguments are its own.

        Raises:
            AutotuneError: as `auto_adjoint`.
        """
        self._ask = AutoRequest(
            problem=problem,
            budget=budget,
            horizon=horizon,
            tolerance=tolerance,
            set_values=dict(set_values or {}),
            device=device,
        )
        self._choice = auto_choice(self._ask, store=store)

    @property
    def adjoint(self) -> Any:
        """The adjoint to use from now on."""
        return self._choice.adjoint

    @property
    def choice(self) -> AutoChoice:
        """The choice behind the adjoint."""
        return self._choice

    @property
    def expected_steps(self) -> int | None:
        """The accepted steps that the choice was made for; None where they are not known."""
        return self._choice.recommendation.accepted

    def expect(self, stats: Mapping[str, Any] | int) -> int:
        """Return what to expect of the next solve: as many accepted steps as this one took.

        Args:
            stats: as for `update`. Reading them waits for the solve.
        """
        return _counted(stats)[0]

    def update(self, stats: Mapping[str, Any] | int) -> bool:
        """Look at a solve that was made, and at the memory that is free, and choose again where they have changed.

        Args:
            stats: `sol.stats` of Diffrax (of a batch too: the largest counts), or the number of accepted steps.

        Returns:
            Whether `adjoint` is another one than before.

        Raises:
            AutotuneError: nothing fits any more.
        """
        accepted, steps = _counted(stats)
        predicted = self._choice.recommendation.accepted
        moved = predicted is not None and not 1 / STEPS_RANGE <= accepted / predicted <= STEPS_RANGE
        left = self._bytes_left()
        peak = self._choice.recommendation.peak_bytes
        short = left is not None and peak is not None and left < peak
        if not moved and not short:
            return False
        budget = min(self._choice.budget.bytes, left) if short and left is not None else self._choice.budget.bytes
        before = self._choice.recommendation
        if not moved and predicted is not None:
            steps, accepted = before.steps or 1, predicted
        work = work_at(self._choice, steps, accepted)
        chosen = choose_at(self._choice, work, budget)
        if chosen.status is not Fit.OK:
            raise AutotuneError(
                f"{self._choice.problem.name}: "
                f"{left} bytes are left and the smallest count needs {chosen.smallest_bytes}; free memory, "
                "or shrink state or batch"
            )
        reason = f"{accepted} accepted steps instead of {predicted}" if moved else f"{left} bytes left for a call"
        logger.info("%s: %s; %s", self._choice.problem.name, reason, chosen)
        self._choice = dataclasses.replace(self._choice, recommendation=chosen)
        return (chosen.checkpoints, chosen.expected_steps) != (before.checkpoints, before.expected_steps)

    def _bytes_left(self) -> int | None:
        """Count the bytes that a call could have now: what is free, and its arguments, which are held already."""
        free = device_info(device=self._ask.device).free_bytes
        arguments = max((row.argument_bytes or 0 for row in self._choice.rows), default=0)
        return None if free is None else free + arguments


class AdjointSchedule:
    """The adjoints of a curriculum: one for each horizon and tolerance, from two probes at most.

    `schedule(horizon=20.0)` gives the adjoint; `schedule.checkpoints` is the one count that serves all of them, so that
    with a traced `expected_steps` a new horizon is no new compile:

        schedule = autotune.AdjointSchedule(make, budget="6GiB", horizons=[5.0, 10.0, 20.0])
        adjoint = RecursiveCheckpointAdjoint(schedule.checkpoints, expected_steps=traced)
        traced = schedule.expected_steps(horizon=20.0)
    """

    def __init__(
        self,
        problem: str | Callable[..., Any],
        *,
        budget: str | int,
        horizons: Sequence[int | float] = (),
        tolerances: Sequence[float] = (),
        set_values: Mapping[str, Any] | None = None,
        store: str | None = None,
        device: int = 0,
    ) -> None:
        """Choose at the ends of what is listed, and between them by interpolation.

        Raises:
            AutotuneError: as `auto_adjoint`.
        """
        values = read_values(set_values or {})
        rows: dict[str, Measurement] = {}
        choice = None
        ends = [(h, t) for h in _ends(horizons) for t in _ends(tolerances)]
        for horizon, tolerance in ends:
            ask = AutoRequest(
                problem=problem, budget=budget, horizon=horizon, tolerance=tolerance, set_values=values, device=device
            )
            choice = auto_choice(ask, store=store)
            rows |= {row.key: row for row in choice.rows}
        assert choice is not None
        profile = Profile(name=choice.problem.name, measurements=tuple(rows.values()))
        self._chosen: dict[tuple[Any, Any], Recommendation] = {}
        for horizon in horizons or (None,):
            for tolerance in tolerances or (None,):
                asked = RecommendRequest(
                    budget_bytes=choice.budget.bytes,
                    margin_bytes=choice.budget.margin_bytes,
                    horizon=horizon,
                    tolerance=tolerance,
                    set_values=values,
                    objective=Objective.TIME,
                )
                self._chosen[(horizon, tolerance)] = recommend_from(profile, asked)[0]
        lost = [str(one.case) for one in self._chosen.values() if one.status is not Fit.OK]
        if lost:
            raise AutotuneError(f"nothing of {choice.problem.name} fits the budget at {'; '.join(lost)}")

    def __call__(self, *, horizon: int | float | None = None, tolerance: float | None = None) -> Any:
        """Give the adjoint of a horizon and tolerance that were listed.

        Raises:
            AutotuneError: they were not.
        """
        import adjoint

        chosen = self._at(horizon, tolerance)
        assert chosen.checkpoints is not None
        return adjoint.RecursiveCheckpointAdjoint(chosen.checkpoints, chosen.expected_steps)

    @property
    def checkpoints(self) -> int:
        """The largest count of any entry that still fits everywhere: bytes do not follow the horizon."""
        return max(one.checkpoints for one in self._chosen.values() if one.checkpoints is not None)

    def expected_steps(self, *, horizon: int | float | None = None, tolerance: float | None = None) -> int:
        """Give the predicted accepted steps of a horizon and tolerance that were listed.

        Raises:
            AutotuneError: they were not.
        """
        expected = self._at(horizon, tolerance).expected_steps
        assert expected is not None
        return expected

    def _at(self, horizon: int | float | None, tolerance: float | None) -> Recommendation:
        if (horizon, tolerance) not in self._chosen:
            there = "; ".join(str(one.case) for one in self._chosen.values())
            raise AutotuneError(f"horizon {horizon}, tolerance {tolerance} were not listed; the schedule has {there}")
        return self._chosen[(horizon, tolerance)]


def work_at(choice: AutoChoice, steps: int, accepted: int) -> Work:
    """Make the work of a solve that took other steps; the rows of a choice tell which of them are visited."""
    known = works_of(choice.rows).get(choice.recommendation.case) or work_of_rows(choice.rows)
    paths: dict[str, Any] = {"switches": known.switches, "everything": known.everything} if known else {}
    if known and known.predicted < known.reversed_steps == known.steps:
        return Work(steps=steps, reversed_steps=steps, accepted=accepted, **paths)
    return Work(steps=steps, reversed_steps=accepted, accepted_from=known.accepted_from if known else 1, **paths)


def choose_at(choice: AutoChoice, work: Work, budget_bytes: int) -> Recommendation:
    """Choose again from the rows of a choice, at other steps or within another budget."""
    before = choice.recommendation
    works = {cell_of(row).case: work for row in choice.rows}
    works |= works_of(choice.rows)
    # The case keeps its place in the laws under the steps that it had; the new steps are a case of their own.
    case = dataclasses.replace(before.case, horizon=float(work.steps), mesh="changed steps")
    forecast = Forecast(choice.rows, {**works, case: work}, AdjointName.OURS)
    rows = [row for row in choice.rows if not row.xla_flags and row.tier == before.tier]
    cells = {dataclasses.replace(cell_of(row), case=case) for row in rows}
    candidates = [
        option
        for cell in cells
        for option in options(forecast, cell, name=AdjointName.OURS, work=work, counts=None, rows=rows)
    ]
    base = Recommendation(case=before.case, status=Fit.NOTHING_FITS, budget_bytes=budget_bytes)
    ranked = rank(candidates, budget_bytes)
    if not ranked:
        least = min((option.peak.likely for option in candidates), default=None)
        return dataclasses.replace(base, smallest_bytes=None if least is None else int(least))
    known = Known(rows=rows, forecast=forecast, evidence=Evidence.INTERPOLATED, between="stored laws")
    return describe(ranked[0], work, AdjointName.OURS, base, known=known)


def _ends(values: Sequence[Any]) -> list[Any]:
    """Return the largest and the smallest, the largest first; [None] for nothing."""
    return list(dict.fromkeys((max(values), min(values)))) if values else [None]


def _counted(stats: Mapping[str, Any] | int) -> tuple[int, int]:
    """Read accepted steps and all steps, the largest of a batch."""
    if isinstance(stats, int):
        return stats, stats
    import numpy as np

    accepted = int(np.max(np.asarray(stats["num_accepted_steps"])))
    return accepted, int(np.max(np.asarray(stats["num_steps"])))
