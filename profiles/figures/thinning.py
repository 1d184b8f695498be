"""Points that a figure need not draw, since no pixel would show them."""

import numpy as np
import pandas as pd

PIXELS = 2.0
"""Two points of one case that are nearer than about this, in every figure, are drawn once."""
MOST = 1000
"""More points are not drawn; where more are left, those that are nearer are left out too."""
_WIDE, _HIGH = 600.0, 280.0
_PLANES = (
    ("peak_bytes", "run_seconds"),
    ("peak_bytes", "recompute_factor"),
    ("checkpoints", "peak_bytes"),
    ("checkpoints", "recompute_factor"),
)


def thin(points: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Leave out the points of a large table that lie on others of their case in every figure.

    What is marked, and both ends of each case, is always kept.

    Args:
        points: `points_table(profile)`.

    Returns:
        The points to draw, in their order, and a sentence that says how many were left out, empty where none was.
    """
    if len(points) <= MOST // 5:
        return points, ""
    cases = points["case"].astype(str).to_numpy()
    edges = np.flatnonzero(cases[1:] != cases[:-1])
    always = (points["mark"].fillna("") != "").to_numpy().copy()
    always[[0, len(points) - 1, *edges, *(edges + 1)]] = True
    pixels = PIXELS
    while True:
        kept = always | _first_in_cells(points, cases, pixels)
        if kept.sum() <= max(MOST, always.sum()) or pixels > _WIDE:
            break
        pixels *= 1.25
    if kept.all():
        return points, ""
    said = (
        f"{kept.sum():,} of {len(points):,} points are drawn: the others lie within {pixels:.0f} pixels of one of these"
    )
    return points.loc[kept], said


def _first_in_cells(points: pd.DataFrame, cases: np.ndarray, pixels: float) -> np.ndarray:
    """Mark the points that are the first of their case in a cell of so many pixels, in any of the figures."""
    kept = np.zeros(len(points), bool)
    for across, up in _PLANES:
        cells = pd.DataFrame({
            "case": cases,
            "across": np.floor(_place(points.loc[:, across]) * _WIDE / pixels),
            "up": np.floor(_place(points.loc[:, up]) * _HIGH / pixels),
        })  # fmt: skip
        kept |= (~cells.duplicated()).to_numpy() & cells.notna().all(axis=1).to_numpy()
    return kept


def _place(values: pd.Series) -> np.ndarray:
    """Place values between 0 and 1 along an axis, logarithmic where that of the figures is."""
    figures = values.to_numpy(dtype=float, na_value=np.nan)
    figures = np.where(figures > 0, figures, np.nan)
    if not np.isfinite(figures).any():
        return figures
    low, high = np.nanmin(figures), np.nanmax(figures)
    if high > 3 * low:
        figures, low, high = np.log(figures), np.log(low), np.log(high)
    return (figures - low) / (high - low or 1.0)
