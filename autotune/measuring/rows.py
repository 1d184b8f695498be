"""The row of a trial before anything was measured, and the note of why the trial is made. Plain values, no jax."""

import socket
from typing import Any, Protocol

from autotune.adjoints import Work, executed_steps, passes
from autotune.machine.device import versions
from autotune.measuring.trial import Trial
from profiles import DeviceKey, Measurement, ProblemKey, digest

VERIFIED = "/verified"
"""Ending of the study's name for rows that were measured under the user's own settings."""

UNKNOWN_DEVICE = DeviceKey(platform="unknown", kind="unknown")
"""Stands where the process died before it could say what device it had."""


WHY_NOTE = "why"
"""Kind of the notes that hold why trials were made, by `trial_key`."""


class KeepsNotes(Protocol):
    """The part of a store that keeps documents."""

    def put_note(self, kind: str, key: str, value: Any) -> None:
        """Store a document."""
        ...


def trial_key(of: Trial | Measurement) -> str:
    """Identify a trial, and the row that it became."""
    return digest([of.study, *(of.coordinates() | {"mesh": ""}).values()])  # only the row knows its mesh


def keep_why(store: KeepsNotes, trial: Trial, why: str) -> None:
    """Note why a trial is made."""
    store.put_note(WHY_NOTE, trial_key(trial), why)


def is_final(row: Measurement) -> bool:
    """Return whether a row is a final run under the user's own settings."""
    return row.study.endswith(VERIFIED)


def blank_row(trial: Trial, *, name: str | None = None, device: DeviceKey | None = None) -> Measurement:
    """Make a trial's row with all that the trial itself says.

    Args:
        trial: what is to be measured.
        name: the problem's name where `trial.key` is None; the command line's where this is None too.
        device: the device where `trial.device` is None.
    """
    executed = None
    if trial.steps:
        reversed_steps = trial.steps if trial.reversed_steps is None else trial.reversed_steps
        if trial.expected_steps is None and reversed_steps:  # placed as well as an adjoint can without a prediction
            executed = executed_steps(trial.adjoint, trial.steps, trial.checkpoints, None, trial.tier)
        else:
            work = Work(steps=trial.steps, reversed_steps=reversed_steps, accepted=trial.accepted)
            executed = sum(passes(trial.adjoint, work, trial.checkpoints, trial.tier, trial.expected_steps))
    return Measurement(
        **trial.coordinates(), study=trial.study,
        problem=trial.key or ProblemKey(name=name or trial.problem, components={}),
        device=trial.device or device or UNKNOWN_DEVICE, adjoint=trial.adjoint, steps=trial.steps,
        accepted=trial.accepted, rejected=trial.rejected, executed_steps=executed,
        recompute_factor=executed / trial.steps if executed and trial.steps else None, versions=versions(),
        host=socket.gethostname(), seed=trial.seed,
    )  # fmt: skip
