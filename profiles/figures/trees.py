"""Figure of a checkpoint tree."""

import altair as alt
import pandas as pd

from profiles.figures.channels import known
from profiles.figures.charts import count_of, data, finished, named, tips, zoom
from profiles.figures.looks import COLOURS, PAPER

WIDTH = 840
_ROW = 24  # pixels of a slot, where there are few


def tree_figure(blocks: pd.DataFrame, *, title: str = "") -> alt.LayerChart:
    """Draw a checkpoint tree: every block of steps at the slot that holds the state before it.

    A block hangs below the block it was reached from.

    Args:
        blocks: `tree_table(tree)`.
        title: above the figure; how many checkpoints, steps and stored states by default.
    """
    slots = int(max(known(blocks["slot"]))) + 1 if len(blocks) else 1
    said = ""
    if len(blocks):
        first = blocks.iloc[0]
        said = f"{count_of(int(first['checkpoints']), 'checkpoint')} for {count_of(int(first['steps']), 'step')}, "
        said += f"{count_of(int(first['stored']), 'state')} stored in all"
        said += "" if len(blocks) == first["stored"] else "; the narrowest are not drawn"
    calculated, tooltips = tips([
        ("stored before step", "format(datum.start, ',')"),
        ("reverses steps", "format(datum.start, ',') + ' to ' + format(datum.stop - 1, ',')"),
        ("held in slot", "datum.slot"),
    ])  # fmt: skip
    chart = alt.Chart(data("blocks", blocks)).transform_calculate(
        upper="datum.slot - 0.46", lower="datum.slot + 0.46", **calculated
    )
    along = alt.Scale(nice=False, zero=False)
    boxes = chart.mark_rect(
        color=COLOURS[0], stroke=PAPER, strokeWidth=0.6 if slots < 60 else 0.1, aria=False, opacity=1
    ).encode(
        x=alt.X("start:Q", scale=along, axis=alt.Axis(title="step of the forward solve", grid=False, tickCount=8)),
        x2="stop:Q",
        y=alt.Y(
            "upper:Q",
            scale=alt.Scale(reverse=True, nice=False, zero=False),
            axis=alt.Axis(title="slot that holds the checkpoint", grid=False, tickMinStep=1, format="d"),
        ),
        y2="lower:Q",
        fillOpacity=alt.FillOpacity("slot:Q", scale=alt.Scale(range=[0.95, 0.4], zero=False), legend=None),
        tooltip=tooltips,
    )
    made = finished(
        alt.layer(named(boxes, "blocks").add_params(zoom("zoom_tree"))),
        title=title or said,
        note=said if title else "",
        description=f"checkpoint tree: {said}",
    )
    return made.properties(width=WIDTH, height=min(420, max(120, _ROW * slots)))
