"""`import autotune` notices where one of our three packages is not ours, and says which file was found."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from autotune.shadowing import OUR_NAMES, OUR_ROOT, check_own_packages
from tests.conftest import REPOSITORY


def run(code: str, *folders: Path) -> subprocess.CompletedProcess[str]:
    """Run Python with folders in front of its search path."""
    first = f"import sys; sys.path[:0] = {[str(folder) for folder in folders]!r}\n"
    return subprocess.run([sys.executable, "-P", "-c", first + code], capture_output=True, text=True, check=False)


@pytest.fixture
def copies(tmp_path: Path) -> Path:
    """A folder with copies of the three packages, as an installation has them."""
    for name in OUR_NAMES:
        shutil.copytree(REPOSITORY / name, tmp_path / "site" / name, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path / "site"


def test_ours_are_ours() -> None:
    """Here all three are found where this very module lies."""
    check_own_packages()
    assert Path(OUR_ROOT) == REPOSITORY


@pytest.mark.parametrize("foreign", ["adjoint.py", "adjoint/__init__.py", "profiles.py"])
def test_a_foreign_package_in_front_of_ours_is_an_import_error_that_names_it(tmp_path: Path, foreign: str) -> None:
    """A file or a package of such a name that comes first hides ours: who imports autotune is told both sides."""
    path = tmp_path / "first" / foreign
    path.parent.mkdir(parents=True)
    path.write_text("")
    name = foreign.partition("/")[0].removesuffix(".py")
    found = run("try: import autotune\nexcept ImportError as error: print(error)", tmp_path / "first", REPOSITORY)
    assert f"`import {name}` finds {path.resolve()}" in found.stdout
    assert f"hides ckpt-tune's own package {REPOSITORY / name}" in found.stdout


def test_a_folder_without_code_hides_nothing(tmp_path: Path) -> None:
    """A folder called profiles is no package, and ours are found behind it."""
    (tmp_path / "profiles").mkdir()
    assert run("import autotune", tmp_path, REPOSITORY).returncode == 0


def test_a_package_that_another_distribution_has_written_over_is_noticed(copies: Path) -> None:
    """Two distributions may install into one folder, and the later one's `__init__.py` stays."""
    (copies / "adjoint" / "__init__.py").write_text("'''Another adjoint.'''")
    found = run("import autotune", copies)
    assert found.returncode == 1
    assert f"`import adjoint` finds {copies / 'adjoint' / '__init__.py'}" in found.stderr
    assert "written over" in found.stderr


def test_the_command_line_notices_an_autotune_that_is_not_ours(copies: Path) -> None:
    """Then nothing of ours runs as `autotune` is imported: the command checks by itself, and says so in one line."""
    (copies / "autotune" / "__init__.py").write_text("'''Another autotune.'''")
    found = run("import autotune.cli", copies)
    assert found.returncode == 1
    assert found.stderr.startswith(f"ckpt-tune: `import autotune` finds {copies / 'autotune' / '__init__.py'}")
    assert len(found.stderr.splitlines()) == 1


def test_noticing_loads_nothing_heavy() -> None:
    """`import autotune` loads no jax, and where all is well not even the errors of the check."""
    heavy = ("jax", "pandas", "sqlalchemy", "optuna", "importlib.metadata", "autotune.errors", "profiles", "adjoint")
    found = run(f"import autotune; print(sorted(set({heavy!r}) & set(sys.modules)))", REPOSITORY)
    assert found.stdout.strip() == "[]"
