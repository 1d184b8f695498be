"""Flat rows: every field has its column, and nothing is lost on the way there and back."""

import dataclasses

import pytest
from hypothesis import given

from profiles import COLUMNS, Measurement, RecordError
from profiles.records.flat import flatten, unflatten
from tests.profiles.makers import a_measurement, measurements, same


def test_every_field_of_a_measurement_has_a_column():
    """A field added to the record without a column would be lost in every store and file."""
    fields = {field.name for field in dataclasses.fields(Measurement)} - {"problem", "device"}
    names = [column.name for column in COLUMNS]
    assert len(set(names)) == len(names)
    assert fields <= set(names)


@given(measurements())
def test_a_flat_row_gives_its_measurement_back(row: Measurement):
    """Flattening and unflattening is the identity, types included."""
    assert same(unflatten(flatten(row)), row)


def test_a_missing_column_is_named():
    """A row without a column is refused with the column's name."""
    values = flatten(a_measurement())
    del values["peak_bytes"]
    with pytest.raises(RecordError, match="peak_bytes"):
        unflatten(values)


def test_a_row_that_is_no_measurement_is_refused():
    """A value that a field cannot hold gives the package's own error."""
    with pytest.raises(RecordError, match="not a measurement"):
        unflatten(flatten(a_measurement()) | {"status": "fine"})
