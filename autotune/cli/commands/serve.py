"""The command `serve`: the store over HTTP, as JSON and as pages; and its tokens."""

from pathlib import Path
from typing import Annotated

import typer

from autotune.cli.common import Quiet, Store, guarded
from autotune.cli.help import App, RunningGroup
from autotune.cli.screen import Screen
from autotune.errors import AutotuneError

serve_app = App(
    cls=RunningGroup, invoke_without_command=True, no_args_is_help=False,
    help="Serve a store over HTTP, as JSON and as pages.",
)  # fmt: skip

TokensFile = Annotated[Path | None, typer.Option(help="The file of tokens; else one in your configuration folder.")]


@serve_app.callback()
@guarded
def serve(
    context: typer.Context,
    store: Store = None,
    host: Annotated[str, typer.Option(help="The address to listen on; without tokens one of this host only.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port to listen on; 0 for any.")] = 8787,
    tokens: TokensFile = None,
    tls_cert: Annotated[Path | None, typer.Option(help="PEM file of the service's certificate.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="PEM file of its key.")] = None,
    root_path: Annotated[str, typer.Option(help="The path below which a proxy shows the service.")] = "",
    quiet: Quiet = False,
) -> None:
    """Serve a store over HTTP, as JSON and as pages. To whoever has a token; without tokens to this host alone."""
    if context.invoked_subcommand is not None:
        return
    from autotune.serving.server import ServeRequest, run_server

    request = ServeRequest(
        store=store, host=host, port=port, tokens=tokens, tls_cert=tls_cert, tls_key=tls_key, root_path=root_path,
        log=not quiet,
    )  # fmt: skip
    run_server(request, Screen(quiet=quiet).say)


@serve_app.command("token")
@guarded
def make_token(
    read: Annotated[bool, typer.Option("--read", help="It may read.")] = False,
    write: Annotated[bool, typer.Option("--write", help="It may read, and write rows and notes.")] = False,
    delete: Annotated[bool, typer.Option("--delete", help="It may read, write and delete.")] = False,
    name: Annotated[str | None, typer.Option(help="What the log calls it; else its right and a number.")] = None,
    tokens: TokensFile = None,
) -> None:
    """Make a token and print it, once. The file keeps its digest alone; take its line out to end it."""
    from autotune.serving import tokens as module

    wanted = [right for right, named in zip(module.Right, (read, write, delete), strict=True) if named]
    if len(wanted) != 1:
        raise AutotuneError("say what the token may: one of --read, --write and --delete")
    path = tokens or module.default_path()
    if name is None:
        there = {token.name for token in module.read_tokens(path)}
        kind = wanted[0].name.lower()
        name = next(f"{kind}-{n}" for n in range(1, 10**6) if f"{kind}-{n}" not in there)
    screen = Screen()
    screen.line(module.make_token(path, wanted[0], name))
    screen.say(f"{name} stands in {path}; the token is not kept anywhere, and its line there ends it")
