"""Run the code of the documentation's pages, as a reader would who copies it, and say how long each block took.

    python scripts/docs/run_pages.py                       every page, in the order of the site
    python scripts/docs/run_pages.py budget.md loops.md    these

Everything happens in a fresh folder with a store of its own, which the pages of one call share. Python blocks with a
title are files. A text block behind a Python block is what that prints. Of console blocks the commands of `ckpt-tune`
are run, but for those that need another machine, a device that is not here, or a cluster; these are parsed alone.
"""

import argparse
import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PAGES = Path(__file__).resolve().parent / "pages"
FENCE = re.compile(r"^```(\w+)(?: title=\"([^\"]+)\")?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
ELSEWHERE = ("--cluster", " worker", "targets install", "--target", "h100", "/scratch", "qubit.py", "db.example")
"""What a command that is not run has in it."""


def in_order() -> list[str]:
    """List the pages as the navigation has them."""
    text = (PAGES.parent / "mkdocs.yml").read_text(encoding="utf-8")
    return re.findall(r": ([\w/-]+\.md)$", text, re.MULTILINE)


def blocks(page: str) -> list[tuple[str, str, str]]:
    """List the blocks of a page: language, title or nothing, text."""
    return FENCE.findall((PAGES / page).read_text(encoding="utf-8"))


def commands(text: str) -> Iterator[str]:
    """Yield the commands of a console block."""
    return (line[2:] for line in text.splitlines() if line.startswith("$ "))


def is_run(command: str) -> bool:
    """Tell whether a command can be run here."""
    return command.startswith("ckpt-tune") and not any(part in command for part in ELSEWHERE)


def run_page(page: str, namespace: dict[str, Any], *, show: bool = False) -> None:
    """Run one page; with `show` what its commands print is shown too.

    Raises:
        AssertionError: a command fails, or a block prints something else than the page says.
    """
    printed = ""
    for number, (language, title, text) in enumerate(blocks(page)):
        started = time.monotonic()
        if title:
            continue
        if language == "python":
            out = io.StringIO()
            with contextlib.redirect_stdout(out):
                exec(compile(text, f"{page}, block {number}", "exec"), namespace)
            printed = out.getvalue()
            said(page, started, text.strip().splitlines()[-1])
        elif language == "text":
            assert printed == text, f"{page} says\n{text}and this prints\n{printed}"
        elif language == "console":
            for command in filter(is_run, commands(text)):
                started = time.monotonic()
                words = [sys.executable, "-m", "autotune.cli", *shlex.split(command)[1:]]
                ended = subprocess.run(words, capture_output=True, text=True)
                assert ended.returncode == 0, f"{page}: {command}\n{ended.stdout}{ended.stderr}"
                said(page, started, command)
                if show:
                    print(ended.stdout, end="", flush=True)


def said(page: str, started: float, what: str) -> None:
    """Print how long something took."""
    print(f"{time.monotonic() - started:7.1f} s  {page}: {what}", flush=True)


def main() -> int:
    """Run the pages that are named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pages", nargs="*", help="pages, as files below scripts/docs/pages; all where none is named")
    parser.add_argument("--show", action="store_true", help="print what the commands print, too")
    options = parser.parse_args()
    pages = options.pages or [page for page in in_order() if not page.startswith("reference")]
    sys.path.insert(0, "")
    paths = (str(PAGES.parent.parent.parent), os.environ.get("PYTHONPATH", ""))
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        os.environ["CKPT_TUNE_STORE"] = str(Path(folder) / "profiles.db")
        for page in in_order():
            for _, title, text in blocks(page) if (PAGES / page).exists() else ():
                if title:
                    Path(title).write_text(text, encoding="utf-8")
        for page in pages:
            run_page(page, {"__name__": "__main__"}, show=options.show)
        os.chdir("/")
    return 0


if __name__ == "__main__":
    sys.exit(main())
