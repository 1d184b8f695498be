"""A service in a thread of the tests' own process, on a port of its own, with tokens or without."""

import contextlib
import dataclasses
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import uvicorn

from autotune.serving.app import ServiceRequest, make_app
from autotune.serving.tokens import Right, Tokens, make_token
from profiles import open_store


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A running service: its address, the same with each token in it, and the tokens themselves."""

    address: str
    tokens: dict[Right, str]
    tokens_file: Path

    def url(self, right: Right) -> str:
        """The address with the token of a right, as a store's name."""
        return self.address.replace("://", f"://team:{self.tokens[right]}@")


@contextlib.contextmanager
def service(
    store_url: str, folder: Path, *, with_tokens: bool = True, port: int = 0, tokens: dict[Right, str] | None = None
) -> Iterator[Service]:
    """Serve a store until the block ends, on a port that is named or on any, with tokens made anew or before."""
    path = folder / "tokens"
    made = tokens or ({right: make_token(path, right, right.name.lower()) for right in Right} if with_tokens else {})
    ended = threading.Event()
    with open_store(store_url) as store:
        app = make_app(
            ServiceRequest(store=store, tokens=Tokens(path) if made else None, log=False, ended=ended.is_set)
        )
        listening = socket.create_server(("127.0.0.1", port))
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=5))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.005)
        try:
            port = listening.getsockname()[1]
            yield Service(address=f"http://127.0.0.1:{port}", tokens=made, tokens_file=path)
        finally:
            ended.set()
            server.should_exit = True
            thread.join(30)
            listening.close()
