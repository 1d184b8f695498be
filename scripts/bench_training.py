"""Ten training steps whose count is chosen by itself, beside the best count found by hand and Diffrax's default.

Each run is one gradient of a shipped problem, at a batch, horizon and budget of its own. `autotune.auto_adjoint`
chooses from nothing (an empty store), as it does on the first start of a training script. By hand means: the largest
counts of a grid that fit the budget, compiled and timed in shuffled rounds beside the chosen one and Diffrax's default.
The peak of a step is what it is compiled to need; beside it stands the rise of resident memory where that was seen.

    python scripts/bench_training.py --out training.csv          ten runs, each in a process of its own (20 minutes)
    python scripts/bench_training.py --out training.csv --only 3
    python scripts/bench_training.py --drift drift.csv           300 training steps in which a solve doubles in length

The last trains a neural ODE while its horizon grows, and calls four adjoints at every step in shuffled order: ours with
few checkpoints and the prediction of the first step, with the last observed count handed in as a traced integer (no new
compile), without any, and Diffrax's as it is.
"""

import argparse
import csv
import dataclasses
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autotune import parse_bytes
from profiles import format_bytes, format_seconds

PROBLEMS = Path(__file__).parent / "problems"
GRID = (3, 4, 6, 8, 11, 16, 22, 32, 45, 64, 90, 128, 181, 256, 512)
MOST_BY_HAND = 6
"""How many counts are tried by hand: those that execute the fewest steps, and smaller ones that write less."""
ROUNDS, MOST_ROUNDS, ENOUGH_SECONDS = 16, 60, 60.0
"""At least ROUNDS, up to MOST_ROUNDS where all of them together take no longer than so many seconds. The best by hand
is chosen by the even rounds and compared with by the odd ones: luck alone would beat the choice."""


@dataclasses.dataclass(frozen=True, slots=True)
class Run:
    """One training run: which problem, at what size, within which budget."""

    problem: str
    budget: str
    horizon: int | float | None = None
    set_values: Mapping[str, int] = dataclasses.field(default_factory=dict)


RUNS = (
    Run("lynx_hare", "2MiB"),
    Run("lynx_hare", "14MiB", 12, {"members": 2048, "width": 16}),
    Run("spirals", "8MiB"),
    Run("spirals", "20MiB", 20.0, {"batch": 256}),
    Run("reaction_diffusion", "24MiB"),
    Run("reaction_diffusion", "64MiB", 250, {"grid": 512}),
    Run("neural_sde", "3MiB"),
    Run("neural_sde", "56MiB", 5.0, {"batch": 256, "hidden": 64}),
    Run("robertson", "3MiB"),
    Run("neural_cde", "8MiB", 200, {"batch": 256}),
)


def measure(run: Run) -> dict[str, Any]:
    """Choose, compile, and time one run in this process."""
    import diffrax
    import jax

    import adjoint
    from autotune import AutoRequest, auto_choice, compile_call, device_info, load_problem

    spec = f"{PROBLEMS / run.problem}.py:make"
    with tempfile.TemporaryDirectory() as folder:
        ask = AutoRequest(problem=spec, budget=run.budget, horizon=run.horizon, set_values=dict(run.set_values))
        choice = auto_choice(ask, store=f"{folder}/profiles.db")
    problem = load_problem(spec, set_values=dict(run.set_values))
    budget = parse_bytes(run.budget)

    def prepare(made: Any) -> tuple[Any, Any, int]:
        call = problem.make(made, run.horizon, None)
        executable = compile_call(call)
        assert executable.planned.total is not None
        return executable, call.args, executable.planned.total

    accepted, steps = choice.recommendation.accepted, choice.recommendation.steps
    assert accepted is not None
    assert steps is not None
    sides = {"chosen": prepare(choice.adjoint), "Diffrax": prepare(diffrax.RecursiveCheckpointAdjoint())}
    tried = [choice.checkpoints]
    largest = {count for count in (*GRID, accepted) if count <= accepted}
    # From the largest that fits downwards: below those, ever more is computed again.
    for count in sorted(largest - set(tried), reverse=True):
        if len(sides) - 2 >= MOST_BY_HAND:
            break
        side = prepare(adjoint.RecursiveCheckpointAdjoint(checkpoints=count, expected_steps=accepted))
        if side[2] <= budget:
            sides[str(count)] = side
            tried.append(count)
    samples: dict[str, list[float]] = {name: [] for name in sides}
    order = random.Random(0)
    started, turn = time.perf_counter(), 0
    while turn <= ROUNDS or (turn <= MOST_ROUNDS and time.perf_counter() - started < ENOUGH_SECONDS):
        names = list(sides)
        order.shuffle(names)
        for name in names:
            executable, args, _ = sides[name]
            start = time.perf_counter()
            jax.block_until_ready(executable.run(args))
            if turn:  # the first round warms up
                samples[name].append(time.perf_counter() - start)
        turn += 1
    seconds = {name: statistics.median(found) for name, found in samples.items()}
    by_hand = {name: statistics.median(found[::2]) for name, found in samples.items() if name != "Diffrax"}
    best = min(by_hand, key=lambda name: by_hand[name])
    above = statistics.median(
        one / other for one, other in zip(samples["chosen"][1::2], samples[best][1::2], strict=False)
    )
    info = device_info()
    return {
        "problem": run.problem, "horizon": "" if run.horizon is None else run.horizon,
        "set_values": " ".join(f"{key}={value}" for key, value in run.set_values.items()),
        "budget_bytes": budget, "steps": steps, "accepted": accepted, "chosen": choice.checkpoints,
        "choice_seconds": round(choice.cost_seconds, 1), "predicted_bytes": choice.recommendation.peak_bytes,
        "peak_bytes": sides["chosen"][2],
        "run_bytes": max(row.run_bytes or 0 for row in choice.rows),
        "fits": int(sides["chosen"][2] <= budget), "seconds": seconds["chosen"],
        "best_by_hand": choice.checkpoints if best == "chosen" else int(best), "best_seconds": seconds[best],
        "above_best": round(above - 1, 4),
        "tried_by_hand": " ".join(map(str, sorted(tried))),
        "diffrax_peak_bytes": sides["Diffrax"][2], "diffrax_fits": int(sides["Diffrax"][2] <= budget),
        "diffrax_seconds": seconds["Diffrax"], "diffrax_over_chosen": round(seconds["Diffrax"] / seconds["chosen"], 3),
        "device": info.kind, **info.versions,
    }  # fmt: skip


DRIFT_STEPS, DRIFT_CHECKPOINTS = 300, 10


def drift(training_steps: int = DRIFT_STEPS) -> list[dict[str, Any]]:
    """Train while the number of steps doubles, and time every adjoint at every training step."""
    import diffrax
    import equinox as eqx
    import jax
    import jax.numpy as jnp
    import jax.random as jr

    from adjoint import RecursiveCheckpointAdjoint, executed_steps
    from autotune import device_info

    field = eqx.nn.MLP(4, 4, 32, 2, jnp.tanh, key=jr.key(0))
    start = jr.normal(jr.key(1), (64, 4))

    def turning(t: Any, y: Any, field: Any) -> Any:
        del t
        return 3.0 * jnp.stack([y[:, 1], -y[:, 0], y[:, 3], -y[:, 2]], axis=1) + 0.1 * jax.vmap(field)(y)

    def gradient(make_adjoint: Any) -> Any:
        def loss(field: Any, horizon: Any, expected: Any) -> tuple[Any, Any]:
            solution = diffrax.diffeqsolve(
                diffrax.ODETerm(turning), diffrax.Tsit5(), 0.0, horizon, 0.05, start,
                field, stepsize_controller=diffrax.PIDController(rtol=1e-6, atol=1e-8), max_steps=4096,
                adjoint=make_adjoint(expected),
            )  # fmt: skip
            assert solution.ys is not None
            return jnp.mean((solution.ys[-1] - jnp.roll(start, 1, axis=1)) ** 2), solution.stats["num_accepted_steps"]

        return eqx.filter_jit(eqx.filter_value_and_grad(loss, has_aux=True))

    def horizon(index: int) -> Any:
        return jnp.asarray(12.0 * (1 + index / (training_steps - 1)))

    (_, first), _ = gradient(lambda expected: RecursiveCheckpointAdjoint(DRIFT_CHECKPOINTS))(field, horizon(0), 0)
    predicted = int(first)
    ours = RecursiveCheckpointAdjoint
    sides = {
        "fixed": gradient(lambda expected: ours(DRIFT_CHECKPOINTS, expected_steps=predicted)),
        "updated": gradient(lambda expected: ours(DRIFT_CHECKPOINTS, expected_steps=expected)),
        "without": gradient(lambda expected: ours(DRIFT_CHECKPOINTS)),
        "Diffrax": gradient(lambda expected: diffrax.RecursiveCheckpointAdjoint()),
    }
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    accepted, last, order = [], predicted, random.Random(0)
    for call in sides.values():
        jax.block_until_ready(call(field, horizon(0), jnp.asarray(last)))
    executed = {"fixed": 0, "updated": 0}
    for index in range(training_steps):
        names = list(sides)
        order.shuffle(names)
        for name in names:
            started = time.perf_counter()
            (_, count), slope = jax.block_until_ready(sides[name](field, horizon(index), jnp.asarray(last)))
            seconds[name].append(time.perf_counter() - started)
        accepted.append(int(count))
        for name, expected in (("fixed", predicted), ("updated", last)):
            executed[name] += executed_steps(accepted[-1], DRIFT_CHECKPOINTS, expected)
        last = accepted[-1]
        field = eqx.apply_updates(field, jax.tree.map(lambda g: -1e-3 * g, slope))
    info = device_info()
    return [
        {
            "adjoint": name, "checkpoints": "" if name == "Diffrax" else DRIFT_CHECKPOINTS,
            "training_steps": training_steps, "first_steps": accepted[0], "last_steps": accepted[-1],
            "seconds": round(sum(samples), 3), "first_half_seconds": round(sum(samples[: training_steps // 2]), 3),
            "over_fixed": round(statistics.median(map(_over, samples, seconds["fixed"])), 4),
            "executed_steps": executed.get(name, ""), "device": info.kind, **info.versions,
        }
        for name, samples in seconds.items()
    ]  # fmt: skip


def _over(one: float, other: float) -> float:
    return one / other


def main() -> None:
    """Measure the runs one after the other, each in a fresh process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="CSV file; rows are added")
    parser.add_argument("--drift", type=Path, help="CSV file of the training whose solve doubles in length")
    parser.add_argument("--only", type=int, help=f"one run alone, 0 to {len(RUNS) - 1}, in this process")
    options = parser.parse_args()
    if options.drift is not None:
        rows = drift()
        with options.drift.open("w", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        for row in rows:
            print(f"{row['adjoint']}: {row['seconds']} s, {row['over_fixed']}x the fixed prediction's")
        return
    if options.out is None:
        parser.error("--out FILE or --drift FILE")
    if options.only is None:
        for number in range(len(RUNS)):
            subprocess.run([sys.executable, __file__, "--out", options.out, "--only", str(number)], check=False)
        print(f"wrote {options.out}")
        return
    row = measure(RUNS[options.only])
    new = not options.out.exists()
    with options.out.open("a", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(row))
        if new:
            writer.writeheader()
        writer.writerow(row)
    print(
        f"{row['problem']} {row['set_values']}: {row['chosen']} checkpoints of {row['accepted']} steps in "
        f"{row['choice_seconds']} s, peak {format_bytes(row['peak_bytes'])} of {format_bytes(row['budget_bytes'])}, "
        f"{format_seconds(row['seconds'])} ({row['above_best']:+.1%} of the best by hand, {row['best_by_hand']}); "
        f"Diffrax {format_bytes(row['diffrax_peak_bytes'])}, {format_seconds(row['diffrax_seconds'])}"
        f"{'' if row['diffrax_fits'] else ', does not fit'}",
        flush=True,
    )


if __name__ == "__main__":
    main()
