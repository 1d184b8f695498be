"""Compile the families of the benchmarks for an H100 and a TPU v5e that are not here, and write what XLA plans.

    python scripts/bench_targets.py --out profiles/reference/targets.csv [--kinds gpu,tpu] [--families elementwise,…]

Nothing is run. Both adjoints at equal counts, and ours with states in host memory; bytes are those of the compiler's
own `memory_analysis()`. `kernels` are those in the largest innermost loop of the optimised program, one step of either
kind; `loops` all loops of it. `step_kernels` are those in the loop body that has the most, whether or not there are
loops in it, `step_waits` how often a pass of it waits for the host: at its own condition, and at loops and branches
in it whose course is not known beforehand. Needs the compilers: `ckpt-tune targets install gpu tpu`.
"""

import argparse
import csv
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from bench_families import FAMILIES

ROOT = Path(__file__).resolve().parents[1]
DEVICES = {"gpu": "NVIDIA H100 80GB HBM3", "tpu": "TPU v5 lite"}
SIZE = 10_000_000
COLUMNS = (
    "device", "family", "adjoint", "checkpoints", "windows", "temp_bytes", "argument_bytes", "output_bytes",
    "alias_bytes", "host_bytes", "peak_bytes", "kernels", "loops", "step_kernels", "step_waits",
    "compile_seconds", "error", "jax", "compiler", "python", "diffrax",
)  # fmt: skip


def requests(families: list[str]) -> list[dict]:
    """List what to compile: of the elementwise family seven programs, of the others five."""
    asked = []
    if "elementwise" in families:
        base = {"family": "elementwise", "size": SIZE}
        asked += [base | {"adjoint": "ours", "checkpoints": count} for count in (8, 32, 128)]
        asked += [base | {"adjoint": "diffrax", "checkpoints": count} for count in (8, 32)]
        asked += [base | {"adjoint": "ours", "checkpoints": 8, "windows": windows} for windows in (16, 64)]
    for family in FAMILIES:
        if family.name not in families:
            continue
        counts = family.counts[1], family.counts[3]
        for adjoint in ("ours", "diffrax"):
            asked += [{"family": family.name, "adjoint": adjoint, "checkpoints": count} for count in counts]
        asked.append({"family": family.name, "adjoint": "ours", "checkpoints": counts[0], "windows": 16})
    return asked


def compiled(kind: str, asked: list[dict]) -> list[dict]:
    """Compile requests for one kind of device, in a process that has its compilers."""
    from autotune.machine.compilers import search_path

    folders = (*filter(None, (str(search_path(kind) or ""),)), str(ROOT))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(folders)}
    script = ROOT / "scripts" / "validation" / "plain_compile.py"
    done = subprocess.run(
        [sys.executable, str(script), kind], input=json.dumps(asked), capture_output=True, text=True, env=environment,
        check=False,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"compiling for {kind} ended with {done.returncode}: {done.stderr[-2000:]}")
    return json.loads(done.stdout)


def rows(kind: str, families: list[str]) -> Iterator[dict]:
    """Compile for one kind of device; one row for each program, as soon as its family is through."""
    from autotune.machine.compilers import installed

    versions = {name: metadata.version(name) for name in ("jax", "diffrax")}
    compiler = next((f"{one.kind} {one.version}" for one in installed() if one.kind == kind and one.usable), kind)
    for family in families:  # one process for each, so that one that dies ends no other
        asked = requests([family])
        try:
            answers = compiled(kind, asked)
        except SystemExit as error:
            answers = [{"error": str(error).splitlines()[0]}] * len(asked)
        for request, answer in zip(asked, answers, strict=True):
            bodies = answer.get("bodies", [])
            step = max(bodies, key=lambda body: (body["kernels"], body["waits"]), default={})
            innermost = [body["kernels"] for body in bodies if not body["loops"]]
            yield {
                "device": DEVICES[kind], "family": request["family"], "adjoint": request["adjoint"],
                "checkpoints": request["checkpoints"], "windows": request.get("windows", ""),
                "temp_bytes": answer.get("temp_size"), "argument_bytes": answer.get("argument_size"),
                "output_bytes": answer.get("output_size"), "alias_bytes": answer.get("alias_size"),
                "host_bytes": answer.get("host_temp_size"), "peak_bytes": answer.get("peak_memory"),
                "kernels": max(innermost, default=None), "loops": len(bodies),
                "step_kernels": step.get("kernels"), "step_waits": step.get("waits"), "error": answer.get("error", ""),
                "compile_seconds": round(answer["seconds"], 2) if "seconds" in answer else None, "jax": versions["jax"],
                "compiler": compiler, "python": platform.python_version(), "diffrax": versions["diffrax"],
            }  # fmt: skip


def main() -> None:
    """Compile, and write the CSV."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--kinds", default="gpu,tpu")
    parser.add_argument("--families", default=",".join(("elementwise", *(family.name for family in FAMILIES))))
    options = parser.parse_args()
    with options.out.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        for kind in options.kinds.split(","):
            for row in rows(kind, options.families.split(",")):
                writer.writerow(row)
                file.flush()


if __name__ == "__main__":
    main()
