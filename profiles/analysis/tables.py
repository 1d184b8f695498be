"""Measurements as tidy tables, and as files that give every row back exactly.

`table` is for people who know pandas; `export_table` and `import_table` are for keeping and sending: what was written
is what is read, to the last sample, whether the file is CSV, JSON or Parquet. The columns are those of
`profiles.COLUMNS`, with these differences in a DataFrame and in Parquet, which hold one type a column: `horizon` is a
real number with `horizon_is_integer` beside it, and mappings are JSON texts.
"""

import contextlib
import dataclasses
import io
import json
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from profiles.analysis.cells import quoted_cell, unquoted_cell
from profiles.analysis.compare import Comparison
from profiles.analysis.pareto import FrontAxis, pareto_front, points
from profiles.analysis.plan import Plan, PlanRow
from profiles.errors import RecordError, TableError
from profiles.records.flat import (
    ADDED,
    COLUMNS,
    NULLABLE_TEXT,
    Column,
    Kind,
    checked,
    flatten,
    time_of,
    time_text,
    unflatten,
)
from profiles.records.records import Measurement, Profile

_SIDES = ("before", "after", "ratio")

FORMATS = ("csv", "json", "parquet")
"""The formats of `export_table` and `import_table`, which are also the endings of their files."""

JSON_FORMAT = {"format": "ckpt-tune measurements", "schema_version": 1}
"""What a JSON file of measurements says of itself."""

_DTYPES = {
    Kind.TEXT: "string", Kind.INTEGER: "Int64", Kind.REAL: "Float64", Kind.NUMBER: "Float64", Kind.BOOLEAN: "boolean",
    Kind.REALS: "object", Kind.MAPPING: "string", Kind.TIME: "datetime64[us, UTC]",
}  # fmt: skip


def rows_of(source: Profile | Iterable[Measurement]) -> list[Measurement]:
    """List the measurements of a profile, or those given."""
    return list(source.measurements if isinstance(source, Profile) else source)


def table(source: Profile | Iterable[Measurement]) -> pd.DataFrame:
    """Lay measurements out as a tidy DataFrame, one row each, unknown figures as `<NA>`.

    Columns are those of `profiles.COLUMNS` (name, unit and meaning stand there), with `horizon_is_integer` after
    `horizon`, `run_median_seconds` after `run_seconds` (a list of samples), and at the end one column `set.KEY` for
    every `--set` key that occurs.
    """
    rows = rows_of(source)
    flat = [_one_typed(flatten(row)) for row in rows]
    frame = pd.DataFrame(index=pd.RangeIndex(len(rows)))
    for column in COLUMNS:
        frame[column.name] = pd.Series([values[column.name] for values in flat], dtype=_DTYPES[column.kind])
        if column.kind is Kind.NUMBER:
            frame["horizon_is_integer"] = pd.Series([v["horizon_is_integer"] for v in flat], dtype="boolean")
        if column.kind is Kind.REALS:
            frame["run_median_seconds"] = pd.Series([row.run_median_seconds for row in rows], dtype="Float64")
    for key in sorted({key for row in rows for key in row.set_values}):
        frame[f"set.{key}"] = pd.Series([row.set_values.get(key) for row in rows], dtype="object")
    return frame


def front_table(profile: Profile, objective: FrontAxis) -> pd.DataFrame:
    """Lay the fronts of every case of a profile out, one row a point, by case and rising bytes.

    Columns: `case` (its text), `horizon`, `tolerance`, `checkpoints`, `expected_steps`, `tier` and `windows`,
    `xla_flags`, `peak_bytes`, `peak_source`, `run_seconds` (median), `recompute_factor`, `samples` (timed calls),
    `measured_at` (the newest).
    """
    found = []
    for case in profile.cases:
        for point in pareto_front(points(profile.rows(case)), objective):
            found.append(
                {
                    "case": str(case),
                    "horizon": case.horizon,
                    "tolerance": case.tolerance,
                    "checkpoints": point.checkpoints,
                    "expected_steps": point.expected_steps,
                    "tier": point.tier.name if point.tier else "",
                    "windows": point.tier.windows if point.tier else None,
                    "xla_flags": point.xla_flags,
                    "peak_bytes": point.peak_bytes,
                    "peak_source": str(point.peak_source),
                    "run_seconds": point.run_seconds,
                    "recompute_factor": point.recompute_factor,
                    "samples": sum(len(row.run_seconds) for row in point.rows),
                    "measured_at": point.rows[-1].measured_at,
                }
            )
    dtypes = {
        "case": "string", "horizon": "Float64", "tolerance": "Float64", "checkpoints": "Int64",
        "expected_steps": "Int64", "tier": "string", "windows": "Int64", "xla_flags": "string", "peak_bytes": "Int64",
        "peak_source": "string",
        "run_seconds": "Float64", "recompute_factor": "Float64", "samples": "Int64",
        "measured_at": "datetime64[us, UTC]",
    }  # fmt: skip
    return pd.DataFrame({name: pd.Series([row[name] for row in found], dtype=dtypes[name]) for name in dtypes})


def compare_table(comparison: Comparison) -> pd.DataFrame:
    """Lay a comparison out, one row a case and count.

    Columns: `case`, `horizon`, `tolerance`, `checkpoints`, and for each of `peak_bytes`, `run_seconds` and
    `recompute_factor` the figure `_before`, `_after` and their `_ratio` (after over before).
    """
    records = []
    for point in comparison.points:
        record: dict[str, Any] = {"case": str(point.case), "horizon": point.case.horizon}
        record |= {"tolerance": point.case.tolerance, "checkpoints": point.checkpoints}
        for figure in ("peak_bytes", "run_seconds", "recompute_factor"):
            record[f"{figure}_before"] = getattr(point.before, figure, None)
            record[f"{figure}_after"] = getattr(point.after, figure, None)
            record[f"{figure}_ratio"] = point.ratio(figure)
        records.append(record)
    names = ["case", "horizon", "tolerance", "checkpoints"]
    names += [f"{f}_{side}" for f in ("peak_bytes", "run_seconds", "recompute_factor") for side in _SIDES]
    return pd.DataFrame({name: pd.Series([r[name] for r in records], dtype=_plan_dtype(name)) for name in names})


def plan_table(plan: Plan) -> pd.DataFrame:
    """Lay the rows of a plan out; columns are the fields of `PlanRow`, the case as its text, horizon and tolerance."""
    records = []
    for row in plan.rows:
        record = {field.name: getattr(row, field.name) for field in dataclasses.fields(row)}
        record |= {"case": str(row.case), "horizon": row.case.horizon, "tolerance": row.case.tolerance}
        records.append(record)
    names = ["device", "case", "horizon", "tolerance"]
    names += [field.name for field in dataclasses.fields(PlanRow) if field.name not in names]
    return pd.DataFrame({name: pd.Series([r[name] for r in records], dtype=_plan_dtype(name)) for name in names})


def _plan_dtype(name: str) -> str:
    """Choose the type of a column of a plan or a comparison by what it holds."""
    if name in ("device", "evidence", "case", "steps_evidence", "bytes_evidence", "currency"):
        return "string"
    counts = ("steps", "checkpoints", "needed_checkpoints", "seconds_checkpoints", "host_windows")
    whole = name in counts or "_bytes" in name
    return "Int64" if whole and not name.endswith("_ratio") else "Float64"


def render_table(source: Profile | Iterable[Measurement], format_name: str) -> str:
    """Write measurements as the text of a CSV or JSON file.

    Raises:
        TableError: the format is not a text format.
    """
    rows = rows_of(source)
    if format_name == "csv":
        flat = [flatten(row) for row in rows]
        cells = [[_cell(column, values[column.name]) for column in COLUMNS] for values in flat]
        frame = pd.DataFrame(cells, columns=pd.Index([column.name for column in COLUMNS]), dtype=object)
        # Both characters of the line end make the writer quote a cell, so a lone one inside a message survives.
        return frame.to_csv(index=False, lineterminator="\r\n")
    if format_name == "json":
        documents = [{name: _plain(value) for name, value in flatten(row).items()} for row in rows]
        return json.dumps(JSON_FORMAT | {"measurements": documents}, indent=1, ensure_ascii=False) + "\n"
    raise TableError(f"measurements are written as text in csv or json, not in {format_name!r}")


def export_table(source: Profile | Iterable[Measurement], path: str | Path, *, format_name: str | None = None) -> Path:
    """Write measurements to a file that `import_table` reads back exactly; an existing file is replaced as a whole.

    Args:
        source: a profile or measurements.
        path: where to; its ending (`.csv`, `.json`, `.parquet`) chooses the format.
        format_name: the format, where the ending does not say it.

    Raises:
        TableError: the format is unknown, the file cannot be written, or Parquet is chosen without pyarrow.
    """
    path = Path(path)
    name = _format_of(path, format_name)
    partial = path.with_name(path.name + ".partial")
    try:
        if name == "parquet":
            _write_parquet(rows_of(source), partial)
        else:
            partial.write_text(render_table(source, name), encoding="utf-8", newline="")
        os.replace(partial, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise TableError(f"cannot write {path}: {error.strerror or error}; name a place that can be written") from error
    return path


def import_table(path: str | Path, *, format_name: str | None = None) -> list[Measurement]:
    """Read a file that `export_table` wrote.

    Raises:
        TableError: the file is missing, of another format, or one of its rows is not a measurement (its number is
        given).
    """
    path = Path(path)
    readers: dict[str, Callable[[Path], list[dict[str, Any]]]] = {
        "csv": _read_csv, "json": _read_json, "parquet": _read_parquet,
    }  # fmt: skip
    try:
        documents = readers[_format_of(path, format_name)](path)
    except OSError as error:
        said = " ".join(str(error.strerror or error).split())[:200]
        raise TableError(f"cannot read {path}: {said}") from error
    except RecordError as error:
        raise TableError(f"{path}: {error}") from error
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError, MemoryError) as error:
        said = " ".join(f"{error}".split())[:200] or type(error).__name__
        raise TableError(f"{path} is not a table of measurements as ckpt-tune exports them: {said}") from error
    found = []
    for number, values in enumerate(documents, start=1):
        try:
            found.append(checked(unflatten(values)))
        except RecordError as error:
            raise TableError(f"row {number} of {path}: {error}") from error
    return found


def _format_of(path: Path, format_name: str | None) -> str:
    """Name the format of a file, as given or by its ending."""
    name = (format_name or path.suffix.removeprefix(".")).lower()
    if name not in FORMATS:
        raise TableError(f"a table is written or read as {', '.join(FORMATS)}; {path} ends in none: name the format")
    return name


# --- one value in each format -------------------------------------------------------------------------------------


def _plain(value: Any) -> Any:
    """Write a value as JSON holds it."""
    return time_text(value) if hasattr(value, "isoformat") else value


def _cell(column: Column, value: Any) -> str:
    """Write a value as the text of a CSV cell; empty is unknown, but for texts, which are never unknown."""
    if value is None:
        return ""
    if column.kind is Kind.TEXT:
        return quoted_cell(value)
    return time_text(value) if column.kind is Kind.TIME else json.dumps(value, ensure_ascii=False, sort_keys=True)


def _from_cell(column: Column, text: str) -> Any:
    """Read a CSV cell."""
    if column.kind is Kind.TEXT:
        return None if not text and column.name in NULLABLE_TEXT else unquoted_cell(text)
    if not text:
        return None
    return time_of(text) if column.kind is Kind.TIME else json.loads(text)


def _one_typed(values: Mapping[str, Any]) -> dict[str, Any]:
    """Spread the values that are of more than one type over columns of one type each."""
    spread = {**values, "horizon_is_integer": None}
    if values["horizon"] is not None:
        spread |= {"horizon": float(values["horizon"]), "horizon_is_integer": isinstance(values["horizon"], int)}
    for column in COLUMNS:
        if column.kind is Kind.MAPPING:
            spread[column.name] = json.dumps(values[column.name], ensure_ascii=False, sort_keys=True)
    return spread


def _from_one_typed(values: Mapping[str, Any]) -> dict[str, Any]:
    """Bring what `_one_typed` spread back together."""
    together = dict(values)
    if together.pop("horizon_is_integer"):
        together["horizon"] = int(together["horizon"])
    for column in COLUMNS:
        if column.kind is Kind.MAPPING:
            together[column.name] = json.loads(together[column.name])
    return together


# --- files --------------------------------------------------------------------------------------------------------


def _read_csv(path: Path) -> list[dict[str, Any]]:
    """Read the rows of a CSV file."""
    contents = path.read_bytes().decode("utf-8-sig")  # spreadsheets put a mark before the first byte
    if not contents.strip():
        raise ValueError("it is empty")
    frame = pd.read_csv(io.StringIO(contents), dtype=str, keep_default_na=False, na_filter=False)
    missing = [column.name for column in COLUMNS if column.name not in frame and column.name not in ADDED]
    if missing:
        raise ValueError(f"it has no column {', '.join(missing)}")
    rows = []
    for number, cells in enumerate(frame.to_dict("records"), start=1):
        try:
            rows.append({c.name: _from_cell(c, cells[c.name]) for c in COLUMNS if c.name in cells})
        except ValueError as error:
            raise ValueError(f"row {number}: {error}") from error
    return rows


def _read_json(path: Path) -> list[dict[str, Any]]:
    """Read the rows of a JSON file."""
    document = json.loads(path.read_bytes())
    found = {key: document.get(key) for key in JSON_FORMAT} if isinstance(document, dict) else document
    if found != JSON_FORMAT:
        raise ValueError(f"it should say {JSON_FORMAT}, it says {str(found)[:80]}")
    return [{**values, "measured_at": time_of(values["measured_at"])} for values in document["measurements"]]


def _parquet() -> Any:
    """Load pyarrow, which Parquet needs and nothing else does."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise TableError("Parquet needs pyarrow: pip install 'ckpt-tune[parquet]', or use csv or json") from error
    return pyarrow


def _write_parquet(rows: Iterable[Measurement], path: Path) -> None:
    """Write a Parquet file, one type a column."""
    arrow = _parquet()
    types = {
        Kind.TEXT: arrow.string(), Kind.INTEGER: arrow.int64(), Kind.REAL: arrow.float64(),
        Kind.NUMBER: arrow.float64(), Kind.BOOLEAN: arrow.bool_(), Kind.REALS: arrow.list_(arrow.float64()),
        Kind.MAPPING: arrow.string(), Kind.TIME: arrow.timestamp("us", tz="UTC"),
    }  # fmt: skip
    fields = [arrow.field(column.name, types[column.kind], metadata={"meaning": column.meaning}) for column in COLUMNS]
    fields.append(arrow.field("horizon_is_integer", arrow.bool_()))
    values = [_one_typed(flatten(row)) for row in rows]
    arrow.parquet.write_table(arrow.Table.from_pylist(values, schema=arrow.schema(fields)), path)


def _read_parquet(path: Path) -> list[dict[str, Any]]:
    """Read the rows of a Parquet file."""
    arrow = _parquet()
    return [_from_one_typed(values) for values in arrow.parquet.read_table(path).to_pylist()]
