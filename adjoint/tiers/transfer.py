"""What a transfer costs: seconds of handing a state over to a tier and fetching it back, as measured here."""

import os
import statistics
import time

import jax
import jax.lax as lax
import jax.numpy as jnp

from .tiers import TierName, make_tier, tier_options

STATES = 8
"""How many states are handed over and fetched in one sample."""
SAMPLES = 3


def transfer_seconds(tier: TierName, state_bytes: int, *, directory: str | os.PathLike | None = None) -> float:
    """Measure one hand-over and one fetch of a state, on the default device.

    Divided by the seconds of one step it is the `transfer_cost` of a `RecursiveCheckpointAdjoint`. What was just
    written to a file is mostly still in the system's memory as it is read: a tier larger than that memory is slower.

    Args:
        tier: "host" or "disk".
        state_bytes: the size of a state, at least 1; it is taken to be one array of float32.
        directory: where the file of the disk tier lies.

    Returns:
        Seconds a state, the median of 3 samples of 8 states.

    Raises:
        ValueError: the tier cannot be had.
        RuntimeError: the disk is full, or the directory cannot be written to.
    """
    options = tier_options(tier, STATES, None, directory, 1.0)
    assert options is not None
    made = make_tier(options)

    @jax.jit
    def there_and_back(state: jax.Array) -> jax.Array:
        store = made.open(STATES, [state], [state])
        store = lax.fori_loop(0, STATES, lambda slot, store: made.write(store, [state], slot, STATES), store)

        def fetch(count, total):
            slot = STATES - 1 - count
            return total + made.read(store, [state], slot, slot - 1)[0][-1]

        total = lax.fori_loop(0, STATES, fetch, jnp.zeros((), state.dtype))
        return total

    state = jnp.ones(max(1, -(-state_bytes // 4)), jnp.float32)
    jax.block_until_ready(there_and_back(state))
    samples = []
    for _ in range(SAMPLES):
        start = time.perf_counter()
        jax.block_until_ready(there_and_back(state))
        samples.append(time.perf_counter() - start)
    jax.effects_barrier()
    return statistics.median(samples) / STATES
