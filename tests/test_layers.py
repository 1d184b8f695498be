"""The shape of the code, read from its syntax trees: who may import whom, and where private names are touched.

Two leaves and a roof: `adjoint` and `profiles` do not know each other, and nothing but `autotune` imports `autotune`,
which uses the leaves through their public faces. Within a package the rooms have an order.
"""

import ast
import dataclasses
import importlib
import itertools
import re
import sys
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

PACKAGES = ("adjoint", "autotune", "profiles")
FILES = sorted(path for package in PACKAGES for path in (REPOSITORY / package).rglob("*.py"))
TESTS = sorted(path for path in (REPOSITORY / "tests").rglob("*.py") if "assets" not in path.parts)
FORBIDDEN = {
    "adjoint": {"profiles", "autotune", "pandas", "optuna", "sqlalchemy", "altair", "vl_convert", "typer", "rich"},
    "profiles": {"adjoint", "autotune", "jax", "jaxlib", "equinox", "diffrax", "optuna", "typer"},
    "autotune": set(),
}
ONLY_IN = {
    "optuna": {"autotune/tuning/study_view.py"},
    "distributed": {f"autotune/measuring/{name}.py" for name in ("cluster", "cluster_machine")},
    "typer": {
        "autotune/cli/app.py",
        "autotune/cli/common.py",
        "autotune/cli/help.py",
        *(f"autotune/cli/commands/{n}.py" for n in ("device", "profiles", "report", "targets", "worker")),
    },
    "rich": {f"autotune/cli/{name}.py" for name in ("screen", "tables", "app")},
    "altair": {
        "autotune/choosing/recommendation.py",
        "profiles/records/shown.py",
        *(
            f"profiles/figures/{name}.py"
            for name in (
                "budgets",
                "channels",
                "charts",
                "counts",
                "fronts",
                "rendering",
                "trees",
            )
        ),
    },
    "vl_convert": {"profiles/figures/rendering.py", "profiles/pages/page.py"},
    "sqlalchemy": {
        *(
            f"profiles/store/{name}.py"
            for name in ("engine", "listing", "migrations", "patience", "schema", "store", "writing")
        ),
    },
}
"""Libraries that few files may import."""
ADAPTERS = {"adjoint/compat.py", "adjoint/solve/compat.py", "autotune/problem/probe_adjoint.py"}
"""The only files that touch what other libraries do not promise to keep."""
ROOMS = {
    "adjoint": ("theory", "tiers", "traced", "loop", "scan", "solve"),
    "profiles": ("records", "store", "analysis", "figures", "pages"),
    "autotune": (
        "machine", "problem", "measuring", "model", "search", "choosing", "tuning", "planning", "runtime", "cli",
    ),
}  # fmt: skip
"""The rooms of each package: one may import those before it, and the files that lie beside the rooms."""
MOST_FILES = 14
"""In one folder, `__init__` not counted."""
LONGEST_FILE = 420


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Import:
    """One imported module, absolute, with the name taken from it (None for a plain import)."""

    module: str
    name: str | None
    line: int

    @property
    def top(self) -> str:
        """The package that is imported."""
        return self.module.partition(".")[0]

    @property
    def parts(self) -> list[str]:
        """Every component of the dotted path, the name included."""
        return self.module.split(".") + ([self.name] if self.name else [])


def imports(source: str, package: str) -> Iterator[Import]:
    """Yield every import of a source text, at any depth; relative ones are resolved against `package`."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(module=alias.name, name=None, line=node.lineno)
        elif isinstance(node, ast.ImportFrom):
            module = f"{package}.{node.module}".rstrip(".") if node.level else str(node.module)
            for alias in node.names:
                yield Import(module=module.replace(".None", ""), name=alias.name, line=node.lineno)


def private_names(source: str, package: str) -> Iterator[str]:
    """Yield each use of a name that its library keeps to itself: `_x` of a module imported, `equinox.internal`."""
    foreign: dict[str, str] = {}
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Import | ast.ImportFrom):
            continue
        for alias in node.names:
            relative = isinstance(node, ast.ImportFrom) and node.level
            prefix = f"{node.module}." if isinstance(node, ast.ImportFrom) and node.module else ""
            path = prefix + alias.name
            if relative or path.partition(".")[0] in {*PACKAGES, *sys.stdlib_module_names}:
                continue
            if isinstance(node, ast.Import) and not alias.asname:
                foreign[path.partition(".")[0]] = path.partition(".")[0]
            else:
                foreign[alias.asname or alias.name] = path
            if is_private(path.split(".")):
                yield f"{node.lineno}: {path}"
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute):
            path, value = [node.attr], node.value
            while isinstance(value, ast.Attribute):
                path, value = [value.attr, *path], value.value
            if isinstance(value, ast.Name) and value.id in foreign and is_private([foreign[value.id], *path]):
                yield f"{node.lineno}: {foreign[value.id]}.{'.'.join(path)}"


def is_private(parts: list[str]) -> bool:
    """Tell whether a dotted path of another library runs through a private name or `equinox.internal`."""
    hidden = any(part.startswith("_") and not part.endswith("__") for part in parts)
    return hidden or ".".join(parts).startswith("equinox.internal")


def place(path: Path) -> str:
    """Return the path inside the repository, with forward slashes."""
    return path.relative_to(REPOSITORY).as_posix()


def package_of(path: Path) -> str:
    """Return the dotted package that relative imports of a file start from."""
    return ".".join(path.relative_to(REPOSITORY).parts[:-1])


@pytest.mark.parametrize("path", FILES, ids=place)
def test_a_file_imports_only_what_its_layer_may(path: Path) -> None:
    """No import, at any depth of the file, points sideways or upwards."""
    forbidden = FORBIDDEN[place(path).partition("/")[0]]
    found = [f"line {one.line}: {one.module}" for one in imports(path.read_text(), package_of(path))]
    wrong = [text for text in found if text.split(": ")[1].partition(".")[0] in forbidden]
    assert not wrong


def room_of(parts: Sequence[str]) -> int:
    """Number the room that a dotted path lies in; -1 for what lies beside the rooms."""
    rooms = ROOMS[parts[0]]
    return rooms.index(parts[1]) if len(parts) > 1 and parts[1] in rooms else -1


@pytest.mark.parametrize("path", FILES, ids=place)
def test_a_file_imports_only_from_rooms_before_its_own(path: Path) -> None:
    """Within a package no import, at any depth of the file, points to a later room; `api` alone uses them all."""
    top, *inner = path.relative_to(REPOSITORY).with_suffix("").parts
    if inner == ["api"]:
        return
    here = room_of([top, *inner])
    found = [one for one in imports(path.read_text(), package_of(path)) if one.top == top]
    wrong = [f"line {one.line}: {'.'.join(one.parts)}" for one in found if room_of(one.parts) > here]
    assert not wrong


@pytest.mark.parametrize("path", [path for path in FILES if place(path).startswith("autotune/")], ids=place)
def test_the_leaves_are_used_through_their_public_faces(path: Path) -> None:
    """`from profiles import Measurement`, never `from profiles.records.records import Measurement`."""
    found = imports(path.read_text(), package_of(path))
    wrong = [f"line {one.line}: {one.module}" for one in found if re.match(r"(profiles|adjoint)\.", one.module)]
    assert not wrong


@pytest.mark.parametrize("package", PACKAGES)
def test_rooms_are_what_is_there_and_none_is_overfull(package: str) -> None:
    """Each folder is a room with a docstring of what it is for and what it may import."""
    folders = [path.parent for path in (REPOSITORY / package).glob("*/__init__.py")]
    assert {folder.name for folder in folders} == set(ROOMS[package])
    for folder in folders:
        assert "mport" in (ast.get_docstring(ast.parse((folder / "__init__.py").read_text())) or "")
        assert len(list(folder.glob("*.py"))) - 1 <= MOST_FILES


@pytest.mark.parametrize("package", ["autotune", "profiles"])
def test_tests_lie_in_the_rooms_of_what_they_test(package: str) -> None:
    """Each room has a folder of tests by its name, with a test in it, and there is no other folder."""
    folders = [path.parent for path in (REPOSITORY / "tests" / package).glob("*/__init__.py")]
    assert {folder.name for folder in folders} == set(ROOMS[package])
    assert all(list(folder.glob("test_*.py")) for folder in folders)


@pytest.mark.parametrize("path", TESTS, ids=place)
def test_tests_take_public_names_of_profiles_from_its_public_face(path: Path) -> None:
    """`from profiles import Measurement` in tests too; what is not public is taken from its own file."""
    wrong = []
    for one in imports(path.read_text(), package_of(path)):
        if one.module.startswith("profiles.") and one.name:
            public = getattr(importlib.import_module("profiles"), one.name, None)
            if public is not None and getattr(importlib.import_module(one.module), one.name, None) is public:
                wrong.append(f"line {one.line}: from {one.module} import {one.name}")
    assert not wrong


@pytest.mark.parametrize("library", ONLY_IN)
def test_a_library_with_a_home_is_imported_only_there(library: str) -> None:
    """Optuna, Typer and SQLAlchemy are each spoken to by the named files, and by at least one of them."""
    users = {
        place(path) for path in FILES if any(one.top == library for one in imports(path.read_text(), package_of(path)))
    }
    assert users
    assert users <= ONLY_IN[library]


@pytest.mark.parametrize("path", [path for path in FILES if place(path) not in ADAPTERS], ids=place)
def test_private_names_of_other_libraries_stay_in_the_adapters(path: Path) -> None:
    """An upgrade of JAX, Equinox or Diffrax can break the adapters only."""
    assert not list(private_names(path.read_text(), package_of(path)))


@pytest.mark.parametrize("path", FILES, ids=place)
def test_no_file_grows_beyond_what_one_reads_in_one_go(path: Path) -> None:
    """One idea per file, at most 420 lines."""
    assert len(path.read_text().splitlines()) <= LONGEST_FILE


def test_every_import_is_of_a_declared_dependency() -> None:
    """What the packages import is in the standard library, in the project, or in pyproject.toml."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    declared = [*project["dependencies"], *itertools.chain(*project["optional-dependencies"].values())]
    imported_as = {"vl-convert-python": "vl_convert", "ipython": "IPython"}
    names = {imported_as.get(name, name) for entry in declared for name in [re.split(r"[\[<>=]", entry)[0]]}
    used = {one.top for path in FILES for one in imports(path.read_text(), package_of(path))}
    assert used - set(sys.stdlib_module_names) - set(PACKAGES) <= names


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import equinox.internal as eqxi", True),
        ("import equinox as eqx\neqx.internal.while_loop", True),
        ("from diffrax._integrate import diffeqsolve", True),
        ("import diffrax\ndef f():\n    return diffrax._adjoint.x", True),
        ("import jax\njax._src.core", True),
        ("import jax\nimport os\nos._exit(1)", False),
        ("import jax.extend.core\njax._src.core", True),
        ("import jax.extend.core\njax.extend.core.Jaxpr", False),
        ("from .theory import schedule", False),
        ("from adjoint.theory.schedule import optimal_steps", False),
        ("import jax\njax.__version__", False),
        ("import jax\nself._x.y", False),
    ],
)
def test_the_search_for_private_names_finds_what_it_should(source: str, found: bool) -> None:
    """The detector itself sees each way of reaching a private name, and no innocent one."""
    assert bool(list(private_names(source, "adjoint"))) == found


def test_the_search_for_imports_sees_nested_and_relative_ones() -> None:
    """An import inside a function counts, and `from . import x` is resolved."""
    source = "def f():\n    import autotune.cli\nfrom . import compat\nfrom .theory.schedule import x"
    assert [(one.module, one.name) for one in imports(source, "adjoint")] == [
        ("adjoint", "compat"),
        ("adjoint.theory.schedule", "x"),
        ("autotune.cli", None),
    ]
