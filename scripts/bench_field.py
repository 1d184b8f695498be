"""Time our adjoint against Diffrax's on small programs as people write them; write every sample as CSV.

    python scripts/bench_field.py --out field.csv                             every program, default counts and 16
    python scripts/bench_field.py --programs fit_clipped,ode_rnn --pairs 5     a part of it

Both sides run in one process, their calls shuffled within each round; ratios are Diffrax's figure over ours, so above 1
ours is better. `temp` are temporary bytes as compiled, `traces` how often the field was traced, `loops` the while loops
of the compiled program. Nothing is tuned: default settings, float64, `EQX_ON_ERROR` as it is in the environment.
"""

import argparse
import csv
import math
import random
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import diffrax
import jax
import numpy as np

import adjoint

jax.config.update("jax_enable_x64", True)
from field_programs import PROGRAMS  # noqa: E402  (its arrays are to be float64)

SIDES = {"diffrax": diffrax.RecursiveCheckpointAdjoint, "ours": adjoint.RecursiveCheckpointAdjoint}
ENOUGH_SECONDS = 2e-3
"""A sample is the mean of so many calls that it takes at least this long."""


def build(name: str, side: str, checkpoints: int | None) -> dict[str, Any]:
    """Trace, compile and run one side once."""
    function, args = PROGRAMS[name](SIDES[side](checkpoints=checkpoints))
    start = time.perf_counter()
    jitted = jax.jit(function)
    lowered = jitted.lower(*args)
    traced = time.perf_counter()
    compiled = lowered.compile()
    done = time.perf_counter()
    found = jax.block_until_ready(jitted(*args))
    start_call = time.perf_counter()
    jax.block_until_ready(jitted(*args))
    each = time.perf_counter() - start_call
    return {
        "run": lambda: jax.block_until_ready(jitted(*args)),
        "calls": max(1, math.ceil(ENOUGH_SECONDS / max(each, 1e-7))),
        "found": found,
        "temp_bytes": compiled.memory_analysis().temp_size_in_bytes,
        "trace_seconds": traced - start,
        "compile_seconds": done - traced,
        "loops": compiled.as_text().count(" while("),
    }


def difference(one: Any, other: Any) -> float:
    """Return the largest difference relative to the largest entry of each array."""
    worst = 0.0
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        a, b = np.asarray(a, np.complex128), np.asarray(b, np.complex128)
        worst = max(worst, float(np.max(np.abs(a - b)) / max(float(np.max(np.abs(b))), 1e-30)))
    return worst


def sample(sides: dict[str, dict[str, Any]], pairs: int, order: random.Random) -> dict[str, list[float]]:
    """Time the sides in shuffled rounds."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    calls = max(side["calls"] for side in sides.values())
    for _ in range(pairs):
        for name in order.sample(sorted(sides), len(sides)):
            run = sides[name]["run"]
            start = time.perf_counter()
            for _ in range(calls):
                run()
            seconds[name].append((time.perf_counter() - start) / calls)
    return seconds


def geometric_mean(values: list[float]) -> float:
    """Return exp of the mean logarithm; nan for none."""
    return math.exp(sum(map(math.log, values)) / len(values)) if values else math.nan


def main() -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("bench_field.csv"), help="where the CSV goes")
    parser.add_argument("--programs", default="", help="comma-separated names; all by default")
    parser.add_argument("--counts", default="default,16", help="checkpoint counts, `default` for none given")
    parser.add_argument("--pairs", type=int, default=15, help="timed pairs of samples a cell")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    names = [name for name in options.programs.split(",") if name] or list(PROGRAMS)
    if unknown := [name for name in names if name not in PROGRAMS]:
        parser.error(f"unknown programs {', '.join(unknown)}; there are {', '.join(PROGRAMS)}")
    device = jax.devices()[0]
    place = {"platform": device.platform, "device": device.device_kind, "seed": options.seed} | {
        package: metadata.version(package) for package in ("jax", "jaxlib", "equinox", "diffrax")
    }
    ratios: dict[str, dict[str, list[float]]] = {}
    with options.out.open("w", newline="", encoding="utf-8") as file:
        writer = None
        for name in names:
            for count in options.counts.split(","):
                checkpoints = None if count == "default" else int(count)
                sides = {side: build(name, side, checkpoints) for side in SIDES}
                seconds = sample(sides, options.pairs, random.Random(options.seed))
                theirs, ours = sides["diffrax"], sides["ours"]
                error = difference(ours["found"], theirs["found"])
                each = np.array(seconds["diffrax"]) / np.array(seconds["ours"])
                draws = np.random.default_rng(options.seed).choice(each, (2000, len(each)))
                low, high = np.percentile(np.median(draws, axis=1), [2.5, 97.5])
                figures = {"seconds": float(np.median(each))} | {
                    figure: theirs[figure] / max(ours[figure], 1)
                    if figure != "compile_seconds"
                    else theirs[figure] / ours[figure]
                    for figure in ("temp_bytes", "compile_seconds", "loops")
                }
                for figure, ratio in figures.items():
                    ratios.setdefault(count, {}).setdefault(figure, []).append(max(ratio, 1e-9))
                medians = {side: float(np.median(seconds[side])) * 1e3 for side in SIDES}
                print(
                    f"{name:22} c={count:>7}  {figures['seconds']:5.2f}x [{low:.2f}, {high:.2f}] "
                    f"{medians['diffrax']:9.3f} -> {medians['ours']:9.3f} ms  "
                    f"{theirs['temp_bytes'] / 1024:8.1f} -> {ours['temp_bytes'] / 1024:8.1f} KiB  "
                    f"compile {theirs['compile_seconds']:5.2f} -> {ours['compile_seconds']:5.2f} s  "
                    f"{theirs['loops']:2d} -> {ours['loops']:2d} loops  difference {error:.0e}",
                    flush=True,
                )
                for side, built in sides.items():
                    for pair, value in enumerate(seconds[side]):
                        row = {
                            "program": name, "count": count, "side": side, "pair": pair, "seconds": f"{value:.6g}",
                            **{k: built[k] for k in ("temp_bytes", "loops")},
                            **{k: f"{built[k]:.4g}" for k in ("trace_seconds", "compile_seconds")},
                            "difference": f"{error:.3g}", **place,
                        }  # fmt: skip
                        if writer is None:
                            writer = csv.DictWriter(file, list(row))
                            writer.writeheader()
                        writer.writerow(row)
                file.flush()
                jax.clear_caches()
    for count, found in ratios.items():
        means = ", ".join(f"{figure} {geometric_mean(values):.2f}x" for figure, values in found.items())
        slower = sum(ratio < 1 for ratio in found["seconds"])
        cells = len(found["seconds"])
        print(f"c={count}: {cells} programs, Diffrax over ours in the geometric mean: {means}; {slower} slower")
    print(f"wrote {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
