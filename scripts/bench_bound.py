"""Hold the lower bound of seconds against measured calls on the CPU; write every sample as CSV.

Bandwidth and operations of this CPU are measured in the same run: the bandwidth as the most that a sum, a copy or an
addition moves of arrays that the cores' own caches do not hold, operations as the most that products of large matrices
make, for element-wise operations too, since nothing on a CPU makes more. What counts as the cache are those of the
cores: the last level of a rented CPU is shared with others, and larger than most states. The bound of a gradient has to
be below the fastest call of every family; how far says what it is worth.

    python scripts/bench_bound.py --out profiles/reference/bound.csv [--rounds 7] [--families large_pde,…]
"""

import argparse
import re
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
import pandas as pd
from bench_adjoint import environment
from bench_families import FAMILIES, Family

import adjoint
from autotune.adjoints import passes
from autotune.planning.bounds import least_seconds
from autotune.problem.counting import step_costs
from autotune.problem.loading import load_problem
from autotune.problem.probe import observe
from profiles import AdjointName, Hardware

SIZES = (2**22, 2**24, 2**26)
"""Floats in the arrays that are streamed: 16, 64 and 256 MiB."""
OWN_LEVELS = ("1", "2")
"""The levels of cache that belong to a core."""
WIDTHS = (1024, 2048)
"""Of the matrices whose product is timed."""


def _elementwise(made: Any) -> Callable[[Any, Any], jax.Array]:
    def loss(rate: Any, y0: Any) -> jax.Array:
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(lambda t, y, args: -args * jnp.sin(y)), diffrax.Tsit5(), 0.0, 1.0, 0.01, y0, rate,
            adjoint=made, stepsize_controller=diffrax.PIDController(rtol=1e-4, atol=1e-4), max_steps=4096,
        )  # fmt: skip
        return jnp.sum(jnp.asarray(solution.ys))

    return loss


BEYOND_CACHES = Family(
    name="elementwise", build=_elementwise, make=lambda key: (jnp.float32(1.0), jax.random.normal(key, (2**23,))),
    counts=(2, 4, 6, 8, 12), steps=12, adaptive=True,
)  # fmt: skip
"""A state of 32 MiB, so that the bytes of a step have to come from beyond the cores' caches."""


def seconds(run: Callable[..., Any], *args: Any) -> float:
    """Time one call."""
    start = time.perf_counter()
    jax.block_until_ready(run(*args))
    return time.perf_counter() - start


def cache_bytes() -> int:
    """Add up the caches of all cores, as Linux lists them; none where it does not."""
    found = {}
    for index in Path("/sys/devices/system/cpu").glob("cpu[0-9]*/cache/index*"):
        texts = {name: (index / name).read_text().strip() for name in ("type", "level", "size", "shared_cpu_list")}
        size = re.fullmatch(r"(\d+)K", texts["size"])
        if texts["type"] != "Instruction" and texts["level"] in OWN_LEVELS and size:
            found[texts["level"], texts["type"], texts["shared_cpu_list"]] = int(size[1]) * 1024
    return sum(found.values())


class Machine:
    """This CPU: the most operations and bytes a second that were seen so far."""

    def __init__(self) -> None:
        """Compile what is timed."""
        self._streams = []
        for size in SIZES:
            x = jnp.ones(size, jnp.float32)
            self._streams += [
                (jax.jit(jnp.sum).lower(x).compile(), (x,), x.nbytes),
                (jax.jit(lambda x: x + 1).lower(x).compile(), (x,), 2 * x.nbytes),
                (jax.jit(lambda x, y: x + 2 * y).lower(x, x).compile(), (x, x + 1), 3 * x.nbytes),
            ]
        self._products = []
        for width in WIDTHS:
            a = jnp.ones((width, width), jnp.float32)
            self._products.append((jax.jit(jnp.matmul).lower(a, a).compile(), (a, a), 2 * width**3))
        self.bandwidth = self.flops = 0.0

    def look(self) -> None:
        """Time once more."""
        for run, args, size in self._streams:
            self.bandwidth = max(self.bandwidth, size / seconds(run, *args))
        for run, args, count in self._products:
            self.flops = max(self.flops, count / seconds(run, *args))

    def chip(self) -> Hardware:
        """Describe this CPU as a device to plan for."""
        flops = round(self.flops)
        return Hardware(flops=flops, matrix_flops=flops, bandwidth=round(self.bandwidth), cache=cache_bytes())


def measured(family: Family, machine: Machine, rounds: int, seed: int) -> list[dict[str, Any]]:
    """Time the gradients of a family at two counts, and count what they cost at least."""
    args = family.make(jax.random.key(seed))
    problem = load_problem(lambda *, adjoint: (jax.grad(family.build(adjoint), (0, 1)), args))
    work, costs = observe(problem).work(), step_costs(problem)
    assert work is not None
    assert costs is not None
    found = []
    for count in (family.counts[1], family.counts[3]):
        made = adjoint.RecursiveCheckpointAdjoint(checkpoints=count, expected_steps=work.predicted)
        gradient = jax.jit(jax.grad(family.build(made), (0, 1))).lower(*args).compile()
        seconds(gradient, *args)
        for call in range(rounds):
            machine.look()
            row = {"family": family.name, "checkpoints": count, "call": call, "run_seconds": seconds(gradient, *args)}
            advances, taped = passes(AdjointName.OURS, work, count)
            found.append(row | {"steps": work.steps, "advances": advances, "taped": taped, "costs": (costs, work)})
    return found


def main() -> None:
    """Time, bound, compare; end with an error where a bound is not below a call."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("bench_bound.csv"), help="where the CSV goes")
    parser.add_argument("--rounds", type=int, default=7, help="timed calls of each gradient")
    parser.add_argument("--families", default="", help="names, with commas between; all where left out")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    machine, rows = Machine(), []
    wanted = options.families.split(",") if options.families else None
    for family in (*FAMILIES, BEYOND_CACHES):
        if wanted is None or family.name in wanted:
            rows += measured(family, machine, options.rounds, options.seed)
    chip = machine.chip()
    for row in rows:
        costs, work = row.pop("costs")
        row["least_seconds"] = least_seconds(costs, work, row["checkpoints"], chip)
        row |= {
            "flops": chip.flops,
            "bandwidth": chip.bandwidth,
            "cache_bytes": chip.cache,
            **environment(options.seed),
        }
    table = pd.DataFrame(rows)
    table.to_csv(options.out, index=False)
    print(
        f"{machine.flops / 1e9:.0f} GFLOP/s, {machine.bandwidth / 1e9:.1f} GB/s beyond {cache_bytes() / 2**20:.1f} MiB"
    )
    above = 0
    for (name, count), group in table.groupby(["family", "checkpoints"], sort=False):  # pyright: ignore
        least, calls = group["least_seconds"].iloc[0], list(group["run_seconds"])
        above += least > min(calls)
        print(f"{name:18} c={count:<4} at least {least:.2e} s, measured {statistics.median(calls):.2e} s: "
              f"{statistics.median(calls) / least:.1f} times the bound")  # fmt: skip
    print(f"wrote {options.out}")
    if above:
        raise SystemExit(f"{above} bounds are not below the fastest call")


if __name__ == "__main__":
    main()
