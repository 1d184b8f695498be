"""Which problem, and which device: the keys of what was measured, and how their parts are read."""

import dataclasses
import hashlib
import json
import operator
from collections.abc import Callable, Mapping
from typing import Any

from profiles.errors import RecordError
from profiles.records.values import clean_text


def digest(value: Any) -> str:
    """Hash a JSON-serialisable value to 16 hexadecimal digits, independent of the order of mapping keys."""
    text = json.dumps(value, sort_keys=True, default=str, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


SWEPT_COMPONENTS = frozenset({"program", "set", "shapes", "x64"})
"""Components of a problem that may differ between the rows of one sweep."""


def integer(name: str, value: Any) -> int:
    """Read a count as a plain int (numpy's integers included), refusing what is negative or beyond 64 bits."""
    number = operator.index(value)
    if not 0 <= number < 2**63:
        raise RecordError(f"{name} must be at least 0 and below 2**63, found {number}; unknown is None")
    return number


def sorted_mapping(mapping: Mapping[str, Any], read: Callable[[Any], Any]) -> dict[str, Any]:
    """Read a mapping into a dictionary sorted by key, so that equal rows also print alike."""
    plain = {clean_text(key): value for key, value in mapping.items()}
    return {name: read(value) for name, value in sorted(plain.items())}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ProblemKey:
    """Which problem was measured, by named components so that a mismatch can be explained to a person.

    `name` is what people call it (`spirals:make`); `components` maps a component's name (`program`, `source`, `set`,
    `shapes`, `x64`) to its digest or short text. Two keys are the same problem when their components are equal.
    """

    name: str
    components: Mapping[str, str]

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", clean_text(self.name))
        object.__setattr__(self, "components", sorted_mapping(self.components, clean_text))

    @property
    def fingerprint(self) -> str:
        """One digest of name and components, to index by; show people `components` instead."""
        return digest([self.name, dict(self.components)])

    @property
    def generation(self) -> str:
        """One digest of name and the components that a sweep over `--set` values leaves alone.

        All rows of one sweep share it, though their fingerprints differ where a swept value (a batch size, a solver)
        changes the program and its shapes.
        """
        kept = {name: text for name, text in self.components.items() if name not in SWEPT_COMPONENTS}
        return digest([self.name, kept])


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DeviceKey:
    """On what device a row was measured. `memory_bytes` is the device's total, None where it is not reported.

    `planned` marks a device that was not there: its programs were compiled for it, and none was run.
    """

    platform: str
    kind: str
    count: int = 1
    memory_bytes: int | None = None
    planned: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "platform", clean_text(self.platform))
        object.__setattr__(self, "kind", clean_text(self.kind))
        object.__setattr__(self, "count", integer("count", self.count))
        object.__setattr__(self, "planned", bool(self.planned))
        if self.memory_bytes is not None:
            object.__setattr__(self, "memory_bytes", integer("memory_bytes", self.memory_bytes))

    @property
    def label(self) -> str:
        """The device as people read it: how many where there are several, and whether it was only planned for."""
        kind = self.kind if self.count == 1 else f"{self.count}x{self.kind}"
        return f"{kind} (planned)" if self.planned else kind

    @property
    def fingerprint(self) -> str:
        """One digest of platform, kind and count; memory is left out since its reading may differ by a few pages."""
        return digest([self.platform, self.kind, self.count, *(["planned"] if self.planned else [])])
