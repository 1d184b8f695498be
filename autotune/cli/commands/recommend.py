"""The commands that read stored profiles: `recommend`, `profiles`."""

import dataclasses
import datetime as dt
from collections.abc import Sequence
from pathlib import Path

import profiles
from autotune.choosing import documents
from autotune.choosing.recommend import Fit, Recommendation, RecommendRequest, recommend_within
from autotune.cli import tables
from autotune.cli.opening import changing, reading
from autotune.cli.screen import Exit, Format, Screen
from autotune.errors import AutotuneError
from autotune.machine.budget import Budget, resolve_budget
from autotune.machine.device import DeviceInfo
from autotune.measuring.trial import RunSettings
from autotune.tuning import stored_choice
from autotune.tuning.lab import described_device, make_machine
from autotune.tuning.request import TuneRequest
from profiles import Profile, Status, format_bytes, format_seconds, open_store

GIB = 2**30


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RecommendOptions:
    """One call of `ckpt-tune recommend`: of which profile, what is wanted, and whether staleness is overlooked.

    `problem` is the user's own name for the problem, whose code is then compared; None compares device and versions.
    """

    profile: str
    problem: str | None
    budget: str
    margin: float | None
    request: RecommendRequest
    settings: RunSettings
    force: bool


def recommend_command(screen: Screen, options: RecommendOptions, store_url: str | None, format: Format) -> Exit:
    """Recommend from a stored profile, and say what more and less memory would buy."""
    with reading(store_url) as store:
        profile = store.profile(options.profile)
        device = _here(screen, profile, options)
        budget = resolve_budget(options.budget, device, margin=options.margin, rows=profile.measurements)
        request = dataclasses.replace(options.request, budget_bytes=budget.bytes, margin_bytes=budget.margin_bytes)
        steps = _steps(budget)
        within = [_with_budget(request, step).budget_bytes for step in (0, *steps)]
        chosen, *others = recommend_within(profile, request, within)
        nearby = dict(zip(steps, others, strict=True))
        place = store.place
    document = documents.recommend_document(profile, chosen, place)
    if format is Format.JSON:
        nearby_records = [
            documents.nearby_record(found, _with_budget(request, step).budget_bytes) for step, found in nearby.items()
        ]
        screen.json(document | {"nearby_budgets": nearby_records})
    elif format is Format.CSV:
        screen.csv(document["recommendations"], tables.RECOMMENDATION_COLUMNS)
    else:
        _print_recommended(screen, profile, chosen, nearby, budget)
    return Exit.DONE if all(choice.status is Fit.OK for choice in chosen) else Exit.NOTHING_FITS


def _here(screen: Screen, profile: Profile, options: RecommendOptions) -> DeviceInfo:
    """Read the device of today, refusing a profile of another one, of other versions, or of other code.

    Code is compared where the user named it: what a store says of where the code lies is never followed.
    """
    if options.force:
        return described_device(profile.device)
    problem, search_path = None, ()
    if options.problem is None:
        screen.say("its code was not compared with that of today: name it with --problem FILE.py:factory")
    else:
        problem, search_path = TuneRequest(problem=options.problem).located()
    machine = make_machine(options.settings, search_path=search_path)
    try:
        reasons = stored_choice.stale_reasons(profile, problem=problem, asked=machine)
        device = machine.device_info()
    finally:
        machine.close()
    if reasons:
        raise AutotuneError(
            f"the profile {profile.qualified_name} does not hold here: {'; '.join(reasons)}; tune again, "
            "or take it as it is with --force"
        )
    return device


def _steps(budget: Budget) -> list[int]:
    """Choose by how many bytes to look around a budget: one GiB, or a quarter of a small budget."""
    step = GIB if budget.bytes >= 2 * GIB else budget.bytes // 4
    return [-step, step]


def _with_budget(request: RecommendRequest, step: int) -> RecommendRequest:
    return dataclasses.replace(request, budget_bytes=request.budget_bytes + step)


def _print_recommended(
    screen: Screen,
    profile: Profile,
    chosen: Sequence[Recommendation],
    nearby: dict[int, tuple[Recommendation, ...]],
    budget: Budget,
) -> None:
    screen.line(f"{profile.qualified_name}, budget {format_bytes(budget.bytes)}")
    tables.show_recommendations(screen, chosen)
    for choice in chosen:
        if choice.between:
            screen.line(f"{choice.evidence} at {choice.case}: {choice.between}")
    screen.line()
    for step, found in nearby.items():
        more = "more" if step > 0 else "less"
        for choice, other in zip(chosen, found, strict=True):
            screen.line(f"{format_bytes(abs(step))} {more} at {choice.case}: {_bought(choice, other)}")
    fitting = [choice for choice in chosen if choice.status is Fit.OK]
    if fitting:
        for word, line in zip(("use", ""), tables.usage_lines(fitting[-1], profile.adjoint), strict=True):
            screen.line(f"{word:4}{line}")
        for line in tables.sureness(fitting[-1]):
            screen.line(f"    {line}")
    for choice in chosen:
        if choice.status is Fit.NOTHING_FITS:
            least = tables.maybe_bytes(choice.smallest_bytes) or "an unknown number of bytes"
            screen.fail(
                f"nothing fits {format_bytes(choice.budget_bytes)} at {choice.case}: the smallest stored needs {least}"
            )


def _bought(choice: Recommendation, other: Recommendation) -> str:
    """Say what another budget changes."""
    if other.status is Fit.NOTHING_FITS:
        return "nothing fits"
    if (other.checkpoints, other.tier) == (choice.checkpoints, choice.tier):
        return "nothing changes"
    text = f"{other.checkpoints} checkpoints" + (f" with the tier {other.tier}" if other.tier else "")
    if choice.run_seconds and other.run_seconds:
        share = other.run_seconds / choice.run_seconds - 1
        text += f", {format_seconds(other.run_seconds)} a call ({share:+.0%})"
    if other.recompute_factor:
        text += f", recompute {other.recompute_factor:.2f} x"
    return text


def list_command(screen: Screen, store_url: str | None, format: Format) -> Exit:
    """List the profiles of a store."""
    with reading(store_url) as store:
        found = store.summaries()
        place = store.place
    records = [documents.summary_record(one) for one in found]
    if format is Format.JSON:
        screen.json(documents.profiles_document(records, place))
    elif format is Format.CSV:
        screen.csv(records)
    elif not found:
        screen.say(f"{place} holds no profiles yet; `ckpt-tune tune PROBLEM` makes one")
    else:
        now = dt.datetime.now(dt.UTC)
        lines = [
            (
                one.name,
                one.device.kind,
                one.adjoint,
                one.cases,
                one.rows,
                tables.age(one.newest_at, now),
                f"#{one.id[:8]}",
            )
            for one in found
        ]
        screen.table(("profile", "device", "adjoint", "cases", "rows", "newest", "id"), lines)
        screen.say(f"store: {place}")
    return Exit.DONE


def show_command(screen: Screen, name: str, store_url: str | None, format: Format) -> Exit:
    """Show the fronts of one profile, what was measured, where and when."""
    with reading(store_url) as store:
        profile = store.profile(name)
    if format is Format.JSON:
        screen.json(documents.profile_document(profile))
    elif format is Format.CSV:
        screen.csv(documents.point_records(profile))
    else:
        _print_profile(screen, profile)
    return Exit.DONE


def _print_profile(screen: Screen, profile: Profile) -> None:
    newest = profile.newest
    screen.line(profile.qualified_name)
    versions = ", ".join(f"{name} {version}" for name, version in newest.versions.items())
    failed = sum(row.status is not Status.OK for row in profile.measurements)
    lines = [
        ("device", f"{profile.device.kind} ({profile.device.platform})"),
        ("memory", tables.maybe_bytes(profile.device.memory_bytes)),
        ("measured", f"{len(profile.measurements)} rows, {failed} of them failed; no row is predicted"),
        (
            "newest",
            f"{newest.measured_at:%Y-%m-%d %H:%M} UTC, {tables.age(newest.measured_at, dt.datetime.now(dt.UTC))}",
        ),
        ("host", newest.host),
        ("versions", versions),
        *((f"problem's {name}", text) for name, text in profile.problem.components.items() if text),
    ]
    screen.table(("", ""), lines)
    for case in profile.cases:
        screen.line()
        tables.show_front(screen, profile.rows(case), case, title=f"points at {case}")


def export_command(screen: Screen, name: str, path: Path, store_url: str | None) -> Exit:
    """Write the measurements of a profile to a file."""
    with reading(store_url) as store:
        profile = store.profile(name)
    written = profiles.export_table(profile, path)
    screen.say(f"wrote {len(profile.measurements)} measurements to {written}")
    return Exit.DONE


def import_command(screen: Screen, path: Path, store_url: str | None) -> Exit:
    """Read measurements from a file into a store."""
    rows = profiles.import_table(path)
    with open_store(store_url) as store:
        new = {row.key for row in rows} - store.known_keys(row.key for row in rows)
        there = store.put_all(rows) - len(new)
        already = f"; {there} were there already" if there else ""
        screen.say(f"stored {len(new)} measurements from {path} in {store.place}{already}")
    return Exit.DONE


def delete_command(screen: Screen, name: str, store_url: str | None) -> Exit:
    """Delete a profile with all its measurements."""
    with changing(store_url) as store:
        profile = store.profile(name)
        count = store.delete(profile)
        screen.say(f"deleted {count} measurements of {profile.qualified_name} from {store.place}")
    return Exit.DONE
