"""Whether anybody finds a better count by hand: what `autotune.tune` recommends, beside all powers of two that fit.

Ten problems (the shipped six, smaller, and the four of `truth_problems.py`) at three budgets each: what one checkpoint
takes, and a tenth, a half and one and a half of what storing every step takes beyond that. Each budget is tuned with an
empty store. By hand means: the counts 1, 2, 4, …, the number of steps and `max_steps`, each compiled in this process,
those that fit the budget timed in shuffled rounds beside the recommended ones. Rows are added as they come; what is
there is not measured again, so that a call goes on where another ended.

    python scripts/bench_truth.py --out truth.csv                        all ten, each in a process of its own
    python scripts/bench_truth.py --out truth.csv --only tiny,few        these
    python scripts/bench_truth.py --table truth.csv                      the README's table of a file
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
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from profiles import format_bytes, format_seconds

SCRIPTS = Path(__file__).parent
SHARES = (0.1, 0.5, 1.5)
"""The budgets, as shares of the bytes that everything stored takes beyond one checkpoint."""
MOST_RECOMPUTED = 6.0
"""A count by hand that executes more than so many times what storing everything executes is not timed: it cannot be the
best, and with one checkpoint a solve of 20,000 steps would take minutes."""
ROUNDS, ENOUGH_SECONDS = 12, 40.0
"""At least ROUNDS of all counts, more while they take no longer than so many seconds in all, at most ten times so many.
The best by hand is chosen by the even rounds and compared by the odd ones: luck alone would beat the choice."""
FEW_GRADIENTS = 20
"""How many gradients a tune may take beside its compiles."""


@dataclasses.dataclass(frozen=True, slots=True)
class Problem:
    """One problem: its factory, and what it is swept over."""

    spec: str
    horizon: int | float | None = None
    set_values: Mapping[str, int] = dataclasses.field(default_factory=dict)

    @property
    def name(self) -> str:
        """Its name in the table."""
        file, _, factory = self.spec.partition(".py:")
        return factory if file.startswith("truth") else file.rpartition("/")[2]


PROBLEMS = (
    Problem("truth_problems.py:tiny"),
    Problem("truth_problems.py:few"),
    Problem("truth_problems.py:loop"),
    Problem("truth_problems.py:nbody"),
    Problem("problems/lynx_hare.py:make", 10, {"members": 64}),
    Problem("problems/spirals.py:make", 20.0, {"batch": 16}),
    Problem("problems/reaction_diffusion.py:make", 200, {"grid": 64}),
    Problem("problems/neural_sde.py:make", 4.0, {"batch": 16}),
    Problem("problems/robertson.py:make", 1e3, {"experiments": 32}),
    Problem("problems/neural_cde.py:make", 100, {"batch": 16}),
)


@dataclasses.dataclass(slots=True)
class Side:
    """A count by hand: its compiled call with its arguments, its bytes, and what it took."""

    call: Any
    args: Any
    planned_bytes: int
    compile_seconds: float
    samples: list[float] = dataclasses.field(default_factory=list)

    def once(self) -> float:
        """Call once and wait."""
        started = time.perf_counter()
        self.call.run(self.args)
        return time.perf_counter() - started


class ByHand:
    """The counts of one problem, compiled in this process when they are first wanted."""

    def __init__(self, problem: Problem) -> None:
        """Count the steps in a worker, so that this process stays as it is."""
        from autotune import ProbeRequest, SubprocessRunner, load_problem

        spec = f"{SCRIPTS / problem.spec}"
        with SubprocessRunner() as runner:
            asked = ProbeRequest(problem=spec, set_values=dict(problem.set_values), horizon=problem.horizon)
            seen = runner.observe(asked)
        assert seen.steps is not None
        assert seen.accepted is not None
        self.steps, self.accepted = seen.steps, seen.accepted
        self.most = max(site.max_steps or seen.steps for site in seen.sites)
        self._problem = load_problem(spec, set_values=dict(problem.set_values))
        self._horizon = problem.horizon
        self.sides: dict[int, Side] = {}

    def side(self, count: int) -> Side:
        """Compile a count, once."""
        from adjoint import RecursiveCheckpointAdjoint
        from autotune import compile_call

        if count not in self.sides:
            made = RecursiveCheckpointAdjoint(checkpoints=count, expected_steps=self.accepted)
            call = self._problem.make(made, self._horizon, None)
            started = time.perf_counter()
            compiled = compile_call(call)
            assert compiled.planned.total is not None
            self.sides[count] = Side(compiled, call.args, compiled.planned.total, time.perf_counter() - started)
        return self.sides[count]

    def budget(self, share: float) -> int:
        """Return what one checkpoint takes, and a share of what every step in a slot takes beyond that."""
        least, most = self.side(1).planned_bytes, self.side(self.accepted).planned_bytes
        return int(least + share * (most - least))

    def counts(self) -> list[int]:
        """List the counts to try: powers of two, all steps, and as many as there could be."""
        from adjoint import executed_steps

        powers = {2**k for k in range(self.accepted.bit_length())}
        wanted = sorted({*powers, self.accepted, self.steps, self.most})
        most = MOST_RECOMPUTED * 2 * self.accepted
        return [count for count in wanted if executed_steps(self.accepted, count, self.accepted) <= most]

    def time(self, counts: Sequence[int], keep: Sequence[int], budgets: Sequence[int]) -> None:
        """Time counts in shuffled rounds; those to `keep` to the end, others while they may be the best of a budget."""
        order, names = random.Random(0), list(counts)
        for count in names:
            self.side(count).once()
        started = time.perf_counter()
        turn = 0
        while turn < ROUNDS or (turn < 10 * ROUNDS and time.perf_counter() - started < ENOUGH_SECONDS):
            order.shuffle(names)
            for count in names:
                self.side(count).samples.append(self.side(count).once())
            turn += 1
            if turn == 2:  # what is far from the best is not the best
                kept = set(keep)
                for budget in budgets:
                    within = [n for n in names if self.side(n).planned_bytes <= budget]
                    fastest = min((min(self.side(n).samples) for n in within), default=0.0)
                    kept |= {n for n in within if min(self.side(n).samples) <= 2 * fastest}
                names = [n for n in names if n in kept]
            if time.perf_counter() - started > 10 * ENOUGH_SECONDS:
                break


def tuned(problem: Problem, budget: int) -> dict[str, Any]:
    """Tune with an empty store; return what was recommended, what was claimed of it, and what that cost."""
    from autotune import Listed, TuneRequest, tune

    spec = f"{SCRIPTS / problem.spec}"
    listed = Listed(
        horizons=() if problem.horizon is None else (problem.horizon,),
        set_values={key: (value,) for key, value in problem.set_values.items()},
    )
    with tempfile.TemporaryDirectory() as folder:
        request = TuneRequest(problem=spec, listed=listed)
        started = time.perf_counter()
        result = tune(spec, budget=budget, store=f"{folder}/profiles.db", request=request)
        seconds = time.perf_counter() - started
    (choice,) = result.recommendations
    compiled = [row for row in result.rows if row.compile_seconds is not None]
    ran = [row.run_bytes or 0 for row in result.rows if row.checkpoints == choice.checkpoints]
    spent = getattr(result, "spent", None)
    return {
        "status": str(choice.status), "chosen": choice.checkpoints, "expected_steps": choice.expected_steps,
        "claimed_bytes": choice.peak_bytes, "claimed_seconds": choice.run_seconds,
        "smallest_bytes": choice.smallest_bytes,
        "run_bytes": max(ran, default=0),
        "tried": " ".join(str(c) for c in sorted({row.checkpoints for row in result.rows})),
        "compiles": len(compiled), "processes": "" if spent is None else spent.processes,
        "compile_seconds": round(sum((row.compile_seconds or 0) + (row.trace_seconds or 0) for row in compiled), 2),
        "tune_seconds": round(seconds, 1),
    }  # fmt: skip


def measure(problem: Problem, shares: Sequence[float]) -> list[dict[str, Any]]:
    """Tune at every budget, then compare in this process."""
    from autotune import device_info

    by_hand = ByHand(problem)
    budgets = {share: by_hand.budget(share) for share in shares}
    chosen = {share: tuned(problem, budget) for share, budget in budgets.items()}
    recommended = {one["chosen"] for one in chosen.values() if one["chosen"]}
    counts = sorted({*by_hand.counts(), *recommended})
    largest = max(budgets.values())
    fitting = [count for count in counts if by_hand.side(count).planned_bytes <= largest]
    by_hand.time(fitting, sorted(recommended), list(budgets.values()))
    info = device_info()
    rows = []
    for share, budget in budgets.items():
        one = chosen[share]
        row = {
            "problem": problem.name, "share": share, "budget_bytes": budget, "steps": by_hand.steps,
            "accepted": by_hand.accepted, "max_steps": by_hand.most, **one,
        }  # fmt: skip
        within = [count for count in fitting if by_hand.side(count).planned_bytes <= budget]
        row |= {"fits": "", "peak_bytes": "", "claimed_over_peak": "", "seconds": "", "best": "", "over_best": ""}
        row["limit_seconds"] = ""
        if one["chosen"] and within:
            row |= _compared(by_hand.sides, one, within, budget)
        elif not one["chosen"]:
            row["fits"] = int(not within)  # nothing fits, and nobody finds anything
        rows.append(row | {"by_hand": " ".join(map(str, within)), "device": info.kind, **info.versions})
    return rows


def _compared(sides: Mapping[int, Side], one: Mapping[str, Any], within: Sequence[int], budget: int) -> dict[str, Any]:
    """Compare a recommended count with the best by hand: the best by even rounds, the ratio by odd ones."""
    most = len(sides[one["chosen"]].samples)
    timed = [count for count in within if len(sides[count].samples) == most]  # others were far from the best
    medians = {count: statistics.median(sides[count].samples[::2]) for count in timed}
    best = min(medians, key=lambda count: medians[count])
    mine, theirs = sides[one["chosen"]].samples, sides[best].samples
    ratio = statistics.median(a / b for a, b in zip(mine[1::2], theirs[1::2], strict=False))
    planned = sides[one["chosen"]].planned_bytes
    peak = max(planned, one["run_bytes"])
    claimed = round(one["claimed_bytes"] / peak, 4)
    seconds = statistics.median(mine)
    limit = 1.3 * (one["compile_seconds"] + FEW_GRADIENTS * seconds)
    return {
        "fits": int(planned <= budget), "peak_bytes": peak, "claimed_over_peak": claimed,
        "seconds": seconds, "best": best, "over_best": round(ratio, 4), "limit_seconds": round(limit, 1),
    }  # fmt: skip


def table(path: Path) -> str:
    """Write the README's table of a file."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    lines = [
        "| problem | budget | recommended | a call | best by hand | claimed over needed | compiles, tuning |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        budget = f"{format_bytes(int(row['budget_bytes']))} ({float(row['share']):g}x)"
        if not row["chosen"]:
            cost = f"{row['compiles']}, {row['tune_seconds']} s"
            lines.append(f"| {row['problem']} | {budget} | nothing fits | | | | {cost} |")
            continue
        gap = f"{row['best']} ({1 / float(row['over_best']) - 1:+.0%})" if row["best"] != row["chosen"] else "the same"
        lines.append(
            f"| {row['problem']} | {budget} | {row['chosen']} | {format_seconds(float(row['seconds']))} | {gap} | "
            f"{float(row['claimed_over_peak']):.2f} | {row['compiles']}, {row['tune_seconds']} s |"
        )
    ratios = [float(row["over_best"]) for row in rows if row["over_best"]]
    if ratios:
        worst = max(ratios)
        lines.append(f"\n{len(ratios)} recommendations: median {statistics.median(ratios):.3f}, worst {worst:.3f}")
    return "\n".join(lines)


def main() -> None:
    """Measure the problems one after the other, each in a fresh process, and add their rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="CSV file; rows are added")
    parser.add_argument("--only", default=",".join(problem.name for problem in PROBLEMS), help="with commas between")
    parser.add_argument("--shares", default=",".join(map(str, SHARES)), help="the budgets, with commas between")
    parser.add_argument("--here", action="store_true", help="measure in this process")
    parser.add_argument("--table", type=Path, help="print the table of a file, and measure nothing")
    options = parser.parse_args()
    if options.table is not None:
        print(table(options.table))
        return
    if options.out is None:
        parser.error("--out FILE or --table FILE")
    for problem in PROBLEMS:
        wanted = [share for share in map(float, options.shares.split(",")) if not _there(options.out, problem, share)]
        if problem.name not in options.only.split(",") or not wanted:
            continue
        if not options.here:
            shares = ",".join(map(str, wanted))
            same = ["--out", str(options.out), "--only", problem.name, "--shares", shares, "--here"]
            subprocess.run([sys.executable, __file__, *same], check=False)
            continue
        for row in measure(problem, wanted):
            _add(options.out, row)
            shown = ("problem", "share", "chosen", "best", "over_best", "claimed_over_peak", "compiles", "tune_seconds")
            print({name: row[name] for name in shown}, flush=True)


def _there(path: Path, problem: Problem, share: float) -> bool:
    if not path.exists():
        return False
    with path.open(newline="") as file:
        return any(row["problem"] == problem.name and float(row["share"]) == share for row in csv.DictReader(file))


def _add(path: Path, row: Mapping[str, Any]) -> None:
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(row))
        if new:
            writer.writeheader()
        writer.writerow(row)


if __name__ == "__main__":
    main()
