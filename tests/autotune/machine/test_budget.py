"""Bytes as people write them, budgets as devices leave them, margins as rows teach them."""

import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotune import AutotuneError
from autotune.machine.budget import DEFAULT_MARGIN, learn_margin, parse_bytes, resolve_budget
from autotune.machine.device import DeviceInfo
from autotune.machine.host import HostMemory
from profiles import AdjointName, DeviceKey, Measurement, ProblemKey

HOST = HostMemory(total_bytes=64, available_bytes=32, resident_bytes=1)
GPU = DeviceInfo(
    platform="gpu", kind="Example GPU", index=0, count=1, total_bytes=100_000, limit_bytes=80_000, in_use_bytes=0,
    free_bytes=60_000, host=HOST,
)  # fmt: skip


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("6GiB", 6 * 1024**3), ("1.5GiB", 3 * 1024**3 // 2), ("500MB", 500_000_000), ("2_000_000", 2_000_000),
        ("1e9", 10**9), ("7 kib", 7 * 1024), ("1B", 1), ("3TB", 3 * 10**12), (12, 12), ("0.5KiB", 512),
    ],
)  # fmt: skip
def test_bytes_are_read_as_people_write_them(text, expected):
    """Binary and decimal units, underscores, exponents and bare integers."""
    assert parse_bytes(text) == expected


@given(st.integers(1, 2**60))
def test_bare_integers_are_read_exactly(number):
    """No detour through floating point loses a byte."""
    assert parse_bytes(f"{number}") == parse_bytes(f"{number}B") == parse_bytes(number) == number


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("6G", "6GiB (powers of 1024) or 6GB (of 1000)"), ("6 apples", "unknown unit 'apples'"), ("", "no number"),
        ("-3GiB", "no number"), ("0", "must be positive"), ("0.1", "must be positive"), ("nan", "no number"),
        ("1e999", "must be positive"), (0, "must be positive"), (-5, "must be positive"),
    ],
)  # fmt: skip
def test_what_is_no_number_of_bytes_is_refused_with_a_way_out(text, said):
    """Ambiguous units are not guessed at."""
    with pytest.raises(AutotuneError) as caught:
        parse_bytes(text)
    assert said in str(caught.value)


def test_explicit_bytes_are_the_budget_as_they_are():
    """The user's figure is not shaved unless they ask for a margin."""
    assert resolve_budget("40000", GPU).bytes == 40_000
    with_margin = resolve_budget("40000", GPU, margin=0.25)
    assert (with_margin.bytes, with_margin.margin_bytes) == (30_000, 10_000)


def test_a_share_counts_what_is_held_by_others_and_leaves_a_margin():
    """80 % is of what is free, not of the card, and the default margin is left alone."""
    budget = resolve_budget("80%", GPU)
    assert budget.bytes + budget.margin_bytes == 48_000
    assert budget.margin_bytes == math.ceil(48_000 * DEFAULT_MARGIN)
    assert resolve_budget("auto", GPU, margin=0.0).bytes == 60_000


def test_a_budget_beyond_the_device_says_so_and_stands():
    """Planning for a larger device is allowed; silence about it is not."""
    assert "more than the 80000" in resolve_budget("90000", GPU).note
    assert "60000 that are free" in resolve_budget("70000", GPU).note
    assert resolve_budget("50000", GPU).note == ""


@pytest.mark.parametrize(
    ("info", "asked", "margin", "said"),
    [
        (dataclasses.replace(GPU, free_bytes=None, limit_bytes=None), "80%", None, "give the budget in bytes"),
        (dataclasses.replace(GPU, free_bytes=0), "auto", None, "nothing is left"),
        (GPU, "150%", None, "no share"), (GPU, "0%", None, "no share"), (GPU, "auto", 1.5, "margin of 1.5"),
        (GPU, "auto", -0.1, "margin of -0.1"),
    ],
)  # fmt: skip
def test_budgets_that_cannot_be_resolved_are_refused(info, asked, margin, said):
    """An unknown limit never becomes a number."""
    with pytest.raises(AutotuneError) as caught:
        resolve_budget(asked, info, margin=margin)
    assert said in str(caught.value)


def row(compiled, run):
    """A row with a compiled and a run-time figure."""
    return Measurement(
        study="s", problem=ProblemKey(name="p", components={}), device=DeviceKey(platform="gpu", kind="k"),
        adjoint=AdjointName.OURS, checkpoints=1, compiled_bytes=compiled, run_bytes=run,
    )  # fmt: skip


def test_the_margin_is_learnt_once_enough_rows_have_both_figures():
    """Five rows whose run-time peak is 25 % above the compiled one teach a margin of a fifth of the peak."""
    assert learn_margin([row(80, 100)] * 4) == DEFAULT_MARGIN
    assert learn_margin([row(80, 100)] * 5) == pytest.approx(0.2)


# Up to a thousandfold: beyond, 1 - margin has no digits left to compare with.
@given(st.lists(st.tuples(st.integers(10**6, 10**9), st.integers(10**6, 10**9)), min_size=5, max_size=30))
def test_a_learnt_margin_covers_nearly_all_rows_it_was_learnt_from(pairs):
    """A budget cut by the margin holds the run-time peak for at least 95 % of the rows."""
    margin = learn_margin([row(*pair) for pair in pairs])
    covered = sum(run * (1 - margin) <= compiled * (1 + 1e-9) for compiled, run in pairs)
    assert covered >= 0.95 * len(pairs)


def test_rows_without_a_run_time_figure_teach_nothing():
    """Unknown is not zero."""
    assert learn_margin([row(80, None), row(None, 100)] * 10) == DEFAULT_MARGIN


def test_a_backend_without_excess_keeps_a_small_margin():
    """Perfect agreement so far is no promise."""
    assert 0 < learn_margin([row(100, 90)] * 50) < DEFAULT_MARGIN
