"""How far one gradient is from the bare solver steps that it is made of; write every sample as CSV.

The limit of a gradient with constant steps is its advances at the price of one bare solver step each, and its reversed
steps at that of one bare vector-Jacobian product of a step. Both prices are taken in a compiled loop of nothing else.

    python scripts/bench_lean.py --out lean.csv [--checkpoints 8,16,32] [--pairs 9]
"""

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import diffrax
import jax
import jax.lax as lax
import jax.numpy as jnp
import pandas as pd
from bench_adjoint import environment
from bench_families import FAMILIES, ConstantSteps

import adjoint

LOOPS = 40
"""Bare steps in one timed loop."""


def bare_loops(solve: ConstantSteps, params: Any, y0: Any) -> tuple[Any, Any]:
    """Compile a loop of bare steps, and one of their vector-Jacobian products."""
    term, solver = diffrax.ODETerm(solve.field), solve.solver

    def step(params: Any, y: Any, slope: Any) -> Any:
        state = (jnp.array(False), slope) if solver.tableau.fsal else None
        after, _, _, state, _ = solver.step(term, 0.0, solve.dt, y, params, state, False)
        return after, slope if state is None else state[1]

    slope = jax.jit(solve.field)(0.0, y0, params)

    def steps(params: Any, y: Any, slope: Any) -> Any:
        return lax.fori_loop(0, LOOPS, lambda _, carry: step(params, *carry), (y, slope))

    def products(params: Any, y: Any, slope: Any) -> Any:
        def body(_: Any, carry: Any) -> Any:
            of_params, *of_state = carry
            _, pullback = jax.vjp(step, params, y, slope)
            more, *of_state = pullback(tuple(of_state))
            return jax.tree.map(jnp.add, of_params, more), *of_state

        return lax.fori_loop(
            0, LOOPS, body, (jax.tree.map(jnp.zeros_like, params), jnp.ones_like(y), jnp.zeros_like(y))
        )

    args = params, y0, slope
    return tuple(jax.jit(loop).lower(*args).compile() for loop in (steps, products)), args


def timed(run: Any, args: Any) -> float:
    """Time one call."""
    start = time.perf_counter()
    jax.block_until_ready(run(*args))
    return time.perf_counter() - start


def main() -> None:
    """Time gradients beside bare steps, in alternation."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("bench_lean.csv"), help="where the CSV goes")
    parser.add_argument("--checkpoints", default="8,16,32", help="counts, with commas between")
    parser.add_argument("--pairs", type=int, default=9, help="rounds of timed calls")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for name in ("large_pde", "matmul_batch"):
        family = next(family for family in FAMILIES if family.name == name)
        args = family.make(jax.random.key(options.seed))
        solve = family.build
        assert isinstance(solve, ConstantSteps)
        (steps, products), bare_args = bare_loops(solve, *args)
        for count in map(int, options.checkpoints.split(",")):
            loss = family.build(adjoint.RecursiveCheckpointAdjoint(checkpoints=count))
            gradient = jax.jit(jax.grad(loss, (0, 1))).lower(*args).compile()
            timed(gradient, args), timed(steps, bare_args), timed(products, bare_args)
            advances = adjoint.executed_steps(family.steps, count, family.steps) - family.steps
            found = []
            for pair in range(options.pairs):
                whole = timed(gradient, args)
                step, product = timed(steps, bare_args) / LOOPS, timed(products, bare_args) / LOOPS
                found.append(whole / (advances * step + family.steps * product))
                row = {"family": name, "checkpoints": count, "pair": pair, "run_seconds": whole}
                rows.append(row | {"step_seconds": step, "product_seconds": product, **environment(options.seed)})
            print(f"{name:14} c={count:4}  {statistics.median(found):5.2f} times the bare steps")
    pd.DataFrame(rows).to_csv(options.out, index=False)
    print(f"wrote {options.out}")


if __name__ == "__main__":
    main()
