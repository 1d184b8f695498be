"""Measure how executed steps, seconds and bytes grow with the number of steps at ceil(log2 n) checkpoints.

    python scripts/growth.py --out profiles/reference/growth.csv

Steps from 10^2 to 10^6 of a small solve, each timed a few times (the median is kept) and compiled once: the theory says
O(n log n) time and O(log n) memory. Writes the CSV, and a figure as PNG and SVG.
"""

import argparse
import csv
import math
import statistics
import sys
import time
from importlib import metadata
from pathlib import Path

import jax
import jax.numpy as jnp
from matplotlib.figure import Figure

import adjoint

WIDTH = 64


def gradient(checkpoints: int):
    """Build the gradient of a loop of `steps` small steps, `steps` a traced integer."""

    def loss(weight, state, steps):
        def body(carry):
            return carry[0] + 1, carry[1] + 1e-3 * jnp.sin(weight * carry[1])

        final = adjoint.checkpointed_while_loop(
            lambda carry: carry[0] < steps, body, (0, state), checkpoints=checkpoints, expected_steps=steps
        )
        return jnp.sum(final[1] ** 2)

    return jax.jit(jax.grad(loss, (0, 1)))


def measure(steps: int, repeats: int) -> dict[str, object]:
    """Measure one number of steps."""
    checkpoints = math.ceil(math.log2(steps))
    args = jnp.ones(WIDTH), jnp.linspace(0.1, 1.0, WIDTH), jnp.int32(steps)
    compiled = gradient(checkpoints).lower(*args).compile()
    jax.block_until_ready(compiled(*args))
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(compiled(*args))
        seconds.append(time.perf_counter() - start)
    executed = adjoint.executed_steps(steps, checkpoints, steps)
    return {
        "steps": steps,
        "checkpoints": checkpoints,
        "executed_steps": executed,
        "executed_per_step_log2": round(executed / (steps * math.log2(steps)), 4),
        "run_seconds": round(statistics.median(seconds), 6),
        "temp_bytes": compiled.memory_analysis().temp_size_in_bytes,
        "device": jax.devices()[0].device_kind,
        "jax": metadata.version("jax"),
        "jaxlib": metadata.version("jaxlib"),
    }


def draw(rows: list[dict[str, object]]) -> Figure:
    """Draw executed steps and seconds against n log2 n, and bytes against log2 n."""
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    axes = figure.subplots(1, 3)
    steps = [row["steps"] for row in rows]
    for axis, name, unit in (
        (axes[0], "executed_steps", "body evaluations"),
        (axes[1], "run_seconds", "seconds"),
        (axes[2], "temp_bytes", "compiled temporary bytes"),
    ):
        values = [row[name] for row in rows]
        axis.plot(steps, values, "o-", color="#0072B2", label="measured")
        scale = [math.log2(n) * (1 if name == "temp_bytes" else n) for n in steps]
        law = "log2 n" if name == "temp_bytes" else "n log2 n"
        axis.plot(steps, [values[-1] * s / scale[-1] for s in scale], "--", color="#D55E00", label=f"c {law}")
        axis.set_xscale("log")
        if name != "temp_bytes":
            axis.set_yscale("log")
        axis.set_xlabel("steps n")
        axis.set_ylabel(unit)
        axis.legend(frameon=False)
        axis.grid(alpha=0.3)
    figure.suptitle("Gradient of a loop at ceil(log2 n) checkpoints")
    return figure


def main() -> int:
    """Run the measurement."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--out", type=Path, default=Path("growth.csv"), help="where the CSV goes")
    parser.add_argument("--figures", type=Path, default=Path("scripts/figures"), help="where the figure goes")
    parser.add_argument("--largest", type=int, default=10**6, help="the largest number of steps")
    parser.add_argument("--repeats", type=int, default=3, help="timed calls for each number of steps")
    options = parser.parse_args()
    sizes = [n for e in range(2, 7) for n in (10**e, 3 * 10**e) if n <= options.largest]
    rows = []
    for n in sizes:
        rows.append(measure(n, options.repeats))
        print("  ".join(f"{key}={value}" for key, value in list(rows[-1].items())[:6]), flush=True)
    with options.out.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    options.figures.mkdir(parents=True, exist_ok=True)
    for suffix in (".png", ".svg"):
        draw(rows).savefig(options.figures / f"growth{suffix}", dpi=150)
    print(f"wrote {options.out}, and growth.png and growth.svg in {options.figures}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
