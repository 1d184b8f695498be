"""Observe how many steps a problem takes, by running it forward once with an adjoint that only watches."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from autotune.adjoints import make_adjoint
from autotune.errors import AutotuneError, from_user
from autotune.problem.loading import Problem
from autotune.problem.probe_adjoint import ProbeAdjoint, watching
from autotune.problem.program import Traced, compile_traced, trace
from autotune.problem.steps import Observation, SiteSteps
from autotune.problem.traced import calls_back, same_program
from profiles import AdjointName, Scalar

NO_DATA = "nothing was run: the arguments have shapes and no data, so the number of steps is unknown"
NOT_SEEN = "the steps cannot be observed: the counts are read, by code that makes an adjoint of its own"

_FEW_AND_MORE = (1, 2)
"""The counts whose programs are compared: where a solve may make two steps, its backward pass holds one or two."""


def observe(
    problem: Problem,
    horizon: int | float | None = None,
    tolerance: float | None = None,
    *,
    repeats: int = 1,
    variations: Sequence[Mapping[str, Scalar]] = (),
    adjoint: AdjointName | None = None,
) -> Observation:
    """Run the problem forward and count its steps.

    Args:
        problem: the loaded problem.
        horizon: what the factory gets as `horizon`.
        tolerance: what the factory gets as `tolerance`.
        repeats: how often each compiled call is run (for a function that draws random numbers of its own).
        variations: further `--set` values to run at, each laid over the problem's own: seeds, batches, weights.
        adjoint: whose is to be tuned; given one, this also finds out whether a backward pass goes through a solve,
            which costs two traces.

    Returns:
        The steps per call site, lane, repeat and variation. Nothing is run where the arguments have no data.

    Raises:
        AutotuneError: no solve was seen; a solve hit `max_steps` or failed; the factory or `fn` raised.
    """
    recorder, mesh, differentiated = _Recorder(), "", None
    for values in variations or ({},):
        varied = dataclasses.replace(problem, set_values={**problem.set_values, **values}) if values else problem
        probe = ProbeAdjoint(report=recorder)
        with watching(recorder):
            call = varied.make(probe, horizon, tolerance)
            traced = trace(call)
        if adjoint is not None and differentiated is None:
            differentiated = _counts_matter(varied, adjoint, horizon, tolerance)
        if call.abstract or recorder.blind(traced):
            note = NO_DATA if call.abstract else NOT_SEEN
            return Observation(
                horizon=horizon, tolerance=tolerance, note=note, differentiated=differentiated,
                reads_counts=not call.abstract,
            )  # fmt: skip
        executable = compile_traced(traced)
        mesh = executable.mesh
        for repeat in range(repeats):
            # Arguments are made afresh where a run may have consumed them.
            args = call.args if repeat == 0 else varied.make(probe, horizon, tolerance).args
            try:
                executable.run(args)
                jax.effects_barrier()
            except Exception as error:
                raise from_user(f"{problem.name} raised while its steps were counted", error) from error
    if recorder.counts_read and not recorder.seen:
        note = NOT_SEEN
        return Observation(
            horizon=horizon, tolerance=tolerance, note=note, differentiated=differentiated, reads_counts=True
        )
    recorder.check(problem, horizon)
    if differentiated is False and recorder.steps <= 1:
        differentiated = None  # of a solve of one step one checkpoint is all that any adjoint would hold
    return Observation(
        horizon=horizon, tolerance=tolerance, sites=recorder.sites(), repeats=repeats, mesh=mesh,
        differentiated=differentiated,
    )  # fmt: skip


def _counts_matter(problem: Problem, name: AdjointName, horizon: int | float | None, tolerance: float | None) -> bool:
    """Return whether the number of checkpoints changes the traced program; without a backward pass it does not."""
    few, more = (
        trace(problem.make(make_adjoint(name, count), horizon, tolerance)).jaxpr.jaxpr for count in _FEW_AND_MORE
    )
    return not same_program(few, more)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    steps: int
    accepted: int | None
    rejected: int | None
    hit_max: bool
    okay: bool
    time: float
    end: float
    max_steps: int | None
    throw: bool
    mapped: bool
    accepted_from: int | None


class _Recorder:
    """A collector of what the running program reports, by call site. Called from the runtime's threads."""

    def __init__(self) -> None:
        self._entries: dict[str, list[_Entry]] = {}
        self._solve = False
        self.counts_read = False

    def __call__(
        self, *, site: str, steps: Any, accepted: Any = None, rejected: Any = None, hit_max: Any = False,
        okay: Any = True, time: Any = math.nan, end: Any = math.nan, max_steps: int | None = None, throw: bool = True,
        mapped: Any = False, accepted_from: int | None = None,
    ) -> None:  # fmt: skip
        entry = _Entry(
            steps=int(steps), accepted=None if accepted is None else int(accepted),
            rejected=None if rejected is None else int(rejected), hit_max=bool(hit_max), okay=bool(okay),
            time=float(time), end=float(end), max_steps=max_steps, throw=throw,
            mapped=bool(mapped), accepted_from=accepted_from,
        )  # fmt: skip
        self._entries.setdefault(site, []).append(entry)

    @property
    def seen(self) -> bool:
        """Whether any solve or loop reported."""
        return bool(self._entries)

    @property
    def steps(self) -> int:
        """The most steps that were reported."""
        return max((entry.steps for entries in self._entries.values() for entry in entries), default=0)

    def counts_were_read(self) -> None:
        """Note that the counts are used, be it by code that makes an adjoint of its own."""
        self.counts_read = True

    def solve_was_traced(self) -> None:
        """Note that a solve will report."""
        self._solve = True

    def blind(self, traced: Traced) -> bool:
        """Return whether the counts are used but nothing in a program can report: running it would show nothing."""
        return self.counts_read and not self._solve and not calls_back(traced.jaxpr)

    def check(self, problem: Problem, horizon: int | float | None) -> None:
        """Raise where there is nothing to tune, or where what was seen is not a solve that ended well."""
        if not self._entries:
            raise AutotuneError(
                f"{problem.name} never used its adjoint: "
                "no diffeqsolve(adjoint=adjoint) and no adjoint.checkpointed_while_loop was run, "
                "and nobody read its counts; hand `adjoint` on, or its counts"
            )
        at = "" if horizon is None else f" at horizon {horizon!r}"
        for site, entries in self._entries.items():
            hits = [entry for entry in entries if entry.hit_max]
            if hits and (hits[0].throw or len(hits) == len(entries)):
                worst = min(hits, key=lambda entry: entry.time)
                raise AutotuneError(
                    f"the solve at {site} reached max_steps={worst.max_steps}{at}, "
                    f"at time {worst.time:g} of {worst.end:g}; give diffeqsolve a larger max_steps, "
                    "or take a shorter horizon"
                )
            failed = [entry for entry in entries if not entry.okay and not entry.hit_max and entry.throw]
            if failed:
                raise AutotuneError(
                    f"the solve at {site} failed{at} after {failed[0].steps} steps, "
                    f"at time {failed[0].time:g} of {failed[0].end:g}; "
                    "run the problem by itself to see Diffrax's reason"
                )

    def sites(self) -> tuple[SiteSteps, ...]:
        """Return the record, call sites in the order in which they first ended."""
        return tuple(
            SiteSteps(
                site=site,
                steps=tuple(entry.steps for entry in entries),
                accepted=tuple(entry.accepted for entry in entries if entry.accepted is not None),
                rejected=tuple(entry.rejected for entry in entries if entry.rejected is not None),
                max_steps=entries[0].max_steps,
                truncated=sum(entry.hit_max for entry in entries),
                mapped=any(entry.mapped for entry in entries),
                accepted_from=_latest([entry.accepted_from for entry in entries if entry.accepted is not None]),
            )
            for site, entries in self._entries.items()
        )


def _latest(counts: Sequence[int | None]) -> int | None:
    """Return the largest count; None, for never, where one is None or there are none."""
    known = [count for count in counts if count is not None]
    return max(known) if known and len(known) == len(counts) else None
