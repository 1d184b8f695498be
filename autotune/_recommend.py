"""Choose a count for a budget: the least seconds among the counts whose bytes fit.

Everything stored is chosen where it fits and is the fastest; fewer checkpoints where they are faster (writing them
costs time too). What was never measured is said to be so: between measured counts, horizons or tolerances a choice is
`interpolated`, beyond them `extrapolated`, which is refused unless it was allowed.
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence

from autotune._adjoints import Work, passes, work_of_row
from autotune._describe import Known, describe
from autotune._errors import AutotuneError
from autotune._forecast import Forecast
from autotune._recommendation import Evidence as Evidence
from autotune._recommendation import Fit as Fit
from autotune._recommendation import Objective as Objective
from autotune._recommendation import Option as Option
from autotune._recommendation import Recommendation as Recommendation
from autotune._space import Cell, Program, cell_of, grid_counts
from profiles._records import AdjointName, Case, Measurement, Profile, Scalar, Status

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
        rows: all rows, for those of this cell: what failed at a count is no option.
    """
    here = [row for row in rows if cell_of(row) == cell]
    lost = [row for row in here if row.status is not Status.OK]
    timed = {row.checkpoints for row in here if row.status is Status.OK and row.run_seconds}
    if counts is None:
        grid = grid_counts(work.steps, at_most=48) if work else ()
        enclosed = [count for count in grid if work and forecast.encloses(cell, count, work)]
        counts = sorted({*enclosed, *forecast.measured_counts(cell)})
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
    return {cell_of(row).case: work for row in rows if (work := work_of_row(row)) is not None}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What is asked of a profile: where, within how many bytes, by which rule, and on which evidence.

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


def recommend_from(profile: Profile, wish: Wish) -> tuple[Recommendation, ...]:
    """Recommend a count at every case that the wish names, from stored measurements alone.

    Raises:
        AutotuneError: the profile says nothing about what is asked, or only by extrapolation that was not allowed.
    """
    rows = _current_rows(profile)
    works = works_of(rows)
    cases = [_placed(profile, works, case, wish) for case in _cases(profile, wish)]
    works |= {place.case: place.work for place in cases if place.work}
    forecast = Forecast(rows, works, profile.adjoint)
    return tuple(_recommend_at(place, rows, forecast, profile.adjoint, wish) for place in cases)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """A case that is asked for, its steps, and how far these were measured."""

    case: Case
    work: Work | None
    evidence: Evidence
    between: str = ""


def _current_rows(profile: Profile) -> list[Measurement]:
    """The rows of every case that belong to the newest state of its code."""
    return [row for case in profile.cases for row in profile.rows(case)]


def _cases(profile: Profile, wish: Wish) -> list[Case]:
    """List what is asked for: the cases of the profile at the `--set` values, moved to the horizon and tolerance."""
    there = list(dict.fromkeys(dataclasses.replace(case, mesh="") for case in profile.cases))
    kept = [case for case in there if all(dict(case.set_values).get(k) == v for k, v in wish.set_values.items())]
    if not kept:
        asked = ", ".join(f"{key}={value}" for key, value in wish.set_values.items())
        raise AutotuneError(f"{profile.name} was not measured with {asked}; it holds {_listed(map(str, there))}")
    for name in ("horizon", "tolerance"):
        if getattr(wish, name) is not None and all(getattr(case, name) is None for case in kept):
            raise AutotuneError(
                f"{profile.name} was measured without a {name}, so nothing is known at {name} {getattr(wish, name)}; "
                f"tune it with --{name}"
            )
    moved = [
        dataclasses.replace(
            case,
            horizon=case.horizon if wish.horizon is None else wish.horizon,
            tolerance=case.tolerance if wish.tolerance is None else wish.tolerance,
        )
        for case in kept
    ]
    return list(dict.fromkeys(moved))


def _placed(profile: Profile, works: Mapping[Case, Work], case: Case, wish: Wish) -> _Place:
    """Find the steps of a case, by interpolation where it was not measured itself."""
    measured = {dataclasses.replace(other, mesh="") for other in profile.cases}
    if case in measured:
        return _Place(case=case, work=works.get(case), evidence=Evidence.MEASURED)
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
    if evidence is Evidence.EXTRAPOLATED and not wish.allow_extrapolation:
        raise AutotuneError(
            f"{profile.name} was not measured at {', '.join(said)}: that would be extrapolation; tune it there, or "
            "allow it with --allow-extrapolation"
        )
    work = _interpolated_work(works, same, case)
    if work is None:
        raise AutotuneError(
            f"{profile.name} holds no steps near {case}; it was measured at {_listed(str(other) for other in same)}"
        )
    return _Place(case=case, work=work, evidence=evidence, between=", ".join(said))


def _interpolated_work(works: Mapping[Case, Work], same: Sequence[Case], case: Case) -> Work | None:
    """Interpolate steps: in the logarithm of horizon and of tolerance, since steps follow powers of both."""
    by_tolerance: dict[float | None, list[tuple[float, Work]]] = {}
    for other in same:
        horizon = math.log(other.horizon) if other.horizon is not None else 0.0
        by_tolerance.setdefault(other.tolerance, []).append((horizon, works[other]))
    at_horizon = [
        (math.log(tolerance) if tolerance is not None else 0.0, _on_line(found, math.log(case.horizon or 1.0)))
        for tolerance, found in by_tolerance.items()
    ]
    known = [(place, work) for place, work in at_horizon if work is not None]
    return _on_line(known, math.log(case.tolerance) if case.tolerance is not None else 0.0)


def _on_line(known: Sequence[tuple[float, Work]], place: float) -> Work | None:
    """Evaluate the power law through the two nearest points that enclose `place`, or end nearest to it."""
    points = sorted(known, key=lambda pair: pair[0])
    if not points:
        return None
    if len(points) == 1:
        return points[0][1] if math.isclose(points[0][0], place, abs_tol=1e-12) else None
    upper = next((i for i in range(1, len(points) - 1) if points[i][0] >= place), len(points) - 1)
    (x0, left), (x1, right) = points[upper - 1], points[upper]
    share = (place - x0) / (x1 - x0)

    def power_law(a: int, b: int) -> int:
        return max(1, round(math.exp(math.log(a) + share * (math.log(b) - math.log(a)))))

    visited = left.reversed_steps and right.reversed_steps  # none at all where no gradient is taken
    return Work(
        steps=power_law(left.steps, right.steps),
        reversed_steps=power_law(left.reversed_steps, right.reversed_steps) if visited else 0,
        accepted=power_law(left.predicted, right.predicted),
    )


def _recommend_at(
    place: _Place, rows: Sequence[Measurement], forecast: Forecast, name: AdjointName, wish: Wish
) -> Recommendation:
    """Choose at one case, over the programs that were measured as they will be used."""
    programs = {cell_of(row).program for row in rows if cell_of(row).program.set_values == place.case.set_values}
    programs = _under_flags(programs, wish)
    if wish.tiers is not None:
        programs = {program for program in programs if program.tier is None or program.tier.name in wish.tiers}
    cells = [Cell(place.case, program.xla_flags, program.tier) for program in sorted(programs, key=str)]

    def counts(cell: Cell) -> Sequence[int] | None:
        # Nothing may be said of Diffrax's adjoint between the counts that were measured.
        only = name is AdjointName.DIFFRAX or (wish.measured_only and place.evidence is Evidence.MEASURED)
        return forecast.measured_counts(cell) if only else None

    everything = [
        option
        for cell in cells
        for option in options(forecast, cell, name=name, work=place.work, counts=counts(cell), rows=rows)
    ]
    if wish.measured_only and wish.objective is Objective.TIME and place.evidence is Evidence.MEASURED:
        everything = [option for option in everything if option.timed] or everything
    ranked = rank(everything, wish.budget_bytes, wish.objective)
    base = Recommendation(
        case=place.case, status=Fit.NOTHING_FITS, budget_bytes=wish.budget_bytes, margin_bytes=wish.margin_bytes
    )
    if not ranked:
        # Of what was measured: below it the laws promise nothing.
        known = [
            row for row in rows if row.status is Status.OK and cell_of(row).program.set_values == place.case.set_values
        ]
        smallest = min((row.peak_bytes for row in known if row.peak_bytes), default=None)
        return dataclasses.replace(base, smallest_bytes=smallest)
    known = Known(rows=rows, forecast=forecast, evidence=place.evidence, between=place.between)
    return describe(ranked[0], place.work, name, base, known=known)


def _under_flags(programs: set[Program], wish: Wish) -> set[Program]:
    """Keep the programs that were measured under the XLA flags that are wished for.

    Raises:
        AutotuneError: none was.
    """
    there = {program.xla_flags for program in programs}
    wanted = ({""} if "" in there else there) if wish.xla_flags is None else set(wish.xla_flags)
    if there and not wanted & there:
        said = " or ".join(repr(flags) for flags in sorted(wanted))
        known = _listed(map(repr, sorted(there)))
        raise AutotuneError(f"nothing was measured under XLA_FLAGS {said}, only under {known}; tune with them first")
    return {program for program in programs if program.xla_flags in wanted}


def _listed(values: Iterable[str]) -> str:
    """Join for a sentence, in order, shortening a long list."""
    texts = list(values)
    return ", ".join(texts) if len(texts) <= 8 else f"{', '.join(texts[:4])} … {texts[-1]} ({len(texts)} in all)"
