"""What every request passes: limits of body and time, hosts and origins, headers of every answer, one line in the log.

A service without tokens serves this host alone. A page of a stranger that a browser on this host shows could ask it all
the same, under a name of the stranger's own that leads here; so it answers to names of this host only, and takes no
write that comes from another page.
"""

import asyncio
import dataclasses
import datetime as dt
import json
import sys
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from autotune.serving.problems import Refusal, problem
from profiles import is_loopback

MOST_BODY_BYTES = 32 * 2**20
REQUEST_SECONDS = 60.0
"""A request takes no longer, but for streams of events."""
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
"""The pages load nothing from elsewhere, evaluate no text, and run no script that stands in a page."""
_HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much a request may be, and who may ask: `open_to_all` says that there are no tokens.

    `root_path` is the path below which a proxy shows the service, whether it takes it off or not.
    """

    open_to_all: bool
    body_bytes: int = MOST_BODY_BYTES
    seconds: float = REQUEST_SECONDS
    log: bool = True
    root_path: str = ""


class Guard:
    """The outermost layer of the service."""

    def __init__(self, app: Any, limits: Limits) -> None:
        """Stand around an application."""
        self._app = app
        self._limits = limits

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Let one request through, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope = {**scope, "root_path": self._limits.root_path}
        began, sent = time.perf_counter(), {"status": 0, "bytes": 0}
        headers = dict(scope["headers"])

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                sent["status"] = message["status"]
                there = {name for name, _ in message["headers"]}
                added = [(n.encode(), v.encode()) for n, v in _HEADERS.items() if n.encode() not in there]
                if b"cache-control" not in there:
                    added.append((b"cache-control", b"no-store"))
                message = {**message, "headers": [*message["headers"], *added]}
            elif message["type"] == "http.response.body":
                sent["bytes"] += len(message.get("body", b""))
            await send(message)

        async def refuse(refusal: Refusal) -> None:
            if not sent["status"]:
                made = problem(refusal.status, refusal.kind, refusal.detail, headers=refusal.headers)
                await made(scope, receive, answer)

        try:
            self._check(scope, headers)
            seconds = None if scope["path"].endswith("/events") else self._limits.seconds
            async with asyncio.timeout(seconds):
                await self._app(scope, self._bounded(headers, receive), answer)
        except Refusal as refusal:
            await refuse(refusal)
        except TimeoutError:
            await refuse(
                Refusal(503, "too-slow", f"this took longer than {self._limits.seconds:.0f} s: ask for less at once")
            )
        except Exception:
            if not sent["status"]:
                await refuse(Refusal(500, "bug", "this is a bug of ckpt-tune; the service's log says more"))
        finally:
            if self._limits.log:
                _log(scope, sent, time.perf_counter() - began)

    def _check(self, scope: MutableMapping[str, Any], headers: dict[bytes, bytes]) -> None:
        """Refuse what comes under a strange name, from a strange page, or says that it is too large.

        Raises:
            Refusal: it does.
        """
        host = headers.get(b"host", b"").decode("latin-1")
        if self._limits.open_to_all and not is_loopback(_name_of(host)):
            raise Refusal(
                400, "strange-host",
                f"this service has no tokens and answers to names of its own host, such as 127.0.0.1, not to {host!r}",
            )  # fmt: skip
        origin = headers.get(b"origin", b"").decode("latin-1")
        if scope["method"] not in ("GET", "HEAD", "OPTIONS") and origin and urlsplit(origin).netloc != host:
            raise Refusal(
                403, "strange-origin", f"a page of {origin!r} may write nothing here; use a client or a page of {host}"
            )
        if int(headers.get(b"content-length", b"0") or 0) > self._limits.body_bytes:
            raise self._too_large()

    def _bounded(self, headers: dict[bytes, bytes], receive: Receive) -> Receive:
        """Count the bytes of a body as they come."""
        taken = 0

        async def bounded() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > self._limits.body_bytes:
                raise self._too_large()
            return message

        return bounded

    def _too_large(self) -> Refusal:
        most = self._limits.body_bytes // 2**20
        return Refusal(413, "too-large", f"a request's body is {most} MiB at most: send rows in several requests")


def _name_of(host: str) -> str:
    """Take the port off a host."""
    return host.rpartition("]")[0].lstrip("[") if host.startswith("[") else host.partition(":")[0]


def _log(scope: MutableMapping[str, Any], sent: dict[str, int], seconds: float) -> None:
    """Write one line of JSON: no query, no header and no body, which may hold what is nobody's business."""
    client = scope.get("client") or ("", 0)
    line = {
        "at": dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds"), "client": client[0],
        "token": scope.get("state", {}).get("token", ""), "method": scope["method"], "path": scope["path"],
        "status": sent["status"], "bytes": sent["bytes"], "milliseconds": round(1000 * seconds, 2),
    }  # fmt: skip
    print(json.dumps(line), file=sys.stderr, flush=True)
