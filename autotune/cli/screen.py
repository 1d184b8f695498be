"""The screen: data on standard output, everything else on standard error, and the exit codes. No jax, no pandas.

Data is a table for people (as wide as the terminal), JSON or CSV. On a terminal a tune shows what runs, what is left
and the best so far in one moving line; otherwise plain lines.
"""

import csv
import enum
import io
import json
import re
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from autotune.cli.streams import is_unicode, visible
from autotune.measuring.trial import Rung, Trial
from profiles import Measurement, Point, Status, format_bytes, format_seconds, hide_passwords, named_stores, quoted_cell

PLAIN_WIDTH = 160
"""Width of a table that does not go to a terminal."""
REFRESH_PER_SECOND = 4
_CONTROLS = re.compile("[\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


class Exit(enum.IntEnum):
    """Exit codes of every command."""

    DONE = 0
    USER_ERROR = 1
    USAGE = 2
    NOTHING_FITS = 3
    STALE = 4
    BUG = 70
    INTERRUPTED = 130


class Format(enum.StrEnum):
    """How data is written."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"


class Screen:
    """Where a command writes. `quiet` leaves out progress and remarks, never data or errors."""

    def __init__(self, *, quiet: bool = False) -> None:
        """Open both streams as they are now."""
        self.quiet = quiet
        self._out = Console(file=sys.stdout, highlight=False, soft_wrap=False, width=_width(sys.stdout))
        self.err = Console(file=sys.stderr, highlight=False, soft_wrap=True)

    @property
    def width(self) -> int:
        """Columns of a line of data."""
        return self._out.width

    def say(self, text: str) -> None:
        """Write a remark."""
        if not self.quiet:
            self.err.print(Text(visible(hide_passwords(text, named_stores()))))

    def fail(self, text: str, frames: Sequence[str] = ()) -> None:
        """Write an error: its line, then the user's own frames."""
        for line in (f"ckpt-tune: {text}", *frames):
            self.err.print(Text(visible(hide_passwords(line, named_stores()))))

    def line(self, text: str = "") -> None:
        """Write one line of data for people."""
        self._out.print(Text(visible(text)), soft_wrap=True)

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[Any]], *, title: str = "") -> None:
        """Write a table; numbers stand to the right, None is a dash."""
        listed = [[_cell(value) for value in row] for row in rows]
        table = Table(
            box=None, padding=(0, 2, 0, 0), header_style="bold", pad_edge=False, show_header=any(columns)
        )  # fmt: skip
        for index, column in enumerate(columns):
            right = all(_is_figure(row[index]) for row in listed) and bool(listed)
            table.add_column(column, justify="right" if right else "left", overflow="fold")
        for row in listed:
            table.add_row(*(Text(cell) for cell in row))
        if title:
            self._out.print(Text(visible(title), style="bold"))
        if self._out.is_terminal:
            self._out.print(table)
            return
        with self._out.capture() as captured:
            self._out.print(table)
        for text in captured.get().splitlines():  # no spaces at the ends of lines in a file
            print(text.rstrip(), file=sys.stdout)

    def json(self, document: Any) -> None:
        """Write JSON."""
        text = json.dumps(document, indent=2, ensure_ascii=not is_unicode(sys.stdout), default=str)
        # JSON's own escapes: the text stays the same document. What JSON writes as an escape by itself is not found.
        print(_CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", text), file=sys.stdout)

    def csv(self, records: Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None) -> None:
        """Write records as CSV, one row each; mappings and lists as JSON."""
        names = list(columns or dict.fromkeys(name for record in records for name in record))
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(names)
        for record in records:
            writer.writerow([_csv_cell(record.get(name)) for name in names])
        shown = text.getvalue()
        print(visible(shown) if sys.stdout.isatty() else shown, end="", file=sys.stdout)


class TuneScreen:
    """A tune on the screen while it runs."""

    def __init__(self, screen: Screen) -> None:
        """Show nothing yet."""
        self._screen = screen
        self._live: Live | None = None
        self._started = time.monotonic()
        self._running = "reading the problem and the device"
        self._done = 0
        self._left: tuple[int, float | None] = (0, None)
        self._best: Measurement | None = None

    def __enter__(self) -> "TuneScreen":
        if self._screen.err.is_terminal and not self._screen.quiet:
            self._live = Live(
                get_renderable=self._status, console=self._screen.err, transient=True,
                refresh_per_second=REFRESH_PER_SECOND,
            )  # fmt: skip
            self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._live is not None:
            self._live.stop()

    def say(self, text: str) -> None:
        """Show one line about what is being done."""
        self._running = text
        if self._live is None:
            self._screen.say(text)

    def note(self, text: str) -> None:
        """Show one line that stays on the screen."""
        self._screen.say(text)

    def expect(self, trials: int, seconds: float | None) -> None:
        """Note how many trials are still to come, and how long they will take where that is known."""
        self._left = trials, seconds

    def started(self, trials: Sequence[Trial]) -> None:
        """Show that a batch begins."""
        self.say(doing(trials))

    def finished(self, measurement: Measurement) -> None:
        """Show that a trial is measured and stored."""
        self._done += 1
        self._left = max(0, self._left[0] - 1), self._left[1]
        seconds = measurement.run_median_seconds
        if seconds is not None and (self._best is None or seconds < (self._best.run_median_seconds or 0)):
            self._best = measurement
        self._screen.say(f"  {outcome(measurement)}")

    def _status(self) -> Text:
        return Text(self.status(), overflow="ellipsis")

    def status(self) -> str:
        """Say in one line what runs, what is left, and the best so far."""
        parts = [f"{self._running}", f"{self._done} done"]
        left, seconds = self._left
        if left:
            parts.append(f"about {left} left" + (f", {_clock(seconds)}" if seconds else ""))
        if self._best is not None and self._best.run_median_seconds is not None:
            parts.append(
                f"fastest {format_seconds(self._best.run_median_seconds)} at {self._best.checkpoints} checkpoints"
            )
        return f"[{_clock(time.monotonic() - self._started)}] " + "; ".join(parts)


def doing(trials: Sequence[Trial]) -> str:
    """Say in one line what is done with a batch."""
    counts = ", ".join(map(str, sorted(trial.checkpoints for trial in trials)))
    if trials[0].settings.own_environment:
        return f"final run under your own settings: {counts} checkpoints{_place(trials[0])}"
    rung = "timing" if any(trial.rung is Rung.RUN for trial in trials) else "compiling"
    return f"{rung} {counts} checkpoints{_place(trials[0])}"


def outcome(row: Measurement) -> str:
    """Say in one line how a trial ended."""
    at = f"{row.checkpoints} checkpoints{_place(row)}"
    if row.status is not Status.OK:
        reason = row.message.splitlines()[0] if row.message else ""
        return f"{at}: {str(row.status).replace('_', ' ')}" + (f" ({reason})" if reason else "")
    parts = [format_bytes(row.peak_bytes) if row.peak_bytes else "bytes unknown"]
    if row.run_median_seconds is not None:
        parts.append(f"{format_seconds(row.run_median_seconds)} a call")
    else:
        parts.append("compiled only")
    return f"{at}: {', '.join(parts)}"


def _place(of: Point) -> str:
    """Say where a trial lies, beginning with a comma; empty where the problem has one case."""
    parts = [f"horizon {of.horizon}"] if of.horizon is not None else []
    parts += [f"tolerance {of.tolerance:g}"] if of.tolerance is not None else []
    parts += [f"{key}={value}" for key, value in sorted(of.set_values.items())]
    parts += [f"XLA_FLAGS={of.xla_flags}"] if of.xla_flags else []
    parts += [f"tier {of.tier}"] if of.tier else []
    return "".join(f", {part}" for part in parts)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"


def _width(stream: Any) -> int | None:
    """Return the terminal's own width, or a fixed one for files and pipes."""
    return None if stream.isatty() else PLAIN_WIDTH


def _cell(value: Any) -> str:
    if value is None or value == "":
        return "-"
    return visible(str(value))


def _is_figure(text: str) -> bool:
    return text == "-" or text[:1].isdigit() or text[:1] in "+-±<>≤≥≈" or text == "∞"


def _csv_cell(value: Any) -> Any:
    if value is None:
        return ""
    if isinstance(value, Mapping | list | tuple):
        return json.dumps(value, default=str)
    return quoted_cell(value) if isinstance(value, str) else value
