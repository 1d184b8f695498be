"""The command `device`: what is here, as a worker process sees it."""

from typing import Annotated

import typer

from autotune.cli.common import X64, Device, FormatOption, Platform, guarded
from autotune.cli.screen import Format, Screen


@guarded
def show_device(
    platform: Platform = None,
    device: Device = 0,
    x64: X64 = False,
    catalogue: Annotated[bool, typer.Option("--catalogue", help="List the devices that are known instead.")] = False,
    format: FormatOption = Format.TABLE,
) -> None:
    """Show what is here: device, memory, what holds it, limits, versions, and what the backend does not report."""
    if catalogue:
        from autotune.cli.commands.plan import catalogue_command

        raise typer.Exit(catalogue_command(Screen(), format))
    from autotune.cli import tables
    from autotune.machine.cache import compilation_cache
    from autotune.measuring.trial import RunSettings
    from autotune.tuning.lab import make_machine
    from profiles import default_url, without_password

    machine = make_machine(RunSettings(platform=platform, device=device, x64=x64, own_environment=True))
    try:
        info = machine.device_info()
    finally:
        machine.close()
    screen = Screen()
    places = {"compilation_cache": str(compilation_cache({})), "store": without_password(default_url())}
    document = info.to_json() | places
    if format is Format.JSON:
        screen.json(document)
    elif format is Format.CSV:
        screen.csv([document])
    else:
        tables.show_device(screen, info, cache=document["compilation_cache"], store=document["store"])
