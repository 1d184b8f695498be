"""Options in a project's own pyproject.toml: which file counts, and what its values become."""

import datetime as dt
from pathlib import Path
from typing import Any

import pytest

from autotune import AutotuneError
from autotune.cli.pyproject import find_table, read_options

KNOWN = ["budget", "horizon", "set", "x64", "host-budget", "timeout"]


def write(folder: Path, text: str) -> Path:
    """Write a pyproject.toml."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "pyproject.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_nearest_file_with_the_table_counts(tmp_path: Path) -> None:
    """One on the way that has no such table is passed over."""
    outer = write(tmp_path, '[tool.ckpt-tune]\nbudget = "6GiB"\n')
    write(tmp_path / "a" / "b", "[project]\nname = 'x'\n")
    assert find_table(tmp_path / "a" / "b" / "c") == (outer, {"budget": "6GiB"})
    inner = write(tmp_path / "a", "[tool.ckpt-tune]\n")
    assert find_table(tmp_path / "a" / "b" / "c") == (inner, {})


def test_without_a_table_there_is_none(tmp_path: Path) -> None:
    """A file without it on the way changes nothing."""
    before = find_table(tmp_path)
    write(tmp_path, "[tool.other]\nx = 1\n")
    assert find_table(tmp_path) == before


def test_a_file_that_is_no_toml_or_holds_no_table_is_one_line(tmp_path: Path) -> None:
    """It names the file and what is wrong."""
    path = write(tmp_path / "bad", "[tool\n")
    with pytest.raises(AutotuneError, match=r"is not TOML: .* correct it, or run from another folder") as caught:
        find_table(tmp_path / "bad")
    assert str(path) in str(caught.value)
    write(tmp_path / "list", "[tool]\nckpt-tune = [1]\n")
    with pytest.raises(AutotuneError, match=r"\[tool.ckpt-tune\] in .* is a list, not a table"):
        find_table(tmp_path / "list")


def read(**table: Any) -> dict[str, Any]:
    """Read a table."""
    return read_options(Path("pyproject.toml"), table, KNOWN)


def test_values_become_what_the_command_line_would_give() -> None:
    """Texts, lists of texts, switches; underscores are dashes."""
    assert read(budget="6GiB", timeout=1.5, x64=True) == {"budget": "6GiB", "timeout": "1.5", "x64": True}
    assert read(horizon=[10, 20.0, "30"]) == {"horizon": ["10", "20.0", "30"]}
    assert read(host_budget="1GiB") == {"host-budget": "1GiB"}
    assert read(horizon=5) == {"horizon": "5"}
    assert read() == {}


def test_set_values_are_written_as_literals_that_keep_their_type() -> None:
    """A text that looks like a number stays a text."""
    found = read(set={"solver": ["tsit5", "dopri5"], "width": 64, "text": "8", "flag": True})
    assert found == {"set": ["solver=tsit5,dopri5", "width=64", "text='8'", "flag=True"]}
    assert read(set=["width=64"]) == {"set": ["width=64"]}


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"budgte": "1"}, "unknown key 'budgte'; did you mean 'budget'?"),
        ({"zzz": "1"}, "unknown key 'zzz'; known are budget, horizon, host-budget, set, timeout, x64"),
        ({"budget": {"a": 1}}, "budget in .* is a dict; write text, a number or a list"),
        ({"horizon": [dt.date(2026, 1, 1)]}, "horizon in .* is a date"),
        ({"set": {"day": dt.date(2026, 1, 1)}}, "set in .* holds a date; write text or a number"),
        ({"set": {"day": [1, dt.date(2026, 1, 1)]}}, "holds a date"),
    ],
)
def test_what_no_option_could_be_is_one_line_that_names_the_file(table: dict[str, Any], said: str) -> None:
    """With what was probably meant."""
    with pytest.raises(AutotuneError, match=said) as caught:
        read(**table)
    assert str(caught.value).startswith("pyproject.toml: ")
