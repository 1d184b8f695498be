"""Tiers: where the first states of windows live while the device has no room for them.

A tier is opened by the forward sweep, which hands states over to its slots; the backward sweep fetches each once. What
stands for it in the compiled loops is a list of arrays, carried along, so that a fetch depends on what was handed over.

The host tier is an array in host memory (`jax.memory.Space.Host`): pinned memory on GPU and TPU; on CPU the same
memory under another name, which saves nothing. The disk tier is a file, reached by callbacks (`adjoint._disk`).
"""

import dataclasses
import os
import shutil
from collections.abc import Sequence
from typing import Any, Literal, get_args

import jax
import jax.lax as lax
import jax.numpy as jnp
import numpy as np
from jax.custom_batching import custom_vmap
from jax.experimental import io_callback

from ._disk import SHELF, bytes_a_state

TierName = Literal["host", "disk"]
INT = jnp.int32
MOST_STATES = 2**30
"""More than any tier holds: the loops count in 32 bits."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TierOptions:
    """What the user asked for: which tier, how many states it may hold or how many bytes, and where it lies."""

    tier: TierName
    windows: int | None
    tier_bytes: int | None
    directory: str | None
    transfer_cost: float

    def capacity(self, held: Sequence[Any], max_steps: int | None) -> int:
        """Return how many states the tier may hold.

        Args:
            held: the leaves of a state that it holds.
            max_steps: bound on the steps, None for none.

        Raises:
            ValueError: not even one.
        """
        if self.windows is not None:
            found = self.windows
        else:
            assert self.tier_bytes is not None
            each = bytes_of(held)
            found = self.tier_bytes // max(each, 1)
            if found < 1:
                raise ValueError(f"`tier_bytes={self.tier_bytes}` is less than one state, which takes {each} bytes.")
        return min(found, MOST_STATES if max_steps is None else max_steps)


def tier_options(tier: Any, windows: Any, tier_bytes: Any, directory: Any, transfer_cost: float) -> TierOptions | None:
    """Check what the user asked for; None where no tier is.

    Raises:
        ValueError: an unknown tier, not exactly one of `windows` and `tier_bytes`, a directory that is missing, or
            named for a tier that needs none.
    """
    if tier is None:
        for name, value in (("windows", windows), ("tier_bytes", tier_bytes), ("directory", directory)):
            if value is not None:
                raise ValueError(f'`{name}={value!r}` needs a tier to hold states in: `tier="host"` or `tier="disk"`.')
        return None
    if tier not in get_args(TierName):
        raise ValueError(f'`tier` must be "host" or "disk", got {tier!r}.')
    if (windows is None) == (tier_bytes is None):
        raise ValueError(
            f"`tier={tier!r}` needs either `windows`, the number of states it may hold, or `tier_bytes`; got "
            f"`windows={windows!r}` and `tier_bytes={tier_bytes!r}`."
        )
    for name, value in (("windows", windows), ("tier_bytes", tier_bytes)):
        if value is not None and (type(value) is not int or value < 1):
            raise ValueError(f"`{name}` must be a Python integer of at least 1, got {value!r}.")
    if not transfer_cost >= 0:
        raise ValueError(f"`transfer_cost` must be at least 0 steps, got {transfer_cost!r}.")
    if tier == "host" and directory is not None:
        raise ValueError(f'`directory={directory!r}` is for `tier="disk"`; `tier="host"` has none.')
    if tier == "disk":
        if directory is None:
            raise ValueError('`tier="disk"` needs `directory`, where its file may lie.')
        directory = os.path.abspath(os.fspath(directory))
        if not os.path.isdir(directory) or not os.access(directory, os.W_OK | os.X_OK):
            raise ValueError(f"`directory={directory!r}` is no directory that can be written to.")
    return TierOptions(
        tier=tier, windows=windows, tier_bytes=tier_bytes, directory=directory, transfer_cost=float(transfer_cost)
    )


def bytes_of(held: Sequence[Any]) -> int:
    """Count the bytes of arrays."""
    return sum(x.size * x.dtype.itemsize for x in map(jax.typeof, held))


@custom_vmap
def _unmapped(values: Any) -> Any:
    return values


@_unmapped.def_vmap
def _refuse_vmap(axis_size: int, in_batched: Any, values: Any) -> Any:
    raise NotImplementedError(
        "A solve with windows cannot be differentiated under `jax.vmap` one lane at a time, `vmap(grad(...))`: lanes "
        "would hand over their states at different steps. Differentiate the mapped solve instead, `grad` of the sum "
        "or mean of `vmap(...)`: its windows then hold the states of all lanes."
    )


class HostTier:
    """Slots in host memory."""

    def __init__(self, options: TierOptions) -> None:
        """Need nothing."""
        del options

    def arrays(self, count: int) -> int:
        """Return how many arrays stand for the tier, for states of `count` leaves."""
        return count

    def open(self, capacity: int, held: Sequence[Any]) -> list[Any]:
        """Return empty slots for states like `held`."""
        return [_to_host(jnp.zeros((capacity, *x.shape), x.dtype)) for x in held]

    def write(self, store: Sequence[Any], values: Sequence[Any], slot: Any) -> list[Any]:
        """Hand a state over to a slot."""
        values, slot = _unmapped((list(values), slot))
        return [lax.dynamic_update_index_in_dim(xs, _to_host(x), slot, 0) for xs, x in zip(store, values, strict=True)]

    def read(self, store: Sequence[Any], held: Sequence[Any], slot: Any, ahead: Any) -> list[Any]:
        """Fetch a state."""
        del held, ahead
        return [
            jax.device_put(lax.dynamic_index_in_dim(xs, slot, 0, keepdims=False), jax.memory.Space.Device)
            for xs in store
        ]

    def close(self, store: Sequence[Any], after: Any) -> None:
        """Do nothing: the slots end with the program's values."""


def _to_host(x: Any) -> Any:
    return jax.device_put(x, jax.memory.Space.Host)


def _narrow(x: Any) -> Any:
    """Write an array in words of 32 bits at most: a callback's thread may not know that x64 is enabled, and rounds."""
    if x.dtype == jnp.complex128:
        x = jnp.stack([x.real, x.imag], axis=-1)
    return lax.bitcast_convert_type(x, jnp.uint32) if x.dtype.itemsize == 8 and x.dtype != jnp.complex64 else x


def _widened(x: Any, like: Any) -> Any:
    """Undo `_narrow`."""
    if like.dtype == jnp.complex128:
        parts = lax.bitcast_convert_type(x, jnp.float64)
        return lax.complex(parts[..., 0], parts[..., 1])
    return lax.bitcast_convert_type(x, like.dtype) if x.dtype != like.dtype else x


class DiskTier:
    """Slots in a file, opened anew by every solve that runs; what stands for it is its number, and a token."""

    def __init__(self, options: TierOptions) -> None:
        """Keep the directory."""
        assert options.directory is not None
        self._directory = options.directory

    def arrays(self, count: int) -> int:
        """Return how many arrays stand for the tier."""
        del count
        return 2

    def open(self, capacity: int, held: Sequence[Any]) -> list[Any]:
        """Open a file for states like `held`.

        Raises:
            ValueError: too little space, as far as that can be told before the program runs.
        """
        directory = self._directory
        sizes = [bytes_of([x]) for x in held]
        each, free = bytes_a_state(sizes), shutil.disk_usage(directory).free
        if capacity * each > free:
            raise ValueError(
                f"{capacity} states of {each} bytes do not fit into {directory!r}, where {free} bytes are free: "
                "hold fewer windows, or name another directory."
            )

        def opened(*first):
            del first
            return np.int32(SHELF.open(directory, capacity, sizes))

        # The argument keeps the call within the solve: a callback without any might be moved out of a loop around it.
        first = [_unmapped(jnp.ravel(_narrow(x))[:1]) for x in held[:1]]
        return [io_callback(opened, jax.ShapeDtypeStruct((), INT), *first), INT(0)]

    def write(self, store: Sequence[Any], values: Sequence[Any], slot: Any) -> list[Any]:
        """Hand a state over to a slot."""
        values, slot = _unmapped(([_narrow(x) for x in values], slot))

        def written(number, token, slot, *values):
            SHELF.write(int(number), int(slot), [np.asarray(x) for x in values])
            return np.int32(token + 1)

        number, token = store
        return [number, io_callback(written, jax.ShapeDtypeStruct((), INT), number, token, slot, *values)]

    def read(self, store: Sequence[Any], held: Sequence[Any], slot: Any, ahead: Any) -> list[Any]:
        """Fetch a state whose leaves have the shapes and dtypes of `held`."""
        structs = [jax.eval_shape(_narrow, x) for x in held]
        plain = [(x.shape, np.dtype(x.dtype)) for x in structs]

        def found(number, token, slot, ahead):
            del token
            return SHELF.read(int(number), int(slot), int(ahead), plain)

        read = io_callback(found, structs, *store, slot, ahead)
        return [_widened(x, like) for x, like in zip(read, held, strict=True)]

    def close(self, store: Sequence[Any], after: Any) -> None:
        """Give the file back once `after` is known."""
        io_callback(lambda number, after: SHELF.reversed(int(number)), None, store[0], after)


def make_tier(options: TierOptions) -> HostTier | DiskTier:
    """Make the tier that was asked for."""
    return HostTier(options) if options.tier == "host" else DiskTier(options)
