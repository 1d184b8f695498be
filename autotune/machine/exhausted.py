"""What a message about exhausted memory says in figures: what was asked for, what was free, what there is. No jax.

Sentences differ between backends and change with their versions, so each figure is looked up by itself, and one that
is not there is None. XLA writes multiples of 1024 by one letter (`1.50G`), with or without `iB` behind it.
"""

import dataclasses
import re

_SIZE = r"([0-9]+(?:\.[0-9]+)?)\s?(bytes|[KMGTP]?i?B?)(?![A-Za-z0-9])"
_ASKED = (
    re.compile(r"allocate request for [^(]*\(([0-9]+)(B)\)"),
    re.compile(rf"(?:allocating|to allocate|to reserve) {_SIZE}", re.IGNORECASE),
    re.compile(rf"\bUsed {_SIZE} of"),
)  # fmt: skip
_FREE = re.compile(rf"There are {_SIZE} free")
_OF = re.compile(rf"\bUsed [0-9.]+[A-Za-z]* of {_SIZE}")
_POWERS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4, "P": 5}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Exhausted:
    """The figures of a message, in bytes; None for what it does not say.

    `planned` tells that a program was refused as it was compiled: `asked_bytes` is then all that it needs, and
    `limit_bytes` all that there is.
    """

    asked_bytes: int | None = None
    free_bytes: int | None = None
    limit_bytes: int | None = None
    planned: bool = False


def read_exhausted(text: str) -> Exhausted:
    """Read the figures of a message of XLA (CPU, GPU, TPU) or of NumPy about memory that is not there."""
    limit = _bytes(_OF.search(text))
    asked = next((found for pattern in _ASKED if (found := _bytes(pattern.search(text))) is not None), None)
    return Exhausted(
        asked_bytes=asked, free_bytes=_bytes(_FREE.search(text)), limit_bytes=limit, planned=limit is not None
    )


def _bytes(found: re.Match[str] | None) -> int | None:
    if found is None:
        return None
    number, unit = found.groups()
    return int(float(number) * 1024 ** _POWERS[unit[:1] if unit != "bytes" and unit != "B" else ""])
