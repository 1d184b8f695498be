"""Train shipped problems twice, with Diffrax's adjoint and with ours, and compare the losses of every step.

    python scripts/validation/training_curves.py --out curves.csv [--steps 300] [--problems spirals,neural_sde]

Float64, gradient descent (Adam divides a slope that is rounding alone by its own size), the same initial model, the
problems made small so that a run takes minutes. Beside the difference of the two curves stands what one unit in the
last place of the initial model makes of the run with Diffrax's adjoint: an adaptive solve may amplify it.
"""

import argparse
import csv
import importlib.util
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import adjoint

PROBLEMS = Path(__file__).parents[1] / "problems"
SMALL: dict[str, dict[str, Any]] = {
    "lynx_hare": {"horizon": 8, "members": 4},
    "spirals": {"horizon": 4.0, "batch": 8, "latent": 8, "width": 16},
    "neural_sde": {"horizon": 1.0, "batch": 8, "hidden": 8, "width": 8},
    "neural_cde": {"horizon": 20, "batch": 8, "hidden": 8, "width": 16},
}
CHECKPOINTS = 5
RATE = 1e-2


def factory(name: str) -> Any:
    """Load the factory of a shipped problem."""
    spec = importlib.util.spec_from_file_location(name, PROBLEMS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(PROBLEMS))
    spec.loader.exec_module(module)
    return module.make


def losses(name: str, method: Any, steps: int, nudge: float = 0.0) -> Iterator[float]:
    """Train a problem and yield its loss before each step; `nudge` changes the initial parameters, relatively."""
    gradient, (model, *data) = factory(name)(adjoint=method, **SMALL[name])
    wide = lambda x: x.astype(jnp.float64) * (1 + nudge) if eqx.is_inexact_array(x) else x
    model = jax.tree.map(wide, model)
    data = jax.tree.map(lambda x: x.astype(jnp.float64) if eqx.is_inexact_array(x) else x, data)

    @eqx.filter_jit
    def step(model: Any, data: Any) -> Any:
        loss, slopes = gradient(model, *data)
        return loss, eqx.apply_updates(model, jax.tree.map(lambda slope: -RATE * slope, slopes))

    for _ in range(steps):
        loss, model = step(model, data)
        yield float(loss)


def difference(one: np.ndarray, other: np.ndarray) -> float:
    """Return the largest relative difference of two curves."""
    return float(np.max(np.abs(one - other) / np.maximum(np.abs(one), 1e-12)))


def main() -> None:
    """Train, compare, print a line a problem, and write every loss."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("curves.csv"))
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--problems", default="spirals,neural_sde,lynx_hare", help=f"of {', '.join(SMALL)}")
    asked = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    versions = {"jax": jax.__version__, "diffrax": diffrax.__version__}
    rows = []
    for name in asked.problems.split(","):
        start = time.perf_counter()
        sides = {
            "diffrax": (diffrax.RecursiveCheckpointAdjoint(CHECKPOINTS), 0.0),
            "ours": (adjoint.RecursiveCheckpointAdjoint(CHECKPOINTS), 0.0),
            "nudged": (diffrax.RecursiveCheckpointAdjoint(CHECKPOINTS), np.finfo(np.float64).eps),
        }
        curves = {side: np.array(list(losses(name, method, asked.steps, by))) for side, (method, by) in sides.items()}
        for side, curve in curves.items():
            rows += [{"problem": name, "adjoint": side, "step": k, "loss": x, **versions} for k, x in enumerate(curve)]
        print(
            f"{name}: {asked.steps} steps, loss {curves['ours'][0]:.4g} to {curves['ours'][-1]:.4g}; largest relative "
            f"difference to Diffrax's adjoint {difference(curves['diffrax'], curves['ours']):.1e}, of one unit in the "
            f"last place {difference(curves['diffrax'], curves['nudged']):.1e} ({time.perf_counter() - start:.0f} s)",
            flush=True,
        )
    with asked.out.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    print(f"wrote {asked.out}")


if __name__ == "__main__":
    main()
