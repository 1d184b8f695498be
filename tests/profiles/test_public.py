"""The package's face: an explicit list, loaded name by name, and light to import."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import profiles

SOURCE = Path(profiles.__file__)


def test_every_public_name_can_be_loaded_and_is_listed_once():
    """The stub file is the only list: the package's own is read from it."""
    for name in profiles.__all__:
        assert getattr(profiles, name) is not None
    tree = ast.parse(SOURCE.with_suffix(".pyi").read_text(encoding="utf-8"))
    listed = [alias.asname for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names]
    assert sorted(listed) == sorted(set(listed)) == sorted(profiles.__all__)
    assert set(dir(profiles)) >= set(profiles.__all__)


def test_public_names_are_those_of_their_modules_and_hidden_by_no_submodule():
    """A submodule of the same name would replace the function once it is imported."""
    modules = {path.stem for path in SOURCE.parent.iterdir()}
    assert not modules & set(profiles.__all__)


def test_an_unknown_name_is_an_attribute_error():
    """What is not public is not there."""
    with pytest.raises(AttributeError, match="nothing_like_this"):
        profiles.nothing_like_this  # noqa: B018 # the access is the test


HEAVY = ("pandas", "altair", "vl_convert", "sqlalchemy", "numpy", "jax", "pyarrow", "adjoint", "autotune")


@pytest.mark.parametrize(
    ("code", "allowed"),
    [
        ("import profiles", set()),
        ("from profiles import Measurement, Profile, pareto_front, load_devices, PlanRequest, plan, compare", set()),
        ("from profiles import open_store; open_store('sqlite://')", {"sqlalchemy"}),
    ],
)
def test_importing_loads_only_what_is_used(code: str, allowed: set[str]):
    """The package and its records load nothing heavy; the store loads its database library only."""
    probe = f"{code}; import sys; print(sorted(set({HEAVY!r}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", probe], cwd=SOURCE.parents[1], capture_output=True, text=True)
    assert done.stdout.strip() == str(sorted(allowed)), done.stderr
