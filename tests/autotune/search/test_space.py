"""The space: what a user lists becomes cells and counts."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotune import AutotuneError
from autotune.model.cells import Variant
from autotune.search import space as _space
from autotune.search.space import Listed, build_space
from profiles import Case


def test_every_combination_is_a_cell_once() -> None:
    """The space is the full product of what was listed, without repeats."""
    listed = Listed(horizons=(10, 20), tolerances=(1e-3, 1e-6), set_values={"solver": ("a", "b", "a")}, xla_flags=("",))
    space = build_space(listed)
    seen = {(cell.case.horizon, cell.case.tolerance, dict(cell.case.set_values)["solver"]) for cell in space.cells}
    assert seen == {(h, t, s) for h in (10, 20) for t in (1e-3, 1e-6) for s in "ab"}
    assert len(space.variants) == 2
    assert len(space.of_variant(space.variants[0])) == 4


def test_nothing_listed_is_one_cell_with_the_problems_own_values() -> None:
    """A bare tune has one cell, whose horizon and tolerance are the factory's."""
    (cell,) = build_space(Listed()).cells
    assert (cell.case.horizon, cell.case.tolerance, cell.case.set_values, cell.xla_flags) == (None, None, (), "")


@given(steps=st.integers(1, 10**6), at_most=st.integers(4, 30))
def test_a_grid_holds_the_ends_and_the_cliff(steps: int, at_most: int) -> None:
    """A grid of counts lies within 1..steps, rises, is short, and holds everything stored and the cliff sqrt(2n)."""
    counts = _space.grid_counts(steps, at_most=at_most)
    assert list(counts) == sorted(set(counts))
    assert counts[0] >= 1
    assert counts[-1] == steps
    assert len(counts) <= at_most
    assert any(math.sqrt(2 * steps) <= count <= math.sqrt(2 * steps) + 1 for count in counts) or steps <= 2


@pytest.mark.parametrize(
    ("texts", "expected"),
    [(["100"], (100,)), (["100.", "1e2"], (100.0,)), (["1,2.5", "1"], (1, 2.5)), (["1e-3"], (1e-3,))],
)
def test_numbers_keep_their_kind(texts: list[str], expected: tuple[float, ...]) -> None:
    """`100` is an int, `100.` and `1e2` are floats; repeats are dropped."""
    found = _space.numbers(texts, option="--horizon")
    assert found == expected
    assert [type(value) for value in found] == [type(value) for value in expected]


@pytest.mark.parametrize("text", ["ten", "nan", "inf", "-1", "0", "1;2"])
def test_a_bad_number_is_one_line_that_names_the_option(text: str) -> None:
    """What is no positive number is refused with the option and the text."""
    with pytest.raises(AutotuneError, match=r"--horizon .*") as caught:
        _space.numbers([text], option="--horizon")
    assert text.removesuffix(";2") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_checkpoint_counts_are_auto_or_whole_numbers() -> None:
    """`auto` and nothing leave the choice to the tuner; a list is sorted."""
    assert _space.checkpoint_counts([]) is None
    assert _space.checkpoint_counts(["auto"]) is None
    assert _space.checkpoint_counts(["8,4", "16"]) == (4, 8, 16)
    for bad in ("0", "-3", "2.5", "auto,3", "many"):
        with pytest.raises(AutotuneError, match="--checkpoints"):
            _space.checkpoint_counts([bad])


def test_horizons_and_tolerances_vary_fastest_and_values_lie_in_the_order_of_their_keys() -> None:
    """The order of cells is the order in which a tune goes through them."""
    listed = Listed(
        horizons=(20, 10), tolerances=(1e-3, 1e-6), set_values={"b": (2, 1), "a": ("x",)}, xla_flags=("--g", "", "--g")
    )
    space = build_space(listed)
    found = [
        (dict(cell.case.set_values)["b"], cell.xla_flags, cell.case.horizon, cell.case.tolerance)
        for cell in space.cells
    ]
    assert found == [(b, f, h, t) for b in (2, 1) for f in ("--g", "") for h in (20, 10) for t in (1e-3, 1e-6)]
    assert space.cells[0].case == Case(20, 1e-3, (("a", "x"), ("b", 2)))
    assert space.variants == tuple(Variant((("a", "x"), ("b", b)), flags) for b in (2, 1) for flags in ("--g", ""))
    assert len(space.cases) == len(set(space.cases)) == 8
    assert space.cases[:2] == (space.cells[0].case, space.cells[1].case)
    assert space.of_variant(space.variants[1]) == space.cells[4:8]


def test_one_and_one_point_nought_and_true_are_three_values() -> None:
    """A factory may treat them differently; what is equal in kind and value is one."""
    space = build_space(Listed(set_values={"width": (1, 1.0, True, 1)}, horizons=(1, 1.0, 1)))
    values = [(dict(cell.case.set_values)["width"], cell.case.horizon) for cell in space.cells]
    assert [(type(width), type(horizon)) for width, horizon in values] == [
        (width, horizon) for width in (int, float, bool) for horizon in (int, float)
    ]


def test_counts_of_the_user_are_sorted_and_none_is_no_list() -> None:
    """And double precision belongs to the case."""
    assert build_space(Listed(counts=(8, 2, 8))).counts == (2, 8)
    assert build_space(Listed(counts=())).counts is build_space(Listed()).counts is None
    assert [cell.case.x64 for x64 in (False, True) for cell in build_space(Listed(x64=x64)).cells] == [False, True]


@pytest.mark.parametrize(
    ("steps", "at_most", "expected"),
    [
        (-3, 12, (1,)),
        (0, 12, (1,)),
        (1, 12, (1,)),
        (2, 12, (1, 2)),
        (3, 12, (1, 2, 3)),
        (8, 3, (2, 4, 8)),
        (8, 4, (2, 3, 4, 8)),
        (50, 4, (2, 7, 10, 50)),
        (1000, 6, (2, 6, 32, 45, 178, 1000)),
    ],
)
def test_a_grid_by_hand(steps: int, at_most: int, expected: tuple[int, ...]) -> None:
    """Of 1,000 steps: 2, the cliff 45 and all; the fourth root of 1,000 is 5.62, and its powers 5.62, 31.6, 178."""
    assert _space.grid_counts(steps, at_most=at_most) == expected


def test_a_grid_of_a_long_solve_has_twelve_counts_in_ratios_that_hardly_differ() -> None:
    """Where nobody says how many; the cliff stands between two others."""
    counts = _space.grid_counts(10**6)
    assert len(counts) == _space.MAX_GRID_COUNTS == 12
    others = [count for count in counts if count not in (2, 1415)]
    assert max(b / a for a, b in itertools.pairwise(others)) < 1.01 * 10 ** (6 / 10)


def test_numbers_are_read_from_repeated_and_listed_texts_alike() -> None:
    """Blanks and empty parts say nothing; the least number that is taken is above 0."""
    assert _space.numbers([" 3 ,, 2", "1,3"], option="--horizon") == (3, 2, 1)
    assert _space.numbers(["0.5"], option="--tolerance") == (0.5,)
    assert _space.numbers([], option="--horizon") == _space.numbers([""], option="--horizon") == ()
    assert _space.number("-7", option="--horizon") == -7
    for text, said in (
        ("0", "0 is not positive"),
        ("-1.5", "-1.5 is not positive"),
        ("1e999", "'1e999' is not finite"),
        ("9" * 400, "'99999999999999999999'... is too large"),
    ):
        with pytest.raises(AutotuneError, match=f"--horizon {said}"):
            _space.numbers(["1", text], option="--horizon")


def test_one_checkpoint_is_the_least_and_counts_are_listed_once() -> None:
    """`auto` stands alone."""
    assert _space.checkpoint_counts(["1"]) == (1,)
    assert _space.checkpoint_counts(["3, 3", " 1 ,"]) == (1, 3)
    assert _space.checkpoint_counts([" auto "]) is _space.checkpoint_counts([" , "]) is None
    for bad in ("1.0", "auto, auto", "-1", "1e3"):
        with pytest.raises(AutotuneError, match="neither `auto` nor a whole number"):
            _space.checkpoint_counts([bad])
