"""What becomes of what a command raises: exit codes, one line where the user can act, a traceback where we must."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer

from autotune import AutotuneError
from autotune.cli.common import guarded
from autotune.cli.opening import changing, reading
from autotune.cli.screen import Exit
from profiles import ProfilesError, open_store
from tests.autotune.rows import a_row


def raising(error: BaseException) -> Callable[..., None]:
    """A command that raises."""

    def command() -> None:
        """Do nothing else."""
        raise error

    return guarded(command)


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (AutotuneError("one line"), Exit.USER_ERROR, "ckpt-tune: one line\n"),
        (ProfilesError("no store"), Exit.USER_ERROR, "ckpt-tune: no store\n"),
        (KeyboardInterrupt(), Exit.INTERRUPTED, "every finished measurement is stored"),
        (ValueError("ours"), Exit.BUG, "this is a bug of ckpt-tune"),
    ],
)
def test_each_kind_of_error_has_its_exit_code(
    error: BaseException, code: Exit, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A bug keeps its traceback, and nothing else has one."""
    with pytest.raises(typer.Exit) as caught:
        raising(error)()
    assert caught.value.exit_code == code
    written = capsys.readouterr()
    assert written.out == ""
    assert said in written.err
    assert ("Traceback" in written.err) is (code is Exit.BUG)


def test_frames_of_the_user_follow_the_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Each on a line of its own."""
    with pytest.raises(typer.Exit):
        raising(AutotuneError("fn raised", frames=("  model.py, line 3", "    x = 1 / 0")))()
    assert capsys.readouterr().err == "ckpt-tune: fn raised\n  model.py, line 3\n    x = 1 / 0\n"


def test_a_reader_that_went_away_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """`ckpt-tune … | head` ends well, and says nothing more to the closed pipe."""

    class Closable:
        closed = False

        def close(self) -> None:
            self.closed = True

        def write(self, text: str) -> None:
            raise AssertionError(text)

        def isatty(self) -> bool:
            return False

    stream = Closable()
    command = raising(BrokenPipeError())
    monkeypatch.setattr(sys, "stderr", stream)
    with pytest.raises(typer.Exit) as caught:
        command()
    monkeypatch.undo()
    assert caught.value.exit_code == Exit.DONE


@pytest.mark.parametrize("error", [typer.Exit(7), typer.Abort(), typer.BadParameter("no")])
def test_what_the_command_line_itself_raises_goes_through(error: Exception) -> None:
    """As it is."""
    with pytest.raises(type(error)) as caught:
        raising(error)()
    assert caught.value is error


def test_a_traceback_shows_no_password(capsys: pytest.CaptureFixture[str]) -> None:
    """A bug report can be sent as it is."""
    with pytest.raises(typer.Exit):
        raising(ValueError("postgresql://me:hunter2x@host/db"))()
    written = capsys.readouterr().err
    assert "hunter2x" not in written
    assert "postgresql://" in written


def test_a_command_keeps_its_name_and_hands_on_its_arguments() -> None:
    """The command line reads both from it."""
    seen: list[Any] = []

    @guarded
    def named(first: int, *, second: int) -> None:
        """Say so."""
        seen.append((first, second))

    named(1, second=2)
    assert seen == [(1, 2)]
    assert (named.__name__, named.__doc__) == ("named", "Say so.")


def test_a_store_that_is_there_is_read_without_being_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is named and not there is an error; the default one is empty, and neither is made."""
    path = tmp_path / "profiles.db"
    with pytest.raises(ProfilesError, match="does not exist"), reading(str(path)):
        pass
    monkeypatch.setenv("CKPT_TUNE_STORE", str(path))
    with reading(None) as store:
        assert store.measurements() == []
        assert store.place == str(path)
    assert not path.exists()
    with open_store(str(path)) as store:
        store.put(a_row(4, 0.5))
    for named in (str(path), None):
        with reading(named) as store:
            assert len(store.measurements()) == 1
            with pytest.raises(ProfilesError):
                store.put(a_row(8, 0.5))


def test_nothing_is_taken_from_a_store_that_is_not_there(tmp_path: Path) -> None:
    """Nor is one made to look into."""
    with pytest.raises(ProfilesError, match="does not exist"), changing(str(tmp_path / "a.db")):
        pass
    assert list(tmp_path.iterdir()) == []
