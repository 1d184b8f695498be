"""What commands show: devices, recommendations, fronts and profiles as tables and records. No jax, no pandas."""

import datetime as dt
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from autotune.choosing.recommend import Fit, Recommendation
from autotune.cli.screen import Screen
from autotune.machine.tiers import DISK
from profiles import (
    AdjointName,
    Case,
    FrontAxis,
    Measurement,
    format_bytes,
    format_seconds,
    pareto_front,
    points,
)

if TYPE_CHECKING:
    from autotune.machine.device import DeviceInfo


def maybe_bytes(count: float | None) -> str | None:
    """Write bytes, None for unknown."""
    return None if count is None else format_bytes(count)


def maybe_seconds(seconds: float | None) -> str | None:
    """Write seconds, None for unknown."""
    return None if seconds is None else format_seconds(seconds)


def show_device(
    screen: Screen, info: "DeviceInfo", *, cache: str, store: str, more: Iterable[tuple[str, str]] = ()
) -> None:
    """Show one device in one screen; `more` are lines below it."""
    host = info.host
    rows: list[tuple[str, str | None]] = [
        ("device", f"{info.kind} ({info.platform} {info.index} of {info.count})"),
        ("memory", maybe_bytes(info.total_bytes)),
        ("limit of this process", maybe_bytes(info.limit_bytes)),
        ("free now", maybe_bytes(info.free_bytes)),
        ("in use by this process", maybe_bytes(info.in_use_bytes)),
        ("driver", info.driver),
        ("MIG", info.mig),
        ("allocator", info.allocator or None),
        ("host", info.hostname),
        ("host memory", f"{format_bytes(host.available_bytes)} free of {format_bytes(host.total_bytes)}"),
        ("control group's limit", maybe_bytes(host.cgroup_limit_bytes)),
        ("RLIMIT_AS", maybe_bytes(host.address_limit_bytes)),
        ("versions", ", ".join(f"{name} {version}" for name, version in info.versions.items())),
        ("environment", " ".join(f"{name}={value}" for name, value in info.environment.items()) or None),
        ("compiled programs", cache),
        ("store", store),
    ]
    rows += [(f"process {p.pid}", f"holds {maybe_bytes(p.used_bytes) or 'unknown'}") for p in info.other_processes]
    rows += [
        ("live buffers", f"{b.count} of {b.dtype}{list(b.shape)}, {format_bytes(b.total_bytes)}")
        for b in info.live_buffers
    ]
    rows += [("unknown", reason) for reason in info.unknown]
    screen.table(("", ""), [row for row in (*rows, *more) if row[1] is not None])


def show_front(screen: Screen, rows: Sequence[Measurement], case: Case, *, title: str) -> None:
    """Show the points of one case: those on a front, and those that were beaten."""
    mine = [row for row in rows if row.case == case]
    found = points(mine)
    if not found:
        return
    fronts = {objective: set(map(id, pareto_front(found, objective))) for objective in FrontAxis}
    columns = ("checkpoints", "peak", "a call", "recompute", "front")
    tiered = any(point.tier for point in found)
    flagged = any(point.xla_flags for point in found)
    lines = []
    for point in found:
        on_front = id(point) in fronts[FrontAxis.SECONDS]
        line = [
            point.checkpoints, format_bytes(point.peak_bytes), maybe_seconds(point.run_seconds),
            factor(point.recompute_factor), "yes" if on_front else "",
        ]  # fmt: skip
        line += [str(point.tier or "")] if tiered else []
        lines.append([*line, point.xla_flags] if flagged else line)
    columns += ("tier",) if tiered else ()
    screen.table((*columns, "XLA_FLAGS") if flagged else columns, lines, title=title)


def factor(value: float | None) -> str | None:
    """Write a recompute factor."""
    return None if value is None else f"{value:.2f} x"


RECOMMENDATION_COLUMNS = (
    "horizon", "tolerance", "set_values", "xla_flags", "tier", "windows", "transfer_cost", "directory",
    "status", "budget_bytes", "margin_bytes", "checkpoints", "expected_steps", "steps", "accepted",
    "peak_bytes", "peak_low_bytes", "peak_high_bytes", "peak_source", "run_seconds", "recompute_factor",
    "peak_evidence", "seconds_evidence", "recompute_evidence", "evidence", "between", "least_seconds",
    "smallest_bytes", "message", "seconds_low", "seconds_high", "runner_up", "runner_up_seconds", "steps_evidence",
    "would_change",
)  # fmt: skip


def show_recommendations(screen: Screen, chosen: Sequence[Recommendation]) -> None:
    """Show one line for every case: what to use, or what the least would be that fits."""
    has_horizon = any(choice.case.horizon is not None for choice in chosen)
    has_tolerance = any(choice.case.tolerance is not None for choice in chosen)
    keys = sorted({key for choice in chosen for key, _ in choice.case.set_values})
    tiered = any(choice.tier for choice in chosen)
    flagged = any(choice.xla_flags for choice in chosen)
    columns = [*(["horizon"] if has_horizon else []), *(["tolerance"] if has_tolerance else []), *keys]
    columns += ["checkpoints", "expected steps", "peak", "a call", "recompute", "evidence"]
    columns += ["tier"] if tiered else []
    columns += ["XLA_FLAGS"] if flagged else []
    lines = []
    for choice in chosen:
        values = dict(choice.case.set_values)
        tolerance = choice.case.tolerance
        line: list[Any] = [choice.case.horizon] if has_horizon else []
        line += [None if tolerance is None else f"{tolerance:g}"] if has_tolerance else []
        line += [str(values[key]) if key in values else None for key in keys]
        if choice.status is Fit.OK:
            line += [
                choice.checkpoints, choice.expected_steps, _peak(choice), maybe_seconds(choice.run_seconds),
                factor(choice.recompute_factor), evidence(choice),
            ]  # fmt: skip
        elif choice.status is Fit.FAILED:
            line += [None, None, None, None, None, "failed"]
        else:
            least = maybe_bytes(choice.smallest_bytes) or "unknown"
            line += [None, None, f"≥ {least}", None, None, "nothing fits"]
        line += [str(choice.tier or "")] if tiered else []
        lines.append([*line, choice.xla_flags] if flagged else line)
    screen.table(columns, lines)


def sureness(choice: Recommendation) -> list[str]:
    """Say how sure a recommendation is, a line each: its seconds, who came second, its steps, what would change it."""
    lines = []
    if choice.run_seconds and choice.seconds_low and choice.seconds_high:
        text = f"{format_seconds(choice.seconds_low)} to {format_seconds(choice.seconds_high)} a call"
        if choice.runner_up is not None and choice.runner_up_seconds is not None:
            ratio = choice.runner_up_seconds / choice.run_seconds
            text += f"; next best {choice.runner_up} checkpoints, {ratio:.2f}x the seconds"
        lines.append(text)
    if choice.steps is not None and choice.steps_evidence is not None:
        known = "counted" if choice.steps_evidence == "measured" else f"predicted, {choice.steps_evidence}"
        lines.append(f"{choice.steps} steps, {known}")
    return [*lines, *choice.would_change]


def evidence(choice: Recommendation) -> str:
    """Name what each figure rests on, in one word where they agree."""
    if choice.seconds_evidence is None:
        return f"{choice.peak_evidence}, not timed"
    if choice.peak_evidence == choice.seconds_evidence:
        return str(choice.peak_evidence)
    return f"peak {choice.peak_evidence}, seconds {choice.seconds_evidence}"


def _peak(choice: Recommendation) -> str | None:
    """Write a peak, with its bounds where it was not measured."""
    if choice.peak_bytes is None:
        return None
    text = format_bytes(choice.peak_bytes)
    low, high = choice.peak_low_bytes or choice.peak_bytes, choice.peak_high_bytes or choice.peak_bytes
    return text if low == high else f"{text} ({format_bytes(low)} to {format_bytes(high)})"


def usage_lines(choice: Recommendation, adjoint: AdjointName) -> tuple[str, str]:
    """Write what a user pastes into a script: the import, and the adjoint of a recommendation.

    The adjoint is named without its package, since `adjoint` is what a factory calls its parameter.
    """
    expected = "" if choice.expected_steps is None else f", expected_steps={choice.expected_steps}"
    held = ""
    if choice.tier is not None:
        held = f', tier="{choice.tier.name}", windows={choice.tier.windows}'
        held += f', directory="{choice.directory or "DIR"}"' if choice.tier.name == DISK else ""
        held += f", transfer_cost={choice.tier.transfer_cost:g}"
    package = "diffrax" if adjoint is AdjointName.DIFFRAX else "adjoint"
    flags = f"  # with XLA_FLAGS='{choice.xla_flags}' in the environment" if choice.xla_flags else ""
    return (
        f"from {package} import RecursiveCheckpointAdjoint",
        f"RecursiveCheckpointAdjoint(checkpoints={choice.checkpoints}{expected}{held}){flags}",
    )


def age(moment: dt.datetime, now: dt.datetime) -> str:
    """Say how long ago something was measured."""
    seconds = max(0.0, (now - moment).total_seconds())
    for size, unit in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= size:
            count = int(seconds // size)
            return f"{count} {unit}{'s' if count > 1 else ''} ago"
    return "just now"
