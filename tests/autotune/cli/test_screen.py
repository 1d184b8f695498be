"""What goes to which stream: data for people and for programs, remarks, errors, and the moving line of a tune."""

import io
import json
from collections.abc import Callable
from typing import Any

import pytest
from rich.console import Console

from autotune.cli.screen import Screen, TuneScreen, outcome
from autotune.measuring.trial import Rung, RunSettings, Trial
from profiles import AdjointName, Status, Tier
from tests.autotune.rows import a_row

Read = Callable[[], tuple[str, str]]


@pytest.fixture
def read(capsys: pytest.CaptureFixture[str]) -> Read:
    """Read what was written to both streams since the last time."""

    def both() -> tuple[str, str]:
        captured = capsys.readouterr()
        return captured.out, captured.err

    return both


def trial(checkpoints: int, **changes: Any) -> Trial:
    """A trial of one horizon."""
    return Trial(study="s", problem="m:make", adjoint=AdjointName.OURS, checkpoints=checkpoints, **changes)


# --- the screen


def test_remarks_and_errors_go_to_the_error_stream_and_data_does_not(read: Read) -> None:
    """A quiet screen leaves out remarks alone."""
    for quiet in (False, True):
        screen = Screen(quiet=quiet)
        screen.say("a remark")
        screen.fail("an error", ["  at frame"])
        screen.line("data")
        screen.json({"a": 1})
        out, err = read()
        assert out == 'data\n{\n  "a": 1\n}\n'
        assert err == "a remark\n" * (not quiet) + "ckpt-tune: an error\n  at frame\n"


def test_a_password_is_written_nowhere(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither in a remark nor in an error or its frames."""
    monkeypatch.setenv("CKPT_TUNE_STORE", "postgresql://me:hunter2x@host/db")
    screen = Screen()
    screen.say("at postgresql://me:hunter2x@host/db")
    screen.fail("no postgresql://me:hunter2x@host/db", ["postgresql://me:hunter2x@host/db"])
    assert "hunter2x" not in "".join(read())


def test_a_table_in_a_file_has_figures_to_the_right_dashes_for_nothing_and_no_blanks_at_the_end(read: Read) -> None:
    """Texts stand to the left; a column with one text among its figures does too."""
    Screen().table(
        ("name", "bytes", "mixed"),
        [("a", "7 B", 1), ("long name", "1.2 KiB", "x"), (None, "", "-3"), ("b", "≥ 5 B", 0)],
        title="A title",
    )
    assert read()[0].splitlines() == [
        "A title",
        "name         bytes  mixed",
        "a              7 B  1",
        "long name  1.2 KiB  x",
        "-                -  -3",
        "b            ≥ 5 B  0",
    ]


def test_a_table_without_headings_or_rows_is_what_is_left(read: Read) -> None:
    """No empty line stands for headings that are not there."""
    Screen().table(("", ""), [("key", "value")])
    assert read()[0] == "key  value\n"
    Screen().table(("a", "b"), [])
    assert read()[0] == "a  b\n"


def test_markup_in_data_is_text(read: Read) -> None:
    """Square brackets of a dtype are no style."""
    screen = Screen()
    screen.table(("a",), [("float32[3]",)])
    screen.line("[red]x[/red]")
    screen.say("[bold]y")
    assert read() == ("a\nfloat32[3]\n[red]x[/red]\n", "[bold]y\n")


def test_csv_has_the_columns_of_all_records_or_those_that_are_named(read: Read) -> None:
    """What is unknown is empty, what is a list or a mapping is JSON, what has a comma is quoted."""
    records = [{"a": 1, "b": None}, {"a": "x,y", "c": {"k": [1]}}]
    Screen().csv(records)
    assert read()[0] == 'a,b,c\n1,,\n"x,y",,"{""k"": [1]}"\n'
    Screen().csv(records, ["c", "a"])
    assert read()[0] == 'c,a\n,1\n"{""k"": [1]}","x,y"\n'
    Screen().csv([{"a": (1, 2)}])
    assert read()[0] == 'a\n"[1, 2]"\n'


def test_json_keeps_letters_and_writes_what_it_does_not_know_as_text(read: Read) -> None:
    """A status is text already; a path becomes one."""
    Screen().json({"é": Status.OK, "p": io.StringIO})
    document = json.loads(read()[0])
    assert document["é"] == "ok"
    assert document["p"].startswith("<class")


def test_what_goes_to_a_file_is_of_a_fixed_width(read: Read) -> None:
    """So that it does not depend on the terminal that it was not written to."""
    assert Screen().width == 160


# --- how a trial ended


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (a_row(4, 0.5, horizon=None, tolerance=None), "4 checkpoints: 1.34 MiB, 500 ms a call"),
        (a_row(4, None), "4 checkpoints, horizon 10, tolerance 0.001: 1.34 MiB, compiled only"),
        (a_row(4, None, horizon=None, tolerance=None, peak_bytes=None), "4 checkpoints: bytes unknown, compiled only"),
        (
            a_row(4, None, status=Status.OUT_OF_MEMORY, message="first\nsecond", tolerance=None),
            "4 checkpoints, horizon 10: out of memory (first)",
        ),
        (a_row(4, None, status=Status.TIMED_OUT, horizon=None, tolerance=None), "4 checkpoints: timed out"),
        (
            a_row(
                4, 0.5, horizon=None, tolerance=None, set_values={"b": 2, "a": "x"}, xla_flags="--f",
                tier=Tier(name="host", windows=3),
            ),
            "4 checkpoints, a=x, b=2, XLA_FLAGS=--f, tier host, 3 windows: 1.34 MiB, 500 ms a call",
        ),
    ],
)  # fmt: skip
def test_one_line_says_how_a_trial_ended(row: Any, said: str) -> None:
    """Where, how large, how fast, or why not."""
    assert outcome(row) == said


# --- a tune


def test_in_a_file_a_tune_is_plain_lines(read: Read) -> None:
    """What begins, what ended and what is worth a note, each on a line of its own."""
    with TuneScreen(Screen()) as shown:
        shown.say("looking")
        shown.started([trial(16, rung=Rung.RUN, horizon=10), trial(4, rung=Rung.COMPILED, horizon=10)])
        shown.finished(a_row(4, 0.5))
        shown.started([trial(9, rung=Rung.COMPILED), trial(30, rung=Rung.TRACED)])
        shown.started([trial(9, settings=RunSettings(own_environment=True), tolerance=1e-3)])
        shown.note("noted")
    out, err = read()
    assert out == ""
    assert err.splitlines() == [
        "looking",
        "timing 4, 16 checkpoints, horizon 10",
        f"  {outcome(a_row(4, 0.5))}",
        "compiling 9, 30 checkpoints",
        "final run under your own settings: 9 checkpoints, tolerance 0.001",
        "noted",
    ]
    with TuneScreen(Screen(quiet=True)) as shown:
        shown.say("looking")
        shown.finished(a_row(4, 0.5))
        shown.note("noted")
    assert read() == ("", "")


def on_terminal() -> tuple[TuneScreen, io.StringIO]:
    """A tune on a terminal of which the test reads what is written."""
    screen, written = Screen(), io.StringIO()
    screen.err = Console(file=written, force_terminal=True, width=200, highlight=False)
    return TuneScreen(screen), written


def status(shown: TuneScreen) -> str:
    """The moving line, without the clock."""
    text = shown._status().plain
    assert text.startswith("[0:0")
    return text.partition("] ")[2]


def test_on_a_terminal_one_moving_line_says_what_runs_what_is_left_and_the_best_so_far() -> None:
    """What is done stays above it; what is being done does not."""
    tune, written = on_terminal()
    with tune as shown:
        shown.say("looking")
        assert status(shown) == "looking; 0 done"
        shown.expect(3, 75.4)
        assert status(shown) == "looking; 0 done; about 3 left, 1:15"
        shown.started([trial(16)])
        shown.finished(a_row(16, 0.5))
        assert status(shown) == ("timing 16 checkpoints; 1 done; about 2 left, 1:15; fastest 500 ms at 16 checkpoints")
        shown.finished(a_row(4, 0.9))
        shown.finished(a_row(64, None))
        assert status(shown) == "timing 16 checkpoints; 3 done; fastest 500 ms at 16 checkpoints"
        shown.finished(a_row(30, 0.25))
        shown.expect(2, None)
        assert status(shown) == ("timing 16 checkpoints; 4 done; about 2 left; fastest 250 ms at 30 checkpoints")
    assert outcome(a_row(16, 0.5)) in written.getvalue()
    assert "\nlooking\n" not in written.getvalue()


def test_a_quiet_terminal_has_no_moving_line() -> None:
    """Nothing at all is written."""
    tune, written = on_terminal()
    tune._screen.quiet = True
    with tune as shown:
        shown.say("looking")
        shown.finished(a_row(4, 0.5))
    assert written.getvalue() == ""


def test_the_moving_line_says_something_before_anything_was_said() -> None:
    """The first seconds of a tune, in which the problem is loaded, have words too."""
    line = TuneScreen(Screen())._status().plain
    assert line == "[0:00] reading the problem and the device; 0 done"
