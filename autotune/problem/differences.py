"""How two problems differ, and a row from today: by component, with both sides named. Plain values, no jax."""

from autotune.machine.device import versions
from profiles import AdjointName, DeviceKey, Measurement, ProblemKey


def differences(row: Measurement, problem: ProblemKey, device: DeviceKey) -> list[str]:
    """Say by component how a row's problem, device and versions differ from those of today; empty when they agree."""
    found = component_differences(row.problem, problem)
    if row.device.fingerprint != device.fingerprint:
        found.append(f"device: stored {_device_text(row.device)}, here {_device_text(device)}")
    stored, here = row.versions.get("ckpt-tune"), versions().get("ckpt-tune")
    if row.adjoint is AdjointName.OURS and stored is not None and stored != here:
        found.append(f"ckpt-tune: stored {stored}, here {here}")
    return found


def component_differences(known: ProblemKey, today: ProblemKey) -> list[str]:
    """Say by component how a problem that is known differs from that of today."""
    found = []
    for name in sorted({*known.components, *today.components}):
        stored, here = known.components.get(name, "none"), today.components.get(name, "none")
        if stored != here:
            found.append(_both_sides(name, stored, here))
    return found


def _both_sides(name: str, stored: str, here: str) -> str:
    """Name a component with both its values, leaving out what is equal in a list of words."""
    left, right = stored.split(), here.split()
    if name == "versions":
        pairs = dict(zip(left[::2], left[1::2], strict=False)), dict(zip(right[::2], right[1::2], strict=False))
        return ", ".join(
            f"{package}: stored {pairs[0].get(package, 'none')}, here {pairs[1].get(package, 'none')}"
            for package in sorted({*pairs[0], *pairs[1]})
            if pairs[0].get(package) != pairs[1].get(package)
        )
    if name == "shapes" and len(left) == len(right):
        changed = [(a, b) for a, b in zip(left, right, strict=True) if a != b]
        stored, here = " ".join(a for a, _ in changed), " ".join(b for _, b in changed)
    words = {"source": "source of the module", "program": "traced program", "set": "--set values"}
    return f"{words.get(name, name)}: stored {stored or 'none'}, here {here or 'none'}"


def _device_text(device: DeviceKey) -> str:
    return device.kind if device.count == 1 else f"{device.count} x {device.kind}"
