"""A report in a folder: the measurements as CSV, every figure as PNG and SVG, and the page."""

from pathlib import Path

from matplotlib.figure import Figure

from profiles.analysis.extras import ReportExtras, Tree
from profiles.analysis.tables import export_table
from profiles.errors import ProfilesError
from profiles.figures.plots import bytes_figure, front_figure, recompute_figure, save_figure, steps_figure, tree_figure
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
    figures: dict[str, Figure] = {
        "front": front_figure(profile, budget_bytes=budget_bytes, recommended=extras.recommended),
        "bytes": bytes_figure(profile, extras.laws, budget_bytes=budget_bytes),
        "steps": steps_figure(profile),
        "recompute": recompute_figure(profile, extras.optima),
    }
    if extras.trees:
        figures["tree"] = tree_figure(_first_tree(extras))
    page = folder / "report.html"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        page.write_text(render_page(profile, budget_bytes=budget_bytes, extras=extras), encoding="utf-8")
    except OSError as error:
        raise ProfilesError(f"cannot write the report to {folder}: {error.strerror or error}") from error
    written = [page, export_table(profile, folder / "measurements.csv")]
    for name, figure in figures.items():
        written += save_figure(figure, folder / name)
    return written


def _first_tree(extras: ReportExtras) -> Tree:
    """Choose the tree to draw: the first recommendation's, else the first."""
    for one in extras.recommended:
        for tree in extras.trees:
            if (tree.case, tree.checkpoints) == (one.case, one.checkpoints):
                return tree
    return extras.trees[0]
