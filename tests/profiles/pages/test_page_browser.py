"""The HTML page in a real browser: it loads nothing, and does what its controls say."""

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


def test_the_page_draws_itself_without_a_complaint_and_loads_nothing(browser: Browser, page: Path):
    """No exception, no warning of the console or the content policy, and one request: the file itself."""
    assert browser.complaints() == []
    assert browser.requests() == [page.as_uri()]
    assert browser.run("document.querySelectorAll('.chart svg .marker').length") > 100
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
    assert browser.run("document.getElementById('budget').getAttribute('aria-valuetext')") == f"{mib} MiB"
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
        value = browser.run("document.getElementById('budget').value")
        assert value == ("1000" if key == "End" else "0")
        if key == "End":
            expected = fastest(profile, 2**40)
            assert recommended(browser) == [(str(case), str(expected[case])) for case in profile.cases]
        else:
            assert all("nothing measured fits" in said for _, said in recommended(browser))


def test_the_budget_line_can_be_dragged(browser: Browser, profile: Profile):
    """Pulling the red line of a front to the left lowers the budget and with it the counts."""
    x, y = browser.place("#seconds-chart .grip")
    browser.mouse("mouseMoved", x, y)
    browser.mouse("mousePressed", x, y, pressed=True)
    for step in range(1, 11):
        browser.mouse("mouseMoved", x - 15 * step, y, pressed=True)
    browser.mouse("mouseReleased", x - 150, y)
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
    x, y = browser.place("#seconds-chart .marker")
    browser.mouse("mouseMoved", x + 2, y + 2)
    said = browser.run("document.getElementById('tooltip').innerText")
    assert browser.run("document.getElementById('tooltip').hidden") is False
    assert str(profile.cases[0]) in said
    assert "checkpoints" in said
    assert "7 MiB (compiled)" in said
    assert "of 3" in said
    browser.mouse("mouseMoved", 5, 5)
    assert browser.run("document.getElementById('tooltip').hidden") is True


def test_switching_a_horizon_off_takes_it_out_of_everything(browser: Browser, profile: Profile):
    """Recommendations, points and rows of the horizon go, and come back with it."""
    before = browser.run("document.querySelectorAll('#seconds-chart .marker').length")
    browser.click("#horizon-chips label:nth-child(2) input")
    left = [case for case in profile.cases if case.horizon != 200]
    assert [case for case, _ in recommended(browser)] == [str(case) for case in left]
    gone = sum(row.status is Status.OK and row.horizon == 200 for row in profile.measurements)
    assert browser.run("document.querySelectorAll('#seconds-chart .marker').length") == before - gone
    assert "200" not in table_column(browser, "horizon")
    browser.click("#rest-chips label:nth-child(1) input")
    left = [case for case in left if case.tolerance == 1e-3]
    assert [case for case, _ in recommended(browser)] == [str(case) for case in left]
    browser.click("#horizon-chips label:nth-child(2) input")
    browser.click("#rest-chips label:nth-child(1) input")
    assert browser.run("document.querySelectorAll('#seconds-chart .marker').length") == before


def test_switching_everything_off_is_no_error(browser: Browser):
    """With no case shown the charts say so."""
    for number in (1, 2, 3):
        browser.click(f"#horizon-chips label:nth-child({number}) input")
    assert recommended(browser) == []
    assert "nothing measured" in browser.run("document.getElementById('seconds-chart').textContent")
    assert browser.complaints() == []


def test_the_tree_follows_the_recommendation(browser: Browser):
    """The tree of the count that is recommended is drawn; where none was handed in the page says which there are."""
    assert browser.run("document.querySelectorAll('#tree-chart .block').length") == 2
    assert "8 checkpoints for 10 steps" in browser.run("document.getElementById('tree-text').textContent")
    browser.type("#budget-text", "8 MiB")
    assert browser.run("document.querySelectorAll('#tree-chart .block').length") == 0
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
