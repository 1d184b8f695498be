"""The commands below `ckpt-tune profiles`: what a store holds, out of it, and into it."""

from pathlib import Path
from typing import Annotated

import typer

from autotune.cli.common import FormatOption, ProfileName, Store, guarded
from autotune.cli.help import App
from autotune.cli.screen import Format, Screen

profiles_app = App(help="List, show, export, import and delete stored profiles.")


@profiles_app.command("list")
@guarded
def list_profiles(store: Store = None, format: FormatOption = Format.TABLE) -> None:
    """List the profiles of a store."""
    from autotune.cli.commands.recommend import list_command

    raise typer.Exit(list_command(Screen(), store, format))


@profiles_app.command("show")
@guarded
def show_profile(profile: ProfileName, store: Store = None, format: FormatOption = Format.TABLE) -> None:
    """Show the points and fronts of a profile. Says where and when they were measured."""
    from autotune.cli.commands.recommend import show_command

    raise typer.Exit(show_command(Screen(), profile, store, format))


@profiles_app.command("export")
@guarded
def export_profile(
    profile: ProfileName,
    path: Annotated[Path, typer.Argument(help="A file ending in .csv, .json or .parquet.", metavar="FILE")],
    store: Store = None,
) -> None:
    """Write every measurement of a profile to a file."""
    from autotune.cli.commands.recommend import export_command

    raise typer.Exit(export_command(Screen(), profile, path, store))


@profiles_app.command("import")
@guarded
def import_profile(
    path: Annotated[Path, typer.Argument(help="A file that `profiles export` wrote.", metavar="FILE")],
    store: Store = None,
) -> None:
    """Read measurements from a file into a store."""
    from autotune.cli.commands.recommend import import_command

    raise typer.Exit(import_command(Screen(), path, store))


@profiles_app.command("delete")
@guarded
def delete_profile(profile: ProfileName, store: Store = None) -> None:
    """Delete a profile with every measurement of it."""
    from autotune.cli.commands.recommend import delete_command

    raise typer.Exit(delete_command(Screen(), profile, store))
