"""Time a solve with windows on disk against the same solve with as many states in memory; write every sample as CSV.

Both sides compute one gradient of the same loop, in one process and in shuffled rounds. The screen gets compiled bytes,
median seconds and their ratio, whether the gradients are equal, and a table of recompute factors: body evaluations of
the whole gradient over steps, by states on the device and states in the tier.

    python scripts/bench_windows.py --out windows.csv --steps 100000 --floats 262144 --checkpoints 24 --windows 1000
"""

import argparse
import random
import statistics
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from bench_adjoint import environment

import adjoint

TRANSFER_COST = 2.0
"""Of one state, handed over and fetched, in steps: both are about a copy through memory here."""
DEVICE_STATES = (8, 16, 24, 32, 64)
TIER_STATES = (0, 10, 100, 1_000, 10_000)


def compiled(options: argparse.Namespace, state: Any, rate: Any, **loop: Any) -> Any:
    """Compile the gradient of a loop of `options.steps` steps."""
    steps = options.steps

    def loss(state: Any, rate: Any) -> Any:
        def body(carry: Any) -> Any:
            step, y = carry
            return step + 1, y + 1e-4 * jnp.sin(rate * y)

        final = adjoint.checkpointed_while_loop(
            lambda carry: carry[0] < steps, body, (0, state), max_steps=steps, expected_steps=steps, **loop
        )
        return jnp.sum(final[1] ** 2)

    return jax.jit(jax.grad(loss, (0, 1))).lower(state, rate).compile()


def table(steps: int) -> str:
    """Lay out the recompute factors."""
    lines = ["recompute factor  " + "".join(f"{count:>8} in tier" for count in TIER_STATES)]
    for device in DEVICE_STATES:
        executed = [
            adjoint.windowed_steps(steps, device, tier, steps, TRANSFER_COST)
            if tier
            else adjoint.executed_steps(steps, device, steps)
            for tier in TIER_STATES
        ]
        lines.append(f"{device:>8} on device" + "".join(f"{count / steps:>14.2f} x" for count in executed))
    return "\n".join(lines)


def main() -> None:
    """Compile both sides, time them, write the samples."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("bench_windows.csv"), help="where the CSV goes")
    parser.add_argument("--steps", type=int, default=5_000)
    parser.add_argument("--floats", type=int, default=262_144, help="of 4 bytes, in one state")
    parser.add_argument("--checkpoints", type=int, default=24, help="states on the device")
    parser.add_argument("--windows", type=int, default=200, help="states in the tier")
    parser.add_argument("--tier", choices=("disk", "host"), default="disk")
    parser.add_argument("--directory", default=".", help="where the file of the disk tier lies")
    parser.add_argument("--pairs", type=int, default=5, help="timed pairs of calls")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    args = jnp.linspace(0, 1, options.floats, dtype=jnp.float32), jnp.float32(1.3)
    tier = {"tier": options.tier, "windows": options.windows, "transfer_cost": TRANSFER_COST}
    if options.tier == "disk":
        tier["directory"] = options.directory
    sides = {
        "memory": compiled(options, *args, checkpoints=options.checkpoints + options.windows),
        options.tier: compiled(options, *args, checkpoints=options.checkpoints, **tier),
    }
    order = random.Random(options.seed)
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    gradients = {}
    for _ in range(options.pairs):
        for name in order.sample(sorted(sides), len(sides)):
            start = time.perf_counter()
            gradients[name] = jax.block_until_ready(sides[name](*args))
            seconds[name].append(time.perf_counter() - start)
    shape = {"steps": options.steps, "state_bytes": 4 * options.floats, "checkpoints": options.checkpoints}
    rows: list[dict[str, Any]] = []
    for name, side in sides.items():
        memory = side.memory_analysis()
        total = memory.temp_size_in_bytes + memory.argument_size_in_bytes + memory.output_size_in_bytes
        print(f"{name:8} {total / 2**20:9.1f} MiB compiled   {statistics.median(seconds[name]):8.2f} s a gradient")
        for pair, sample in enumerate(seconds[name]):
            row = {"side": name, **shape, "windows": options.windows, "pair": pair, "run_seconds": sample}
            rows.append(row | {"compiled_bytes": total, **environment(options.seed)})
    pd.DataFrame(rows).to_csv(options.out, index=False)
    ratios = [there / here for there, here in zip(seconds[options.tier], seconds["memory"], strict=True)]
    same = all(np.array_equal(a, b) for a, b in zip(*gradients.values(), strict=True))
    print(f"ratio    {statistics.median(ratios):9.3f} x, gradients {'equal to the last bit' if same else 'DIFFER'}")
    print(table(options.steps))
    print(f"wrote {options.out}")


if __name__ == "__main__":
    main()
