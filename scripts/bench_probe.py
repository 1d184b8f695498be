"""How well a tune predicts what it does not measure: bytes and seconds of held-out counts, on the shipped problems.

Each problem is tuned as `ckpt-tune tune` does it, without a budget that binds; from its rows the product's own forecast
is asked about counts that the tune never saw, which are then compiled and timed. One CSV row a problem and count, with
predicted and measured figures, device, versions and seed.

    python scripts/bench_probe.py --out probe.csv [--problems spirals,robertson] [--adjoint ours] [--counts 8]
"""

import argparse
import csv
import dataclasses
import math
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import autotune
from autotune import Forecast, RunSettings, SubprocessRunner, Trial, TuneRequest, works_of
from profiles import AdjointName, Measurement

PROBLEMS = Path(__file__).parent / "problems"
BUDGET = "64GiB"
"""More than any of the problems can use: the whole curve counts."""
SHARE, BYTES = 0.01, 64 * 2**10
"""What a prediction of bytes may be wrong by: the larger of the two; and half of that where it is too low."""


def main() -> None:
    """Tune the problems one after the other, writing each result as it is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="the CSV file; rows are appended")
    parser.add_argument("--problems", default=",".join(sorted(path.stem for path in PROBLEMS.glob("*.py"))))
    parser.add_argument("--adjoint", type=AdjointName, default=AdjointName.OURS, choices=list(AdjointName))
    parser.add_argument("--counts", type=int, default=8, help="held-out counts a problem")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    for name in options.problems.split(","):
        rows = bench(name, options)
        write(options.out, rows)
        of_bytes = statistics.median(abs(row["bytes_error_share"]) for row in rows)
        timed = [abs(row["seconds_error_share"]) for row in rows if row["seconds_error_share"] != ""]
        print(
            f"{name}: {sum(row['bytes_within'] for row in rows)} of {len(rows)} held-out counts within bounds, median "
            f"error {of_bytes:.2%} of bytes and {statistics.median(timed) if timed else math.nan:.1%} of seconds"
        )
    print(f"wrote {options.out}")


def bench(name: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Tune one problem and compare."""
    spec = f"{PROBLEMS / name}.py:make"
    with tempfile.TemporaryDirectory() as folder:
        store = f"sqlite:///{folder}/profiles.db"
        started = time.perf_counter()
        request = TuneRequest(problem=spec, adjoint=options.adjoint)
        result = autotune.tune(spec, budget=BUDGET, store=store, request=request)
        seconds = time.perf_counter() - started
    rows = [row for row in result.rows if row.peak_bytes]
    seen = rows[0]
    known = {row.checkpoints for row in rows}
    most = max(known)
    ratio = most ** (1 / (options.counts + 1))
    counts = sorted({round(ratio**power) for power in range(1, options.counts + 1)} - known)
    base = Trial(
        **(seen.coordinates() | {"checkpoints": 1, "repeat": 0}), study="bench_probe", problem=spec,
        adjoint=options.adjoint, steps=seen.steps, accepted=seen.accepted, rejected=seen.rejected, seed=options.seed,
    )  # fmt: skip
    with SubprocessRunner(RunSettings()) as runner:
        runner.device_info()
        measured = runner.run([dataclasses.replace(base, checkpoints=count) for count in counts])
    forecast = Forecast(rows, works_of(rows), options.adjoint)
    shared = {
        "problem": name, "adjoint": str(options.adjoint), "steps": seen.steps, "tune_seconds": round(seconds, 1),
        "device": seen.device.kind, "seed": options.seed,
        **{f"version_{package}": version for package, version in seen.versions.items()},
    }  # fmt: skip
    return [shared | compared(row, forecast) for row in measured if row.compiled_bytes]


def compared(row: Measurement, forecast: Forecast) -> dict[str, Any]:
    """Set what was measured at a held-out count beside the forecast."""
    cell = autotune.cell_of(row)
    size, seconds = forecast.bytes_at(cell, row.checkpoints), forecast.seconds_at(cell, row.checkpoints)
    assert size is not None
    assert row.compiled_bytes is not None
    error = size.likely - row.compiled_bytes
    allowed = max(SHARE * row.compiled_bytes, BYTES)
    median = row.run_median_seconds
    return {
        "checkpoints": row.checkpoints, "compiled_bytes": row.compiled_bytes, "predicted_bytes": round(size.likely),
        "bytes_error_share": round(error / row.compiled_bytes, 6),
        "bytes_within": int(-allowed / 2 <= error <= allowed),
        "measured_seconds": median or "", "predicted_seconds": seconds.likely if seconds else "",
        "seconds_error_share": round(seconds.likely / median - 1, 4) if seconds and median else "",
    }  # fmt: skip


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    """Append rows to the CSV file, with a header where it is new."""
    new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        if new:
            writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
