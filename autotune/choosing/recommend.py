"""Choose a count for a budget: the least seconds among the counts whose bytes fit.

Everything stored is chosen where it fits and is the fastest; fewer checkpoints where they are faster (writing them
costs time too). What was never measured is said to be so: between measured counts, horizons or tolerances a choice is
`interpolated`, beyond them `extrapolated`, which is refused unless it was allowed.
"""

import dataclasses
import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence

from autotune.adjoints import Work, passes, work_of_rows
from autotune.choosing.describe import Known, describe
from autotune.choosing.objective import Objective as Objective
from autotune.choosing.outlook import outlook as outlook
from autotune.choosing.recommendation import Evidence as Evidence
from autotune.choosing.recommendation import Fit as Fit
from autotune.choosing.recommendation import Option as Option
from autotune.choosing.recommendation import Recommendation as Recommendation
from autotune.errors import AutotuneError
from autotune.model.cells import Cell, Variant, cell_of
from autotune.model.forecast import Forecast
from autotune.model.steps_law import StepsLaw
from autotune.search.space import candidate_counts
from profiles import AdjointName, Case, Measurement, Profile, Scalar, Status

TIE = 0.02
"""An unmeasured count has to promise this much more than a measured one to be chosen before it."""
MOST_QUESTIONS = 64
"""Different questions whose candidates a recommender keeps, budgets not counted."""
MOST_TEXTS = 4096
"""Answers to one question that a recommender keeps as they were written."""


def options(
    forecast: Forecast,
    cell: Cell,
    *,
    name: AdjointName,
    work: Work | None,
    counts: Sequence[int] | None,
    rows: Iterable[Measurement],
) -> tuple[Option, ...]:
    """List the counts that may be chosen at a cell, by rising count.

    Args:
        forecast: what the rows say.
        cell: where.
        name: whose adjoint.
        work: the case's steps, None where nothing was observed.
        counts: the user's list; None for everything that was measured, and what lies between.
        rows: all rows, for those of this cell: what failed at a count is not an option.
    """
    here = [row for row in rows if cell_of(row) == cell]
    lost = [row for row in here if row.status is not Status.OK]
    timed = {row.checkpoints for row in here if row.status is Status.OK and row.run_seconds}
    if counts is None:
        grid = candidate_counts(work, at_most=48) if work else ()
        enclosed = [count for count in grid if work and forecast.encloses(cell, count, work)]
        counts = sorted({*enclosed, *forecast.counts_to_choose(cell, work)})
    memory_ends = min((row.checkpoints for row in lost if row.status is Status.OUT_OF_MEMORY), default=math.inf)
    failed = {row.checkpoints for row in lost} - timed
    # A law says nothing of counts that execute more than anything that was timed.
    slowest = (
        max((sum(passes(name, work, count, cell.tier)) for count in timed), default=math.inf) if work else math.inf
    )
    found = []
    for count in counts:
        peak = forecast.bytes_at(cell, count)
        if peak is None or count in failed or count >= memory_ends:
            continue
        executed = sum(passes(name, work, count, cell.tier)) if work else None
        known = count in timed or executed is None or executed <= slowest
        seconds = forecast.seconds_at(cell, count) if known else None
        found.append(
            Option(
                cell=cell,
                checkpoints=count,
                peak=peak,
                seconds=seconds,
                executed_steps=executed,
                timed=count in timed,
            )
        )
    return tuple(found)


def rank(candidates: Iterable[Option], budget_bytes: float, objective: Objective = Objective.TIME) -> list[Option]:
    """Sort the candidates that are certain to fit, best first; equal ones by fewer bytes."""
    fitting = [option for option in candidates if option.peak.high <= budget_bytes]

    def cost(option: Option) -> tuple[float, float, float]:
        executed = option.executed_steps if option.executed_steps is not None else -option.checkpoints
        if objective is Objective.MEMORY or option.seconds is None:
            return math.inf if objective is Objective.TIME else 0.0, executed, option.peak.likely
        return option.seconds.likely * (1 if option.timed else 1 + TIE), executed, option.peak.likely

    return sorted(fitting, key=cost)


def works_of(rows: Iterable[Measurement]) -> dict[Case, Work]:
    """Read the observed steps of every case from its rows."""
    by_case: dict[Case, list[Measurement]] = {}
    for row in rows:
        by_case.setdefault(cell_of(row).case, []).append(row)
    return {case: work for case, mine in by_case.items() if (work := work_of_rows(mine)) is not None}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RecommendRequest:
    """A request to a profile: where, within how many bytes, by which rule, and on which evidence.

    None for horizon or tolerance means each that was measured; `set_values` likewise, by key. `measured_only` keeps to
    counts that were run (compiled, where none was) wherever the case itself was measured. `tiers` are those that may be
    used beside the device; None for all that were measured. `xla_flags` are those that the user will run under; None
    takes no flags where anything was measured without, else those that were measured.
    """

    budget_bytes: int
    margin_bytes: int = 0
    horizon: int | float | None = None
    tolerance: float | None = None
    set_values: Mapping[str, Scalar] = dataclasses.field(default_factory=dict)
    objective: Objective = Objective.TIME
    allow_extrapolation: bool = False
    measured_only: bool = False
    tiers: tuple[str, ...] | None = None
    xla_flags: tuple[str, ...] | None = None


def recommend_from(profile: Profile, request: RecommendRequest) -> tuple[Recommendation, ...]:
    """Recommend a count at every case that the request names, from stored measurements alone.

    Raises:
        AutotuneError: the profile says nothing about the request, or only by extrapolation that was not allowed.
    """
    return Recommender(profile).answer(request)


def recommend_within(
    profile: Profile, request: RecommendRequest, budgets: Iterable[int]
) -> list[tuple[Recommendation, ...]]:
    """Recommend as `recommend_from` does within each of several budgets; what they share is worked out once.

    Raises:
        AutotuneError: the profile says nothing about the request, or only by extrapolation that was not allowed.
    """
    recommender = Recommender(profile)
    return [recommender.answer(dataclasses.replace(request, budget_bytes=budget)) for budget in budgets]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _WantedCase:
    """A case that a request names, its steps, and how far these were measured."""

    case: Case
    work: Work | None
    evidence: Evidence
    between: str = ""


def _current_rows(profile: Profile) -> list[Measurement]:
    """List the rows of every case that belong to the newest state of its code."""
    return [row for case in profile.cases for row in profile.rows(case)]


def _cases(profile: Profile, request: RecommendRequest) -> list[Case]:
    """List the wanted cases: those of the profile at the `--set` values, moved to the horizon and tolerance."""
    there = list(dict.fromkeys(dataclasses.replace(case, mesh="") for case in profile.cases))
    kept = [case for case in there if all(dict(case.set_values).get(k) == v for k, v in request.set_values.items())]
    if not kept:
        wanted = ", ".join(f"{key}={value}" for key, value in request.set_values.items())
        raise AutotuneError(f"{profile.name} was not measured with {wanted}; it holds {_listed(map(str, there))}")
    for name in ("horizon", "tolerance"):
        if getattr(request, name) is not None and all(getattr(case, name) is None for case in kept):
            raise AutotuneError(
                f"{profile.name} was measured without a {name}, "
                f"so nothing is known at {name} {getattr(request, name)}; tune it with --{name}"
            )
    moved = [
        dataclasses.replace(
            case,
            horizon=case.horizon if request.horizon is None else request.horizon,
            tolerance=case.tolerance if request.tolerance is None else request.tolerance,
        )
        for case in kept
    ]
    return list(dict.fromkeys(moved))


def _placed(profile: Profile, works: Mapping[Case, Work], case: Case, request: RecommendRequest) -> _WantedCase:
    """Find the steps of a case, by interpolation where it was not measured itself."""
    measured = {dataclasses.replace(other, mesh="") for other in profile.cases}
    if case in measured:
        return _WantedCase(case=case, work=works.get(case), evidence=Evidence.MEASURED)
    same = [other for other in works if (other.set_values, other.x64) == (case.set_values, case.x64)]
    evidence, said = Evidence.INTERPOLATED, []
    for name in ("horizon", "tolerance"):
        value = getattr(case, name)
        known = sorted({getattr(other, name) for other in same if getattr(other, name) is not None})
        if value is None or value in known:
            continue
        if not known or not known[0] <= value <= known[-1]:
            evidence = Evidence.EXTRAPOLATED
        said.append(f"{name} {value:g} of {_listed(f'{other:g}' for other in known)}")
    if evidence is Evidence.EXTRAPOLATED and not request.allow_extrapolation:
        raise AutotuneError(
            f"{profile.name} was not measured at {', '.join(said)}: that would be extrapolation; tune it there, "
            "or allow it with --allow-extrapolation"
        )
    law = StepsLaw({(other.horizon, other.tolerance): works[other] for other in same})
    found = law.at(case.horizon, case.tolerance)
    if found is None:
        raise AutotuneError(
            f"{profile.name} holds no steps near {case}; it was measured at {_listed(str(other) for other in same)}"
        )
    return _WantedCase(case=case, work=found.work, evidence=evidence, between=", ".join(said))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Candidates:
    """What may be chosen at a case whatever the budget is, best first, and what is known of it.

    `sizes` are the peaks of what was measured, sorted. `described` holds what was made of options by their numbers,
    `written` the texts of these, by the outlook as well.
    """

    place: _WantedCase
    ranked: tuple[Option, ...]
    known: Known
    sizes: tuple[int, ...]
    described: dict[int, Recommendation] = dataclasses.field(default_factory=dict)
    written: dict[Hashable, str] = dataclasses.field(default_factory=dict)


class Recommender:
    """A profile with its laws, to be asked again and again: what no budget changes is worked out once.

    Safe to use from several threads. Made anew where rows come in.
    """

    def __init__(self, profile: Profile) -> None:
        """Keep a profile; laws are fitted when they are first needed."""
        self.profile = profile
        self._rows = _current_rows(profile)
        self._by_cell: dict[Cell, list[Measurement]] = {}
        for row in self._rows:
            self._by_cell.setdefault(cell_of(row), []).append(row)
        self._works = works_of(self._rows)
        self._measured: Forecast | None = None
        self._candidates: dict[str, tuple[_Candidates, ...]] = {}

    def answer(self, request: RecommendRequest) -> tuple[Recommendation, ...]:
        """Recommend a count at every case that the request names; see `recommend_from`."""
        return tuple(self._choose(some, request) for some in self._candidates_of(request))

    def write(self, request: RecommendRequest, write: Callable[[Recommendation], str]) -> list[str]:
        """Write the answer as texts, what no budget changes once.

        Args:
            request: as for `answer`.
            write: writes one recommendation; its `budget_bytes` and `margin_bytes` as whole numbers.
        """
        return [self._text(some, request, write) for some in self._candidates_of(request)]

    def _candidates_of(self, request: RecommendRequest) -> tuple[_Candidates, ...]:
        key = _key(request)
        candidates = self._candidates.get(key)
        if candidates is None:
            if len(self._candidates) >= MOST_QUESTIONS:
                self._candidates.clear()
            candidates = self._candidates[key] = self._list_candidates(request)
        return candidates

    def knows(self, request: RecommendRequest) -> bool:
        """Return whether the candidates are at hand, so that an answer takes no time to speak of."""
        return _key(request) in self._candidates

    def _list_candidates(self, request: RecommendRequest) -> tuple[_Candidates, ...]:
        places = [_placed(self.profile, self._works, case, request) for case in _cases(self.profile, request)]
        works = self._works | {place.case: place.work for place in places if place.work}
        if works != self._works:
            forecast = Forecast(self._rows, works, self.profile.adjoint)
        else:
            self._measured = forecast = self._measured or Forecast(self._rows, works, self.profile.adjoint)
        return tuple(self._candidates_at(place, forecast, request) for place in places)

    def _candidates_at(self, place: _WantedCase, forecast: Forecast, request: RecommendRequest) -> _Candidates:
        """List what may be chosen at a case, over the variants that were measured as they will be used.

        Raises:
            AutotuneError: nothing was measured under the flags of the request, or no count says anything of it.
        """
        rows, by_cell, name = self._rows, self._by_cell, self.profile.adjoint
        variants = {cell.variant for cell in by_cell if cell.variant.set_values == place.case.set_values}
        variants = _under_flags(variants, request)
        if request.tiers is not None:
            variants = {variant for variant in variants if variant.tier is None or variant.tier.name in request.tiers}
        cells = [Cell(place.case, variant.xla_flags, variant.tier) for variant in sorted(variants, key=str)]

        def counts(cell: Cell) -> Sequence[int] | None:
            # Nothing may be said of Diffrax's adjoint between the counts that were measured.
            only = name is AdjointName.DIFFRAX or (request.measured_only and place.evidence is Evidence.MEASURED)
            return forecast.counts_to_choose(cell, place.work) if only else None

        everything = [
            option
            for cell in cells
            for option in options(
                forecast, cell, name=name, work=place.work, counts=counts(cell), rows=by_cell.get(cell, ())
            )
        ]
        if not everything and place.evidence is not Evidence.MEASURED:
            raise AutotuneError(
                f"no count that was measured says anything of {place.case}: "
                "each would execute more there, for its steps, than anything that was timed; tune it there"
            )
        if request.measured_only and request.objective is Objective.TIME and place.evidence is Evidence.MEASURED:
            everything = [option for option in everything if option.timed] or everything
        # Of what was measured: below it the laws promise nothing. What lies within a budget failed, or is elsewhere.
        mine = [some for cell, some in by_cell.items() if cell.variant.set_values == place.case.set_values]
        known = [row for some in mine for row in some if row.status is Status.OK]
        return _Candidates(
            place=place,
            ranked=tuple(rank(everything, math.inf, request.objective)),
            known=Known(rows=rows, forecast=forecast, evidence=place.evidence, between=place.between),
            sizes=tuple(sorted(row.peak_bytes for row in known if row.peak_bytes)),
        )

    def _choose(self, candidates: _Candidates, request: RecommendRequest) -> Recommendation:
        """Choose at one case within the budget."""
        number = _best(candidates, request.budget_bytes)
        if number is None:
            smallest = next((size for size in candidates.sizes if size > request.budget_bytes), None)
            return dataclasses.replace(_nothing(candidates.place, request), smallest_bytes=smallest)
        return self._described(candidates, number, request)

    def _described(self, candidates: _Candidates, number: int, request: RecommendRequest) -> Recommendation:
        """Describe an option, once, and say what would change the choice within this budget."""
        found = candidates.described.get(number)
        place, base = candidates.place, _nothing(candidates.place, request)
        if found is None:
            option = candidates.ranked[number]
            found = describe(option, place.work, self.profile.adjoint, base, known=candidates.known)
            candidates.described[number] = found
        found = dataclasses.replace(found, budget_bytes=base.budget_bytes, margin_bytes=base.margin_bytes)
        return outlook(found, candidates.ranked, place.work, self.profile.adjoint)

    def _text(self, candidates: _Candidates, request: RecommendRequest, write: Callable[[Recommendation], str]) -> str:
        """Write the choice at one case, with the budget put into what was written of the same choice before."""
        number = _best(candidates, request.budget_bytes)
        if number is None:
            return write(self._choose(candidates, request))
        said = self._described(candidates, number, request)
        key = (number, said.runner_up, said.runner_up_seconds, said.would_change)
        text = candidates.written.get(key)
        if text is None:
            if len(candidates.written) >= MOST_TEXTS:
                candidates.written.clear()
            text = write(dataclasses.replace(said, budget_bytes=_BUDGET, margin_bytes=_MARGIN))
            candidates.written[key] = text
        return text.replace(str(_BUDGET), str(request.budget_bytes)).replace(str(_MARGIN), str(request.margin_bytes))


_BUDGET, _MARGIN = -10_000_000_000_000_001, -10_000_000_000_000_002
"""What stands for the figures of a budget in a text that is kept."""


def _best(candidates: _Candidates, budget_bytes: int) -> int | None:
    """Find the best option that is certain to fit."""
    return next((n for n, option in enumerate(candidates.ranked) if option.peak.high <= budget_bytes), None)


def _nothing(place: _WantedCase, request: RecommendRequest) -> Recommendation:
    """Say that nothing fits at a case."""
    budget, margin = request.budget_bytes, request.margin_bytes
    return Recommendation(case=place.case, status=Fit.NOTHING_FITS, budget_bytes=budget, margin_bytes=margin)


def _key(request: RecommendRequest) -> str:
    """Write a request without its budget."""
    return repr(dataclasses.replace(request, budget_bytes=1, margin_bytes=0))


def _under_flags(variants: set[Variant], request: RecommendRequest) -> set[Variant]:
    """Keep the variants that were measured under the XLA flags that the request names.

    Raises:
        AutotuneError: none was.
    """
    there = {variant.xla_flags for variant in variants}
    wanted = ({""} if "" in there else there) if request.xla_flags is None else set(request.xla_flags)
    if there and not wanted & there:
        said = " or ".join(repr(flags) for flags in sorted(wanted))
        known = _listed(map(repr, sorted(there)))
        raise AutotuneError(f"nothing was measured under XLA_FLAGS {said}, only under {known}; tune with them first")
    return {variant for variant in variants if variant.xla_flags in wanted}


def _listed(values: Iterable[str]) -> str:
    """Join for a sentence, in order, shortening a long list."""
    texts = list(values)
    return ", ".join(texts) if len(texts) <= 8 else f"{', '.join(texts[:4])} … {texts[-1]} ({len(texts)} in all)"
