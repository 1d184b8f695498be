"""Plan for devices that are not here from what is compiled for them, where that can be; else from what was measured.

Of each device the best that is known is taken: measured on it, compiled for it (now, where the problem's file is named
and the compilers are installed, or by an earlier `tune --target`), or carried over from the profile that is planned.
Steps are the profile's, whoever the bytes come from.
"""

import dataclasses
from collections.abc import Callable, Sequence

from autotune.choosing.plan_laws import plan_laws
from autotune.errors import AutotuneError
from autotune.machine.compilers import search_path
from autotune.machine.targets import Target, target_of
from autotune.measuring.trial import RunSettings
from autotune.model.cells import Cell
from autotune.planning.bounds import Costs
from autotune.planning.step_costs import PlanningMachine
from autotune.planning.targets import TargetTuning, prepare_target
from autotune.problem.differences import component_differences
from autotune.search.space import Listed
from autotune.tuning.prepare import Store
from autotune.tuning.request import DEFAULT_TIMEOUT_SECONDS, TuneRequest
from autotune.tuning.tune import TuneProgress
from profiles import Case, Device, Measurement, Plan, PlanRequest, Profile, plan

MOST_ROUNDS = 4
"""How often a plan is made again after the counts that it names were compiled."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Workshop:
    """What compiling for a plan takes: the problem's file, where rows go, who compiles, and who listens."""

    problem: str
    store: Store
    machine: PlanningMachine
    progress: TuneProgress


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PlannedDevice:
    """The plan for one device, and why nothing was compiled for it where that was wanted.

    `costs` are what a step costs at least, where that was counted on the way.
    """

    plan: Plan
    carried_because: str = ""
    costs: Costs = dataclasses.field(default_factory=dict)


def plan_device(
    base: Profile, device: Device, request: PlanRequest, others: Sequence[Profile], workshop: Workshop | None
) -> PlannedDevice:
    """Plan a profile's problem for one device.

    Args:
        base: the profile that is planned.
        device: the device.
        request: horizons, tolerances, and limits.
        others: the store's profiles, among which those of the device itself are looked for.
        workshop: what compiling takes; None to take what is stored.

    Raises:
        ProfilesError: the profile has no measured bytes or steps, or the request does not fit it.
    """

    def planned(profile: Profile) -> Plan:
        return plan(profile, [device], request, plan_laws(profile))

    if device.is_measured_by(base.device) and not base.device.planned:
        return PlannedDevice(plan=planned(base))
    same = [one for one in others if of_one_problem(one, base) and device.is_measured_by(one.device)]
    measured = [one for one in same if not one.device.planned]
    if measured:
        return PlannedDevice(plan=planned(with_steps_of(base, measured[-1].measurements)))
    reason = ""
    if workshop is not None:
        try:
            target = target_of(device)
            search_path(target.compilers)
            return _compiled(base, target, planned, workshop)
        except AutotuneError as error:
            reason = str(error)
    if same:
        return PlannedDevice(plan=planned(with_steps_of(base, same[-1].measurements)))
    return PlannedDevice(plan=planned(base), carried_because=reason)


def with_steps_of(base: Profile, rows: Sequence[Measurement]) -> Profile:
    """Make a profile of rows on another device, with the cases and steps of this one, but none of its bytes."""
    newest = rows[-1]
    steps = [
        dataclasses.replace(
            row, device=newest.device, problem=newest.problem, study=f"{row.study}/steps", peak_bytes=None,
            compiled_bytes=None, run_bytes=None, peak_source=None, run_seconds=(), measured_at=newest.measured_at,
        )
        for case in base.cases
        for row in base.rows(case)
    ]  # fmt: skip
    return Profile(name=base.name, measurements=(*steps, *rows))


def of_one_problem(one: Profile, other: Profile) -> bool:
    """Return whether two profiles are of one problem in one state of its code, with one adjoint."""
    return (one.problem.generation, one.adjoint) == (other.problem.generation, other.adjoint)


def _compiled(base: Profile, target: Target, planned: Callable[[Profile], Plan], workshop: Workshop) -> PlannedDevice:
    """Compile for a target until every count that the plan names has been.

    Raises:
        AutotuneError: the problem cannot be loaded, is not the one that was measured, or does not compile.
    """
    tunings = [(_prepared(base, case, target, workshop), case) for case in _references(base)]
    for tuning, case in tunings:
        (cell,) = (cell for cell in tuning.prepared.space.cells if cell.case == case)
        tuning.compile(cell, tuning.missing(cell, tuning.enclosing(cell)), "counts that enclose all others")
    for _ in range(MOST_ROUNDS):
        rows = [row for tuning, _ in tunings for row in tuning.rows]
        if not any(row.peak_bytes for row in rows):
            raise AutotuneError(f"nothing could be compiled for {target.name}: {rows[-1].message or rows[-1].status}")
        made = planned(with_steps_of(base, rows))
        named = [
            (row.case, count)
            for row in made.rows
            for count in (row.checkpoints, row.needed_checkpoints)
            if count is not None
        ]
        asked = 0
        for tuning, case in tunings:
            cell = Cell(case)
            counts = {count for at, count in named if _setting(at) == _setting(case)}
            missing = tuning.missing(cell, sorted(count for count in counts if count <= tuning.steps(cell)))
            tuning.compile(cell, missing, "a plan names it")
            asked += len(missing)
        if not asked:
            break
    else:
        made = planned(with_steps_of(base, [row for tuning, _ in tunings for row in tuning.rows]))
    costs = {case.set_values: found for tuning, case in tunings if (found := tuning.costs(case)) is not None}
    return PlannedDevice(plan=made, costs=costs)


def _setting(case: Case) -> Case:
    return dataclasses.replace(case, horizon=None, tolerance=None, mesh="")


def _references(base: Profile) -> list[Case]:
    """Pick, of every setting, the case with the most steps: bytes by count are the same at the others."""
    most: dict[Case, tuple[int, Case]] = {}
    for case in base.cases:
        steps = max((row.steps or 0 for row in base.rows(case)), default=0)
        setting = _setting(case)
        if steps and steps > most.get(setting, (0, case))[0]:
            most[setting] = steps, dataclasses.replace(case, mesh="")
    return [case for _, case in most.values()]


def _prepared(base: Profile, case: Case, target: Target, workshop: Workshop) -> TargetTuning:
    """Prepare to compile one case for a target.

    Raises:
        AutotuneError: the problem is not the one that was measured, or cannot be loaded.
    """
    listed = Listed(
        horizons=() if case.horizon is None else (case.horizon,),
        tolerances=() if case.tolerance is None else (case.tolerance,),
        set_values={key: (value,) for key, value in case.set_values},
        x64=case.x64,
    )
    request = TuneRequest(
        problem=workshop.problem, budget=target.available_bytes, listed=listed, adjoint=base.adjoint,
        settings=RunSettings(platform="cpu", x64=case.x64, timeout_seconds=DEFAULT_TIMEOUT_SECONDS),
    )  # fmt: skip
    prepared = prepare_target(
        request, target, store=workshop.store, machine=workshop.machine, say=workshop.progress.say
    )  # fmt: skip
    today = next(iter(prepared.keys.values()))
    if today.generation != base.problem.generation:
        kept = [
            said
            for said in component_differences(base.problem, today)
            if not said.startswith(("shapes", "traced program", "--set", "x64"))
        ]
        raise AutotuneError(f"{base.name} is not what was measured any more ({'; '.join(kept)}): tune it as it is now")
    return TargetTuning(prepared, target, workshop.store, workshop.machine, workshop.progress)
