"""A report in a folder: the measurements as CSV, every figure as PNG and SVG, and the page."""

from pathlib import Path
from typing import Any

from profiles.analysis.extras import ReportExtras, Tree
from profiles.analysis.figure_tables import laws_table, lost_table, optima_table, points_table, steps_table, tree_table
from profiles.analysis.tables import export_table
from profiles.errors import ProfilesError
from profiles.figures.counts import bytes_figure, recompute_figure, steps_figure
from profiles.figures.fronts import fronts_figure
from profiles.figures.rendering import save_figure
from profiles.figures.thinning import thin
from profiles.figures.trees import tree_figure
from profiles.pages.page import render_page
from profiles.records.records import Profile


def report(
    profile: Profile, out_dir: str | Path, *, budget_bytes: int | None = None, extras: ReportExtras | None = None
) -> list[Path]:
    """Write the report of a profile.

    Args:
        profile: what to report.
        out_dir: the folder, made where it does not exist; files of an earlier report are replaced.
        budget_bytes: where to draw the budget, and where the page's slider starts.
        extras: laws, optima, trees and recommendations to show beside the measurements.

    Returns:
        The files, the page first: `report.html`, `measurements.csv`, and `front`, `bytes`, `steps`, `recompute`,
        `tree` (where there is one) as `.png` and `.svg`.

    Raises:
        ProfilesError: a file cannot be written.
    """
    folder, extras = Path(out_dir), extras or ReportExtras()
    page = folder / "report.html"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        page.write_text(render_page(profile, budget_bytes=budget_bytes, extras=extras), encoding="utf-8")
    except OSError as error:
        raise ProfilesError(f"cannot write the report to {folder}: {error.strerror or error}") from error
    written = [page, export_table(profile, folder / "measurements.csv")]
    for name, figure in _figures(profile, budget_bytes, extras).items():
        written += save_figure(figure, folder / name)
    return written


def _figures(profile: Profile, budget_bytes: int | None, extras: ReportExtras) -> dict[str, Any]:
    """Draw every figure of a report."""
    points, note = thin(points_table(profile, extras))
    laws, lost = laws_table(profile, extras.laws), lost_table(profile)
    kind, name = profile.device.kind, profile.name
    title = f"{name}: bytes against checkpoints"
    texts = sorted({law.text for law in extras.laws if law.text})
    said = [f"line and band: {', '.join(texts)}" if len(laws) else "", "red cross: did not end well" * bool(len(lost))]
    below = "; ".join(text for text in [*said, note] if text)
    optima = optima_table(profile, extras.optima)
    thin_lines = "; ".join(text for text in ["thin lines: theoretical optimum" * bool(len(optima)), note] if text)
    figures = {
        "front": fronts_figure(
            points,
            budget_bytes=budget_bytes,
            devices=extras.usable_bytes(),
            title=f"{name}: Pareto front on {kind}",
            note=note,
        ),
        "bytes": bytes_figure(points, laws, lost, budget_bytes=budget_bytes, title=title, note=below),
        "steps": steps_figure(steps_table(profile), title=f"{name}: steps"),
        "recompute": recompute_figure(points, optima, title=f"{name}: recompute factor", note=thin_lines),
    }
    if extras.trees:
        figures["tree"] = tree_figure(tree_table(_first_tree(extras)))
    return figures


def _first_tree(extras: ReportExtras) -> Tree:
    """Choose the tree to draw: the first recommendation's, else the first."""
    for one in extras.recommended:
        for tree in extras.trees:
            if (tree.case, tree.checkpoints) == (one.case, one.checkpoints):
                return tree
    return extras.trees[0]
