"""A program on two devices: the gradient of a loop, mapped or sharded, against a plain scan.

Run as `python -m tests.adjoint.two_devices WHAT TIER DIRECTORY`; prints "right" or raises.
"""

import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from .loop_programs import LoopProgram
from .nestings import NESTINGS, Kernel, weighed
from .parts import Log
from .plain import assert_close, plain_while_loop
from .programs import loop_of

STARTS = np.array([[0.4, -0.7], [0.1, 0.3]])
FACTOR = 1.3


def mapped(gradient: Kernel) -> Any:
    """One lane on each device."""
    return jax.pmap(gradient, in_axes=(0, None))(jnp.asarray(STARTS), jnp.asarray(FACTOR))


def sharded_map(gradient: Kernel) -> Any:
    """One lane on each device, by `jax.shard_map`."""
    mesh = Mesh(np.array(jax.devices()), ("lane",))
    split, whole = PartitionSpec("lane"), PartitionSpec()

    def lane(y: Any, w: Any) -> Any:
        return jax.tree.map(lambda x: x[None], gradient(y[0], w))

    run = jax.shard_map(lane, mesh=mesh, in_specs=(split, whole), out_specs=split, check_vma=False)
    return jax.jit(run)(jnp.asarray(STARTS), jnp.asarray(FACTOR))


def sharded(gradient: Kernel) -> Any:
    """A mapped loop whose lanes the compiler splits over the devices."""
    mesh = Mesh(np.array(jax.devices()), ("lane",))
    split = NamedSharding(mesh, PartitionSpec("lane"))
    return jax.jit(gradient)(jax.device_put(STARTS, split), jnp.asarray(FACTOR))


def lanes(kernel: Kernel) -> Kernel:
    """Map a kernel, and differentiate the sum over lanes."""
    return lambda y, w: jnp.sum(jax.vmap(weighed(kernel), in_axes=(0, None))(y, w))


WHAT: dict[str, tuple[Callable[[Kernel], Any], Callable[[Kernel], Kernel]]] = {
    "pmap": (mapped, weighed),
    "shard_map": (sharded_map, weighed),
    "sharded jit": (sharded, lanes),
    "scan in pmap": (mapped, lambda kernel: weighed(NESTINGS["scan"](kernel))),
}


def main(what: str, tier: str, directory: str) -> None:
    """Compare, and print what came of it."""
    loop = loop_of(None if tier == "none" else tier, 2, directory)
    place, make = WHAT[what]
    found, expected = (
        place(jax.grad(make(LoopProgram(leaves=("int8",)).kernel(which, which, Log())), argnums=(0, 1)))
        for which in (loop, plain_while_loop)
    )
    assert_close(found, expected, 1e-9)
    print("right")


if __name__ == "__main__":
    with jax.enable_x64(True):
        main(*sys.argv[1:])
