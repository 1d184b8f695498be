"""Bytes as people write them, budgets as devices leave them, margins as rows teach them."""

import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotune import AutotuneError
from autotune.machine.budget import DEFAULT_MARGIN, learn_margin, parse_bytes, parse_share, resolve_budget
from autotune.machine.device import DeviceInfo
from autotune.machine.host import HostMemory
from tests.autotune.rows import a_row

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
    assert parse_bytes("9007199254740993") == parse_bytes("9_007_199_254_740_993B") == 2**53 + 1
    assert parse_bytes(f"{number}") == parse_bytes(f"{number}B") == parse_bytes(number) == number


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("6G", "6GiB (powers of 1024) or 6GB (of 1000)"), ("6 apples", "unknown unit 'apples'"), ("", "not a number"),
        ("-3GiB", "not a number"), ("0", "must be positive"), ("0.1", "must be positive"), ("nan", "not a number"),
        ("1e999", "'1e999' is 0 bytes; a budget must be positive"), (0, "must be positive"), (-5, "must be positive"),
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
        (GPU, "150%", None, "not a share"), (GPU, "0%", None, "not a share"), (GPU, "auto", 1.5, "margin of 1.5"),
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
    return a_row(1, None, compiled_bytes=compiled, run_bytes=run)


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


# --- by hand: each unit, and each bound at the figure itself and one beside it

CARD = DeviceInfo(
    platform="gpu", kind="Example GPU", index=0, count=1, total_bytes=1000, limit_bytes=800, in_use_bytes=0,
    free_bytes=600, host=HOST,
)  # fmt: skip


def rows(*shares: float) -> list:
    """Rows whose run-time peak of a million bytes exceeds the compiled one by the given shares of itself."""
    return [a_row(1, None, compiled_bytes=round(10**6 * (1 - share)), run_bytes=10**6) for share in shares]


@pytest.mark.parametrize(
    ("unit", "size"),
    [
        ("", 1), ("B", 1), ("b", 1),
        ("kB", 1000), ("MB", 1_000_000), ("GB", 1_000_000_000), ("TB", 1_000_000_000_000),
        ("KiB", 1024), ("MiB", 1_048_576), ("GiB", 1_073_741_824), ("TiB", 1_099_511_627_776), ("gib", 1_073_741_824),
    ],
)  # fmt: skip
def test_each_unit_is_what_its_name_says(unit: str, size: int) -> None:
    """Whole numbers, fractions and exponents of each."""
    assert parse_bytes(f"3{unit}") == parse_bytes(f" 3 {unit} ") == 3 * size
    assert parse_bytes(f"2.5e1{unit}") == parse_bytes(f"25.0{unit}") == parse_bytes(f"2.5E1{unit}") == 25 * size
    assert parse_bytes(f"1_000{unit}") == parse_bytes(f"1e3{unit}") == 1000 * size


@pytest.mark.parametrize(("letter", "written"), [("k", "K"), ("M", "M"), ("g", "G"), ("T", "T")])
def test_a_letter_alone_is_answered_with_both_of_its_units(letter: str, written: str) -> None:
    """6G is 6 GiB to some and 6 GB to others."""
    with pytest.raises(AutotuneError) as caught:
        parse_bytes(f"6{letter}")
    assert f"write 6{written}iB (powers of 1024) or 6{written}B (of 1000)" in str(caught.value)
    with pytest.raises(AutotuneError, match="unknown unit 'parsec'; write 6GiB or 6GB"):
        parse_bytes("6parsec")


@pytest.mark.parametrize("wrong", ["0.9", "0", "0kB", 0, -1, True, False, "1..5", "1e400", "MB"])
def test_what_is_less_than_a_byte_is_no_budget(wrong: str | int) -> None:
    """One byte is the least that is taken; true and false are not numbers here."""
    assert parse_bytes("1") == parse_bytes(1) == parse_bytes("1.9") == parse_bytes("0.0015kB") == 1
    with pytest.raises(AutotuneError):
        parse_bytes(wrong)


def test_a_share_is_above_nothing_and_at_most_all() -> None:
    """Read as a fraction; None where the text is no percentage."""
    assert parse_share("100%") == 1.0
    assert parse_share(" 12.5 % ") == 0.125
    assert parse_share("0.5%") == 0.005
    assert parse_share("80") is parse_share("auto") is parse_share("-5%") is None
    for wrong in ("0%", "0.0%", "100.5%", "101%"):
        with pytest.raises(AutotuneError, match="write 1% to 100%"):
            parse_share(wrong)


def test_bytes_are_left_alone_unless_a_margin_is_asked_for() -> None:
    """What is kept is rounded up, for bytes and for shares alike."""
    plain, cut = resolve_budget(101, CARD), resolve_budget("101", CARD, margin=0.5)
    assert (plain.bytes, plain.margin_bytes, plain.asked) == (101, 0, "101")
    assert (cut.bytes, cut.margin_bytes) == (50, 51)
    assert resolve_budget(101, CARD, margin=0.0) == plain
    third = resolve_budget("33%", dataclasses.replace(CARD, free_bytes=100), margin=0.5)
    assert (third.bytes, third.margin_bytes) == (16, 17)
    assert resolve_budget("50%", dataclasses.replace(CARD, free_bytes=33), margin=0.0).bytes == 16


def test_auto_is_all_that_is_free_less_the_margin_and_says_of_what() -> None:
    """Capitals and blanks do not matter."""
    found = resolve_budget(" AUTO ", CARD, margin=0.1)
    assert (found.bytes, found.margin_bytes) == (540, 60)
    assert found.note == "AUTO of 600 bytes free of 800"
    assert resolve_budget("auto", CARD).margin_bytes == 60
    assert resolve_budget("50%", CARD, margin=0.0).note == "50% of 600 bytes free of 800"


def test_a_margin_is_learnt_from_the_rows_where_none_was_given() -> None:
    """And those of an explicit number of bytes are not cut by what was learnt."""
    taught = rows(*[0.25] * 5)
    assert resolve_budget("auto", CARD, rows=taught).margin_bytes == 150
    assert resolve_budget("auto", CARD, rows=taught, margin=0.1).margin_bytes == 60
    assert resolve_budget(300, CARD, rows=taught).margin_bytes == 0


@pytest.mark.parametrize("margin", [0, 0.0, 0.999])
def test_a_margin_is_a_share_below_one(margin: float) -> None:
    """Nothing may be kept, all may not."""
    assert resolve_budget(10_000, CARD, margin=margin).bytes >= 1
    for wrong in (1, 1.0, -0.001):
        with pytest.raises(AutotuneError, match="is not a share"):
            resolve_budget(10_000, CARD, margin=wrong)


def test_a_device_that_tells_half_of_it_tells_nothing() -> None:
    """What is free and what there is are both needed for a share, and neither for bytes."""
    for unknown in ({"free_bytes": None}, {"limit_bytes": None}):
        info = dataclasses.replace(CARD, **unknown)
        with pytest.raises(AutotuneError, match=r"gpu device 0 \(Example GPU\) does not report"):
            resolve_budget("auto", info)
        assert resolve_budget("300", info).bytes == 300


def test_the_last_byte_can_be_a_budget_and_no_byte_cannot() -> None:
    """Of two free bytes one is kept; of one none is left."""
    assert resolve_budget("auto", dataclasses.replace(CARD, free_bytes=2), margin=0.1).bytes == 1
    for free in (1, 0):
        with pytest.raises(AutotuneError, match=f"nothing is left of 800 bytes on Example GPU; {free} are free"):
            resolve_budget("auto", dataclasses.replace(CARD, free_bytes=free), margin=0.1)


def test_a_note_tells_a_budget_beyond_what_there_is_from_one_beyond_what_is_free() -> None:
    """At the figure itself nothing is said; what is kept for the margin counts as asked for."""
    assert resolve_budget(600, CARD).note == ""
    assert resolve_budget(601, CARD).note == "601 bytes are more than the 600 that are free on Example GPU"
    assert resolve_budget(800, CARD).note == "800 bytes are more than the 600 that are free on Example GPU"
    assert resolve_budget(801, CARD).note == "801 bytes are more than the 800 that Example GPU has"
    assert resolve_budget(700, CARD, margin=0.5).note
    assert resolve_budget(10**6, dataclasses.replace(CARD, free_bytes=None, limit_bytes=None)).note == ""
    assert "800 that" in resolve_budget(801, dataclasses.replace(CARD, free_bytes=None)).note
    assert "600 that are free" in resolve_budget(10**6, dataclasses.replace(CARD, limit_bytes=None)).note


def test_the_learnt_margin_is_the_share_that_nineteen_of_twenty_rows_stay_within() -> None:
    """Of 20 rows with excesses of 1 % to 20 % it is 19 %, of 21 with one of 21 % more it is 20 %."""
    percent = [number / 100 for number in range(1, 22)]
    assert learn_margin(reversed(rows(*percent[:20]))) == pytest.approx(0.19)
    assert learn_margin(rows(*percent)) == pytest.approx(0.20)
    assert learn_margin(rows(*percent[:5])) == pytest.approx(0.05)
    assert learn_margin(rows(*percent[:4])) == DEFAULT_MARGIN == 0.1


def test_a_run_that_needed_less_than_was_compiled_asks_for_the_least_margin() -> None:
    """Two per cent, and more as soon as the rows show more."""
    assert learn_margin(rows(*[-0.5] * 9)) == learn_margin(rows(*[0.0] * 9)) == 0.02
    assert learn_margin(rows(*[0.0199] * 9)) == 0.02
    assert learn_margin(rows(*[0.0201] * 9)) == pytest.approx(0.0201)
