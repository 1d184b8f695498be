"""A tune in a notebook while it runs: one moving line and the last trials, in the output of the cell.

IPython's own display is written anew in its place, which Jupyter, VS Code and Colab all do without a widget library.
"""

import html
import sys
from collections.abc import Sequence
from typing import Any

from autotune.cli.screen import Screen, TuneScreen, doing, outcome
from autotune.measuring.trial import Trial
from profiles import Measurement, hide_passwords, named_stores

KEPT = 8
"""How many lines about trials are shown, the newest last."""


def in_notebook() -> bool:
    """Return whether this process is the kernel of a notebook; loads no IPython where nobody has."""
    shell = sys.modules.get("IPython")
    running = shell.get_ipython() if shell is not None else None
    return running is not None and getattr(running, "kernel", None) is not None


class NotebookProgress(TuneScreen):
    """A listener to a tune that writes into the cell. It ends with one line of what was done."""

    def __init__(self) -> None:
        """Show nothing yet."""
        super().__init__(Screen(quiet=True))
        self._lines: list[str] = []
        self._handle: Any = None

    def __enter__(self) -> "NotebookProgress":
        self._draw()
        return self

    def __exit__(self, *exception: object) -> None:
        self._running = "finished" if exception[0] is None else "ended"
        self._left = 0, None
        self._draw()

    def say(self, text: str) -> None:
        """Show what is being done."""
        self._running = text
        self._draw()

    def note(self, text: str) -> None:
        """Show one line that stays for a while."""
        self._keep(text)

    def started(self, trials: Sequence[Trial]) -> None:
        """Show that a batch begins."""
        self.say(doing(trials))

    def finished(self, measurement: Measurement) -> None:
        """Show that a trial is measured and stored."""
        super().finished(measurement)
        self._keep(outcome(measurement))

    def _keep(self, line: str) -> None:
        self._lines = [*self._lines, line][-KEPT:]
        self._draw()

    def _draw(self) -> None:
        """Write the cell's output in the place of what was there."""
        from IPython.display import HTML, display

        text = "\n".join([*self._lines, self.status()])
        shown = HTML(f'<pre style="margin: 0">{html.escape(hide_passwords(text, named_stores()))}</pre>')
        if self._handle is None:
            self._handle = display(shown, display_id=True)
        else:
            self._handle.update(shown)
