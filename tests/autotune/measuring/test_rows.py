"""The row of a trial before anything was measured, and where a trial ends."""

from typing import Any

import pytest

import adjoint
from autotune.machine.device import versions
from autotune.measuring.rows import UNKNOWN_DEVICE, VERIFIED, blank_row, is_final
from autotune.measuring.trial import Rung, Trial
from autotune.stock import stock_executed_steps
from profiles import AdjointName, DeviceKey, ProblemKey, Status, Tier
from tests.autotune.rows import a_row

KEY = ProblemKey(name="m:make", components={"source": "a"})
DEVICE = DeviceKey(platform="gpu", kind="k")
HOST = Tier(name="host", windows=7, transfer_cost=2.5)


def trial(**changes: Any) -> Trial:
    """A trial with twelve checkpoints of a solve whose steps may be known."""
    return Trial(**{"study": "s", "problem": "m.py:make", "adjoint": AdjointName.OURS, "checkpoints": 12, **changes})


def test_a_row_says_all_that_the_trial_says() -> None:
    """And nothing of what only a measurement tells."""
    asked = trial(
        horizon=10, tolerance=1e-3, set_values={"w": 8}, x64=True, xla_flags="--f", repeat=3, expected_steps=90,
        tier=HOST, key=KEY, device=DEVICE, steps=100, accepted=90, rejected=10, seed=5,
    )  # fmt: skip
    row = blank_row(asked)
    assert row.coordinates() == asked.coordinates()
    assert (row.study, row.problem, row.device, row.adjoint) == ("s", KEY, DEVICE, AdjointName.OURS)
    assert (row.steps, row.accepted, row.rejected, row.seed) == (100, 90, 10, 5)
    assert (row.status, row.peak_bytes, row.run_seconds) == (Status.OK, None, ())
    assert row.versions == versions()
    assert row.host


def test_what_a_trial_does_not_know_is_filled_in_or_said_to_be_unknown() -> None:
    """A name for the problem, and the device where it is known by then."""
    assert blank_row(trial()).problem == ProblemKey(name="m.py:make", components={})
    assert blank_row(trial(), name="m:make").problem.name == "m:make"
    assert blank_row(trial(key=KEY), name="other").problem == KEY
    assert blank_row(trial()).device == UNKNOWN_DEVICE
    assert blank_row(trial(), device=DEVICE).device == DEVICE
    assert blank_row(trial(device=DEVICE), device=UNKNOWN_DEVICE).device == DEVICE


@pytest.mark.parametrize(
    ("changes", "executed"),
    [
        ({}, None),
        ({"steps": 0}, None),
        ({"steps": 100}, adjoint.executed_steps(100, 12, None)),
        ({"steps": 100, "expected_steps": 100}, adjoint.executed_steps(100, 12, 100)),
        ({"steps": 100, "expected_steps": 70}, adjoint.executed_steps(100, 12, 70)),
        ({"steps": 100, "expected_steps": 90, "reversed_steps": 90}, adjoint.executed_steps(90, 12, 90) + 10),
        ({"steps": 100, "reversed_steps": 0}, 100),
        ({"steps": 100, "expected_steps": 100, "tier": HOST}, adjoint.windowed_steps(100, 12, 7, 100, 2.5)),
        ({"steps": 100, "tier": HOST}, adjoint.windowed_steps(100, 12, 7, None, 2.5)),
        ({"steps": 100, "adjoint": AdjointName.DIFFRAX}, stock_executed_steps(100, 12)),
    ],
)
def test_what_is_executed_is_counted_by_the_theory_of_the_trials_adjoint(
    changes: dict[str, Any], executed: int | None
) -> None:
    """Over its steps that is the recompute factor; unknown where the steps are."""
    row = blank_row(trial(**changes))
    assert row.executed_steps == executed
    assert row.recompute_factor == (None if executed is None else executed / 100)


def test_a_final_row_is_known_by_its_study() -> None:
    """At the end of the name alone."""
    assert is_final(a_row(4, 0.5, study=f"s{VERIFIED}"))
    assert not is_final(a_row(4, 0.5, study=f"{VERIFIED}-s"))
    assert not is_final(a_row(4, 0.5))


@pytest.mark.parametrize(
    ("rung", "within", "compiled", "ends"),
    [
        (Rung.RUN, None, 10**12, False), (Rung.RUN, 100, 100, False), (Rung.RUN, 100, 101, True),
        (Rung.RUN, 100, None, False), (Rung.COMPILED, None, 1, True), (Rung.COMPILED, 100, 1, True),
    ],
)  # fmt: skip
def test_a_trial_ends_compiled_where_no_more_was_asked_or_it_could_not_be_chosen(
    rung: Rung, within: int | None, compiled: int | None, ends: bool
) -> None:
    """At the limit itself it is run."""
    assert trial(rung=rung, run_within_bytes=within).ends_compiled(compiled) is ends


def test_flags_and_floats_of_a_trial_are_those_of_its_process() -> None:
    """Said once, in the point."""
    asked = trial(x64=True, xla_flags="--f")
    assert (asked.settings.x64, asked.settings.xla_flags) == (True, "--f")
