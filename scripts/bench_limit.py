"""How far a gradient is from the bare solver steps that it is made of; write every sample as CSV.

The limit of a gradient is its advances at the price of one bare step of the solver each, and its reversed steps at that
of one bare vector-Jacobian product of a step. Advances are the passes of the solve and what the optimal schedule
recomputes of its accepted steps. Both prices are taken in a compiled loop of nothing else: of Diffrax's step, of ours
with its stages written out, and of ours as one native function where that can be; the fastest counts. The bare step
has no error estimate, no step size control, no saving; that of a stiff solver is taken where the solve begins, where
it may need more iterations of Newton's method than later.

    python scripts/bench_limit.py --out limit.csv                          every family at three of its counts
    python scripts/bench_limit.py --families sde,cde --pairs 9             a part of it
"""

import argparse
import functools
import statistics
import time
from pathlib import Path
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.lax as lax
import jax.numpy as jnp
import pandas as pd
from bench_adjoint import environment
from bench_families import FAMILIES, Family

import adjoint
from adjoint.solve.stages import arrange
from adjoint.traced.kernel import in_one_kernel

LOOPS = 200
"""Bare steps in one timed loop."""


def _trace_of(tree: Any) -> Any:
    """Return a number that depends on every entry of a tree, and is next to nothing: so that all of it is computed."""
    return sum(1e-30 * jnp.sum(x) for x in jax.tree.leaves(tree) if eqx.is_inexact_array(x))


class Bare(diffrax.RecursiveCheckpointAdjoint):
    """Makes bare steps in the place of a solve, or bare vector-Jacobian products of its first step.

    `part` says which, or "solve" for the solve itself, which then tells its passes and accepted steps to `found`.
    """

    part: str = eqx.field(static=True, default="solve")
    written: bool = eqx.field(static=True, default=False)
    native: bool = eqx.field(static=True, default=False)
    found: Any = eqx.field(static=True, default=None)

    def loop(self, **kwargs: Any) -> Any:
        """Run the bare loop; called by `diffrax.diffeqsolve`."""
        if self.part == "solve":
            final, stats = super().loop(**kwargs)
            jax.debug.callback(lambda *counts: self.found.extend(map(int, counts)), *_counts(final))
            return final, stats
        blank = jax.tree.map(
            lambda x: jnp.zeros(x.shape, x.dtype) if isinstance(x, jax.ShapeDtypeStruct) else x,
            eqx.filter_eval_shape(super().loop, **kwargs),
        )
        step, args, y, memory = self._step(kwargs)
        run = functools.partial(_steps if self.part == "steps" else _products, step)
        y, more = in_one_kernel(run, args, y, memory) if self.native else run(args, y, memory)
        final, stats = blank
        final = eqx.tree_at(lambda s: jax.tree.leaves(s.save_state.ys), final, [(y + more)[None]])
        return final, stats

    def _step(self, solve: dict[str, Any]) -> tuple[Any, Any, Any, Any]:
        """Return a step as a function of parameters, state and the inexact part of the solver's state; and these."""
        state, terms, args, solver = solve["init_state"], solve["terms"], solve["args"], solve["solver"]
        if self.written:
            solver = arrange(solver, terms, solve["t0"], state.y, args).solver
        memory, fixed = eqx.partition(solver.init(terms, state.tprev, state.tnext, state.y, args), eqx.is_inexact_array)

        def step(k: Any, args: Any, y: Any, memory: Any) -> Any:
            # Every time a little later, so that nothing that hangs on the time alone leaves the loop.
            later = k * (state.tnext - state.tprev) / (2 * LOOPS)
            y, _, _, memory, _ = solver.step(
                terms, state.tprev + later, state.tnext + later, y, args, eqx.combine(memory, fixed), False
            )
            return y, eqx.filter(memory, eqx.is_inexact_array)

        return step, args, state.y, memory


def _counts(final: Any) -> tuple[Any, Any]:
    return final.num_steps, final.num_accepted_steps


def _steps(step: Any, args: Any, y: Any, memory: Any) -> tuple[Any, Any]:
    """Make bare steps one after the other."""
    y, memory = lax.fori_loop(0, LOOPS, lambda k, carry: step(k, args, *carry), (y, memory))
    return y, _trace_of(memory)


def _products(step: Any, args: Any, y: Any, memory: Any) -> tuple[Any, Any]:
    """Carry a cotangent of ones over the first step again and again; sum up that of the parameters."""

    def body(k: Any, carry: Any) -> Any:
        of_args, *of_state = carry
        _, pullback = jax.vjp(functools.partial(step, k), args, y, memory)
        more, *of_state = pullback(tuple(of_state))
        return jax.tree.map(jnp.add, of_args, more), *of_state

    start = jax.tree.map(jnp.zeros_like, args), jnp.ones_like(y), jax.tree.map(jnp.zeros_like, memory)
    of_args, of_y, of_memory = lax.fori_loop(0, LOOPS, body, start)
    return of_y, _trace_of((of_args, of_memory))


def bare_sides(family: Family, args: tuple[Any, Any]) -> tuple[dict[str, list[Any]], int, int]:
    """Compile the bare loops of a family, with Diffrax's step and with ours.

    Returns:
        Programs by what they price; passes and accepted steps of the solve.
    """
    build = family.together or family.build
    counts: list[int] = []
    jax.block_until_ready(jax.jit(build(Bare(part="solve", found=counts)))(*args))
    jax.effects_barrier()
    ways = {"written": False}, {"written": True}, {"written": True, "native": True}
    sides = {
        part: [jax.jit(build(Bare(part=part, **way))).lower(*args).compile() for way in ways]
        for part in ("steps", "products")
    }
    return sides, counts[0], counts[1]


def timed(run: Any, args: Any) -> float:
    """Time one call."""
    start = time.perf_counter()
    jax.block_until_ready(run(*args))
    return time.perf_counter() - start


def main() -> None:
    """Time gradients beside bare steps, in alternation."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("limit.csv"), help="where the CSV goes")
    parser.add_argument("--families", default="", help="names, with commas between; all by default")
    parser.add_argument("--pairs", type=int, default=9, help="rounds of timed calls")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    chosen = [family for family in FAMILIES if not options.families or family.name in options.families.split(",")]
    rows: list[dict[str, Any]] = []
    every = []
    for family in chosen:
        args = family.make(jax.random.key(options.seed))
        sides, passes, accepted = bare_sides(family, args)
        for count in family.counts[1:4]:
            loss = family.build(adjoint.RecursiveCheckpointAdjoint(checkpoints=count))
            gradient = jax.jit(jax.grad(loss, (0, 1))).lower(*args).compile()
            timed(gradient, args)
            again = adjoint.executed_steps(accepted, count, accepted) - 2 * accepted
            found = []
            for pair in range(options.pairs):
                whole = timed(gradient, args)
                step, product = (min(timed(run, args) for run in sides[part]) / LOOPS for part in sides)
                limit = (passes + again) * step + accepted * product
                found.append(whole / limit)
                row = {"family": family.name, "checkpoints": count, "pair": pair, "run_seconds": whole}
                row |= {"step_seconds": step, "product_seconds": product, "limit_seconds": limit}
                row |= {"passes": passes, "accepted": accepted, "recomputed": again}
                rows.append(row | environment(options.seed))
            every.append(statistics.median(found))
            print(
                f"{family.name:18} c={count:4}  {every[-1]:5.2f} times the bare steps"
                f"  ({1e3 * rows[-1]['run_seconds']:8.2f} ms, a step {1e6 * rows[-1]['step_seconds']:8.2f} us)",
                flush=True,
            )
        pd.DataFrame(rows).to_csv(options.out, index=False)
        jax.clear_caches()
    print(f"median {statistics.median(every):.2f}, worst {max(every):.2f}")
    print(f"wrote {options.out}")


if __name__ == "__main__":
    main()
