"""What a sampler of Optuna's finds in a large space of `--set` keys, beside the laws' search, in as many trials.

The whole grid (`--set` values x counts) is recorded once by an exhaustive tune (half an hour on 2 cores; a second call
goes on where the first one ended). Then the laws' search and Optuna's multi-objective TPE, which knows both objectives
and the budget as a constraint, are answered from the record until each has made N trials. What was found is scored:

- `answered`: the share of the cases (one for each combination of `--set` values) where a count was found that fits and
  takes at most 5 % more than the best recorded one that fits: what a tune is asked for;
- `case_hypervolume`: the area that the found points dominate in each case (log seconds, log bytes, within the budget),
  over that of all recorded points, as a mean over the cases;
- `hypervolume`, `above_best`: the same area over the whole space at once, and the least seconds found anywhere within
  the budget over the least recorded: the `--set` values taken for free choices, as an optimiser takes them.

A point that is asked for again is answered for free. What the laws' search only compiled counts like what was timed.

    python scripts/bench_sampler.py --out results [--problems neural_sde]
"""

import argparse
import dataclasses
import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
from bench_search import Silent, known_seconds, record

from autotune import Listed, ReplayMachine, Trial, TuneRequest, cell_of, run_tune
from profiles import Case, Measurement, open_store, plain_value

PROBLEMS = Path(__file__).parent / "problems"
SWEEPS = {
    "neural_sde": Listed(
        horizons=(2.0,),
        set_values={"batch": (16,), "hidden": (8, 16), "width": (16, 32), "solver": ("heun", "reversible_heun")},
        counts=(2, 4, 8, 14, 24, 48, 100),
    ),
}
TRIALS = (8, 16, 24, 40)
SEEDS = 10
BUDGETS = (0.25, 0.5, 1.0)
"""Where the budget lies between the smallest and the largest recorded peak, in equal ratios."""
ANSWERED = 0.05


Place = tuple[Case, int]
"""A point of the record: its case and its count."""


class Enough(Exception):
    """As many trials were made as were asked for."""


class Capped(ReplayMachine):
    """A recorded sweep that ends a tune at its first trial beyond so many points."""

    def __init__(self, rows: Sequence[Measurement], most: int) -> None:
        """Answer nothing yet."""
        super().__init__(rows, "the record")
        self._most = most
        self.made: dict[Place, Measurement] = {}

    def run(self, trials: Sequence[Trial]) -> list[Measurement]:
        """Answer, and keep the row that went furthest at each point."""
        rows = super().run(trials)
        for row in rows:
            if place_of(row) not in self.made and len(self.made) == self._most:
                raise Enough
            if row.run_seconds or place_of(row) not in self.made:
                self.made[place_of(row)] = row
        return rows


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A recorded sweep: one row at one speed of the machine for every case and count."""

    request: TuneRequest
    rows: Mapping[Place, Measurement]

    @classmethod
    def of(cls, rows: Sequence[Measurement], request: TuneRequest) -> "Record":
        """Keep one timed row of every point, with the median of all its samples as they compare with the others'."""
        seconds = known_seconds(rows)
        kept = {place_of(row): row for row in rows if row.run_seconds and row.peak_bytes}
        kept = {at: dataclasses.replace(row, run_seconds=(seconds[at],), repeat=0) for at, row in kept.items()}
        return cls(request=request, rows=kept)

    def bytes_of(self, place: Place) -> int:
        """Peak bytes of a point."""
        return self.rows[place].peak_bytes or 0

    def seconds_of(self, place: Place) -> float:
        """Seconds of a call at a point."""
        return self.rows[place].run_seconds[0]


def place_of(row: Measurement) -> Place:
    """Where a row stands."""
    return cell_of(row).case, row.checkpoints


def by_laws(record: Record, budget: int, most: int) -> list[Measurement]:
    """Tune from the record until so many points were tried, or the tune ends by itself."""
    machine = Capped(list(record.rows.values()), most)
    with open_store("sqlite://") as store:
        try:
            request = dataclasses.replace(record.request, budget=budget)
            run_tune(request, store=store, machine=machine, progress=Silent())
        except Enough:
            pass
    return list(machine.made.values())


def by_sampler(record: Record, budget: int, most: int, seed: int) -> list[Measurement]:
    """Make the first distinct trials of Optuna's multi-objective TPE."""
    sampler = optuna.samplers.TPESampler(seed=seed, multivariate=True, constant_liar=True)
    study = optuna.create_study(directions=["minimize", "minimize"], sampler=sampler)
    listed, counts = record.request.listed.set_values, sorted(record.request.listed.counts or ())
    cases = {case.set_values: case for case, _ in record.rows}
    found: dict[Place, Measurement] = {}
    while len(found) < min(most, len(record.rows)):
        trial = study.ask()
        chosen = {key: trial.suggest_categorical(key, list(map(plain_value, listed[key]))) for key in sorted(listed)}
        wanted = trial.suggest_int("checkpoints", counts[0], counts[-1], log=True)
        count = min(counts, key=lambda one: abs(math.log(one / wanted)))
        place = cases[tuple(sorted(chosen.items()))], count
        trial.set_constraint("budget", float(record.bytes_of(place) - budget))
        study.tell(trial, (float(record.bytes_of(place)), record.seconds_of(place)))
        found[place] = record.rows[place]
    return list(found.values())


def area(points: Sequence[tuple[float, float]], corner: tuple[float, float]) -> float:
    """The area that points dominate below a corner."""
    found, height = 0.0, corner[1]
    for x, y in sorted(points):
        if x < corner[0] and y < height:
            found += (corner[0] - x) * (height - y)
            height = y
    return found


def score(record: Record, budget: int, rows: Sequence[Measurement]) -> dict[str, float]:
    """Score what was found; see the module's header."""
    fitting = {place for place in record.rows if record.bytes_of(place) <= budget}
    found = {place_of(row) for row in rows if row.run_seconds} & fitting
    answered, shares = [], []
    cases = sorted({case for case, _ in fitting}, key=str)
    for case in cases:
        own, mine = ({place for place in places if place[0] == case} for places in (fitting, found))
        best, best_found = (min(map(record.seconds_of, places), default=math.inf) for places in (own, mine))
        answered.append(best_found <= (1 + ANSWERED) * best)
        shares.append(share_of(record, mine, own))
    best, best_found = (min(map(record.seconds_of, places), default=math.inf) for places in (fitting, found))
    return {
        "cases": len(cases),
        "answered": statistics.mean(answered),
        "case_hypervolume": statistics.mean(shares),
        "hypervolume": share_of(record, found, fitting),
        "above_best": best_found / best - 1,
    }


def share_of(record: Record, found: set[Place], every: set[Place]) -> float:
    """The area that some points dominate, in logarithms, over that of all; the corner lies a tenth beyond the worst."""
    logs = {place: (math.log(record.seconds_of(place)), math.log(record.bytes_of(place))) for place in every}
    corner = (max(x for x, _ in logs.values()) + 0.1, max(y for _, y in logs.values()) + 0.1)
    return area([logs[place] for place in found], corner) / area(list(logs.values()), corner)


def bench(name: str, out: Path) -> Iterator[dict[str, Any]]:
    """Record where needed, then compare at every budget and number of trials."""
    request = TuneRequest(problem=f"{PROBLEMS / name}.py:make", budget="1TiB", listed=SWEEPS[name])
    rows = record(name, request, out / f"sampler_{name}.db")
    kept = Record.of(rows, request)
    peaks = sorted(map(kept.bytes_of, kept.rows))
    for share in BUDGETS:
        budget = math.ceil(peaks[0] ** (1 - share) * peaks[-1] ** share)
        for most in TRIALS:
            sides: dict[str, Callable[[int], list[Measurement]]] = {
                "laws": lambda seed, budget=budget, most=most: by_laws(kept, budget, most),
                "TPE": lambda seed, budget=budget, most=most: by_sampler(kept, budget, most, seed),
            }
            for side, find in sides.items():
                found = [find(seed) for seed in range(SEEDS if side == "TPE" else 1)]
                scores = [score(kept, budget, one) for one in found]
                yield {
                    "problem": name, "points": len(kept.rows), "budget_bytes": budget, "trials_at_most": most,
                    "search": side, "seeds": len(scores), "trials": len(found[0]),
                    **{key: round(float(np.mean([one[key] for one in scores])), 4) for key in scores[0]},
                    "device": rows[0].device.kind, **rows[0].versions, "optuna": optuna.__version__,
                }  # fmt: skip


def main() -> None:
    """Compare on one problem after the other and write sampler.csv."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the records and of sampler.csv")
    parser.add_argument("--problems", default=",".join(SWEEPS), help="which, with commas between")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    rows = [row for name in options.problems.split(",") for row in bench(name, options.out)]
    pd.DataFrame(rows).to_csv(options.out / "sampler.csv", index=False)
    columns = [
        "problem",
        "budget_bytes",
        "search",
        "trials",
        "answered",
        "case_hypervolume",
        "hypervolume",
        "above_best",
    ]
    print(pd.DataFrame(rows)[columns].to_string(index=False))
    print(f"wrote {options.out / 'sampler.csv'}")


if __name__ == "__main__":
    main()
