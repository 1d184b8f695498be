"""The application: routes of the API, of the store and of the pages, around one catalogue."""

import asyncio
import contextlib
import dataclasses
import importlib.metadata
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import PurePath
from typing import Any

from fastapi import FastAPI, Response
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool

from autotune.serving.access import Access
from autotune.serving.answers import Answers
from autotune.serving.api import api_routes
from autotune.serving.catalogue import REFRESH_SECONDS, Catalogue
from autotune.serving.guard import Guard, Limits
from autotune.serving.pages import page_routes
from autotune.serving.problems import Problem, answer_problems, dumps
from autotune.serving.rows import DOCUMENT_SCHEMA
from autotune.serving.storing import store_routes
from autotune.serving.tokens import Tokens
from autotune.serving.under_way import TunesUnderWay
from profiles import SCHEMA_VERSION, ProfilesError, ProfileStore, is_sqlite_file, parse_url

API = "/api/v1"


class Health(BaseModel):
    """That the service is there, and which one it is."""

    status: str
    version: str
    schema_version: int
    profiles: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ServiceRequest:
    """What a service is made of. `tokens` is None where everybody on this host may do everything.

    `ended` says whether the service is about to end, so that streams end too.
    """

    store: ProfileStore
    tokens: Tokens | None
    root_path: str = ""
    log: bool = True
    ended: Callable[[], bool] = lambda: False


def make_app(asked: ServiceRequest) -> Any:
    """Make the application, as an ASGI server takes it. Reads the store once."""
    version = importlib.metadata.version("ckpt-tune")
    catalogue = Catalogue(asked.store, place_for_clients(asked.store))
    catalogue.refresh()
    answers, tunes, access = Answers(catalogue), TunesUnderWay(asked.store), Access(asked.tokens)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        looking = asyncio.create_task(_look_again(catalogue))
        yield
        looking.cancel()

    app = FastAPI(
        title="ckpt-tune", version=version, lifespan=lifespan, docs_url=None, redoc_url=None,
        openapi_url=f"{API}/openapi.json",
        description="What a team knows of the memory and time of its models, by the count of checkpoints.",
    )  # fmt: skip
    answer_problems(app)

    @app.get("/healthz", response_model=Health, tags=["service"])
    async def healthz() -> Response:
        """Say that the service is there; needs no token."""
        state = {"status": "ok", "version": version, "schema_version": SCHEMA_VERSION}
        return Response(dumps(state | {"profiles": len(catalogue.summaries)}), media_type="application/json")

    app.include_router(api_routes(answers, tunes, access, asked.ended), prefix=API)
    app.include_router(store_routes(catalogue, access, version), prefix=API)
    app.include_router(page_routes(answers, tunes, access, asked.root_path), include_in_schema=False)
    _document(app, asked.root_path)
    return Guard(app, Limits(open_to_all=asked.tokens is None, log=asked.log, root_path=asked.root_path))


async def _look_again(catalogue: Catalogue) -> None:
    """Look from time to time whether others wrote into the store."""
    while True:
        await asyncio.sleep(REFRESH_SECONDS)
        try:
            await run_in_threadpool(catalogue.refresh)
        except ProfilesError as error:
            print(f"ckpt-tune serve: {error}", file=sys.stderr, flush=True)


def place_for_clients(store: ProfileStore) -> str:
    """Name a store without saying where on its server it lies: a file's or a database's own name."""
    url = parse_url(store.url)
    if is_sqlite_file(url):
        return PurePath(str(url.database)).name
    return f"{url.get_backend_name()} {PurePath(str(url.database or 'in memory')).name}"


def _document(app: FastAPI, root_path: str) -> None:
    """Complete the OpenAPI document: problems, and rows as they are exported."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            made = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
            schemas = made.setdefault("components", {}).setdefault("schemas", {})
            schemas["Problem"] = Problem.model_json_schema()
            schemas["Measurements"] = DOCUMENT_SCHEMA
            for unused in ("HTTPValidationError", "ValidationError"):
                schemas.pop(unused, None)
            if root_path:
                made["servers"] = [{"url": root_path}]
            app.openapi_schema = made
        return app.openapi_schema

    app.openapi = openapi
