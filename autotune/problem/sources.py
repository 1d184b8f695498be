"""The source of a problem: its own file and the neighbours that it imports, as they were when they were loaded. No jax.

A file may be edited while it is being tuned, so what a process runs is identified by the text that it loaded, never by
what lies on the disk later.
"""

import ast
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path


def sources_now(path: Path) -> dict[str, str]:
    """Read a module's file and those of its neighbours that are imported, by their whole paths."""
    found = {}
    for file in _files(path):
        try:
            found[str(file)] = file.read_text(encoding="utf-8")
        except (OSError, ValueError):
            found[str(file)] = ""
    return found


def normalised_sources(path: str | None, loaded: Mapping[str, str]) -> dict[str, str]:
    """Collect the sources of a problem without comments, docstrings and layout, by file name.

    Args:
        path: the file that defines its factory; None where there is none.
        loaded: texts as they were loaded, by whole path; a neighbour that was imported later is read now.
    """
    if path is None:
        return {}
    folder = Path(path).resolve().parent
    texts = {**sources_now(Path(path)), **loaded}
    return {str(Path(file).relative_to(folder)): _normalised(text) for file, text in sorted(texts.items())}


def _files(path: Path) -> Iterator[Path]:
    """Name a module's file and those of its neighbours, in its folder or below it, that are imported."""
    own = path.resolve()
    yield own
    for name in _imported_names(path):
        module = sys.modules.get(name)
        file = Path(getattr(module, "__file__", None) or "").resolve()
        if file.suffix == ".py" and file != own and file.is_relative_to(own.parent):
            yield file


def _imported_names(path: Path) -> set[str]:
    """List what a file imports, and what those of its imports that lie in its folder import in turn."""
    seen: set[str] = set()
    waiting = [path]
    while waiting:
        try:
            tree = ast.parse(waiting.pop().read_text(encoding="utf-8"))
        except (OSError, SyntaxError, ValueError):
            continue
        names = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
        for name in names - seen:
            neighbour = path.resolve().parent.joinpath(*name.split(".")).with_suffix(".py")
            if neighbour.is_file():
                waiting.append(neighbour)
        seen |= names
    return seen


def _normalised(text: str) -> str:
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return ""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and ast.get_docstring(
            node, clean=False
        ):
            node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(tree)
