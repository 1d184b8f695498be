"""Progress in a notebook's cell, on a display made by hand."""

from typing import Any

import pytest

from autotune.cli.notebook import KEPT, NotebookProgress, in_notebook
from tests.autotune.cli.test_screen import trial
from tests.autotune.rows import a_row


class Cell:
    """A display that keeps what was written."""

    def __init__(self) -> None:
        self.shown: list[str] = []

    def display(self, shown: Any, display_id: bool) -> "Cell":
        """Write for the first time."""
        assert display_id
        self.update(shown)
        return self

    def update(self, shown: Any) -> None:
        """Write anew."""
        self.shown.append(shown.data)


@pytest.fixture
def cell(monkeypatch: pytest.MonkeyPatch) -> Cell:
    """The display of IPython, replaced."""
    display = pytest.importorskip("IPython.display")
    made = Cell()
    monkeypatch.setattr(display, "display", made.display)
    return made


def test_a_cell_shows_what_runs_and_keeps_the_last_trials(cell: Cell) -> None:
    """One output, written anew: never empty, escaped, and at its end what was done."""
    with NotebookProgress() as shown:
        assert "reading the problem" in cell.shown[-1]
        shown.say("observing <steps>")
        assert "observing &lt;steps&gt;" in cell.shown[-1]
        shown.expect(20, None)
        shown.started([trial(7)])
        assert "timing 7 checkpoints; 0 done; about 20 left" in cell.shown[-1]
        for count in range(1, 13):
            shown.finished(a_row(count, 0.5 / count))
        assert "12 done; about 8 left; fastest 41.7 ms at 12 checkpoints" in cell.shown[-1]
    lines = cell.shown[-1].splitlines()
    assert len(lines) == KEPT + 1
    assert lines[0].endswith("5 checkpoints, horizon 10, tolerance 0.001: 1.43 MiB, 100 ms a call")
    assert "] finished; 12 done" in lines[-1]


def test_a_tune_that_ends_in_an_exception_does_not_say_done(cell: Cell) -> None:
    """Ctrl-C too."""
    with pytest.raises(KeyboardInterrupt), NotebookProgress():
        raise KeyboardInterrupt
    assert "] ended; 0 done" in cell.shown[-1]


def test_a_plain_process_is_no_notebook() -> None:
    """Nor does the question load IPython."""
    assert not in_notebook()
