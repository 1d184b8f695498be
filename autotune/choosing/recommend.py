"""Choose a count for a budget: the least seconds among the counts whose bytes fit.

Everything stored is chosen where it fits and is the fastest; fewer checkpoints where they are faster (writing them
costs time too). What was never measured is said to be so: between measured counts, horizons or tolerances a choice is
`interpolated`, beyond them `extrapolated`, which is refused unless it was allowed.
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence

from autotune.adjoints import Work, passes, work_of_rows
from autotune.choosing.describe import Known, describe
from autotune.choosing.objective import Objective as Objective
from autotune.choosing.recommendation import Evidence as Evidence
from autotune.choosing.recommendation import Fit as Fit
from autotune.choosing.recommendation import Option as Option
from autotune.choosing.recommendation import Recommendation as Recommendation
from autotune.errors import AutotuneError
from autotune.model.cells import Cell, Variant, cell_of
from autotune.model.forecast import Forecast
from autotune.model.steps_law import StepsLaw
from autotune.search.space import grid_counts
from profiles import AdjointName, Case, Measurement, Profile, Scalar, Status

TIE = 0.02
"""An unmeasured count has to promise this much more than a measured one to be chosen before it."""


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
        grid = grid_counts(work.steps, at_most=48) if work else ()
        enclosed = [count for count in grid if work and forecast.encloses(cell, count, work)]
        counts = sorted({*enclosed, *forecast.counts_to_choose(cell, work)})
    memory_ends = min((row.checkpoints for row in lost if row.status is Status.OUT_OF_MEMORY), default=math.inf)
    failed = {row.checkpoints for row in lost} - timed
    found = []
    for count in counts:
        peak = forecast.bytes_at(cell, count)
        if peak is None or count in failed or count >= memory_ends:
            continue
        executed = sum(passes(name, work, count, cell.tier)) if work else None
        seconds = forecast.seconds_at(cell, count)
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


def rank(candidates: Iterable[Option], budget_bytes: int, objective: Objective = Objective.TIME) -> list[Option]:
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
    return recommend_within(profile, request, (request.budget_bytes,))[0]


def recommend_within(
    profile: Profile, request: RecommendRequest, budgets: Iterable[int]
) -> list[tuple[Recommendation, ...]]:
    """Recommend as `recommend_from` does within each of several budgets; what they share is worked out once.

    Raises:
        AutotuneError: the profile says nothing about the request, or only by extrapolation that was not allowed.
    """
    rows = _current_rows(profile)
    works = works_of(rows)
    cases = [_placed(profile, works, case, request) for case in _cases(profile, request)]
    works |= {place.case: place.work for place in cases if place.work}
    by_cell: dict[Cell, list[Measurement]] = {}
    for row in rows:
        by_cell.setdefault(cell_of(row), []).append(row)
    stored = _Stored(rows=rows, by_cell=by_cell, forecast=Forecast(rows, works, profile.adjoint))
    options_at = {place.case: _options_at(place, stored, profile.adjoint, request) for place in cases}
    return [
        tuple(_recommend_at(place, stored, options_at[place.case], profile.adjoint, asked) for place in cases)
        for asked in (dataclasses.replace(request, budget_bytes=budget) for budget in budgets)
    ]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Stored:
    """What is chosen from: the rows, the same by their cells, and what they say of other counts."""

    rows: Sequence[Measurement]
    by_cell: Mapping[Cell, Sequence[Measurement]]
    forecast: Forecast


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


def _options_at(place: _WantedCase, stored: _Stored, name: AdjointName, request: RecommendRequest) -> list[Option]:
    """List what may be chosen at one case, over the variants that were measured as they will be used.

    Raises:
        AutotuneError: nothing was measured under the flags of the request, or no count says anything of it.
    """
    forecast = stored.forecast
    variants = {cell.variant for cell in stored.by_cell if cell.variant.set_values == place.case.set_values}
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
            forecast, cell, name=name, work=place.work, counts=counts(cell), rows=stored.by_cell.get(cell, ())
        )
    ]
    if not everything and place.evidence is not Evidence.MEASURED:
        raise AutotuneError(
            f"no count that was measured says anything of {place.case}: "
            "each would execute more there, for its steps, than anything that was timed; tune it there"
        )
    if request.measured_only and request.objective is Objective.TIME and place.evidence is Evidence.MEASURED:
        return [option for option in everything if option.timed] or everything
    return everything


def _recommend_at(
    place: _WantedCase, stored: _Stored, everything: Sequence[Option], name: AdjointName, request: RecommendRequest
) -> Recommendation:
    """Choose at one case among the options there."""
    ranked = rank(everything, request.budget_bytes, request.objective)
    base = Recommendation(
        case=place.case, status=Fit.NOTHING_FITS, budget_bytes=request.budget_bytes, margin_bytes=request.margin_bytes
    )
    if not ranked:
        # Of what was measured: below it the laws promise nothing. What lies within the budget failed, or is elsewhere.
        mine = [rows for cell, rows in stored.by_cell.items() if cell.variant.set_values == place.case.set_values]
        known = [row for rows in mine for row in rows if row.status is Status.OK]
        sizes = [row.peak_bytes for row in known if row.peak_bytes and row.peak_bytes > request.budget_bytes]
        smallest = min(sizes, default=None)
        return dataclasses.replace(base, smallest_bytes=smallest)
    known = Known(rows=stored.rows, forecast=stored.forecast, evidence=place.evidence, between=place.between)
    return describe(ranked[0], place.work, name, base, known=known)


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
