"""How things differ in every figure: by colours that the colour-blind can distinguish, and by markers and dashes.

A figure names its colours by these constants only, so that the page can put a variable of its style sheet in the place
of each, and follow the reader's light or dark.
"""

from typing import Any

# Okabe and Ito's palette (2008), less its yellow and black, which vanish on white and on dark; orange a little darker.
COLOURS = ("#0072B2", "#D98E00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#7F7F7F")
MARKERS = (
    "M-1,0A1,1,0,1,0,1,0A1,1,0,1,0,-1,0Z",
    "M-0.9,-0.9H0.9V0.9H-0.9Z",
    "M0,-1.2L1.15,0.9H-1.15Z",
    "M0,-1.3L1.3,0L0,1.3L-1.3,0Z",
    "M0,1.2L1.15,-0.9H-1.15Z",
    "M-0.4,-1.2H0.4V-0.4H1.2V0.4H0.4V1.2H-0.4V0.4H-1.2V-0.4H-0.4Z",
    "M-1,-0.5L-0.5,-1L0,-0.5L0.5,-1L1,-0.5L0.5,0L1,0.5L0.5,1L0,0.5L-0.5,1L-1,0.5L-0.5,0Z",
)
"""Circle, square, triangles, diamond, plus and cross, as SVG paths of about the same area around the origin."""
DASHES = ([1, 0], [6, 3], [2, 3], [7, 3, 2, 3])
CROSS = "M-1,-1L1,1M1,-1L-1,1"
"""The marker of what did not end well."""

INK, FAINT, GRID, PAPER, BUDGET = "#1C2126", "#667079", "#E3E6E9", "#FFFFFF", "#B00020"

VARIABLES = {
    **{colour: f"var(--c{place})" for place, colour in enumerate(COLOURS)},
    INK: "var(--ink)", FAINT: "var(--faint)", GRID: "var(--grid)", PAPER: "var(--card)", BUDGET: "var(--budget)",
}  # fmt: skip
"""The variable of the page's style sheet that stands for each colour there."""


def repeated(looks: tuple[Any, ...], count: int) -> list[Any]:
    """List as many looks as there are things to distinguish, beginning anew after the last."""
    return [looks[place % len(looks)] for place in range(count)]


def theme() -> dict[str, Any]:
    """Return the Vega-Lite configuration of every figure: thin grid, quiet axes, titles that are read first."""
    return {
        "background": PAPER,
        "view": {"stroke": None},
        "axis": {
            "gridColor": GRID, "domainColor": FAINT, "tickColor": FAINT, "tickSize": 4,
            "labelColor": FAINT, "labelFontSize": 11, "labelOverlap": "greedy",
            "titleColor": INK, "titleFontSize": 12, "titleFontWeight": "normal", "titlePadding": 8,
        },
        "legend": {
            "labelColor": INK, "labelFontSize": 11, "labelLimit": 260, "titleColor": INK, "titleFontSize": 11,
            "titleLimit": 260, "symbolStrokeWidth": 1.5, "symbolOpacity": 1,
        },
        "title": {
            "color": INK, "fontSize": 14, "fontWeight": "bold", "anchor": "start", "subtitleColor": FAINT,
            "subtitleFontSize": 11, "offset": 10, "limit": 900,
        },
    }  # fmt: skip
