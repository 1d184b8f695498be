"""Lay theory and laws beside a profile's measurements, and write its report."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import adjoint
from autotune.adjoints import Work
from autotune.choosing.recommend import Fit, Recommendation, works_of
from autotune.measuring.rows import is_final
from autotune.model.cells import Cell, cell_of
from autotune.model.forecast import Forecast
from autotune.search.space import grid_counts
from profiles import AdjointName, Case, Measurement, Optimum, PlanRow, PredictedBytes, Profile, ReportExtras, Tree

CURVE_COUNTS = 60
"""How many counts a curve of theory or law is drawn at."""
TREE_STEPS = 20_000
"""Beyond so many steps a tree is not drawn: nothing could be seen in it."""


def report_extras(profile: Profile, chosen: Sequence[Recommendation] = ()) -> ReportExtras:
    """Work out what a report shows beside the measurements: laws, optima, trees, recommendations."""
    rows = [row for case in profile.cases for row in profile.rows(case)]
    works = works_of(rows)
    by_case = {dataclasses.replace(case, mesh=""): case for case in profile.cases}
    recommended = [choice for choice in chosen if choice.status is Fit.OK and choice.case in by_case]
    return ReportExtras(
        laws=tuple(_laws(rows, works, by_case, profile.adjoint)),
        optima=tuple(_optimum(by_case[case], work) for case, work in works.items() if case in by_case),
        trees=tuple(
            tree
            for choice in recommended
            if profile.adjoint is AdjointName.OURS and (tree := _tree(choice, by_case[choice.case])) is not None
        ),
        recommended=tuple(choice.marked(by_case[choice.case]) for choice in recommended),
        verified_studies=frozenset(row.study for row in rows if is_final(row)),
    )


def write_report(
    profile: Profile, folder: Path, chosen: Sequence[Recommendation] = (), hardware: Sequence[PlanRow] = ()
) -> list[Path]:
    """Write the report of a profile; see `profiles.report` for the files.

    Args:
        profile: what to report.
        folder: where to.
        chosen: recommendations to mark; the first one's budget is drawn.
        hardware: what other devices make of the problem.
    """
    import profiles

    budget = chosen[0].budget_bytes if chosen else None
    extras = dataclasses.replace(report_extras(profile, chosen), hardware=tuple(hardware))
    return profiles.report(profile, folder, budget_bytes=budget, extras=extras)


def _laws(
    rows: Sequence[Measurement], works: dict[Case, Work], by_case: dict[Case, Case], name: AdjointName
) -> list[PredictedBytes]:
    """Draw the forecast of bytes between the measured counts of every case."""
    forecast = Forecast(rows, works, name)
    found = []
    for cell in dict.fromkeys(cell_of(row) for row in rows):
        counts = forecast.measured_counts(cell)
        if cell.xla_flags or cell.tier or len(counts) < 2 or cell.case not in by_case:
            continue
        drawn = [count for count in _spread(counts[-1]) if count >= counts[0]]
        ranges = [known for count in drawn if (known := forecast.bytes_at(Cell(cell.case), count)) is not None]
        found.append(
            PredictedBytes(
                case=by_case[cell.case],
                checkpoints=tuple(drawn),
                likely_bytes=tuple(known.likely for known in ranges),
                low_bytes=tuple(known.low for known in ranges),
                high_bytes=tuple(known.high for known in ranges),
                text="between measured counts",
            )
        )
    return found


def _optimum(case: Case, work: Work) -> Optimum:
    """Compute the least recompute factor that any schedule could have, by checkpoints."""
    counts = _spread(work.steps)
    factors = tuple(adjoint.optimal_steps(work.steps, count) / work.steps for count in counts)
    return Optimum(case=case, checkpoints=counts, recompute_factor=factors)


def _tree(choice: Recommendation, case: Case) -> Tree | None:
    steps = choice.accepted or choice.steps
    if steps is None or choice.checkpoints is None or steps > TREE_STEPS:
        return None
    blocks = adjoint.schedule_tree(steps, choice.checkpoints, choice.expected_steps)
    return Tree(case=case, checkpoints=choice.checkpoints, steps=steps, blocks=tuple(blocks))


def _spread(most: int) -> tuple[int, ...]:
    return grid_counts(most, at_most=CURVE_COUNTS)
