"""The notebook of the examples, executed as Jupyter would: progress in its cell, tables and charts inline."""

import json
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

SOURCE = REPOSITORY / "scripts" / "examples" / "notebook.py"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # those of the notebook's libraries; the kernel is a process of its own
def test_the_notebook_runs_with_progress_a_table_and_a_chart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every cell ends without an error; the tune's cell ends with what was measured; the front is a chart."""
    jupytext = pytest.importorskip("jupytext")
    nbclient = pytest.importorskip("nbclient")
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    book = jupytext.read(SOURCE)
    client = nbclient.NotebookClient(
        book, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()
    cells = [cell for cell in book.cells if cell.cell_type == "code"]
    _, tuned, table, chart, used = ([output.get("data", {}) for output in cell.outputs] for cell in cells)
    progress = "".join(data.get("text/html", "") for data in tuned)
    for part in ("14 checkpoints: ", "a call", "] finished; ", "fastest"):
        assert part in progress
    assert any("budget" in data.get("text/html", "") for data in table)
    drawn = json.dumps(chart)
    assert "vega" in drawn
    assert "peak memory of one call" in drawn
    assert any("peak_bytes" in data.get("text/plain", "") for data in used)
