"""Out of memory, contained: a gradient that cannot fit is a row with that status, and the sweep goes on.

The device is limited to a small share (an accelerator by XLA_CLIENT_MEM_FRACTION, the CPU by RLIMIT_AS) and a
reaction-diffusion problem is asked for counts that fit, then one that needs more than the limit, then one that fits.
"""

import argparse
import os
import sys

from rows import ROOT, Table, parser

from autotune import DeviceInfo, Rung, RunSettings, SubprocessRunner, Trial
from profiles import AdjointName, Status

LIMIT_BYTES = 4 * 2**30
"""What the limited worker may take; on the CPU it includes the programs and their address space."""
GRID = 1024
"""One state is 8 MiB."""


def trials(settings: RunSettings) -> list[Trial]:
    """Make three trials: one that fits, one whose checkpoints alone exceed the limit, and one that fits again."""
    too_many = LIMIT_BYTES // (2 * GRID * GRID * 4) + 16
    base = {
        "study": "validation", "problem": f"{ROOT / 'scripts' / 'problems' / 'reaction_diffusion.py'}:make",
        "adjoint": AdjointName.OURS, "set_values": {"grid": GRID}, "rung": Rung.RUN, "rounds": 1, "settings": settings,
    }  # fmt: skip
    return [
        Trial(checkpoints=4, horizon=8, **base),
        Trial(checkpoints=too_many, horizon=too_many, **base),
        Trial(checkpoints=6, horizon=8, **base),
    ]


def limited_runner(device: DeviceInfo, options: argparse.Namespace) -> tuple[SubprocessRunner, RunSettings]:
    """Start workers that may take `LIMIT_BYTES` only."""
    limit = LIMIT_BYTES if device.platform == "cpu" else None
    if limit is None:
        assert device.total_bytes is not None
        os.environ["XLA_CLIENT_MEM_FRACTION"] = f"{LIMIT_BYTES / device.total_bytes:.6f}"
    settings = RunSettings(platform=options.platform, timeout_seconds=options.timeout, memory_limit_bytes=limit)
    return SubprocessRunner(settings), settings


def main() -> int:
    """Run the three trials; 1 where one did not end as it should."""
    made = parser(__doc__)
    made.add_argument("--timeout", type=float, default=300.0, help="seconds that one compile or call may take")
    options = made.parse_args()
    with SubprocessRunner(RunSettings(platform=options.platform)) as free:
        device = free.device_info()
    if device.platform != "cpu" and device.total_bytes is None:
        print("containment: the backend does not report its memory, so no share of it can be set", file=sys.stderr)
        return 1
    runner, settings = limited_runner(device, options)
    wanted = (Status.OK, Status.OUT_OF_MEMORY, Status.OK)
    broken = False
    with runner:
        limited = runner.device_info()
        provenance = {"platform": device.platform, "device": device.kind, "driver": device.driver}
        table = Table(options.out / "containment.csv", {**provenance, "limit_bytes": limited.limit_bytes})
        for trial, expected in zip(trials(settings), wanted, strict=True):
            (row,) = runner.run([trial])
            broken |= row.status is not expected
            table.add(
                grid=GRID, checkpoints=row.checkpoints, expected_status=str(expected), status=str(row.status),
                compiled_bytes=row.compiled_bytes, run_bytes=row.run_bytes,
                run_seconds=row.run_median_seconds, message=row.message.splitlines()[0] if row.message else "",
            )  # fmt: skip
    if broken:
        print("containment: not as promised; compare `status` with `expected_status`", file=sys.stderr)
    return int(broken)


if __name__ == "__main__":
    raise SystemExit(main())
