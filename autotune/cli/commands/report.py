"""The command `report`: CSV, figures and one page of a profile, with other devices beside its own."""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from autotune.cli.common import ProfileName, Store, guarded
from autotune.cli.screen import Exit, Screen


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ReportOptions:
    """One call of `ckpt-tune report`: which profile, where to, and what to mark or to set beside it."""

    name: str
    folder: Path
    budget: str | None = None
    devices: Sequence[str] = ()
    catalogue: Path | None = None


@guarded
def report(
    profile: ProfileName,
    out: Annotated[Path, typer.Option(help="The folder; files of an earlier report in it are replaced.")],
    budget: Annotated[str | None, typer.Option(help="Mark the budget, and what is recommended within it.")] = None,
    devices: Annotated[
        str | None, typer.Option(help="Devices to set beside each other, comma-separated; else those with a profile.")
    ] = None,
    catalogue: Annotated[Path | None, typer.Option(help="TOML with devices or prices of your own.")] = None,
    store: Store = None,
) -> None:
    """Write a profile as CSV, figures and one HTML page."""
    names = [name.strip() for name in (devices or "").split(",") if name.strip()]
    options = ReportOptions(name=profile, folder=out, budget=budget, devices=names, catalogue=catalogue)
    raise typer.Exit(report_command(Screen(), options, store))


def report_command(screen: Screen, options: ReportOptions, store_url: str | None) -> Exit:
    """Write the report of a profile; with a budget it marks what is recommended there."""
    from autotune.choosing.recommend import Recommendation, RecommendRequest, recommend_from
    from autotune.choosing.report import write_report
    from autotune.cli.opening import reading
    from autotune.machine.budget import resolve_budget
    from autotune.machine.targets import memory_share
    from autotune.planning.hardware import side_by_side
    from autotune.tuning.lab import described_device
    from profiles import PlanRequest, load_devices

    with reading(store_url) as store:
        profile = store.profile(options.name)
        request = PlanRequest(memory_share=memory_share(os.environ))
        hardware = side_by_side(profile, store, load_devices(options.catalogue), options.devices, request)
    chosen: tuple[Recommendation, ...] = ()
    if options.budget is not None:
        resolved = resolve_budget(options.budget, described_device(profile.device), rows=profile.measurements)
        chosen = recommend_from(
            profile, RecommendRequest(budget_bytes=resolved.bytes, margin_bytes=resolved.margin_bytes)
        )
    for path in write_report(profile, options.folder, chosen, hardware):
        screen.line(f"wrote {path}")
    return Exit.DONE
