"""Time our adjoint against Diffrax's at equal checkpoints and at equal bytes; write every sample as CSV.

At equal bytes our side holds the largest count whose compiled temporary bytes are no more than Diffrax's.

    python scripts/bench_adjoint.py --out bench.csv                     every family and count, 15 pairs each
    python scripts/bench_adjoint.py --families tiny_mlp,sde --pairs 5   a part of it

All sides run in one process, their calls shuffled within each round. `ratio` is Diffrax's seconds over ours, so above
1 we are faster; its interval is a bootstrap over pairs. The defaults (no count given) are compared as well. On the
screen two lines a cell, then geometric means.
"""

import argparse
import csv
import dataclasses
import math
import platform
import random
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
from bench_families import FAMILIES, Family

import adjoint

SIDES = {"diffrax": diffrax.RecursiveCheckpointAdjoint, "ours": adjoint.RecursiveCheckpointAdjoint}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Side:
    """One compiled gradient: what it takes and what it gives."""

    checkpoints: int | None
    run: Any
    gradient: Any
    temp_bytes: int
    trace_seconds: float
    compile_seconds: float


def build(family: Family, name: str, checkpoints: int | None, args: Any) -> Side:
    """Trace, compile and run one side once."""
    start = time.perf_counter()
    lowered = jax.jit(jax.grad(family.build(SIDES[name](checkpoints=checkpoints)), (0, 1))).lower(*args)
    traced = time.perf_counter()
    compiled = lowered.compile()
    done = time.perf_counter()
    memory = compiled.memory_analysis()
    return Side(
        checkpoints=checkpoints,
        run=compiled,
        gradient=jax.block_until_ready(compiled(*args)),
        temp_bytes=memory.temp_size_in_bytes,
        trace_seconds=traced - start,
        compile_seconds=done - traced,
    )


def equal_bytes(family: Family, args: Any, ours: Side, allowed: int) -> Side:
    """Build our side with the largest count found that needs no more than `allowed` temporary bytes.

    A line through the counts compiled so far says which one to compile next, between the largest known to fit and the
    smallest known not to. `ours` where no count fits.
    """
    assert ours.checkpoints is not None
    sides = {ours.checkpoints: ours}
    most = family.steps + 8
    count = min(2 * ours.checkpoints, most)
    for _ in range(6):
        if count not in sides:
            sides[count] = build(family, "ours", count, args)
        fits = max((c for c, side in sides.items() if side.temp_bytes <= allowed), default=0)
        fails = min((c for c, side in sides.items() if side.temp_bytes > allowed and c > fits), default=most + 1)
        if fails - fits <= 1:
            break
        known = sorted(sides)
        rise = sides[known[-1]].temp_bytes - sides[known[0]].temp_bytes
        slope = max(rise / max(known[-1] - known[0], 1), 1.0)
        nearest = fits if fits in sides else fails
        guess = nearest + math.floor((allowed - sides[nearest].temp_bytes) / slope)
        count = min(max(guess, fits + 1), fails - 1)
    return sides.get(max((c for c, side in sides.items() if side.temp_bytes <= allowed), default=0), ours)


def difference(one: Any, other: Any) -> float:
    """Return the largest difference of two gradients relative to the largest entry of each array."""
    worst = 0.0
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        worst = max(worst, float(jnp.max(jnp.abs(a - b)) / jnp.maximum(jnp.max(jnp.abs(b)), 1e-30)))
    return worst


def pairs_of(sides: dict[str, Side], args: Any, pairs: int, order: random.Random) -> dict[str, list[float]]:
    """Time the sides in shuffled rounds, one call each."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(pairs):
        for name in order.sample(sorted(sides), len(sides)):
            start = time.perf_counter()
            jax.block_until_ready(sides[name].run(*args))
            seconds[name].append(time.perf_counter() - start)
    return seconds


def interval(ratios: np.ndarray, seed: int) -> tuple[float, float]:
    """Return the 95 % interval of the median ratio, by bootstrap over pairs."""
    draws = np.random.default_rng(seed).choice(ratios, (2000, len(ratios)))
    low, high = np.percentile(np.median(draws, axis=1), [2.5, 97.5])
    return float(low), float(high)


def geometric_mean(values: list[float]) -> float:
    """Return exp of the mean logarithm; nan for none."""
    return math.exp(sum(map(math.log, values)) / len(values)) if values else math.nan


def environment(seed: int) -> dict[str, Any]:
    """Describe device and versions, for every row."""
    device = jax.devices()[0]
    versions = {name: metadata.version(name) for name in ("jax", "jaxlib", "equinox", "diffrax")}
    described = {"platform": device.platform, "device": device.device_kind, "python": platform.python_version()}
    return {**described, **versions, "seed": seed}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cell:
    """The ratios of one cell, Diffrax's figure over ours; None where there is no count to match bytes with."""

    equal_count: float
    equal_bytes: float | None
    compiling: float
    lowest: float


def measure(family: Family, checkpoints: int | None, options: argparse.Namespace, writer: Any) -> Cell:
    """Measure one cell, write its rows, print its lines."""
    args = family.make(jax.random.key(options.seed))
    sides = {name: build(family, name, checkpoints, args) for name in SIDES}
    if checkpoints is not None:
        sides["ours_equal_bytes"] = equal_bytes(family, args, sides["ours"], sides["diffrax"].temp_bytes)
    seconds = pairs_of(sides, args, options.pairs, random.Random(options.seed))
    theirs = sides["diffrax"]
    ratios: dict[str, float] = {}
    lows: dict[str, float] = {}
    for name, side in sides.items():
        error = difference(side.gradient, theirs.gradient)
        for pair, value in enumerate(seconds[name]):
            writer.writerow(
                {
                    "family": family.name,
                    "adaptive": family.adaptive,
                    "side": name,
                    "cell": "default" if checkpoints is None else checkpoints,
                    "checkpoints": "default" if side.checkpoints is None else side.checkpoints,
                    "steps": family.steps,
                    "pair": pair,
                    "run_seconds": f"{value:.6g}",
                    "temp_bytes": side.temp_bytes,
                    "trace_seconds": f"{side.trace_seconds:.4g}",
                    "compile_seconds": f"{side.compile_seconds:.4g}",
                    "gradient_difference": f"{error:.3g}",
                    **environment(options.seed),
                }
            )
        if side is theirs:
            continue
        each = np.array(seconds["diffrax"]) / np.array(seconds[name])
        low, high = interval(each, options.seed)
        ratios[name], lows[name] = float(np.median(each)), low
        label = "default" if side.checkpoints is None else str(side.checkpoints)
        print(
            f"{family.name if name == 'ours' else '  equal bytes':18} c={label:>7}  {ratios[name]:5.2f}x "
            f"[{low:.2f}, {high:.2f}]  {np.median(seconds['diffrax']) * 1e3:9.2f} -> "
            f"{np.median(seconds[name]) * 1e3:9.2f} ms  {theirs.temp_bytes / 1024:9.1f} -> "
            f"{side.temp_bytes / 1024:9.1f} KiB  compile {theirs.compile_seconds:.1f} -> {side.compile_seconds:.1f} s  "
            f"difference {error:.1e}",
            flush=True,
        )
    return Cell(
        equal_count=ratios["ours"],
        equal_bytes=ratios.get("ours_equal_bytes"),
        compiling=theirs.compile_seconds / sides["ours"].compile_seconds,
        lowest=lows["ours"],
    )


def main() -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--out", type=Path, default=Path("bench_adjoint.csv"), help="where the CSV goes")
    parser.add_argument("--families", default="", help="comma-separated names; all by default")
    parser.add_argument("--pairs", type=int, default=15, help="timed pairs of calls a cell")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--counts", default="", help="comma-separated counts instead of each family's own")
    options = parser.parse_args()
    known = {family.name: family for family in FAMILIES}
    names = [name for name in options.families.split(",") if name] or list(known)
    unknown = [name for name in names if name not in known]
    if unknown:
        parser.error(f"unknown families {', '.join(unknown)}; there are {', '.join(known)}")
    counts = [int(c) for c in options.counts.split(",") if c]
    columns = [
        "family",
        "adaptive",
        "side",
        "cell",
        "checkpoints",
        "steps",
        "pair",
        "run_seconds",
        "temp_bytes",
        "trace_seconds",
        "compile_seconds",
        "gradient_difference",
        *environment(options.seed),
    ]
    found: dict[bool, list[Cell]] = {False: [], True: []}
    with options.out.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        for name in names:
            for checkpoints in counts or (*known[name].counts, None):
                found[known[name].adaptive].append(measure(known[name], checkpoints, options, writer))
                file.flush()
    for adaptive, cells in found.items():
        if cells:
            same = [cell.equal_bytes for cell in cells if cell.equal_bytes is not None]
            print(
                f"{'adaptive' if adaptive else 'constant'} steps, {len(cells)} cells, geometric means of Diffrax "
                f"over ours: seconds {geometric_mean([cell.equal_count for cell in cells]):.2f}x at equal counts, "
                f"{geometric_mean(same):.2f}x at equal bytes; "
                f"compile {geometric_mean([cell.compiling for cell in cells]):.2f}x; "
                f"{sum(cell.lowest < 1 for cell in cells)} cells whose interval begins below 1"
            )
    print(f"wrote {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
