"""Rows made by hand: what a store holds of a problem whose bytes and seconds are known, without a run."""

import dataclasses
from typing import Any

from profiles import AdjointName, DeviceKey, Measurement, PeakSource, ProblemKey, Profile

ROW = Measurement(
    study="s",
    problem=ProblemKey(name="p:make", components={"source": "a"}),
    device=DeviceKey(platform="cpu", kind="k"),
    adjoint=AdjointName.OURS,
    checkpoints=1,
    horizon=10,
    tolerance=1e-3,
    steps=1000,
    accepted=1000,
    peak_source=PeakSource.RUN,
)


def a_row(checkpoints: int, seconds: float | None, **changes: Any) -> Measurement:
    """Make a row whose bytes are 1 MB and 100 kB per checkpoint; without seconds it was compiled only."""
    peak = 1_000_000 + 100_000 * checkpoints
    timed = () if seconds is None else (seconds, seconds, seconds)
    row = dataclasses.replace(ROW, checkpoints=checkpoints, peak_bytes=peak, compiled_bytes=peak, run_seconds=timed)
    return dataclasses.replace(row, **changes)


def a_profile(*rows: Measurement) -> Profile:
    """Make a profile of rows."""
    return Profile(name="p:make", measurements=rows)
