"""What the steps of a problem cost at least: counted once by a worker, and noted in the store."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from autotune.errors import AutotuneError
from autotune.measuring.runners import ProbeRequest
from autotune.planning.bounds import Costs
from autotune.problem.costs import StepCosts, decode_costs
from autotune.tuning.prepare import Machine, Store
from profiles import AdjointName, Profile

COSTS_NOTE = "step costs"
"""Kind of the notes that hold what a step costs at least, by the problem's fingerprint; empty where it is not known."""


class PlanningMachine(Machine, Protocol):
    """A machine that also knows what the steps of a problem cost at least."""

    def step_costs(self, question: ProbeRequest) -> StepCosts | None:
        """Count operations and bytes of a step; None where no loop of ours is differentiated."""
        ...


class Notes(Protocol):
    """The part of a store that notes are read from."""

    def get_note(self, kind: str, key: str) -> Any:
        """Read a document."""
        ...


def counted_costs(
    question: ProbeRequest, store: Store, machine: PlanningMachine, say: Callable[[str], None]
) -> StepCosts | None:
    """Read what a step costs at least, or have it counted; None where it cannot be.

    Args:
        question: the problem, with its key.
        store: where it is noted.
        machine: who counts.
        say: called with one line where that fails.
    """
    assert question.key is not None
    fingerprint = question.key.fingerprint
    noted: Mapping[str, Any] | None = store.get_note(COSTS_NOTE, fingerprint)
    if noted is None:
        try:
            found = machine.step_costs(question)
        except AutotuneError as error:
            say(f"no bound of seconds: {error}")
            return None
        noted = {} if found is None else dataclasses.asdict(found)
        store.put_note(COSTS_NOTE, fingerprint, noted)
    return decode_costs(noted or None)


def stored_costs(profile: Profile, store: Notes) -> Costs:
    """Read what is noted of a profile's problem."""
    found: dict[tuple, StepCosts] = {}
    for case in profile.cases if profile.adjoint is AdjointName.OURS else ():
        noted = store.get_note(COSTS_NOTE, profile.rows(case)[-1].problem.fingerprint)
        if costs := decode_costs(noted or None):
            found[case.set_values] = costs
    return found
