"""Tune the fit to the Hudson Bay record within a memory budget, then train it with the adjoint that was chosen.

Run by `bash scripts/quickstart`, which sets up the environment. Everything here is what a user would do: one command of
`ckpt-tune`, then a training loop whose adjoint comes from `autotune.auto_adjoint`.
"""

import argparse
import logging
import shlex
import subprocess
import sys
from pathlib import Path

PROBLEM = Path("scripts") / "problems" / "lynx_hare.py"
REPORT = Path("ckpt-tune-report") / "lynx_hare"


def main() -> int:
    """Tune, then train; the exit code is that of `ckpt-tune tune` where that fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", default="2MiB", help="bytes that one gradient may take")
    parser.add_argument("--steps", type=int, default=300, help="training steps")
    options = parser.parse_args()
    ckpt_tune = Path(sys.executable).with_name("ckpt-tune")
    arguments = ["tune", f"{PROBLEM.as_posix()}:make", "--budget", options.budget, "--report", REPORT.as_posix()]
    print(f"$ ckpt-tune {shlex.join(arguments)}", flush=True)
    code = subprocess.run([ckpt_tune, *arguments], check=False).returncode
    if code:
        return code
    print(f"\ntraining for {options.steps} steps with autotune.auto_adjoint({PROBLEM.stem}.make, …)", flush=True)
    train(options.budget, options.steps)
    return 0


def train(budget: str, steps: int) -> None:
    """Fit the ensemble, its adjoint chosen from the stored profile; print the loss and the gradient's bytes."""
    # Imported here, so that nothing is held in this process while `ckpt-tune` measures in others.
    import equinox as eqx
    import optax

    import autotune
    from autotune import parse_bytes
    from profiles import format_bytes

    sys.path.append(str(PROBLEM.parent))
    from lynx_hare import make  # pyright: ignore[reportMissingImports]

    log = logging.getLogger("autotune")  # says once what was chosen, and on what evidence
    log.addHandler(logging.StreamHandler(sys.stdout))
    log.setLevel(logging.INFO)
    adjoint = autotune.auto_adjoint(make, budget=budget)
    print(f"adjoint      {adjoint}")
    gradient_of, (model, *data) = make(adjoint=adjoint)
    compiled = eqx.filter_jit(gradient_of).lower(model, *data).compile()
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-2))
    state = optimizer.init(eqx.filter(model, eqx.is_inexact_array))

    @eqx.filter_jit
    def updated(model, gradient, state):
        updates, state = optimizer.update(gradient, state)
        return eqx.apply_updates(model, updates), state

    for step in range(steps):
        loss, gradient = compiled(model, *data)
        model, state = updated(model, gradient, state)
        if step % 50 == 0 or step == steps - 1:
            print(f"step {step:4d}    loss {float(loss):.4f}", flush=True)
    planned = compiled.compiled.memory_analysis()
    peak = planned.temp_size_in_bytes + planned.argument_size_in_bytes + planned.output_size_in_bytes
    peak -= planned.alias_size_in_bytes
    share = peak / parse_bytes(budget)
    print(f"peak         {format_bytes(peak)} a gradient, {share:.0%} of the budget of {budget}")


if __name__ == "__main__":
    raise SystemExit(main())
