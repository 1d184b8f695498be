"""The row of a trial before anything was measured. Plain values, no jax."""

import socket

from autotune._adjoints import executed_steps
from autotune._device import versions
from autotune._trial import Trial
from profiles._records import DeviceKey, Measurement, ProblemKey

UNKNOWN_DEVICE = DeviceKey(platform="unknown", kind="unknown")
"""Stands where the process died before it could say what device it had."""


def blank_row(trial: Trial, *, name: str | None = None, device: DeviceKey | None = None) -> Measurement:
    """Make a trial's row with all that the trial itself says.

    Args:
        trial: what is to be measured.
        name: the problem's name where `trial.key` is None; the command line's where this is None too.
        device: the device where `trial.device` is None.
    """
    executed = None
    if trial.steps:
        executed = executed_steps(trial.adjoint, trial.steps, trial.checkpoints, trial.expected_steps, trial.tier)
    return Measurement(
        study=trial.study, problem=trial.key or ProblemKey(name=name or trial.problem, components={}),
        device=trial.device or device or UNKNOWN_DEVICE, adjoint=trial.adjoint, checkpoints=trial.checkpoints,
        horizon=trial.horizon, tolerance=trial.tolerance, set_values=dict(trial.set_values), x64=trial.settings.x64,
        xla_flags=trial.settings.xla_flags, repeat=trial.repeat, expected_steps=trial.expected_steps,
        tier=trial.tier, steps=trial.steps, accepted=trial.accepted, rejected=trial.rejected, executed_steps=executed,
        recompute_factor=executed / trial.steps if executed and trial.steps else None, versions=versions(),
        host=socket.gethostname(), seed=trial.seed,
    )  # fmt: skip
