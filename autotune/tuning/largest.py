"""The inverse question: the largest value of a `--set` key, or the longest horizon, that fits a budget.

Bytes nearly follow a line in a batch size or a width, and steps one in a horizon, so the answer is found between two
listed ends by the straight line through what was compiled, with bisection where that does not close in. A value fits
when some count within the budget keeps the recompute factor within a limit: with one checkpoint nearly every horizon
fits, in a time that nobody waits for.
"""

import dataclasses
from collections.abc import Callable

from autotune.adjoints import passes
from autotune.errors import AutotuneError
from autotune.measuring.rows import keep_why
from autotune.measuring.trial import Rung
from autotune.model.cells import Cell
from autotune.model.forecast import Forecast
from autotune.search.search import TrialRequest
from autotune.search.space import grid_counts
from autotune.tuning.prepare import Machine, Prepared, Store, prepare
from autotune.tuning.request import TuneRequest
from autotune.tuning.tune import TuneProgress, trial_of
from profiles import Scalar, Status, format_bytes

HORIZON = "horizon"
DEFAULT_MAX_RECOMPUTE = 4.0
"""The recompute factor up to which a value counts as fitting: twice that of storing everything."""
MOST_TRIES = 16
CLOSE = 0.01
"""Real values are found to this share."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Largest:
    """The largest value that fits, and the smallest that was found not to; None where all, or none, of them fit."""

    key: str
    fits: int | float | None
    too_large: int | float | None
    smallest_bytes: int | None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LargestRequest:
    """What to make as large as possible: `horizon` or a `--set` key, and the recompute factor that is bearable."""

    key: str
    max_recompute: float = DEFAULT_MAX_RECOMPUTE


def find_largest(
    request: TuneRequest, asked: LargestRequest, *, store: Store, machine: Machine, progress: TuneProgress
) -> tuple[Largest, TuneRequest]:
    """Find the largest value between the least and the greatest that the request lists.

    Returns:
        What was found, and the request with that value alone, to be tuned.

    Raises:
        AutotuneError: the key lists fewer than two numbers, or a trial failed otherwise than by its size.
    """
    low, high = _ends(request, asked.key)
    whole = isinstance(low, int) and isinstance(high, int)

    def excess(value: int | float) -> int:
        return _excess(_only(request, asked.key, value), asked, store=store, machine=machine, progress=progress)

    found = search(excess, low, high, whole=whole)
    largest = dataclasses.replace(found, key=asked.key)
    return largest, _only(request, asked.key, low if largest.fits is None else largest.fits)


def search(excess: Callable[[int | float], int], low: int | float, high: int | float, *, whole: bool) -> Largest:
    """Find the largest value whose excess over the budget is at most 0, taking the excess to rise with the value.

    Args:
        excess: bytes over the budget at a value.
        low: the least value.
        high: the greatest.
        whole: whether only whole numbers count.
    """
    at_high = excess(high)
    if at_high <= 0:
        return Largest(key="", fits=high, too_large=None, smallest_bytes=None)
    at_low = excess(low)
    if at_low > 0:
        return Largest(key="", fits=None, too_large=low, smallest_bytes=at_low)
    for attempt in range(MOST_TRIES):
        if (whole and high - low <= 1) or (not whole and high - low <= CLOSE * abs(low)):
            break
        # Every third try halves, so that a curve that bends does not make the line creep.
        share = 0.5 if attempt % 3 == 2 else min(0.98, max(0.02, -at_low / (at_high - at_low)))
        middle = low + share * (high - low)
        if whole:
            middle = min(max(int(middle), int(low) + 1), int(high) - 1)
        at_middle = excess(middle)
        if at_middle <= 0:
            low, at_low = middle, at_middle
        else:
            high, at_high = middle, at_middle
    return Largest(key="", fits=low, too_large=high, smallest_bytes=None)


def _ends(request: TuneRequest, key: str) -> tuple[int | float, int | float]:
    """Read the least and the greatest listed value."""
    listed: tuple[Scalar, ...] = (
        request.listed.horizons if key == HORIZON else tuple(request.listed.set_values.get(key, ()))
    )
    numbers = [value for value in listed if isinstance(value, int | float) and not isinstance(value, bool)]
    option = "--horizon LEAST,GREATEST" if key == HORIZON else f"--set {key}=LEAST,GREATEST"
    if len(numbers) < 2:
        raise AutotuneError(f"--largest {key} needs the ends between which to look: {option}")
    return min(numbers), max(numbers)


def _only(request: TuneRequest, key: str, value: int | float) -> TuneRequest:
    """Return the request with one value of the key."""
    if key == HORIZON:
        listed = dataclasses.replace(request.listed, horizons=(value,))
    else:
        listed = dataclasses.replace(request.listed, set_values={**request.listed.set_values, key: (value,)})
    return dataclasses.replace(request, listed=listed)


def _excess(
    request: TuneRequest, asked: LargestRequest, *, store: Store, machine: Machine, progress: TuneProgress
) -> int:
    """Compile, at every case of a value, the fewest checkpoints that are bearable; return the largest excess."""
    prepared = prepare(request, store, machine, progress.say)
    for failed in prepared.failures.values():
        raise AutotuneError(f"{asked.key} cannot be searched: {failed.message}", frames=failed.frames)
    why = f"is this {asked.key} too large?"
    trials = [
        trial_of(
            prepared,
            TrialRequest(cell=cell, checkpoints=_bearable(prepared, cell, asked), rung=Rung.COMPILED, why=why),
            Forecast((), prepared.works, request.adjoint),
        )
        for cell in prepared.space.cells
    ]
    for trial in trials:
        keep_why(store, trial, why)
    progress.started(trials)
    worst = -prepared.budget.bytes
    for row in machine.run(trials):
        store.put(row)
        progress.finished(row)
        if row.status is not Status.OK or row.peak_bytes is None:
            raise AutotuneError(f"{asked.key} cannot be searched: {row.message or row.status}")
        worst = max(worst, row.peak_bytes - prepared.budget.bytes)
    return worst


def _bearable(prepared: Prepared, cell: Cell, asked: LargestRequest) -> int:
    """Find the fewest checkpoints within the recompute limit; one where the steps are not known."""
    work = prepared.works.get(cell.case)
    if work is None:
        return 1
    name = prepared.request.adjoint
    counts = grid_counts(work.steps, at_most=200)
    return next(c for c in counts if c == work.steps or sum(passes(name, work, c)) <= asked.max_recompute * work.steps)


def describe_largest(found: Largest, asked: LargestRequest, budget_bytes: int) -> str:
    """Say what was found in one line."""
    limit = f"{format_bytes(budget_bytes)} with a recompute factor of at most {asked.max_recompute:g}"
    if found.fits is None:
        return f"not even {found.key} {found.too_large} fits {limit}: {found.smallest_bytes} bytes are missing"
    beyond = "all that was listed fits" if found.too_large is None else f"{found.too_large} does not"
    return f"largest {found.key} within {limit}: {found.fits} ({beyond})"
