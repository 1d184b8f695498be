"""Finding a profile by what a person types: `name[@kind][:adjoint][#id]`."""

from collections.abc import Sequence

from profiles.errors import AmbiguousProfile, NoSuchProfile
from profiles.records.records import Profile


def choose(text: str, profiles: Sequence[Profile], place: str) -> Profile:
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
    return max(found, key=lambda profile: profile.newest.measured_at)


def _newest_of_each(profiles: Sequence[Profile]) -> list[Profile]:
    """Keep the newest state of each problem, device and adjoint."""
    kept: dict[tuple[str, str, str], Profile] = {}
    for profile in sorted(profiles, key=lambda profile: profile.newest.measured_at):
        kept[(profile.problem.name, profile.device.fingerprint, profile.adjoint)] = profile
    return sorted(kept.values(), key=lambda profile: profile.qualified_name)


def _matches(text: str, profile: Profile) -> bool:
    """Return whether what a person typed may mean the profile; names may hold `@` and `#` themselves."""
    for name in {profile.name, profile.problem.name, ""}:
        rest = text.removeprefix(name)
        if text.startswith(name) and (name or rest) and _narrows_to(rest, profile, bare=not name):
            return True
    return False


def _narrows_to(rest: str, profile: Profile, *, bare: bool) -> bool:
    """Return whether what follows a name, `[@kind][:adjoint][#id]`, leaves the profile in."""
    device, adjoint = profile.device, profile.adjoint
    places = ["", *(f"@{kind}" for kind in ("", device.kind, device.label, device.platform)), f"@{adjoint}"]
    for place in [*places, *(f"{place}:{adjoint}" for place in places if place)]:
        if rest.startswith(place):
            id_ = rest.removeprefix(place)
            if (not id_ and not bare) or (len(id_) > 1 and id_[0] == "#" and profile.id.startswith(id_[1:])):
                return True
            if id_ == "#" and not bare:
                return True
    return False
