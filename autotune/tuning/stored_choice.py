"""Is what was stored still true: of this code, on this device, with these versions? Both sides are named.

The components of a problem are those of `autotune.problem.fingerprint`; device and the version of ckpt-tune come beside
them (the latter for our adjoint only, whose memory and speed follow it).
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Protocol

from autotune.errors import AutotuneError
from autotune.machine.device import DeviceInfo, versions
from autotune.measuring.runners import ProbeRequest
from autotune.model.cells import scalar_items
from autotune.problem.differences import differences
from profiles import AdjointName, Case, DeviceKey, Measurement, ProblemKey, Profile, read_values

CHOICE_NOTE = "choice"
"""Kind of the notes that hold what was recommended, by problem, device, adjoint and case."""


class Inspector(Protocol):
    """Anything that knows the device and the problem of today."""

    def device_info(self) -> DeviceInfo:
        """Read the device."""
        ...

    def problem_key(self, question: ProbeRequest) -> ProblemKey:
        """Fingerprint the problem."""
        ...


class NoteStore(Protocol):
    """The part of a store that holds choices."""

    @property
    def place(self) -> str:
        """Its name for people."""
        ...

    def notes(self, kind: str) -> dict[str, Any]:
        """Read all documents of a kind."""
        ...


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """One stored choice, and how today differs from when it was made; `reasons` is empty when it holds."""

    choice: Mapping[str, Any]
    reasons: tuple[str, ...]


def choice_key(problem: ProblemKey, device: DeviceKey, adjoint: AdjointName, case: Case) -> str:
    """Name a choice: which problem, device, adjoint and case it is for."""
    return f"{problem.name}|{device.fingerprint}|{adjoint}|{case}"


def note_of_choice(
    problem: str, key: ProblemKey, device: DeviceKey, adjoint: AdjointName, choice: Mapping[str, Any]
) -> dict[str, Any]:
    """Write a choice with everything that it depends on, as JSON values."""
    return {
        "problem": problem,
        "name": key.name,
        "components": dict(key.components),
        "device": dataclasses.asdict(device),
        "adjoint": str(adjoint),
        "versions": versions(),
        "choice": dict(choice),
    }


def check_problem(problem: str, *, adjoint: AdjointName, asked: Inspector, store: NoteStore) -> tuple[Checked, ...]:
    """Check every stored choice of a problem on this kind of device.

    Args:
        problem: the command line's name for it.
        adjoint: whose adjoint.
        asked: who knows the device and the problem of today.
        store: where the choices are.

    Raises:
        AutotuneError: nothing was ever chosen for it here.
    """
    device = asked.device_info().key
    found: list[Checked] = []
    keys: dict[tuple, ProblemKey] = {}
    name = None
    everything = [note for note in store.notes(CHOICE_NOTE).values() if note["adjoint"] == adjoint]
    for note in everything:
        if name is not None and note["name"] != name:
            continue
        choice = note["choice"]
        key = _key_today(problem, choice, asked, keys, expected=note["name"])
        if key is None:
            continue
        name = key.name
        if DeviceKey(**note["device"]).fingerprint == device.fingerprint:
            row = _row_of(note)
            found.append(Checked(choice=choice, reasons=tuple(differences(row, key, device))))
    if not found:
        raise AutotuneError(
            f"nothing was chosen for {problem} on {device.kind} with the adjoint {adjoint} in {store.place}; "
            f"run `ckpt-tune tune {problem}` first"
        )
    return tuple(found)


def stale_reasons(profile: Profile, *, problem: str | None, asked: Inspector) -> list[str]:
    """Say how this device, these versions, and the problem's code where it is known differ from a profile's.

    Args:
        profile: what was stored.
        problem: the user's own name for the problem; None where they gave none. A store's is never taken: it would run
            whatever code a stranger wrote into it.
        asked: who knows the device and the problem of today.
    """
    row = profile.newest
    device = asked.device_info().key
    if problem is None:
        today = dict(row.problem.components)
        today |= {"versions": component_versions()} if "versions" in today else {}
        return differences(row, ProblemKey(name=row.problem.name, components=today), device)
    question = ProbeRequest(
        problem=problem, set_values=dict(row.set_values), horizon=row.horizon, tolerance=row.tolerance
    )
    return differences(row, asked.problem_key(question), device)


def component_versions() -> str:
    """Write the versions of today as the fingerprint does."""
    found = versions()
    return " ".join(f"{name} {found.get(name, 'none')}" for name in ("jax", "jaxlib", "equinox", "diffrax"))


def _key_today(
    problem: str, choice: Mapping[str, Any], asked: Inspector, keys: dict[tuple, ProblemKey], *, expected: str
) -> ProblemKey | None:
    """Fingerprint the problem at a choice's `--set` values; None where the choice is another problem's."""
    stem = problem.rpartition("/")[2].replace(".py:", ":").split(":")[0].rpartition(".")[2]
    if expected.partition(":")[0] != stem:
        return None
    at = scalar_items(read_values(choice["set_values"]))
    if at not in keys:
        question = ProbeRequest(
            problem=problem,
            set_values=dict(at),
            horizon=choice["horizon"],
            tolerance=choice["tolerance"],
        )
        keys[at] = asked.problem_key(question)
    return keys[at] if keys[at].name == expected else None


def _row_of(note: Mapping[str, Any]) -> Measurement:
    """Write a choice as the row that `differences` compares."""
    return Measurement(
        study="choice",
        problem=ProblemKey(name=note["name"], components=note["components"]),
        device=DeviceKey(**note["device"]),
        adjoint=AdjointName(note["adjoint"]),
        checkpoints=note["choice"]["checkpoints"] or 1,
        versions=note["versions"],
    )
