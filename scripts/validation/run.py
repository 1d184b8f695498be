"""Check on this machine what ckpt-tune promises of memory and time, part by part, into one CSV each.

    memory        predicted against compiled against measured peak, for the shipped problems and counts
    adjoint       our adjoint against Diffrax's: bytes, seconds and gradients, at the same counts
    containment   a gradient that cannot fit under a limited share of the device: is it a row, does the sweep go on
    host          copies between device and host memory: bandwidth, and a loop whose buffer lies in host memory
    targets       bytes planned for this device as for one that is not here, beside those on it
    tiers         windows in host memory and on disk: gradients, bytes of the device, what a transfer costs

Every row names device, driver and versions, and is written as soon as it is known. Nothing is downloaded. Each part
runs in a process of its own, so that none inherits what another holds of the device; this one never starts jax.

    bash scripts/validate_gpu --out validation
    bash scripts/validate_gpu --out validation --only memory,containment --problems spirals,robertson
    bash scripts/validate_gpu --out validation --platform cpu --quick
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

PARTS = {
    "memory": "memory.py",
    "adjoint": "against_diffrax.py",
    "containment": "containment.py",
    "host": "host.py",
    "targets": "targets.py",
    "tiers": "tiers.py",
}


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("validation"), help="folder for the CSVs (made if missing)")
    parser.add_argument("--platform", help="cpu, cuda, rocm or tpu; jax's default where not given")
    parser.add_argument("--only", default=",".join(PARTS), help="parts to run, with commas between")
    parser.add_argument("--problems", default="", help="shipped problems of the part `memory`; all where not given")
    parser.add_argument("--counts", default="", help="checkpoint counts of the part `memory`; a spread where not given")
    parser.add_argument("--timeout", type=float, default=300.0, help="seconds that one compile or call may take")
    parser.add_argument("--quick", action="store_true", help="small sizes and few counts, to see that it works")
    return parser.parse_args()


def main() -> int:
    """Run the parts one after the other; 1 where any of them found a promise broken or could not run."""
    options = arguments()
    parts = options.only.split(",")
    if unknown := set(parts) - set(PARTS):
        print(f"validate_gpu: no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}", file=sys.stderr)
        return 2
    options.out.mkdir(parents=True, exist_ok=True)
    environment = dict(os.environ)
    environment.setdefault("JAX_COMPILATION_CACHE_DIR", str(options.out.resolve() / "compiled"))
    if options.platform:
        platform: str = options.platform
        environment["JAX_PLATFORMS"] = {"gpu": "cuda,rocm"}.get(platform, platform)
    broken = []
    for part in parts:
        command = [sys.executable, str(Path(__file__).with_name(PARTS[part])), "--out", str(options.out)]
        command += ["--platform", options.platform] if options.platform else []
        command += ["--quick"] if options.quick else []
        if part in ("memory", "containment", "targets"):
            command += ["--timeout", str(options.timeout)]
        if part == "memory":
            command += ["--problems", options.problems, "--counts", options.counts]
        print(f"== {part}", flush=True)
        if subprocess.run(command, env=environment, check=False).returncode:
            broken.append(part)
    print(f"results in {options.out}/; " + (f"not as promised: {', '.join(broken)}" if broken else "all as promised"))
    return 1 if broken else 0


if __name__ == "__main__":
    raise SystemExit(main())
