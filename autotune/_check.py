"""Is what was stored still true: of this code, on this device, with these versions? Both sides are named.

The components of a problem are those of `_fingerprint`; device and the version of ckpt-tune come beside them (the
latter for our adjoint only, whose memory and speed follow it).
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Protocol

from autotune._console import Exit, Format, Screen
from autotune._device import DeviceInfo, versions
from autotune._errors import AutotuneError
from autotune._keys import differences
from autotune._runners import Question
from autotune._space import scalar_items
from autotune._trial import RunSettings
from profiles._records import AdjointName, Case, DeviceKey, Measurement, ProblemKey, Profile
from profiles._values import read_values

CHOICE_NOTE = "choice"
"""Kind of the notes that hold what was recommended, by problem, device, adjoint and case."""


class Asked(Protocol):
    """Who knows the device and the problem of today."""

    def device_info(self) -> DeviceInfo:
        """Read the device."""
        ...

    def problem_key(self, question: Question) -> ProblemKey:
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


def check_problem(problem: str, *, adjoint: AdjointName, asked: Asked, store: NoteStore) -> tuple[Checked, ...]:
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
            f"nothing was chosen for {problem} on {device.kind} with the adjoint {adjoint} in {store.place}; run "
            f"`ckpt-tune tune {problem}` first"
        )
    return tuple(found)


def stale_reasons(profile: Profile, *, problem: str | None, asked: Asked) -> list[str]:
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
    question = Question(problem=problem, set_values=dict(row.set_values), horizon=row.horizon, tolerance=row.tolerance)
    return differences(row, asked.problem_key(question), device)


def component_versions() -> str:
    """Write the versions of today as the fingerprint does."""
    found = versions()
    return " ".join(f"{name} {found.get(name, 'none')}" for name in ("jax", "jaxlib", "equinox", "diffrax"))


def _key_today(
    problem: str, choice: Mapping[str, Any], asked: Asked, keys: dict[tuple, ProblemKey], *, expected: str
) -> ProblemKey | None:
    """Fingerprint the problem at a choice's `--set` values; None where the choice is another problem's."""
    stem = problem.rpartition("/")[2].replace(".py:", ":").split(":")[0].rpartition(".")[2]
    if expected.partition(":")[0] != stem:
        return None
    at = scalar_items(read_values(choice["set_values"]))
    if at not in keys:
        question = Question(
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


def check_command(
    screen: Screen, problem: str, adjoint: AdjointName, *, settings: RunSettings, store_url: str | None, format: Format
) -> Exit:
    """Print whether the stored choices of a problem hold."""
    from autotune._machine import make_machine
    from autotune._request import TuneRequest
    from profiles._store import open_store

    located, search_path = TuneRequest(problem=problem).located()
    machine = make_machine(settings, search_path=search_path)
    try:
        with open_store(store_url) as store:
            checked = check_problem(located, adjoint=adjoint, asked=machine, store=store)
    finally:
        machine.close()
    records = [{**one.choice, "holds": not one.reasons, "reasons": list(one.reasons)} for one in checked]
    if format is Format.JSON:
        screen.json({"schema_version": 1, "problem": problem, "adjoint": str(adjoint), "choices": records})
    elif format is Format.CSV:
        screen.csv(records)
    else:
        columns = ("horizon", "tolerance", "checkpoints", "holds", "reason")
        keys = ("horizon", "tolerance", "checkpoints")
        lines = [(*(r[key] for key in keys), "yes" if r["holds"] else "no", "; ".join(r["reasons"])) for r in records]
        screen.table(columns, lines)
    stale = [one for one in checked if one.reasons]
    if stale:
        screen.fail(f"{len(stale)} of {len(checked)} stored choices are stale; run `ckpt-tune tune {problem}` again")
    return Exit.STALE if stale else Exit.DONE
