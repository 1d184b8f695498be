"""One self-contained HTML page of a profile: everything in one file, nothing loaded from anywhere.

The page's content policy lets the browser load nothing and run only the script whose digest it names, so that no text
of a measurement (a message of a dying process, a `--set` value) can do anything but be shown.
"""

import base64
import hashlib
import html
import importlib.resources
import string

from profiles.analysis.extras import ReportExtras
from profiles.pages.page_data import embed, page_data, provenance
from profiles.records.records import Profile

SCRIPTS = ("units.js", "chart.js", "table.js", "page.js")
"""The parts of the page's script, in the order in which they need each other."""


def render_page(profile: Profile, *, budget_bytes: int | None = None, extras: ReportExtras | None = None) -> str:
    """Write the page of a profile.

    Args:
        profile: what to show.
        budget_bytes: the budget that the page starts at; the largest measured peak where None.
        extras: predictions, theory and recommendations to show beside the measurements.

    Returns:
        The text of an HTML file.
    """
    data = page_data(profile, budget_bytes=budget_bytes, extras=extras or ReportExtras())
    style = _asset("page.css")
    script = "\n".join(['"use strict";', *(_asset(name) for name in SCRIPTS)])
    device, count = profile.device, len(profile.measurements)
    devices = device.kind if device.count == 1 else f"{device.count} x {device.kind}"
    adjoint = "ckpt-tune's adjoint" if profile.adjoint == "ours" else "Diffrax's adjoint"
    listed = "".join(f"<dt>{html.escape(name)}</dt><dd>{html.escape(text)}</dd>" for name, text in provenance(profile))
    return string.Template(_asset("page.html")).substitute(
        title=html.escape(profile.name),
        subtitle=html.escape(f"{count} measurement{'s' * (count != 1)} on {devices}, {adjoint}"),
        newest=html.escape(profile.newest.measured_at.strftime("%Y-%m-%d")),
        rest_name=html.escape(data["rest_name"]),
        provenance=listed,
        style=style,
        style_hash=_digest(style),
        data=embed(data),
        script=script,
        script_hash=_digest(script),
    )


def _asset(name: str) -> str:
    """Read a file that is installed beside this module."""
    return importlib.resources.files("profiles").joinpath("page_assets", name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    """Digest a script or style as a content policy names it."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
