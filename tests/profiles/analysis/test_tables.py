"""Tables: tidy in pandas, exact in files."""

import sys
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from profiles import (
    COLUMNS,
    FrontAxis,
    Measurement,
    PeakSource,
    Profile,
    Status,
    TableError,
    export_table,
    front_table,
    import_table,
    render_table,
    table,
)
from profiles.analysis.tables import FORMATS
from profiles.records.flat import ADDED
from tests.profiles.makers import a_measurement, measurements, same

SHARED = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]  # every example writes its own file anew

NASTY = a_measurement(
    status=Status.FAILED,
    message='first "line"\r\nsecond, with\ra lone return and\n\ttab; ends in space ',
    horizon=100.0,
    tolerance=None,
    steps=0,
    accepted=None,
    peak_bytes=None,
    peak_source=None,
    run_seconds=(),
    set_values={"batch": 1, "rate": 1.0, "fast": True, "name": "1", "quote": '"'},
    host="",
)


@pytest.mark.parametrize("format_name", FORMATS)
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(rows=st.lists(measurements(), max_size=4))
@example(rows=[])
@example(rows=[NASTY, a_measurement()])
@example(rows=[a_measurement(message="x" * 200_000)])
def test_what_is_exported_is_imported_to_the_last_bit(tmp_path: Path, format_name: str, rows: list[Measurement]):
    """Every format gives back all rows in order: samples, unknown against zero, int against float, texts, times."""
    path = export_table(rows, tmp_path / f"rows.{format_name}")
    found = import_table(path)
    assert len(found) == len(rows)
    assert all(same(one, other) for one, other in zip(found, rows, strict=True))


@pytest.mark.parametrize("format_name", FORMATS)
def test_a_profile_is_exported_with_all_its_rows(tmp_path: Path, format_name: str):
    """A profile's file holds every measurement, failures included; the format may be named without an ending."""
    profile = Profile(name="x", measurements=(a_measurement(), NASTY))
    path = export_table(profile, tmp_path / "rows", format_name=format_name)
    assert import_table(path, format_name=format_name) == list(profile.measurements)


def test_a_csv_file_saved_by_a_spreadsheet_is_read(tmp_path: Path):
    """A byte order mark and plain line ends, as spreadsheets and editors write them, do not matter."""
    text = render_table([a_measurement()], "csv").replace("\r\n", "\n")
    (tmp_path / "rows.csv").write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert import_table(tmp_path / "rows.csv") == [a_measurement()]


@pytest.mark.parametrize("format_name", ["csv", "json", "parquet"])
def test_a_file_from_before_tiers_is_read_as_having_none(
    tmp_path: Path, format_name: str, monkeypatch: pytest.MonkeyPatch
):
    """Columns that came later are missing in older files."""
    older = tuple(column for column in COLUMNS if column.name not in ADDED)
    with monkeypatch.context() as before:
        before.setattr("profiles.analysis.tables.COLUMNS", older)
        before.setattr("profiles.records.flat.COLUMNS", older)
        path = export_table([a_measurement()], tmp_path / f"rows.{format_name}")
    assert "windows" not in path.read_text(errors="replace")
    assert import_table(path) == [a_measurement()]


def test_parquet_columns_have_one_type_and_plain_readers_understand_them(tmp_path: Path):
    """Pandas reads the exported Parquet with numbers as numbers, times as times and samples as lists."""
    path = export_table([a_measurement(), NASTY], tmp_path / "rows.parquet")
    frame = pd.read_parquet(path)
    assert list(frame["horizon"]) == [100.0, 100.0]
    assert list(frame["horizon_is_integer"]) == [True, False]
    assert str(frame["measured_at"].dtype) == "datetime64[us, UTC]"
    assert [list(samples) for samples in frame["run_seconds"]] == [[0.11, 0.1, 0.12], []]


@pytest.mark.parametrize(
    ("name", "contents", "said"),
    [
        ("a.csv", b"", "empty"),
        ("a.csv", b"a,b\n1,2\n", "no column key"),
        ("a.csv", b"\xff\xfe\x00", "not a table"),
        ("a.json", b"{", "not a table"),
        ("a.json", b"[]", "it should say"),
        ("a.json", b'{"format": "ckpt-tune measurements", "schema_version": 2}', "it should say"),
        ("a.parquet", b"PAR1", "not a table"),
        ("a.txt", b"", "csv, json, parquet"),
    ],
)
def test_a_file_of_another_kind_is_said_in_one_line(tmp_path: Path, name: str, contents: bytes, said: str):
    """The path and what was found are in one line, not a traceback of a parser."""
    (tmp_path / name).write_bytes(contents)
    with pytest.raises(TableError, match=said) as error:
        import_table(tmp_path / name)
    assert str(tmp_path / name) in str(error.value)


def test_a_row_that_was_changed_is_named_by_its_number(tmp_path: Path):
    """A status that does not exist and a figure that is no number name their row."""
    good = render_table([a_measurement(), a_measurement(repeat=1)], "csv")
    (tmp_path / "status.csv").write_text(good.replace(",ok,", ",fine,"), newline="")
    with pytest.raises(TableError, match="row 1"):
        import_table(tmp_path / "status.csv")
    (tmp_path / "figure.csv").write_text(good.replace(",3000000,", ",3e,"), newline="")
    with pytest.raises(TableError, match="row 1"):
        import_table(tmp_path / "figure.csv")


def test_a_missing_file_and_a_place_that_cannot_be_written_are_said(tmp_path: Path):
    """Both give one line; a failed export leaves no part of a file behind."""
    with pytest.raises(TableError, match="cannot read"):
        import_table(tmp_path / "none.csv")
    (tmp_path / "taken.csv").mkdir()
    with pytest.raises(TableError, match="cannot write"):
        export_table([a_measurement()], tmp_path / "taken.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["taken.csv"]
    with pytest.raises(TableError, match="csv or json"):
        render_table([], "parquet")


def test_parquet_without_pyarrow_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The optional package is named with the way to get it."""
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(TableError, match=r"ckpt-tune\[parquet\]"):
        export_table([a_measurement()], tmp_path / "rows.parquet")


# --- the DataFrame


def test_a_table_is_tidy():
    """One row a measurement, every documented column with its type, unknown figures as NA, set values in columns."""
    frame = table([a_measurement(set_values={"batch": 4}), NASTY])
    for column in COLUMNS:
        assert column.name in frame
    assert str(frame["peak_bytes"].dtype) == "Int64"
    assert frame["peak_bytes"].tolist() == [3_000_000, pd.NA]
    assert frame["steps"].tolist() == [120, 0]
    assert frame["horizon"].tolist() == [100.0, 100.0]
    assert frame["horizon_is_integer"].tolist() == [True, False]
    assert frame["run_median_seconds"].tolist() == [0.11, pd.NA]
    assert frame["run_seconds"].tolist() == [[0.11, 0.1, 0.12], []]
    assert frame["set.batch"].tolist() == [4, 1]
    assert frame["set.rate"].tolist() == [None, 1.0]
    assert frame["measured_at"].dt.tz is not None


def test_an_empty_table_has_its_columns():
    """No rows still give every column, so that code over tables needs no special case."""
    assert [column.name for column in COLUMNS if column.name not in table([])] == []


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(rows=st.lists(measurements(), max_size=4))
def test_any_measurements_make_a_table(rows: list[Measurement]):
    """Whatever a store may hold can be laid out."""
    frame = table(rows)
    assert frame["key"].tolist() == [row.key for row in rows]
    assert frame["peak_bytes"].isna().tolist() == [row.peak_bytes is None for row in rows]


def test_the_front_table_holds_the_front_of_every_case():
    """One row a point on a front; dominated and failed rows are not in it."""
    rows = [
        a_measurement(checkpoints=2, peak_bytes=100, run_seconds=(4.0,), recompute_factor=6.0),
        a_measurement(checkpoints=4, peak_bytes=200, run_seconds=(2.0, 3.0), recompute_factor=4.0),
        a_measurement(checkpoints=5, peak_bytes=300, run_seconds=(9.0,), recompute_factor=4.5),
        a_measurement(checkpoints=6, status=Status.OUT_OF_MEMORY, peak_bytes=None, peak_source=None, run_seconds=()),
        a_measurement(checkpoints=2, peak_bytes=90, run_seconds=(8.0,), horizon=200, peak_source=PeakSource.RUN),
    ]
    frame = front_table(Profile(name="x", measurements=tuple(rows)), FrontAxis.SECONDS)
    assert frame[["horizon", "checkpoints", "peak_bytes", "run_seconds", "samples"]].values.tolist() == [
        [100.0, 2, 100, 4.0, 1],
        [100.0, 4, 200, 2.5, 2],
        [200.0, 2, 90, 8.0, 1],
    ]
    assert len(front_table(Profile(name="x", measurements=(rows[3],)), FrontAxis.SECONDS)) == 0
