"""The count chosen by itself at run time: from the stored profile where one holds, else from a quick probe.

The probe runs in the training process, as it is: an accelerator's memory may be held by this very process, so no other
could measure beside it. It is one forward run, and three compiles with two calls each (none for `objective="memory"`;
more calls only while all together take half a second), and its rows go into the store, where the next process finds
them. Processes of one host that want the same choice at once wait for the first one's answer, so that all choose alike.
"""

import contextlib
import dataclasses
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from autotune.adjoints import make_adjoint
from autotune.choosing.recommend import Evidence, Fit, Objective, Recommendation, RecommendRequest, recommend_from
from autotune.errors import AutotuneError
from autotune.machine.budget import Budget, resolve_budget
from autotune.machine.device import DeviceInfo, device_info, smallest
from autotune.machine.lock import DeviceBusyError, device_lock
from autotune.machine.tiers import DISK, HOST, usable_directory
from autotune.problem.differences import differences
from autotune.problem.loading import Problem, load_problem
from autotune.runtime.opening import opened_if_readable
from autotune.runtime.quick_probe import AutoRequest, Probe
from profiles import (
    AdjointName,
    AmbiguousProfile,
    Measurement,
    NoSuchProfile,
    ProblemKey,
    Profile,
    ProfilesError,
    ProfileStore,
    digest,
)

logger = logging.getLogger("autotune")

_CHOICE = "_autotune_choice"


class UnreadableProfileError(AutotuneError):
    """A profile was named alone, and the store that may hold it cannot be read.

    `told` says whether a warning has said why.
    """

    def __init__(self, message: str, *, told: bool) -> None:
        super().__init__(message)
        self.told = told


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class AutoChoice:
    """A count chosen at run time, with what it rests on.

    `source` is `profile` or `probe`; `rows` are the measurements that it rests on, and `cost_seconds` what the choice
    cost.
    """

    recommendation: Recommendation
    problem: ProblemKey
    rows: tuple[Measurement, ...]
    budget: Budget
    source: str
    cost_seconds: float

    @property
    def checkpoints(self) -> int:
        """States held at once."""
        assert self.recommendation.checkpoints is not None
        return self.recommendation.checkpoints

    @property
    def adjoint(self) -> Any:
        """The adjoint to hand to `diffeqsolve`."""
        said = self.recommendation
        made = make_adjoint(AdjointName.OURS, self.checkpoints, said.expected_steps, said.tier, said.directory)
        object.__setattr__(made, _CHOICE, self)  # no field, so that programs are compiled for the count alone
        return made

    def __str__(self) -> str:
        from profiles import format_bytes, format_seconds

        said = self.recommendation
        figures = [f"peak {format_bytes(said.peak_bytes)}" if said.peak_bytes else "peak unknown"]
        figures += [f"{format_seconds(said.run_seconds)} a call"] if said.run_seconds else []
        figures += [f"recompute factor {said.recompute_factor:.2f}"] if said.recompute_factor else []
        figures += [f"tier {said.tier}"] if said.tier else []
        between = f" ({said.between})" if said.between else ""
        return (
            f"{self.problem.name} at {said.case}: {self.checkpoints} checkpoints of {said.accepted or '?'} steps, "
            f"{', '.join(figures)}, budget {format_bytes(self.budget.bytes)}; {said.evidence}{between}, "
            f"from a {self.source}, in {format_seconds(self.cost_seconds)}"
        )


def auto_adjoint(
    problem: str | Callable[..., Any],
    *,
    budget: str | int,
    horizon: int | float | None = None,
    tolerance: float | None = None,
    device: int | Any | None = None,
    store: str | None = None,
    objective: str = "time",
    set_values: Mapping[str, Any] | None = None,
    tiers: Sequence[str] = (),
    directory: str | None = None,
) -> Any:
    """Choose the number of checkpoints for a memory budget, and return the adjoint that has it.

    Call it once, before `jax.jit`; hand the result to `diffrax.diffeqsolve(adjoint=...)`.

    Args:
        problem: the factory that `ckpt-tune tune` takes (the function, or `FILE.py:factory`), or a profile's name.
        budget: bytes of one call, its arguments included: a number, "6GiB", or "80%" or "auto" of what is free.
        horizon: what the factory gets as `horizon`.
        tolerance: what the factory gets as `tolerance`.
        device: index of the device on jax's default platform, or a jax device.
        store: SQLAlchemy URL or path of the store; else CKPT_TUNE_STORE, else the user's data folder.
        objective: "time" for the least seconds within the budget, "memory" for the fewest executed steps, which needs
            no timing.
        set_values: what the factory gets besides.
        tiers: what may hold states beside the device, "host" and "disk", where a stored tune found that it pays; the
            probe itself tries none.
        directory: where the file of the tier "disk" may lie; needed for it.

    Returns:
        `adjoint.RecursiveCheckpointAdjoint(checkpoints=…, expected_steps=…)`, with its tier where one was chosen.

    Raises:
        AutotuneError: nothing fits, the problem cannot be measured, or the named profile says nothing here.
        StoreNameError: `store` names no store. One that cannot be opened or read is a warning, and a probe or the
            adjoint's default count takes its place.
    """
    ask = AutoRequest(
        problem=problem,
        budget=budget,
        horizon=horizon,
        tolerance=tolerance,
        set_values=dict(set_values or {}),
        objective=_objective(objective),
        tiers=_tiers(tiers, directory),
        directory=None if directory is None else usable_directory(directory),
        device=_index(device),
    )
    try:
        return auto_choice(ask, store=store).adjoint
    except UnreadableProfileError as error:
        said = logger.info if error.told else logger.warning
        said("%s; the adjoint's own default count is taken", error)
        import adjoint

        return adjoint.RecursiveCheckpointAdjoint()


def auto_choice(ask: AutoRequest, *, store: str | None = None) -> AutoChoice:
    """Choose as `auto_adjoint` does, and say what the choice rests on.

    Raises:
        AutotuneError: nothing fits, the problem cannot be measured, or the named profile says nothing here.
    """
    _refuse_tracing()
    started = time.monotonic()
    # Before the factory makes anything: what is alive now is what the training process holds.
    info = device_info(device=ask.device)
    with opened_if_readable(store) as opened:
        loaded = _load(ask, opened)
        choice = _from_profile_alone(ask, loaded, info) if isinstance(loaded, Profile) else None
        if choice is None:
            assert isinstance(loaded, Problem)
            choice = _of_factory(ask, loaded, opened, info)
    choice = dataclasses.replace(choice, cost_seconds=time.monotonic() - started)
    logger.info("%s", choice)
    return choice


def choice_of(adjoint: Any) -> AutoChoice | None:
    """Return the choice that an adjoint of `auto_adjoint` was made by; None for any other, and for a copy of one."""
    return getattr(adjoint, _CHOICE, None)


def _objective(text: str) -> Objective:
    try:
        return Objective(text)
    except ValueError:
        raise AutotuneError(f"objective {text!r} is neither 'time' nor 'memory'") from None


def _tiers(tiers: Sequence[str], directory: str | None) -> tuple[str, ...]:
    names = (tiers,) if isinstance(tiers, str) else tuple(tiers)
    if unknown := [name for name in names if name not in (HOST, DISK)]:
        raise AutotuneError(f"tiers={names!r}: {unknown[0]!r} is neither 'host' nor 'disk'")
    if (DISK in names) != (directory is not None):
        raise AutotuneError(
            f"tiers={names!r} with directory={directory!r}: the disk tier, and it alone, has a directory"
        )
    return names


def _index(device: int | Any | None) -> int:
    """Find a device among those of its platform on this host."""
    if device is None or isinstance(device, int):
        return device or 0
    import jax

    return jax.local_devices(backend=device.platform).index(device)


def _refuse_tracing() -> None:
    import jax.numpy as jnp
    from jax.core import Tracer

    if isinstance(jnp.zeros(()), Tracer):
        raise AutotuneError("auto_adjoint was called inside jit, vmap or grad; call it once before, and close over it")


def _load(ask: AutoRequest, store: ProfileStore | None) -> Problem | Profile:
    """Load the problem; a text that names no file may be a profile's name."""
    if isinstance(ask.problem, str) and ".py:" not in ask.problem and store is not None:
        try:
            return store.profile(ask.problem)
        except AmbiguousProfile:
            raise
        except NoSuchProfile as error:
            try:
                return load_problem(ask.problem, set_values=ask.set_values)
            except AutotuneError:
                raise AutotuneError(f"{error}; run `ckpt-tune tune` first, or hand the factory over") from error
        except ProfilesError as error:
            return _load_without(ask, str(error))
    if isinstance(ask.problem, str) and ".py:" not in ask.problem:
        return _load_without(ask, None)
    return load_problem(ask.problem, set_values=ask.set_values)


def _load_without(ask: AutoRequest, why: str | None) -> Problem:
    """Load a problem by a text that may have been a profile's name, had its store been readable.

    `why` it cannot be read is None where a warning has said that.
    """
    try:
        return load_problem(str(ask.problem), set_values=ask.set_values)
    except AutotuneError as error:
        said = f"the profile {ask.problem} cannot be read" + (f": {why}" if why else "")
        raise UnreadableProfileError(said, told=why is None) from error


def _from_profile_alone(ask: AutoRequest, profile: Profile, info: DeviceInfo) -> AutoChoice:
    """Choose from a profile that was named, without its code."""
    from autotune.tuning.stored_choice import component_versions

    row = profile.newest
    today = ProblemKey(name=row.problem.name, components={**row.problem.components, "versions": component_versions()})
    reasons = differences(row, today, info.key)
    if reasons:
        raise AutotuneError(
            f"the profile {profile.qualified_name} does not hold here: {'; '.join(reasons)}; "
            "run `ckpt-tune tune` again, or hand the factory over"
        )
    if profile.adjoint is not AdjointName.OURS:
        raise AutotuneError(
            f"the profile {profile.qualified_name} was measured with Diffrax's adjoint; tune with --adjoint ours"
        )
    budget = resolve_budget(ask.budget, info, rows=profile.measurements)
    found = list(recommend_from(profile, _request(ask, budget)))
    if len(found) > 1:
        cases = "; ".join(str(one.case) for one in found)
        raise AutotuneError(f"{profile.name} was measured at {cases}: say at which, with horizon= and tolerance=")
    return _as_choice(ask, found[0], profile.problem, profile.measurements, budget, "profile")


def _of_factory(ask: AutoRequest, problem: Problem, store: ProfileStore | None, info: DeviceInfo) -> AutoChoice:
    """Choose for a factory, probing where the store does not know."""
    from autotune.problem.fingerprint import problem_key

    key = problem_key(problem, horizon=ask.horizon, tolerance=ask.tolerance)
    rows = _stored(ask, key, store, info)
    budget = _budget(ask, problem, info, rows)
    known = _from_rows(ask, key, rows, budget)
    if known is not None:
        return known
    # One process of a host probes; those that want the same at the same time read what it stored.
    question = digest([key.fingerprint, info.key.fingerprint, repr(ask.horizon), ask.tolerance])
    with _alone(f"auto-{question}", ask.device):
        rows = _stored(ask, key, store, info)
        known = _from_rows(ask, key, rows, budget)
        if known is not None:
            return known
        rows = [*rows, *Probe(ask, problem, key=key, info=info, budget=budget, store=store).run(rows)]
    chosen = recommend_from(_profile(key, rows), _request(ask, budget))[0]
    return _as_choice(ask, chosen, key, rows, budget, "probe")


@contextlib.contextmanager
def _alone(question: str, device: int) -> Iterator[None]:
    """Keep others that want the same choice waiting; where one of them holds it for too long, go on beside it."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(device_lock(question, index=device))
        except DeviceBusyError as error:
            logger.warning("the choice is made beside that of another process: %s", error)
        yield


def _stored(ask: AutoRequest, key: ProblemKey, store: ProfileStore | None, info: DeviceInfo) -> list[Measurement]:
    """Read the rows that hold for this problem, device and versions."""
    if store is None:
        return []
    try:
        found = store.measurements(problem_name=key.name)
    except ProfilesError as error:
        logger.warning("what is stored is done without: %s", error)
        return []
    return [
        row
        for row in found
        if row.adjoint is AdjointName.OURS
        # Where no horizon is given the factory's own counts, which no row that was measured at some horizon stands for.
        and (row.horizon is None) == (ask.horizon is None)
        and (row.tolerance is None) == (ask.tolerance is None)
        and not row.xla_flags  # this process has started without them
        and not differences(row, key, info.key)
    ]


def _from_rows(ask: AutoRequest, key: ProblemKey, rows: Sequence[Measurement], budget: Budget) -> AutoChoice | None:
    """Choose from stored rows where they say enough: measured or between measured ones, timed where time counts."""
    if not rows:
        return None
    try:
        chosen = recommend_from(_profile(key, rows), _request(ask, budget))[0]
    except AutotuneError:
        return None
    untimed = ask.objective is Objective.TIME and chosen.run_seconds is None
    if chosen.status is not Fit.OK or chosen.evidence is Evidence.EXTRAPOLATED or untimed:
        return None
    return _as_choice(ask, chosen, key, rows, budget, "profile")


def _as_choice(
    ask: AutoRequest, chosen: Recommendation, key: ProblemKey, rows: Sequence[Measurement], budget: Budget, source: str
) -> AutoChoice:
    """Make the choice, or say what would do."""
    if chosen.status is not Fit.OK:
        from profiles import format_bytes

        least = "unknown" if chosen.smallest_bytes is None else format_bytes(chosen.smallest_bytes)
        if least == format_bytes(budget.bytes):
            least += f" ({chosen.smallest_bytes} bytes of {budget.bytes})"
        ran = [row for row in rows if row.run_bytes is not None and row.run_bytes > budget.bytes]
        if ran and chosen.smallest_bytes is not None and chosen.smallest_bytes <= budget.bytes:
            least_run = min(ran, key=lambda row: row.run_bytes or 0)
            least += (
                f" as compiled, and memory rose by {format_bytes(least_run.run_bytes or 0)} when "
                f"{least_run.checkpoints} checkpoints were run"
            )
        raise AutotuneError(
            f"nothing of {key.name} fits {format_bytes(budget.bytes)} at {chosen.case}: the smallest needs {least}; "
            "raise the budget, free memory, or shrink state or batch"
        )
    if chosen.tier is not None:
        chosen = dataclasses.replace(chosen, directory=ask.directory if chosen.tier.name == DISK else None)
    return AutoChoice(
        recommendation=chosen, problem=key, rows=tuple(rows), budget=budget, source=source, cost_seconds=0.0
    )


def _profile(key: ProblemKey, rows: Sequence[Measurement]) -> Profile:
    return Profile(name=key.name, measurements=tuple(rows))


def _request(ask: AutoRequest, budget: Budget) -> RecommendRequest:
    return RecommendRequest(
        budget_bytes=budget.bytes,
        margin_bytes=budget.margin_bytes,
        horizon=ask.horizon,
        tolerance=ask.tolerance,
        set_values=ask.set_values,
        objective=ask.objective,
        measured_only=True,
        tiers=ask.tiers,
        xla_flags=("",),
    )


def _is_share(budget: str | int) -> bool:
    return str(budget).strip().lower().endswith(("%", "auto"))


def _budget(ask: AutoRequest, problem: Problem, info: DeviceInfo, rows: Sequence[Measurement]) -> Budget:
    """Resolve the budget: of a share, what this process holds already is taken off, but for the call's own arguments.

    Arguments are within the bytes of a call; where the training process holds them already, they are not needed twice.
    """
    if not _is_share(ask.budget):
        return resolve_budget(ask.budget, info)
    from autotune.measuring.live import arguments_alive, devices_of
    from autotune.problem.probe_adjoint import ProbeAdjoint

    call = problem.make(ProbeAdjoint(), ask.horizon, ask.tolerance)
    spanned = devices_of(call.args)
    if len(spanned) > 1:
        info = smallest([device_info(device=index) for index in spanned])
    alive = arguments_alive(call.args, info.live_buffers)
    del call
    if info.free_bytes is not None:
        info = dataclasses.replace(info, free_bytes=info.free_bytes + alive)
    return resolve_budget(ask.budget, info, rows=rows)
