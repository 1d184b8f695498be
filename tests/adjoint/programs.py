"""Two hundred random programs, their oracles, and what counts as right.

A program is a frozen record that a seed gives back; printed, it can be pasted to run it again. To look at one, and to
have a failing one made simpler:

    python -m tests.adjoint.programs 17
    python -m tests.adjoint.programs 17 --shrink
"""

import dataclasses
import functools
import os
import pathlib
import random
import re
import sys
import tempfile
from collections.abc import Callable
from typing import Any

import diffrax
import equinox as eqx
import jax
import numpy as np

import adjoint
from adjoint.solve.compat import solve_loop

from . import loop_programs, solve_programs
from .loop_programs import LoopProgram
from .nestings import CHECKED
from .parts import Log
from .plain import assert_close, plain_while_loop
from .solve_programs import SolveProgram

Program = SolveProgram | LoopProgram
SEEDS = range(200)
SAME = 60
"""So many characters of an error tell whether it is the same."""
MOST_MAPS = 25_000
"""Of 65530 that Linux allows a process."""
LONGEST = 40
"""Steps of a solve where no bound is given: more than any makes."""
RELATIVE = 1e-9
"""How far numbers may be off, of the largest entry of their leaf ..."""
NUDGE, NUDGES, MOST = 2e-15, 30.0, 1e-6
"""... or so many times as far as they move when the inputs do so little, but never more than the last."""
SEEN_WITHIN = 1e-6
"""How near a number that a callback saw must be to one that it sees with the oracle.

A callback's thread may not know that 64 bits are enabled, and rounds.
"""


def draw(seed: int) -> Program:
    """Draw a program; the same for a seed on every machine and version."""
    rng = random.Random(seed)
    return (loop_programs if seed % 2 else solve_programs).draw(rng)


@dataclasses.dataclass(frozen=True)
class Refusal:
    """An error that counts as right: its message, the programs that it may meet, and whether it meets them all."""

    message: str
    meets: Callable[[Program], bool]
    always: bool = True


def _tiers(program: Program) -> set[str]:
    return {program.tier or "", getattr(program, "inner_tier", None) or ""} - {""}


REFUSALS = (
    Refusal(
        r"cannot be differentiated under `jax\.vmap` one lane at a time",
        lambda p: bool(_tiers(p)) and (p.mode == "vmap of grad" or p.nesting == "vmap of while"),
        always=False,
    ),
    Refusal(
        r"The file holds its states, not their tangents",
        lambda p: "disk" in _tiers(p) and p.mode == "hessian",
    ),
)
"""Everything that ours may refuse where an oracle has an answer."""


def refusals(program: Program) -> list[Refusal]:
    """Return the entries of `REFUSALS` that a program may meet."""
    return [refusal for refusal in REFUSALS if refusal.meets(program)]


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What came of a program: numbers and what was seen, or an error in words.

    The error itself would keep tracers alive.
    """

    numbers: Any
    log: Log
    error: str | None


def outcome(run: Callable[[Log], Any]) -> Outcome:
    """Run, and wait for every callback."""
    log = Log()
    try:
        numbers = run(log)
        jax.effects_barrier()
    except Exception as error:
        return Outcome(None, log, f"{type(error).__name__}: {error}")
    return Outcome(numbers, log, None)


def _plain(program: Program) -> Program:
    """Leave out what no oracle is told, so that programs share what is computed."""
    if isinstance(program, LoopProgram):
        return dataclasses.replace(program, tier=None, inner_tier=None, windows=3, checkpoints=2, expected=None)
    return dataclasses.replace(program, tier=None, windows=3, expected=None)


@functools.lru_cache(maxsize=8)
def expected_outcome(program: Program, number: int) -> Outcome:
    """Run one of the oracles; the last ones are kept."""
    return outcome(oracles(program)[number])


def oracles(program: Program) -> list[Callable[[Log], Any]]:
    """Return what to compare with, best first; the next is asked where one raises, or is not what ours is.

    They run without JAX's checks of itself, which have nothing to say about numbers, and may fail or take minutes.
    """
    if program.setting not in CHECKED:
        program = dataclasses.replace(program, setting="none")
    return as_set(program)


def as_set(program: Program) -> list[Callable[[Log], Any]]:
    """Return the oracles under the program's own setting."""
    if isinstance(program, LoopProgram):
        return [functools.partial(program.run, plain_while_loop, plain_while_loop)]
    return [functools.partial(program.run, make) for make in (_theirs, lambda **counts: ScanAdjoint())]


def _theirs(checkpoints: Any, expected_steps: Any) -> Any:
    del expected_steps
    return diffrax.RecursiveCheckpointAdjoint(None if checkpoints is None else int(checkpoints))


class ScanAdjoint(diffrax.AbstractAdjoint):
    """Diffrax's solve as masked scans, for what its own adjoint cannot differentiate: forward over reverse, say."""

    def loop(
        self,
        *,
        solver: Any,
        max_steps: int | None,
        throw: bool,
        passed_solver_state: bool,
        passed_controller_state: bool,
        **kwargs: Any,
    ) -> Any:
        """Run the solve; called by `diffrax.diffeqsolve`."""
        del throw, passed_solver_state, passed_controller_state
        return solve_loop(
            self,
            solver=_scanning(solver),
            max_steps=max_steps,
            inner_while_loop=plain_while_loop,
            outer_while_loop=functools.partial(_outer_scan, most=LONGEST),
            **kwargs,
        )


def _outer_scan(*args: Any, max_steps: int | None, most: int, **kwargs: Any) -> Any:
    return plain_while_loop(*args, max_steps=most if max_steps is None else min(max_steps, most), **kwargs)


def _scanning(solver: Any) -> Any:
    """Have a solver loop over its stages in the way that can be differentiated both ways."""
    if isinstance(solver, diffrax.HalfSolver):
        return eqx.tree_at(lambda s: s.solver, solver, _scanning(solver.solver))
    if hasattr(solver, "scan_kind"):
        return eqx.tree_at(lambda s: s.scan_kind, solver, "bounded", is_leaf=lambda x: x is None)
    return solver


def run_ours(program: Program, log: Log) -> Any:
    """Run a program with ours."""
    with tempfile.TemporaryDirectory() as directory:
        if isinstance(program, SolveProgram):
            options = tier_options(program.tier, program.windows, directory)
            return program.run(functools.partial(adjoint.RecursiveCheckpointAdjoint, **options), log)
        outer, inner = (loop_of(tier, program.windows, directory) for tier in (program.tier, program.inner_tier))
        return program.run(outer, inner, log)


def loop_of(tier: str | None, windows: int, directory: str) -> Callable[..., Any]:
    """Return our loop with a tier."""
    return functools.partial(adjoint.checkpointed_while_loop, **tier_options(tier, windows, directory))


def tier_options(tier: str | None, windows: int, directory: str) -> dict[str, Any]:
    """Return what ours is told of a tier."""
    if tier is None:
        return {}
    files = {"directory": directory} if tier == "disk" else {}
    return {"tier": tier, "windows": windows, "transfer_cost": 0.0, **files}


def check(program: Program) -> str:
    """Compare ours with the oracles: right is what one of them says, for Diffrax's own adjoint is not always.

    Returns:
        "right", or "refused" where one of `REFUSALS` says that it may be or an oracle raises too under the
        program's setting, or "no oracle".

    Raises:
        AssertionError: ours is wrong, raised, or showed a function what it is never shown.
    """
    let_go()
    found, wrong = None, None
    raised = []
    for k, oracle in enumerate(oracles(program)):
        expected = expected_outcome(_plain(program), k)
        if expected.error is not None:
            raised.append(expected.error[:SAME])
            continue
        found = found or outcome(functools.partial(run_ours, program))
        if found.error is not None:
            known = any(re.search(refusal.message, found.error) for refusal in refusals(program))
            if known or found.error[:SAME] in raised:
                return "refused"
            if program.setting != "none" and outcome(as_set(program)[0]).error is not None:
                return "refused"
            raise AssertionError(f"{program}\nraises {found.error[:600]}")
        try:
            assert_agree(program, found, expected, oracle)
        except AssertionError as error:
            wrong = wrong or error
        else:
            return "right"
    if wrong is not None:
        raise wrong
    return "no oracle"


def let_go() -> None:
    """Drop compiled programs before the kernel's memory maps run out."""
    maps = pathlib.Path("/proc/self/maps")
    if maps.exists() and len(maps.read_bytes().splitlines()) > MOST_MAPS:
        jax.clear_caches()


def assert_agree(program: Program, found: Outcome, expected: Outcome, oracle: Callable[..., Any]) -> None:
    """Assert that numbers agree as far as they are determined, and that nobody saw what the oracle shows nobody."""
    close = functools.partial(assert_close, found.numbers, expected.numbers, smallest=1e-4)
    relative = program.relative if isinstance(program, LoopProgram) else RELATIVE
    try:
        close(relative, f"{program}\n")
    except AssertionError:
        # Step sizes hang on estimates of the error, which are small differences of large numbers.
        moved = outcome(functools.partial(oracle, nudge=NUDGE))
        close(min(relative + NUDGES * distance(moved.numbers, expected.numbers), MOST), f"{program}\n")
    assert found.log.facts <= expected.log.facts, f"{program}\n{found.log.facts} against {expected.log.facts}"
    for name, rows in found.log.rows.items():
        assert_seen(np.array(rows), np.array(expected.log.rows.get(name, [])), f"{program}\n{name}")


def distance(a: Any, b: Any) -> float:
    """Return how far two trees of numbers are apart, relative to the largest entry of each leaf."""
    gaps = [0.0]
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        x, y = np.asarray(x), np.asarray(y)
        if not np.issubdtype(y.dtype, np.inexact):
            continue
        gaps.append(float(np.abs(x - y).max(initial=0.0) / np.abs(y).max(initial=1e-4)))
    return max(gaps)


def assert_seen(found: np.ndarray, expected: np.ndarray, name: str) -> None:
    """Assert that every row of what was seen is, to rounding, one of those that may be."""
    assert len(expected), f"{name} was shown something, and with the oracle nothing"
    for row in np.unique(found, axis=0):
        gap = np.abs(expected - row).max(axis=1).min()
        assert gap <= SEEN_WITHIN * max(1.0, np.abs(row).max()), f"{name} was shown {row}, {gap} from all it may be"


def shrink(program: Program, fails: Callable[[Program], bool]) -> Program:
    """Make a failing program simpler, field by field, as long as it still fails."""
    again = True
    while again:
        again = False
        for field in dataclasses.fields(program):
            simpler = dataclasses.replace(program, **{field.name: field.default})
            if simpler != program and simpler.possible and fails(simpler):
                program, again = simpler, True
    return program


def failure(program: Program) -> str:
    """Say what is wrong with a program, "" where nothing is."""
    try:
        check(program)
    except AssertionError as error:
        return str(error)
    finally:
        jax.clear_caches()
    return ""


def main(arguments: list[str]) -> int:
    """Check seeds, and shrink what fails where that is asked."""
    failed = 0
    with jax.enable_x64(True):
        for seed in (int(x) for x in arguments if x != "--shrink"):
            program = draw(seed)
            wrong = failure(program)
            print(f"{seed}: {wrong or f'{program} is right'}", flush=True)
            failed += bool(wrong)
            if wrong and "--shrink" in arguments:
                simplest = shrink(program, lambda p: bool(failure(p)))
                print(f"{seed}, simplest: {failure(simplest)}", flush=True)
    return int(failed > 0)


if __name__ == "__main__":
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    sys.exit(main(sys.argv[1:]))
