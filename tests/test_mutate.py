"""The script that puts faults into the code: which it knows, that it draws by its seed, and that it does no harm."""

import ast
import csv
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.conftest import REPOSITORY


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("script_mutate", REPOSITORY / "scripts" / "mutate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


mutate = _load()
ROOMS = mutate.ROOMS.split(",")


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("a < b", {"(a <= b)", "(a >= b)"}),
        ("a < b <= c", {"(a <= b <= c)", "(a >= b <= c)", "(a < b < c)", "(a < b > c)"}),
        ("a is None", {"(a is not None)"}),
        ("a in b", {"(a not in b)"}),
        ("a + b", {"(a - b)"}),
        ("'x' + b", set()),
        ("a ** b", {"(a * b)"}),
        ("7", {"(8)", "(6)"}),
        ("True", {"False"}),
        ("'text'", set()),
        ("f'{a + b}'", set()),
        ("a or b or c", {"(a and b and c)"}),
        ("not a", {"(a)"}),
        ("min(a)", {"max(a)"}),
        ("x = a if b else c", {"x = a if (not b) else c"}),
        ("[a for a in b if c]", {"[a for a in b if (not c)]"}),
        ("def f():\n    return None", {"def f():\n    pass"}),
        ("def f():\n    return a", set()),
        ("if a:\n    b", {"if (not a):\n    b"}),
        ("if TYPE_CHECKING:\n    import a", set()),
        ("assert a < b", set()),
        ("@f(x=True)\ndef g(x: 3) -> 4: ...", set()),
        ("é = 'é'; a < b", {"é = 'é'; (a <= b)", "é = 'é'; (a >= b)"}),
    ],
)
def test_each_kind_of_fault_is_made_where_it_can_be_and_nowhere_else(
    tmp_path: Path, source: str, expected: set[str]
) -> None:
    """Worked by hand: the whole text of the file with each fault in it."""
    file = tmp_path / "one.py"
    file.write_text(source, encoding="utf-8")
    found = [
        mutate.Mutant(room="r", place=place, change=change).source().decode()
        for place in mutate.places(file)
        for change in place.changes
    ]
    assert set(found) == expected
    assert len(found) == len(expected)


@pytest.mark.parametrize("room", ROOMS)
def test_every_fault_that_can_be_drawn_is_python_and_differs_from_the_code(room: str) -> None:
    """No fault is caught for its spelling."""
    target = REPOSITORY / "autotune" / room
    files = sorted(target.glob("*.py")) if target.is_dir() else [target]
    for place in [place for file in files for place in mutate.places(file)]:
        for change in place.changes:
            mutant = mutate.Mutant(room=room, place=place, change=change)
            assert ast.dump(ast.parse(mutant.source())) != ast.dump(ast.parse(place.file.read_bytes()))
            assert mutant.lines()[0] != mutant.lines()[1]


def test_what_is_drawn_depends_on_the_seed_alone_and_each_room_has_its_share() -> None:
    """Eleven over four rooms are three, three, three and two, each another place."""
    drawn = mutate.draw(ROOMS, 11, 5)
    assert drawn == mutate.draw(ROOMS, 11, 5)
    assert drawn != mutate.draw(ROOMS, 11, 6)
    assert [sum(mutant.room == room for mutant in drawn) for room in ROOMS] == [3, 3, 3, 2]
    assert len({mutant.place for mutant in drawn}) == 11


def test_a_fault_is_caught_a_harmless_change_is_not_and_the_working_tree_stays_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two changes of the file of budgets, run as the script runs them."""
    file = REPOSITORY / "autotune" / "machine" / "budget.py"
    before = file.read_bytes(), file.stat().st_mtime_ns
    place = next(one for one in mutate.places(file) if before[0][one.begin : one.end] == b"value <= 0")
    changes = ("(value > 0)", "(0 >= value)")
    pair = [mutate.Mutant(room="machine/budget.py", place=place, change=change) for change in changes]
    monkeypatch.setattr(mutate, "draw", lambda rooms, count, seed: pair)
    monkeypatch.setattr(sys, "argv", ["mutate.py", "--out", str(tmp_path), "--seed", "3"])
    mutate.main()
    with (tmp_path / "mutants.csv").open(encoding="utf-8") as opened:
        rows = list(csv.DictReader(opened))
    assert [(row["outcome"], row["seed"]) for row in rows] == [("caught", "3"), ("survived", "3")]
    assert rows[0]["place"].startswith("autotune/machine/budget.py:")
    assert "machine/budget.py  1 of 2 caught, 50 %" in capsys.readouterr().out
    assert (file.read_bytes(), file.stat().st_mtime_ns) == before
