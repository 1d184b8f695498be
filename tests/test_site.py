"""The documentation site: it builds without a warning, no link is broken, and its code runs and prints what it says."""

import ast
import importlib
import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.conftest import REPOSITORY
from tests.test_docs import PUBLIC, command_of, options_of

SITE = REPOSITORY / "scripts" / "docs"


def script(name: str) -> ModuleType:
    """Load a script that lies beside the pages."""
    specification = importlib.util.spec_from_file_location(name, SITE / f"{name}.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


pages = script("run_pages")
WRITTEN = [page for page in pages.in_order() if (SITE / "pages" / page).read_text().count("```")]
LIGHT = ("budget.md", "how-it-works.md", "loops.md")
"""Pages whose code runs in a few seconds."""


def run(*arguments: str, folder: Path = REPOSITORY) -> subprocess.CompletedProcess[str]:
    """Run Python with this checkout, on the CPU, away from the settings of the tests."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    environment = kept | {"PYTHONPATH": str(REPOSITORY), "JAX_PLATFORMS": "cpu", "NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run([sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("page", WRITTEN)
def test_what_a_page_calls_exists(page: str) -> None:
    """Commands with their options, and names of our packages, in every block."""
    for language, _, text in pages.blocks(page):
        if language == "console":
            for line in pages.commands(text):
                if line.startswith("ckpt-tune "):
                    _, command = command_of(line)
                    assert {word for word in shlex.split(line) if word.startswith("--")} <= set(options_of(command)), (
                        line
                    )
        if language == "python":
            for node in ast.walk(ast.parse(text)):
                if isinstance(node, ast.ImportFrom) and node.module in PUBLIC:
                    names = set(importlib.import_module(node.module).__all__)
                    assert {alias.name for alias in node.names} <= names


@pytest.mark.parametrize("page", LIGHT)
def test_the_code_of_a_light_page_runs_and_prints_what_it_says(page: str) -> None:
    """In a process and a folder of its own."""
    ended = run(str(SITE / "run_pages.py"), page)
    assert ended.returncode == 0, ended.stderr
    assert page in ended.stdout


@pytest.mark.slow
def test_the_code_of_all_pages_runs_in_their_order_as_a_reader_would_run_it() -> None:
    """One folder and one store for all of them, from the first page to the last."""
    ended = run(str(SITE / "run_pages.py"))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    for page in ("getting-started.md", "your-own-model.md", "training.md", "teams.md", "tiers.md"):
        assert page in ended.stdout


def test_the_site_builds_without_a_warning_and_no_link_of_it_is_broken(tmp_path: Path) -> None:
    """Strictly, every page of the navigation and every public name; nothing in it is loaded from elsewhere."""
    pytest.importorskip("mkdocs")
    pytest.importorskip("mkdocstrings")
    built = run("-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site"), folder=SITE)
    assert built.returncode == 0, built.stdout + built.stderr
    assert built.stderr == ""
    checker = script("check_links")
    assert checker.broken(tmp_path / "site") == []
    for page in pages.in_order():
        text = (tmp_path / "site" / page).with_suffix(".html").read_text(encoding="utf-8")
        for loaded in ('src="http', 'rel="stylesheet" href="http', "fonts.googleapis"):
            assert loaded not in text, page
    for package in PUBLIC:
        text = (tmp_path / "site" / "reference" / f"{package}.html").read_text(encoding="utf-8")
        missing = [name for name in importlib.import_module(package).__all__ if f'.{name}"' not in text]
        assert not missing


def test_the_check_of_links_finds_what_is_broken(tmp_path: Path) -> None:
    """A page that is not there, an anchor that is not there, and a link that is not encrypted; no sound one."""
    (tmp_path / "a.html").write_text(
        '<h1 id="top"></h1><a href="b.html#in">x</a><a href="#top">x</a><a href="https://example.org">x</a>'
        '<a href="c.html">x</a><a href="b.html#out">x</a><a href="http://example.org">x</a><img src="no.png">'
    )
    (tmp_path / "b.html").write_text('<p id="in"></p>')
    found = script("check_links").broken(tmp_path)
    assert [line.split()[1] for line in found] == ["c.html", "b.html#out", "http://example.org", "no.png"]


def test_the_command_of_the_site_is_sound_bash() -> None:
    """`bash scripts/docs/build` is there, and bash finds no fault in it."""
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("there is no bash")
    for name in ("docs/build", "check_packages"):
        subprocess.run([bash, "-n", str(REPOSITORY / "scripts" / name)], check=True)
