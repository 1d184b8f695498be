"""Standard output and error as they are: closed, full, in an old encoding, or a terminal that obeys what it is sent."""

import contextlib
import errno
import os
import re
import sys
from collections.abc import Callable
from typing import Any

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
"""What a terminal may obey, or shows in another order than it was written; line ends and tabs are harmless."""

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF)


def visible(text: str) -> str:
    """Write characters that a terminal would obey as escapes that can be read."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def is_unicode(stream: Any) -> bool:
    """Return whether a stream takes every character as it is."""
    return (getattr(stream, "encoding", None) or "utf-8").lower().replace("-", "").startswith("utf")


def run(command: Callable[[], None]) -> None:
    """Run the command line, and end well or with one line whatever becomes of its output.

    Characters that an encoding has not are written as escapes. A reader that reads no further ends the command.
    """
    for stream, descriptor in ((sys.stdout, 1), (sys.stderr, 2)):
        if stream is None:
            _give_nothing(descriptor)
        else:
            with contextlib.suppress(AttributeError, ValueError):
                stream.reconfigure(errors="backslashreplace")  # pyright: ignore[reportAttributeAccessIssue]
    closed = sys.stdout is None
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 (open as long as the process)
    if closed:
        print(
            "ckpt-tune: standard output is closed, and nothing could be printed: open it, or use --out", file=sys.stderr
        )
        sys.exit(1)
    code: Any = 0
    try:
        command()
    except SystemExit as ended:
        code = ended.code
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _give_nothing(1)
    except (OSError, ValueError) as error:
        _give_nothing(1)
        print(f"ckpt-tune: {said_of_output(error)}", file=sys.stderr)
        code = 1
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.flush()
    sys.exit(code)


def is_output(error: OSError) -> bool:
    """Return whether an error is that standard output takes no more."""
    return error.errno in _FULL and error.filename is None


def said_of_output(error: BaseException) -> str:
    """Say in one line that standard output takes no more."""
    said = getattr(error, "strerror", None) or str(error)
    return f"standard output cannot be written: {said}; what was measured is stored"


def _give_nothing(descriptor: int) -> None:
    """Put nothing in the place of a stream, so that what is still to be written harms nobody."""
    with contextlib.suppress(OSError):
        nothing = os.open(os.devnull, os.O_RDWR)
        if nothing != descriptor:
            os.dup2(nothing, descriptor)
            os.close(nothing)
