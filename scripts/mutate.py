"""What the tests of a room are worth: the share of small random faults in its code that its own tests catch.

A fault changes one place: a comparison (`<` to `<=` or `>=`), an operator (`+` to `-`), a number by one, `and` to `or`,
`min` to `max`, `True` to `False`, a condition to its opposite (early returns too), or it leaves a `not` or a
`return None` out. Places are drawn at random, equally many in each room, then one of the changes that a place allows.
Left alone are annotations, decorators, assertions and what stands in texts. Each fault is put into a copy of the
packages, never into the working tree, and the tests of that room alone (`tests/autotune/<room>`) run there until the
first failure; a fault is also caught where they take many times as long as without it, or cannot be collected.

A fault that survives is a test that is missing, or one that changes nothing anybody could see; this script
cannot distinguish them. mutants.csv has a line for each. A minute and a half for 40 faults on 2 cores.

    python scripts/mutate.py --out results [--seed 0] [--count 40] [--rooms choosing,model,search,machine/budget.py]
"""

import argparse
import ast
import copy
import csv
import dataclasses
import os
import platform
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COPIED = ("adjoint", "autotune", "profiles", "tests", "pyproject.toml", "README.md")
ROOMS = "choosing,model,search,machine/budget.py"
LEAST_SECONDS = 30.0
"""No run of tests is given up before it took so long."""
PATIENCE = 8.0
"""Nor before it took so many times what it takes without a fault."""

COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE), ast.LtE: (ast.Lt, ast.Gt), ast.Gt: (ast.GtE, ast.LtE), ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,), ast.NotEq: (ast.Eq,), ast.Is: (ast.IsNot,), ast.IsNot: (ast.Is,), ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}  # fmt: skip
OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult,
    ast.Pow: ast.Mult, ast.BitOr: ast.BitAnd, ast.BitAnd: ast.BitOr,
}  # fmt: skip
OPPOSITES = {"min": "max", "max": "min"}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A piece of a file, in bytes, and what it may be changed into; `text` is the file as it was read."""

    file: Path
    text: bytes = dataclasses.field(repr=False)
    line: int
    kind: str
    begin: int
    end: int
    changes: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """One fault: a place of a room with the change that was drawn."""

    room: str
    place: Place
    change: str

    def source(self) -> bytes:
        """The text of the file with the fault in it."""
        text = self.place.text
        return text[: self.place.begin] + self.change.encode() + text[self.place.end :]

    def lines(self) -> tuple[str, str]:
        """The piece without and with the fault, each within its line and on one."""
        text = self.place.text
        start = text.rfind(b"\n", 0, self.place.begin) + 1
        stop = text.find(b"\n", self.place.end)
        sides = (text[self.place.begin : self.place.end], self.change.encode())
        before, after = text[start : self.place.begin], text[self.place.end : stop]
        found = [b" ".join((before + side + after).split()).decode() for side in sides]
        return found[0], found[1]


def places(file: Path) -> list[Place]:
    """List what can be changed in a file, in the order in which it is written."""
    text = file.read_bytes()
    starts = [0]
    for line in text.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    found = []
    for kind, node, changes in _changes(ast.parse(text)):
        begin = starts[node.lineno - 1] + node.col_offset
        end = starts[(node.end_lineno or node.lineno) - 1] + (node.end_col_offset or 0)
        found.append(Place(file=file, text=text, line=node.lineno, kind=kind, begin=begin, end=end, changes=changes))
    return sorted(found, key=lambda place: (place.begin, place.end, place.kind))


Changes = Iterator[tuple[str, ast.expr | ast.stmt, tuple[str, ...]]]


def _changes(tree: ast.AST) -> Changes:
    """Walk over everything that runs and yield each node that can be changed, with its changes."""
    yield from _of_node(tree)
    for name, field in ast.iter_fields(tree):
        if name in ("annotation", "returns", "decorator_list"):
            continue
        for child in field if isinstance(field, list) else [field]:
            if isinstance(child, ast.JoinedStr | ast.Assert) or _is_for_checkers(child):
                continue
            if isinstance(child, ast.AST):
                yield from _changes(child)


def _is_for_checkers(node: object) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def _of_node(node: ast.AST) -> Changes:
    if isinstance(node, ast.Compare):
        for index, operator in enumerate(node.ops):
            yield "comparison", node, tuple(_compared(node, index, other()) for other in COMPARISONS[type(operator)])
    elif isinstance(node, ast.BinOp) and type(node.op) in OPERATORS and not _joins(node):
        changed = copy.deepcopy(node)
        changed.op = OPERATORS[type(node.op)]()
        yield "arithmetic", node, (_written(changed),)
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield "boolean", node, (str(not node.value),)
    elif isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        yield "number", node, (f"({node.value + 1})", f"({node.value - 1})")
    elif isinstance(node, ast.BoolOp):
        changed = copy.deepcopy(node)
        changed.op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        yield "and/or", node, (_written(changed),)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield "not", node, (_written(node.operand),)
    elif isinstance(node, ast.Name) and node.id in OPPOSITES and isinstance(node.ctx, ast.Load):
        yield "min/max", node, (OPPOSITES[node.id],)
    elif isinstance(node, ast.Return) and _is_nothing(node.value):
        yield "return", node, ("pass",)
    conditions = [node.test] if isinstance(node, ast.If | ast.IfExp) else []
    conditions += node.ifs if isinstance(node, ast.comprehension) else []
    for condition in conditions:
        opposite = ast.UnaryOp(op=ast.Not(), operand=condition)
        yield "condition", condition, (_written(opposite),)


def _compared(node: ast.Compare, index: int, operator: ast.cmpop) -> str:
    changed = copy.deepcopy(node)
    changed.ops[index] = operator
    return _written(changed)


def _written(node: ast.expr) -> str:
    return f"({ast.unparse(ast.fix_missing_locations(node))})"


def _joins(node: ast.BinOp) -> bool:
    """Whether an operator joins texts or lists, where its opposite would only raise."""
    joined = (ast.JoinedStr, ast.List, ast.Tuple, ast.ListComp)
    return any(isinstance(side, joined) or _is_text(side) for side in (node.left, node.right))


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def _is_nothing(value: ast.expr | None) -> bool:
    return value is None or (isinstance(value, ast.Constant) and value.value in (None, 0))


def draw(rooms: Sequence[str], count: int, seed: int) -> list[Mutant]:
    """Draw faults, equally many in each room; the first rooms have one more where the count does not go up evenly."""
    chance = random.Random(seed)
    drawn = []
    for number, room in enumerate(rooms):
        target = ROOT / "autotune" / room
        files = sorted(target.glob("*.py")) if target.is_dir() else [target]
        there = [place for file in files for place in places(file)]
        share = count // len(rooms) + (number < count % len(rooms))
        for place in sorted(chance.sample(there, min(share, len(there))), key=lambda one: (one.file, one.begin)):
            drawn.append(Mutant(room=room, place=place, change=chance.choice(place.changes)))
    return drawn


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Laboratory:
    """A copy of the packages and their tests, in which faults do no harm."""

    folder: Path

    @classmethod
    def make(cls, folder: Path) -> "Laboratory":
        """Copy what the tests need."""
        for name in COPIED:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, folder / name)
        return cls(folder=folder)

    def tests_of(self, room: str) -> str:
        """The folder of a room's own tests."""
        return f"tests/autotune/{room.partition('/')[0]}"

    def test(self, room: str, within_seconds: float | None = None) -> int | None:
        """Run the tests of a room; returns pytest's exit status, None where they took too long."""
        shutil.rmtree(self.folder / ".hypothesis", ignore_errors=True)
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "--hypothesis-seed=0"]
        environment = {**os.environ, "PYTHONPATH": str(self.folder), "PYTHONDONTWRITEBYTECODE": "1"}
        try:
            done = subprocess.run(
                [*command, self.tests_of(room)],
                cwd=self.folder,
                env=environment,
                capture_output=True,
                timeout=within_seconds,
            )
        except subprocess.TimeoutExpired:
            return None
        return done.returncode

    def outcome(self, mutant: Mutant, within_seconds: float) -> str:
        """Put a fault in, run the tests of its room, and take it out again."""
        place = self.folder / mutant.place.file.relative_to(ROOT)
        place.write_bytes(mutant.source())
        try:
            status = self.test(mutant.room, within_seconds)
        finally:
            place.write_bytes(mutant.place.text)
        if status is None:
            return "caught: too long"
        return {0: "survived", 1: "caught", 2: "caught: cannot be imported"}.get(status, f"pytest ended with {status}")


def bench(mutants: Sequence[Mutant], seed: int, folder: Path) -> list[dict[str, object]]:
    """Try every fault, printing each as it is known; one row each."""
    laboratory = Laboratory.make(folder)
    patience: dict[str, float] = {}
    rows: list[dict[str, object]] = []
    for number, mutant in enumerate(mutants, start=1):
        if mutant.room not in patience:
            began = time.monotonic()
            if status := laboratory.test(mutant.room):
                raise SystemExit(f"{laboratory.tests_of(mutant.room)} fails without any fault (pytest: {status})")
            patience[mutant.room] = max(LEAST_SECONDS, PATIENCE * (time.monotonic() - began))
        began = time.monotonic()
        outcome = laboratory.outcome(mutant, patience[mutant.room])
        seconds = time.monotonic() - began
        original, changed = mutant.lines()
        where = f"{mutant.place.file.relative_to(ROOT).as_posix()}:{mutant.place.line}"
        print(
            f"{number:3} {outcome:<10} {where} ({mutant.place.kind})\n      - {original}\n      + {changed}", flush=True
        )
        rows.append(
            {
                "seed": seed, "room": mutant.room, "place": where, "kind": mutant.place.kind, "original": original,
                "changed": changed, "outcome": outcome, "seconds": round(seconds, 2),
                "python": platform.python_version(), "machine": platform.machine(),
            }
        )  # fmt: skip
    return rows


def shares(rows: Sequence[dict[str, object]]) -> Iterator[str]:
    """Say for each room, and for all of them, how many faults were caught."""
    for room in [*dict.fromkeys(row["room"] for row in rows), None]:
        of_room = [row for row in rows if room in (None, row["room"])]
        caught = sum(str(row["outcome"]).startswith("caught") for row in of_room)
        yield f"{room or 'all':<18} {caught} of {len(of_room)} caught, {100 * caught / max(1, len(of_room)):.0f} %"


def main() -> None:
    """Draw faults, try them one after the other, write mutants.csv and end with the shares."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of mutants.csv")
    parser.add_argument("--seed", type=int, default=0, help="which faults are drawn")
    parser.add_argument("--count", type=int, default=40, help="how many faults, over all rooms")
    parser.add_argument("--rooms", default=ROOMS, help="rooms of autotune, or files in them, with commas between")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    mutants = draw(options.rooms.split(","), options.count, options.seed)
    with tempfile.TemporaryDirectory() as folder:
        rows = bench(mutants, options.seed, Path(folder))
    with (options.out / "mutants.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    print("\n".join(shares(rows)))
    print(f"wrote {options.out / 'mutants.csv'}")


if __name__ == "__main__":
    main()
