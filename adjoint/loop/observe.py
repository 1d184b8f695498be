"""Watching how many steps loops make, without differentiating them: how a tuner learns the length of a solve."""

import contextlib
import contextvars
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

Observer = Callable[[str, int, int | None], None]

_observer: contextvars.ContextVar[Observer | None] = contextvars.ContextVar("adjoint_observer", default=None)
_OWN = str(Path(__file__).parents[1])


@contextlib.contextmanager
def observe_steps(callback: Observer) -> Iterator[None]:
    """Report the steps of every outermost `checkpointed_while_loop` that is traced inside this context.

    Such a loop runs forward only: its gradient is zero, so that finding out how long a solve is costs one forward pass.

    Args:
        callback: called while the program runs, with the line of code that made the loop (`file.py:line`), the number
            of steps (under `jax.vmap` the largest over the lanes) and the loop's bound, None for none.
            `jax.effects_barrier()` waits for it.

    Yields:
        Nothing.
    """
    token = _observer.set(callback)
    try:
        yield
    finally:
        _observer.reset(token)


def observer() -> Observer | None:
    """Return the callback of the innermost `observe_steps` that is being traced in, None outside."""
    return _observer.get()


def call_site() -> str:
    """Name the line outside this package that is being traced, as `file.py:line`."""
    frame = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(_OWN):
        frame = frame.f_back
    return "a loop" if frame is None else f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
