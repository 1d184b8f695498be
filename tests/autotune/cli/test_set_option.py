"""`--set`: values are Python literals, texts what cannot be one, and each arrives as what it was written as."""

import json
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
import typer.testing
from hypothesis import example, given

from autotune import AutotuneError
from autotune.cli import app
from autotune.cli.commands import recommend, tune
from autotune.cli.pyproject import read_options
from autotune.cli.set_option import as_written, set_option
from autotune.measuring.trial import Trial
from autotune.measuring.wire import decode_trial, encode
from autotune.problem.loading import load_problem
from profiles import (
    AdjointName,
    DeviceKey,
    Literal,
    Measurement,
    ProblemKey,
    export_table,
    import_table,
    open_store,
    plain_value,
    read_value,
    read_values,
    stored_value,
)
from profiles.records.flat import flatten, unflatten
from tests.autotune.fake_lab import lab

LITERALS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text("abc'\",()[]{} 0", max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.tuples(inner, inner)
    | st.dictionaries(st.text("ab", max_size=2), inner, max_size=2),
    max_leaves=6,
)  # fmt: skip


def _typed(value: Any) -> Any:
    """A value with its type, so that 1, 1.0 and True, and a tuple and a list, differ."""
    return type(value), repr(value)


def _read(text: str) -> tuple[Any, ...]:
    return tuple(plain_value(value) for value in set_option([f"key={text}"])["key"])


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("(8,8),(16,16)", ((8, 8), (16, 16))),
        ("[8, 8],[]", ([8, 8], [])),
        ("{'a': 1, 'b': (2, 3)}", ({"a": 1, "b": (2, 3)},)),
        ("None", (None,)),
        ("null,None", (None,)),
        ("true,False", (True, False)),
        ("32,64.,1e-3,-5", (32, 64.0, 1e-3, -5)),
        ("tsit5,dopri5", ("tsit5", "dopri5")),
        ("'a,b',c", ("a,b", "c")),
        ('"8"', ("8",)),
        ("f(1,2),g", ("f(1,2)", "g")),
        ("it's,fine", ("it's", "fine")),
        ("007", ("007",)),
        (" 8 , 16,", (8, 16)),
    ],
)
def test_a_value_is_the_literal_that_it_looks_like(text: str, values: tuple[Any, ...]) -> None:
    """Commas inside brackets and quotes part nothing; what is no literal is a text."""
    assert [_typed(value) for value in _read(text)] == [_typed(value) for value in values]


@pytest.mark.parametrize("bad", ["batch", "=3", "a b=3", "batch=", "widths=(8,8", "widths=[a,b"])
def test_what_cannot_be_read_is_one_line(bad: str) -> None:
    """A bracket that is never closed is said, and never cut at its commas."""
    with pytest.raises(AutotuneError, match="--set"):
        set_option([bad])


def test_the_same_key_again_adds_values() -> None:
    """Each once."""
    assert set_option(["batch=32,64", "rate=1", "batch=128,32"]) == {"batch": (32, 64, 128), "rate": (1,)}


@given(st.lists(LITERALS, min_size=1, max_size=3, unique_by=repr))
@example(["["])
@example(["(8", "8)"])
def test_what_is_written_is_read_back(values: list[Any]) -> None:
    """`as_written` and `set_option` are inverse, whatever stands beside it."""
    text = ",".join(as_written(value) for value in values)
    assert [_typed(value) for value in _read(text)] == [_typed(value) for value in values]


@given(LITERALS)
def test_a_literal_survives_records_wire_files_and_json(value: Any) -> None:
    """And keeps its type: a list is no tuple, and a text no literal."""
    held = read_value(value)
    hash(held)
    assert _typed(plain_value(held)) == _typed(value)
    assert _typed(plain_value(read_value(json.loads(json.dumps(stored_value(held)))))) == _typed(value)
    row = _row(held)
    back = unflatten(json.loads(json.dumps(flatten(row), default=str)) | {"measured_at": row.measured_at})
    assert back == row
    trial = Trial(study="s", problem="p", adjoint=AdjointName.OURS, checkpoints=1, set_values={"key": held})
    assert decode_trial(encode(trial)) == trial


def _row(value: Any) -> Measurement:
    return Measurement(
        study="s", problem=ProblemKey(name="p", components={}), device=DeviceKey(platform="cpu", kind="k"),
        adjoint=AdjointName.OURS, checkpoints=1, set_values={"key": value},
    )  # fmt: skip


@pytest.mark.parametrize("ending", ["csv", "json", "parquet"])
def test_a_literal_survives_stores_and_exports(tmp_path: Path, ending: str) -> None:
    """Rows of a tuple, a list, None and a text that looks like one stay apart and equal."""
    rows = [_row(value) for value in ((8, 8), [8, 8], None, "(8, 8)", {"a": 1})]
    with open_store(str(tmp_path / "s.db")) as store:
        for row in rows:
            store.put(row)
        found = store.measurements()
    assert sorted(map(repr, found)) == sorted(map(repr, {row.key: row for row in rows}.values()))
    assert import_table(export_table(rows, tmp_path / f"rows.{ending}")) == rows


def test_a_factory_gets_the_value_itself() -> None:
    """Not its text, and a list of its own each time."""
    got: list[Any] = []

    def make(*, adjoint: Any, widths: Any = None) -> Any:
        got.append(widths)
        return (lambda x: x), (1.0,)

    problem = load_problem(make, set_values={"widths": [8, 8]})
    problem.make(None)
    problem.make(None)
    assert got == [[8, 8], [8, 8]]
    assert got[0] is not got[1]


def test_options_of_pyproject_keep_the_types_of_toml() -> None:
    """A text stays a text, an array of arrays is a list each, and nothing is cut at its commas."""
    table = {"set": {"solver": ["tsit5", "a,b"], "widths": [[8, 8], [16, 16]], "digits": "8", "dense": True, "n": 3}}
    texts = read_options(Path("pyproject.toml"), table, ["set"])["set"]
    read = {key: [plain_value(value) for value in values] for key, values in set_option(texts).items()}
    assert read == {
        "solver": ["tsit5", "a,b"], "widths": [[8, 8], [16, 16]], "digits": ["8"], "dense": [True], "n": [3],
    }  # fmt: skip


def test_a_dry_run_shows_the_types_and_a_tune_keeps_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the table and in JSON; what was tuned is recommended, checked and found again by its value."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CKPT_TUNE_STORE", str(tmp_path / "s.db"))
    for module in (tune, recommend):
        monkeypatch.setattr(module, "make_machine", lambda settings, search_path=(): lab())
    monkeypatch.setattr("autotune.cli.commands.check.make_machine", lambda settings, search_path=(): lab())
    runner = typer.testing.CliRunner()
    words = ["tune", "fake:make", "--budget", "5MB", "--set", "widths=(8,8),(16,16)", "--set", "solver=tsit5"]
    table = runner.invoke(app.app, [*words, "--dry-run"])
    assert "widths: (8, 8) (tuple); (16, 16) (tuple)" in table.stdout
    assert "solver: tsit5 (str)" in table.stdout
    document = json.loads(runner.invoke(app.app, [*words, "--dry-run", "--format", "json"]).stdout)
    assert document["set_types"] == {"widths": ["tuple", "tuple"], "solver": ["str"]}
    tuned = json.loads(runner.invoke(app.app, [*words, "--format", "json"]).stdout)
    assert [one["set_values"]["widths"] for one in tuned["recommendations"]] == [[8, 8], [16, 16]]
    again = runner.invoke(app.app, [*words, "--format", "json"])
    assert "going on with" in again.stderr
    done = runner.invoke(
        app.app, ["recommend", "fake:make", "--budget", "5MB", "--set", "widths=(16, 16)", "--format", "json"]
    )
    assert [one["set_values"]["widths"] for one in json.loads(done.stdout)["recommendations"]] == [[16, 16]]
    checked = runner.invoke(app.app, ["check", "fake:make", "--format", "json"])
    assert checked.exit_code == 0, checked.output
    assert runner.invoke(app.app, ["report", "fake:make", "--out", "out"]).exit_code == 0


def test_values_are_read_by_key() -> None:
    """A mapping of a library's values becomes one that a record can hold."""
    assert read_values({"a": (1,), "b": None}) == {"a": Literal("(1,)"), "b": None}
