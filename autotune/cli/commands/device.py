"""The command `device`: what is here, or which devices are known."""

import dataclasses
from typing import Annotated

import typer

from autotune.cli.common import X64, Device, FormatOption, Platform, guarded
from autotune.cli.screen import Format, Screen


@guarded
def device(
    platform: Platform = None,
    device: Device = 0,
    x64: X64 = False,
    catalogue: Annotated[bool, typer.Option("--catalogue", help="List the devices that are known instead.")] = False,
    format: FormatOption = Format.TABLE,
) -> None:
    """Show what is here, and what is wrong. Device, memory, what holds it, versions, extras, store."""
    if catalogue:
        from autotune.cli.commands.plan import catalogue_command

        raise typer.Exit(catalogue_command(Screen(), format))
    from autotune.cli import findings, tables
    from autotune.machine.cache import compilation_cache
    from autotune.measuring.trial import RunSettings
    from autotune.tuning.lab import make_machine
    from profiles import default_url, without_password

    machine = make_machine(RunSettings(platform=platform, device=device, x64=x64, own_environment=True))
    try:
        info = machine.device_info()
    finally:
        machine.close()
    store, unanswered = findings.store_text()
    wrong = [*findings.findings(info), *([unanswered] if unanswered else [])]
    extras = findings.extras()
    cache = str(compilation_cache({}))
    screen = Screen()
    if format is Format.TABLE:
        rows = [(f"extra {one.name}", str(one)) for one in extras]
        rows += [("wrong", f"{one.problem}; repair: {one.repair}") for one in wrong]
        tables.show_device(screen, info, cache=cache, store=store, more=rows)
        return
    document = info.to_json() | {
        "compilation_cache": cache,
        "store": without_password(default_url()),
        "store_answers": unanswered is None,
        "extras": {one.name: not one.missing for one in extras},
        "wrong": [dataclasses.asdict(one) for one in wrong],
    }
    if format is Format.JSON:
        screen.json(document)
    else:
        screen.csv([document])
