"""The pages: what is stored, a profile as its report, devices, two profiles side by side, the tunes under way.

Nothing of a store is ever markup: texts are escaped, and data stands in a block of JSON that no browser runs.
"""

import functools
import hashlib
import html
import importlib.resources
import json
import string
import threading
from collections.abc import Sequence
from typing import Annotated, Any
from urllib.parse import parse_qs, quote, urlencode

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import RedirectResponse
from starlette.concurrency import run_in_threadpool

import profiles
from autotune.machine.budget import resolve_budget
from autotune.serving.access import COOKIE, Access
from autotune.serving.answers import Answers
from autotune.serving.problems import problem
from autotune.serving.tokens import SESSION_SECONDS
from autotune.serving.under_way import TunesUnderWay
from profiles import ProfilesError, ProfileSummary

_PLACES = (("profiles", "", "Profiles"), ("devices", "devices", "Devices"), ("compare", "compare", "Compare"),
           ("tunes", "tunes", "Tunes under way"))  # fmt: skip
_FILES = {
    "page.css": "text/css", "service.css": "text/css", "theme.js": "text/javascript", "service.js": "text/javascript",
    "units.js": "text/javascript", "tables.js": "text/javascript", "report.js": "text/javascript",
    "vega.js": "text/javascript",
}  # fmt: skip
Text = Annotated[str | None, Query(max_length=400, pattern=r"^[^\x00]*$")]


def page_routes(answers: Answers, tunes: TunesUnderWay, access: Access, root_path: str) -> APIRouter:
    """Make the routes of the pages."""
    return Pages(answers, tunes, access, root_path).routes()


@functools.cache
def _file(name: str) -> tuple[bytes, str]:
    """Read a file of the pages, and name its state."""
    own = importlib.resources.files("autotune").joinpath("serving", "assets", name)
    text = own.read_text(encoding="utf-8") if own.is_file() else profiles.page_file(name)
    content = text.encode()
    return content, f'"{hashlib.sha256(content).hexdigest()[:32]}"'


def embed(data: Any) -> str:
    """Write data as JSON that may stand inside a script element: no character of it can end the element."""
    text = json.dumps(data, ensure_ascii=False, default=str)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


class Pages:
    """The pages of one service."""

    def __init__(self, answers: Answers, tunes: TunesUnderWay, access: Access, root_path: str) -> None:
        """Keep what pages are drawn from."""
        self._answers, self._tunes, self._access = answers, tunes, access
        self._catalogue = answers.catalogue
        self._root = root_path
        self._prepared = False

    def routes(self) -> APIRouter:
        """Make the routes."""
        routes = APIRouter()
        for path, page in (
            ("/", self.list_profiles), ("/profiles/{name}", self.show_profile), ("/devices", self.plan_devices),
            ("/compare", self.compare), ("/compare.svg", self.draw_comparison), ("/tunes", self.follow_tunes),
        ):  # fmt: skip
            routes.get(path)(page)
        routes.get("/assets/{name}")(self.give_file)
        routes.get("/sign-in")(self.ask_for_token)
        routes.post("/sign-in")(self.take_token)
        routes.post("/sign-out")(self.sign_out)
        return routes

    # --- who may

    def _signed_in(self, request: Request) -> Response | None:
        """Return where somebody without a token is sent."""
        if self._access.tokens is None:
            return None
        token = self._access.token_of(request, None)
        if token is None:
            wanted = request.url.path.removeprefix(self._root) or "/"
            query = f"?{request.url.query}" if request.url.query else ""
            return RedirectResponse(f"{self._root}/sign-in?{urlencode({'next': wanted + query})}", status_code=303)
        request.scope.setdefault("state", {})["token"] = token.name
        return None

    async def ask_for_token(self, request: Request, next: Text = None) -> Response:
        """Ask a browser for a token."""
        return self._sign_in_page(next or "/", "")

    async def take_token(self, request: Request) -> Response:
        """Let a browser in that shows a token."""
        form = parse_qs((await request.body())[:10_000].decode("utf-8", "replace"))
        wanted = form.get("next", ["/"])[0]
        tokens = self._access.tokens
        if tokens is None:
            return RedirectResponse(f"{self._root}/", status_code=303)
        token = tokens.find(form.get("token", [""])[0].strip())
        if token is None:
            return self._sign_in_page(wanted, "This token is not in the service's file.", status=401)
        answer = RedirectResponse(self._root + _local(wanted), status_code=303)
        answer.set_cookie(
            COOKIE, tokens.begin_session(token), max_age=int(SESSION_SECONDS), path=self._root or "/", httponly=True,
            samesite="strict", secure=request.url.scheme == "https",
        )  # fmt: skip
        return answer

    async def sign_out(self, request: Request) -> Response:
        """Forget a browser."""
        if self._access.tokens is not None:
            self._access.tokens.end_session(request.cookies.get(COOKIE, ""))
        answer = RedirectResponse(f"{self._root}/sign-in", status_code=303)
        answer.delete_cookie(COOKIE, path=self._root or "/")
        return answer

    def _sign_in_page(self, wanted: str, wrong: str, *, status: int = 200) -> Response:
        said = f'<p class="wrong" role="alert">{html.escape(wrong)}</p>' if wrong else ""
        main = self._part("sign_in.html", said=said, next=html.escape(_local(wanted)))
        return self._page("sign-in", "ckpt-tune", "", main, None, status=status)

    # --- pages

    def list_profiles(self, request: Request) -> Response:
        """Show what is stored."""
        if (elsewhere := self._signed_in(request)) is not None:
            return elsewhere
        self._catalogue.refresh()
        self._prepare()
        there = self._catalogue.summaries
        rows = [
            {
                "key": one.id,
                "profile": one.name, "id": one.id[:8], "device": one.device.label, "adjoint": str(one.adjoint),
                "cases": one.cases, "measurements": one.rows, "failed": one.failed,
                "newest": f"{one.newest_at:%Y-%m-%d %H:%M} UTC", "versions": ", ".join(one.versions),
            }
            for one in there
        ]  # fmt: skip
        main = self._part("profiles.html")
        said = f"{len(there):,} in {self._catalogue.place}"
        return self._page("profiles", "Profiles", said, main, {"profiles": rows})

    async def show_profile(self, request: Request, name: str, budget: Text = None) -> Response:
        """Show a profile as its report, drawn from what is stored now."""
        if (elsewhere := self._signed_in(request)) is not None:
            return elsewhere
        summary = self._find(name)
        if isinstance(summary, Response):
            return summary
        page = await run_in_threadpool(self._report, summary, budget)
        return Response(page, media_type="text/html; charset=utf-8")

    def _report(self, summary: ProfileSummary, budget: str | None) -> bytes:
        from autotune.choosing.recommend import RecommendRequest
        from autotune.choosing.report import report_extras
        from autotune.tuning.lab import described_device

        def make() -> bytes:
            known = self._catalogue.recommender(summary)
            profile, chosen, budget_bytes = known.profile, (), None
            if budget:
                resolved = resolve_budget(budget, described_device(profile.device), rows=profile.measurements)
                budget_bytes = resolved.bytes
                asked = RecommendRequest(budget_bytes=resolved.bytes, margin_bytes=resolved.margin_bytes)
                chosen = known.answer(asked)
            id_ = quote(summary.id)
            files = f"{self._root}/api/v1/profiles/{quote(summary.qualified_name)}"
            more = (
                f'<a href="{self._root}/devices?profile={id_}">devices to plan for</a> '
                f'<a href="{files}/rows" download="rows.json">rows</a> <a href="{files}/study">Optuna study</a>'
            )
            served = profiles.Served(files=f"{self._root}/assets", navigation=self._navigation("profile", more))
            extras = report_extras(profile, chosen)
            return profiles.render_page(profile, budget_bytes=budget_bytes, extras=extras, served=served).encode()

        return self._answers.kept(("page", budget), [summary], make)

    def plan_devices(self, request: Request, profile: Text = None) -> Response:
        """Show devices to plan for, with a budget to move."""
        if (elsewhere := self._signed_in(request)) is not None:
            return elsewhere
        self._catalogue.refresh()
        summary = self._find(profile) if profile else self._newest()
        if isinstance(summary, Response):
            return summary
        data: dict[str, Any] = {"profile": None}
        if summary is not None:
            rows = self._catalogue.profile(summary).measurements
            sizes = [row.peak_bytes for row in rows if row.peak_bytes] or [2**30]
            data = {"profile": summary.qualified_name, "smallest": min(sizes), "start": max(sizes)}
        main = self._part("devices.html", options=self._options(summary))
        if summary is None:
            main = '<p class="empty">Nothing is stored yet, so there is nothing to plan from.</p>'
        said = "what fits on devices that you do not have, from what was measured or compiled"
        return self._page("devices", "Devices to plan for", said, main, data)

    def compare(self, request: Request, before: Text = None, after: Text = None) -> Response:
        """Show two profiles side by side."""
        if (elsewhere := self._signed_in(request)) is not None:
            return elsewhere
        self._catalogue.refresh()
        both = [self._find(name) if name else None for name in (before, after)]
        if (missing := next((one for one in both if isinstance(one, Response)), None)) is not None:
            return missing
        one, other = (summary if isinstance(summary, ProfileSummary) else None for summary in both)
        main = self._part("compare.html", before=self._options(one), after=self._options(other))
        data: dict[str, Any] = {"points": None}
        if one is not None and other is not None:
            data = json.loads(self._answers.compare(one, other))
            changes = "".join(map(_change, data["changes"]))
            query = urlencode({"before": one.id, "after": other.id})
            said = f"fronts of {one.qualified_name} and {other.qualified_name}"
            source, alt = html.escape(f"{self._root}/compare.svg?{query}"), html.escape(said)
            figure = f'<img class="picture" src="{source}" alt="{alt}">'
            nothing = '<p class="empty">no case was measured in both</p>'
            main += self._part("compared.html", changes=changes, figure=figure if data["points"] else nothing)
        return self._page("compare", "Two profiles side by side", "", main, data)

    def draw_comparison(self, request: Request, before: Text = None, after: Text = None) -> Response:
        """Draw the fronts of two profiles."""
        if (elsewhere := self._signed_in(request)) is not None:
            return elsewhere
        both = [self._find(name or "") for name in (before, after)]
        found = [one for one in both if isinstance(one, ProfileSummary)]
        if len(found) < 2:
            return next(one for one in both if isinstance(one, Response))

        def make() -> bytes:
            table = profiles.compared_table([self._catalogue.profile(one) for one in found])
            return profiles.svg_text(profiles.compare_figure(table)).encode()

        return Response(self._answers.kept("compare.svg", found, make), media_type="image/svg+xml")

    def follow_tunes(self, request: Request) -> Response:
        """Show the tunes under way."""
        if (elsewhere := self._signed_in(request)) is not None:
            return elsewhere
        main = self._part("tunes.html")
        try:
            data = self._tunes.read()
        except ProfilesError:
            data = {"tunes": []}
        return self._page("tunes", "Tunes under way", "on this store, as they tell it themselves", main, data)

    def give_file(self, request: Request, name: str) -> Response:
        """Give a script or style of the pages; they are the same for everybody."""
        if name not in _FILES:
            return problem(404, "no-such-path", f"no page has a file {name[:80]!r}")
        content, state = _file(name)
        headers = {"etag": state, "cache-control": "no-cache"}
        if request.headers.get("if-none-match") == state:
            return Response(status_code=304, headers=headers)
        return Response(content, media_type=_FILES[name], headers=headers)

    # --- parts

    def _prepare(self) -> None:
        """Make Vega's bundle, which takes seconds, while the reader still looks at the list."""
        if not self._prepared:
            self._prepared = True
            threading.Thread(target=_file, args=("vega.js",), daemon=True).start()

    def _find(self, name: str) -> ProfileSummary | Response:
        """Find a profile by its id or by what a person types, or say as a page that there is none."""
        self._catalogue.refresh()
        for one in self._catalogue.summaries:
            if one.id == name:
                return one
        try:
            return self._catalogue.find(name)
        except ProfilesError as error:
            main = f'<p class="wrong">{html.escape(str(error))}</p>'
            return self._page("none", "No such profile", "", main, None, status=404)

    def _newest(self) -> ProfileSummary | None:
        return max(self._catalogue.summaries, key=lambda one: one.newest_at, default=None)

    def _options(self, chosen: ProfileSummary | None) -> str:
        """Write every profile as a choice."""
        return "".join(
            f'<option value="{one.id}"{" selected" * (one is chosen)}>{html.escape(one.qualified_name)}</option>'
            for one in self._catalogue.summaries
        )

    def _part(self, name: str, **filled: str) -> str:
        """Fill a part of a page in; what goes in is HTML already."""
        return string.Template(_file(name)[0].decode()).substitute(root=self._root, **filled)

    def _navigation(self, page: str, more: str = "") -> str:
        places = "".join(
            f'<a href="{self._root}/{path}"{" aria-current=page" * (name == page)}>{text}</a>'
            for name, path, text in _PLACES
        )
        out = ""
        if self._access.tokens is not None and page != "sign-in":
            out = f'<form method="post" action="{self._root}/sign-out"><button type="submit">Sign out</button></form>'
        skip = '<a class="skip" href="#main">to the page</a>' if page != "profile" else ""
        name = '<span class="product">ckpt-tune</span>'
        return f'{skip}<nav class="places" aria-label="pages">{name}{places}{more}{out}</nav>\n'

    def _page(self, page: str, title: str, subtitle: str, main: str, data: Any, *, status: int = 200) -> Response:
        """Put a page together; one without data has no script but the theme's."""
        scripts: Sequence[str] = () if data is None else ("units.js", "tables.js", "service.js")
        text = string.Template(_file("shell.html")[0].decode()).substitute(
            page=page, title=html.escape(title), subtitle=html.escape(subtitle), root=self._root, main=main,
            navigation=self._navigation(page), data=embed(data),
            scripts="\n".join(f'<script src="{self._root}/assets/{name}"></script>' for name in scripts),
        )  # fmt: skip
        return Response(text, status_code=status, media_type="text/html; charset=utf-8")


def _change(change: dict[str, Any]) -> str:
    """Write what changed as a row of a table."""
    sides = "".join(f'<td class="text">{html.escape(change[side] or "nothing")}</td>' for side in ("before", "after"))
    return f'<tr><th scope="row">{html.escape(change["what"])}</th>{sides}</tr>'


def _local(path: str) -> str:
    """Keep a path that leads to a page of this service, whatever a stranger wrote into a link."""
    kept = path if path.startswith("/") and not path.startswith(("//", "/\\")) else "/"
    return kept if kept.isprintable() and "\\" not in kept else "/"
