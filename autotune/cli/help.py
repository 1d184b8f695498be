"""How help is written: options in groups, examples below them, and what a shell completes. Loads nothing heavy."""

import ast
from pathlib import Path
from typing import Any

import typer
import typer.core

GROUPS = {
    "What is measured": (
        "horizon", "tolerance", "checkpoints", "set_values", "adjoint", "steps", "forward_only", "exhaustive",
        "largest", "max_recompute",
    ),
    "Memory": ("budget", "margin", "tiers", "host_budget", "disk_budget", "disk_directory"),
    "This machine": ("platform", "device", "x64", "xla_flags", "workers", "timeout", "seed"),
    "Several machines": ("cluster", "cluster_wait", "cluster_kind", "ship", "tls_ca", "tls_cert", "tls_key", "wait"),
    "Devices that are not here": (
        "target", "devices_per_host", "devices", "horizons", "tolerances", "catalogue", "carry_over",
    ),
    "Input and output": ("store", "replay", "report", "out", "dry_run", "format", "quiet"),
}  # fmt: skip
"""Which group a parameter belongs to, by its name; any other is among the options that stand before the groups."""

EXAMPLES = {
    "device": ("ckpt-tune device", "ckpt-tune device --catalogue"),
    "tune": (
        "ckpt-tune tune my_model.py:make --budget 6GiB",
        "ckpt-tune tune my_model.py:make --budget 80% --horizon 10,20 --set batch=64,128 --report report",
        "ckpt-tune tune my_model.py:make --target h100-80gb,tpu-v5e --budget 75%",
    ),
    "recommend": (
        "ckpt-tune recommend my_model:make --budget 4GiB",
        "ckpt-tune recommend my_model:make --budget 4GiB --horizon 15 --format json",
    ),
    "check": ("ckpt-tune check my_model.py:make || ckpt-tune tune my_model.py:make --budget 6GiB",),
    "worker": ("ckpt-tune worker tcp://127.0.0.1:8786",),
    "schedule": (
        "ckpt-tune schedule --steps 12 --checkpoints 4",
        "ckpt-tune schedule --steps 1000 --checkpoints 20 --format json",
    ),
    "report": ("ckpt-tune report my_model:make --out report --budget 4GiB",),
    "plan": (
        "ckpt-tune plan my_model:make --devices a100-40gb,l4 --max-recompute 2",
        "ckpt-tune plan my_model.py:make --devices h100-80gb",
    ),
    "compare": ("ckpt-tune compare my_model:make my_model:make@before --out compared",),
    "profiles list": ("ckpt-tune profiles list", "ckpt-tune profiles list --store team.db --format json"),
    "profiles show": ("ckpt-tune profiles show my_model:make",),
    "profiles export": ("ckpt-tune profiles export my_model:make my_model.csv",),
    "profiles import": ("ckpt-tune profiles import my_model.csv --store team.db",),
    "profiles delete": ("ckpt-tune profiles delete my_model:make",),
    "targets list": ("ckpt-tune targets list",),
    "targets install": ("ckpt-tune targets install gpu tpu",),
    "targets remove": ("ckpt-tune targets remove tpu",),
}
"""Examples of each command, by its words."""

_WIDTH = {"max_content_width": 100, "help_option_names": ["--help", "-h"]}
_GROUP_OF = {name: group for group, names in GROUPS.items() for name in names}


class Command(typer.core.TyperCommand):
    """A command whose help shows its options in groups, and examples below them."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the arguments, the options of no group, and each group that has any."""
        listed: dict[str, list[tuple[str, str]]] = {title: [] for title in ("Arguments", "Options", *GROUPS)}
        for one in self.get_params(ctx):
            record = one.get_help_record(ctx)
            if record is not None:
                title = "Arguments" if one.param_type_name == "argument" else _GROUP_OF.get(one.name or "", "Options")
                listed[title].append(record)
        for title, records in listed.items():
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the examples, each on a line of its own, however long."""
        words, one = [], ctx
        while one.parent is not None:
            words, one = [one.info_name, *words], one.parent
        if examples := EXAMPLES.get(" ".join(words)):
            with formatter.section("Examples"):
                for line in examples:
                    formatter.write(f"{'':{formatter.current_indent}}{line}\n")
        super().format_epilog(ctx, formatter)


class App(typer.Typer):
    """A group of commands, whose help is plain text as wide as the terminal, up to 100 columns."""

    def __init__(self, **settings: Any) -> None:
        """Make it; the arguments are Typer's."""
        super().__init__(
            context_settings=_WIDTH, rich_markup_mode=None, pretty_exceptions_enable=False, no_args_is_help=True,
            **settings,
        )  # fmt: skip

    def command(self, name: str | None = None, **settings: Any) -> Any:
        """Add a command, with its options in groups."""
        return super().command(name, **{"cls": Command, "context_settings": _WIDTH, **settings})


def version_text() -> str:
    """Say which version this is, with those of the packages that decide what it measures, and where it is."""
    import importlib.metadata
    import platform

    ours = importlib.metadata.version("ckpt-tune")
    found = []
    for name in ("jax", "jaxlib", "equinox", "diffrax", "optuna"):
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            found.append(f"{name} is not installed")
    place = Path(__file__).resolve().parent.parent.parent
    return f"ckpt-tune {ours}\nPython {platform.python_version()}, {', '.join(found)}\n{place}"


def complete_profile(incomplete: str) -> list[str]:
    """List the profiles of the store that is used where none is named; nothing where it cannot be read."""
    from profiles import ProfilesError, open_store

    try:
        with open_store(read_only=True) as store:
            return sorted(one.name for one in store.profiles() if one.name.startswith(incomplete))
    except ProfilesError:
        return []


def complete_problem(incomplete: str) -> list[str]:
    """List Python files and folders, and after a colon the functions of the file that take an adjoint."""
    file, colon, begun = incomplete.partition(":")
    if colon:
        return [f"{file}:{name}" for name in _factories(Path(file)) if name.startswith(begun)]
    folder = Path(file) if file.endswith("/") else Path(file).parent
    there = sorted(folder.glob("*")) if folder.is_dir() else []
    files = [f"{path.as_posix()}:" for path in there if path.suffix == ".py"]
    named = files + [f"{path.as_posix()}/" for path in there if path.is_dir()]
    return [name for name in named if name.startswith(file) and not Path(name).name.startswith((".", "__"))]


def _factories(path: Path) -> list[str]:
    try:
        body = ast.parse(path.read_text(encoding="utf-8")).body
    except (OSError, SyntaxError, ValueError):
        return []
    functions = [node for node in body if isinstance(node, ast.FunctionDef)]
    return [
        node.name for node in functions if "adjoint" in [one.arg for one in (*node.args.args, *node.args.kwonlyargs)]
    ]
