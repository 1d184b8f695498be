"""Measure the checkpointed scan against `jax.lax.scan`, plain, of `jax.checkpoint(f)`, and nested by hand.

    python scripts/bench_scan.py --out profiles/reference/scan.csv

Three programs: a recurrent network (2,000 steps), a state-space cell with gates (16,000 steps, small state) and a
stencil (2,000 steps, a state of 1 MiB). One gradient with respect to weights and the initial state: temporary bytes as
compiled, seconds as the median of rounds in which all variants alternate in random order, and how far each gradient is
from that of the plain scan. Ours is measured at a few counts, and at the largest whose temporary bytes are at most
those of the scan nested by hand. Prints the table of README.md.
"""

import argparse
import csv
import functools
import math
import random
import statistics
import sys
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.lax as lax
import jax.numpy as jnp
import jax.random as jr
from bench_adjoint import difference

from adjoint import checkpointed_scan

COUNTS = (8, 32)


class Program(NamedTuple):
    """What is scanned: `cell(weights)` over xs from `init`; `inner` divides the length about equally."""

    cell: Callable[[Any], Callable[[Any, Any], Any]]
    weights: Any
    init: Any
    xs: Any
    length: int
    inner: int


def recurrent() -> Program:
    """A tanh network of 128 units over 16 sequences."""
    keys = jr.split(jr.key(0), 3)
    weights = {"w": jr.normal(keys[0], (128, 128)) / 12, "u": jr.normal(keys[1], (8, 128)) / 3}

    def cell(weights: Any) -> Any:
        def f(h: Any, x: Any) -> Any:
            h = jnp.tanh(h @ weights["w"] + x @ weights["u"])
            return h, h.mean()

        return f

    return Program(cell, weights, jnp.zeros((16, 128)), jr.normal(keys[2], (2000, 16, 8)), 2000, 50)


def state_space() -> Program:
    """64 channels of 16 diagonal states each, decay and input gated by what comes in; 4 KiB a state."""
    keys = jr.split(jr.key(1), 5)
    weights = {
        "decay": jr.uniform(keys[0], (64, 16)),
        "gate": jr.normal(keys[1], (64,)),
        "into": jr.normal(keys[2], (64, 16)) / 4,
        "out": jr.normal(keys[3], (64, 16)) / 4,
    }

    def cell(weights: Any) -> Any:
        def f(h: Any, x: Any) -> Any:
            step = jax.nn.softplus(weights["gate"] * x)[:, None]
            h = jnp.exp(-step * weights["decay"]) * h + step * weights["into"] * x[:, None]
            return h, (h * weights["out"]).sum(-1)

        return f

    return Program(cell, weights, jnp.zeros((64, 16)), jr.normal(keys[4], (16_000, 64)), 16_000, 125)


def stencil() -> Program:
    """Heat that also reacts, on a periodic grid of 512 x 512: 1 MiB a state."""
    weights = {"conductivity": jnp.asarray(0.2), "rate": 0.1 * jr.uniform(jr.key(2), (512, 512))}

    def cell(weights: Any) -> Any:
        def f(u: Any, _: None) -> Any:
            around = sum(jnp.roll(u, shift, axis) for shift in (-1, 1) for axis in (0, 1))
            u = u + weights["conductivity"] * (around - 4 * u) + weights["rate"] * u * (1 - u)
            return u, u[0, 0]

        return f

    return Program(cell, weights, jr.uniform(jr.key(3), (512, 512)), None, 2000, 50)


PROGRAMS = {"recurrent": recurrent, "state space": state_space, "stencil": stencil}


def nested(f: Any, init: Any, xs: Any, length: int, *, inner: int) -> Any:
    """Scan by hand: an outer scan of `jax.checkpoint` of an inner one."""
    outer = length // inner
    cut = jax.tree.map(lambda x: x.reshape(outer, inner, *x.shape[1:]), xs)

    @jax.checkpoint
    def block(carry: Any, xs: Any) -> Any:
        return lax.scan(f, carry, xs, inner)

    carry, ys = lax.scan(block, init, cut, outer)
    return carry, jax.tree.map(lambda y: y.reshape(length, *y.shape[2:]), ys)


def rematerialised(f: Any, init: Any, xs: Any, length: int) -> Any:
    """Scan `jax.checkpoint(f)`: every state is kept, and nothing else."""
    return lax.scan(jax.checkpoint(f), init, xs, length)


def compiled(program: Program, scan: Any) -> Any:
    """Compile a gradient."""

    def loss(weights: Any, init: Any) -> Any:
        carry, ys = scan(program.cell(weights), init, program.xs, program.length)
        return jnp.sum(carry**2) + jnp.sum(jnp.sin(ys))

    return jax.jit(jax.grad(loss, argnums=(0, 1))).lower(program.weights, program.init).compile()


def temp_bytes(run: Any) -> int:
    """Return the temporary bytes of a compiled program."""
    return run.memory_analysis().temp_size_in_bytes


def at_most(program: Program, limit: int, state: int) -> tuple[int, Any]:
    """Find the largest count whose temporary bytes are within a limit, by the bytes of a state; compiled."""
    count = max(limit // state, 1)
    for _ in range(6):
        run = compiled(program, functools.partial(checkpointed_scan, checkpoints=count))
        excess = temp_bytes(run) - limit
        if excess <= 0:
            return count, run
        count = max(count - math.ceil(excess / state), 1)
    raise SystemExit("no count found within the bytes of the nested scan")


def measure(name: str, rounds: int) -> list[dict[str, Any]]:
    """Measure all variants of one program."""
    program = PROGRAMS[name]()
    state = sum(x.nbytes for x in jax.tree.leaves(program.init))
    variants: dict[tuple[str, Any], Any] = {
        ("lax.scan", ""): compiled(program, lax.scan),
        ("of jax.checkpoint(f)", ""): compiled(program, rematerialised),
        ("nested by hand", ""): compiled(program, functools.partial(nested, inner=program.inner)),
    }
    limit = temp_bytes(variants["nested by hand", ""])
    count, run = at_most(program, limit, state)
    variants["ours, bytes of nested", count] = run
    for number in (*COUNTS, "all"):
        variants["ours", number] = compiled(program, functools.partial(checkpointed_scan, checkpoints=number))
    args = program.weights, program.init
    found = {of: jax.block_until_ready(run(*args)) for of, run in variants.items()}
    seconds: dict[Any, list[float]] = {of: [] for of in variants}
    for _ in range(rounds):
        for of in random.sample(list(variants), len(variants)):
            start = time.perf_counter()
            jax.block_until_ready(variants[of](*args))
            seconds[of].append(time.perf_counter() - start)
    return [
        {
            "program": name, "length": program.length, "state_bytes": state, "scan": of[0], "checkpoints": of[1],
            "temp_bytes": temp_bytes(run), "run_median_seconds": round(statistics.median(seconds[of]), 6),
            "run_seconds": " ".join(f"{x:.4f}" for x in seconds[of]),
            "gradient_difference": f"{difference(found[of], found['lax.scan', '']):.1e}", "rounds": rounds,
            "device": jax.devices()[0].device_kind,
            **{package: metadata.version(package) for package in ("jax", "jaxlib")},
        }
        for of, run in variants.items()
    ]  # fmt: skip


def main() -> int:
    """Print the table and write the CSV."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("scan.csv"), help="where the CSV goes; rows there are kept")
    parser.add_argument("--programs", default=",".join(PROGRAMS), help="which, with commas between")
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds")
    options = parser.parse_args()
    random.seed(0)
    rows: list[dict[str, Any]] = []
    if options.out.exists():
        with options.out.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    print("| program | scan | checkpoints | temporary | a gradient |")
    print("| --- | --- | --- | --- | --- |")
    for name in options.programs.split(","):
        here = measure(name, options.rounds)
        version = metadata.version("jax")
        rows = [row for row in rows if (row["program"], row["jax"]) != (name, version)] + here
        for row in here:
            memory, median = row["temp_bytes"] / 2**20, row["run_median_seconds"]
            print(f"| {name} | {row['scan']} | {row['checkpoints']} | {memory:.1f} MiB | {median:.3f} s |", flush=True)
        with options.out.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(here[0]))
            writer.writeheader()
            writer.writerows(rows)
    print(f"wrote {options.out}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
