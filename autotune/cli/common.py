"""What the commands have in common: their options, and what becomes of an error.

Like `cli`, it loads nothing heavy.
"""

import contextlib
import functools
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import typer
import typer.core

from autotune.choosing.objective import Objective
from autotune.cli.help import complete_problem, complete_profile
from autotune.cli.screen import Exit, Format, Screen
from autotune.cli.streams import is_output, said_of_output, visible
from autotune.errors import AutotuneError
from profiles import AdjointName, ProfilesError, hide_passwords, named_stores

Problem = Annotated[
    str,
    typer.Argument(
        help="FILE.py:factory or package.module:factory.", metavar="PROBLEM", autocompletion=complete_problem
    ),
]
ProfileName = Annotated[
    str,
    typer.Argument(
        help="A profile's name, as `profiles list` shows it.", metavar="PROFILE", autocompletion=complete_profile
    ),
]
Budget = Annotated[str, typer.Option(help="Bytes of one call, its arguments included: 6GiB, 80% of the device, auto.")]
Margin = Annotated[float | None, typer.Option(help="Share of the budget that is left alone, 0 to 1.")]
Horizon = Annotated[list[str] | None, typer.Option(help="Horizons to sweep, comma-separated, repeatable.")]
Tolerance = Annotated[list[str] | None, typer.Option(help="Tolerances to sweep, comma-separated, repeatable.")]
Checkpoints = Annotated[list[str] | None, typer.Option(help="Counts to try, comma-separated, or auto.")]
SetValues = Annotated[
    list[str] | None,
    typer.Option("--set", help="KEY=VALUE[,VALUE…] for the factory, Python literals, else texts; repeatable."),
]
Store = Annotated[
    str | None,
    typer.Option(
        help="SQLite path, SQLAlchemy URL or a service's address; else $CKPT_TUNE_STORE, else your data folder."
    ),
]
FormatOption = Annotated[Format, typer.Option("--format", help="How data is written to standard output.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress and no remarks.")]
Adjoint = Annotated[AdjointName, typer.Option(help="Whose adjoint: this project's or Diffrax's own.")]
Platform = Annotated[str | None, typer.Option(help="cpu, gpu, cuda, rocm or tpu; jax's default otherwise.")]
Device = Annotated[int, typer.Option(help="Which device of the platform, from 0.")]
X64 = Annotated[bool, typer.Option("--x64", help="Compute with 64-bit floats.")]
XlaFlags = Annotated[
    list[str] | None,
    typer.Option(help="XLA flags to try; repeat for alternatives, '' for none, auto for those known to pay here."),
]
Tiers = Annotated[
    str, typer.Option(help="Where states may be held: device, and host memory or a file on disk, comma-separated.")
]
HostBudget = Annotated[
    str | None, typer.Option(help="What --tiers host may hold: 12GiB, or a share of the free memory (50%).")
]
DiskBudget = Annotated[
    str | None, typer.Option(help="What --tiers disk may hold: 100GiB, or a share of the free space (50%).")
]
DiskDirectory = Annotated[str | None, typer.Option(help="Where the file of --tiers disk may lie.")]
Targets = Annotated[
    list[str] | None,
    typer.Option("--target", help="Compile for devices that are not here, comma-separated; run nothing."),
]
DevicesPerHost = Annotated[
    int, typer.Option(min=1, help="With --target: for how many devices a call is compiled; the factory gets `devices`.")
]
Steps = Annotated[int | None, typer.Option(min=1, help="How many steps a call takes, where they cannot be observed.")]
ForwardOnly = Annotated[
    bool, typer.Option("--forward-only", help="Measure a function that takes no gradient through its solves.")
]
Largest = Annotated[
    str | None, typer.Option(help="Find the largest value of this --set key, or of horizon, that fits.")
]
Extrapolation = Annotated[bool, typer.Option("--allow-extrapolation", help="Answer beyond what was measured too.")]
RunFlags = Annotated[
    list[str] | None, typer.Option(help="XLA flags that you will run under, as measured; none otherwise.")
]
ComparedProblem = Annotated[
    str | None, typer.Option(help="FILE.py:factory, whose code is then compared with what was measured.")
]
Predicted = Annotated[int | None, typer.Option(min=0, help="The prediction that the loop is given; exact otherwise.")]
Aim = Annotated[Objective, typer.Option(help="time: least seconds; memory: fewest executed steps.")]
PlanHorizons = Annotated[list[str] | None, typer.Option(help="Horizons to plan, comma-separated; else the measured.")]
PlanTolerances = Annotated[list[str] | None, typer.Option(help="Tolerances to plan, comma-separated.")]
PlanHostBudget = Annotated[
    str | None, typer.Option(help="Host memory that states may take beside a device: 12GiB; else what it takes.")
]
PlanProblem = Annotated[str | None, typer.Option(help="FILE.py:factory, to be compiled for devices that are not here.")]
CarryOver = Annotated[
    bool, typer.Option("--carry-over", help="Take all bytes from the profile; compile nothing, look nothing up.")
]
Timeout = Annotated[float, typer.Option(help="Seconds that compiling, or one call, may take before it is ended.")]
Seed = Annotated[int, typer.Option(help="Seed of the order of timings.")]
Workers = Annotated[
    int, typer.Option(min=1, help="Machines of this host that measure; compiles overlap, timings do not.")
]
Cluster = Annotated[
    str | None,
    typer.Option(help="Measure on the workers of this Dask scheduler: tls://HOST:8786, or tcp:// on 127.0.0.1."),
]
ClusterWait = Annotated[
    float, typer.Option(help="With --cluster: seconds without a worker that can measure, after which to end.")
]
ClusterKind = Annotated[
    str | None, typer.Option(help="With --cluster: the kind of device to measure on, where workers have several.")
]
Ship = Annotated[
    bool, typer.Option("--ship", help="With --cluster: send the problem, and the Python files beside it, to workers.")
]
TlsCa = Annotated[
    str | None, typer.Option(help="PEM file of the authority of all certificates; else Dask's own configuration.")
]
TlsCert = Annotated[str | None, typer.Option(help="PEM file of this side's certificate; else Dask's configuration.")]
TlsKey = Annotated[str | None, typer.Option(help="PEM file of its key; else Dask's configuration.")]
Force = Annotated[bool, typer.Option("--force", help="Use the profile although device, versions or code differ.")]


class Commands(typer.core.TyperGroup):
    """The command line; what it repeats of a wrong call is shown without passwords."""

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        """Read the words up to the command."""
        with _usage_without_passwords():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: Any) -> Any:
        """Read the command's own words, and run it."""
        with _usage_without_passwords():
            return super().invoke(ctx)


@contextlib.contextmanager
def _usage_without_passwords() -> Iterator[None]:
    usage_error: Any = typer.BadParameter.__mro__[1]
    try:
        yield
    except usage_error as error:
        error.message = visible(hide_passwords(error.message, named_stores()))  # pyright: ignore[reportAttributeAccessIssue]
        raise


def _say_bug(screen: Screen) -> None:
    print(visible(hide_passwords(traceback.format_exc(), named_stores())), end="", file=sys.stderr)
    screen.fail("this is a bug of ckpt-tune; the traceback above is what a report of it needs")


def guarded(command: Callable[..., None]) -> Callable[..., None]:
    """Map what a command raises to exit codes: one line where the user can correct it, a traceback where we must."""

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        screen = Screen()
        try:
            command(*args, **kwargs)
        except (AutotuneError, ProfilesError) as error:
            screen.fail(str(error), getattr(error, "frames", ()))
            raise typer.Exit(Exit.USER_ERROR) from None
        except KeyboardInterrupt:
            screen.fail("interrupted; every finished measurement is stored, and the same command goes on from there")
            raise typer.Exit(Exit.INTERRUPTED) from None
        except BrokenPipeError:  # `ckpt-tune … | head`: nobody reads on
            raise typer.Exit(Exit.DONE) from None
        except OSError as error:
            # A file or folder that the system refuses is the user's to see to, wherever that is found out.
            if is_output(error):
                screen.fail(said_of_output(error))
            elif error.filename is None and not isinstance(error, FileNotFoundError | PermissionError):
                _say_bug(screen)
                raise typer.Exit(Exit.BUG) from None
            else:
                place = "the folder in which the command runs" if error.filename is None else str(error.filename)
                screen.fail(f"{place} cannot be used: {error.strerror or error}")
            raise typer.Exit(Exit.USER_ERROR) from None
        except (typer.Exit, typer.Abort, typer.BadParameter):
            raise
        except Exception:
            _say_bug(screen)
            raise typer.Exit(Exit.BUG) from None

    return run
