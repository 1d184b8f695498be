"""What is shipped: the wheel holds packages and data, installs by itself, and its command line starts light."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
PACKAGES = ("adjoint", "autotune", "profiles")
HEAVY = ("jax", "jaxlib", "equinox", "diffrax", "pandas", "optuna", "altair", "vl_convert", "scipy", "sqlalchemy")


def run(*command: str | Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a command in a folder, away from the checkout, without this process's Python settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return subprocess.run([str(part) for part in command], cwd=folder, env=kept, capture_output=True, text=True)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy of what git keeps of the packages, with the setuptools that is installed here."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, source / name)
    for name in PACKAGES:
        shutil.copytree(REPOSITORY / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    built = run(
        sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", out, source, folder=source
    )
    assert built.returncode == 0, built.stdout + built.stderr
    (made,) = out.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment's folder of executables: only the wheel is installed; its dependencies are lent by a path.

    A path line in a `.pth` file makes the libraries of this environment importable but not its editable install,
    whose own `.pth` files are not read then; so `adjoint`, `autotune` and `profiles` can only come from the wheel.
    """
    folder = tmp_path_factory.mktemp("fresh") / "venv"
    venv.create(folder, with_pip=True)
    binaries = folder / ("Scripts" if os.name == "nt" else "bin")
    installed = run(binaries / "python", "-m", "pip", "install", "-q", "--no-deps", "--no-index", wheel, folder=folder)
    assert installed.returncode == 0, installed.stderr
    (site,) = folder.glob("lib/*/site-packages") if os.name != "nt" else [folder / "Lib" / "site-packages"]
    (site / "lent.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return binaries


def test_the_wheel_holds_every_file_of_the_three_packages_and_nothing_else(wheel: Path) -> None:
    """Sources, the device catalogue, the page's assets and the reference figures are in; tests and scripts are not."""
    inside = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    wanted = {
        path.relative_to(REPOSITORY).as_posix()
        for package in PACKAGES
        for path in (REPOSITORY / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert "profiles/devices.toml" in inside
    assert any(name.startswith("profiles/page_assets/") for name in inside)
    assert inside == wanted


def test_the_wheel_says_what_pyproject_says(wheel: Path) -> None:
    """Name, version, licence, Python range and the console script are in the metadata."""
    archive = zipfile.ZipFile(wheel)
    texts = {
        name.rpartition("/")[2]: archive.read(name).decode()
        for name in archive.namelist()
        if "dist-info/" in name and name[-1] != "/"
    }
    for line in (
        "Name: ckpt-tune",
        f"Version: {PROJECT['version']}",
        "License-Expression: Apache-2.0",
    ):
        assert line in texts["METADATA"].splitlines()
    assert "ckpt-tune = autotune.cli:main" in texts["entry_points.txt"]
    assert "Apache License" in texts["LICENSE"]
    assert "Vega" in texts["notices.txt"]
    assert "Requires-Python: <3.15,>=3.11" in texts["METADATA"].splitlines()


def test_the_installed_command_prints_its_help_and_the_commands(environment: Path) -> None:
    """`ckpt-tune --help` of the wheel exits with 0 and names every command of the contract."""
    answer = run(environment / "ckpt-tune", "--help", folder=environment)
    assert answer.returncode == 0, answer.stderr
    for command in ("device", "tune", "recommend", "profiles", "report", "plan", "schedule", "worker", "check"):
        assert command in answer.stdout


def test_the_installed_packages_come_from_the_wheel(environment: Path) -> None:
    """In the fresh environment the three packages are imported from it, not from the checkout."""
    program = (
        "import adjoint, autotune, profiles; print(adjoint.__file__, autotune.__file__, profiles.__file__, sep='\\n')"
    )
    answer = run(environment / "python", "-c", program, folder=environment)
    assert answer.returncode == 0, answer.stderr
    assert len(answer.stdout.splitlines()) == 3
    for file in answer.stdout.splitlines():
        assert Path(file).is_relative_to(environment.parent)


@pytest.mark.parametrize(
    "program",
    [
        "import adjoint",
        "import adjoint; adjoint.optimal_steps(100, 5), adjoint.default_checkpoints(4096)",
        "import profiles",
        "import autotune",
        "import autotune.cli",
        "import sys; sys.argv[1:] = ['--help']\nimport autotune.cli\ntry: autotune.cli.main()\nexcept SystemExit: pass",
    ],
)
def test_starting_loads_none_of_the_heavy_libraries(environment: Path, program: str) -> None:
    """The help and the schedule's theory answer without jax, pandas, optuna and the rest in `sys.modules`."""
    report = f"\nimport sys\nprint('loaded:', *sorted(set(sys.modules) & set({HEAVY!r})))"
    answer = run(environment / "python", "-c", program + report, folder=environment)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.splitlines()[-1].strip() == "loaded:"


@pytest.mark.slow
def test_the_wheel_installs_with_its_dependencies_and_names_this_device(wheel: Path, tmp_path: Path) -> None:
    """With nothing lent, pip brings what is declared, and `ckpt-tune device` answers. Needs a package index."""
    venv.create(tmp_path / "venv", with_pip=True)
    binaries = tmp_path / "venv" / ("Scripts" if os.name == "nt" else "bin")
    constraints = REPOSITORY / "constraints.txt"
    installed = run(binaries / "python", "-m", "pip", "install", "-q", "-c", constraints, wheel, folder=tmp_path)
    assert installed.returncode == 0, installed.stderr
    answer = run(binaries / "ckpt-tune", "device", "--platform", "cpu", "--format", "json", folder=tmp_path)
    assert answer.returncode == 0, answer.stderr
    assert "cpu" in answer.stdout
