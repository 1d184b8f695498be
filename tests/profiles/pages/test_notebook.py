"""What a notebook shows of a profile and a plan: a table whose cells are text, and a chart."""

import html.parser

import altair as alt

from profiles import Case, Plan, PlanRequest, PlanRow, Profile, html_table, points, svg_text
from profiles.pages.notebook import MOST_ROWS
from tests.profiles.figures.svg import Drawing
from tests.profiles.makers import a_measurement, a_sweep

NASTY = "</td><script>alert(1)</script>&"


class Cells(html.parser.HTMLParser):
    """Collects the rows of a table as a browser reads them, and every element's name."""

    def __init__(self, text: str) -> None:
        """Parse a text."""
        super().__init__()
        self.rows: list[list[str]] = []
        self.tags: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Begin a row or a cell."""
        self.tags.add(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_data(self, data: str) -> None:
        """Note the text of a cell."""
        if self.rows and self.rows[-1]:
            self.rows[-1][-1] += data


def test_a_profile_shows_its_points():
    """Every point of every case is a row, with its figures; the chart holds the fronts."""
    profile = Profile(name="spirals:make", measurements=tuple(a_sweep()))
    head, *rows = Cells(profile._repr_html_()).rows
    found = [(case, point) for case in profile.cases for point in points(profile.rows(case))]
    assert [(row[0], row[1]) for row in rows] == [(str(case), str(point.checkpoints)) for case, point in found]
    assert "peak" in head
    chart = profile.chart(budget_bytes=2**25)
    assert isinstance(chart, alt.HConcatChart)
    drawing = Drawing(svg_text(chart))
    assert len(drawing.marks("front_seconds_0")) + len(drawing.marks("beaten_seconds_0")) == len(found)


def test_what_a_store_holds_is_text_in_a_notebook():
    """Markup in names makes no element."""
    profile = Profile(name=NASTY, measurements=(a_measurement(name=NASTY, set_values={"solver": NASTY}),))
    cells = Cells(profile._repr_html_())
    assert cells.tags == {"div", "strong", "table", "thead", "tbody", "tr", "td", "th"}
    assert NASTY in cells.rows[1][0]


def test_a_long_table_says_how_much_is_left_out():
    """Two hundred rows are written, then how many more there are."""
    text = html_table("x", ["n"], [(n,) for n in range(MOST_ROWS + 7)], ["a note"])
    assert len(Cells(text).rows) == 1 + MOST_ROWS
    assert "7 more rows" in text
    assert text.index("7 more rows") < text.index("a note")


def test_a_plan_shows_its_rows_and_what_it_rests_on():
    """What fits nowhere is said in its row, and the notes stand below."""
    common = {
        "device": "l4",
        "evidence": "measured on it",
        "usable_bytes": 2**30,
        "steps": 100,
        "steps_evidence": "measured",
    }
    none = dict.fromkeys(("peak_bytes", "recompute_factor", "bytes_evidence", "saturated_bytes", "smallest_bytes"))
    rows = (
        PlanRow(**common, **none, case=Case(10), checkpoints=None, needed_bytes=None, needed_checkpoints=None),
        PlanRow(**common, **(none | {"peak_bytes": 2**20, "recompute_factor": 2.5}), case=Case(20), checkpoints=8,
                needed_bytes=2**21, needed_checkpoints=9),
    )  # fmt: skip
    plan = Plan(profile="x", request=PlanRequest(), rows=rows, longest=())
    _, first, second = Cells(plan._repr_html_()).rows
    assert first[:4] == ["l4", "horizon 10", "100 (measured)", "nothing fits"]
    assert second[3:6] == ["8", "1 MiB of 1 GiB", "2.50"]
    assert len(Drawing(svg_text(plan.chart())).marks("fits")) == 1
