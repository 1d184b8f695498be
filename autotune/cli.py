"""The command line: it parses, calls the library, and prints. The only file that imports typer.

Whatever is heavy (jax, pandas, optuna, matplotlib) is imported by the commands that need it, as they run: `--help`
loads none of it.
"""

import functools
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from autotune._console import Exit, Format, Screen
from autotune._errors import AutotuneError
from profiles._errors import ProfilesError
from profiles._records import AdjointName

app = typer.Typer(
    name="ckpt-tune",
    help="Choose the number of checkpoints for differentiating through ODE/SDE/CDE solves from a memory budget.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
profiles_app = typer.Typer(help="List, show, export, import and delete stored profiles.", no_args_is_help=True)
app.add_typer(profiles_app, name="profiles")

Problem = Annotated[str, typer.Argument(help="FILE.py:factory or package.module:factory.", metavar="PROBLEM")]
ProfileName = Annotated[str, typer.Argument(help="A profile's name, as `profiles list` shows it.", metavar="PROFILE")]
Budget = Annotated[str, typer.Option(help="Bytes of one call, its arguments included: 6GiB, 80% of the device, auto.")]
Margin = Annotated[float | None, typer.Option(help="Share of the budget that is left alone, 0 to 1.")]
Horizon = Annotated[list[str] | None, typer.Option(help="Horizons to sweep, comma-separated, repeatable.")]
Tolerance = Annotated[list[str] | None, typer.Option(help="Tolerances to sweep, comma-separated, repeatable.")]
Checkpoints = Annotated[list[str] | None, typer.Option(help="Counts to try, comma-separated, or auto.")]
SetValues = Annotated[
    list[str] | None, typer.Option("--set", help="KEY=VALUE[,VALUE…] handed to the factory; repeatable.")
]
Store = Annotated[
    str | None, typer.Option(help="SQLite path or SQLAlchemy URL; else $CKPT_TUNE_STORE, else your data folder.")
]
FormatOption = Annotated[Format, typer.Option("--format", help="How data is written to standard output.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress and no remarks.")]
Adjoint = Annotated[AdjointName, typer.Option(help="Whose adjoint: this project's or Diffrax's own.")]
Platform = Annotated[str | None, typer.Option(help="cpu, gpu, cuda, rocm or tpu; jax's default otherwise.")]
Device = Annotated[int, typer.Option(help="Which device of the platform, from 0.")]
X64 = Annotated[bool, typer.Option("--x64", help="Compute with 64-bit floats.")]
XlaFlags = Annotated[list[str] | None, typer.Option(help="XLA flags to try; repeat for alternatives, '' for none.")]
Timeout = Annotated[float, typer.Option(help="Seconds that compiling, or one call, may take before it is ended.")]
Seed = Annotated[int, typer.Option(help="Seed of samplers and of the order of timings.")]
Workers = Annotated[int, typer.Option(min=1, help="Processes that measure; compiles overlap, timings do not.")]
Force = Annotated[bool, typer.Option("--force", help="Use the profile although device, versions or code differ.")]


def guarded(command: Callable[..., None]) -> Callable[..., None]:
    """Map what a command raises to exit codes: one line where the user can mend it, a traceback where we must."""

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        screen = Screen()
        try:
            command(*args, **kwargs)
        except (AutotuneError, ProfilesError) as error:
            screen.fail(str(error), getattr(error, "frames", ()))
            raise typer.Exit(Exit.MENDABLE) from None
        except KeyboardInterrupt:
            screen.fail("interrupted; every finished measurement is stored, and the same command goes on from there")
            raise typer.Exit(Exit.INTERRUPTED) from None
        except BrokenPipeError:  # `ckpt-tune … | head`: nobody reads on
            sys.stderr.close()
            raise typer.Exit(Exit.DONE) from None
        except (typer.Exit, typer.Abort, typer.BadParameter):
            raise
        except Exception:
            traceback.print_exc()
            screen.fail("this is a bug of ckpt-tune; the traceback above is what a report of it needs")
            raise typer.Exit(Exit.BUG) from None

    return run


def _version(wanted: bool) -> None:
    if wanted:
        import importlib.metadata

        typer.echo(f"ckpt-tune {importlib.metadata.version('ckpt-tune')}")
        raise typer.Exit


@app.callback()
def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show it.")] = False,
) -> None:
    """Read `[tool.ckpt-tune]` of the nearest pyproject.toml; the command line wins over it."""
    from autotune._options import find_table, read_options

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
        raise typer.Exit(Exit.MENDABLE) from None
    context.default_map = {
        name: {
            params[option].name: [value] if params[option].multiple and not isinstance(value, list) else value
            for option, value in options.items()
            if option in params
        }
        for name, params in by_command.items()
    }


@app.command()
@guarded
def device(
    platform: Platform = None,
    device: Device = 0,
    x64: X64 = False,
    format: FormatOption = Format.TABLE,
) -> None:
    """Show what is here: device, memory, what holds it, limits, versions, and what cannot be told."""
    from autotune import _show
    from autotune._cache import compilation_cache
    from autotune._machine import make_machine
    from autotune._trial import RunSettings
    from profiles._engine import default_url

    machine = make_machine(RunSettings(platform=platform, device=device, x64=x64, own_environment=True))
    try:
        info = machine.device_info()
    finally:
        machine.close()
    screen = Screen()
    document = info.to_json() | {"compilation_cache": str(compilation_cache({})), "store": default_url()}
    if format is Format.JSON:
        screen.json(document)
    elif format is Format.CSV:
        screen.csv([document])
    else:
        _show.show_device(screen, info, cache=document["compilation_cache"], store=document["store"])


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
    store: Store = None,
    replay: Annotated[str | None, typer.Option(help="A store to take measurements from instead of a device.")] = None,
    report: Annotated[Path | None, typer.Option(help="Write the report to this folder as well.")] = None,
    timeout: Timeout = 600.0,
    seed: Seed = 0,
    platform: Platform = None,
    device: Device = 0,
    x64: X64 = False,
    xla_flags: XlaFlags = None,
    format: FormatOption = Format.TABLE,
    quiet: Quiet = False,
) -> None:
    """Find the checkpoint count that is fastest within a memory budget, and keep every measurement."""
    from autotune import _space
    from autotune._request import TuneRequest
    from autotune._trial import RunSettings
    from autotune._tune_command import TuneCommand

    listed = _space.Listed(
        horizons=_space.numbers(horizon or (), option="--horizon"),
        tolerances=tuple(map(float, _space.numbers(tolerance or (), option="--tolerance"))),
        set_values=_space.set_option(set_values or ()),
        xla_flags=tuple(xla_flags or ()),
        counts=_space.checkpoint_counts(checkpoints or ()),
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
        settings=RunSettings(platform=platform, device=device, x64=x64, timeout_seconds=timeout),
    )
    command = TuneCommand(request, store_url=store, replay_url=replay, report_folder=report, format=format)
    code = command.dry_run(Screen(quiet=quiet)) if dry_run else command.run(Screen(quiet=quiet))
    raise typer.Exit(code)


def main() -> None:
    """Run the command line."""
    app()


if __name__ == "__main__":
    main()
