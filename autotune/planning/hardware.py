"""Devices side by side: what of a profile's problem fits where, by what is known of each; nothing is compiled."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from autotune.planning.bounds import with_bounds
from autotune.planning.devices import plan_device
from autotune.planning.step_costs import Notes, stored_costs
from profiles import Device, PlanRequest, PlanRow, Profile, ProfilesError, find_devices


class Profiles(Notes, Protocol):
    """The part of a store that is looked at."""

    def profiles(self) -> Iterable[Profile]:
        """Read all profiles."""
        ...


def side_by_side(
    profile: Profile, store: Profiles, catalogue: Mapping[str, Device], names: Sequence[str], request: PlanRequest
) -> tuple[PlanRow, ...]:
    """Plan a profile for several devices.

    Args:
        profile: the profile.
        store: where profiles of other devices lie, measured on them or compiled for them.
        catalogue: all devices that are known.
        names: the devices; those that the store has profiles of this problem on where there are none, as long as they
            are not the profile's own alone.
        request: the limits.

    Returns:
        The rows, of one device after the other; none where nothing can be planned and no device was named.

    Raises:
        ProfilesError: a name is not in the catalogue, or nothing can be planned for a named device.
    """
    others = list(store.profiles())
    same = [
        one for one in others if (one.problem.generation, one.adjoint) == (profile.problem.generation, profile.adjoint)
    ]
    devices = find_devices(names, catalogue)
    if not names:
        devices = [one for one in catalogue.values() if any(one.is_measured_by(other.device) for other in same)]
        if all(one.is_measured_by(profile.device) for one in devices):
            return ()
    costs = stored_costs(profile, store)
    try:
        plans = [
            with_bounds(plan_device(profile, one, request, others, None).plan, one, profile, costs) for one in devices
        ]
    except ProfilesError:
        if names:
            raise
        return ()
    return tuple(row for plan in plans for row in plan.rows)
