"""What a tune will still do, and how long it will take, as far as that is known now.

The search is played through against its own forecasts: each trial that it requests is answered by what the laws expect
there. Before anything was measured, bytes are taken to fit and seconds to follow the executed steps, so the list is
then the shape of the search; its time stays unknown until a trial of this problem, or another on this device, was
compiled.
"""

import dataclasses
import math
import statistics
from collections.abc import Sequence

from autotune.adjoints import passes
from autotune.choosing.recommend import options, rank
from autotune.measuring.trial import Rung
from autotune.model.cells import cell_of
from autotune.model.forecast import Forecast
from autotune.search.history import SearchGoal
from autotune.search.search import Search, TrialRequest
from profiles import Case, DeviceKey, Measurement, PeakSource, ProblemKey

MOST_TRIALS = 10_000
"""Where a play-through ends at the latest."""
_UNIT_SECONDS = 1e-3
_CALLS = 4
_PROBLEM = ProblemKey(name="dry run", components={})
_DEVICE = DeviceKey(platform="none", kind="dry run")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """One trial that is still to come. `seconds` are those of all of it, None where nothing is known."""

    request: TrialRequest
    seconds: float | None
    final: bool = False


def plan(
    question: SearchGoal,
    rows: Sequence[Measurement],
    *,
    verified: Sequence[Measurement] = (),
    elsewhere: Sequence[Measurement] = (),
) -> tuple[Planned, ...]:
    """Play the rest of a search through.

    Args:
        question: what the search has to answer.
        rows: what was measured.
        verified: final runs that were made already.
        elsewhere: rows of other problems on this device, for how long a compile takes.
    """
    real = Forecast(rows, question.works, question.adjoint)
    overhead = _overhead_seconds(rows) or _overhead_seconds(elsewhere)
    played = list(rows)
    planned: list[Planned] = []
    search = Search(question)
    while (requests := search.next_requests(played)) and len(planned) < MOST_TRIALS:
        for asked in requests:
            planned.append(_planned(asked, real, overhead))
            played.append(_answer(asked, real, question))
    done = {cell_of(row).case for row in verified}
    for case in question.space.cases:
        if case not in done and (asked := _final(question, played, case)) is not None:
            planned.append(dataclasses.replace(_planned(asked, real, overhead), final=True))
    return tuple(planned)


def total_seconds(planned: Sequence[Planned]) -> float | None:
    """Add up, None where a part is unknown."""
    parts = [one.seconds for one in planned]
    return None if any(part is None for part in parts) else sum(part for part in parts if part is not None)


def _planned(asked: TrialRequest, real: Forecast, overhead: float | None) -> Planned:
    calls = 0.0
    if asked.rung is Rung.RUN:
        seconds = real.seconds_at(asked.cell, asked.checkpoints)
        calls = _CALLS * seconds.likely if seconds else 0.0
    return Planned(request=asked, seconds=None if overhead is None else overhead + calls)


def _overhead_seconds(rows: Sequence[Measurement]) -> float | None:
    """Return the median of what tracing and compiling took."""
    known = [(row.trace_seconds or 0.0) + row.compile_seconds for row in rows if row.compile_seconds is not None]
    return statistics.median(known) if known else None


def _answer(asked: TrialRequest, real: Forecast, question: SearchGoal) -> Measurement:
    """Answer a trial with what the laws expect; see the module's header for what stands in for them."""
    case = asked.cell.case
    peak = real.bytes_at(asked.cell, asked.checkpoints)
    seconds = real.seconds_at(asked.cell, asked.checkpoints)
    likely = seconds.likely if seconds else None
    if likely is None and case in question.works:
        advances, taped = passes(question.adjoint, question.works[case], asked.checkpoints, asked.cell.tier)
        likely = _UNIT_SECONDS * (advances + 4 * taped)
    runs = peak is None or question.runs(peak.likely)
    return Measurement(
        **asked.cell.point(asked.checkpoints, repeat=asked.batch).coordinates(),
        study="dry run",
        problem=_PROBLEM,
        device=_DEVICE,
        adjoint=question.adjoint,
        peak_bytes=math.ceil(peak.likely) if peak else 1 + asked.checkpoints,
        peak_source=PeakSource.COMPILED,
        run_seconds=(likely,) if likely and runs and asked.rung is Rung.RUN else (),
    )


def _final(question: SearchGoal, rows: Sequence[Measurement], case: Case) -> TrialRequest | None:
    """Choose the final run of a case: its best option."""
    forecast = Forecast(rows, question.works, question.adjoint)
    candidates = [
        option
        for cell in question.space.cells
        if cell.case == case
        for option in options(
            forecast,
            cell,
            name=question.adjoint,
            work=question.works.get(case),
            counts=question.space.counts,
            rows=rows,
        )
    ]
    ranked = rank(candidates, question.budget_bytes or 2**63)
    if not ranked:
        return None
    rung = Rung.RUN if case in question.works else Rung.COMPILED
    return TrialRequest(
        cell=ranked[0].cell, checkpoints=ranked[0].checkpoints, rung=rung, why="final run, your own settings"
    )
