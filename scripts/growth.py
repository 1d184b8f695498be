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

import altair as alt
import jax
import jax.numpy as jnp

import adjoint
from profiles import save_figure

WIDTH = 64
BLUE, ORANGE = "#0072B2", "#D55E00"


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


def draw(rows: list[dict[str, float]]) -> alt.HConcatChart:
    """Draw executed steps and seconds against n log2 n, and bytes against log2 n."""
    panels = []
    for name, unit in (
        ("executed_steps", "body evaluations"),
        ("run_seconds", "seconds"),
        ("temp_bytes", "compiled temporary bytes"),
    ):
        law = "log2 n" if name == "temp_bytes" else "n log2 n"
        scale = {row["steps"]: math.log2(row["steps"]) * (1 if name == "temp_bytes" else row["steps"]) for row in rows}
        last = rows[-1][name] / scale[rows[-1]["steps"]]
        values = [{"steps": row["steps"], "measured": row[name], "law": last * scale[row["steps"]]} for row in rows]
        y_scale = alt.Scale(zero=True) if name == "temp_bytes" else alt.Scale(type="log")
        axis = alt.Axis(title=unit, format="~s", tickCount=5)
        base = alt.Chart(alt.InlineData(values=values)).encode(
            x=alt.X("steps:Q", scale=alt.Scale(type="log"), axis=alt.Axis(title="steps n", format="~s", tickCount=4))
        )
        measured = base.mark_line(point=True, color=BLUE).encode(y=alt.Y("measured:Q", scale=y_scale, axis=axis))
        theory = base.mark_line(strokeDash=[6, 3], color=ORANGE).encode(y=alt.Y("law:Q", scale=y_scale, axis=axis))
        title = alt.Title(f"measured, and dashed c {law}", fontSize=11, fontWeight="normal")
        panels.append(alt.layer(theory, measured).properties(width=260, height=220, title=title))
    return alt.hconcat(*panels).properties(title="Gradient of a loop at ceil(log2 n) checkpoints")


def main() -> int:
    """Run the measurement."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--out", type=Path, default=Path("growth.csv"), help="where the CSV goes")
    parser.add_argument("--figures", type=Path, default=Path("scripts/figures"), help="where the figure goes")
    parser.add_argument("--largest", type=int, default=10**6, help="the largest number of steps")
    parser.add_argument("--repeats", type=int, default=3, help="timed calls for each number of steps")
    parser.add_argument(
        "--redraw", action="store_true", help="measure nothing: draw the figure of the CSV that is there"
    )
    options = parser.parse_args()
    if not options.redraw:
        sizes = [n for e in range(2, 7) for n in (10**e, 3 * 10**e) if n <= options.largest]
        rows = []
        for n in sizes:
            rows.append(measure(n, options.repeats))
            print("  ".join(f"{key}={value}" for key, value in list(rows[-1].items())[:6]), flush=True)
        with options.out.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        print(f"wrote {options.out}")
    with options.out.open(newline="") as file:
        figures = ("steps", "executed_steps", "run_seconds", "temp_bytes")
        read = [{name: float(row[name]) for name in figures} for row in csv.DictReader(file)]
    for path in save_figure(draw(read), options.figures / "growth"):
        print(f"wrote {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
