"""How series differ: enough colours and markers, none of them twice, and told apart by the colour-blind."""

import itertools

import pytest

from profiles import Profile, points_table
from profiles.figures.channels import looks_of
from profiles.figures.looks import COLOURS, DASHES, MARKERS, PAPER, VARIABLES
from tests.profiles.makers import a_sweep


def looks(horizons: tuple[int, ...], tolerances: tuple[float, ...]) -> list[tuple]:
    """The looks of every case of a sweep."""
    table = points_table(Profile(name="x", measurements=tuple(a_sweep(horizons=horizons, tolerances=tolerances))))
    chosen = looks_of(table)
    firsts = table.drop_duplicates("case").to_dict("records")
    return [(colour, marker, tuple(dash)) for colour, marker, dash in map(chosen.of, firsts)]


def test_series_are_told_apart_by_colour_and_by_marker():
    """Cases that differ differ in look; with one horizon or one tolerance, in colour and in marker both."""
    assert len(set(looks((1, 2, 3), (1e-3, 1e-4, 1e-5)))) == 9
    for some in (looks((1, 2, 3), (1e-3,)), looks((1,), (1e-3, 1e-4, 1e-5))):
        assert len({colour for colour, _, _ in some}) == len({marker for _, marker, _ in some}) == 3
    assert len(set(COLOURS)) == len(set(MARKERS)) == 7
    assert len({tuple(dash) for dash in DASHES}) == 4
    assert set(COLOURS) <= set(VARIABLES)


def seen(colour: str, matrix: tuple[tuple[float, ...], ...]) -> tuple[float, ...]:
    """A colour as an eye without one kind of cones sees it, by the matrices of Viénot, Brettel and Mollon (1999)."""
    linear = [(int(colour[at : at + 2], 16) / 255) ** 2.2 for at in (1, 3, 5)]
    return tuple(100 * max(0.0, sum(a * b for a, b in zip(row, linear, strict=True))) ** (1 / 2.2) for row in matrix)


@pytest.mark.parametrize(
    "matrix",
    [
        ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
        ((0.1124, 0.8876, 0), (0.1124, 0.8876, 0), (0.0040, -0.0040, 1)),
        ((0.2928, 0.7072, 0), (0.2928, 0.7072, 0), (-0.0223, 0.0223, 1)),
    ],
    ids=["all cones", "no red cones", "no green cones"],
)
def test_the_first_four_colours_differ_for_the_colour_blind(matrix: tuple[tuple[float, ...], ...]):
    """Most profiles have at most four horizons: their colours are far apart, and from the paper, in any eye."""
    colours = [seen(colour, matrix) for colour in (*COLOURS[:4], PAPER)]
    for one, other in itertools.combinations(colours, 2):
        assert sum((a - b) ** 2 for a, b in zip(one, other, strict=True)) ** 0.5 > 12
