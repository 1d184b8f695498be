"""Tiers: where the first states of windows live while the device has no room for them.

A tier is opened by the forward sweep, which hands states over to its slots; the backward sweep fetches each once. What
stands for it in the compiled loops is a list of arrays, carried along, so that a fetch depends on what was handed over.

The host tier is an array in host memory (`jax.memory.Space.Host`): pinned memory on GPU and TPU; on CPU the same
memory under another name, which saves nothing. The disk tier is a file (`adjoint.tiers.disk`), reached by calls of
the host (`adjoint.tiers.host_call`).
"""

import dataclasses
import functools
import math
import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, get_args

import jax
import jax.lax as lax
import jax.numpy as jnp
import numpy as np
from jax.custom_batching import custom_vmap

from .disk import SHELF, bytes_a_state
from .host_call import Refused, call_host

TierName = Literal["host", "disk"]
INT = jnp.int32
LEAST_ON_HOST = 2
"""Slots that are made in host memory at least: XLA does not compile for a GPU what reads the only one there."""
MOST_STATES = 2**30
"""More than any tier holds: the loops count in 32 bits."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TierOptions:
    """What the user chose: which tier, how many states it may hold or how many bytes, and where it lies."""

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
            each = sum(sizes_of(map(jax.typeof, held)))
            found = self.tier_bytes // max(each, 1)
            if found < 1:
                raise ValueError(f"`tier_bytes={self.tier_bytes}` is less than one state, which takes {each} bytes.")
        return min(found, MOST_STATES if max_steps is None else max_steps)


def tier_options(tier: Any, windows: Any, tier_bytes: Any, directory: Any, transfer_cost: float) -> TierOptions | None:
    """Check what the user chose; return None where that is no tier.

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
            f"`tier={tier!r}` needs either `windows`, the number of states it may hold, or `tier_bytes`. "
            f"Got `windows={windows!r}` and `tier_bytes={tier_bytes!r}`."
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
            raise ValueError(f"`directory={directory!r}` is not a directory that can be written to.")
    return TierOptions(
        tier=tier, windows=windows, tier_bytes=tier_bytes, directory=directory, transfer_cost=float(transfer_cost)
    )


def sizes_of(types: Iterable[Any]) -> list[int]:
    """Count the bytes of each of some arrays, from their types."""
    return [x.size * x.dtype.itemsize for x in types]


ONE_LANE = (
    "A solve with windows cannot be differentiated under `jax.vmap` one lane at a time, `vmap(grad(...))`. "
    "Lanes would hand over their states at different steps. "
    "Differentiate the mapped solve instead, `grad` of the sum or mean of `vmap(...)`; "
    "its windows then hold the states of all lanes."
)
NO_TANGENTS = (
    'A solve with windows in a file (`tier="disk"`) cannot be differentiated twice. '
    "The file holds its states, not their tangents. "
    'For a Hessian use `tier="host"`, or no tier.'
)
REFUSED = Refused(batching=ONE_LANE, differentiation=NO_TANGENTS)


class HostTier:
    """Slots in host memory; of leaves that are one number (a counter, a time) in the device's.

    XLA does not compile for a GPU what reads and writes single numbers there, and they weigh nothing. A leaf with one
    axis has a second one there: slots side by side in one tile, which XLA moves whole, do not compile for a TPU where
    their numbers are shorter than 32 bits.
    """

    def __init__(self, options: TierOptions) -> None:
        """Need nothing."""
        del options

    def arrays(self, count: int) -> int:
        """Return how many arrays stand for the tier, for states of `count` leaves."""
        return count

    def open(self, capacity: int, held: Sequence[Any], operands: Sequence[Any]) -> list[Any]:
        """Return empty slots for states like `held`, of a loop with such operands."""
        return _empty_on_host(capacity, [_apart(x) for x in held], list(operands))

    def write(self, store: Sequence[Any], values: Sequence[Any], slot: Any, capacity: int) -> list[Any]:
        """Hand a state over to one of `capacity` slots."""
        del capacity
        return [_written(xs, _apart(x), slot) for xs, x in zip(store, values, strict=True)]

    def read(self, store: Sequence[Any], held: Sequence[Any], slot: Any, ahead: Any) -> list[Any]:
        """Fetch a state."""
        del ahead
        read = [jax.device_put(_read(xs, slot), jax.memory.Space.Device) for xs in store]
        return [jnp.reshape(x, like.shape) for x, like in zip(read, held, strict=True)]


def _apart(x: Any) -> Any:
    """Give a leaf with one axis, and more than one number, an axis before it, so that no two slots share a tile."""
    return x[None] if x.ndim == 1 and x.size > 1 else x


def _like_slots(x: Any, shape: Sequence[int]) -> Any:
    """Move an array to the memory in which the slots lie for states of a shape."""
    return jax.device_put(x, jax.memory.Space.Host) if math.prod(shape) > 1 else x


# JAX indexes a mapped array by a gather, whose indices would have to lie in host memory too; here lanes are one more
# axis, so that a slice remains a slice.


@functools.cache
def _update(axis: int) -> Callable[[Any, Any, Any], Any]:
    """Return a function that writes into slots along an axis; axes before it are lanes."""

    @custom_vmap
    def update(store: Any, value: Any, slot: Any) -> Any:
        return lax.dynamic_update_index_in_dim(store, _like_slots(value, value.shape[axis:]), slot, axis)

    @update.def_vmap
    def _(size: int, batched: Any, store: Any, value: Any, slot: Any) -> Any:
        if batched[2]:
            raise NotImplementedError(ONE_LANE)
        store, value = (
            x if b else jnp.broadcast_to(x, (size, *x.shape)) for x, b in zip((store, value), batched[:2], strict=True)
        )
        return _update(axis + 1)(store, value, slot), True

    return update


@functools.cache
def _index(axis: int) -> Callable[[Any, Any], Any]:
    """Return a function that reads from slots along an axis."""

    @custom_vmap
    def index(store: Any, slot: Any) -> Any:
        return lax.dynamic_index_in_dim(store, slot, axis, keepdims=False)

    @index.def_vmap
    def _(size: int, batched: Any, store: Any, slot: Any) -> Any:
        del size
        if batched[1]:
            raise NotImplementedError(ONE_LANE)
        return _index(axis + 1)(store, slot), True

    return index


# JAX makes the zeros that it puts in the place of a tangent on the device, whatever memory the value lies in. So the
# tangents of what lies in host memory are made here (forward over reverse, for a Hessian).


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _empty_on_host(capacity: int, held: list[Any], operands: list[Any]) -> list[Any]:
    """Return room for states; it takes the operands too: whichever is differentiated, the room has a tangent."""
    del operands
    # Spread over the slots where they lie: jax 0.10's XLA would make zeros for all of them on the device first.
    capacity = max(capacity, LEAST_ON_HOST)
    return [lax.broadcast(_like_slots(jnp.zeros((), x.dtype), x.shape), (capacity, *x.shape)) for x in held]


@_empty_on_host.defjvp
def _(capacity: int, primals: Any, tangents: Any) -> Any:
    return _empty_on_host(capacity, *primals), _empty_on_host(capacity, tangents[0], [])


@jax.custom_jvp
def _written(store: Any, value: Any, slot: Any) -> Any:
    return _update(0)(store, value, slot)


@_written.defjvp
def _(primals: Any, tangents: Any) -> Any:
    of_store, of_value, _ = tangents
    return _written(*primals), _written(_like_slots(of_store, of_value.shape), of_value, primals[2])


@jax.custom_jvp
def _read(store: Any, slot: Any) -> Any:
    return _index(0)(store, slot)


@_read.defjvp
def _(primals: Any, tangents: Any) -> Any:
    return _read(*primals), _read(tangents[0], primals[1])


class DiskTier:
    """Slots in a file; what stands for it is the number of the solve there, 0 before its first state, and a token.

    The first write opens the solve, so that what the file holds and the number by which it is found come out of the
    same sweep: however JAX moves that sweep about (out of a `lax.scan` around it, say), they move together.
    """

    def __init__(self, options: TierOptions) -> None:
        """Keep the directory."""
        assert options.directory is not None
        self._directory = options.directory

    def arrays(self, count: int) -> int:
        """Return how many arrays stand for the tier."""
        del count
        return 2

    def open(self, capacity: int, held: Sequence[Any], operands: Sequence[Any]) -> list[Any]:
        """Return what stands for the tier before anything was handed over.

        Raises:
            ValueError: too little space, as far as that is known before the program runs.
        """
        del operands
        each = bytes_a_state(sizes_of(jax.typeof(_bare(x)) for x in held))
        free = shutil.disk_usage(self._directory).free
        if capacity * each > free:
            raise ValueError(
                f"{capacity} states of {each} bytes do not fit into {self._directory!r}, where {free} bytes are free. "
                "Hold fewer windows, or name another directory."
            )
        return [INT(0), INT(0)]

    def write(self, store: Sequence[Any], values: Sequence[Any], slot: Any, capacity: int) -> list[Any]:
        """Hand a state over to one of `capacity` slots."""
        directory = self._directory

        def written(number, token, slot, *values):
            number = int(number) or SHELF.open(directory, capacity, [x.nbytes for x in values])
            SHELF.write(number, int(slot), values)
            return np.int32(number), token + np.int32(1)

        return call_host(written, [_INT32, _INT32], *store, slot, *map(_bare, values), refused=REFUSED)

    def read(self, store: Sequence[Any], held: Sequence[Any], slot: Any, ahead: Any) -> list[Any]:
        """Fetch a state with leaves like `held`; `ahead` is the slot of the one that comes next, -1 for none."""
        structs = [jax.eval_shape(lambda x: _narrow(_bare(x)), x) for x in held]
        plain = [(x.shape, np.dtype(x.dtype)) for x in structs]

        def found(number, token, slot, ahead):
            del token
            return SHELF.read(int(number), int(slot), int(ahead), plain)

        read = call_host(found, structs, *store, slot, ahead, refused=REFUSED)
        return [_like(_widened(x, jax.eval_shape(_bare, like)), like) for x, like in zip(read, held, strict=True)]


_INT32 = jax.ShapeDtypeStruct((), INT)


def _bare(x: Any) -> Any:
    """Return the integers of an array of typed PRNG keys, any other array as it is."""
    return jax.random.key_data(x) if _is_key(x) else x


def _is_key(x: Any) -> bool:
    return bool(jnp.issubdtype(x.dtype, jax.dtypes.prng_key))


def _like(x: Any, like: Any) -> Any:
    """Undo `_bare`."""
    if not _is_key(like):
        return x
    found: list[Any] = []
    jax.eval_shape(lambda key: found.append(jax.random.key_impl(key)), like)
    return jax.random.wrap_key_data(x, impl=found[0])


def _narrow(x: Any) -> Any:
    """Write an array in words of 32 bits: a result may come from a thread that does not know that x64 is enabled."""
    if x.dtype == jnp.complex128:
        x = jnp.stack([x.real, x.imag], axis=-1)
    return lax.bitcast_convert_type(x, jnp.uint32) if x.dtype.itemsize == 8 and x.dtype != jnp.complex64 else x


def _widened(x: Any, like: Any) -> Any:
    """Read an array of words of 32 bits as one of the dtype of `like`."""
    if like.dtype == jnp.complex128:
        parts = lax.bitcast_convert_type(x, jnp.float64)
        return lax.complex(parts[..., 0], parts[..., 1])
    return lax.bitcast_convert_type(x, like.dtype) if x.dtype != like.dtype else x


def make_tier(options: TierOptions) -> HostTier | DiskTier:
    """Make the tier that the options name."""
    return HostTier(options) if options.tier == "host" else DiskTier(options)
