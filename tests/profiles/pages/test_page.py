"""The HTML page as a file: complete, self-contained, and safe to show whatever a measurement says."""

import base64
import hashlib
import html
import html.parser
import json
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profiles import (
    Case,
    FrontAxis,
    Optimum,
    PredictedBytes,
    Profile,
    ProfilesError,
    Recommended,
    ReportExtras,
    Tree,
    import_table,
    pareto_front,
    points,
    render_page,
    report,
)  # fmt: skip
from profiles.figures.thinning import MOST
from profiles.pages.page_data import embed, packed, page_data, provenance
from tests.profiles.makers import TEXT, a_measurement, a_sweep, measurements

NASTY = '</script><script>alert(1)</script><img src=x onerror="alert(2)"> \u2028 &amp; \'"'


@pytest.fixture
def profile() -> Profile:
    """A profile of six cases."""
    return Profile(name="spirals:make", measurements=tuple(a_sweep()))


class Elements(html.parser.HTMLParser):
    """Collects what a browser's parser would see: elements with attributes, and the text of each."""

    def __init__(self, text: str) -> None:
        """Parse a page."""
        super().__init__()
        self.open = False
        self.found: list[tuple[str, dict[str, str | None], list[str]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element."""
        self.found.append((tag, dict(attrs), []))
        self.open = True

    def handle_endtag(self, tag: str) -> None:
        """What follows is no text of the last element any more."""
        self.open = False

    def handle_data(self, data: str) -> None:
        """Note text."""
        if self.open:
            self.found[-1][2].append(data)

    def texts(self, tag: str) -> list[str]:
        """The texts of all elements of a name."""
        return ["".join(text) for name, _, text in self.found if name == tag]


def embedded(page: str) -> dict:
    """The data that a page carries, read as a browser reads it."""
    data, _library, _script = Elements(page).texts("script")
    return json.loads(data)


def rows_of(packed: dict) -> list[dict]:
    """The rows of a table that is kept by column."""

    def value(column: object, row: int) -> object:
        if isinstance(column, list):
            return column[row]
        assert isinstance(column, dict)
        return column["levels"][column["codes"][row] if column["codes"] else 0]

    return [{name: value(column, row) for name, column in packed["columns"].items()} for row in range(packed["rows"])]


def test_the_page_names_nothing_to_load(profile: Profile):
    """No element has an address, no style imports, and the content policy forbids loading anything."""
    page = Elements(render_page(profile))
    for tag, attributes, _ in page.found:
        assert not {"src", "href", "srcset", "action", "background", "poster"} & set(attributes), tag
        assert not any(name.startswith("on") for name in attributes), tag
        assert tag not in ("link", "iframe", "object", "embed", "img", "base")
    assert not re.search(r"@import|url\(", "".join(page.texts("style")))
    (policy,) = [a["content"] for _, a, _ in page.found if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy


def test_the_content_policy_names_the_script_and_the_style_of_the_page(profile: Profile):
    """The digests in the policy are those of the texts in the page, else a browser would run nothing."""
    text = render_page(profile)
    page = Elements(text)
    for tag, content in (
        *(("script", script) for script in page.texts("script")[1:]),
        ("style", page.texts("style")[0]),
    ):
        found = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        (directive,) = re.findall(f'{tag}-src ([^;"]*)', text)
        assert f"'sha256-{found}'" in directive.split()


def test_text_of_a_measurement_cannot_become_part_of_the_page():
    """Markup in names, messages and values is data: the page has the same elements with it as without."""
    plain = a_measurement(name="x", host="x", message="x", status="failed", components={"source": "x"})
    nasty = a_measurement(name=NASTY, host=NASTY, message=NASTY, status="failed", components={"source": NASTY})
    one = Elements(render_page(Profile(name="x", measurements=(plain,))))
    two = Elements(render_page(Profile(name=NASTY, measurements=(nasty,))))
    assert [tag for tag, _, _ in one.found] == [tag for tag, _, _ in two.found]
    data = embedded(render_page(Profile(name=NASTY, measurements=(nasty,))))
    assert rows_of(data["measurements"])[0]["message"] == NASTY


@given(st.recursive(TEXT | st.integers() | st.none(), lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner)))
def test_embedded_data_is_json_without_a_character_that_ends_a_script(data: object):
    """What is embedded reads back as it was, and holds no angle bracket, ampersand or line separator."""
    data = json.loads(json.dumps(data).encode("utf-8", "replace"))
    text = embed(data)
    assert json.loads(text) == data
    assert not set(text) & set("<>&\u2028\u2029")


@settings(max_examples=10, deadline=None)
@given(rows=st.lists(measurements(), min_size=1, max_size=3))
def test_any_measurements_make_a_page(rows):
    """Whatever a store may hold can be shown."""
    page = render_page(Profile(name="x", measurements=tuple(rows)))
    assert embedded(page)["measurements"]["rows"] == len(rows)


def test_the_page_carries_every_point_front_failure_and_row(profile: Profile):
    """Points, their fronts, lost counts, steps and rows are those of the profile."""
    data = embedded(render_page(profile, budget_bytes=2**25))
    assert data["budget_bytes"] == 2**25
    assert data["measurements"]["rows"] == len(profile.measurements)
    shown_points = rows_of(data["datasets"]["points"])
    for case in profile.cases:
        found = points(profile.rows(case))
        shown = [point for point in shown_points if point["case"] == str(case)]
        assert [(p["checkpoints"], p["peak_bytes"], p["run_seconds"]) for p in shown] == [
            (p.checkpoints, p.peak_bytes, p.run_seconds) for p in found
        ]
        for objective in FrontAxis:
            on_front = [p["peak_bytes"] for p in shown if p[f"on_{objective}_front"]]
            assert on_front == [p.peak_bytes for p in pareto_front(found, objective)]
    lost = rows_of(data["datasets"]["lost"])
    assert [(one["checkpoints"], one["status"]) for one in lost] == [(64, "out of memory")] * 2
    steps = rows_of(data["datasets"]["steps"])
    assert [one["steps"] for one in steps] == [profile.rows(case)[-1].steps for case in profile.cases]


def test_every_figure_of_the_page_has_a_table_beside_it_and_draws_from_the_page_alone(profile: Profile):
    """Each figure names tables of the page, holds no row and no address, and has the columns of its table."""
    text = render_page(profile, budget_bytes=2**25, extras=some_extras(profile.cases[2]))
    data = embedded(text)
    assert set(data["charts"]) == {"seconds", "recompute_factor", "bytes", "recompute", "steps", "tree"}
    beside = {a["data-chart"] for tag, a, _ in Elements(text).found if tag == "details"}
    assert beside == set(data["charts"]) == set(data["beside"])
    for chart in data["charts"].values():
        written = json.dumps(chart)
        assert '"values": [{' not in written
        assert '"url"' not in written
        assert "http" not in written
        assert set(re.findall(r'"data": {"name": "(\w+)"}', written)) <= {*data["datasets"], "one"}
    for dataset, *columns in data["beside"].values():
        assert {name for name, _, _ in columns} <= set(data["datasets"][dataset]["columns"])


def test_ten_thousand_rows_make_a_page_of_less_than_five_megabytes():
    """Columns of few values are kept once; what is not drawn is said, and every measurement is there."""
    rows = a_sweep(
        horizons=tuple(range(100, 1100, 100)), tolerances=(1e-3, 1e-4, 1e-5, 1e-6), checkpoints=tuple(range(1, 251))
    )
    text = render_page(Profile(name="x", measurements=tuple(rows)))
    assert len(text.encode()) < 5e6
    data = embedded(text)
    assert data["measurements"]["rows"] == 10_000
    drawn = [point for point in rows_of(data["datasets"]["points"]) if point["drawn"]]
    assert len(drawn) <= MOST
    assert data["thinned"].startswith(f"{len(drawn):,} of ")
    assert html.escape(data["thinned"]) in text


def test_columns_are_packed_without_a_loss():
    """Few values, many values, one value and unknown ones all come back as they were, types included."""
    rows = [{"a": number % 3, "b": number, "c": None, "d": [1.5] if number % 2 else []} for number in range(20)]
    assert rows_of(json.loads(json.dumps(packed(rows)))) == rows
    assert packed([]) == {"rows": 0, "columns": {}}


class Block:
    """A block of a tree."""

    def __init__(self, start: int, stop: int, slot: int) -> None:
        """Take the three figures."""
        self.start, self.stop, self.slot = start, stop, slot


def some_extras(case: Case) -> ReportExtras:
    """One of everything, and one of everything for a case that the profile does not have."""
    other = Case(horizon=-1)
    law = PredictedBytes(
        checkpoints=(1, 2, 3), likely_bytes=(1.0, 2.0, 3.0), low_bytes=(1.0, 1.0, 1.0),
        high_bytes=(2.0, 3.0, float("inf")), text="a law",
    )  # fmt: skip
    blocks = (Block(0, 10_000, 0), Block(9_000, 10_000, 1), Block(9_999, 10_000, 2))
    return ReportExtras(
        laws=(law,),
        optima=tuple(Optimum(case=c, checkpoints=(1,), recompute_factor=(3.0,)) for c in (case, other)),
        trees=tuple(Tree(case=c, checkpoints=8, steps=10_000, blocks=blocks) for c in (other, case)),
        recommended=tuple(Recommended(case=c, checkpoints=8, peak_bytes=2**24) for c in (case, other)),
    )


def test_extras_of_known_cases_are_carried_and_bounded(profile: Profile):
    """Laws lose unbounded ends, trees lose blocks too narrow to see, and what belongs to no case is left out."""
    data = page_data(profile, budget_bytes=None, extras=some_extras(profile.cases[2]))
    name = str(profile.cases[2])
    assert [row["checkpoints"] for row in rows_of(data["datasets"]["laws"])] == [1, 2]
    assert [row["case"] for row in rows_of(data["datasets"]["optima"])] == [name]
    blocks = rows_of(data["datasets"]["blocks"])
    assert [(block["case"], block["stored"]) for block in blocks] == [(name, 3)] * 2
    marked = [point["case"] for point in rows_of(data["datasets"]["points"]) if point["mark"] == "recommended"]
    assert marked == [name]
    assert data["evidence"] == {name: "measured"}


def test_provenance_says_where_measurements_come_from():
    """Device, adjoint, versions, hosts, statuses and rows of older code are all said."""
    rows = [
        a_measurement(components={"source": "s", "program": "1"}),
        a_measurement(
            components={"source": "s", "program": "2"}, checkpoints=9, minutes=1, status="failed", host="lab"
        ),
    ]
    said = dict(provenance(Profile(name="x", measurements=tuple(rows))))
    assert said["measurements"] == "2: 1 ok, 1 failed"
    assert said["hosts"] == "desk, lab"
    assert said["versions"] == "diffrax 0.7.2, jax 0.10.2"
    assert said["of an older state of the code"].startswith("1,")
    assert said["measured"] == "2026-05-04 03:02:01 UTC to 2026-05-04 03:03:01 UTC"


def test_a_report_is_a_folder_of_page_table_and_figures(profile: Profile, tmp_path: Path):
    """Every file that is promised is there, and the CSV gives the measurements back."""
    written = report(profile, tmp_path / "new", budget_bytes=2**25, extras=some_extras(profile.cases[2]))
    names = [path.name for path in written]
    figures = [f"{name}.{end}" for name in ("front", "bytes", "steps", "recompute", "tree") for end in ("png", "svg")]
    assert names == ["report.html", "measurements.csv", *figures]
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == sorted(names)
    assert import_table(tmp_path / "new" / "measurements.csv") == list(profile.measurements)
    again = report(profile, tmp_path / "again", budget_bytes=2**25, extras=some_extras(profile.cases[2]))
    assert [path.read_bytes() for path in written] == [path.read_bytes() for path in again]


def test_a_report_without_extras_has_no_tree(profile: Profile, tmp_path: Path):
    """What the caller does not hand in is not drawn."""
    names = {path.name for path in report(profile, tmp_path)}
    assert "tree.png" not in names
    assert "front.png" in names


def test_a_report_that_cannot_be_written_is_said(profile: Profile, tmp_path: Path):
    """A file in the place of the folder gives one line."""
    (tmp_path / "file").touch()
    with pytest.raises(ProfilesError, match="cannot write the report"):
        report(profile, tmp_path / "file")
