"""How fast the machine was in each batch of timings, so that counts timed at different times can be compared.

Within a batch timings alternate, so a slow minute falls on all of its counts. Between batches a shared machine drifts
by tens of percent. Each later batch therefore times one known count again, and the ratio of its medians is the batch's
speed. `repeat` of a row is the number of its batch.
"""

import statistics
from collections.abc import Iterable, Mapping, Sequence

from autotune.model.cells import Cell, cell_of
from profiles import Measurement, Status

NOTICEABLE = 1.15
"""A machine that was this much faster in one batch than in another is said to have drifted."""


def batch_slowness(rows: Iterable[Measurement]) -> dict[int, float]:
    """Estimate by how much each batch was slower than the first, 1 where nothing links it to an earlier one."""
    batches: dict[int, dict[tuple[Cell, int], list[float]]] = {}
    for row in rows:
        if row.status is Status.OK and row.run_seconds:
            at = (cell_of(row), row.checkpoints)
            batches.setdefault(row.repeat, {}).setdefault(at, []).extend(row.run_seconds)
    slowness: dict[int, float] = {}
    known: dict[tuple[Cell, int], float] = {}
    for batch in sorted(batches):
        medians = {at: statistics.median(samples) for at, samples in batches[batch].items()}
        ratios = [seconds / known[at] for at, seconds in medians.items() if at in known]
        slowness[batch] = statistics.median(ratios) if ratios else 1.0
        for at, seconds in medians.items():
            known.setdefault(at, seconds / slowness[batch])
    return slowness


def compared_samples(rows: Sequence[Measurement]) -> dict[tuple[Cell, int], list[float]]:
    """Collect all samples of every cell and count, brought to the speed that the machine had in the first batch."""
    slowness = batch_slowness(rows)
    found: dict[tuple[Cell, int], list[float]] = {}
    for row in rows:
        if row.status is Status.OK and row.run_seconds:
            samples = found.setdefault((cell_of(row), row.checkpoints), [])
            samples += [sample / slowness[row.repeat] for sample in row.run_seconds]
    return found


def drift(slowness: Mapping[int, float]) -> float:
    """Return the ratio between the slowest and the fastest batch, at least 1."""
    return max(slowness.values(), default=1.0) / min(slowness.values(), default=1.0)
