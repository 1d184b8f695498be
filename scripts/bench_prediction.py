"""Count what adaptive solves execute when nobody says how many steps they will make, over the offline optimum.

    python scripts/bench_prediction.py --out prediction.csv

Executed are the steps that the forward sweep visits, those recomputed and those reversed, as the checkpoints that a
real gradient placed make them; the optimum is `adjoint.optimal_steps`. `online` is the ratio without any prediction.
"""

import argparse
import csv
import itertools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

import adjoint
from adjoint.loop import sweeps
from adjoint.theory import schedule as theory


def _sde(t: Any, y: Any, args: Any) -> Any:
    del t
    return -args * y


PATH = diffrax.VirtualBrownianTree(0.0, 20.0, tol=1e-4, shape=(2,), key=jr.key(3))
PROBLEMS: dict[str, tuple[Callable, Any, float]] = {
    "smooth": (lambda t, y, a: jnp.tanh(a * y) - 0.3 * y + jnp.sin(t), jnp.ones(2), 60.0),
    "oscillating": (
        lambda t, y, a: jnp.stack([y[1], a * 5 * (1 - y[0] ** 2) * y[1] - y[0]]), jnp.array([2.0, 0.0]), 40.0,
    ),
    "stiffening": (lambda t, y, a: -a * (1 + t * t) * (y - jnp.cos(t)), jnp.ones(2), 12.0),
    "relaxing": (lambda t, y, a: -a * (y - 1) / (1e-4 + t), jnp.array([2.0, 3.0]), 1e4),
    "bursts": (lambda t, y, a: -y + 10 * jnp.exp(-200 * jnp.sin(t) ** 2) * a, jnp.ones(2), 25.0),
    "discontinuous": (lambda t, y, a: -a * y + (jnp.sin(3 * t) > 0.5), jnp.ones(2), 30.0),
    "sde": (_sde, jnp.ones(2), 20.0),
}  # fmt: skip


def gradient(name: str, checkpoints: int) -> Callable[[Any], Any]:
    """Build the gradient of a problem, its number of steps not given."""
    field, y0, t1 = PROBLEMS[name]
    terms: Any = diffrax.ODETerm(field)
    solver: Any = diffrax.Tsit5()
    controller = diffrax.PIDController(rtol=1e-6, atol=1e-8)
    if name == "sde":
        noise = diffrax.ControlTerm(lambda t, y, args: 0.3 * jnp.diag(jnp.cos(y)), PATH)
        terms, solver = diffrax.MultiTerm(terms, noise), diffrax.Heun()
        controller = diffrax.PIDController(rtol=1e-2, atol=1e-3, pcoeff=0.1, icoeff=0.3, dtmin=1e-3)

    def loss(parameter: Any) -> Any:
        solution = diffrax.diffeqsolve(
            terms, solver, 0.0, t1, None, y0, parameter, stepsize_controller=controller, max_steps=100_000,
            adjoint=adjoint.RecursiveCheckpointAdjoint(checkpoints),
        )  # fmt: skip
        assert solution.ys is not None
        return jnp.sum(jnp.square(solution.ys))

    return jax.jit(jax.grad(loss))


def placed(name: str, checkpoints: int) -> tuple[int, list[int]]:
    """Run a gradient and return the number of visited steps, and those that were stored by the forward sweep."""
    seen: list[tuple[int, list[int]]] = []
    original = sweeps.run_storing

    def watched(*args: Any) -> Any:
        found = original(*args)
        stored = found[1]

        def note(count: Any, top: Any, steps: Any) -> None:
            seen.append((int(count), [int(step) for step in np.asarray(steps)[: int(top) + 1]]))

        if stored.steps.shape[0] == checkpoints:
            jax.debug.callback(note, stored.count, stored.top, stored.steps)
        return found

    sweeps.run_storing = watched
    try:
        jax.block_until_ready(gradient(name, checkpoints)(1.0))
        jax.effects_barrier()
    finally:
        sweeps.run_storing = original
    return max(seen)


def main() -> int:
    """Print a line a cell and write the CSV."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("prediction.csv"), help="where the CSV goes")
    parser.add_argument("--counts", default="5,16,64", help="checkpoints, comma-separated")
    options = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    with options.out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["problem", "steps", "checkpoints", "executed", "optimal", "ratio", "online_ratio"])
        for name, checkpoints in itertools.product(PROBLEMS, map(int, options.counts.split(","))):
            steps, stored = placed(name, checkpoints)
            gaps = itertools.pairwise([*stored, steps])
            again = sum(theory.advances(stop - start, checkpoints - k) for k, (start, stop) in enumerate(gaps))
            executed, best = 2 * steps + again, theory.optimal_steps(steps, checkpoints)
            online = theory.executed_steps(steps, checkpoints) / best
            writer.writerow([name, steps, checkpoints, executed, best, f"{executed / best:.4f}", f"{online:.4f}"])
            print(
                f"{name:14} {steps:6} steps  c={checkpoints:3}  executed {executed:7}, optimum {best:7}: "
                f"{executed / best:.3f} (without prediction {online:.3f})",
                flush=True,
            )
    print(f"wrote {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
