"""What the default search costs, and what it finds, beside the whole grid: both replayed from one recorded sweep.

A sweep of 5 horizons x 3 tolerances x 12 counts is recorded once by an exhaustive tune (an hour on 2 cores; a second
call goes on where the first one ended). The default search and the exhaustive one are then replayed for five budgets
between the smallest and the largest peak: cost is the time of everything that each asked for (traces, compiles, timed
calls), and what was chosen is scored by the recorded seconds of that count at every horizon and tolerance.

    python scripts/bench_search.py --out results [--problems spirals,lynx_hare]
"""

import argparse
import dataclasses
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from autotune import (
    Fit,
    Listed,
    Recommendation,
    ReplayMachine,
    Trial,
    TuneRequest,
    compared_samples,
    make_machine,
    run_tune,
)
from profiles import Case, Measurement, open_store

PROBLEMS = Path(__file__).parent / "problems"
COUNTS = (3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)
SWEEPS = {
    "spirals": Listed(
        horizons=(10.0, 15.0, 20.0, 30.0, 40.0),
        tolerances=(1e-4, 1e-5, 1e-6),
        set_values={"batch": (32,), "width": (32,)},
        counts=COUNTS,
    ),
    "lynx_hare": Listed(
        horizons=(4, 7, 11, 15, 20), tolerances=(1e-4, 1e-5, 1e-6), set_values={"members": (64,)}, counts=COUNTS
    ),
}
BUDGETS = 5


class CountedReplay(ReplayMachine):
    """A recorded sweep that adds up what its answers took on the device."""

    spent_seconds = 0.0

    def run(self, trials: Sequence[Trial]) -> list[Measurement]:
        """Answer, and count."""
        rows = super().run(trials)
        for row in rows:
            if row.compiled_bytes is None and not row.xla_flags:
                raise RuntimeError(f"asked for what was never recorded: {row.checkpoints} checkpoints at {row.case}")
            self.spent_seconds += (row.trace_seconds or 0) + (row.compile_seconds or 0) + sum(row.run_seconds)
        return rows


class Silent:
    """A progress that shows nothing."""

    def say(self, text: str) -> None:
        """Drop a line."""

    note = say

    def expect(self, trials: int, seconds: float | None) -> None:
        """Drop a forecast."""

    def started(self, trials: Sequence[Trial]) -> None:
        """Drop a beginning."""

    def finished(self, measurement: Measurement) -> None:
        """Drop an end."""


class Told(Silent):
    """A progress for the recording, which takes long."""

    count = 0

    def finished(self, measurement: Measurement) -> None:
        """Say which row was measured."""
        self.count += 1
        print(f"  {self.count}: {measurement.checkpoints} at {measurement.case}: {measurement.status}", flush=True)


def record(name: str, request: TuneRequest, place: Path) -> list[Measurement]:
    """Run the whole grid, or what is missing of it, and return its rows."""
    with open_store(str(place)) as store:
        machine = make_machine(request.settings)
        try:
            run_tune(dataclasses.replace(request, exhaustive=True), store=store, machine=machine, progress=Told())
        finally:
            machine.close()
        return [row for row in store.measurements() if row.problem.name == f"{name}:make" and not row.xla_flags]


def replay(request: TuneRequest, rows: Sequence[Measurement]) -> tuple[CountedReplay, tuple[Recommendation, ...]]:
    """Tune from the record."""
    machine = CountedReplay(rows, "the record")
    with open_store("sqlite://") as store:
        result = run_tune(request, store=store, machine=machine, progress=Silent())
    return machine, result.recommendations


def known_seconds(rows: Sequence[Measurement]) -> dict[tuple[Case, int], float]:
    """Median seconds of every recorded point, brought to one speed of the machine as the tuner does."""
    return {(cell.case, count): statistics.median(found) for (cell, count), found in compared_samples(rows).items()}


def bench(name: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Record where needed, then replay five budgets."""
    request = TuneRequest(problem=f"{PROBLEMS / name}.py:make", budget="1TiB", listed=SWEEPS[name])
    rows = record(name, request, options.out / f"search_{name}.db")
    seconds = known_seconds(rows)
    peaks = {(row.case, row.checkpoints): row.peak_bytes for row in rows if row.peak_bytes}
    every = sorted({peak for peak in peaks.values() if peak is not None})
    found = []
    for budget in np.geomspace(1.05 * every[0], 1.05 * every[-1], BUDGETS):
        asked = dataclasses.replace(request, budget=int(budget))
        whole, _ = replay(dataclasses.replace(asked, exhaustive=True), rows)
        default, chosen = replay(asked, rows)
        above = []
        for choice in chosen:
            fitting = [seconds[at] for at, peak in peaks.items() if at[0] == choice.case and peak <= budget]
            if choice.status is Fit.OK:
                assert choice.checkpoints is not None
                above.append(seconds[choice.case, choice.checkpoints] / min(fitting) - 1)
            else:
                assert not fitting, f"{choice.case}: nothing was found to fit and something does"
        found.append({
            "problem": name, "budget_bytes": int(budget), "cases": len(chosen), "cases_that_fit": len(above),
            "trials": len(default.asked), "trials_exhaustive": len(whole.asked),
            "cost_seconds": round(default.spent_seconds, 2), "cost_exhaustive_seconds": round(whole.spent_seconds, 2),
            "cost_share": round(default.spent_seconds / whole.spent_seconds, 4),
            "mean_above_best": round(statistics.geometric_mean(1 + share for share in above) - 1, 4) if above else "",
            "median_above_best": round(statistics.median(above), 4) if above else "",
            "worst_above_best": round(max(above), 4) if above else "",
            "cases_within_5_percent": sum(share <= 0.05 for share in above),
            "device": rows[0].device.kind, **rows[0].versions,
        })  # fmt: skip
        last = found[-1]
        print(
            f"{name}, {int(budget) / 2**20:.2f} MiB: {last['trials']} of {last['trials_exhaustive']} trials, "
            f"{last['cost_share']:.1%} of the time; {last['cases_within_5_percent']} of {len(above)} cases within 5 % "
            f"of the best; {last['mean_above_best'] or 0:.1%} above it in the geometric mean, "
            f"{max(above, default=0.0):.1%} at worst"
        )
    return found


def main() -> None:
    """Bench the problems one after the other and write search.csv."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the records and of search.csv")
    parser.add_argument("--problems", default=",".join(SWEEPS), help="which, with commas between")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    rows = [row for name in options.problems.split(",") for row in bench(name, options)]
    pd.DataFrame(rows).to_csv(options.out / "search.csv", index=False)
    print(f"wrote {options.out / 'search.csv'}")


if __name__ == "__main__":
    main()
