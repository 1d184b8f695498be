"""What the documents say is so: commands, options, defaults, names, files and figures exist as they are named there."""

import ast
import importlib
import itertools
import math
import re
import shlex
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer.main
from typer.testing import CliRunner

from autotune.cli import app
from tests.conftest import REPOSITORY

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
ROOT_APP = app.app
ROOT = typer.main.get_command(ROOT_APP)
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", README, re.DOTALL)
CODE = re.findall(r"`(ckpt-tune [^`]+)`", README)
SHELL = [line[2:] for kind, text in BLOCKS if kind == "console" for line in text.splitlines() if line[:2] == "$ "]
PYTHON = [text for kind, text in BLOCKS if kind == "python"]
PUBLIC = ("adjoint", "autotune", "profiles")


def leaves(command: Any, name: str = "ckpt-tune") -> dict[str, Any]:
    """List every command that does something, by its full name."""
    children = getattr(command, "commands", None)
    if children is None:
        return {name: command}
    return {full: leaf for key, child in children.items() for full, leaf in leaves(child, f"{name} {key}").items()}


COMMANDS = leaves(ROOT)


def command_of(line: str) -> tuple[str, Any]:
    """Find the command that a line of the README calls; options alone are those of `ckpt-tune` itself."""
    if line.startswith("ckpt-tune --"):
        return "ckpt-tune", ROOT
    name = max((name for name in COMMANDS if f"{line} ".startswith(f"{name} ")), key=len, default="")
    assert name, f"README: there is no command in {line!r}; there are {', '.join(COMMANDS)}"
    return name, COMMANDS[name]


def options_of(command: Any) -> dict[str, Any]:
    """Index a command's options by each way to write them."""
    return {written: parameter for parameter in command.params for written in parameter.opts}


@pytest.mark.parametrize("line", [*CODE, *(line for line in SHELL if line.startswith("ckpt-tune"))])
def test_every_command_of_the_readme_exists_with_its_options(line: str) -> None:
    """A `ckpt-tune …` of the README names a command, and options that this command has."""
    _, command = command_of(line)
    for word in shlex.split(line):
        if word.startswith("--"):
            assert word.partition("=")[0] in options_of(command)


def test_every_command_is_in_the_readme() -> None:
    """No command is left out, be it only by its last word beside its siblings."""
    for name in COMMANDS:
        words = name.split()
        assert f"`{name}" in README or (len(words) == 3 and f"`{words[2]}`" in README), name


def test_every_option_that_the_readme_mentions_exists_somewhere() -> None:
    """Options named by themselves belong to some command or script."""
    scripts = "".join((REPOSITORY / "scripts" / name).read_text() for name in ("test", "quickstart"))
    scripts += "".join(path.read_text() for path in sorted((REPOSITORY / "scripts").glob("*.py")))
    scripts += (REPOSITORY / "scripts" / "validation" / "run.py").read_text()
    known = {written for command in (ROOT, *COMMANDS.values()) for written in options_of(command)}
    for option in set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]+", README)):
        assert option in known or option in scripts, option


def test_the_defaults_of_the_readme_are_those_of_the_code() -> None:
    """Each row of the table of defaults is read back from the command line's own parameters."""
    rows = re.findall(r"^\| `(ckpt-tune [a-z ]+) (--[a-z0-9-]+)` \| `([^`]+)` \|$", README, re.MULTILINE)
    assert len(rows) >= 8
    for name, option, written in rows:
        assert str(options_of(COMMANDS[name])[option].default) == written


def test_the_margin_and_the_cache_limit_of_the_readme_are_those_of_the_code() -> None:
    """The share that budgets leave alone, and how large the folder of compiled programs grows."""
    from autotune.machine.budget import DEFAULT_MARGIN
    from autotune.machine.cache import CACHE_LIMIT_BYTES
    from autotune.measuring.measure import RESIDENT_FLOOR_BYTES

    text = " ".join(README.split())
    assert f"margin of {DEFAULT_MARGIN:.0%}".replace("%", " %") in text
    assert f"{CACHE_LIMIT_BYTES // 2**30} GiB at most" in text
    assert f"exceeds {RESIDENT_FLOOR_BYTES // 2**20} MiB" in text


def test_the_exit_codes_of_the_readme_are_those_of_the_code() -> None:
    """Every code of the command line is listed, and no other."""
    from autotune.cli.screen import Exit

    (line,) = re.findall(r"^Exit codes: (.*?)\n\n", README, re.MULTILINE | re.DOTALL)
    assert {int(number) for number in re.findall(r"(?:^|; )\s*(\d+) ", " ".join(line.split()))} == {
        int(c) for c in Exit
    }


def test_the_documented_default_count_is_the_one_that_is_used() -> None:
    """Without a count, both adjoints take about the square root of twice `max_steps`."""
    import adjoint

    assert "about √(2 max_steps)" in README
    for max_steps in (64, 4096, 100_000):
        assert adjoint.default_checkpoints(max_steps) == pytest.approx(math.sqrt(2 * max_steps), rel=0.15)


def test_more_checkpoints_never_execute_more_steps_where_their_number_is_predicted() -> None:
    """The table's claim about our adjoint, over the theory that a test elsewhere holds to counted calls."""
    import adjoint

    for steps in (100, 1000):
        executed = [adjoint.executed_steps(steps, count, steps) for count in range(1, steps + 1)]
        assert all(left >= right for left, right in itertools.pairwise(executed))


@pytest.mark.parametrize("source", PYTHON)
def test_python_of_the_readme_parses_and_names_what_exists(source: str) -> None:
    """Each block is Python, and what it takes from our packages is public there."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module in PUBLIC:
            assert {alias.name for alias in node.names} <= set(importlib.import_module(node.module).__all__)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "autotune":
            assert node.attr in importlib.import_module("autotune").__all__


def test_every_file_that_the_readme_links_to_exists() -> None:
    """Links and pictures inside the repository lead somewhere."""
    links = re.findall(r"\]\(([^)]+)\)|src=\"([^\"]+)\"", README)
    inside = {left or right for left, right in links if not (left or right).startswith("http")}
    assert "LICENSE" in inside
    for link in inside:
        assert (REPOSITORY / link).exists(), link


@pytest.mark.parametrize("line", [line for line in SHELL if line.startswith(("bash", ".venv"))])
def test_every_script_of_the_readme_exists(line: str) -> None:
    """A script that the README runs is there, and bash finds no fault in its syntax."""
    words = shlex.split(line, comments=True)
    script = REPOSITORY / words[1]
    assert script.is_file()
    if words[0] == "bash":
        subprocess.run(["bash", "-n", script], check=True)


def test_set_up_and_tests_stand_at_the_top_of_the_readme_with_what_they_print() -> None:
    """Both commands are within the first 25 lines, each followed by its transcript."""
    top = README.splitlines()[:25]
    for command in ("$ bash scripts/quickstart", "$ bash scripts/test"):
        (place,) = [number for number, line in enumerate(top) if line.startswith(command)]
        assert top[place + 1].strip()
        assert not top[place + 1].startswith(("$", "```"))


def test_the_changelog_begins_with_the_version_that_is_built() -> None:
    """The newest entry is that of pyproject.toml."""
    version = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["version"]
    entries = re.findall(r"^## (\S+)", (REPOSITORY / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert entries[0] == version


def test_every_command_and_option_has_help() -> None:
    """`--help` says a word on each command and each option."""
    for name, command in COMMANDS.items():
        assert command.help, name
        for parameter in (one for one in command.params if not getattr(one, "hidden", False)):
            assert getattr(parameter, "help", None), f"{name} {parameter.name}"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_an_example_that_it_takes(name: str) -> None:
    """Each example of the help calls its own command, with options that it has, and stands in what `--help` prints."""
    from autotune.cli.help import EXAMPLES

    examples = EXAMPLES[name.removeprefix("ckpt-tune ")]
    shown = CliRunner().invoke(ROOT_APP, [*name.split()[1:], "--help"], env={"COLUMNS": "80"}).output
    for line in examples:
        assert f"\n  {line}\n" in shown
        for part in line.split(" || "):
            _, command = command_of(part)
            words = shlex.split(part)
            assert {word for word in words if word.startswith("--")} <= set(options_of(command))
    assert command_of(examples[0])[0] == name
    assert set(EXAMPLES) <= {full.removeprefix("ckpt-tune ") for full in COMMANDS}


@pytest.mark.parametrize("group", ["", "profiles", "targets"])
def test_the_summaries_of_commands_fit_their_lines(group: str) -> None:
    """At 80 columns none ends in dots, and none is broken over two lines."""
    shown = CliRunner().invoke(ROOT_APP, [*group.split(), "--help"], env={"COLUMNS": "80"}).output
    lines = shown.partition("Commands:\n")[2].rstrip().splitlines()
    assert len(lines) >= 3
    for line in lines:
        assert re.fullmatch(r"  [a-z-]+ +[A-Z].*\.", line), line
        assert not line.endswith("..."), line


def test_the_options_of_tune_stand_in_groups() -> None:
    """None but `--help` is left without one, and every group that is shown has a line."""
    from autotune.cli.help import GROUPS

    shown = CliRunner().invoke(ROOT_APP, ["tune", "--help"], env={"COLUMNS": "100"}).output
    sections = dict(re.findall(r"^(\w[\w ]+):\n((?:  .*\n)+)", shown, re.MULTILINE))
    assert set(GROUPS) <= set(sections)
    assert re.findall(r"--[a-z-]+", sections["Options"]) == ["--help"]
    written = {name for name in options_of(COMMANDS["ckpt-tune tune"]) if name.startswith("--")}
    assert written - {"--help"} <= set(re.findall(r"(?<=  )--[a-z0-9-]+", shown))


def test_the_version_names_what_a_report_of_a_fault_needs() -> None:
    """Our version first, then Python's and those of the packages that decide what is measured."""
    import jax

    shown = CliRunner().invoke(ROOT_APP, ["--version"]).output
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert shown.splitlines()[0] == f"ckpt-tune {project['version']}"
    assert f"jax {jax.__version__}" in shown
    assert "Python 3." in shown


GUIDES = ("ARCHITECTURE.md", "CONTRIBUTING.md")
REFERENCES = [(guide, code) for guide in GUIDES for code in dict.fromkeys(
    re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", (REPOSITORY / guide).read_text(), flags=re.DOTALL))
)]  # fmt: skip
FILES = [(guide, code) for guide, code in REFERENCES if re.fullmatch(r"\.?[\w*-]+(\.\w+)?(/[\w.*-]*)+(:[\w.]+)?", code)]
FILES += [(guide, code) for guide, code in REFERENCES if re.fullmatch(r"\.?[\w.-]+\.(md|toml|txt|cff|yml|yaml)", code)]
MODULES = [(guide, code) for guide, code in REFERENCES if re.fullmatch(r"(adjoint|autotune|profiles)(\.\w+)+", code)]


def names_in(path: Path) -> set[str]:
    """List what a file defines: functions, classes, their members, and what is assigned."""
    found: set[str] = set()

    def walk(body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                found.add(prefix + node.name)
            if isinstance(node, ast.ClassDef):
                walk(node.body, f"{prefix}{node.name}.")
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            found.update(prefix + target.id for target in targets if isinstance(target, ast.Name))

    walk(ast.parse(path.read_text(encoding="utf-8")).body, "")
    return found


@pytest.mark.parametrize(("guide", "code"), FILES)
def test_every_path_in_the_guides_leads_to_a_file_and_to_a_name_in_it(guide: str, code: str) -> None:
    """`path`, `path:name` and patterns of paths: what the guides point to is there."""
    path, _, name = code.partition(":")
    found = sorted(REPOSITORY.glob(path.rstrip("/")))
    assert found, f"{guide} names {path}, which is not there"
    if name:
        assert name in names_in(found[0]), f"{guide}: {path} has no {name}"


@pytest.mark.parametrize(("guide", "code"), MODULES)
def test_every_dotted_name_in_the_guides_can_be_imported(guide: str, code: str) -> None:
    """`module.name`, as Python itself finds it."""
    module, *rest = code.split(".")
    found = importlib.import_module(module)
    for name in rest:
        if not hasattr(found, name):
            importlib.import_module(f"{found.__name__}.{name}")
        found = getattr(found, name)


def test_the_guides_are_read() -> None:
    """The patterns above find what they should: a guide without references would hold nothing."""
    for guide, least in (("ARCHITECTURE.md", 80), ("CONTRIBUTING.md", 15)):
        assert sum(one == guide for one, _ in (*FILES, *MODULES)) >= least


@pytest.mark.parametrize("package", ["adjoint", "autotune", "profiles"])
def test_the_picture_shows_every_room(package: str) -> None:
    """Each room stands in the picture of ARCHITECTURE.md, above those that it may import."""
    from tests.test_layers import ROOMS

    picture = re.findall(r"```\n(.*?)```", (REPOSITORY / "ARCHITECTURE.md").read_text(), re.DOTALL)[0]
    start = re.search(rf"^(.*► )?{package} ", picture, re.MULTILINE)
    assert start is not None
    lines = picture[start.end() :].splitlines()
    shown = [line.strip(" │").split()[0] for line in lines if line.strip(" │")]
    places = [shown.index(room) for room in reversed(ROOMS[package])]
    assert places == sorted(places)


@pytest.mark.parametrize("line", [
    line for guide in GUIDES
    for line in re.findall(r"(?:^\$ |`)(bash [^`#\n]+)", (REPOSITORY / guide).read_text(), re.MULTILINE)
])  # fmt: skip
def test_every_script_of_the_guides_exists(line: str) -> None:
    """What the guides run is there."""
    assert (REPOSITORY / shlex.split(line, comments=True)[1]).is_file()


def test_the_citation_agrees_with_the_project() -> None:
    """Title, version and licence are those of pyproject.toml."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    citation = (REPOSITORY / "CITATION.cff").read_text()
    for line in (f"title: {project['name']}", f"version: {project['version']}", f"license: {project['license']}"):
        assert line in citation.splitlines()
    assert f"  - name: {project['authors'][0]['name']}" in citation.splitlines()


def test_hooks_and_workflow_call_what_the_project_has() -> None:
    """The hooks are the tools that `scripts/test --lint` runs, and the workflow runs .ci/run."""
    lint = (REPOSITORY / "scripts" / "test").read_text()
    hooks = (REPOSITORY / ".pre-commit-config.yaml").read_text()
    for entry in re.findall(r"entry: \.venv/bin/python -m (\w+)", hooks):
        assert f"-m {entry}" in lint
    assert "repo: http" not in hooks
    workflow = (REPOSITORY / ".github" / "workflows" / "ci.yml").read_text()
    assert "run: bash .ci/run" in workflow
    assert (REPOSITORY / ".ci" / "run").is_file()
