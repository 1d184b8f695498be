"""Options that stand in the user's `pyproject.toml`, so that a project's tunes need no long command lines.

    [tool.ckpt-tune]
    budget = "6GiB"
    horizon = [10, 20]
    set = { solver = ["tsit5", "dopri5"] }

Keys are the long names of the options; the nearest file up the tree that has the table counts, and what stands on the
command line wins. A path in it is relative to the folder where the command runs, as on the command line.
"""

import difflib
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from autotune.cli.set_option import as_written
from autotune.errors import AutotuneError

TABLE = "ckpt-tune"


def find_table(folder: Path) -> tuple[Path, dict[str, Any]] | None:
    """Find the nearest `pyproject.toml` with a `[tool.ckpt-tune]` table, from a folder upwards.

    Raises:
        AutotuneError: a file on the way is not TOML.
    """
    for place in (folder, *folder.parents):
        path = place / "pyproject.toml"
        try:
            text = path.read_text(encoding="utf-8")
        except OSError:
            continue
        except UnicodeDecodeError as error:
            raise AutotuneError(f"{path} is not UTF-8, as TOML is: {error}; correct it, or run elsewhere") from error
        try:
            document = tomllib.loads(text)
        except (tomllib.TOMLDecodeError, RecursionError) as error:
            raise AutotuneError(f"{path} is not TOML: {error}; correct it, or run from another folder") from error
        tool = document.get("tool")
        table = tool.get(TABLE) if isinstance(tool, dict) else None
        if table is not None:
            if not isinstance(table, dict):
                raise AutotuneError(f"[tool.{TABLE}] in {path} is a {type(table).__name__}, not a table")
            return path, table
    return None


def read_options(path: Path, table: Mapping[str, Any], known: Iterable[str]) -> dict[str, Any]:
    """Turn a table into option texts by long name, lists for what is listed, as the command line would give them.

    Args:
        path: the file, for errors.
        table: its `[tool.ckpt-tune]`.
        known: the long names of all options of all commands, without dashes.

    Raises:
        AutotuneError: a key is not an option, or a value cannot be an option's.
    """
    names = sorted(set(known))
    found: dict[str, Any] = {}
    for key, value in table.items():
        name = key.replace("_", "-")
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            meant = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(names)}"
            raise AutotuneError(f"{path}: [tool.{TABLE}] has the unknown key {key!r}; {meant}")
        found[name] = _value(path, key, value)
    return found


def _value(path: Path, key: str, value: Any) -> Any:
    if isinstance(value, bool):
        return value
    if isinstance(value, int | float | str):
        return str(value)
    if isinstance(value, list):
        return [str(_value(path, key, item)) for item in value]
    if isinstance(value, dict) and key == "set":
        return [f"{name}={_listed(path, key, item)}" for name, item in value.items()]
    raise AutotuneError(f"{path}: {key} in [tool.{TABLE}] is a {type(value).__name__}; write text, a number or a list")


def _listed(path: Path, key: str, value: Any) -> str:
    items = value if isinstance(value, list) else [value]
    for item in items:
        if not isinstance(item, bool | int | float | str | list | dict):
            raise AutotuneError(
                f"{path}: {key} in [tool.{TABLE}] holds a {type(item).__name__}; write text or a number"
            )
    return ",".join(as_written(item) for item in items)
