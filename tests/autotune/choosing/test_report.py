"""What a report draws beside the measurements: laws, optima, trees and recommendations, from rows made by hand."""

import dataclasses
from pathlib import Path
from typing import Any

import adjoint
import profiles
from autotune import Recommendation
from autotune.choosing.recommendation import Evidence, Fit
from autotune.choosing.report import CURVE_COUNTS, TREE_STEPS, report_extras, write_report
from autotune.model.bytes_law import BytesLaw
from autotune.search.space import grid_counts
from profiles import AdjointName, Case, Measurement, ReportExtras, Status, Tier
from tests.autotune.rows import a_profile, a_row

CASE = Case(10, 1e-3)
ROWS = [a_row(4, 0.9), a_row(16, 0.5), a_row(64, 0.3)]


def choice(**changes: Any) -> Recommendation:
    """A recommendation of 16 checkpoints."""
    base = Recommendation(
        case=CASE, status=Fit.OK, budget_bytes=3_000_000, checkpoints=16, expected_steps=1000, steps=1000,
        accepted=1000, peak_bytes=2_600_000, run_seconds=0.5, recompute_factor=3.8, evidence=Evidence.MEASURED,
    )  # fmt: skip
    return dataclasses.replace(base, **changes)


def extras(*rows: Measurement, chosen: tuple[Recommendation, ...] = (), **changes: Any) -> ReportExtras:
    """Work out the extras of a profile."""
    return report_extras(a_profile(*[dataclasses.replace(row, **changes) for row in rows]), chosen)


def test_the_law_of_bytes_is_drawn_from_the_smallest_measured_count_to_the_largest() -> None:
    """At counts in equal ratios, each with the figures of the law."""
    (drawn,) = extras(*ROWS).laws
    assert drawn.case == CASE
    assert drawn.checkpoints == tuple(count for count in grid_counts(64, at_most=CURVE_COUNTS) if count >= 4)
    assert (drawn.checkpoints[0], drawn.checkpoints[-1]) == (4, 64)
    law = BytesLaw([(row.checkpoints, row.peak_bytes or 0) for row in ROWS], AdjointName.OURS)
    told = [law.at(count) for count in drawn.checkpoints]
    assert drawn.likely_bytes == tuple(one.likely for one in told)
    assert drawn.low_bytes == tuple(one.low for one in told)
    assert drawn.high_bytes == tuple(one.high for one in told)
    assert drawn.text == "between measured counts"


def test_the_studies_of_final_runs_are_named_so_that_their_points_are_told_apart() -> None:
    """A row that was run under the user's own settings makes its study one of those that were verified."""
    final = dataclasses.replace(ROWS[1], study=f"{ROWS[1].study}/verified")
    assert extras(*ROWS).verified_studies == frozenset()
    found = extras(*ROWS, final)
    assert found.verified_studies == {final.study}
    table = profiles.points_table(a_profile(*ROWS, final), found)
    assert list(table[table["mark"] == "verified"]["checkpoints"]) == [ROWS[1].checkpoints]


def test_no_law_is_drawn_of_one_count_of_flags_or_of_a_tier() -> None:
    """A curve belongs to a case as it is."""
    assert extras(ROWS[0]).laws == ()
    assert extras(*ROWS, xla_flags="--f").laws == ()
    assert extras(*ROWS, tier=Tier(name="host", windows=5)).laws == ()
    assert extras(ROWS[0], *[dataclasses.replace(row, xla_flags="--f") for row in ROWS]).laws == ()
    lost = [dataclasses.replace(row, status=Status.OUT_OF_MEMORY) for row in ROWS]
    assert extras(*lost).laws == ()
    far = [dataclasses.replace(row, horizon=20, steps=2000) for row in ROWS[:2]]
    assert [law.case.horizon for law in extras(*ROWS, *far).laws] == [10, 20]


def test_the_optimum_of_each_case_is_the_least_that_any_schedule_executes() -> None:
    """From one checkpoint to everything stored, for the steps of the case; none where no steps are known."""
    near, far = extras(*ROWS, dataclasses.replace(ROWS[0], horizon=20, steps=2000)).optima
    for drawn, horizon, steps in ((near, 10, 1000), (far, 20, 2000)):
        assert drawn.case == Case(horizon, 1e-3)
        assert drawn.checkpoints == grid_counts(steps, at_most=CURVE_COUNTS)
        factors = tuple(adjoint.optimal_steps(steps, count) / steps for count in drawn.checkpoints)
        assert drawn.recompute_factor == factors
        assert factors[-1] == 2.0
    assert extras(*ROWS, steps=None, accepted=None).optima == ()


def test_a_mesh_belongs_to_the_case_that_is_drawn() -> None:
    """The recommendation was made without it."""
    found = extras(*ROWS, chosen=(choice(),), mesh="x=2")
    meshed = dataclasses.replace(CASE, mesh="x=2")
    assert [one.case for one in (*found.laws, *found.optima, *found.trees, *found.recommended)] == [meshed] * 4


def test_what_is_recommended_is_marked_with_its_figures() -> None:
    """Where something fits, at a case that was measured."""
    (marked,) = extras(*ROWS, chosen=(choice(),)).recommended
    assert (marked.case, marked.checkpoints, marked.peak_bytes) == (CASE, 16, 2_600_000)
    assert (marked.expected_steps, marked.run_seconds, marked.recompute_factor) == (1000, 0.5, 3.8)
    assert marked.evidence == "measured"
    nothing = choice(status=Fit.NOTHING_FITS, checkpoints=None)
    elsewhere = choice(case=Case(15, 1e-3))
    assert extras(*ROWS, chosen=(nothing, elsewhere)).recommended == ()
    assert len(extras(*ROWS, chosen=(nothing, choice(), elsewhere)).recommended) == 1


def test_the_tree_of_a_choice_is_that_of_its_schedule() -> None:
    """Over the accepted steps, else all; of our adjoint alone."""
    (tree,) = extras(*ROWS, chosen=(choice(accepted=800, expected_steps=800),)).trees
    assert (tree.case, tree.checkpoints, tree.steps) == (CASE, 16, 800)
    assert tree.blocks == tuple(adjoint.schedule_tree(800, 16, 800))
    (tree,) = extras(*ROWS, chosen=(choice(accepted=None, expected_steps=None),)).trees
    assert tree.blocks == tuple(adjoint.schedule_tree(1000, 16, None))
    assert extras(*ROWS, chosen=(choice(),), adjoint=AdjointName.DIFFRAX).trees == ()
    assert extras(*ROWS, chosen=(choice(accepted=None, steps=None),)).trees == ()


def test_a_tree_in_which_nothing_could_be_seen_is_not_drawn() -> None:
    """From 20,001 steps on."""
    assert TREE_STEPS == 20_000
    assert len(extras(*ROWS, chosen=(choice(accepted=20_000),)).trees) == 1
    assert extras(*ROWS, chosen=(choice(accepted=20_001),)).trees == ()


def test_a_report_is_written_with_the_budget_of_the_first_choice(tmp_path: Path, monkeypatch: Any) -> None:
    """And without one where nothing was chosen."""
    seen: list[dict[str, Any]] = []
    monkeypatch.setattr(profiles, "report", lambda profile, folder, **asked: seen.append(asked) or [folder])
    profile = a_profile(*ROWS)
    assert write_report(profile, tmp_path, [choice(), choice(budget_bytes=9)]) == [tmp_path]
    write_report(profile, tmp_path)
    assert [asked["budget_bytes"] for asked in seen] == [3_000_000, None]
    assert seen[0]["extras"] == report_extras(profile, [choice(), choice()])
