"""The space: what a user lists becomes cells and counts."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotune import AutotuneError
from autotune.search import space as _space
from autotune.search.space import Listed, build_space


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
