"""The commands below `ckpt-tune targets`: XLA's compilers for devices that are not here."""

from typing import Annotated

import typer

from autotune.cli.common import FormatOption, guarded
from autotune.cli.help import App
from autotune.cli.screen import Format, Screen
from autotune.errors import AutotuneError

targets_app = App(help="Manage the compilers for devices that are not here.")

Kinds = Annotated[list[str], typer.Argument(help="gpu, tpu, or both.", metavar="KIND...")]


@targets_app.command("list")
@guarded
def list_targets(format: FormatOption = Format.TABLE) -> None:
    """List the compilers that are there. For which jax and Python, in which version, how large, and where."""
    from autotune.machine.compilers import KINDS, installed
    from profiles import format_bytes

    found = installed()
    records = [
        {
            "kind": one.kind, "jax": one.jax, "python": one.python, "version": one.version, "usable": one.usable,
            "bytes": one.bytes, "folder": str(one.folder),
        }
        for one in found
    ]  # fmt: skip
    screen = Screen()
    if format is Format.JSON:
        screen.json({"schema_version": 1, "compilers": records})
    elif format is Format.CSV:
        screen.csv(records, ("kind", "jax", "python", "version", "usable", "bytes", "folder"))
    else:
        columns = ("kind", "jax", "Python", "version", "for this jax", "size", "folder")
        lines = [
            (c.kind, c.jax, c.python, c.version, "yes" if c.usable else "", format_bytes(c.bytes), str(c.folder))
            for c in found
        ]
        screen.table(columns, lines)
        for kind in KINDS:
            if not any(one.kind == kind and one.usable for one in found):
                screen.line(f"none for {kind}: ckpt-tune targets install {kind}")


@targets_app.command("install")
@guarded
def install_targets(kinds: Kinds) -> None:
    """Install compilers with pip: 0.7 GB a kind. They go into a folder of ours, in step with the installed jax."""
    from autotune.machine.compilers import install
    from profiles import format_bytes

    screen = Screen()
    for kind in _checked(kinds):
        screen.say(f"installing the compilers for {kind}")
        one = install(kind)
        screen.line(f"installed {kind} {one.version} for jax {one.jax}, {format_bytes(one.bytes)}, in {one.folder}")


@targets_app.command("remove")
@guarded
def remove_targets(kinds: Kinds) -> None:
    """Remove compilers, for whatever jax they were installed."""
    from autotune.machine.compilers import remove
    from profiles import format_bytes

    screen = Screen()
    gone = remove(_checked(kinds))
    for one in gone:
        screen.line(f"removed {one.kind} {one.version} for jax {one.jax}, {format_bytes(one.bytes)}, from {one.folder}")
    if not gone:
        screen.line("nothing was there to remove")


def _checked(kinds: list[str]) -> list[str]:
    """Read the kinds, comma-separated or not.

    Raises:
        AutotuneError: there are no compilers of such a name.
    """
    from autotune.machine.compilers import KINDS

    found = list(dict.fromkeys(part.strip().lower() for kind in kinds for part in kind.split(",") if part.strip()))
    for kind in found:
        if kind not in KINDS:
            raise AutotuneError(f"there are no compilers for {kind!r}; install or remove {' or '.join(KINDS)}")
    return found
