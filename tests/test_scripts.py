"""The scripts that people run first: what they say when something is missing, and that the rest of them works."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

TOOLS = ("bash", "cat", "cksum", "dirname", "env", "grep", "head", "rm", "sed", "tail", "tr", "uname")
posix = pytest.mark.skipif(os.name != "posix", reason="the set-up scripts are for bash")


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A checkout without .venv, as far as the set-up scripts look at it."""
    folder = tmp_path / "clone"
    (folder / "scripts").mkdir(parents=True)
    for name in ("pyproject.toml", "constraints.txt", "constraints-newest.txt", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, folder / name)
    for name in ("environment.bash", "test", "quickstart", "quickstart.py"):
        shutil.copy(REPOSITORY / "scripts" / name, folder / "scripts" / name)
    return folder


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """A folder for PATH that holds a few system tools and no Python."""
    folder = tmp_path / "tools"
    folder.mkdir()
    for name in TOOLS:
        found = shutil.which(name)
        assert found is not None
        (folder / name).symlink_to(found)
    return folder


def fake(folder: Path, name: str, text: str) -> None:
    """Put an executable of the given shell text into a folder."""
    path = folder / name
    path.write_text(f"#!{shutil.which('bash')}\n{text}\n")
    path.chmod(0o755)


def run(script: str, clone: Path, path: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run a script of the clone with nothing but `path` to find programs in."""
    return subprocess.run(
        [str(shutil.which("bash")), f"scripts/{script}", *options],
        cwd=clone,
        env={"PATH": str(path), "HOME": str(clone)},
        capture_output=True,
        text=True,
    )


@posix
@pytest.mark.parametrize("script", ["test", "quickstart"])
def test_without_any_python_the_scripts_say_which_they_need(script: str, clone: Path, tools: Path) -> None:
    """One line: the versions that would do, that none was found, and how to name one."""
    ended = run(script, clone, tools)
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert line.startswith(f"{script}: needs Python 3.11 to 3.14; found: none.")
    assert f"PYTHON=/path/to/python3.11 bash scripts/{script}" in line


@posix
def test_an_older_python_is_named_with_its_version(clone: Path, tools: Path) -> None:
    """What was found stands in the line, so that both sides are seen."""
    fake(tools, "python3", 'if [ "$1" = --version ]; then echo Python 3.9.2; else exit 1; fi')
    ended = run("test", clone, tools)
    assert ended.returncode == 1
    assert "found: python3 (Python 3.9.2)" in ended.stderr


@posix
def test_without_a_newer_python_the_second_lane_is_skipped_by_name(clone: Path, tools: Path) -> None:
    """One line says what is left out and why, and the lane ends well; nothing is made."""
    fake(tools, "python3.13", "echo 'pyenv: python3.13: command not found' >&2; exit 127")
    ended = run("test", clone, tools, "--newest")
    assert ended.returncode == 0
    (line,) = ended.stderr.splitlines()
    assert line.startswith("test: the second lane (Python 3.13 or 3.12 with the newest JAX) is skipped")
    assert not (clone / ".venv-newest").exists()


@posix
@pytest.mark.parametrize("place", ["python3.13", ".pyenv/versions/3.13.0/bin/python"])
def test_the_second_lane_finds_the_newest_python_and_has_an_environment_of_its_own(
    place: str, clone: Path, tools: Path
) -> None:
    """Found by its name or as pyenv keeps it; asked for a virtual environment at .venv-newest, never at .venv."""
    home = tools if "/" not in place else clone / Path(place).parent
    home.mkdir(parents=True, exist_ok=True)
    says = 'case "$*" in --version) echo Python 3.13.0 ;; *venv-newest*) echo "made $*" >&2; exit 1 ;; esac'
    fake(home, Path(place).name, says)
    ended = run("test", clone, tools, "--newest")
    assert ended.returncode == 1
    assert "making .venv-newest with Python 3.13.0" in ended.stderr
    assert "made -m venv" in ended.stderr
    assert not (clone / ".venv").exists()


@posix
def test_a_python_without_venv_is_answered_with_the_package_to_install(clone: Path, tools: Path) -> None:
    """Debian's Python comes without ensurepip; the line names the package of that version."""
    text = f'for word in "$@"; do case "$word" in *ensurepip*) exit 1 ;; esac; done; exec {sys.executable} "$@"'
    fake(tools, "python3", text)
    ended = run("test", clone, tools)
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert f"apt-get install python{sys.version_info[0]}.{sys.version_info[1]}-venv" in line


@posix
def test_a_folder_in_the_place_of_the_environment_is_left_alone(clone: Path, tools: Path) -> None:
    """What is called .venv but is no virtual environment is not deleted."""
    (clone / ".venv").mkdir()
    (clone / ".venv" / "mine").write_text("kept")
    ended = run("test", clone, tools)
    assert ended.returncode == 1
    assert "is not a virtual environment; move it away" in ended.stderr
    assert (clone / ".venv" / "mine").read_text() == "kept"


@posix
def test_without_a_network_the_line_says_so_and_the_next_run_tries_again(clone: Path, tools: Path) -> None:
    """An index that does not answer ends in one line beside pip's own, and nothing counts as installed."""
    (tools / "python3").symlink_to(sys.executable)
    for name in ("pip.conf",):
        (clone / name).write_text("[global]\nno-index = true\n")
    ended = subprocess.run(
        [str(shutil.which("bash")), "scripts/test"], cwd=clone, capture_output=True, text=True,
        env={"PATH": str(tools), "PIP_CONFIG_FILE": str(clone / "pip.conf"), "HOME": str(clone)},
    )  # fmt: skip
    assert ended.returncode == 1
    assert "could not download the dependencies: is there a network" in ended.stderr.splitlines()[-1]
    assert not list((clone / ".venv").glob("installed-*"))


def python(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a script of the checkout with this Python, on the CPU."""
    return subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=REPOSITORY, env={**os.environ, **environment},
        capture_output=True, text=True,
    )  # fmt: skip


def test_the_gallery_is_drawn_from_the_profiles_that_are_shipped(tmp_path: Path) -> None:
    """Every solve's CSV becomes a figure, and a row of the table in README.md; problems of a scan have none."""
    ended = python("scripts/make_figures.py", "--out", tmp_path)
    assert ended.returncode == 0, ended.stderr
    files = (REPOSITORY / "scripts" / "problems").glob("*.py")
    problems = {path.stem for path in files if "import diffrax" in path.read_text()}
    assert {path.stem for path in tmp_path.glob("*.png")} == problems
    readme = (REPOSITORY / "README.md").read_text()
    for line in ended.stdout.splitlines():
        assert line in readme


@pytest.mark.slow
def test_the_quickstart_tunes_trains_and_stays_within_its_budget(tmp_path: Path) -> None:
    """The whole of it, with few training steps: a table, a recommendation, both places, a falling loss, the peak."""
    store = {"CKPT_TUNE_STORE": str(tmp_path / "profiles.db")}
    ended = python("scripts/quickstart.py", "--budget", "2MiB", "--steps", "60", **store)
    assert ended.returncode == 0, ended.stderr
    losses = [float(line.split()[-1]) for line in ended.stdout.splitlines() if line.startswith("step ")]
    assert losses[-1] < 0.2 * losses[0]
    (peak,) = [line for line in ended.stdout.splitlines() if line.startswith("peak ")]
    assert float(peak.split("%")[0].split()[-1]) <= 100
    for part in ("checkpoints", "recommended", str(tmp_path / "profiles.db"), "report.html"):
        assert part in ended.stdout


@pytest.mark.slow
@pytest.mark.parametrize("name", ["neural_ode", "neural_cde", "wave_inversion", "long_memory", "plate_inversion"])
def test_an_example_trains_within_its_budget(name: str, tmp_path: Path) -> None:
    """A few steps of each example: the adjoint is chosen, the loss falls, the peak is within the budget."""
    store = {"CKPT_TUNE_STORE": str(tmp_path / "profiles.db")}
    ended = python(f"scripts/examples/{name}.py", "--steps", "12", **store)
    assert ended.returncode == 0, ended.stderr
    words = ended.stdout.split()
    assert words[-4] == "MiB,"
    assert float(words[-5]) <= float(words[-1].removesuffix("MiB"))


EXAMPLES = {
    "hyperparameter_search": ("--trials", "3", "--steps", "20"),
    "numpyro_ode": ("--samples", "40"),
    "optimistix_fit": (),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_with_another_library_ends_well(name: str, tmp_path: Path) -> None:
    """Optuna's trials end or are refused, NumPyro and Optimistix find the rates that the data were made with."""
    store = {"CKPT_TUNE_STORE": str(tmp_path / "profiles.db")}
    ended = python(f"scripts/examples/{name}.py", *EXAMPLES[name], **store)
    assert ended.returncode == 0, ended.stderr
    lines = ended.stdout.splitlines()
    if name == "hyperparameter_search":
        assert sum("checkpoints" in line or "nothing of" in line for line in lines) == 3
    if name == "numpyro_ode":
        found = {line.split(":")[0]: float(line.split()[1]) for line in lines if "±" in line}
        assert found == pytest.approx({"infection": 0.5, "recovery": 0.2}, abs=0.05)
    if name == "optimistix_fit":
        assert float(lines[-1].split()[-1]) < 1e-4


@pytest.mark.slow
def test_a_training_that_was_stopped_goes_on_where_it_was(tmp_path: Path) -> None:
    """The second start reads weights and step from the file and the count from the store, and measures nothing."""
    store = {"CKPT_TUNE_STORE": str(tmp_path / "profiles.db")}
    first, second, whole = (
        python("scripts/examples/restart.py", "--until", until, "--file", tmp_path / file, **store)
        for until, file in (("25", "a.eqx"), ("50", "a.eqx"), ("50", "b.eqx"))
    )
    assert "step    0" in first.stdout
    assert "from a probe" in first.stdout, first.stderr
    assert "step   25" in second.stdout
    assert "from a profile" in second.stdout, second.stderr
    assert second.stdout.splitlines()[-1] == whole.stdout.splitlines()[-1]


@pytest.mark.slow
def test_the_validation_runs_on_the_cpu(tmp_path: Path) -> None:
    """Each part writes its CSV with device and versions, and finds nothing broken."""
    ended = python("scripts/validation/run.py", "--out", tmp_path, "--platform", "cpu", "--quick", PYTHONPATH=".")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "all as promised" in ended.stdout
    for part in ("memory", "adjoint", "containment", "host", "targets", "tiers"):
        header, *rows = (tmp_path / f"{part}.csv").read_text().splitlines()
        assert rows
        assert {"platform", "device", "jax", "diffrax"} <= set(header.split(","))


TRACE_FAMILIES = """
import jax
from bench_families import FAMILIES
import adjoint
for family in FAMILIES:
    loss = family.build(adjoint.RecursiveCheckpointAdjoint(checkpoints=family.counts[0]))
    found = jax.eval_shape(lambda key: loss(*family.make(key)), jax.random.key(0))
    assert found.shape == (), family.name
    print(family.name)
"""


def _printed_in_scripts(code: str) -> list[str]:
    """Run Python code beside the scripts, and return the words that it prints."""
    ended = subprocess.run(
        [sys.executable, "-c", code],
        cwd=REPOSITORY / "scripts",
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=True,
    )
    return ended.stdout.split()


def test_every_family_of_the_benchmarks_can_be_traced() -> None:
    """Which is where a name that another library does not have would be met."""
    assert len(_printed_in_scripts(TRACE_FAMILIES)) >= 11


TRACE_FIELD = """
import jax
jax.config.update("jax_enable_x64", True)
import adjoint
from field_programs import PROGRAMS
for name, make in PROGRAMS.items():
    function, args = make(adjoint.RecursiveCheckpointAdjoint())
    jax.eval_shape(function, *args)
    print(name)
"""


@pytest.mark.slow
def test_every_program_of_the_field_can_be_traced() -> None:
    """All thirty and more of them, with nothing that another library does not have."""
    assert len(_printed_in_scripts(TRACE_FIELD)) >= 30
