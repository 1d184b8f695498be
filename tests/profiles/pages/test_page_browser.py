"""The HTML page in a real browser: it loads nothing, and does what its controls say."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from profiles import Case, Profile, Recommended, ReportExtras, Status, Tree, render_page
from tests.profiles.makers import a_measurement, a_sweep
from tests.profiles.pages.browser import Browser, find_chromium

pytestmark = pytest.mark.skipif(find_chromium() is None, reason="no Chromium on this machine (Debian's chromium does)")

MIB = 2**20
NASTY = "</script><b id='injected'>bold</b>"


class Block:
    """A block of a tree."""

    def __init__(self, start: int, stop: int, slot: int) -> None:
        """Take the three figures."""
        self.start, self.stop, self.slot = start, stop, slot


@pytest.fixture(scope="module")
def profile() -> Profile:
    """Six cases and one failed row with markup in its message."""
    failed = a_measurement(
        checkpoints=3, status=Status.FAILED, message=NASTY, peak_bytes=None, peak_source=None, run_seconds=()
    )
    return Profile(name="spirals:make", measurements=(*a_sweep(), failed))


@pytest.fixture(scope="module")
def page(profile: Profile, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of the profile, with a recommendation and trees for its first case."""
    case = profile.cases[0]
    trees = tuple(
        Tree(case=case, checkpoints=count, steps=10, blocks=(Block(0, 10, 0), Block(5, 10, 1))) for count in (8, 16)
    )
    chosen = Recommended(case=case, checkpoints=8, peak_bytes=19 * MIB, run_seconds=0.5, evidence="interpolated")
    text = render_page(profile, budget_bytes=40 * MIB, extras=ReportExtras(trees=trees, recommended=(chosen,)))
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory):
    """One browser for all tests of this module."""
    with Browser(tmp_path_factory.mktemp("chromium")) as browser:
        yield browser


@pytest.fixture
def browser(chromium: Browser, page: Path) -> Browser:
    """The browser with the page freshly opened in light colours."""
    chromium.events.clear()
    chromium.media(scheme="light")
    chromium.resize(1366, 900)
    chromium.open(page)
    return chromium


def settle(browser: Browser) -> None:
    """Wait until the frame is over, and every figure has drawn what it was told."""
    browser.run("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))).then(() => true)")
    browser.run("Promise.all(Object.values(views).map(({ view }) => view.runAsync())).then(() => true)")


def marks(browser: Browser, selector: str) -> int:
    """Count the marks of a layer of a figure."""
    settle(browser)
    return browser.run(f"document.querySelectorAll({selector + ' path'!r}).length")


def recommended(browser: Browser) -> list[tuple[str, str]]:
    """What the page recommends: (case, checkpoints or that nothing fits) of every row."""
    rows = browser.run(
        "[...document.querySelectorAll('#recommendations tbody tr')].map(row => [row.querySelector('th').textContent,"
        "row.cells.length > 5 ? row.cells[2].textContent : row.cells[2].textContent])"
    )
    return [(case, count) for case, count in rows]


def fastest(profile: Profile, budget: float) -> dict[Case, int]:
    """The count that takes least seconds within a budget, by looking at every row; equal seconds go to fewer bytes."""
    best: dict[Case, tuple[float, int, int]] = {}
    for row in profile.measurements:
        if row.status is Status.OK and row.peak_bytes is not None and row.peak_bytes <= budget:
            assert row.run_median_seconds is not None
            offer = (row.run_median_seconds, row.peak_bytes, row.checkpoints)
            best[row.case] = min(best.get(row.case, offer), offer)
    return {case: count for case, (_, _, count) in best.items()}


def table_column(browser: Browser, name: str) -> list[str]:
    """The texts of one column of the table of measurements."""
    return browser.run(
        f"(() => {{ const head = [...document.querySelectorAll('#measurements th')].map(th => th.dataset.column);"
        f"const at = head.indexOf('{name}');"
        "return [...document.querySelectorAll('#measurements tbody tr')].map(row => row.cells[at].textContent); })()"
    )


def test_the_page_draws_itself_without_a_complaint_and_loads_nothing(browser: Browser, page: Path, profile: Profile):
    """No exception, no warning of the console or the content policy, and one request: the file itself."""
    assert browser.complaints() == []
    assert browser.requests() == [page.as_uri()]
    good = sum(row.status is Status.OK for row in profile.measurements)
    for name in ("seconds", "recompute_factor"):
        on, off = (marks(browser, f"#{name}-chart .{layer}_{name}_marks") for layer in ("front", "beaten"))
        assert on + off == good
    assert marks(browser, "#bytes-chart .measured_marks") == marks(browser, "#recompute-chart .executed_marks") == good
    assert browser.run("document.title") == "spirals:make"


def test_markup_in_a_message_is_shown_as_text(browser: Browser):
    """A message with markup appears in its cell to the letter, and makes no element."""
    assert browser.run("document.getElementById('injected')") is None
    assert NASTY in table_column(browser, "message")


def test_the_reports_own_recommendation_is_shown_until_the_budget_moves(browser: Browser, profile: Profile):
    """At the report's budget the tuner's recommendation stands with its evidence; the other cases show the fastest."""
    expected = fastest(profile, 40 * MIB) | {profile.cases[0]: 8}
    assert recommended(browser) == [(str(case), str(expected[case])) for case in profile.cases]
    assert "interpolated" in browser.run("document.querySelector('#recommendations tbody tr').textContent")


@pytest.mark.parametrize("mib", [8, 12, 70, 200])
def test_a_typed_budget_moves_every_recommendation(browser: Browser, profile: Profile, mib: int):
    """Whatever budget is written, each case shows the count that every row looked at gives."""
    browser.type("#budget-text", f"{mib} MiB")
    expected = fastest(profile, mib * MIB)
    assert recommended(browser) == [(str(case), str(expected[case])) for case in profile.cases]
    assert browser.run("document.getElementById('budget').getAttribute('aria-valuetext')").startswith(f"{mib} MiB: ")
    browser.click("#reset")
    assert recommended(browser)[0][1] == "8"


def test_a_budget_that_nothing_fits_says_the_smallest_that_would_do(browser: Browser):
    """Below the smallest measured peak every case says so with the bytes it needs; nonsense changes nothing."""
    browser.type("#budget-text", "1MiB")
    for _case, said in recommended(browser):
        assert said == "nothing measured fits in 1 MiB; the smallest measured needs 7 MiB"
    browser.type("#budget-text", "a lot")
    assert "1 MiB" in recommended(browser)[0][1]


def test_the_slider_moves_the_budget_and_the_recommendation(browser: Browser, profile: Profile):
    """With the keyboard to either end: everything fits at the right, hardly anything at the left."""
    browser.run("document.getElementById('budget').focus()")
    for key, code in (("End", 35), ("Home", 36)):
        for kind in ("keyDown", "keyUp"):
            browser.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code)
        settle(browser)
        value = browser.run("document.getElementById('budget').value")
        assert value == ("1000" if key == "End" else "0")
        if key == "End":
            expected = fastest(profile, 2**40)
            assert recommended(browser) == [(str(case), str(expected[case])) for case in profile.cases]
        else:
            assert all("nothing measured fits" in said for _, said in recommended(browser))


def test_the_budget_line_can_be_dragged(browser: Browser, profile: Profile):
    """Pulling the red line of a front to the left lowers the budget and with it the counts."""
    x, y = browser.place("#seconds-chart .grip_marks line")
    browser.mouse("mouseMoved", x, y)
    browser.mouse("mousePressed", x, y, pressed=True)
    for step in range(1, 11):
        browser.mouse("mouseMoved", x - 15 * step, y, pressed=True)
    browser.mouse("mouseReleased", x - 150, y)
    settle(browser)
    text = browser.run("document.getElementById('budget-text').value")
    number, unit = text.split()
    assert unit == "MiB"
    assert 7 < float(number) < 35
    expected = fastest(profile, float(number) * MIB)
    assert [count for _, count in recommended(browser)] == [str(expected[case]) for case in profile.cases]
    browser.mouse("mouseMoved", x, y)
    assert browser.run("document.getElementById('budget-text').value") == text  # let go is let go


def test_hovering_a_point_tells_its_figures(browser: Browser, profile: Profile):
    """Over a point the tooltip names case, count, bytes and seconds; away from it the tooltip goes."""
    x, y = browser.place("#seconds-chart .front_seconds_marks path")
    browser.mouse("mouseMoved", x + 2, y + 2)
    said = browser.run("document.getElementById('tooltip').innerText")
    assert browser.run("document.getElementById('tooltip').hidden") is False
    assert str(profile.cases[0]) in said
    assert "checkpoints" in said
    assert "7 MiB (compiled)" in said
    assert "of 3" in said
    browser.mouse("mouseMoved", 5, 5)
    assert browser.run("document.getElementById('tooltip').hidden") is True


def ticks(browser: Browser, chart: str) -> list[str]:
    """The texts that can be read at the ticks of both axes of a figure, sorted."""
    settle(browser)
    return browser.run(
        f"[...document.querySelectorAll('#{chart}-chart .role-axis-label text')]"
        ".filter(t => t.getAttribute('opacity') !== '0').map(t => t.textContent).sort()"
    )


def changed(browser: Browser, chart: str, before: list[str]) -> list[str]:
    """Wait until the ticks of a figure are others than before, and return them: input is handed on in its time."""
    return awaited(browser, chart, lambda now: now != before)


def awaited(browser: Browser, chart: str, holds: Callable[[list[str]], bool]) -> list[str]:
    """Wait until something holds of the ticks of a figure."""
    for _ in range(100):
        if holds(now := ticks(browser, chart)):
            return now
        time.sleep(0.02)
    raise AssertionError(f"the axes of {chart} say {now}")


def wheel(browser: Browser, selector: str, delta: int, *, ctrl: bool) -> None:
    """Turn the wheel over the middle of an element."""
    x, y = browser.place(selector)
    browser.mouse("mouseMoved", x, y)
    browser.call(
        "Input.dispatchMouseEvent", type="mouseWheel", x=x, y=y, deltaX=0, deltaY=delta, modifiers=2 if ctrl else 0
    )
    settle(browser)


def press(browser: Browser, key: str) -> None:
    """Press and release a key."""
    for kind in ("keyDown", "keyUp"):
        browser.call("Input.dispatchKeyEvent", type=kind, key=key, text=key if len(key) == 1 else "")
    settle(browser)


def test_ctrl_and_wheel_zoom_a_drag_moves_and_a_double_click_goes_back(browser: Browser):
    """A wheel alone leaves the figure as it is, and the page scrolls; with Ctrl the axes change."""
    before = ticks(browser, "recompute")
    wheel(browser, "#recompute-chart svg", -600, ctrl=True)
    near = changed(browser, "recompute", before)
    x, y = browser.place("#recompute-chart svg")
    browser.mouse("mouseMoved", x, y)
    browser.mouse("mousePressed", x, y, pressed=True)
    for step in range(1, 6):
        browser.mouse("mouseMoved", x - 30 * step, y, pressed=True)
    browser.mouse("mouseReleased", x - 150, y)
    assert changed(browser, "recompute", near) != before
    for count in (1, 2):
        for kind in ("mousePressed", "mouseReleased"):
            browser.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=count)
    awaited(browser, "recompute", lambda now: now == before)
    wheel(browser, "#recompute-chart svg", 200, ctrl=False)
    for _ in range(100):
        if browser.run("window.scrollY") > 0:
            break
        time.sleep(0.02)
    assert ticks(browser, "recompute") == before
    assert browser.complaints() == []


def test_a_figure_can_be_read_and_zoomed_with_the_keyboard(browser: Browser):
    """Arrows go from point to point and say each, plus and minus zoom, nought goes back, Escape is silent."""
    browser.run("document.getElementById('seconds-chart').focus()")
    said = []
    for key in ("ArrowRight", "ArrowRight", "ArrowLeft"):
        press(browser, key)
        said.append(browser.run("document.getElementById('tooltip').innerText"))
    assert "7 MiB" in said[0]
    assert said[0] == said[2] != said[1]
    assert browser.run("document.getElementById('tooltip').getAttribute('role')") == "status"
    press(browser, "Escape")
    assert browser.run("document.getElementById('tooltip').hidden") is True
    before = ticks(browser, "seconds")
    press(browser, "+")
    changed(browser, "seconds", before)
    press(browser, "0")
    awaited(browser, "seconds", lambda now: now == before)


def test_every_figure_has_a_text_and_a_table(browser: Browser, profile: Profile):
    """What a figure shows is said in words; the table beside it has a row for each point, sorted by any column."""
    browser.run("document.querySelectorAll('.beside').forEach(one => { one.open = true; })")
    rows = browser.run(
        "Object.fromEntries([...document.querySelectorAll('.beside')].map(one => "
        "[one.dataset.chart, one.querySelectorAll('tbody tr').length]))"
    )
    good = sum(row.status is Status.OK for row in profile.measurements)
    for name in ("seconds", "recompute_factor", "bytes", "recompute"):
        assert rows[name] == good
        said = browser.run(f"document.querySelector('#{name}-chart svg').closest('[aria-label]').ariaLabel")
        assert said
    assert rows["steps"] == len(profile.cases)
    assert rows["tree"] == 4
    button = '[data-chart="seconds"] th[data-column=checkpoints] button'
    browser.click(button)
    column = (
        "[...document.querySelectorAll('[data-chart=\"seconds\"] tbody tr')].map(r => Number(r.cells[1].textContent))"
    )
    counts = browser.run(column)
    assert counts == sorted(row.checkpoints for row in profile.measurements if row.status is Status.OK)


def test_the_count_that_fits_is_named_beside_the_slider_and_ringed(browser: Browser, profile: Profile):
    """The words beside the budget name the counts that every row looked at gives, and each is ringed in the front."""
    for mib in (12, 70):
        browser.type("#budget-text", f"{mib} MiB")
        counts = sorted(set(fastest(profile, mib * MIB).values()))
        words = browser.run("document.getElementById('fits').textContent")
        assert words == f"{', '.join(map(str, counts))} checkpoints fit best (6 of 6 cases)"
        assert browser.run("document.getElementById('budget').getAttribute('aria-valuetext')") == f"{mib} MiB: {words}"
        assert marks(browser, "#seconds-chart .recommended_seconds_marks") == len(profile.cases)
        settle(browser)
        text = browser.run("document.querySelector('#seconds-chart .budget_text_marks text').textContent")
        assert text == f"budget {mib} MiB"
    browser.click("#setting-chips label:nth-child(1) input")
    browser.click("#horizon_text-chips label:nth-child(1) input")
    browser.click("#horizon_text-chips label:nth-child(2) input")
    (count,) = [n for case, n in fastest(profile, 70 * MIB).items() if (case.horizon, case.tolerance) == (400, 1e-3)]
    assert browser.run("document.getElementById('fits').textContent") == f"{count} checkpoints fit best"


def test_names_of_a_store_are_text_in_figures_and_tooltips(chromium: Browser, tmp_path: Path):
    """Markup in a `--set` value stands in chips, tooltip and table to the letter, and makes no element."""
    rows = [
        a_measurement(checkpoints=count, peak_bytes=count * MIB, run_seconds=(1 / count,), set_values={"solver": name})
        for name, counts in ((NASTY, (2, 8)), ("alert(1)", (4, 16)))
        for count in counts
    ]
    path = tmp_path / "nasty.html"
    path.write_text(render_page(Profile(name=NASTY, measurements=tuple(rows))), encoding="utf-8")
    chromium.events.clear()
    chromium.open(path)
    said = []
    for number in range(1, 5):
        x, y = chromium.place(f"#seconds-chart .front_seconds_marks path:nth-child({number})")
        chromium.mouse("mouseMoved", x, y)
        said.append(chromium.run("document.getElementById('tooltip').textContent"))
    assert sum(NASTY in text for text in said) == sum("alert(1)" in text for text in said) == 2
    assert NASTY in chromium.run("document.getElementById('setting-chips').textContent")
    assert chromium.run("document.getElementById('injected')") is None
    assert chromium.complaints() == []


def test_a_page_of_many_rows_opens_without_a_complaint_and_shows_all_of_them_on_demand(
    chromium: Browser, tmp_path: Path
):
    """Of three thousand rows the table writes two hundred, then more; the choice within a budget knows all."""
    rows = a_sweep(checkpoints=tuple(range(1, 501)))
    profile = Profile(name="many", measurements=tuple(rows))
    path = tmp_path / "many.html"
    path.write_text(render_page(profile, budget_bytes=600 * MIB), encoding="utf-8")
    chromium.events.clear()
    chromium.open(path)
    assert len(table_column(chromium, "checkpoints")) == 200
    chromium.click("#measurements .more")
    assert len(table_column(chromium, "checkpoints")) == 1000
    expected = fastest(profile, 600 * MIB)
    assert recommended(chromium) == [(str(case), str(expected[case])) for case in profile.cases]
    assert "points are drawn" in chromium.run("document.querySelector('header').textContent")
    assert chromium.complaints() == []


def test_switching_a_horizon_off_takes_it_out_of_everything(browser: Browser, profile: Profile):
    """Recommendations, points and rows of the horizon go, and come back with it."""
    before = marks(browser, "#seconds-chart .mark-symbol.role-mark:not(.recommended_seconds_marks)")
    browser.click("#horizon_text-chips label:nth-child(2) input")
    left = [case for case in profile.cases if case.horizon != 200]
    assert [case for case, _ in recommended(browser)] == [str(case) for case in left]
    gone = sum(row.status is Status.OK and row.horizon == 200 for row in profile.measurements)
    assert marks(browser, "#seconds-chart .mark-symbol.role-mark:not(.recommended_seconds_marks)") == before - gone
    assert "200" not in table_column(browser, "horizon")
    browser.click("#setting-chips label:nth-child(1) input")
    left = [case for case in left if case.tolerance == 1e-3]
    assert [case for case, _ in recommended(browser)] == [str(case) for case in left]
    browser.click("#horizon_text-chips label:nth-child(2) input")
    browser.click("#setting-chips label:nth-child(1) input")
    assert marks(browser, "#seconds-chart .mark-symbol.role-mark:not(.recommended_seconds_marks)") == before


def test_switching_everything_off_is_no_error(browser: Browser):
    """With no case shown the charts say so."""
    for number in (1, 2, 3):
        browser.click(f"#horizon_text-chips label:nth-child({number}) input")
    assert recommended(browser) == []
    assert marks(browser, "#seconds-chart .mark-symbol") == 0
    assert browser.run("document.getElementById('fits').textContent") == "nothing fits"
    assert browser.complaints() == []


def tree_blocks(browser: Browser) -> int:
    """Count the blocks of the tree that is shown."""
    hidden = browser.run("document.getElementById('tree-chart').hidden")
    return 0 if hidden else marks(browser, "#tree-chart .blocks_marks")


def test_the_tree_follows_the_recommendation(browser: Browser):
    """The tree of the count that is recommended is drawn; where none was handed in the page says which there are."""
    assert tree_blocks(browser) == 2
    assert "8 checkpoints for 10 steps" in browser.run("document.getElementById('tree-text').textContent")
    browser.type("#budget-text", "8 MiB")
    assert tree_blocks(browser) == 0
    assert "No tree for 2 checkpoints" in browser.run("document.getElementById('tree-text').textContent")
    browser.type("#budget-text", "41 MiB")
    assert "16 checkpoints" in browser.run("document.getElementById('tree-text').textContent")


def test_the_table_sorts_by_any_column_both_ways(browser: Browser, profile: Profile):
    """A click on a heading sorts by its figures, a second one the other way round; unknown figures come last."""
    browser.click("#measurements th[data-column=checkpoints] button")
    counts = [int(text) for text in table_column(browser, "checkpoints")]
    assert counts == sorted(row.checkpoints for row in profile.measurements)
    browser.click("#measurements th[data-column=checkpoints] button")
    counts = [int(text) for text in table_column(browser, "checkpoints")]
    assert counts == sorted((row.checkpoints for row in profile.measurements), reverse=True)
    order = browser.run("document.querySelector('#measurements th[data-column=checkpoints]').getAttribute('aria-sort')")
    assert order == "descending"
    for _ in range(2):
        browser.click("#measurements th[data-column=peak_bytes] button")
        assert table_column(browser, "peak_bytes")[-1] == ""


def test_the_table_is_filtered_by_words_and_by_status(browser: Browser, profile: Profile):
    """Words must all occur in a row, a status selects, both together narrow; the count says how many are shown."""
    browser.type("#words", "RESOURCE_exhausted compiled")
    assert table_column(browser, "status") == []
    browser.type("#words", "RESOURCE_exhausted")
    assert set(table_column(browser, "status")) == {"out_of_memory"}
    browser.run("document.querySelector('#words').value = ''")
    browser.run("document.querySelector('#words').dispatchEvent(new Event('input'))")
    browser.run("const s = document.querySelector('#status'); s.value = 'failed'; s.dispatchEvent(new Event('change'))")
    assert table_column(browser, "checkpoints") == ["3"]
    total = len(profile.measurements)
    assert browser.run("document.getElementById('row-count').textContent") == f"1 of {total} measurements"


def test_all_columns_can_be_shown(browser: Browser):
    """The box brings every column of a measurement."""
    few = browser.run("document.querySelectorAll('#measurements th').length")
    browser.click("#all-columns")
    every = browser.run("[...document.querySelectorAll('#measurements th')].map(th => th.dataset.column)")
    assert few < 15 < len(every)
    assert {"key", "host", "versions", "compiled_bytes"} <= set(every)


def brightness(browser: Browser, what: str) -> float:
    """The mean of red, green and blue of a colour of the page's body."""
    text = browser.run(f"getComputedStyle(document.body).{what}")
    red, green, blue = (float(part) for part in text[text.index("(") + 1 : text.index(")")].split(",")[:3])
    return (red + green + blue) / 3


def test_the_page_follows_the_readers_colours_and_the_button(browser: Browser, page: Path):
    """Dark where the reader prefers dark, and whichever the button says."""
    assert brightness(browser, "backgroundColor") > 240
    browser.media(scheme="dark")
    browser.open(page)
    assert brightness(browser, "backgroundColor") < 40
    assert brightness(browser, "color") > 200
    browser.click("#theme")  # light
    assert brightness(browser, "backgroundColor") > 240
    browser.media(scheme="light")
    browser.click("#theme")  # dark
    assert brightness(browser, "backgroundColor") < 40


def test_on_paper_the_page_is_light_and_without_controls(browser: Browser, page: Path, tmp_path: Path):
    """A dark page prints black on white, and printing works."""
    browser.media(scheme="dark", media="print")
    browser.open(page)
    assert brightness(browser, "backgroundColor") == 255
    assert browser.run("getComputedStyle(document.getElementById('theme')).display") == "none"
    browser.media(scheme="dark")
    assert browser.pdf(tmp_path / "page.pdf").read_bytes().startswith(b"%PDF")


@pytest.mark.parametrize("width", [1280, 1024, 700])
def test_the_page_fits_the_width_of_a_laptop(browser: Browser, page: Path, width: int):
    """Nothing but the wide tables inside their own frames needs to be scrolled sideways."""
    browser.resize(width, 800)
    browser.open(page)
    assert browser.run("document.documentElement.scrollWidth") <= width
    assert browser.run(
        "[...document.querySelectorAll('.chart svg')].every(s => s.clientWidth <= s.parentNode.clientWidth)"
    )
