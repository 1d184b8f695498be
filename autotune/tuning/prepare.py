"""What has to be known before the first trial: device, budget, which problem this is, how many steps it takes.

And what the store knows already: which rows of earlier tunes are reused, and which are not and why.
"""

import collections
import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

from autotune.adjoints import Work
from autotune.errors import AutotuneError, NobodyMeasuresError, ProblemChangedError
from autotune.machine.budget import Budget, resolve_budget
from autotune.machine.device import DeviceInfo
from autotune.machine.tiers import TierRequest
from autotune.measuring.rows import is_final
from autotune.measuring.runners import MOST_LANES, ProbeRequest
from autotune.measuring.trial import KeyPlace, Runner
from autotune.problem.differences import differences
from autotune.problem.steps import Observation, SiteSteps, stored_observation
from autotune.search.space import AUTO, Listed, Space, build_space
from autotune.tuning.request import TuneRequest
from profiles import AdjointName, Case, DeviceKey, Measurement, ProblemKey, Tier, profile_id, profile_key

STEPS_NOTE = "steps"
"""Kind of the notes that hold observed steps, so that a tune that goes on does not count them again."""


SMALL_LOOP_FLAG = "--xla_backend_extra_options=xla_cpu_small_while_loop_byte_threshold=65536"
"""Makes XLA's CPU backend compile a loop over a small state into one kernel; the default is 1024 bytes."""

GIVEN = "the steps were given, and nothing was run"
"""The note of an observation that nobody made, and that is not kept."""

NOT_COUNTED = "/not counted"
"""Ending of the study's name for rows that say why a case could not be measured at all: a search ignores them."""


class Machine(Runner, Protocol):
    """A runner that also knows what it runs on and what the problem is."""

    def device_info(self) -> DeviceInfo:
        """Read the device."""
        ...

    def problem_key(self, question: ProbeRequest) -> ProblemKey:
        """Fingerprint a problem."""
        ...

    def observe_all(self, questions: Sequence[ProbeRequest]) -> list[Observation]:
        """Count a problem's steps at several cases, side by side where it can."""
        ...

    def tier(self, question: TierRequest) -> Tier:
        """Measure what a transfer to a tier costs."""
        ...


class Store(Protocol):
    """The part of a store that a tune needs."""

    @property
    def place(self) -> str:
        """Its name for people."""
        ...

    @property
    def url(self) -> str:
        """Its name for other processes."""
        ...

    def check_writable(self) -> None:
        """Raise where no rows can be stored."""
        ...

    def put(self, measurement: Measurement) -> None:
        """Store one row durably."""
        ...

    def put_all(self, measurements: Iterable[Measurement]) -> int:
        """Store rows durably, all or none, each under its key."""
        ...

    def measurements(self, *, problem_name: str | None = None, device: str | None = None) -> list[Measurement]:
        """Read the rows of a problem, or of a kind of device."""
        ...

    def get_note(self, kind: str, key: str) -> Any:
        """Read a document."""
        ...

    def put_note(self, kind: str, key: str, value: Any) -> None:
        """Store a document."""
        ...

    def swap_note(self, kind: str, key: str, old: Any, new: Any) -> bool:
        """Put a document in the place of another one, or of none, unless somebody was faster."""
        ...

    def notes(self, kind: str) -> dict[str, Any]:
        """Read all documents of a kind."""
        ...


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why a case cannot be measured: one line, and the user's own frames."""

    message: str
    frames: tuple[str, ...] = ()

    @classmethod
    def of(cls, text: str) -> "Failure":
        """Read a line and the frames that follow it."""
        message, *frames = text.splitlines()
        return cls(message=message, frames=tuple(frames))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A tune that is ready to measure. `keys` are by `--set` values; `works` lack cases that cannot run.

    `cases` are all that were requested; those of `failures` are not in `space`.
    """

    request: TuneRequest
    problem: str
    search_path: tuple[str, ...]
    study: str
    device: DeviceInfo
    budget: Budget
    space: Space
    keys: Mapping[tuple, ProblemKey]
    works: Mapping[Case, Work]
    observations: Mapping[Case, Observation]
    failures: Mapping[Case, Failure] = dataclasses.field(default_factory=dict)
    cases: tuple[Case, ...] = ()

    @property
    def name(self) -> str:
        """The problem's name for people."""
        return next(iter(self.keys.values())).name

    def key_place(self, set_values: tuple) -> KeyPlace:
        """Return where the key of these `--set` values was taken: at the first of their cases."""
        return key_place(self.space, set_values)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Reuse:
    """Rows of the store that hold for this problem, device and versions, and why the others do not.

    `verified` are those measured under the user's own settings. `stale` counts the rows that do not hold, by the
    reason, which names both sides.
    """

    rows: tuple[Measurement, ...]
    verified: tuple[Measurement, ...]
    stale: Mapping[str, int]


def prepare(request: TuneRequest, store: Store, machine: Machine, say: Callable[[str], None]) -> Prepared:
    """Find out through the machine what has to be known first.

    A case that fails here (a factory that raises at some `--set` value, a solve that meets its `max_steps`) is left out
    of the space and explained in `failures`; the others go on.

    Args:
        request: the tune.
        store: where steps that were counted before are noted.
        machine: who measures.
        say: called with one line about what is being done.

    Raises:
        AutotuneError: the problem cannot be loaded or run at any case, no backward pass goes through its solves, or the
            budget cannot be resolved.
    """
    problem, search_path = request.located()
    device = machine.device_info()
    space = build_space(_with_flags(request.listed, device))
    # A text that is not a budget is refused before anything runs.
    resolve_budget(request.budget, device, margin=request.margin)
    asked = {
        case: ProbeRequest(
            problem=problem, set_values=dict(case.set_values), horizon=case.horizon, tolerance=case.tolerance
        )
        for case in space.cases
    }
    keys, failures = _keys(space, asked, machine, lambda: say(f"reading {problem.rpartition('/')[2]}"))
    observations = _observed(keys, _keyed(space, asked, keys, request), store, machine, say)
    failures |= {case: Failure.of(seen.failure) for case, seen in observations.items() if seen.failure}
    observations = {case: seen for case, seen in observations.items() if not seen.failure}
    if not observations:
        first = next(failures[case] for case in space.cases)
        raise AutotuneError(first.message, frames=first.frames)
    first = next(iter(keys.values()))
    observations = _with_steps(first.name, observations, request)
    profile = profile_key(first, device.key, request.adjoint)
    of_profile = [row for row in store.measurements(problem_name=first.name) if profile_id(row) == profile]
    return Prepared(
        request=request,
        problem=problem,
        search_path=search_path,
        study=study_name(first, device.key, request.adjoint),
        device=device,
        budget=resolve_budget(request.budget, device, margin=request.margin, rows=of_profile),
        space=dataclasses.replace(space, cells=tuple(cell for cell in space.cells if cell.case in observations)),
        keys=keys,
        works={case: work for case, seen in observations.items() if (work := _work(seen, request)) is not None},
        observations=observations,
        failures={case: failures[case] for case in space.cases if case in failures},
        cases=space.cases,
    )


def _with_flags(listed: Listed, device: DeviceInfo) -> Listed:
    """Put, in the place of the flag `auto`, no flags and those that were found to pay on such a device."""
    known = ("", SMALL_LOOP_FLAG) if device.platform == "cpu" else ("",)
    flags = [one for flag in listed.xla_flags for one in (known if flag == AUTO else (flag,))]
    return dataclasses.replace(listed, xla_flags=tuple(flags))


def _work(seen: Observation, request: TuneRequest) -> Work | None:
    """Return the work of a case; Diffrax's adjoint has one path for all counts."""
    work = seen.work(forward_only=request.forward_only)
    return (
        work
        if work is None or request.adjoint is AdjointName.OURS
        else dataclasses.replace(work, switches=(), everything=None)
    )


def _keys(
    space: Space, asked: Mapping[Case, ProbeRequest], machine: Machine, say: Callable[[], None]
) -> tuple[dict[tuple, ProblemKey], dict[Case, Failure]]:
    """Fingerprint the problem at every `--set` value, and collect those at which it failed."""
    keys: dict[tuple, ProblemKey] = {}
    lost: dict[tuple, Failure] = {}
    for case in space.cases:
        if case.set_values in keys or case.set_values in lost:
            continue
        say()
        try:
            keys[case.set_values] = machine.problem_key(asked[case])
        except (ProblemChangedError, NobodyMeasuresError):
            raise
        except AutotuneError as error:
            lost[case.set_values] = Failure(message=str(error), frames=error.frames)
    return keys, {case: lost[case.set_values] for case in space.cases if case.set_values in lost}


def _keyed(
    space: Space, asked: Mapping[Case, ProbeRequest], keys: Mapping[tuple, ProblemKey], request: TuneRequest
) -> dict[Case, ProbeRequest]:
    """Add to the questions what a worker has to compare, and to the first of each key whether a gradient is taken."""
    found: dict[Case, ProbeRequest] = {}
    for case, question in asked.items():
        if case.set_values in keys:
            place = key_place(space, case.set_values)
            first = (case.horizon, case.tolerance) == (place.horizon, place.tolerance)
            looks = request.adjoint if first and not request.forward_only else None
            found[case] = dataclasses.replace(
                question, key=keys[case.set_values], key_place=place, adjoint=looks
            )  # fmt: skip
    return found


def _with_steps(name: str, observations: Mapping[Case, Observation], request: TuneRequest) -> dict[Case, Observation]:
    """Put the user's own number of steps where none could be observed, and refuse what no count would change.

    Raises:
        AutotuneError: no backward pass goes through a solve, or the number of steps is needed.
    """
    found = dict(observations)
    for case, seen in observations.items():
        if seen.differentiated is False and not request.forward_only:
            raise AutotuneError(f"{no_gradient(name)}, or add --forward-only to measure it as it is")
        if not seen.reads_counts:
            continue
        if request.steps is None:
            raise AutotuneError(
                f"{name} hands adjoint.checkpoints to code whose steps cannot be observed; "
                "say how many steps it takes with --steps N"
            )
        given = SiteSteps(site="--steps", steps=(request.steps,))
        found[case] = dataclasses.replace(seen, sites=(given,), note="")
    return found


def no_gradient(name: str) -> str:
    """Say that a problem's gradient was forgotten."""
    return (
        f"{name} returns a function that takes no gradient through its solves: "
        "its program is the same for one checkpoint and for two, so no count would change anything; "
        "return jax.value_and_grad(loss) in its place"
    )


def key_place(space: Space, set_values: tuple) -> KeyPlace:
    """Choose where in a space the key of some `--set` values is taken."""
    case = next(case for case in space.cases if case.set_values == set_values)
    return KeyPlace(horizon=case.horizon, tolerance=case.tolerance)


def study_name(problem: ProblemKey, device: DeviceKey, adjoint: AdjointName) -> str:
    """Name the study of a problem, in one state of its code, on a device, with an adjoint."""
    return f"{problem.name}-{profile_key(problem, device, adjoint)[:8]}"


def reuse(prepared: Prepared, rows: Iterable[Measurement]) -> Reuse:
    """Sort the stored rows of a problem into those that hold today and those that do not, with the reason."""
    good: list[Measurement] = []
    stale: collections.Counter[str] = collections.Counter()
    for row in rows:
        if row.adjoint is not prepared.request.adjoint or row.study.endswith(NOT_COUNTED):
            continue
        if row.device.planned and row.device.fingerprint != prepared.device.key.fingerprint:
            continue  # what was compiled for another device is not stale, it is another profile
        key = prepared.keys.get(tuple(sorted(row.set_values.items())))
        if key is None:
            continue
        reasons = differences(row, key, prepared.device.key)
        if reasons:
            stale["; ".join(reasons)] += 1
        else:
            good.append(row)
    return Reuse(
        rows=tuple(row for row in good if not is_final(row)),
        verified=tuple(row for row in good if is_final(row)),
        stale=dict(stale),
    )


def _observed(
    keys: Mapping[tuple, ProblemKey],
    questions: Mapping[Case, ProbeRequest],
    store: Store,
    machine: Machine,
    say: Callable[[str], None],
) -> dict[Case, Observation]:
    """Count the steps of every case, or read what was counted before for the same problem."""
    notes = {case: f"{keys[case.set_values].fingerprint} {case.horizon!r} {case.tolerance!r}" for case in questions}
    stored = {case: store.get_note(STEPS_NOTE, note) for case, note in notes.items()}
    noted = {case: seen for case, known in stored.items() if (seen := stored_observation(known)) is not None}
    found = {
        case: dataclasses.replace(seen, horizon=case.horizon, tolerance=case.tolerance) for case, seen in noted.items()
    }
    for case, question in questions.items():
        if case in found and found[case].differentiated is None and question.adjoint is not None:
            del found[case]  # noted before that was looked at
    missing = [case for case in questions if case not in found]
    for few in (missing[k : k + MOST_LANES] for k in range(0, len(missing), MOST_LANES)):
        named = " and ".join(str(case) for case in few if str(case) != "the only case")
        say(f"counting steps at {named}" if named else "counting steps")
        for case, seen in zip(few, machine.observe_all([questions[case] for case in few]), strict=True):
            if seen.steps is None and not seen.note and not seen.failure:
                name = keys[case.set_values].name
                seen = dataclasses.replace(seen, failure=f"{name} took no steps at {case}; give a longer horizon")
            if not seen.failure and seen.note != GIVEN:
                store.put_note(STEPS_NOTE, notes[case], _to_note(seen))
            found[case] = seen
    return {case: found[case] for case in questions}


def _to_note(seen: Observation) -> dict[str, Any]:
    return dataclasses.asdict(seen)
