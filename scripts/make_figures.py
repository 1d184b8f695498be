"""Draw the figures of README.md from the measured profiles of the six shipped problems.

The profiles lie as CSV in profiles/reference/, one file a problem, with device and versions in every row. Each figure
lays the front of our adjoint over that of Diffrax's own: bytes against seconds, and bytes against recompute.

    .venv/bin/python scripts/make_figures.py                       from the CSVs that are there
    .venv/bin/python scripts/make_figures.py --measure             measure all six here first (20 minutes)
    .venv/bin/python scripts/make_figures.py --measure --problems spirals
"""

import argparse
import dataclasses
import statistics
import sys
from pathlib import Path

from autotune import ProbeRequest, SubprocessRunner, Trial
from profiles import (
    AdjointName,
    Profile,
    compare_figure,
    compared_table,
    export_table,
    format_bytes,
    format_seconds,
    import_table,
    open_store,
    points,
    save_figure,
)

ROOT = Path(__file__).resolve().parents[1]
REFERENCE = ROOT / "profiles" / "reference"
FIGURES = ROOT / "scripts" / "figures"
TITLES = {
    "lynx_hare": "universal differential equation, 512 members",
    "spirals": "latent ODE, vmap over 64 spirals",
    "reaction_diffusion": "Gray-Scott, 384 x 384",
    "neural_sde": "neural SDE, vmap over 64 paths",
    "robertson": "Robertson, Kvaerno5, vmap over 256 experiments",
    "neural_cde": "neural CDE, vmap over 64 series",
}
COUNTS = (4, 12, 36, 108, 256)
ROUNDS = 5


def measure(problem: str) -> None:
    """Measure a problem with both adjoints at every count, timed calls interleaved, and write its CSV."""
    spec = f"{ROOT / 'scripts' / 'problems' / problem}.py:make"
    with SubprocessRunner() as runner:
        seen = runner.observe(ProbeRequest(problem=spec))
        assert seen.steps is not None
        common = Trial(
            study="reference", problem=spec, adjoint=AdjointName.OURS, checkpoints=1, rounds=ROUNDS,
            key=runner.problem_key(ProbeRequest(problem=spec)), device=runner.device_info().key,
            steps=seen.steps, accepted=seen.accepted, rejected=seen.rejected,
        )  # fmt: skip
        predicted = {AdjointName.OURS: seen.accepted or seen.steps, AdjointName.DIFFRAX: None}
        rows = runner.run([
            dataclasses.replace(common, adjoint=name, checkpoints=count, expected_steps=predicted[name])
            for name in AdjointName
            for count in COUNTS
            if count <= seen.steps
        ])  # fmt: skip
    export_table(rows, REFERENCE / f"{problem}.csv")


def read(problem: str) -> dict[AdjointName, Profile]:
    """Read a problem's CSV as a profile for each adjoint."""
    with open_store("sqlite://") as store:
        store.put_all(import_table(REFERENCE / f"{problem}.csv"))
        return {profile.adjoint: profile for profile in store.profiles()}


def summary(problem: str, ours: Profile, stock: Profile) -> str:
    """Compare at equal counts in one line of Markdown: bytes, seconds and recomputation, ours over Diffrax's."""
    left, right = (
        {point.checkpoints: point for point in points(profile.rows(profile.cases[0])) if not point.xla_flags}
        for profile in (ours, stock)
    )
    both = [(left[count], right[count]) for count in sorted(left.keys() & right.keys())]
    sizes = [one.peak_bytes / other.peak_bytes for one, other in both]
    times = [
        one.run_seconds / other.run_seconds
        for one, other in both
        if one.run_seconds is not None and other.run_seconds is not None
    ]
    least, stock_least = (min(found.values(), key=lambda point: point.peak_bytes) for found in (left, right))
    return (
        f"| {problem} | {statistics.median(sizes):.2f} | {statistics.median(times):.2f} | "
        f"{format_bytes(least.peak_bytes)} in {format_seconds(least.run_seconds or 0)} | "
        f"{format_bytes(stock_least.peak_bytes)} in {format_seconds(stock_least.run_seconds or 0)} |"
    )


def main() -> int:
    """Measure where asked, then draw; prints the table of README.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", action="store_true", help="measure here first, and replace the CSVs")
    parser.add_argument("--problems", default=",".join(TITLES), help="which, with commas between")
    parser.add_argument("--out", type=Path, default=FIGURES, help="folder of the figures")
    options = parser.parse_args()
    REFERENCE.mkdir(exist_ok=True)
    lines = ["| problem | bytes | seconds | least memory | Diffrax's least |", "| --- | --- | --- | --- | --- |"]
    for problem in options.problems.split(","):
        if problem not in TITLES:
            print(f"make_figures: no shipped problem {problem!r}; there are {', '.join(TITLES)}", file=sys.stderr)
            return 2
        if options.measure:
            measure(problem)
        if not (REFERENCE / f"{problem}.csv").is_file():
            print(f"make_figures: {REFERENCE / problem}.csv is not there; run with --measure", file=sys.stderr)
            return 1
        found = read(problem)
        ours, stock = found[AdjointName.OURS], found[AdjointName.DIFFRAX]
        figure = compare_figure(compared_table([ours, stock]), title=f"{problem}: {TITLES[problem]}")
        save_figure(figure, options.out / problem)
        (options.out / f"{problem}.svg").unlink()  # PNG is what README.md shows
        lines.append(summary(problem, ours, stock))
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
