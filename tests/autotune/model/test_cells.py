"""Where a row was measured, and how that is said."""

import dataclasses

from autotune.model.cells import Cell, Variant, cell_of, scalar_items
from profiles import Case, Tier
from tests.autotune.rows import ROW

HOST = Tier(name="host", windows=50)


def test_a_variant_and_a_cell_are_said_with_what_is_chosen_in_them() -> None:
    """And with no more than that."""
    assert str(Variant()) == "as it is"
    assert str(Variant((("a", 1), ("b", "x")))) == "a=1, b=x"
    assert str(Variant((), "--f")) == "XLA_FLAGS=--f"
    assert str(Variant((("a", 1),), "--f", HOST)) == f"a=1, XLA_FLAGS=--f, tier {HOST}"
    assert str(Cell(Case(10))) == "horizon 10"
    assert str(Cell(Case(10), tier=HOST)) == f"horizon 10, tier {HOST}"
    assert str(Cell(Case(10), "--f")) == "horizon 10, XLA_FLAGS=--f"


def test_the_cell_of_a_row_has_its_case_without_the_mesh_its_flags_and_its_tier() -> None:
    """And its variant has its values, flags and tier."""
    row = dataclasses.replace(ROW, set_values={"b": 2, "a": 1}, xla_flags="--f", tier=HOST, mesh="x=2", x64=True)
    cell = cell_of(row)
    assert cell == Cell(Case(10, 1e-3, (("a", 1), ("b", 2)), True), "--f", HOST)
    assert cell.variant == Variant((("a", 1), ("b", 2)), "--f", HOST)
    assert cell_of(ROW) == Cell(Case(10, 1e-3))


def test_the_point_of_a_cell_lies_in_it() -> None:
    """With the count, the prediction and the batch that are asked for."""
    cell = Cell(Case(10, 1e-3, (("a", 1),), True), "--f", HOST)
    point = cell.point(8, expected_steps=100, repeat=3)
    assert cell_of(point) == cell
    assert (point.checkpoints, point.expected_steps, point.repeat) == (8, 100, 3)
    assert (cell.point(8).expected_steps, cell.point(8).repeat) == (None, 0)


def test_values_are_held_in_the_order_of_their_keys() -> None:
    """So that equal ones make equal cases."""
    assert scalar_items({"b": 1, "a": "x"}) == (("a", "x"), ("b", 1))
