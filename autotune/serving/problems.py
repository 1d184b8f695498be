"""What is wrong with a request, as `application/problem+json`: what was asked, what was found, and what to do."""

import json
import math
import sys
import traceback
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from autotune.errors import AutotuneError
from profiles import AmbiguousProfile, NoSuchProfile, ProfilesError, StoreError, hide_passwords, named_stores

MEDIA_TYPE = "application/problem+json"


class Problem(BaseModel):
    """What is wrong, as RFC 9457 has it."""

    type: str = Field(description="urn:ckpt-tune:KIND")
    title: str
    status: int
    detail: str = Field(description="One line: what was asked, what was found, what to do.")
    candidates: list[str] | None = Field(None, description="The names that would be one profile's.")


class Refusal(HTTPException):
    """A request that is refused: the status, the kind of problem, and one line."""

    def __init__(self, status: int, kind: str, detail: str, *, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(status_code=status, detail=detail, headers=dict(headers or {}))
        self.status, self.kind = status, kind


_TITLES = {
    400: "the request cannot be read", 401: "a token is needed", 403: "the token may not do this",
    404: "not here", 405: "not a way to ask this", 409: "what is stored does not answer this",
    413: "too much at once", 422: "the request is not as it should be", 426: "another version",
    429: "too many at once", 500: "a bug of ckpt-tune", 503: "not now",
}  # fmt: skip


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Document which problems a route may answer with."""
    everywhere = {400, 401, 403, 426, 422, 500, 503}
    return {
        status: {"description": _TITLES[status], "content": {MEDIA_TYPE: {"schema": {"$ref": _SCHEMA}}}}
        for status in sorted(everywhere | set(statuses))
    }


_SCHEMA = "#/components/schemas/Problem"


def problem(status: int, kind: str, detail: str, *, headers: Mapping[str, str] | None = None, **more: Any) -> Response:
    """Write a problem as an answer."""
    document = {"type": f"urn:ckpt-tune:{kind}", "title": _TITLES.get(status, "refused"), "status": status}
    document |= {"detail": hide_passwords(" ".join(detail.split()), named_stores()), **more}
    return Response(dumps(document), status_code=status, media_type=MEDIA_TYPE, headers=dict(headers or {}))


def dumps(document: Any) -> bytes:
    """Write JSON that every reader of JSON can read; a figure that is not finite is null."""
    try:
        text = json.dumps(document, ensure_ascii=False, default=str, allow_nan=False)
    except ValueError:
        text = json.dumps(_finite(document), ensure_ascii=False, default=str, allow_nan=False)
    return text.encode("utf-8", "replace")


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def answer_problems(app: FastAPI) -> None:
    """Answer with a problem wherever a request is refused, or something goes wrong."""

    @app.exception_handler(Refusal)
    async def _refused(_: Request, error: Refusal) -> Response:
        return problem(error.status, error.kind, error.detail, headers=error.headers)

    @app.exception_handler(RequestValidationError)
    async def _unreadable(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        found = repr(first.get("input"))
        return problem(422, "bad-request", f"{place}: {first['msg']}; found {found[:80]}")

    @app.exception_handler(HTTPException)
    async def _by_http(request: Request, error: HTTPException) -> Response:
        path, headers = request.url.path[:80], error.headers
        if error.status_code == 404:
            return problem(404, "no-such-path", f"nothing is at {path!r}; /api/v1/openapi.json lists what is")
        if error.status_code == 405:
            return problem(405, "no-such-method", f"{path!r} is not asked with {request.method}", headers=headers)
        return problem(error.status_code, "bad-request", str(error.detail), headers=headers)

    @app.exception_handler(ProfilesError)
    async def _not_stored(_: Request, error: ProfilesError) -> Response:
        if isinstance(error, NoSuchProfile):
            return problem(404, "no-such-profile", str(error))
        if isinstance(error, AmbiguousProfile):
            return problem(409, "ambiguous-profile", str(error), candidates=list(error.candidates))
        if isinstance(error, StoreError):
            _log(str(error))
            detail = "the service cannot read or write its store now, and its log says why; try again in a while"
            return problem(503, "store-away", detail, headers={"retry-after": "2"})
        return problem(409, "no-answer", str(error))

    @app.exception_handler(AutotuneError)
    async def _no_answer(_: Request, error: AutotuneError) -> Response:
        return problem(409, "no-answer", str(error))

    @app.exception_handler(Exception)
    async def _bug(_: Request, error: Exception) -> Response:
        _log("".join(traceback.format_exception(error)))
        return problem(500, "bug", "this is a bug of ckpt-tune; the service's log has what a report of it needs")


def _log(text: str) -> None:
    """Write to the log, without passwords."""
    print(hide_passwords(text, named_stores()).rstrip(), file=sys.stderr, flush=True)
