"""Measure what `vmap` over solves costs: one gradient of shared parameters, mapped or written as one batched solve.

    python scripts/bench_vmap.py --out profiles/reference/vmap.csv

A neural ODE of 64 dimensions (an MLP of three layers, Tsit5, 50 steps, 8 checkpoints) over batches of examples, with
Diffrax's adjoint and ours: temporary bytes as compiled, seconds as the median of rounds in which all four alternate,
and how far each gradient is from Diffrax's batched one. Prints the table of README.md.
"""

import argparse
import csv
import itertools
import random
import statistics
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
import jax.random as jr
from bench_adjoint import difference

import adjoint

SIZE = 64
CHECKPOINTS = 8
KINDS = {"Diffrax": diffrax.RecursiveCheckpointAdjoint, "ours": adjoint.RecursiveCheckpointAdjoint}


def field(t: Any, y: Any, layers: Any) -> Any:
    """Evaluate an MLP; `y` (size,) or (batch, size)."""
    del t
    for weight, bias in layers:
        y = jnp.tanh(y @ weight + bias)
    return y


def gradient(kind: str, *, mapped: bool) -> Any:
    """Build the gradient of shared parameters over a batch of examples."""
    chosen = KINDS[kind](checkpoints=CHECKPOINTS)

    def solve(layers: Any, y0: Any) -> Any:
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(field), diffrax.Tsit5(), 0.0, 1.0, 0.02, y0, layers, adjoint=chosen, max_steps=64
        )
        assert solution.ys is not None
        return jnp.sum(jnp.square(solution.ys))

    def loss(layers: Any, y0: Any) -> Any:
        if mapped:
            return jnp.sum(jax.vmap(solve, in_axes=(None, 0))(layers, y0))
        return solve(layers, y0)

    return jax.jit(jax.grad(loss))


def measure(batch: int, width: int, rounds: int) -> list[dict[str, Any]]:
    """Measure the four variants of one size."""
    keys = jr.split(jr.key(0), 4)
    shapes = (SIZE, width), (width, width), (width, SIZE)
    layers = [
        (jr.normal(key, shape) / shape[0] ** 0.5, jnp.zeros(shape[1]))
        for key, shape in zip(keys[:3], shapes, strict=True)
    ]
    y0 = jr.normal(keys[3], (batch, SIZE))
    variants = list(itertools.product(KINDS, (True, False)))
    compiled = {of: gradient(of[0], mapped=of[1]).lower(layers, y0).compile() for of in variants}
    found = {of: jax.block_until_ready(run(layers, y0)) for of, run in compiled.items()}
    seconds: dict[Any, list[float]] = {of: [] for of in variants}
    for _ in range(rounds):
        for of in random.sample(variants, len(variants)):
            start = time.perf_counter()
            jax.block_until_ready(compiled[of](layers, y0))
            seconds[of].append(time.perf_counter() - start)
    rows = []
    for kind, mapped in variants:
        memory = compiled[kind, mapped].memory_analysis()
        rows.append({
            "batch": batch, "width": width, "adjoint": kind, "mapped": mapped,
            "temp_bytes": memory.temp_size_in_bytes,
            "run_median_seconds": round(statistics.median(seconds[kind, mapped]), 6),
            "gradient_difference": f"{difference(found[kind, mapped], found['Diffrax', False]):.1e}", "rounds": rounds,
            "device": jax.devices()[0].device_kind,
            **{name: metadata.version(name) for name in ("jax", "jaxlib", "equinox", "diffrax")},
        })  # fmt: skip
    return rows


def main() -> int:
    """Print the table and write the CSV."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("vmap.csv"), help="where the CSV goes")
    parser.add_argument("--batches", default="1,16,256", help="numbers of examples")
    parser.add_argument("--widths", default="64,256", help="widths of the hidden layers")
    parser.add_argument("--rounds", type=int, default=9, help="timed rounds")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    print("| batch x width | Diffrax, `vmap` | Diffrax, batched | ours, `vmap` | ours, batched |")
    print("| --- | --- | --- | --- | --- |")
    for width, batch in itertools.product(*(map(int, x.split(",")) for x in (options.widths, options.batches))):
        here = measure(batch, width, options.rounds)
        rows += here
        cells = [f"{row['temp_bytes'] / 2**20:.2f} MiB, {row['run_median_seconds'] * 1e3:.1f} ms" for row in here]
        print(f"| {batch} x {width} | {' | '.join(cells)} |", flush=True)
    with options.out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    print(f"wrote {options.out}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
