"""The store over HTTP: the operations of `profiles.ServedStore`, each done once however often it is sent."""

import asyncio
import hashlib
import json
from collections import OrderedDict
from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool

from autotune.serving.access import Access
from autotune.serving.catalogue import Catalogue
from autotune.serving.problems import dumps, refusals
from autotune.serving.rows import MEASUREMENTS_REF, MOST_ROWS, checked_rows
from autotune.serving.tokens import Right
from profiles import PROFILE_NAMES, SCHEMA_VERSION, Status, profile_id, summary_record, to_document

MOST_REMEMBERED = 10_000
"""Requests whose answers are remembered, so that one that is sent again is done once."""
_TEXT = r"^[^\x00]*$"
Kind = Annotated[str, Query(max_length=64, pattern=_TEXT)]
Text = Annotated[str, Query(max_length=2000, pattern=_TEXT)]
MaybeText = Annotated[str | None, Query(max_length=2000, pattern=_TEXT)]
Once = Annotated[str | None, Header(max_length=64, description="The same in every repetition of a request.")]


class StoreState(BaseModel):
    """What a client is told first."""

    version: str
    schema_version: int = Field(alias="schema")
    stamp: str
    rows_at_once: int


class Summaries(BaseModel):
    """Every profile without its rows."""

    profiles: list[dict[str, Any]]


class Stored(BaseModel):
    """How many rows were stored."""

    stored: int


class Rows(BaseModel):
    """Rows to delete, by key, and the profile whose given name goes with them."""

    model_config = ConfigDict(extra="forbid")
    keys: list[Annotated[str, Field(max_length=64, pattern=_TEXT)]] = Field(max_length=100_000)
    profile: Annotated[str, Field(max_length=64, pattern=_TEXT)] | None = None


class Keys(BaseModel):
    """Keys of rows that may be stored."""

    model_config = ConfigDict(extra="forbid")
    keys: list[Annotated[str, Field(max_length=64, pattern=_TEXT)]] = Field(max_length=100_000)


class Known(BaseModel):
    """Which of the keys are those of stored rows, sorted."""

    known: list[str]


class Deleted(BaseModel):
    """How many rows are gone."""

    deleted: int


class Note(BaseModel):
    """A JSON document under a kind and a key."""

    model_config = ConfigDict(extra="forbid")
    kind: Annotated[str, Field(max_length=64, pattern=_TEXT)]
    key: Annotated[str, Field(max_length=2000, pattern=_TEXT)]
    value: Any = None


class Swap(BaseModel):
    """What is put in the place of what."""

    model_config = ConfigDict(extra="forbid")
    kind: Annotated[str, Field(max_length=64, pattern=_TEXT)]
    key: Annotated[str, Field(max_length=2000, pattern=_TEXT)]
    old: Any = None
    new: Any = None


class Value(BaseModel):
    """What a note holds; null where there is none."""

    value: Any


class Notes(BaseModel):
    """The notes of a kind, by key."""

    notes: dict[str, Any]


class Swapped(BaseModel):
    """Whether it was done."""

    swapped: bool


class Remembered:
    """Answers by the keys that clients gave their requests; one that is still worked on is waited for."""

    def __init__(self) -> None:
        """Remember nothing yet."""
        self._answers: OrderedDict[str, asyncio.Task[Any]] = OrderedDict()

    async def once(self, request: Request, key: str | None, work: Callable[[], Any]) -> Any:
        """Do something in a thread, or return what came of it when the same request came before.

        The same is: of the same token, with the same key, to the same path, with the same body.
        """
        if not key:
            return await run_in_threadpool(work)
        who = request.scope.get("state", {}).get("token", "")
        parts = (who, key, request.method, request.url.path)
        same = hashlib.sha256("\n".join(parts).encode("utf-8", "replace") + b"\n" + await request.body()).hexdigest()
        task = self._answers.get(same)
        if task is None:
            task = asyncio.ensure_future(run_in_threadpool(work))
            self._answers[same] = task
            while len(self._answers) > MOST_REMEMBERED:
                self._answers.popitem(last=False)
        try:
            return await asyncio.shield(task)  # a client that goes away does not undo it
        except Exception:
            self._answers.pop(same, None)  # it was not done
            raise


def written(document: Any) -> Response:
    """Write an answer."""
    return Response(dumps(document), media_type="application/json")


def store_routes(catalogue: Catalogue, access: Access, version: str) -> APIRouter:
    """Make the routes below `/api/v1` that are a store's."""
    routes = APIRouter(tags=["store"])
    read, write, delete = (access.needs(right) for right in Right)
    store, remembered = catalogue.store, Remembered()

    @routes.get("/store", dependencies=[read], response_model=StoreState, responses=refusals())
    def show_store() -> Response:
        """Say which versions this is, and whether rows were written since."""
        state = {"version": version, "schema": SCHEMA_VERSION, "stamp": store.stamp(), "rows_at_once": MOST_ROWS}
        return written(state)

    @routes.get("/store/profiles", dependencies=[read], response_model=Summaries, responses=refusals())
    def list_summaries() -> Response:
        """Sum up every profile."""
        catalogue.refresh()
        return written({"profiles": [summary_record(one) for one in catalogue.summaries]})

    documented = {
        200: {
            "description": "rows, oldest first",
            "content": {"application/json": {"schema": {"$ref": MEASUREMENTS_REF}}},
        }
    }

    @routes.get("/rows", dependencies=[read], responses=refusals() | documented)
    def list_rows(
        key: MaybeText = None,
        study: MaybeText = None,
        problem: MaybeText = None,
        device: MaybeText = None,
        status: Status | None = None,
        cursor: Annotated[str | None, Query(max_length=200, pattern=_TEXT, description="TIME KEY of a row")] = None,
        at_most: Annotated[int, Query(ge=1, le=MOST_ROWS)] = MOST_ROWS,
    ) -> Response:
        """List rows, as `ckpt-tune profiles export` writes them; `cursor` asks for those after the last one."""
        if key is not None:
            found = store.get(key)
            rows = [] if found is None else [found]
        else:
            rows = store.measurements(
                study=study, problem_name=problem, device=device, status=status, cursor=cursor, at_most=at_most
            )
        # As Python writes them: a value of --set may be infinite, which JSON proper has no word for.
        return Response(json.dumps(to_document(rows)), media_type="application/json")

    body = {"requestBody": {"required": True, "content": {"application/json": {"schema": {"$ref": MEASUREMENTS_REF}}}}}

    @routes.post("/rows", dependencies=[write], response_model=Stored, responses=refusals(413), openapi_extra=body)
    async def put_rows(request: Request, idempotency_key: Once = None) -> Response:
        """Store rows, all or none, each in the place of the row that has its key.

        A list without rows finds out whether rows would be stored.
        """
        raw = await request.body()

        def work() -> dict[str, int]:
            rows = checked_rows(raw)
            if not rows:
                store.check_writable()
                return {"stored": 0}
            stored = store.put_all(rows)
            catalogue.written((row.problem.name for row in rows), {profile_id(row) for row in rows})
            return {"stored": stored}

        return written(await remembered.once(request, idempotency_key, work))

    @routes.post("/rows/known", dependencies=[read], response_model=Known, responses=refusals(413))
    def list_known(keys: Keys) -> Response:
        """Say which rows are stored, by their keys."""
        return written({"known": sorted(store.known_keys(keys.keys))})

    @routes.post("/rows/delete", dependencies=[delete], response_model=Deleted, responses=refusals(413))
    async def delete_rows(request: Request, rows: Rows, idempotency_key: Once = None) -> Response:
        """Delete rows, all or none; needs a token that may delete."""

        def work() -> dict[str, int]:
            found = store.get(rows.keys[0]) if rows.keys and rows.profile else None
            gone = store.delete(rows.keys, label_of=rows.profile)
            everything = [one.problem.name for one in catalogue.summaries]
            catalogue.written(everything if found is None else [found.problem.name])
            return {"deleted": gone}

        return written(await remembered.once(request, idempotency_key, work))

    @routes.get("/note", dependencies=[read], response_model=Value, responses=refusals())
    def get_note(kind: Kind, key: Text) -> Response:
        """Read a document, null where there is none."""
        return written({"value": store.get_note(kind, key)})

    @routes.get("/notes", dependencies=[read], response_model=Notes, responses=refusals())
    def list_notes(kind: Kind) -> Response:
        """Read every document of a kind."""
        return written({"notes": store.notes(kind)})

    @routes.put("/note", dependencies=[write], response_model=Stored, responses=refusals(413))
    async def put_note(request: Request, note: Note, idempotency_key: Once = None) -> Response:
        """Store a document in the place of what was there."""

        def work() -> dict[str, int]:
            store.put_note(note.kind, note.key, note.value)
            if note.kind == PROFILE_NAMES:
                catalogue.renamed()
            return {"stored": 1}

        return written(await remembered.once(request, idempotency_key, work))

    @routes.post("/note/swap", dependencies=[write], response_model=Swapped, responses=refusals(413))
    async def swap_note(request: Request, swap: Swap, idempotency_key: Once = None) -> Response:
        """Put a document in the place of another one, or of none, in one step, unless somebody was faster."""

        def work() -> dict[str, bool]:
            done = store.swap_note(swap.kind, swap.key, swap.old, swap.new)
            if done and swap.kind == PROFILE_NAMES:
                catalogue.renamed()
            return {"swapped": done}

        return written(await remembered.once(request, idempotency_key, work))

    return routes
