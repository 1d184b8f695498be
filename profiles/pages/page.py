"""One self-contained HTML page of a profile: everything in one file, nothing loaded from anywhere.

The page's content policy lets the browser load nothing, evaluate no text, and run only the scripts whose digests it
names, so that no text of a measurement (a message of a dying process, a `--set` value) can do anything but be shown.
Figures are drawn by Vega, whose expressions its interpreter reads without making functions of them.
"""

import base64
import dataclasses
import functools
import hashlib
import html
import importlib.resources
import string

import vl_convert

from profiles.analysis.extras import ReportExtras
from profiles.figures.rendering import VEGA_LITE
from profiles.pages.hardware import hardware_card
from profiles.pages.page_data import embed, page_data, provenance
from profiles.records.records import Profile

SCRIPTS = ("units.js", "tables.js", "charts.js", "page.js")
"""The parts of the page's script, in the order in which they need each other."""


@dataclasses.dataclass(frozen=True, slots=True)
class Card:
    """One figure on the page: its name, its heading, what is said below it, and whether it takes the whole width."""

    name: str
    heading: str
    below: str
    wide: bool = False


CARDS = (
    Card(
        "seconds",
        "Pareto front: memory against time",
        "Filled: nothing measured is both smaller and faster. Hollow: beaten. Diamond: fits best. Circle: run under "
        "your own settings.",
    ),
    Card(
        "recompute_factor",
        "Pareto front: memory against recomputation",
        "2 means everything is stored: one forward pass and one taped pass of each step.",
    ),
    Card(
        "bytes",
        "Bytes against checkpoints",
        "Line and band: the law between measured counts, and its bounds. A red cross at the top did not end well.",
    ),
    Card(
        "recompute",
        "Recompute factor against checkpoints",
        "Thin lines: the theoretical optimum for the number of steps.",
    ),
    Card("steps", "Steps against horizon", "Counted in the forward solve.", wide=True),
    Card("tree", "Checkpoint tree", "", wide=True),
)
"""The figures of the page, in order."""


def render_page(profile: Profile, *, budget_bytes: int | None = None, extras: ReportExtras | None = None) -> str:
    """Write the page of a profile.

    Args:
        profile: what to show.
        budget_bytes: the budget that the page starts at; the largest measured peak where None.
        extras: predictions, theory and recommendations to show beside the measurements.

    Returns:
        The text of an HTML file.
    """
    extras = extras or ReportExtras()
    data, hardware = page_data(profile, budget_bytes=budget_bytes, extras=extras), extras.hardware
    style = _asset("page.css")
    script = "\n".join(['"use strict";', *(_asset(name) for name in SCRIPTS)])
    device, count = profile.device, len(profile.measurements)
    devices = device.kind if device.count == 1 else f"{device.count} x {device.kind}"
    adjoint = "ckpt-tune's adjoint" if profile.adjoint == "ours" else "Diffrax's adjoint"
    listed = "".join(f"<dt>{html.escape(name)}</dt><dd>{html.escape(text)}</dd>" for name, text in provenance(profile))
    return string.Template(_asset("page.html")).substitute(
        title=html.escape(profile.name),
        subtitle=html.escape(f"{count:,} measurement{'s' * (count != 1)} on {devices}, {adjoint}"),
        newest=html.escape(profile.newest.measured_at.strftime("%Y-%m-%d")),
        setting_name=html.escape(data["setting_name"]),
        cards="\n".join([*(_card(card) for card in CARDS if card.name in data["charts"]), hardware_card(hardware)]),
        thinned=html.escape(data["thinned"] and f" {data['thinned']}; tables, fronts and choices know them all."),
        provenance=listed,
        style=style,
        style_hash=_digest(style),
        data=embed(data),
        library=vega(),
        library_hash=_digest(vega()),
        script=script,
        script_hash=_digest(script),
    )


def _card(card: Card) -> str:
    """Write the place of a figure, with the table beside it."""
    name, heading = html.escape(card.name), html.escape(card.heading)
    select = '<div class="tools"><label for="tree-case">of</label><select id="tree-case"></select></div>'
    chooser, wide = select * (card.name == "tree"), " wide" * card.wide
    return f"""  <section class="card{wide}" id="{name}-card"><h2>{heading}</h2>{chooser}
    <div class="chart" id="{name}-chart" tabindex="0" role="group" aria-label="{heading}" aria-describedby="keys"></div>
    <p class="under" id="{name}-text">{html.escape(card.below)}</p>
    <details class="beside" data-chart="{name}"><summary>as a table</summary><div class="scroll"></div></details>
  </section>"""


@functools.cache
def vega() -> str:
    """Return Vega, Vega-Lite and their interpreter as a script that makes `vegaEmbed`; made once in a process."""
    bundle = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", VEGA_LITE)
    # Inside a script element neither may stand; in JavaScript the escaped ones mean the same.
    bundle = bundle.replace("</script", "<\\/script").replace("<!--", "<\\!--")
    return f'/* {_asset("notices.txt")} */\n(() => {{ "use strict";\n{bundle}\n}})();'


def _asset(name: str) -> str:
    """Read a file that is installed beside this module."""
    return importlib.resources.files("profiles").joinpath("page_assets", name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    """Digest a script or style as a content policy names it."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
