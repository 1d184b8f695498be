"""Which of a call's arguments this process holds already, and which devices they lie on."""

import collections
from collections.abc import Sequence
from typing import Any

import jax

from autotune.machine.device import LiveBuffer


def arguments_alive(args: Any, alive: Sequence[LiveBuffer]) -> int:
    """Add up the bytes of those argument leaves for which an array of the same shape and dtype is alive.

    Args:
        args: the call's arguments, as the factory made them.
        alive: what was alive on the device before the factory was called.

    Returns:
        Bytes; each live array stands for one leaf at most.
    """
    there = collections.Counter({(buffer.shape, buffer.dtype): buffer.count for buffer in alive})
    total = 0
    for leaf in jax.tree.leaves(args):
        if not isinstance(leaf, jax.Array):
            continue
        shard = leaf.addressable_shards[0].data
        key = (tuple(shard.shape), str(shard.dtype))
        if there[key] > 0:
            there[key] -= 1
            total += shard.nbytes
    return total


def devices_of(args: Any) -> tuple[int, ...]:
    """List the local indices of the devices that the arguments span; empty where they have no data."""
    spanned = {device for leaf in jax.tree.leaves(args) if isinstance(leaf, jax.Array) for device in leaf.devices()}
    if not spanned:
        return ()
    local = jax.local_devices(backend=next(iter(spanned)).platform)
    return tuple(sorted(local.index(device) for device in spanned if device in local))
