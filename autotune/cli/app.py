"""The command line: it parses, calls the library, and prints.

Whatever is heavy (jax, pandas, optuna, altair) is imported by the commands that need it, as they run: `--help`
loads none of it.
"""

import os
from pathlib import Path
from typing import Annotated

import typer

from autotune.choosing.objective import Objective
from autotune.cli.commands.device import device
from autotune.cli.commands.profiles import profiles_app
from autotune.cli.commands.report import report
from autotune.cli.commands.targets import targets_app
from autotune.cli.commands.worker import worker
from autotune.cli.common import (
    X64,
    Adjoint,
    Aim,
    Budget,
    CarryOver,
    Checkpoints,
    Cluster,
    ClusterKind,
    ClusterWait,
    Commands,
    ComparedProblem,
    Device,
    DevicesPerHost,
    DiskBudget,
    DiskDirectory,
    Extrapolation,
    Force,
    FormatOption,
    ForwardOnly,
    Horizon,
    HostBudget,
    Largest,
    Margin,
    PlanHorizons,
    PlanHostBudget,
    PlanProblem,
    PlanTolerances,
    Platform,
    Predicted,
    Problem,
    ProfileName,
    Quiet,
    RunFlags,
    Seed,
    SetValues,
    Ship,
    Steps,
    Store,
    Targets,
    Tiers,
    Timeout,
    TlsCa,
    TlsCert,
    TlsKey,
    Tolerance,
    Workers,
    XlaFlags,
    guarded,
)
from autotune.cli.help import App, version_text
from autotune.cli.screen import Exit, Format, Screen
from autotune.cli.streams import run
from autotune.errors import AutotuneError
from profiles import AdjointName

app = App(
    name="ckpt-tune",
    cls=Commands,
    help="Choose the number of checkpoints for differentiating through ODE/SDE/CDE solves from a memory budget.",
)
app.add_typer(profiles_app, name="profiles")
app.add_typer(targets_app, name="targets")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(version_text())
        raise typer.Exit


@app.callback()
def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show it.")] = False,
) -> None:
    """Read `[tool.ckpt-tune]` of the nearest pyproject.toml; the command line wins over it."""
    from autotune.cli.pyproject import find_table, read_options

    try:
        found = find_table(Path.cwd())
        if found is None:
            return
        commands = context.command.commands  # pyright: ignore[reportAttributeAccessIssue]
        leaves = {name: c for name, c in commands.items() if not hasattr(c, "commands")}
        by_command = {
            name: {flag.removeprefix("--"): param for param in command.params for flag in param.opts}
            for name, command in leaves.items()
        }
        known = {name for params in by_command.values() for name, p in params.items() if p.param_type_name == "option"}
        options = read_options(*found, known - {"help"})
    except AutotuneError as error:
        Screen().fail(str(error))
        raise typer.Exit(Exit.USER_ERROR) from None
    except OSError as error:
        Screen().fail(f"the folder in which the command runs cannot be read: {error.strerror}; go to another one")
        raise typer.Exit(Exit.USER_ERROR) from None
    context.default_map = {
        name: {
            params[option].name: [value] if params[option].multiple and not isinstance(value, list) else value
            for option, value in options.items()
            if option in params
        }
        for name, params in by_command.items()
    }


app.command()(device)


@app.command()
@guarded
def tune(
    problem: Problem,
    budget: Budget = "auto",
    horizon: Horizon = None,
    tolerance: Tolerance = None,
    checkpoints: Checkpoints = None,
    set_values: SetValues = None,
    adjoint: Adjoint = AdjointName.OURS,
    margin: Margin = None,
    exhaustive: Annotated[bool, typer.Option("--exhaustive", help="Measure the whole grid.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the trials and their time; measure none.")] = False,
    workers: Workers = 1,
    cluster: Cluster = None,
    cluster_wait: ClusterWait = 300.0,
    cluster_kind: ClusterKind = None,
    ship: Ship = False,
    tls_ca: TlsCa = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    store: Store = None,
    replay: Annotated[str | None, typer.Option(help="A store to take measurements from instead of a device.")] = None,
    report: Annotated[Path | None, typer.Option(help="Write the report to this folder as well.")] = None,
    largest: Largest = None,
    max_recompute: Annotated[float, typer.Option(help="With --largest: the recompute factor that is bearable.")] = 4.0,
    target: Targets = None,
    devices_per_host: DevicesPerHost = 1,
    tiers: Tiers = "device",
    host_budget: HostBudget = None,
    disk_budget: DiskBudget = None,
    disk_directory: DiskDirectory = None,
    steps: Steps = None,
    forward_only: ForwardOnly = False,
    timeout: Timeout = 600.0,
    seed: Seed = 0,
    platform: Platform = None,
    device: Device = 0,
    x64: X64 = False,
    xla_flags: XlaFlags = None,
    format: FormatOption = Format.TABLE,
    quiet: Quiet = False,
) -> None:
    """Find the fastest checkpoint count within a memory budget. Every measurement is kept."""
    from autotune.cli.commands.tune import TuneCommand, check_tiers, read_cluster
    from autotune.cli.set_option import set_option
    from autotune.machine.tiers import read_tiers
    from autotune.measuring.trial import RunSettings
    from autotune.search import space
    from autotune.tuning.largest import LargestRequest
    from autotune.tuning.request import TuneRequest

    listed = space.Listed(
        horizons=space.numbers(horizon or (), option="--horizon"),
        tolerances=tuple(map(float, space.numbers(tolerance or (), option="--tolerance"))),
        set_values=set_option(set_values or ()),
        xla_flags=tuple(xla_flags or ()),
        counts=space.checkpoint_counts(checkpoints or ()),
        x64=x64,
    )
    request = TuneRequest(
        problem=problem,
        budget=budget,
        margin=margin,
        listed=listed,
        adjoint=adjoint,
        exhaustive=exhaustive,
        workers=workers,
        seed=seed,
        steps=steps,
        forward_only=forward_only,
        tiers=read_tiers(tiers, host_budget=host_budget, disk_budget=disk_budget, disk_directory=disk_directory),
        settings=RunSettings(platform=platform, device=device, x64=x64, timeout_seconds=timeout),
    )
    check_tiers(request, tiers, largest)
    if target or devices_per_host > 1:
        from autotune.cli.commands.tune_targets import TargetOptions, tune_targets_command

        elsewhere = {
            "--cluster": cluster,
            "--replay": replay,
            "--largest": largest,
            "--report": report,
            "--dry-run": dry_run,
        }
        options = TargetOptions(names=tuple(target or ()), count=devices_per_host, elsewhere=elsewhere, format=format)
        raise typer.Exit(tune_targets_command(Screen(quiet=quiet), request, options, store))
    command = TuneCommand(
        request,
        cluster=read_cluster(cluster, (tls_ca, tls_cert, tls_key), wait=cluster_wait, kind=cluster_kind, ship=ship),
        store_url=store,
        replay_url=replay,
        report_folder=report,
        largest=None if largest is None else LargestRequest(key=largest, max_recompute=max_recompute),
        format=format,
    )
    raise typer.Exit(command.dry_run(Screen(quiet=quiet)) if dry_run else command.run(Screen(quiet=quiet)))


@app.command()
@guarded
def recommend(
    profile: ProfileName,
    budget: Budget = "auto",
    horizon: Annotated[str | None, typer.Option(help="At this horizon; at each measured one otherwise.")] = None,
    tolerance: Annotated[str | None, typer.Option(help="At this tolerance; at each measured one otherwise.")] = None,
    set_values: SetValues = None,
    margin: Margin = None,
    objective: Aim = Objective.TIME,
    allow_extrapolation: Extrapolation = False,
    xla_flags: RunFlags = None,
    problem: ComparedProblem = None,
    force: Force = False,
    store: Store = None,
    platform: Platform = None,
    device: Device = 0,
    x64: X64 = False,
    timeout: Timeout = 600.0,
    format: FormatOption = Format.TABLE,
    quiet: Quiet = False,
) -> None:
    """Recommend a count from a stored profile. Says what more and less memory would buy, too."""
    from autotune.choosing.recommend import RecommendRequest
    from autotune.cli.commands import recommend as commands
    from autotune.cli.set_option import set_option
    from autotune.measuring.trial import RunSettings
    from autotune.search import space

    values = set_option(set_values or ())
    request = RecommendRequest(
        budget_bytes=1,
        horizon=None if horizon is None else space.number(horizon, option="--horizon"),
        tolerance=None if tolerance is None else float(space.number(tolerance, option="--tolerance")),
        set_values={key: listed[0] for key, listed in values.items()},
        xla_flags=tuple(xla_flags) if xla_flags else None,
        objective=objective,
        allow_extrapolation=allow_extrapolation,
    )
    options = commands.RecommendOptions(
        profile=profile,
        problem=problem,
        budget=budget,
        margin=margin,
        request=request,
        settings=RunSettings(platform=platform, device=device, x64=x64, timeout_seconds=timeout, own_environment=True),
        force=force,
    )
    raise typer.Exit(commands.recommend_command(Screen(quiet=quiet), options, store, format))


@app.command()
@guarded
def check(
    problem: Problem,
    adjoint: Adjoint = AdjointName.OURS,
    store: Store = None,
    platform: Platform = None,
    device: Device = 0,
    x64: X64 = False,
    timeout: Timeout = 600.0,
    format: FormatOption = Format.TABLE,
) -> None:
    """Check whether the stored choice still holds. Code, device and versions are compared: exit 0, else 4."""
    from autotune.cli.commands.check import check_command
    from autotune.measuring.trial import RunSettings

    settings = RunSettings(platform=platform, device=device, x64=x64, timeout_seconds=timeout, own_environment=True)
    raise typer.Exit(check_command(Screen(), problem, adjoint, settings=settings, store_url=store, format=format))


app.command()(worker)


@app.command()
@guarded
def schedule(
    steps: Annotated[int, typer.Option(min=1, help="Steps of the solve.")],
    checkpoints: Annotated[int, typer.Option(min=1, help="States held at once.")],
    expected_steps: Predicted = None,
    online: Annotated[bool, typer.Option("--online", help="Without any prediction.")] = False,
    out: Annotated[Path | None, typer.Option(help="Write the tree as PNG and SVG to this folder.")] = None,
    format: FormatOption = Format.TABLE,
) -> None:
    """Show where our adjoint places its checkpoints, and its sweeps."""
    from autotune.cli.schedule_view import schedule_command

    expected = None if online else steps if expected_steps is None else expected_steps
    raise typer.Exit(schedule_command(Screen(), steps, checkpoints, expected, out=out, format=format))


app.command()(report)


@app.command()
@guarded
def plan(
    profile: Annotated[list[str], typer.Argument(help="Profiles to plan for.", metavar="PROFILE...")],
    devices: Annotated[str | None, typer.Option(help="Devices of the catalogue, comma-separated; else all.")] = None,
    horizons: PlanHorizons = None,
    tolerances: PlanTolerances = None,
    max_recompute: Annotated[float, typer.Option(help="The recompute factor that is wanted at most.")] = 2.0,
    margin: Annotated[float, typer.Option(help="Share of a device's memory that is left alone.")] = 0.1,
    host_budget: PlanHostBudget = None,
    catalogue: Annotated[Path | None, typer.Option(help="TOML with devices or prices of your own.")] = None,
    problem: PlanProblem = None,
    carry_over: CarryOver = False,
    store: Store = None,
    format: FormatOption = Format.TABLE,
) -> None:
    """Plan for other devices: what fits, at what recompute factor. Says what memory would be enough, too."""
    import profiles
    from autotune.cli.commands.plan import PlanOptions, plan_command
    from autotune.machine.budget import parse_bytes
    from autotune.machine.targets import memory_share
    from autotune.search import space

    request = profiles.PlanRequest(
        memory_share=memory_share(os.environ),
        horizons=tuple(map(float, space.numbers(horizons or (), option="--horizons"))),
        tolerances=tuple(map(float, space.numbers(tolerances or (), option="--tolerances"))),
        max_recompute=max_recompute,
        margin=margin,
        host_bytes=None if host_budget is None else parse_bytes(host_budget),
    )
    names = tuple(name.strip() for name in (devices or "").split(",") if name.strip())
    options = PlanOptions(
        names=tuple(profile), devices=names, request=request, catalogue=catalogue, problem=problem,
        carry_over=carry_over,
    )  # fmt: skip
    raise typer.Exit(plan_command(Screen(), options, store, format))


@app.command()
@guarded
def compare(
    before: Annotated[str, typer.Argument(help="A profile's name.", metavar="BEFORE")],
    after: Annotated[str, typer.Argument(help="Another profile's name.", metavar="AFTER")],
    out: Annotated[Path | None, typer.Option(help="Draw both fronts as PNG and SVG in this folder.")] = None,
    store: Store = None,
    format: FormatOption = Format.TABLE,
) -> None:
    """Show two profiles side by side, with what changed."""
    from autotune.cli.commands.plan import compare_command

    raise typer.Exit(compare_command(Screen(), (before, after), store, out, format))


def main() -> None:
    """Run the command line."""
    run(app)
