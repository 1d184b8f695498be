"""Copies between device and host memory, alone and inside a loop: what a slower tier for checkpoints would cost.

copy    seconds and bandwidth of device to pinned host memory and back, by size
loop    a jitted loop that writes a state to a slot of a buffer at every pass and reads it back in the reverse order;
        the buffer lies in device or in host memory; results must be equal, and the planned device bytes show whether
        the buffer has really left the device

A backend without a host memory space, or one that refuses such a loop, is a row with its message, not a failure.
"""

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rows import Table, parser

REPEATS = 7


def seconds(call: Callable[[], Any]) -> list[float]:
    """Time a call, warmed up once, every sample kept."""
    jax.block_until_ready(call())
    samples = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        jax.block_until_ready(call())
        samples.append(time.perf_counter() - start)
    return samples


def copies(sizes: list[int], device: Any, table: Table) -> bool:
    """Measure both directions; True where what came back differs."""
    on_device = jax.sharding.SingleDeviceSharding(device)
    on_host = jax.sharding.SingleDeviceSharding(device, memory_kind="pinned_host")
    broken = False
    for size in sizes:
        array = jax.device_put(np.arange(size // 4, dtype=np.float32), on_device)
        there = jax.device_put(array, on_host)
        broken |= not np.array_equal(np.asarray(jax.device_put(there, on_device)), np.asarray(array))
        for direction, source, target in (("to host", array, on_host), ("to device", there, on_device)):
            samples = seconds(lambda source=source, target=target: jax.device_put(source, target))
            median = float(np.median(samples))
            table.add(
                what="copy", direction=direction, buffer="", state_bytes=size, slots=None, seconds=median,
                bytes_per_second=size / median, planned_bytes=None, peak_bytes=None, samples=samples, message="",
            )  # fmt: skip
    return broken


def loop(space: Any, slots: int) -> Callable[[jax.Array], jax.Array]:
    """Make the loop: `slots` states are stored one after the other, then summed with weights in the reverse order."""

    def run(state: jax.Array) -> jax.Array:
        buffer = jax.device_put(jnp.zeros((slots, *state.shape), state.dtype), space)

        def store(index, carry):
            state, buffer = carry
            kept = jax.device_put(state[None], space)
            start = jax.device_put((index,) + (0,) * state.ndim, space)
            return jnp.sin(state) + 0.5, jax.lax.dynamic_update_slice(buffer, kept, start)

        def use(index, total):
            start = jax.device_put((slots - 1 - index,) + (0,) * state.ndim, space)
            kept = jax.lax.dynamic_slice(buffer, start, (1, *state.shape))
            return 0.5 * total + jax.device_put(kept, jax.memory.Space.Device)[0]

        _, buffer = jax.lax.fori_loop(0, slots, store, (state, buffer))
        return jax.lax.fori_loop(0, slots, use, jnp.zeros_like(state))

    return run


def loops(size: int, slots: int, device: Any, table: Table) -> bool:
    """Run the loop with its buffer in either memory; True where the results differ."""
    state = jax.device_put(jnp.linspace(0.0, 1.0, size // 4, dtype=jnp.float32), device)
    results: dict[str, np.ndarray] = {}
    for name, space in (("device", jax.memory.Space.Device), ("host", jax.memory.Space.Host)):
        row: dict[str, Any] = {"what": "loop", "direction": "", "buffer": name, "state_bytes": size, "slots": slots}
        try:
            compiled = jax.jit(loop(space, slots)).lower(state).compile()
            samples = seconds(lambda compiled=compiled: compiled(state))
        except Exception as error:
            table.add(
                **row, seconds=None, bytes_per_second=None, planned_bytes=None, peak_bytes=None, samples=None,
                message=f"{type(error).__name__}: {str(error).splitlines()[0]}",
            )  # fmt: skip
            continue
        results[name] = np.asarray(compiled(state))
        planned = compiled.memory_analysis()
        assert planned is not None
        statistics = device.memory_stats() or {}
        median = float(np.median(samples))
        table.add(
            **row, seconds=median, bytes_per_second=2 * slots * size / median, samples=samples, message="",
            planned_bytes=planned.temp_size_in_bytes + planned.argument_size_in_bytes + planned.output_size_in_bytes,
            peak_bytes=statistics.get("peak_bytes_in_use"),
        )  # fmt: skip
    return len(results) == 2 and not np.array_equal(results["device"], results["host"])


def main() -> int:
    """Measure copies and loops; 1 where a result differs."""
    options = parser(__doc__).parse_args()
    device = jax.local_devices(backend=options.platform)[0]
    table = Table(options.out / "host.csv", {"platform": device.platform, "device": device.device_kind})
    sizes = [2**20] if options.quick else [2**20, 2**23, 2**26, 2**28]
    kinds = {memory.kind for memory in device.addressable_memories()}
    broken = False
    if "pinned_host" in kinds:
        # Larger buffers first: the peak that the backend reports only ever rises, so `host` must follow `device`
        # with a smaller one to be seen; its planned bytes are the figure to compare.
        broken |= copies(sizes, device, table)
    else:
        print(f"  no pinned_host memory on this device; it has {', '.join(sorted(kinds))}")
    for size in sizes:
        broken |= loops(size, 8 if options.quick else 32, device, table)
    return int(broken)


if __name__ == "__main__":
    raise SystemExit(main())
