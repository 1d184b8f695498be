"""The largest value that fits a budget."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotune import AutotuneError
from autotune.search.space import Listed
from autotune.tuning.largest import MOST_TRIES, LargestRequest, find_largest, search
from autotune.tuning.request import TuneRequest
from profiles import open_store
from tests.autotune.fake_lab import Heard, lab


@given(limit=st.integers(-5, 5000), power=st.sampled_from([0.5, 1.0, 2.0]))
def test_the_search_finds_the_exact_whole_number(limit: int, power: float) -> None:
    """Whatever rising curve the bytes follow, the answer is the last value that fits, in few tries."""
    asked = []

    def excess(value: float) -> int:
        asked.append(value)
        return round(1000 * (value**power - max(limit, 0) ** power)) + (0 if value <= limit else 1)

    found = search(excess, 1, 4096, whole=True)
    assert found.fits == (None if limit < 1 else min(limit, 4096))
    assert len(asked) <= MOST_TRIES + 2


def _request(listed: Listed) -> TuneRequest:
    return TuneRequest(problem="fake:make", budget="5MB", listed=listed)


def test_the_largest_batch_within_the_budget_is_found() -> None:
    """Bytes that grow with the batch: the largest batch fits, one more does not, and the request has it alone."""
    machine = dataclasses.replace(
        lab(), peak_bytes=lambda cell, count: dict(cell.case.set_values)["batch"] * (10_000 + 1_000 * count)
    )
    with open_store("sqlite://") as store:
        request = _request(Listed(set_values={"batch": (1, 4096)}))
        largest, alone = find_largest(
            request, LargestRequest(key="batch"), store=store, machine=machine, progress=Heard()
        )
    counts = {trial.checkpoints for trial in machine.asked}
    assert len(counts) == 1
    per_batch = 10_000 + 1_000 * counts.pop()
    assert largest.fits is not None
    assert largest.fits == 5_000_000 // per_batch
    assert largest.too_large == largest.fits + 1
    assert alone.listed.set_values == {"batch": (largest.fits,)}


def test_the_longest_horizon_keeps_the_recompute_factor() -> None:
    """A horizon costs steps, not state: it is bounded by the checkpoints that keep the factor bearable."""
    with open_store("sqlite://") as store:
        request = _request(Listed(horizons=(1, 10_000)))
        longest, _ = find_largest(
            request, LargestRequest(key="horizon", max_recompute=3.0), store=store, machine=lab(), progress=Heard()
        )
        shorter, _ = find_largest(
            request, LargestRequest(key="horizon", max_recompute=2.8), store=store, machine=lab(), progress=Heard()
        )
    assert longest.fits is not None
    assert shorter.fits is not None
    assert 1 <= shorter.fits < longest.fits < 10_000


def test_a_key_without_ends_is_refused() -> None:
    """Without two listed numbers there is nothing to look between; the line shows how to list them."""
    with open_store("sqlite://") as store, pytest.raises(AutotuneError, match="--set batch=LEAST,GREATEST"):
        find_largest(_request(Listed()), LargestRequest(key="batch"), store=store, machine=lab(), progress=Heard())
