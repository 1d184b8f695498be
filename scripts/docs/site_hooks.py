"""What the site takes from the repository as it is built: figures, the migration note, the help of commands."""

import re
from pathlib import Path
from typing import Any

import typer.main
from mkdocs.structure.files import File, Files
from typer.testing import CliRunner

from adjoint import schedule_tree
from autotune.cli import app

ROOT = Path(__file__).resolve().parent.parent.parent
PACKAGES = ("adjoint", "autotune", "profiles")
STEP, ROW, MARGIN = 48, 34, 24
"""Pixels of a step and of a level in the drawn tree, and around it."""


def on_files(files: Files, config: Any) -> Files:
    """Add the drawn figures, which lie in `scripts/figures`."""
    for figure in sorted((ROOT / "scripts" / "figures").glob("*.png")):
        files.append(File.generated(config, f"assets/{figure.name}", abs_src_path=str(figure)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Put what is written elsewhere into its place."""
    if page.file.src_uri == "migration.md":
        return (
            (ROOT / "MIGRATION.md").read_text(encoding="utf-8").replace("[CLUSTER.md](CLUSTER.md)", "[Teams](teams.md)")
        )
    if page.file.src_uri == "how-it-works.md":
        return re.sub(r"<!-- tree (\d+) (\d+) -->", lambda found: tree(*map(int, found.groups())), markdown)
    if page.file.src_uri in {f"reference/{package}.md" for package in PACKAGES}:
        package = page.file.name
        stub = (ROOT / package / "__init__.pyi").read_text(encoding="utf-8")
        names = re.findall(r"^from \.([\w.]+) import (\w+) as", stub, re.MULTILINE)
        return markdown + "\n".join(f"::: {package}.{module}.{name}\n" for module, name in names)
    if page.file.src_uri == "reference/commands.md":
        return markdown + "\n".join(f"## {name}\n\n```text\n{text}\n```\n" for name, text in helps())
    return markdown


def helps() -> list[tuple[str, str]]:
    """Return the help of each command, as a terminal shows it."""
    found: list[tuple[str, str]] = []

    def walk(command: Any, words: list[str]) -> None:
        children = getattr(command, "commands", None)
        if children is None or words:
            shown = CliRunner().invoke(app.app, [*words, "--help"], env={"COLUMNS": "80"}, prog_name="ckpt-tune")
            found.append((" ".join(["ckpt-tune", *words]), shown.output.rstrip()))
        for name, child in (children or {}).items():
            walk(child, [*words, name])

    walk(typer.main.get_command(app.app), [])
    return found


def tree(steps: int, checkpoints: int) -> str:
    """Draw the tree of checkpoints in the colours of the page: a line for each block, a dot where it is stored."""
    nodes = schedule_tree(steps, checkpoints, steps)
    level: list[int] = []
    for node in nodes:
        level.append(0 if node.parent is None else level[node.parent] + 1)
    drawn = []
    for node, depth in zip(nodes, level, strict=True):
        x, end, y = MARGIN + STEP * node.start, MARGIN + STEP * node.stop, MARGIN + ROW * depth
        drawn.append(f'<path class="block" d="M{x} {y}H{end}"/>')
        if node.parent is not None:
            above = MARGIN + ROW * level[node.parent]
            drawn.append(f'<path class="block" stroke-dasharray="3 3" d="M{x} {above}V{y}"/>')
        title = f"state {node.start}, in slot {node.slot}, from which steps up to {node.stop} are reversed"
        drawn.append(f'<circle class="held" cx="{x}" cy="{y}" r="6"><title>{title}</title></circle>')
    bottom = MARGIN + ROW * (max(level) + 1)
    for step in range(steps + 1):
        drawn.append(f'<text x="{MARGIN + STEP * step}" y="{bottom}" text-anchor="middle">{step}</text>')
    label = f"Tree of checkpoints: {checkpoints} states for {steps} steps, {len(nodes)} stored in all"
    size = f"0 0 {2 * MARGIN + STEP * steps} {bottom + 12}"
    return f'<div class="tree"><svg role="img" aria-label="{label}" viewBox="{size}">{"".join(drawn)}</svg></div>'
