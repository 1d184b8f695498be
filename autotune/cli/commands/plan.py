"""The commands that set profiles against other devices and against each other: `plan`, `compare`."""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import profiles
from autotune.cli import tables
from autotune.cli.opening import reading
from autotune.cli.screen import Exit, Format, Screen, TuneScreen
from autotune.measuring.trial import RunSettings
from autotune.planning.bounds import A_THOUSAND, with_bounds
from autotune.planning.devices import Workshop, plan_device
from autotune.planning.step_costs import Notes, stored_costs
from autotune.tuning.lab import make_machine
from autotune.tuning.request import TuneRequest
from profiles import MOST_STEPS, format_bytes, format_seconds, plain_value


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PlanOptions:
    """One call of `ckpt-tune plan`."""

    names: tuple[str, ...]
    devices: tuple[str, ...]
    request: profiles.PlanRequest
    catalogue: Path | None
    problem: str | None = None
    carry_over: bool = False


PLAN_COLUMNS = (
    "device",
    "evidence",
    "case",
    "usable",
    "checkpoints",
    "peak",
    "recompute",
    "enough",
    "all it can use",
    "a call",
)


def plan_command(screen: Screen, options: PlanOptions, store_url: str | None, format: Format) -> Exit:
    """Plan devices that were not measured, from what was."""
    catalogue = profiles.load_devices(options.catalogue)
    devices = profiles.find_devices(options.devices or sorted(catalogue), catalogue)
    plans = _plans(screen, devices, options, store_url)
    records = [_plan_record(plan.profile, row) for plan in plans for row in plan.rows]
    longest = [
        {"profile": plan.profile, **dataclasses.asdict(one), "setting": str(one.setting)}
        for plan in plans
        for one in plan.longest
    ]
    if format is Format.JSON:
        notes = list(plans[0].notes) if plans else []
        screen.json({"schema_version": 1, "rows": records, "longest_horizons": longest, "notes": notes})
    elif format is Format.CSV:
        screen.csv(records)
    else:
        for plan in plans:
            _print_plan(screen, plan, options.request)
    fits = all(row.checkpoints is not None for plan in plans for row in plan.rows)
    return Exit.DONE if fits else Exit.NOTHING_FITS


def _plans(
    screen: Screen, devices: Sequence[profiles.Device], options: PlanOptions, store_url: str | None
) -> list[profiles.Plan]:
    """Plan every profile for every device, compiling where the problem's file is named."""
    files = {name: name for name in options.names if _is_file(name)}
    if options.problem is not None:
        files |= dict.fromkeys(options.names, options.problem)
    if options.carry_over or not files:
        with reading(store_url) as store:
            found = {name: store.profile(_stored_name(name)) for name in options.names}
            others = [] if options.carry_over else store.profiles()
            return [_plan_of(screen, profile, devices, options, (store, others, None)) for profile in found.values()]
    made = []
    with profiles.open_store(store_url) as store, TuneScreen(screen) as shown:
        for name in options.names:
            profile = store.profile(_stored_name(name))
            if name not in files:
                made.append(_plan_of(screen, profile, devices, options, (store, store.profiles(), None)))
                continue
            problem, folders = TuneRequest(problem=files[name]).located()
            machine = make_machine(RunSettings(platform="cpu"), search_path=folders)
            try:
                shop = Workshop(problem=problem, store=store, machine=machine, progress=shown)
                made.append(_plan_of(screen, profile, devices, options, (store, store.profiles(), shop)))
            finally:
                machine.close()
    return made


def _is_file(name: str) -> bool:
    return name.rpartition(":")[0].endswith(".py")


def _stored_name(name: str) -> str:
    """Give the name under which a problem is stored that is named as its file."""
    if not _is_file(name):
        return name
    place, _, factory = name.rpartition(":")
    return f"{Path(place).stem}:{factory}"


def _plan_of(
    screen: Screen,
    profile: profiles.Profile,
    devices: Sequence[profiles.Device],
    options: PlanOptions,
    known: tuple[Notes, Sequence[profiles.Profile], Workshop | None],
) -> profiles.Plan:
    """Plan one profile for all devices, each from the best that is known of it."""
    store, others, workshop = known
    found = [plan_device(profile, device, options.request, others, workshop) for device in devices]
    costs = dict(stored_costs(profile, store))
    for one in found:
        costs |= one.costs
    for device, one in zip(devices, found, strict=True):
        if one.carried_because:
            screen.say(f"{device.name} is carried over: {one.carried_because}")
    plans = [with_bounds(one.plan, device, profile, costs) for device, one in zip(devices, found, strict=True)]
    return dataclasses.replace(
        plans[0],
        profile=profile.qualified_name,
        rows=tuple(row for plan in plans for row in plan.rows),
        longest=tuple(row for plan in plans for row in plan.longest),
    )


def _plan_record(profile: str, row: profiles.PlanRow) -> dict[str, Any]:
    case = row.case
    place = {
        "horizon": case.horizon,
        "tolerance": case.tolerance,
        "set_values": {key: plain_value(value) for key, value in case.set_values},
    }
    figures = {field.name: getattr(row, field.name) for field in dataclasses.fields(row) if field.name != "case"}
    return {"profile": profile, **place, **figures}


def _print_plan(screen: Screen, plan: profiles.Plan, request: profiles.PlanRequest) -> None:
    screen.line(
        f"{plan.profile}: recompute factor at most {request.max_recompute:g} wanted, margin {request.margin:.0%} "
        f"of what JAX may take, which is {request.memory_share:.0%} of a GPU"
    )
    priced = any(row.cost is not None for row in plan.rows)
    bounded = any(row.least_seconds is not None for row in plan.rows)
    least_priced = any(row.least_cost is not None for row in plan.rows)
    lines = []
    for row in plan.rows:
        line = [
            row.device, row.evidence, str(row.case), format_bytes(row.usable_bytes), row.checkpoints or "nothing fits",
            tables.maybe_bytes(row.peak_bytes), tables.factor(row.recompute_factor),
            tables.maybe_bytes(row.needed_bytes), tables.maybe_bytes(row.saturated_bytes), _a_call(row),
        ]  # fmt: skip
        cost = None if row.cost is None else f"{row.cost * 1e6:.3g} {row.currency}"
        line += [cost] if priced else []
        line += [tables.maybe_seconds(row.least_seconds)] if bounded else []
        price = None if row.least_cost is None else f"{row.least_cost:.3g} {row.currency}"
        lines.append([*line, price] if least_priced else line)
    columns = [*PLAN_COLUMNS, *["a million calls"] * priced, *["a call, at least"] * bounded]
    screen.table((*columns, *[f"{A_THOUSAND:,} calls, at least"] * least_priced), lines)
    screen.line("enough: the least memory within the wanted recompute factor; all it can use: more buys nothing")
    for row in plan.rows:
        if row.host_bytes is not None:
            screen.line(_helped(row, request))
    found = [one for one in plan.longest if one.steps]
    if found:
        screen.line()
        lines = [
            (
                one.device,
                None if one.tolerance is None else f"{one.tolerance:g}",
                None if one.horizon is None else f"{one.horizon:.4g}",
                one.steps if one.steps < MOST_STEPS else f"{MOST_STEPS:.1e} and more",
            )
            for one in found
        ]
        screen.table(("device", "tolerance", "longest horizon", "longest solve in steps"), lines)
    screen.line()
    for note in plan.notes:
        screen.line(note)


def _a_call(row: profiles.PlanRow) -> str | None:
    """Write the seconds of a call, and of which count they are where it is another."""
    seconds = tables.maybe_seconds(row.run_seconds)
    other = row.seconds_checkpoints not in (None, row.checkpoints)
    return f"{seconds} at {row.seconds_checkpoints}" if seconds and other else seconds


def _helped(row: profiles.PlanRow, request: profiles.PlanRequest) -> str:
    """Say what host memory does for a device that falls short."""
    at = "" if str(row.case) == "the only case" else f" at {row.case}"
    held = f"{format_bytes(row.host_bytes or 0)} of host memory ({row.host_windows} states)"
    said = f"does not fit on {row.device} alone{at} within recompute factor {request.max_recompute:g}"
    factor = row.host_recompute_factor or math.inf
    if factor > request.max_recompute:
        return f"{said}, nor with {held}, which brings it from {row.recompute_factor:.2f} to {factor:.2f}"
    return f"{said}; fits with {held} at recompute factor {factor:.2f}"


def catalogue_command(screen: Screen, format: Format) -> Exit:
    """List the devices of the catalogue, and how each is known."""
    records = []
    for name, device in profiles.load_devices().items():
        chip = device.hardware
        how = f"carried over: {device.carried_over or 'no figures of its chip'}"
        if device.is_compiled_for:
            how = f"compiled for: {chip.topology or f'compute capability {chip.compute_capability}'}"
        records.append(
            {
                "device": name, "aliases": list(device.aliases), "jax_names": list(device.kinds), "known": how,
                "memory_bytes": device.memory_bytes, "source": device.source,
                **{field.name: getattr(chip, field.name) for field in dataclasses.fields(chip)},
                "sources": dict(device.sources),
            }
        )  # fmt: skip
    if format is Format.JSON:
        screen.json({"schema_version": 1, "devices": records})
    elif format is Format.CSV:
        screen.csv(records)
    else:
        lines = [(r["device"], ", ".join(r["aliases"]), format_bytes(r["memory_bytes"]), r["known"]) for r in records]
        screen.table(("device", "also", "memory", "how it is known"), lines)
    return Exit.DONE


def compare_command(
    screen: Screen, names: Sequence[str], store_url: str | None, out: Path | None, format: Format
) -> Exit:
    """Show two profiles side by side, with what changed."""
    with reading(store_url) as store:
        before, after = (store.profile(name) for name in names)
    comparison = profiles.compare(before, after)
    records = [
        {
            "horizon": point.case.horizon,
            "tolerance": point.case.tolerance,
            "set_values": dict(point.case.set_values),
            "checkpoints": point.checkpoints,
            **{
                f"{side}_{figure}": getattr(getattr(point, side), figure, None)
                for figure in ("peak_bytes", "run_seconds", "recompute_factor")
                for side in ("before", "after")
            },
            **{f"{figure}_ratio": point.ratio(figure) for figure in ("peak_bytes", "run_seconds")},
        }
        for point in comparison.points
    ]
    changes = [dataclasses.asdict(change) for change in comparison.changes]
    if format is Format.JSON:
        screen.json({"schema_version": 1, "changes": changes, "points": records})
    elif format is Format.CSV:
        screen.csv(records)
    else:
        _print_comparison(screen, comparison)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        figure = profiles.compare_figure(profiles.compared_table([before, after]))
        for path in profiles.save_figure(figure, out / "compare"):
            screen.say(f"wrote {path}")
    return Exit.DONE


def _print_comparison(screen: Screen, comparison: profiles.Comparison) -> None:
    screen.line(f"before  {comparison.before.qualified_name}")
    screen.line(f"after   {comparison.after.qualified_name}")
    screen.line()
    screen.table(("changed", "before", "after"), [(c.what, c.before, c.after) for c in comparison.changes])
    screen.line()
    if not comparison.points:
        screen.line("no case was measured in both")
        return

    def both(point: profiles.ComparedPoint, figure: str, write: Any) -> str:
        sides = [getattr(side, figure, None) for side in (point.before, point.after)]
        ratio = point.ratio(figure)
        text = " -> ".join("-" if side is None else write(side) for side in sides)
        return text if ratio is None or math.isclose(ratio, 1, rel_tol=5e-3) else f"{text} ({ratio - 1:+.0%})"

    lines = [
        (
            str(point.case),
            point.checkpoints,
            both(point, "peak_bytes", format_bytes),
            both(point, "run_seconds", format_seconds),
            both(point, "recompute_factor", lambda value: f"{value:.2f} x"),
        )
        for point in comparison.points
    ]
    screen.table(("case", "checkpoints", "peak", "a call", "recompute"), lines)
