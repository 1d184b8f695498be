"""One line for an exception, and the frames that are the user's."""

import sysconfig
from pathlib import Path

import jax
import pytest

import autotune.problem.loading
from autotune import AutotuneError
from autotune.errors import from_user, is_user_file, one_line, user_frames


def test_files_of_ours_of_libraries_and_of_python_are_not_the_users():
    """A stack shows the user what they wrote, and nothing else."""
    assert is_user_file(__file__)
    assert not is_user_file(autotune.problem.loading.__file__)
    assert not is_user_file(jax.__file__)
    assert not is_user_file(str(Path(sysconfig.get_path("stdlib")) / "json/__init__.py"))
    assert not is_user_file("<frozen importlib._bootstrap>")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("first\nsecond"), "ValueError: first"),
        (ValueError("\n\n  late  \n"), "ValueError: late"),
        (KeyError("k"), "KeyError: 'k'"),
        (RuntimeError(), "RuntimeError"),
        (
            RuntimeError("INTERNAL: Traceback (most recent call last):\n  File x\n_pkg.BadError: why\nmore\n"),
            "pkg.BadError: why",
        ),
        (RuntimeError("X: Traceback (most recent call last):\n  nothing known"), "RuntimeError: X: Traceback"),
    ],
)
def test_an_exception_is_said_in_one_line(error, said):
    """What was raised inside a host callback is said, not that a callback failed."""
    assert one_line(error).startswith(said)
    assert "\n" not in one_line(error)


def test_a_long_line_is_cut():
    """A message is for reading."""
    assert len(one_line(ValueError("x" * 1000))) <= 400


def test_an_error_of_ours_is_not_wrapped_again():
    """Its text is clear already."""
    ours = AutotuneError("clear", frames=("f",))
    assert from_user("said", ours) is ours


def test_frames_are_outermost_first_with_their_source_line():
    """As in a traceback."""

    def inner():
        raise ValueError("x")

    with pytest.raises(ValueError, match="x") as caught:
        inner()
    frames = user_frames(caught.value)
    assert len(frames) == 2
    assert "in inner" in frames[1]
    assert 'raise ValueError("x")' in frames[1]
