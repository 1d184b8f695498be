"""The pages of the service: signed in or not, in a real browser, in either theme, on narrow screens, by keyboard."""

import asyncio
import html.parser
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from autotune.serving.app import ServiceRequest, make_app
from autotune.serving.tokens import Right, Tokens, make_token
from autotune.tuning.announce import UNDER_WAY_NOTE
from profiles import Status, open_store
from tests.autotune.serving.service import Service, service
from tests.profiles.makers import a_measurement, a_sweep
from tests.profiles.pages.browser import Browser, find_chromium

in_browser = pytest.mark.skipif(find_chromium() is None, reason="no Chromium on this machine (Debian's chromium does)")

NASTY = "</script><b id='injected'>bold</b>"
GPU = "NVIDIA L4"
BOTH = f"/compare?before=spirals:make@cpu&after=spirals:make@{GPU.replace(' ', '%20')}"
PAGES = {
    "profiles": "/", "profile": "/profiles/spirals:make@cpu", "devices": "/devices?profile=spirals:make@cpu",
    "compare": BOTH, "tunes": "/tunes", "none": "/profiles/nobody:make",
}  # fmt: skip


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service without tokens of a store with two profiles, a tune under way, and markup wherever a text may be."""
    folder = tmp_path_factory.mktemp("pages")
    failed = a_measurement(
        name=NASTY, checkpoints=3, status=Status.FAILED, message=NASTY, peak_bytes=None, peak_source=None,
        run_seconds=(), study=NASTY, host=NASTY,
    )  # fmt: skip
    state = {
        "tune": "t", "problem": NASTY, "device": "cpu", "adjoint": "ours", "budget_bytes": 2**30, "done": 3, "left": 5,
        "left_seconds": 60.0, "doing": "timing: 8 checkpoints", "began_at": "2026-05-04T03:02:01+00:00",
        "at": "2026-05-04T03:02:01+00:00", "failed": 1, "owner": {"place": "desk pid:[1]"},
        "best": {"checkpoints": 16, "case": "horizon 100", "run_seconds": 0.124, "peak_bytes": 19 * 2**20},
        "failures": [{"checkpoints": 4, "case": "horizon 100", "status": "timed_out", "message": NASTY}],
    }  # fmt: skip
    with open_store(str(folder / "profiles.db")) as store:
        store.put_all([*a_sweep(), *a_sweep(kind=GPU, speed=0.5), failed])
        store.put_note(UNDER_WAY_NOTE, "t", state)
    with service(str(folder / "profiles.db"), folder, with_tokens=False) as found:
        yield found


class Scripts(html.parser.HTMLParser):
    """Collects what a page would run: scripts that stand in it, and attributes that hold code or style."""

    def __init__(self) -> None:
        """Have seen nothing yet."""
        super().__init__()
        self.inside: list[str] = []
        self._open = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Look at the attributes, and whether a script stands here."""
        given = dict(attrs)
        self.inside += [f"{tag} {name}" for name in given if name.startswith("on") or name == "style"]
        self._open = tag == "script" and "src" not in given and given.get("type") != "application/json"
        if tag == "style" or given.get("href", "").startswith("javascript:"):
            self.inside.append(tag)

    def handle_data(self, data: str) -> None:
        """Keep what stands in a script."""
        if self._open and data.strip():
            self.inside.append(data)

    def handle_endtag(self, tag: str) -> None:
        """Leave it."""
        self._open = False


@pytest.mark.parametrize("page", PAGES)
def test_no_script_and_no_style_stands_in_a_page(page: str, running: Service) -> None:
    """Not even where a store's texts hold markup; and the policy of the page allows none."""
    answer = httpx.get(running.address + PAGES[page], timeout=60)
    assert answer.status_code == (404 if page == "none" else 200)
    found = Scripts()
    found.feed(answer.text)
    assert found.inside == []
    assert "<b id=" not in answer.text
    assert "script-src 'self';" in answer.headers["content-security-policy"]


def test_a_browser_signs_in_with_a_token_and_may_only_read(tmp_path: Path) -> None:
    """Pages send who is not signed in to the page that asks, and back; the cookie is no token and writes nothing."""
    with service(str(tmp_path / "profiles.db"), tmp_path) as found, httpx.Client(base_url=found.address) as browser:
        answer = browser.get("/tunes")
        assert (answer.status_code, answer.headers["location"]) == (303, "/sign-in?next=%2Ftunes")
        assert "Sign in" in browser.get("/sign-in?next=/tunes").text
        wrong = browser.post("/sign-in", data={"token": "ckpt_wrong", "next": "/tunes"})
        assert wrong.status_code == 401
        assert "not in the service's file" in wrong.text.replace("&#x27;", "'")
        answer = browser.post("/sign-in", data={"token": found.tokens[Right.DELETE], "next": "/tunes"})
        assert (answer.status_code, answer.headers["location"]) == (303, "/tunes")
        cookie = answer.headers["set-cookie"]
        assert found.tokens[Right.DELETE] not in cookie
        assert {"httponly", "samesite=strict"} <= set(cookie.lower().split("; "))
        assert browser.get("/").status_code == 200
        assert browser.get("/api/v1/profiles").status_code == 200
        assert browser.put("/api/v1/note", json={"kind": "a", "key": "b", "value": 1}).status_code == 401
        assert browser.post("/sign-out").status_code == 303
        assert browser.get("/").status_code == 303


@pytest.mark.parametrize("wanted", ["//evil.example", "https://evil.example", "/\\evil.example", "javascript:x", "x"])
def test_signing_in_leads_nowhere_else(wanted: str, tmp_path: Path) -> None:
    """A link of a stranger's may name where to go on; only pages of the service count."""
    with service(str(tmp_path / "profiles.db"), tmp_path) as found:
        form = {"token": found.tokens[Right.READ], "next": wanted}
        assert httpx.post(f"{found.address}/sign-in", data=form).headers["location"] == "/"


@pytest.mark.parametrize("kept", [True, False])
def test_a_proxy_shows_the_service_below_a_path(kept: bool, tmp_path: Path) -> None:
    """Whether it keeps the path or takes it off: pages and the document lead below it, and so does the cookie."""
    tokens = tmp_path / "tokens"
    token = make_token(tokens, Right.READ, "a")

    async def ask() -> None:
        with open_store(str(tmp_path / "profiles.db")) as store:
            app = make_app(ServiceRequest(store=store, tokens=Tokens(tokens), root_path="/tuner", log=False))
            before = "/tuner" if kept else ""
            async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="https://team") as client:
                answer = await client.get(f"{before}/tunes")
                assert answer.headers["location"] == "/tuner/sign-in?next=%2Ftunes"
                answer = await client.post(f"{before}/sign-in", data={"token": token, "next": "/tunes"})
                assert answer.headers["location"] == "/tuner/tunes"
                assert "path=/tuner" in answer.headers["set-cookie"].lower()
                assert "secure" in answer.headers["set-cookie"].lower()
                session = answer.headers["set-cookie"].partition(";")[0]
                page = (await client.get(f"{before}/tunes", headers={"cookie": session})).text
                assert set(re.findall(r'(?:href|src|action)="(/[^/"]*)', page)) == {"/tuner"}
                document = (await client.get(f"{before}/api/v1/openapi.json")).json()
                assert document["servers"] == [{"url": "/tuner"}]

    asyncio.run(ask())


def test_files_of_the_pages_are_those_alone(running: Service) -> None:
    """No path leads to another file; what a browser has is not sent again."""
    first = httpx.get(f"{running.address}/assets/service.js")
    assert first.headers["content-type"].startswith("text/javascript")
    again = httpx.get(f"{running.address}/assets/service.js", headers={"if-none-match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    for name in ("shell.html", "..%2Fapp.py", "%2Fetc%2Fpasswd", "../server.py", "nothing.js"):
        assert httpx.get(f"{running.address}/assets/{name}").status_code == 404


# --- in Chromium


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One browser for all tests of this module."""
    with Browser(tmp_path_factory.mktemp("chromium")) as browser:
        yield browser


def until(browser: Browser, code: str, seconds: float = 60.0) -> Any:
    """Wait until JavaScript in the page gives something."""
    ends = time.monotonic() + seconds
    while not (found := browser.run(code)):
        assert time.monotonic() < ends, (code, browser.complaints())
        time.sleep(0.05)
    return found


def show(browser: Browser, address: str) -> None:
    """Open a page and wait until it says that it is drawn."""
    browser.events.clear()
    browser.call("Page.navigate", url=address)
    until(browser, f"location.href.startsWith({json.dumps(address.split('?')[0])}) && "
                   "document.documentElement?.dataset.ready === 'yes'")  # fmt: skip


@in_browser
@pytest.mark.parametrize("page", [page for page in PAGES if page != "none"])
def test_a_page_is_drawn_from_this_server_alone_in_both_themes_and_on_narrow_screens(
    page: str, running: Service, chromium: Browser
) -> None:
    """Nothing is asked for elsewhere, nothing complains, nothing is wider than the screen, texts stay texts."""
    backgrounds = set()
    for scheme, width in (("light", 1200), ("dark", 1200), ("dark", 380)):
        chromium.media(scheme=scheme)
        chromium.resize(width, 900)
        show(chromium, running.address + PAGES[page])
        backgrounds.add(chromium.run("getComputedStyle(document.body).backgroundColor"))
        assert chromium.run("document.documentElement.scrollWidth") <= width
        assert chromium.run("document.getElementById('injected')") is None
        assert not chromium.complaints()
        assert all(url.startswith((running.address, "data:")) for url in chromium.requests())
    assert len(backgrounds) == 2


@in_browser
def test_profiles_are_filtered_and_sorted_by_keyboard(running: Service, chromium: Browser) -> None:
    """Tab leads to the field, typing narrows the table, Enter on a heading sorts, and a row leads to its report."""
    show(chromium, f"{running.address}/")
    names = "[...document.querySelectorAll('#profiles tbody tr td:nth-child(2)')].map((cell) => cell.textContent)"
    assert sorted(chromium.run(names)) == [GPU, "cpu", "cpu"]
    chromium.run("document.getElementById('words').focus()")
    chromium.call("Input.insertText", text="nvidia spirals")
    assert chromium.run(names) == [GPU]
    assert chromium.run("document.getElementById('row-count').textContent") == "1 of 3 profiles"
    chromium.type("#words", "spirals:make")
    chromium.run("document.querySelector('th[data-column=device] button').focus()")
    for kind in ("keyDown", "keyUp"):
        chromium.call(
            "Input.dispatchKeyEvent", type=kind, key="Enter", code="Enter", windowsVirtualKeyCode=13, text="\r"
        )
    assert chromium.run(names) == ["cpu", GPU]
    link = chromium.run("document.querySelector('#profiles tbody a').getAttribute('href')")
    assert re.fullmatch(r"/profiles/[0-9a-f]{16}", link)
    show(chromium, running.address + link)
    assert chromium.run("document.querySelector('h1').textContent") == "spirals:make"


@in_browser
def test_the_slider_moves_the_budget_of_devices(running: Service, chromium: Browser) -> None:
    """The recommendation and the devices that offer it follow; what is recommended is what the API says."""
    show(chromium, f"{running.address}/devices?profile=spirals:make@cpu")
    chromium.type("#budget-text", "40MiB")
    first = "document.querySelector('#answers tr td')?.textContent"
    asked = {"profile": "spirals:make@cpu", "budget": str(40 * 2**20)}
    wanted = httpx.get(f"{running.address}/api/v1/recommend", params=asked).json()["recommendations"][0]["checkpoints"]
    until(chromium, f"{first} === '{wanted}'")
    assert chromium.run("document.getElementById('budget').getAttribute('aria-valuetext')") == "40 MiB"
    chromium.run("document.getElementById('budget').focus()")
    for kind in ("keyDown", "keyUp"):
        chromium.call("Input.dispatchKeyEvent", type=kind, key="End", code="End", windowsVirtualKeyCode=35)
    until(chromium, "/^[01] of [0-9]+ devices/.test(document.getElementById('offering').textContent)")
    chromium.type("#budget-text", "1KiB")
    until(chromium, f"{first} === 'nothing fits'")


@in_browser
def test_a_tune_is_followed_while_it_runs(running: Service, chromium: Browser) -> None:
    """What it does, its best and its failures are shown, and change without a reload; it goes when it ends."""
    show(chromium, f"{running.address}/tunes")
    text = "document.getElementById('tunes').innerText"
    shown = until(chromium, f"/timing: 8 checkpoints/.test({text}) && {text}")
    for part in (NASTY, "124 ms at 16 checkpoints", "3, about 5 left", "4 checkpoints at horizon 100: timed out"):
        assert part in shown
    with open_store(running.address) as store:
        before = store.get_note(UNDER_WAY_NOTE, "t")
        store.put_note(UNDER_WAY_NOTE, "t", before | {"doing": "final run"})
        until(chromium, f"/final run/.test({text})")
        store.swap_note(UNDER_WAY_NOTE, "t", before | {"doing": "final run"}, None)
        until(chromium, "!document.getElementById('empty').hidden")
        store.put_note(UNDER_WAY_NOTE, "t", before)


@in_browser
def test_the_theme_that_was_chosen_stays(running: Service, chromium: Browser) -> None:
    """From page to page, the report included."""
    theme = "document.documentElement.dataset.theme"
    show(chromium, f"{running.address}/tunes")
    chromium.click("#theme")
    assert chromium.run(theme) == "light"
    chromium.click("#theme")
    until(chromium, "localStorage.getItem('ckpt-tune-theme') === 'dark'")
    show(chromium, f"{running.address}/profiles/spirals:make@cpu")
    assert chromium.run(theme) == "dark"
    assert chromium.run("document.getElementById('theme').textContent") == "Theme: dark"
    chromium.click("#theme")
    until(chromium, "localStorage.getItem('ckpt-tune-theme') === 'auto'")
