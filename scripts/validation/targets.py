"""Programs compiled for this device as one that is not here, beside what compiling and running them on it gives.

The shipped problems at a few counts: `planned_bytes` are what `ckpt-tune tune --target` would store, `compiled_bytes`
what XLA plans with the device at hand and its kernels tuned, `peak_bytes` the larger of that and what was seen at run
time. `beyond` is by how much the last exceeds the first, the margin that a plan needs. Broken is a program that
compiles on the device and not for it. It needs the compilers, which jax for such a device brings along; on a CPU, and
on a device that is no target, there is nothing to compare, and one row says so.
"""

import dataclasses
import sys

from memory import PROBLEMS, QUICK, QUICK_HORIZON
from rows import ROOT, Table, parser

from autotune import AutotuneError, Rung, RunSettings, SubprocessRunner, Trial, find_targets
from autotune import ProbeRequest as Probe
from profiles import AdjointName, Status, load_devices

COUNTS = (8, 16, 64)


def target_like(kind: str):
    """Find the target that is this device.

    Raises:
        AutotuneError: the catalogue has none of this name, or XLA does not compile for it.
    """
    name = next((name for name, one in load_devices().items() if kind in one.kinds), None)
    if name is None:
        raise AutotuneError(f"{kind} is not in the catalogue of devices")
    return find_targets([name])[0]


def validate(problem: str, target, runner: SubprocessRunner, table: Table, options) -> bool:
    """Compare one problem; True where a promise was broken."""
    settings = RunSettings(platform=options.platform, timeout_seconds=options.timeout)
    sizes = QUICK.get(problem, {}) if options.quick else {}
    horizon = QUICK_HORIZON.get(problem) if options.quick else None
    spec = f"{ROOT / 'scripts' / 'problems' / problem}.py:make"
    seen = runner.observe(Probe(problem=spec, set_values=sizes, horizon=horizon))
    base = Trial(
        study="validation", problem=spec, adjoint=AdjointName.OURS, checkpoints=1, horizon=horizon, set_values=sizes,
        rounds=3, settings=settings, steps=seen.steps, accepted=seen.accepted, rejected=seen.rejected,
        expected_steps=seen.accepted or seen.steps,
    )  # fmt: skip
    there = RunSettings(target=target, timeout_seconds=options.timeout)
    broken = False
    for count in COUNTS:
        trial = dataclasses.replace(base, checkpoints=count)
        (here,) = runner.run([trial])
        planned_trial = dataclasses.replace(trial, rung=Rung.COMPILED, settings=there, device=target.key)
        (planned,) = runner.run([planned_trial])
        failed = here.status is Status.OK and planned.status is not Status.OK
        broken |= failed
        beyond = here.peak_bytes / planned.peak_bytes - 1 if here.peak_bytes and planned.peak_bytes else None
        table.add(
            problem=problem, checkpoints=count, planned_bytes=planned.peak_bytes, planned_temp_bytes=planned.temp_bytes,
            compiled_bytes=here.compiled_bytes, temp_bytes=here.temp_bytes, run_bytes=here.run_bytes,
            peak_bytes=here.peak_bytes, beyond=beyond, status=str(here.status), planned_status=str(planned.status),
            complaint=planned.message.splitlines()[0] if failed else "",
        )  # fmt: skip
    return broken


def main() -> int:
    """Compare the shipped problems; 1 where a promise was broken."""
    made = parser(__doc__)
    made.add_argument("--timeout", type=float, default=300.0, help="seconds that one compile or call may take")
    options = made.parse_args()
    settings = RunSettings(platform=options.platform, timeout_seconds=options.timeout)
    with SubprocessRunner(settings) as runner:
        device = runner.device_info()
        table = Table(options.out / "targets.csv", {"platform": device.platform, "device": device.kind})
        try:
            target = target_like(device.kind)
        except AutotuneError as error:
            table.add(problem="", checkpoints=None, complaint="", note=str(error))
            return 0
        names = list(QUICK) if options.quick else PROBLEMS
        broken = [name for name in names if validate(name, target, runner, table, options)]
    if broken:
        print(f"targets: not as promised for {', '.join(broken)}; see the column `complaint`", file=sys.stderr)
    return 1 if broken else 0


if __name__ == "__main__":
    raise SystemExit(main())
