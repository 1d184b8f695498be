"""Planning for devices that a profile was not measured on: what fits, at what recomputation, and what it would cost.

What carries over between devices: the number of steps, the recompute factor (both follow from the solve and the count)
and the bytes of a checkpoint. What does not: seconds, and the part of the bytes that a backend needs for itself.
Theory and laws are the caller's: `recompute(steps, checkpoints)`, bytes by count and steps by horizon are handed in.

Bytes are taken from the measured points of a setting, over all its horizons and tolerances, which change the steps, not
the state.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence

from profiles.analysis.devices import Device
from profiles.analysis.pareto import FrontPoint, points
from profiles.analysis.plan_laws import Laws, Recompute, Sizes, Steps, Windowed
from profiles.errors import ProfilesError
from profiles.records.records import Case, Measurement, Profile
from profiles.records.shown import ShownPlan

CARRIES_OVER = (
    "Steps, recompute factors and bytes per checkpoint carry over between devices.",
    "A horizon changes the steps, not the state: where a call returns every step, measure at the horizon itself.",
    "Seconds do not: they are given only for the device that was measured, or scaled by a relative_speed of yours.",
    "Host memory: a transfer is taken to cost as much as a step; measure it with `ckpt-tune tune --tiers device,host`.",
    "What is carried over lacks the bytes that each backend needs for itself, which the margin stands for.",
    "What was compiled for a device is XLA's own plan of its memory; kernels tuned on the device may need more.",
    "At least: a bound by operations and bytes that no call can do without, at stated peak rates. Calls take longer.",
)
"""What a plan rests on, in words to print beside it."""

MEASURED, COMPILED, CARRIED_OVER = "measured on it", "compiled for it", "carried over"
"""What the bytes of a device in a plan rest on."""

_GRID = 160  # counts tried per device; recompute factors change slowly with the count
MOST_STEPS = 2**31
"""Longer solves are not planned."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PlanRequest:
    """What to plan.

    `horizons`: those measured where none is given; others are inferred from the measured ones. `tolerances`: of those
    measured; all where none is given. `max_recompute`: the recompute factor that is wanted at most; 2 stores
    everything. `margin`: the share of a device's memory to leave alone. `memory_share`: what JAX takes of a GPU's
    memory, of which that share is one. `host_bytes`: what states in host memory may take beside a device that falls
    short; None for as much as it needs.

    Raises:
        ProfilesError: a limit or the margin makes no sense.
    """

    horizons: tuple[float, ...] = ()
    tolerances: tuple[float, ...] = ()
    max_recompute: float = 2.0
    margin: float = 0.1
    host_bytes: int | None = None
    memory_share: float = 1.0

    def __post_init__(self) -> None:
        if not self.max_recompute >= 2.0:
            raise ProfilesError(f"a recompute factor is 2 or more (2 stores all), found {self.max_recompute:g}")
        if not 0.0 <= self.margin < 1.0:
            raise ProfilesError(f"the margin is a share of the memory, from 0 to below 1, found {self.margin:g}")
        if not 0.0 < self.memory_share <= 1.0:
            raise ProfilesError(f"what JAX takes of a GPU is a share above 0 up to 1, found {self.memory_share:g}")
        if any(not horizon > 0 for horizon in self.horizons):
            raise ProfilesError(f"horizons to plan must be above 0, found {min(self.horizons):g}")

    def usable_bytes(self, device: Device) -> float:
        """Return what one call may use of a device: what JAX may take of it, less the margin."""
        return min(device.memory_bytes, device.available_bytes(self.memory_share)) * (1.0 - self.margin)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PlanRow:
    """What one device makes of one horizon and tolerance.

    `evidence` says where its bytes are from: measured on the device, compiled for it, or carried over from another.
    `checkpoints`, `peak_bytes` and `recompute_factor` are None where nothing fits, the last also where theory does not
    give it. `needed_bytes` is the smallest peak whose recompute factor is within the requested limit, `saturated_bytes`
    the peak above which memory buys nothing more, `smallest_bytes` the least that works at all. `bytes_evidence` and
    `steps_evidence` are measured (of bytes also compiled), interpolated or extrapolated; recompute factors are computed
    from the steps. What was measured at this very case and count is given as it was measured. `run_seconds` and `cost`
    (of one call, in the device's currency) are those of `seconds_checkpoints`: the count itself where it was timed,
    else the fastest that was and fits; None where nothing supports them.

    `least_seconds` is a bound that no call can be below, `least_cost` that of a thousand calls; neither predicts
    anything. None where the device's figures or the cost of a step are not known.

    `host_windows` states of `host_bytes` together in host memory bring a device that falls short of the limit to
    `host_recompute_factor`: the fewest that keep the limit, else all that may be held. None where the device needs
    none, or where theory, the bytes of a state or the budget allow none.
    """

    device: str
    evidence: str
    usable_bytes: int
    case: Case
    steps: int
    steps_evidence: str
    checkpoints: int | None
    peak_bytes: int | None
    recompute_factor: float | None
    bytes_evidence: str | None
    needed_bytes: int | None
    needed_checkpoints: int | None
    saturated_bytes: int | None
    smallest_bytes: int | None
    run_seconds: float | None = None
    cost: float | None = None
    currency: str = ""
    seconds_checkpoints: int | None = None
    least_seconds: float | None = None
    least_cost: float | None = None
    host_windows: int | None = None
    host_bytes: int | None = None
    host_recompute_factor: float | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LongestHorizon:
    """The longest solve that one device holds within the recompute limit, at one tolerance and setting.

    `horizon` is None where the profile has no horizons to infer steps per unit from, or where nothing fits.
    """

    device: str
    tolerance: float | None
    setting: Case
    steps: int
    checkpoints: int | None
    horizon: float | None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Plan(ShownPlan):
    """A plan: one row per device and case, the longest horizons, and what it rests on."""

    profile: str
    request: PlanRequest
    rows: tuple[PlanRow, ...]
    longest: tuple[LongestHorizon, ...]
    notes: tuple[str, ...] = CARRIES_OVER


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Setting:
    """What is known of one setting: a case without its horizon and tolerance.

    `horizons` are those that were measured, by tolerance, `timed` the measured points of each case.
    """

    case: Case
    sizes: Sizes
    steps: Steps
    horizons: Mapping[float | None, Sequence[float | None]]
    timed: Mapping[Case, Sequence[FrontPoint]]


class _Factors:
    """The recompute factor by count for one number of steps."""

    def __init__(self, recompute: Recompute, steps: int) -> None:
        """Take the theory; what it says of a count is computed once."""
        self._recompute, self.steps = recompute, steps
        self._known: dict[int, float] = {}

    def __call__(self, count: int) -> float:
        """Give the factor of a count; with a checkpoint for every step each runs once forward and once taped."""
        if count >= self.steps:
            return 2.0
        if count not in self._known:
            self._known[count] = self._recompute(self.steps, count)
        return self._known[count]

    def counts(self, most: int) -> list[int]:
        """List counts to try, evenly spread over their logarithm, from 1 to `most`."""
        return sorted({1, most, *(round(most ** (k / _GRID)) for k in range(_GRID))})

    def best(self, most: int) -> int:
        """Find the count of at most `most` with the least recomputation, the smallest of equals; `most` untold."""
        count = min(self.counts(most), key=lambda count: (self(count), count))
        if math.isinf(self(count)):
            return most
        return self.smallest_with(self(count), count) or count

    def smallest_with(self, limit: float, most: int) -> int | None:
        """Find the smallest count of at most `most` within a limit, None where none is.

        A factor need not fall everywhere as the count rises; between two counts that are tried it is taken to.
        """
        tried = self.counts(most)
        place = next((k for k, count in enumerate(tried) if self(count) <= limit), None)
        if place is None:
            return None
        low, high = tried[place - 1] if place else 0, tried[place]
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self(middle) <= limit else (middle, high)
        return high


def plan(
    profile: Profile,
    devices: Sequence[Device],
    request: PlanRequest,
    laws: Laws,
) -> Plan:
    """Plan a profile's problem for devices.

    Args:
        profile: where bytes and steps are known from.
        devices: what to plan for.
        request: horizons, tolerances, and limits.
        laws: theory, bytes and steps.

    Raises:
        ProfilesError: the profile has no measured bytes or steps, takes no horizon where some are given, or was not
            measured at a tolerance.
    """
    rows: list[PlanRow] = []
    longest: list[LongestHorizon] = []
    for setting in _settings(profile, laws):
        tolerances = _tolerances(profile, setting, request)
        for device in devices:
            for tolerance in tolerances:
                for case, steps, evidence in _cases(profile, setting, tolerance, request):
                    row = _row(device, setting, _Factors(laws.recompute, steps), request)
                    row = _as_measured(dataclasses.replace(row, case=case, steps_evidence=evidence), setting)
                    row = _helped(row, setting.sizes.state_bytes, laws.windowed, request)
                    row = dataclasses.replace(row, evidence=_evidence(device, profile))
                    if profile.device.planned and row.bytes_evidence == "measured":
                        row = dataclasses.replace(row, bytes_evidence="compiled")
                    rows.append(_priced(row, profile, device, setting))
                # A TPU keeps what is small in a memory of its own, so that small programs say nothing of long ones.
                if not (profile.device.planned and device.platform == "tpu"):
                    longest.append(_longest(device, setting, tolerance, request, laws.recompute))
    return Plan(profile=profile.qualified_name, request=request, rows=tuple(rows), longest=tuple(longest))


def _evidence(device: Device, profile: Profile) -> str:
    """Say where the bytes of a device come from."""
    if not device.is_measured_by(profile.device):
        return CARRIED_OVER
    return COMPILED if profile.device.planned else MEASURED


def _settings(profile: Profile, laws: Laws) -> list[_Setting]:
    """Bring the cases of a profile together by setting."""
    groups: dict[Case, list[Case]] = {}
    for case in profile.cases:
        groups.setdefault(Case(None, None, case.set_values, case.x64, case.mesh), []).append(case)
    found = []
    for setting, cases in groups.items():
        timed = {case: points(_as_used(profile.rows(case))) for case in cases}
        measured = [(p.checkpoints, p.peak_bytes) for group in timed.values() for p in group]
        counted = [row for case in cases for row in profile.rows(case) if row.steps]
        horizons: dict[float | None, list[float | None]] = {}
        for case in dict.fromkeys(row.case for row in counted):
            horizons.setdefault(case.tolerance, []).append(case.horizon)
        if measured and counted:
            sizes, steps = laws.sizes(measured), laws.steps(counted)
            found.append(_Setting(case=setting, sizes=sizes, steps=steps, horizons=horizons, timed=timed))
    if not found:
        raise ProfilesError(
            f"{profile.qualified_name} has no measured bytes with counted steps to plan from: measure it first"
        )
    return found


def _as_used(rows: Sequence[Measurement]) -> list[Measurement]:
    """Keep the rows without a tier and, where there are any, those without XLA flags: a plan sets none."""
    alone = [row for row in rows if row.tier is None]
    return [row for row in alone if not row.xla_flags] or alone


def _tolerances(profile: Profile, setting: _Setting, request: PlanRequest) -> list[float | None]:
    """Choose the tolerances to plan; steps at one do not follow from another's."""
    known = sorted(setting.horizons, key=lambda tolerance: (tolerance is not None, tolerance or 0.0))
    if missing := [wanted for wanted in request.tolerances if wanted not in setting.horizons]:
        said = ", ".join(f"{tolerance:g}" for tolerance in known if tolerance is not None) or "none"
        raise ProfilesError(
            f"{profile.name} was not measured at tolerance {missing[0]:g}, only at {said}: measure it there first"
        )
    return list(request.tolerances) or known


def _cases(
    profile: Profile, setting: _Setting, tolerance: float | None, request: PlanRequest
) -> list[tuple[Case, int, str]]:
    """List the cases to plan at a tolerance, with their steps and what these rest on."""
    known = setting.horizons[tolerance]
    if request.horizons and all(horizon is None for horizon in known):
        raise ProfilesError(f"{profile.name} takes no horizon, so none can be planned: leave --horizons out")
    found = []
    for horizon in request.horizons or known:
        known_steps = setting.steps.steps_at(horizon, tolerance)
        assert known_steps is not None
        found.append((_at(setting, horizon, tolerance), *known_steps))
    return found


def _at(setting: _Setting, horizon: float | None, tolerance: float | None) -> Case:
    """Put a horizon and a tolerance into a setting's case."""
    return dataclasses.replace(setting.case, horizon=horizon, tolerance=tolerance)


def _row(device: Device, setting: _Setting, factors: _Factors, request: PlanRequest) -> PlanRow:
    """Plan one number of steps on one device; case, evidence of the steps and price are filled in by the caller."""
    sizes, steps = setting.sizes, factors.steps
    usable = int(request.usable_bytes(device))
    most = sizes.largest_within(usable, steps)
    chosen = None if most is None else factors.best(most)
    needed = factors.smallest_with(request.max_recompute, steps)
    return PlanRow(
        device=device.name,
        evidence=CARRIED_OVER,
        usable_bytes=usable,
        case=setting.case,
        steps=steps,
        steps_evidence="measured",
        checkpoints=chosen,
        peak_bytes=None if chosen is None else math.ceil(sizes.upper_envelope(chosen)),
        recompute_factor=None if chosen is None or math.isinf(factors(chosen)) else factors(chosen),
        bytes_evidence=None if chosen is None else sizes.evidence(chosen),
        needed_bytes=None if needed is None else _whole(sizes.upper_envelope(needed)),
        needed_checkpoints=needed,
        saturated_bytes=_whole(sizes.upper_envelope(factors.best(steps))),
        smallest_bytes=_whole(sizes.upper_envelope(1)),
    )


def _helped(row: PlanRow, state_bytes: float | None, windowed: Windowed | None, request: PlanRequest) -> PlanRow:
    """Add what host memory does for a device that falls short of the limit."""
    alone = row.recompute_factor
    if windowed is None or state_bytes is None or alone is None or alone <= request.max_recompute:
        return row
    assert row.checkpoints is not None
    allowed = row.steps if request.host_bytes is None else min(row.steps, int(request.host_bytes // state_bytes))
    if allowed < 1:
        return row
    few, most = 0, allowed
    while most - few > 1:
        middle = (few + most) // 2
        keeps = windowed(row.steps, row.checkpoints, middle) <= request.max_recompute
        few, most = (few, middle) if keeps else (middle, most)
    return dataclasses.replace(
        row,
        host_windows=most,
        host_bytes=math.ceil(most * state_bytes),
        host_recompute_factor=windowed(row.steps, row.checkpoints, most),
    )


def _whole(size: float) -> int | None:
    """Round bytes up, None where they are not known."""
    return math.ceil(size) if math.isfinite(size) else None


def _priced(row: PlanRow, profile: Profile, device: Device, setting: _Setting) -> PlanRow:
    """Add seconds and cost to a row, where something supports them."""
    speed = 1.0 if device.is_measured_by(profile.device) else device.relative_speed
    timed = [p for p in setting.timed.get(row.case, ()) if p.run_seconds and p.peak_bytes <= row.usable_bytes]
    if speed is None or not timed:
        return row
    point = min(timed, key=lambda p: (p.checkpoints != row.checkpoints, p.run_seconds))
    seconds = (point.run_seconds or 0.0) / speed
    cost = None if device.price_per_hour is None else seconds * device.price_per_hour / 3600
    return dataclasses.replace(
        row, run_seconds=seconds, cost=cost, currency=device.currency, seconds_checkpoints=point.checkpoints
    )


def _as_measured(row: PlanRow, setting: _Setting) -> PlanRow:
    """Give peak and recompute factor of a count that was measured at this very case as they were measured."""
    point = next((p for p in setting.timed.get(row.case, ()) if p.checkpoints == row.checkpoints), None)
    if point is None:
        return row
    return dataclasses.replace(
        row,
        peak_bytes=point.peak_bytes,
        bytes_evidence="measured",
        recompute_factor=row.recompute_factor if point.recompute_factor is None else point.recompute_factor,
    )


def _longest(
    device: Device, setting: _Setting, tolerance: float | None, request: PlanRequest, recompute: Recompute
) -> LongestHorizon:
    """Find the most steps that the largest count that fits reverses within the limit, and their horizon."""
    usable = request.usable_bytes(device)

    def held(steps: int) -> bool:
        count = setting.sizes.largest_within(usable, steps)
        return count is not None and _Factors(recompute, steps)(count) <= request.max_recompute

    low, high = 0, 1
    while high <= MOST_STEPS and held(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if held(middle) else (low, middle)
    return LongestHorizon(
        device=device.name,
        tolerance=tolerance,
        setting=setting.case,
        steps=low,
        checkpoints=setting.sizes.largest_within(usable, low) if low else None,
        horizon=setting.steps.horizon_of(low, tolerance) if low else None,
    )
