"""Finding a profile by what a person types: `name[@kind][:adjoint][#id]`."""

from collections.abc import Sequence
from typing import TypeVar

from profiles.errors import AmbiguousProfile, NoSuchProfile
from profiles.records.records import AdjointName, Profile
from profiles.records.summary import ProfileSummary

Named = TypeVar("Named", Profile, ProfileSummary)


def choose_profile(text: str, profiles: Sequence[Named], place: str) -> Named:
    """Find the one profile that `text` names.

    Raises:
        NoSuchProfile: none is; the message lists what there is.
        AmbiguousProfile: several are that differ in device or adjoint, or in name's meaning.
    """
    found = [profile for profile in profiles if _matches(text, profile)]
    # What was compiled for a device that is not here is meant where it is named, or where nothing was measured.
    found = [profile for profile in found if not profile.device.planned] or found
    if not found:
        there = ", ".join(sorted({profile.name for profile in profiles})) or "nothing"
        raise NoSuchProfile(f"no profile is named {text!r} in the store {place}, which holds {there}")
    kinds = {(profile.problem.name, profile.device.fingerprint, profile.adjoint) for profile in found}
    if len(kinds) > 1:
        candidates = [profile.qualified_name for profile in _newest_of_each(found)]
        raise AmbiguousProfile(
            f"{len(candidates)} profiles in the store {place} answer to {text!r}; name one of {', '.join(candidates)}",
            candidates,
        )
    return max(found, key=lambda profile: profile.newest_at)


def _newest_of_each(profiles: Sequence[Named]) -> list[Named]:
    """Keep the newest state of each problem, device and adjoint."""
    kept: dict[tuple[str, str, str], Named] = {}
    for profile in sorted(profiles, key=lambda profile: profile.newest_at):
        kept[(profile.problem.name, profile.device.fingerprint, profile.adjoint)] = profile
    return sorted(kept.values(), key=lambda profile: profile.qualified_name)


def _matches(text: str, profile: Profile | ProfileSummary) -> bool:
    """Return whether what a person typed may mean the profile."""
    rest, _, id_ = text.partition("#")
    if id_ and not profile.id.startswith(id_):
        return False
    name, at, place = rest.partition("@")
    if name not in (profile.name, profile.problem.name) and (name or not id_):
        return False
    if not at:
        return True
    kind, adjoint = place, ""
    for known in AdjointName:
        if place == known or place.endswith(f":{known}"):
            kind, adjoint = place[: -len(known)].removesuffix(":"), str(known)
    device = profile.device
    return kind in ("", device.kind, device.label, device.platform) and adjoint in ("", profile.adjoint)
