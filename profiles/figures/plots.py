"""Figures of profiles. Every function returns a matplotlib `Figure` of its own; none touches matplotlib's global state.

Save one with `figure.savefig(path)`; `save_figure` does so for PNG and SVG at once, without a date in the file, so that
the same measurements give the same bytes.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from profiles.analysis.extras import Optimum, PredictedBytes, Recommended, Tree, visible_blocks
from profiles.analysis.pareto import FrontAxis, FrontPoint, pareto_front, points
from profiles.errors import ProfilesError
from profiles.figures.axes import (
    BUDGET_COLOUR,
    FAINT,
    INK,
    NARROW,
    WIDE,
    bytes_axis,
    count_axis,
    draw,
    legend,
    new_figure,
    seconds_axis,
)
from profiles.figures.looks import COLOURS, MARKERS, Look, Series
from profiles.records.records import Case, Measurement, Profile, Status
from profiles.units import format_bytes

BYTES_LABEL = "peak memory of one call"
COST_LABELS = {
    FrontAxis.SECONDS: "seconds of one call (median)",
    FrontAxis.RECOMPUTE: "recompute factor (executed steps / steps)",
}


def front_figure(
    profile: Profile,
    *,
    cases: Iterable[Case] | None = None,
    budget_bytes: float | None = None,
    recommended: Iterable[Recommended] = (),
) -> Figure:
    """Draw memory against seconds and against recompute: fronts as stairs, beaten points hollow.

    Where some points held states in a tier, a dotted line shows what the front would be without them.

    Args:
        profile: what to draw.
        cases: which cases; all by default.
        budget_bytes: where to draw the line of the budget.
        recommended: points to ring.
    """
    figure, panels = new_figure(WIDE, 2)
    shown = tuple(cases) if cases is not None else profile.cases
    series = Series(shown)
    by_case = {case: points(profile.rows(case)) for case in series.shown}
    for panel, objective in zip(panels, FrontAxis, strict=True):
        _draw_fronts(panel, by_case, objective, series)
        for choice in recommended:
            cost = choice.run_seconds if objective is FrontAxis.SECONDS else choice.recompute_factor
            if cost is not None and choice.case in by_case:
                panel.plot([choice.peak_bytes], [cost], "o", ms=12, mfc="none", mec=INK, mew=1.4, label="recommended")
        _finish_front(panel, [p for found in by_case.values() for p in found], objective, budget_bytes)
    figure.suptitle(f"{profile.name}: Pareto front on {profile.device.kind}", fontsize=11)
    legend(figure, panels[0], series)
    return figure


def _draw_fronts(
    panel: Axes, by_case: Mapping[Case, Sequence[FrontPoint]], objective: FrontAxis, series: Series
) -> None:
    """Draw each case's front and the points that it beats."""
    for case, found in by_case.items():
        _draw_front(panel, found, objective, series.look(case), str(case) if len(by_case) > 1 else "front")


def _draw_front(panel: Axes, found: Sequence[FrontPoint], objective: FrontAxis, look: Look, label: str) -> None:
    """Draw a front as stairs, and the points that it beats hollow."""
    front = pareto_front(found, objective)
    draw(panel, _pairs([p for p in found if p not in front], objective), look, hollow=True)
    draw(panel, _pairs(front, objective), look, label=label, line="stairs")
    alone = pareto_front([p for p in found if p.tier is None], objective)
    if alone != front:
        pairs = _pairs(alone, objective)
        panel.step(*zip(*pairs, strict=True), where="post", color=look.colour, lw=1, ls=":", label="without tiers")


def _pairs(found: Iterable[FrontPoint], objective: FrontAxis) -> list[tuple[float, float]]:
    """List (bytes, cost) of the points whose cost is known."""
    return [(float(p.peak_bytes), cost) for p in found if (cost := p.cost(objective)) is not None]


def _finish_front(panel: Axes, found: Sequence[FrontPoint], objective: FrontAxis, budget_bytes: float | None) -> None:
    """Set a front's axes and its budget line."""
    pairs = _pairs(found, objective)
    (seconds_axis if objective is FrontAxis.SECONDS else count_axis)(panel.yaxis, [cost for _, cost in pairs])
    bytes_axis(panel.xaxis, [*(size for size, _ in pairs), *([budget_bytes] if budget_bytes else [])])
    panel.set_xlabel(BYTES_LABEL, fontsize=9)
    panel.set_ylabel(COST_LABELS[objective], fontsize=9)
    if not pairs:
        panel.text(0.5, 0.5, "nothing measured", transform=panel.transAxes, ha="center", color=FAINT)
    if budget_bytes:
        panel.axvline(budget_bytes, color=BUDGET_COLOUR, lw=1.2, ls="--", label=f"budget {format_bytes(budget_bytes)}")


def bytes_figure(profile: Profile, laws: Iterable[PredictedBytes] = (), *, budget_bytes: float | None = None) -> Figure:
    """Draw peak bytes against checkpoints: measured points, counts that ran out of memory, laws with their bounds."""
    figure, (panel,) = new_figure(NARROW)
    series = Series(profile.cases)
    sizes: list[float] = []
    counts: list[float] = []
    for law in laws:
        colour = series.look(law.case).colour if law.case in series.shown and law.case else FAINT
        label = law.text or "law"
        bounded = [math.isfinite(high) for high in law.high_bytes]
        high = [
            value if math.isfinite(value) else likely
            for value, likely in zip(law.high_bytes, law.likely_bytes, strict=True)
        ]
        panel.fill_between(law.checkpoints, law.low_bytes, high, where=bounded, color=colour, alpha=0.18, lw=0)
        panel.plot(law.checkpoints, law.likely_bytes, color=colour, lw=1, label=f"{label}, with its bounds")
        sizes += [high for high in law.high_bytes if math.isfinite(high)]
        counts += law.checkpoints
    for index, case in enumerate(series.shown):
        pairs = [(float(p.checkpoints), float(p.peak_bytes)) for p in points(profile.rows(case))]
        # Bytes hardly depend on the horizon, so markers fall on each other: hollow and nested, all can be seen.
        size = 10.0 - 5.0 * index / len(series.shown)
        draw(panel, pairs, series.look(case), label=str(case), hollow=True, size=size)
        sizes += [size for _, size in pairs]
        counts += [count for count, _ in pairs]
    lost = sorted({row.checkpoints for row in profile.measurements if row.status is Status.OUT_OF_MEMORY})
    if lost:
        top = [0.97] * len(lost)
        panel.plot(lost, top, "x", color=BUDGET_COLOUR, transform=panel.get_xaxis_transform(), label="out of memory")
        counts += lost
    if budget_bytes:
        panel.axhline(budget_bytes, color=BUDGET_COLOUR, lw=1.2, ls="--", label=f"budget {format_bytes(budget_bytes)}")
        sizes.append(budget_bytes)
    bytes_axis(panel.yaxis, sizes)
    count_axis(panel.xaxis, counts)
    panel.set_xlabel("checkpoints (states held at once)", fontsize=9)
    panel.set_ylabel(BYTES_LABEL, fontsize=9)
    panel.set_title(f"{profile.name}: bytes against checkpoints", fontsize=11)
    legend(figure, panel, series)
    return figure


def steps_figure(profile: Profile) -> Figure:
    """Draw the steps of the forward solve against horizon, one line for each tolerance (and other setting)."""
    figure, (panel,) = new_figure(NARROW)
    lines: dict[Case, list[tuple[float, int]]] = {}
    ticks: list[str] = []
    for case in profile.cases:
        steps = _newest_steps(profile.rows(case))
        if steps is None:
            continue
        rest = Case(None, case.tolerance, case.set_values, case.x64, case.mesh)
        if case.horizon is None:
            ticks.append(str(case))
            lines.setdefault(rest, []).append((float(len(ticks)), steps))
        else:
            lines.setdefault(rest, []).append((float(case.horizon), steps))
    series = Series(tuple(lines))
    for rest in series.shown:
        draw(panel, sorted(lines[rest]), series.look(rest), label=str(rest), line="straight")
    if ticks:
        panel.set_xticks(range(1, len(ticks) + 1), ticks, rotation=20, ha="right")
    else:
        horizons = sorted({x for pairs in lines.values() for x, _ in pairs})
        count_axis(panel.xaxis, horizons)
        if len(horizons) <= 8:
            panel.set_xticks(horizons)
    count_axis(panel.yaxis, [y for pairs in lines.values() for _, y in pairs])
    panel.set_xlabel("" if ticks else "horizon", fontsize=9)
    panel.set_ylabel("steps of the forward solve", fontsize=9)
    panel.set_title(f"{profile.name}: steps", fontsize=11)
    legend(figure, panel, series)
    return figure


def _newest_steps(rows: Sequence[Measurement]) -> int | None:
    """Return the steps that were counted last, None where they never were."""
    return next((row.steps for row in reversed(rows) if row.steps is not None), None)


def recompute_figure(profile: Profile, optima: Iterable[Optimum] = ()) -> Figure:
    """Draw the recompute factor against checkpoints: executed (markers) and the theoretical optimum (thin lines)."""
    figure, (panel,) = new_figure(NARROW)
    series = Series(profile.cases)
    counts: list[float] = []
    factors: list[float] = []
    lines = [optimum for optimum in optima if optimum.case in series.shown]
    for optimum in lines:
        colour = series.look(optimum.case).colour
        panel.plot(optimum.checkpoints, optimum.recompute_factor, color=colour, lw=0.9, alpha=0.8)
        counts += optimum.checkpoints
        factors += optimum.recompute_factor
    for case in series.shown:
        found = points(profile.rows(case))
        pairs = [(float(p.checkpoints), p.recompute_factor) for p in found if p.recompute_factor is not None]
        draw(panel, pairs, series.look(case), label=str(case))
        counts += [count for count, _ in pairs]
        factors += [factor for _, factor in pairs]
    if lines:
        panel.plot([], [], color=FAINT, lw=0.9, label="theoretical optimum")
    count_axis(panel.xaxis, counts)
    count_axis(panel.yaxis, factors)
    panel.set_xlabel("checkpoints (states held at once)", fontsize=9)
    panel.set_ylabel(COST_LABELS[FrontAxis.RECOMPUTE], fontsize=9)
    panel.set_title(f"{profile.name}: recompute factor", fontsize=11)
    legend(figure, panel, series)
    return figure


def tree_figure(tree: Tree) -> Figure:
    """Draw a checkpoint tree: every block of steps at the slot that holds the state before it.

    A block hangs below the block it was reached from. Blocks narrower than the picture can show are left out.
    """
    figure, (panel,) = new_figure(WIDE)
    blocks = visible_blocks(tree, 1500)
    depth = max((block.slot for block in blocks), default=0) + 1
    patches = [Rectangle((b.start, b.slot - 0.44), b.stop - b.start, 0.88) for b in blocks]
    colours = [to_rgba(COLOURS[0], 0.95 - 0.55 * b.slot / depth) for b in blocks]
    width = 0.6 if len(blocks) < 400 else 0.15
    panel.add_collection(PatchCollection(patches, facecolor=colours, edgecolor="white", linewidth=width))
    panel.set_xlim(0, max(tree.steps, 1))
    panel.set_ylim(depth - 0.5, -0.5)
    panel.grid(False)
    panel.yaxis.set_major_locator(MaxNLocator(integer=True))
    panel.set_xlabel("step of the forward solve", fontsize=9)
    panel.set_ylabel("slot that holds the checkpoint", fontsize=9)
    said = f"{tree.checkpoints:,} checkpoints for {tree.steps:,} steps, {len(tree.blocks):,} states stored in all"
    panel.set_title(said + ("" if len(blocks) == len(tree.blocks) else "; the narrowest are not drawn"), fontsize=10)
    return figure


def compare_figure(profiles: Sequence[Profile], case: Case | None = None) -> Figure:
    """Draw the fronts of several profiles over each other (two devices, two adjoints, before and after).

    Args:
        profiles: what to compare; at most seven.
        case: the case to compare; by default the first that all have.

    Raises:
        ProfilesError: the profiles have no case in common.
    """
    chosen = case if case is not None else next(iter(common_cases(profiles)), None)
    if chosen is None:
        raise ProfilesError(f"{' and '.join(p.qualified_name for p in profiles)} were measured at no case in common")
    figure, panels = new_figure(WIDE, 2)
    names = distinct_names(profiles)
    for panel, objective in zip(panels, FrontAxis, strict=True):
        everything: list[FrontPoint] = []
        for index, profile in enumerate(profiles):
            found = points(profile.rows(chosen))
            look = Look(COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)])
            _draw_front(panel, found, objective, look, names[index])
            everything += found
        _finish_front(panel, everything, objective, None)
    figure.suptitle(f"{' against '.join(names)} at {chosen}", fontsize=10)
    legend(figure, panels[0])
    return figure


def common_cases(profiles: Sequence[Profile]) -> tuple[Case, ...]:
    """List the cases that every one of the profiles was measured at."""
    return tuple(case for case in profiles[0].cases if all(case in other.cases for other in profiles[1:]))


def distinct_names(profiles: Sequence[Profile]) -> list[str]:
    """Name profiles by the shortest names that differ."""
    for name in (
        lambda p: p.name,
        lambda p: f"{p.name} ({p.adjoint})",
        lambda p: f"{p.name} ({p.device.kind})",
        lambda p: p.qualified_name,
    ):
        names = [name(profile) for profile in profiles]
        if len(set(names)) == len(names):
            return names
    return [f"{profile.qualified_name} ({index})" for index, profile in enumerate(profiles, start=1)]


def save_figure(figure: Figure, stem: str | Path) -> list[Path]:
    """Write a figure as `STEM.png` and `STEM.svg`.

    Raises:
        ProfilesError: the files cannot be written.
    """
    stem = Path(stem)
    written = []
    try:
        stem.parent.mkdir(parents=True, exist_ok=True)
        # A fixed salt and no date: the same figure is the same file.
        with matplotlib.rc_context({"svg.hashsalt": "ckpt-tune", "svg.fonttype": "none"}):
            for ending in ("png", "svg"):
                path = stem.with_name(f"{stem.name}.{ending}")
                figure.savefig(path, metadata={"Date": None} if ending == "svg" else None)
                written.append(path)
    except OSError as error:
        raise ProfilesError(f"cannot write {stem}.png: {error.strerror or error}") from error
    return written
