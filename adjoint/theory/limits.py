"""How many states may be held, as people say it: a count, all, or an amount of memory."""

import dataclasses
import numbers
import re
from typing import Any, Literal

from .schedule import default_checkpoints

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_UNITS |= {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}

Count = int | Literal["all"]


@dataclasses.dataclass(frozen=True, slots=True)
class Room:
    """An amount of memory for states, of which so many are held as fit."""

    room_bytes: int


def asked_for(checkpoints: Any, checkpoint_bytes: Any) -> int | Literal["all"] | Room | None:
    """Return what was asked for, checked.

    Args:
        checkpoints: a count, at least 1, "all", or None.
        checkpoint_bytes: bytes in the place of a count: an integer, a text such as "2GiB", or None.

    Raises:
        ValueError: both, or neither a count nor an amount of memory.
    """
    if checkpoint_bytes is not None:
        if checkpoints is not None:
            raise ValueError(
                f"Either `checkpoints` or `checkpoint_bytes`, the memory of all of them, may be given. "
                f"Got `checkpoints={checkpoints!r}` and `checkpoint_bytes={checkpoint_bytes!r}`."
            )
        return Room(_bytes_of("checkpoint_bytes", checkpoint_bytes))
    if checkpoints is None or (isinstance(checkpoints, str) and checkpoints == "all"):
        return checkpoints
    count = integer("checkpoints", checkpoints, 'an integer, "all" or None')
    if count < 1:
        raise ValueError(f"Must have at least one checkpoint, got `checkpoints={count}`.")
    return count


def count_and_room(asked: Any, max_steps: int | None) -> tuple[int, int | None]:
    """Return the count of checkpoints, and the bytes that decide it instead once a state's are known; None elsewhere.

    Args:
        asked: from `asked_for`.
        max_steps: bound on the steps, at least 0; None for none.

    Raises:
        ValueError: the count follows from the bound, and there is none.
    """
    if isinstance(asked, int):
        return asked, None
    if isinstance(asked, Room):
        return 1, asked.room_bytes
    if max_steps is not None:
        most = max(max_steps, 1)
        return most if asked == "all" else default_checkpoints(most), None
    if asked == "all":
        raise ValueError(
            '`checkpoints="all"` needs `max_steps`. '
            "JAX needs to know how much memory to allocate for the backward pass."
        )
    raise ValueError(
        "Must specify either `max_steps` or `checkpoints` in `checkpointed_while_loop(..., checkpoints=None, "
        "max_steps=None)`. JAX needs to know how much memory to allocate for the backward pass."
    )


def integer(name: str, value: Any, kinds: str = "an integer or None") -> int:
    """Return an integer as Python's.

    Raises:
        ValueError: it is none.
    """
    # NumPy's integers are among them; arrays and traced values are not.
    if isinstance(value, numbers.Integral) and not isinstance(value, bool):
        return int(value)
    raise ValueError(f"`{name}` must be {kinds}, got {value!r}.")


def _bytes_of(name: str, amount: Any) -> int:
    found = None
    if isinstance(amount, str):
        match = re.fullmatch(r"\s*([0-9.]+(?:e[0-9]+)?)\s*([a-z]*)\s*", amount, re.IGNORECASE)
        try:
            found = None if match is None else int(float(match[1]) * _UNITS[match[2].upper()])
        except (KeyError, ValueError, OverflowError):
            found = None
    else:
        found = integer(name, amount, 'a number of bytes, or a text such as "2GiB"')
    if found is None or found < 1:
        raise ValueError(f'`{name}` must be a number of bytes, at least 1, or a text such as "2GiB"; got {amount!r}.')
    return found
