"""The JSON of the service below `/api/v1`: profiles, what they recommend, plans, comparisons, tunes under way."""

import ast
import math
import re
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool

from autotune.choosing.objective import Objective
from autotune.machine.budget import parse_bytes
from autotune.search.space import number, numbers
from autotune.serving.access import Access
from autotune.serving.answers import Answers, PlanQuestion, RecommendQuestion
from autotune.serving.problems import Refusal, dumps, refusals
from autotune.serving.rows import MEASUREMENTS_REF
from autotune.serving.tokens import Right
from autotune.serving.under_way import TunesUnderWay
from profiles import ProfilesError, Scalar, read_value, to_document

_TEXT = r"^[^\x00]*$"
_NUMBER = r"^[0-9]{1,15}(\.[0-9]{0,15})?([eE][+-]?[0-9]{1,2})?$"
_NUMBERS = r"^[0-9]{1,15}(\.[0-9]{0,15})?([eE][+-]?[0-9]{1,2})?(,[0-9]{1,15}(\.[0-9]{0,15})?([eE][+-]?[0-9]{1,2})?)*$"
_BUDGET = r"^\s*(auto|[0-9][0-9_]{0,20}(\.[0-9]{1,6})?\s*(%|[A-Za-z]{0,3}))\s*$"
Name = Annotated[
    str, Query(min_length=1, max_length=400, pattern=_TEXT, description="A profile: name[@kind][:adjoint][#id].")
]
Placed = Annotated[
    str,
    Path(min_length=1, max_length=400, pattern=r"^[^\x00/]*$", description="A profile: name[@kind][:adjoint][#id]."),
]
Share = Annotated[float | None, Query(ge=0, lt=1, description="Share of the budget that is left alone.")]
Listed = Annotated[str | None, Query(max_length=400, pattern=_NUMBERS, description="Numbers, comma-separated.")]
Number = Annotated[str | None, Query(max_length=40, pattern=_NUMBER, description="100 is whole, 100. and 1e2 are not.")]


class Profiles(BaseModel):
    """As `ckpt-tune profiles list --format json`."""

    schema_version: Literal[1]
    store: str
    profiles: list[dict[str, Any]]


class OneProfile(BaseModel):
    """As `ckpt-tune profiles show --format json`, with the laws of its bytes."""

    schema_version: Literal[1]
    name: str
    problem: str
    device: str
    adjoint: str
    components: dict[str, Any]
    versions: dict[str, str]
    points: list[dict[str, Any]]
    laws: list[dict[str, Any]]


class Recommended(BaseModel):
    """As `ckpt-tune recommend --format json`."""

    schema_version: Literal[1]
    problem: str
    device: str
    adjoint: str
    store: str
    recommendations: list[dict[str, Any]]
    nearby_budgets: list[dict[str, Any]]


class Planned(BaseModel):
    """As `ckpt-tune plan --format json`."""

    schema_version: Literal[1]
    rows: list[dict[str, Any]]
    longest_horizons: list[dict[str, Any]]
    notes: list[str]


class Compared(BaseModel):
    """As `ckpt-tune compare --format json`."""

    schema_version: Literal[1]
    changes: list[dict[str, Any]]
    points: list[dict[str, Any]]


class Tunes(BaseModel):
    """The tunes under way on this store."""

    schema_version: Literal[1]
    tunes: list[dict[str, Any]]


def _json(content: bytes) -> Response:
    return Response(content, media_type="application/json")


def _set_values(texts: Sequence[str]) -> dict[str, Scalar]:
    """Read `KEY=VALUE` texts, values as Python literals, else texts.

    Raises:
        Refusal: one is none.
    """
    found = {}
    for text in texts:
        key, equals, written = text.partition("=")
        if not equals or not key.strip().isidentifier():
            raise Refusal(422, "bad-request", f"set={text[:80]!r} is not KEY=VALUE, KEY a parameter of the factory")
        try:
            value = ast.literal_eval(written.strip())
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            value = written.strip()
        if isinstance(value, float) and not math.isfinite(value):
            value = written.strip()
        try:
            found[key.strip()] = read_value(value)
        except (ProfilesError, ValueError) as error:
            raise Refusal(422, "bad-request", f"set={text[:80]!r}: {error}") from None
    return found


def api_routes(answers: Answers, tunes: TunesUnderWay, access: Access, ended: Callable[[], bool]) -> APIRouter:
    """Make the routes below `/api/v1` that people and scripts ask."""
    routes = APIRouter(tags=["answers"])
    read = access.needs(Right.READ)
    catalogue = answers.catalogue

    @routes.get("/profiles", dependencies=[read], response_model=Profiles, responses=refusals())
    def list_profiles(
        problem: Annotated[str | None, Query(max_length=400, pattern=_TEXT)] = None,
        device: Annotated[str | None, Query(max_length=400, pattern=_TEXT, description="The device's kind.")] = None,
        version: Annotated[
            str | None, Query(max_length=100, pattern=_TEXT, description="Such as `jax 0.10.2`.")
        ] = None,
    ) -> Response:
        """List profiles: all, or those of a problem, of a kind of device, measured with this version."""
        catalogue.refresh()
        return _json(dumps(answers.list_profiles(problem, device, version)))

    @routes.get("/profiles/{name}", dependencies=[read], response_model=OneProfile, responses=refusals(404, 409))
    def show_profile(name: Placed) -> Response:
        """Show a profile: its points and fronts, and the laws of its bytes."""
        catalogue.refresh()
        return _json(answers.profile(catalogue.find(name)))

    export = {200: {"description": "the rows", "content": {"application/json": {"schema": {"$ref": MEASUREMENTS_REF}}}}}

    @routes.get("/profiles/{name}/rows", dependencies=[read], responses=refusals(404, 409) | export)
    def export_profile(name: Placed) -> Response:
        """Give every row of a profile, as `ckpt-tune profiles export FILE.json` writes it; POST /rows takes it."""
        import json

        catalogue.refresh()
        profile = catalogue.profile(catalogue.find(name))
        return Response(json.dumps(to_document(profile.measurements)), media_type="application/json")

    study = {200: {"description": "an SQLite file for optuna-dashboard", "content": {"application/vnd.sqlite3": {}}}}

    @routes.get("/profiles/{name}/study", dependencies=[read], responses=refusals(404, 409) | study)
    def download_study(name: Placed) -> Response:
        """Give the Optuna study of a profile as a file; it is a view, which nothing reads."""
        catalogue.refresh()
        summary = catalogue.find(name)
        file = re.sub(r"[^A-Za-z0-9_.-]+", "-", f"{summary.problem.name}-{summary.id[:8]}.db")
        headers = {"content-disposition": f'attachment; filename="{file}"'}
        return Response(answers.study(summary), media_type="application/vnd.sqlite3", headers=headers)

    @routes.get("/recommend", dependencies=[read], response_model=Recommended, responses=refusals(404, 409))
    async def recommend(
        profile: Name,
        budget: Annotated[str, Query(max_length=40, pattern=_BUDGET, description="6GiB, 80%, auto.")] = "auto",
        margin: Share = None,
        horizon: Number = None,
        tolerance: Number = None,
        set: Annotated[list[str] | None, Query(description="KEY=VALUE; repeatable.")] = None,
        objective: Objective = Objective.TIME,
        allow_extrapolation: bool = False,
        xla_flags: Annotated[list[str] | None, Query(description="XLA flags that you will run under.")] = None,
    ) -> Response:
        """Recommend a count for a budget; a share is one of the memory of the profile's device."""
        summary = catalogue.find(profile)
        known = catalogue.cached(summary) or await run_in_threadpool(catalogue.recommender, summary)
        asked = RecommendQuestion(
            budget=budget, margin=margin, objective=objective, allow_extrapolation=allow_extrapolation,
            horizon=None if horizon is None else number(horizon, option="horizon"),
            tolerance=None if tolerance is None else float(number(tolerance, option="tolerance")),
            set_values=_set_values(set or ()), xla_flags=None if xla_flags is None else tuple(xla_flags),
        )  # fmt: skip
        request = answers.request(known, asked)
        if known.knows(request):
            return _json(answers.recommend(known, request))
        return _json(await run_in_threadpool(answers.recommend, known, request))

    @routes.get("/plan", dependencies=[read], response_model=Planned, responses=refusals(404, 409))
    def plan(
        profile: Name,
        devices: Annotated[str | None, Query(max_length=1000, pattern=_TEXT, description="Names; else all.")] = None,
        horizons: Listed = None,
        tolerances: Listed = None,
        max_recompute: Annotated[float, Query(ge=2, le=1e6)] = 2.0,
        margin: Annotated[float, Query(ge=0, lt=1)] = 0.1,
        host_budget: Annotated[str | None, Query(max_length=40, pattern=_BUDGET)] = None,
    ) -> Response:
        """Plan for other devices: what fits, at what recompute factor, and what memory would be enough."""
        catalogue.refresh()
        asked = PlanQuestion(
            devices=tuple(name.strip() for name in (devices or "").split(",") if name.strip()),
            horizons=tuple(map(float, numbers([horizons or ""], option="horizons"))),
            tolerances=tuple(map(float, numbers([tolerances or ""], option="tolerances"))),
            max_recompute=max_recompute, margin=margin,
            host_bytes=None if host_budget is None else parse_bytes(host_budget),
        )  # fmt: skip
        return _json(answers.plan(catalogue.find(profile), asked))

    @routes.get("/compare", dependencies=[read], response_model=Compared, responses=refusals(404, 409))
    def compare(before: Name, after: Name) -> Response:
        """Show two profiles side by side, with what changed between them."""
        catalogue.refresh()
        return _json(answers.compare(catalogue.find(before), catalogue.find(after)))

    @routes.get("/tunes", dependencies=[read], response_model=Tunes, responses=refusals())
    def list_tunes() -> Response:
        """Show the tunes under way: what each measures now, done, left, best so far, what failed."""
        return _json(dumps(tunes.read()))

    stream = {
        200: {"description": "`tunes` events, each with the document of /tunes", "content": {"text/event-stream": {}}}
    }

    @routes.get("/tunes/events", dependencies=[read], responses=refusals(429) | stream)
    async def follow_tunes() -> StreamingResponse:
        """Follow the tunes under way by server-sent events."""
        tunes.check_room()
        return StreamingResponse(tunes.events(ended), media_type="text/event-stream")

    return routes
