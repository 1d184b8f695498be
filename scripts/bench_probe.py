"""How well a probe predicts: bytes from three compiles, seconds from four timed counts, on the shipped problems.

For every problem the probe is made as `autotune.tuning.survey` makes it; then counts that it never saw are compiled,
and counts and horizons that it never saw are timed. Two CSV files: one row per problem and count with predicted and
compiled bytes, one row per timed point with predicted and measured seconds, each with device, versions and seed.

    python scripts/bench_probe.py --out results [--problems spirals,robertson] [--adjoint ours] [--counts 20]
"""

import argparse
import csv
import dataclasses
import inspect
import itertools
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from autotune.tuning.survey import Survey, survey

from autotune.adjoints import work_of_row
from autotune.machine.device import DeviceInfo
from autotune.measuring.runners import ProbeRequest, SubprocessRunner
from autotune.measuring.trial import Rung, Trial
from autotune.model.bytes_law import Estimate
from autotune.problem.loading import load_problem
from profiles import AdjointName, Measurement

PROBLEMS = Path(__file__).parent / "problems"
COUNTS = (1, 2, 3, 4, 6, 8, 10, 12, 16, 20, 24, 32, 48, 64, 80, 96, 128, 160, 192, 256)
HIGHEST = 256
SHARE, BYTES = 0.01, 64 * 2**10
"""What a prediction may be wrong by: the larger of the two; and half of that where it is too low."""


def main() -> None:
    """Probe the problems one after the other, writing each result as it is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the two CSV files")
    parser.add_argument("--problems", default=",".join(sorted(p.stem for p in PROBLEMS.glob("*.py"))))
    parser.add_argument("--adjoint", type=AdjointName, default=AdjointName.OURS, choices=list(AdjointName))
    parser.add_argument("--counts", type=int, default=len(COUNTS), help="how many counts are compiled to compare")
    parser.add_argument("--rounds", type=int, default=3, help="timing rounds")
    parser.add_argument("--no-seconds", action="store_true", help="leave out everything that is timed")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for name in options.problems.split(","):
        bench(name, options)


def bench(name: str, options: argparse.Namespace) -> None:
    """Probe one problem and compare."""
    with SubprocessRunner() as runner:
        device = runner.device_info()
        started = time.perf_counter()
        horizon = default_horizon(name)
        template, shorter = _templates(name, (horizon, horizon / 2), runner, options)
        highest = min(HIGHEST, template.steps or HIGHEST)
        timed = 0 if options.no_seconds else 4
        probe = survey(runner, template, bounds=(1, highest), timed=timed, shorter=shorter)
        seconds = time.perf_counter() - started
        print(
            f"{name}: {template.steps} steps, probed in {seconds:.1f} s, {len(probe.bytes.points)} counts compiled",
            flush=True,
        )
        common = _common(name, options, device, template, seconds)
        rows = _bytes_rows(runner, template, probe, common, options)
        _write(options.out / f"probe_bytes_{options.adjoint}.csv", rows)
        if probe.seconds is not None:
            rows = _seconds_rows(runner, (template, shorter), probe, common)
            _write(options.out / f"probe_seconds_{options.adjoint}.csv", rows)


def default_horizon(name: str) -> int | float:
    """Read the horizon that the problem's factory has by default."""
    factory = load_problem(f"{PROBLEMS / name}.py:make").factory
    return inspect.signature(factory).parameters["horizon"].default


def _templates(
    name: str, horizons: Sequence[int | float], runner: SubprocessRunner, options: argparse.Namespace
) -> list[Trial]:
    """Observe horizons and say what all trials at each have in common."""
    whole = [int(at) if at == int(at) and at > 1 else at for at in horizons]
    questions = [ProbeRequest(problem=f"{PROBLEMS / name}.py:make", horizon=at) for at in whole]
    key = runner.problem_key(questions[0])
    ours = options.adjoint is AdjointName.OURS
    made = []
    for question, seen in zip(questions, runner.observe_all(questions), strict=True):
        assert seen.steps is not None
        expected = seen.accepted if ours else None
        made.append(Trial(
            study="bench_probe", problem=question.problem, adjoint=options.adjoint, checkpoints=1,
            horizon=question.horizon, key=key, steps=seen.steps, accepted=seen.accepted, rejected=seen.rejected,
            expected_steps=expected, rounds=options.rounds, seed=options.seed,
        ))  # fmt: skip
    return made


def _common(name: str, options: argparse.Namespace, device: DeviceInfo, seen: Trial, seconds: float) -> dict[str, Any]:
    """Columns that every row has."""
    return {
        "problem": name, "adjoint": str(options.adjoint), "steps": seen.steps, "accepted": seen.accepted,
        "probe_seconds": round(seconds, 2), "device": device.kind, "platform": device.platform, "seed": options.seed,
        **{f"version_{package}": version for package, version in device.versions.items()},
    }  # fmt: skip


def _bytes_rows(
    runner: SubprocessRunner, template: Trial, probe: Survey, common: dict[str, Any], options: argparse.Namespace
) -> list[dict[str, Any]]:
    """Compile counts that the probe did not, and set them beside its law."""
    probed = {count for count, _ in probe.bytes.points}
    highest = max(probed, default=0)
    step = max(1, len(COUNTS) // options.counts)
    counts = [count for count in COUNTS[::step] if count not in probed and count <= highest]
    trials = [dataclasses.replace(template, checkpoints=count, rung=Rung.COMPILED) for count in counts]
    rows = [{**common, **_compared(probe.bytes.at(row.checkpoints), row)} for row in runner.run(trials)]
    held = [row for row in rows if row["within"] != ""]
    print(f"  bytes: {sum(row['within'] for row in held)} of {len(held)} held-out counts within bounds")
    return rows


def _compared(said: Estimate | None, row: Measurement) -> dict[str, Any]:
    """Columns of one held-out count."""
    columns: dict[str, Any] = {
        "checkpoints": row.checkpoints, "status": str(row.status), "compiled_bytes": row.compiled_bytes,
        "predicted_bytes": "", "low_bytes": "", "high_bytes": "", "error_bytes": "", "error_share": "", "within": "",
    }  # fmt: skip
    if said is not None and row.compiled_bytes is not None:
        error = said.likely - row.compiled_bytes
        allowed = max(SHARE * row.compiled_bytes, BYTES)
        columns |= {
            "predicted_bytes": round(said.likely), "low_bytes": round(said.low), "high_bytes": round(said.high),
            "error_bytes": round(error), "error_share": round(error / row.compiled_bytes, 6),
            "within": int(-allowed / 2 <= error <= allowed),
        }  # fmt: skip
    return columns


def _seconds_rows(
    runner: SubprocessRunner, templates: tuple[Trial, Trial], probe: Survey, common: dict[str, Any]
) -> list[dict[str, Any]]:
    """Time counts between those that the probe timed, at both horizons, and set them beside its law."""
    law = probe.seconds
    assert law is not None
    timed = sorted({row.checkpoints for row in probe.rows if row.run_seconds})
    between = sorted({round((a * b) ** 0.5) for a, b in itertools.pairwise(timed)} - set(timed))
    trials = [dataclasses.replace(at, checkpoints=count) for at in templates for count in between]
    rows = []
    for row in runner.run(trials):
        if not row.run_seconds or row.executed_steps is None or row.steps is None:
            continue
        work = work_of_row(row)
        taped = work.reversed_steps if work else row.steps
        said, measured = law.at(row.executed_steps - taped, taped), statistics.median(row.run_seconds)
        rows.append({
            **common, "steps": row.steps, "accepted": row.accepted, "checkpoints": row.checkpoints,
            "executed_steps": row.executed_steps,
            "measured_seconds": measured, "predicted_seconds": said.likely, "error_share": said.likely / measured - 1,
            "samples": " ".join(f"{sample:.6g}" for sample in row.run_seconds),
        })  # fmt: skip
    if rows:
        errors = statistics.median(abs(row["error_share"]) for row in rows)
        print(f"  seconds: median error {errors:.1%} over {len(rows)} held-out counts")
    return rows


def _write(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Append rows to a CSV file, with a header where it is new."""
    if not rows:
        return
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        if new:
            writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
