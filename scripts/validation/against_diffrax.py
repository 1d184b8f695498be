"""Our adjoint against Diffrax's: seconds, bytes and gradients of `bench_adjoint.py`, on this device, at one count.

Broken is a gradient that differs from Diffrax's by more than single precision explains. Bytes and seconds are reported.
"""

import csv
import subprocess
import sys

from rows import ROOT, parser

LARGEST_DIFFERENCE = 1e-3
"""Of the gradients, relative to the largest entry; both sides compute in float32, in another order."""
CELLS = ("--counts", "16", "--pairs", "5")
"""All families; an accelerator takes tens of microseconds a step, however small the step."""


def main() -> int:
    """Run the benchmark and read its gradients back; 1 where one differs."""
    options = parser(__doc__).parse_args()
    path = options.out / "adjoint.csv"
    command = [sys.executable, str(ROOT / "scripts" / "bench_adjoint.py"), "--out", str(path)]
    command += ["--families", "tiny_mlp", "--counts", "8", "--pairs", "2"] if options.quick else [*CELLS]
    ended = subprocess.run(command, check=False)
    if ended.returncode:
        return ended.returncode
    with path.open(newline="", encoding="utf-8") as file:
        cells = {(row["family"], row["checkpoints"]): float(row["gradient_difference"]) for row in csv.DictReader(file)}
    wrong = {cell: difference for cell, difference in cells.items() if not difference <= LARGEST_DIFFERENCE}
    for (family, checkpoints), difference in wrong.items():
        print(f"adjoint: {family} at {checkpoints} checkpoints differs by {difference:.1e}", file=sys.stderr)
    return int(bool(wrong) or not cells)


if __name__ == "__main__":
    raise SystemExit(main())
