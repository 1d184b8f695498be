"""Thinning: nothing that a pixel could show is left out, and what is left out is said."""

import math

import numpy as np
import pandas as pd
import pytest

from profiles import Profile, Recommended, ReportExtras, points_table, thin
from profiles.figures.thinning import MOST
from tests.profiles.makers import a_sweep


@pytest.fixture(scope="module")
def points() -> pd.DataFrame:
    """Three thousand points of six cases, one of them recommended."""
    profile = Profile(name="x", measurements=tuple(a_sweep(checkpoints=tuple(range(1, 501)))))
    chosen = Recommended(case=profile.cases[2], checkpoints=257, peak_bytes=1)
    return points_table(profile, ReportExtras(recommended=(chosen,)))


def test_few_points_are_all_drawn():
    """A usual profile loses nothing, and nothing is said."""
    points = points_table(Profile(name="x", measurements=tuple(a_sweep())))
    kept, said = thin(points)
    assert kept is points
    assert said == ""


def test_many_points_are_thinned_and_it_is_said(points: pd.DataFrame):
    """No more than the limit are left, with the ends of every case and what is marked; the sentence has both counts."""
    kept, said = thin(points)
    assert 300 < len(kept) <= MOST
    assert said.startswith(f"{len(kept):,} of {len(points):,} points are drawn")
    assert set(kept["mark"]) == {"", "recommended"}
    for _, case in points.groupby("case", observed=True):
        assert {case.index[0], case.index[-1]} <= set(kept.index)


def test_what_is_left_out_lies_under_a_point_that_is_drawn(points: pd.DataFrame):
    """Each point that is missing has a neighbour of its case within the pixels that the sentence names."""
    kept, said = thin(points)
    pixels = float(said.rpartition("within ")[2].split()[0])

    def places(table: pd.DataFrame, across: str, up: str) -> np.ndarray:
        columns = []
        for name, size in ((across, 600.0), (up, 280.0)):
            whole = np.log(points[name].astype(float))
            columns.append((np.log(table[name].astype(float)) - whole.min()) / (whole.max() - whole.min()) * size)
        return np.stack(columns, axis=1)

    for across, up in (("peak_bytes", "run_seconds"), ("checkpoints", "recompute_factor")):
        for case in points["case"].cat.categories:
            gone = points[(points["case"] == case) & ~points.index.isin(kept.index)]
            there = places(kept[kept["case"] == case], across, up)
            for place in places(gone, across, up):
                assert np.min(np.hypot(*(there - place).T)) <= math.hypot(pixels + 0.5, pixels + 0.5)
