"""Windows in host memory and on disk, on this device: the bytes of the device, seconds, and what a transfer costs.

One loop is differentiated with few states on the device, then with the same and a tier. Broken is a gradient that
differs from the one without a tier in any bit, and, on an accelerator, a program that needs more device bytes than
without a tier by more than three states. `host_bytes` are what the compiler plans in host memory.
"""

import sys
import tempfile
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rows import Table, parser

import adjoint

SPARE_STATES = 3
CHECKPOINTS, WINDOWS, SAMPLES = 8, 64, 5


def gradient(steps: int, **loop: Any) -> Any:
    """Make the gradient of a loop of `steps` steps by its initial state."""

    def loss(state: Any) -> Any:
        def body(carry: Any) -> Any:
            step, y = carry
            return step + 1, y + 1e-3 * jnp.sin(y)

        final = adjoint.checkpointed_while_loop(
            lambda carry: carry[0] < steps, body, (0, state), max_steps=steps, expected_steps=steps, **loop
        )
        return jnp.sum(final[1] ** 2)

    return jax.jit(jax.grad(loss))


def measure(program: Any, state: Any) -> tuple[dict[str, Any], np.ndarray]:
    """Compile and time one side."""
    compiled = program.lower(state).compile()
    memory = compiled.memory_analysis()
    found = np.asarray(compiled(state))
    samples = []
    for _ in range(SAMPLES):
        start = time.perf_counter()
        jax.block_until_ready(compiled(state))
        samples.append(time.perf_counter() - start)
    peak = (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
    return {
        "device_bytes": memory.temp_size_in_bytes,
        "host_bytes": getattr(memory, "host_temp_size_in_bytes", None),
        "peak_bytes_in_use": peak,
        "run_seconds": float(np.median(samples)),
    }, found


def main() -> int:
    """Measure every tier; 1 where a promise was broken."""
    options = parser(__doc__).parse_args()
    floats, steps = (2**14, 400) if options.quick else (2**22, 2_000)
    device = jax.local_devices()[0]
    table = Table(options.out / "tiers.csv", {"platform": device.platform, "device": device.device_kind})
    state = jnp.linspace(0, 1, floats, dtype=jnp.float32)
    alone, expected = measure(gradient(steps, checkpoints=CHECKPOINTS), state)
    broken = False
    with tempfile.TemporaryDirectory() as directory:
        for tier in (None, "host", "disk"):
            place = {"directory": directory} if tier == "disk" else {}
            held = {"tier": tier, "windows": WINDOWS, **place} if tier else {}
            here, found = (
                measure(gradient(steps, checkpoints=CHECKPOINTS, **held), state) if tier else (alone, expected)
            )
            difference = float(np.max(np.abs(found - expected)) / np.max(np.abs(expected)))
            complaint = "" if np.array_equal(found, expected) else "the gradient differs"
            grown = here["device_bytes"] - alone["device_bytes"]
            if device.platform != "cpu" and grown > SPARE_STATES * state.nbytes:
                complaint = f"{grown} bytes more on the device than without a tier"
            broken |= bool(complaint)
            table.add(
                tier=tier or "none", steps=steps, checkpoints=CHECKPOINTS, windows=WINDOWS if tier else 0,
                state_bytes=state.nbytes, **here, gradient_difference=difference,
                transfer_seconds=adjoint.transfer_seconds(tier, state.nbytes, **place) if tier else None,
                complaint=complaint,
            )  # fmt: skip
    if broken:
        print("tiers: not as promised; see the column `complaint`", file=sys.stderr)
    return 1 if broken else 0


if __name__ == "__main__":
    raise SystemExit(main())
