"""Watching loops: how many steps they make, without differentiating them, and what one pass computes.

This is how a tuner learns the length of a solve, and what its steps cost at least.
"""

import contextlib
import contextvars
import dataclasses
import functools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import jax

Observer = Callable[[str, int, int | None], None]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Pass:
    """What one pass of a differentiated loop computes, as a jaxpr without what nobody reads.

    `kind` says which: `advance` is a step of the forward sweep, `replay` one that the backward sweep computes again,
    `reversal` a step that is reversed, its linearisation included. `moving` says of each input of the jaxpr whether it
    differs from pass to pass; the others are the same throughout the loop.
    """

    kind: Literal["advance", "replay", "reversal"]
    jaxpr: Any
    moving: tuple[bool, ...]


_observer: contextvars.ContextVar[Observer | None] = contextvars.ContextVar("adjoint_observer", default=None)
_passes: contextvars.ContextVar[Callable[[Pass], None] | None] = contextvars.ContextVar("adjoint_passes", default=None)
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


@contextlib.contextmanager
def observe_passes(callback: Callable[[Pass], None]) -> Iterator[None]:
    """Show what the passes of every outermost loop compute whose gradient is traced inside this context.

    What is traced computes the same, but is meant to be looked at and not to be run: the stages of explicit Runge-Kutta
    solvers are written out, however many there are. Under `jax.vmap` of a gradient the passes of one lane are shown.

    Args:
        callback: called while tracing, for each differentiated loop once with each kind of pass.

    Yields:
        Nothing.
    """
    token = _passes.set(callback)
    try:
        yield
    finally:
        _passes.reset(token)


def pass_observer() -> Callable[[Pass], None] | None:
    """Return the callback of the innermost `observe_passes` that is being traced in, None outside."""
    return _passes.get()


def observer() -> Observer | None:
    """Return the callback of the innermost `observe_steps` that is being traced in, None outside."""
    return _observer.get()


def report_steps(watcher: Observer, count: Any, max_steps: int | None) -> None:
    """Have a loop's number of steps reported when the program that is being traced gets there.

    Args:
        watcher: from `observer`.
        count: integer scalar.
        max_steps: the loop's bound, None for none.
    """
    jax.debug.callback(functools.partial(_report, watcher, call_site(), max_steps), count)


def _report(watcher: Observer, site: str, max_steps: int | None, count: Any) -> None:
    watcher(site, int(count), max_steps)


def call_site() -> str:
    """Name the line outside this package that is being traced, as `file.py:line`."""
    frame = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(_OWN):
        frame = frame.f_back
    return "a loop" if frame is None else f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
