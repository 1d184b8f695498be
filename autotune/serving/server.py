"""Run the service: where it listens, over TLS or not, and how it ends."""

import dataclasses
import errno
import os
import signal
import socket
import ssl
import types
from collections.abc import Callable
from pathlib import Path

from autotune.errors import AutotuneError
from autotune.serving.tokens import Tokens, default_path
from profiles import ProfileStore, is_loopback, is_served, open_store

MOST_CONNECTIONS = 1000
"""Connections that are open at once; beyond it a request gets 503."""
GRACE_SECONDS = 10
"""For how long requests that were begun may go on when the service ends."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ServeRequest:
    """One call of `ckpt-tune serve`. `tokens` is the file that was named, None for the usual one."""

    store: str | None
    host: str
    port: int
    tokens: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    root_path: str = ""
    log: bool = True


def run_server(asked: ServeRequest, say: Callable[[str], None]) -> None:
    """Serve until the process is told to end (SIGINT, SIGTERM); requests that were begun are answered first.

    Raises:
        AutotuneError: there are no tokens and the address is not this host's own, the address is taken, TLS files
            cannot be read, or the extra is not installed.
        ProfilesError: the store cannot be opened.
    """
    tokens = _tokens(asked)
    _check_tls(asked)
    if asked.root_path and not asked.root_path.startswith("/"):
        raise AutotuneError(f"--root-path is a path, such as /ckpt-tune, found {asked.root_path!r}")
    try:
        import uvicorn

        from autotune.serving.app import ServiceRequest, make_app
    except ImportError as error:
        raise AutotuneError(
            f"the service needs FastAPI and uvicorn ({error}): pip install 'ckpt-tune[serve]'"
        ) from error

    listening = _listen(asked.host, asked.port)
    try:
        with _opened(asked.store) as store:
            ending = False

            class Server(uvicorn.Server):
                """A server that tells streams when it is about to end."""

                def handle_exit(self, sig: int, frame: types.FrameType | None) -> None:
                    """Note that the service ends; the signal has done its work then, and is not raised again."""
                    nonlocal ending
                    self.force_exit = ending and sig == signal.SIGINT
                    self.should_exit = ending = True

            app = make_app(
                ServiceRequest(
                    store=store,
                    tokens=tokens,
                    root_path=asked.root_path.rstrip("/"),
                    log=asked.log,
                    ended=lambda: ending,
                )
            )
            config = uvicorn.Config(
                app, log_level="error", access_log=False, server_header=False, date_header=True,
                root_path="", timeout_keep_alive=30, timeout_graceful_shutdown=GRACE_SECONDS,
                ssl_certfile=None if asked.tls_cert is None else str(asked.tls_cert),
                ssl_keyfile=None if asked.tls_key is None else str(asked.tls_key),
                http="h11", h11_max_incomplete_event_size=64 * 1024,  # httptools takes headers of any length
                limit_concurrency=MOST_CONNECTIONS,
            )  # fmt: skip
            say(_greeting(asked, listening.getsockname()[1], store, tokens))
            Server(config).run(sockets=[listening])
            say("the service has ended; everything that was acknowledged is stored")
    finally:
        listening.close()


def _opened(url: str | None) -> ProfileStore:
    from profiles import default_url

    if is_served(url or default_url()):
        raise AutotuneError(
            "the store is a service itself (--store, $CKPT_TUNE_STORE): name the database that this one is to serve"
        )
    return open_store(url)


def _tokens(asked: ServeRequest) -> Tokens | None:
    """Read the tokens; None where there are none and this host alone is served.

    Raises:
        AutotuneError: there are none, and others would be served too.
    """
    path = asked.tokens or default_path()
    tokens = Tokens(path)
    if tokens:
        return tokens
    if asked.tokens is not None and path.exists():
        raise AutotuneError(f"the file of tokens {path} holds none: make one with `ckpt-tune serve token --read`")
    if asked.tokens is not None:
        raise AutotuneError(
            f"there is no file of tokens {path}: make it with `ckpt-tune serve token --read --tokens {path}`"
        )
    if not is_loopback(asked.host):
        raise AutotuneError(
            f"without tokens the service answers to this host alone, and --host {asked.host} is open to others: make a "
            "token first (`ckpt-tune serve token --read`), or serve on 127.0.0.1"
        )
    return None


def _check_tls(asked: ServeRequest) -> None:
    """Refuse half a pair of TLS files, or one that cannot be used."""
    if (asked.tls_cert is None) != (asked.tls_key is None):
        raise AutotuneError("--tls-cert and --tls-key belong together: name both, or neither")
    if asked.tls_cert is None or asked.tls_key is None:
        return
    for path in (asked.tls_cert, asked.tls_key):
        if not os.access(path, os.R_OK):
            raise AutotuneError(f"the TLS file {path} cannot be read; name a PEM file that can")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(asked.tls_cert, asked.tls_key)
    except (ssl.SSLError, OSError) as error:
        raise AutotuneError(f"{asked.tls_cert} and {asked.tls_key} are no certificate and its key: {error}") from error


def _listen(host: str, port: int) -> socket.socket:
    """Take the address.

    Raises:
        AutotuneError: another process has it, or it is not this host's.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind(address)
            listening.listen(1024)
        except BaseException:
            listening.close()
            raise
    except OSError as error:
        found = "another process has it: stop that one, or choose another --port"
        if error.errno != errno.EADDRINUSE:
            found = f"{error.strerror}: choose another --host or --port"
        raise AutotuneError(f"the service cannot listen on {host} port {port}: {found}") from error
    return listening


def _greeting(asked: ServeRequest, port: int, store: ProfileStore, tokens: Tokens | None) -> str:
    """Say where the service is, what it serves and who may."""
    shown = f"[{asked.host}]" if ":" in asked.host else asked.host
    scheme = "https" if asked.tls_cert else "http"
    who = "whoever has a token" if tokens else "everybody on this host, to read, write and delete"
    plain = "" if asked.tls_cert or not tokens or is_loopback(asked.host) else (
        "; without --tls-cert tokens are sent in the clear: put a proxy with TLS in front"
    )  # fmt: skip
    return f"serving {store.place} at {scheme}://{shown}:{port}{asked.root_path} to {who}{plain}"
