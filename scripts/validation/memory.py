"""Predicted against compiled against measured peak bytes, for the shipped problems and many counts.

Three counts of a problem are compiled; from them the bytes of every other count are predicted; then every count
is compiled and run in worker processes. Broken is: a trial that did not end well; a prediction that is off by more than
1 % and 64 KiB, or too low by more than half of that. What was seen at run time stands beside it.
"""

import argparse
import dataclasses
import math
import sys
from collections.abc import Sequence

from rows import ROOT, Table, parser

from autotune import BytesLaw, ProbeRequest, Rung, RunSettings, SubprocessRunner, Trial
from profiles import AdjointName, Measurement, Status

PROBLEMS = ("lynx_hare", "spirals", "reaction_diffusion", "neural_sde", "robertson", "neural_cde")
QUICK = {
    "lynx_hare": {"members": 4, "width": 4},
    "reaction_diffusion": {"grid": 64},
}
QUICK_HORIZON = {"lynx_hare": 4, "reaction_diffusion": 40}
COUNTS = (2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)
LEAST_ON_ACCELERATOR = 8
"""Fewer make a hundred times as many steps, of which an accelerator makes twenty thousand a second at most."""
SHARE, FLOOR_BYTES = 0.01, 64 * 2**10


def law_of(base: Trial, counts: Sequence[int], runner: SubprocessRunner) -> BytesLaw:
    """Fit the law of bytes to three compiles: at the ends, and at the count in the middle of their logarithms.

    Raises:
        RuntimeError: one of them did not end well.
    """
    asked = sorted(
        {counts[0], counts[-1], min(counts, key=lambda count: abs(count - math.sqrt(counts[0] * counts[-1])))}
    )
    rows = runner.run([dataclasses.replace(base, checkpoints=count) for count in asked])
    if lost := [row for row in rows if row.compiled_bytes is None]:
        raise RuntimeError(f"{base.problem} at {lost[0].checkpoints} checkpoints: {lost[0].status}, {lost[0].message}")
    return BytesLaw([(row.checkpoints, row.compiled_bytes or 0) for row in rows], base.adjoint)


def check(row: Measurement, predicted: float) -> str:
    """Say what promise a row breaks; empty when it breaks none."""
    if row.status is not Status.OK:
        return f"{row.status}: {row.message.splitlines()[0] if row.message else ''}"
    if row.compiled_bytes is None or row.peak_bytes is None:
        return "no bytes known"
    allowed = max(SHARE * row.compiled_bytes, FLOOR_BYTES)
    if predicted - row.compiled_bytes > allowed:
        return "predicted too high"
    if row.compiled_bytes - predicted > allowed / 2:
        return "predicted too low"
    return ""


def validate(problem: str, runner: SubprocessRunner, table: Table, options: argparse.Namespace) -> bool:
    """Measure one problem; True where a promise was broken."""
    settings = RunSettings(platform=options.platform, timeout_seconds=options.timeout)
    sizes = QUICK.get(problem, {}) if options.quick else {}
    horizon = QUICK_HORIZON.get(problem) if options.quick else None
    spec = f"{ROOT / 'scripts' / 'problems' / problem}.py:make"
    seen = runner.observe(ProbeRequest(problem=spec, set_values=sizes, horizon=horizon))
    assert seen.steps is not None
    full = COUNTS if table.platform == "cpu" else [count for count in COUNTS if count >= LEAST_ON_ACCELERATOR]
    asked = [int(count) for count in options.counts.split(",") if count] or ((2, 3, 4, 6, 8) if options.quick else full)
    counts = tuple(sorted(count for count in asked if count <= seen.steps))
    base = Trial(
        study="validation", problem=spec, adjoint=AdjointName.OURS, checkpoints=1, horizon=horizon, set_values=sizes,
        rung=Rung.COMPILED, rounds=3, settings=settings, steps=seen.steps, accepted=seen.accepted,
        rejected=seen.rejected, expected_steps=seen.accepted or seen.steps,
    )  # fmt: skip
    law = law_of(base, counts, runner)
    broken = False
    for row in runner.run([dataclasses.replace(base, checkpoints=count, rung=Rung.RUN) for count in counts]):
        predicted = law.at(row.checkpoints)
        complaint = check(row, predicted.likely)
        broken |= bool(complaint)
        table.add(
            problem=problem, horizon=horizon, set_values=dict(sizes), steps=seen.steps, accepted=seen.accepted,
            checkpoints=row.checkpoints, in_law=law.evidence(row.checkpoints) == "measured", status=str(row.status),
            predicted_bytes=round(predicted.likely),
            predicted_low_bytes=round(predicted.low),
            predicted_high_bytes=round(predicted.high), compiled_bytes=row.compiled_bytes,
            run_bytes=row.run_bytes, peak_bytes=row.peak_bytes, peak_source=row.peak_source and str(row.peak_source),
            executed_steps=row.executed_steps, compile_seconds=row.compile_seconds,
            run_seconds=row.run_median_seconds, complaint=complaint,
        )  # fmt: skip
    return broken


def main() -> int:
    """Validate the problems asked for; 1 where a promise was broken."""
    options = command_line()
    names = [name for name in options.problems.split(",") if name] or (list(QUICK) if options.quick else PROBLEMS)
    if unknown := set(names) - set(PROBLEMS):
        print(
            f"memory: no shipped problem {', '.join(sorted(unknown))}; there are {', '.join(PROBLEMS)}", file=sys.stderr
        )
        return 2
    settings = RunSettings(platform=options.platform, timeout_seconds=options.timeout)
    with SubprocessRunner(settings) as runner:
        device = runner.device_info()
        table = Table(
            options.out / "memory.csv",
            {
                "platform": device.platform,
                "device": device.kind,
                "driver": device.driver,
                "limit_bytes": device.limit_bytes,
            },
        )
        broken = [name for name in names if validate(name, runner, table, options)]
    if broken:
        print(f"memory: not as promised for {', '.join(broken)}; see the column `complaint`", file=sys.stderr)
    return 1 if broken else 0


def command_line() -> argparse.Namespace:
    """Read the command line."""
    made = parser(__doc__)
    made.add_argument("--problems", default="", help="shipped problems, with commas between")
    made.add_argument("--counts", default="", help="checkpoint counts, with commas between")
    made.add_argument("--timeout", type=float, default=300.0, help="seconds that one compile or call may take")
    return made.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
