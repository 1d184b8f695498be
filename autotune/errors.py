"""The base error of this package, and how an exception of user code becomes one line and the user's own frames."""

import re
import sysconfig
import traceback
from pathlib import Path


class AutotuneError(Exception):
    """Base of every error that this package raises for the user to correct.

    Its text is one clear line: what was requested, what was found, what to do. `frames` are the user's own stack
    frames, outermost first, where their code raised; they are empty where it did not.
    """

    def __init__(self, message: str, *, frames: tuple[str, ...] = ()):
        super().__init__(message)
        self.frames = frames


class ForeignPackageError(AutotuneError, ImportError):
    """One of the packages `adjoint`, `autotune` and `profiles` is not ours."""


class ProblemChangedError(AutotuneError):
    """The problem that a process loaded is not the one that is being tuned: somebody edited it meanwhile."""


class NobodyMeasuresError(AutotuneError):
    """Whoever was to measure is gone: a scheduler, an executor, every worker. No trial and no case is at fault."""


_OURS = tuple(str(Path(__file__).resolve().parent.parent / name) for name in ("adjoint", "autotune", "profiles"))
_STOCK = "'RecursiveCheckpointAdjoint' object has no attribute 'expected_steps'"
_STOCK_HINT = (
    ". That is Diffrax's own adjoint: --adjoint diffrax tunes diffeqsolve only; for a plain loop use --adjoint ours"
)
_INPUT_HINT = ". Standard input is empty where a problem is measured: take input() and breakpoint() out of it"
_RAISED = re.compile(r"[A-Za-z_][\w.]*(Error|Exception|Exit|Interrupt|Warning)\b")
_MOST_FRAMES = 20
_LIBRARY = ("site-packages", "dist-packages")


def is_user_file(filename: str) -> bool:
    """Return whether a stack frame's file is the user's: not ours, not the standard library's, not an installed one."""
    if filename.startswith("<"):
        return False
    path = Path(filename)
    resolved = str(path.resolve())
    if any(resolved.startswith(ours + "/") or resolved.startswith(ours + "\\") for ours in _OURS):
        return False
    if any(part in _LIBRARY for part in path.parts):
        return False
    # A virtual environment inside the user's folder has its libraries under site-packages, caught above.
    return not any(filename.startswith(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib"))


def user_frames(error: BaseException) -> tuple[str, ...]:
    """Format the frames of `error` that lie in the user's files, outermost first, two lines each.

    Of many (a function that called itself for ever) the outermost and the innermost stand for all.
    """
    frames = []
    for frame in traceback.extract_tb(error.__traceback__):
        if is_user_file(frame.filename):
            where = f"  {frame.filename}:{frame.lineno} in {frame.name}"
            frames.append(f"{where}\n    {frame.line}" if frame.line else where)
    if len(frames) > _MOST_FRAMES:
        half = _MOST_FRAMES // 2
        frames[half:-half] = [f"  … {len(frames) - 2 * half} more of your frames"]
    return tuple(frames)


def one_line(error: BaseException, limit: int = 400) -> str:
    """Say an exception in one line: its type and the first line of its text that says something.

    Where the text carries a traceback (an exception raised in a host callback), what that one raised is said.
    """
    lines = [line.strip() for line in text_of(error).splitlines() if line.strip()]
    if lines and lines[0].endswith("Traceback (most recent call last):"):
        raised = [line for line in lines if _RAISED.match(line)]
        if raised:
            return _cut(raised[-1].removeprefix("_"), limit)
    return _cut(f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__, limit)


def text_of(error: BaseException) -> str:
    """Give an exception's text, whatever its own class does when it is asked for it."""
    try:
        return str(error)
    except Exception as again:  # a user's class, whose own __str__ is wrong
        return f"(its text cannot be read: {type(again).__name__})"


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


def from_user(said: str, error: BaseException) -> AutotuneError:
    """Wrap an exception raised by the user's code: `said`, the exception in one line, and the user's frames."""
    if isinstance(error, AutotuneError):
        return error
    if isinstance(error, SyntaxError) and error.filename:
        where = (f"  {error.filename}:{error.lineno}\n    {(error.text or '').strip()}",)
        return AutotuneError(f"{said}: {type(error).__name__}: {error.msg} (line {error.lineno})", frames=where)
    hint = _STOCK_HINT if isinstance(error, AttributeError) and _STOCK in text_of(error) else ""
    if isinstance(error, EOFError) or type(error).__name__ == "BdbQuit":
        hint = _INPUT_HINT
    return AutotuneError(f"{said}: {one_line(error)}{hint}", frames=user_frames(error))
