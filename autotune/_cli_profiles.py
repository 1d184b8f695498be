"""The commands below `ckpt-tune profiles`: what a store holds, out of it, and into it."""

from pathlib import Path
from typing import Annotated

import typer

from autotune._cli_common import FormatOption, ProfileName, Store, guarded
from autotune._console import Format, Screen

profiles_app = typer.Typer(help="List, show, export, import and delete stored profiles.", no_args_is_help=True)


@profiles_app.command("list")
@guarded
def list_profiles(store: Store = None, format: FormatOption = Format.TABLE) -> None:
    """List the profiles of a store."""
    from autotune._profile_commands import list_command

    raise typer.Exit(list_command(Screen(), store, format))


@profiles_app.command("show")
@guarded
def show_profile(profile: ProfileName, store: Store = None, format: FormatOption = Format.TABLE) -> None:
    """Show the points and fronts of a profile, and where and when they were measured."""
    from autotune._profile_commands import show_command

    raise typer.Exit(show_command(Screen(), profile, store, format))


@profiles_app.command("export")
@guarded
def export_profile(
    profile: ProfileName,
    path: Annotated[Path, typer.Argument(help="A file ending in .csv, .json or .parquet.", metavar="FILE")],
    store: Store = None,
) -> None:
    """Write every measurement of a profile to a file."""
    from autotune._profile_commands import export_command

    raise typer.Exit(export_command(Screen(), profile, path, store))


@profiles_app.command("import")
@guarded
def import_profile(
    path: Annotated[Path, typer.Argument(help="A file that `profiles export` wrote.", metavar="FILE")],
    store: Store = None,
) -> None:
    """Read measurements from a file into a store."""
    from autotune._profile_commands import import_command

    raise typer.Exit(import_command(Screen(), path, store))


@profiles_app.command("delete")
@guarded
def delete_profile(profile: ProfileName, store: Store = None) -> None:
    """Delete a profile with every measurement of it."""
    from autotune._profile_commands import delete_command

    raise typer.Exit(delete_command(Screen(), profile, store))
