"""Random programs against Diffrax's adjoint and a plain scan: what comes out, and what the user's functions see.

What has been wrong once, and seeds that find it when it is put back:

    a file of the disk tier shared by the passes of a scan           28 93 105 123 183
    forward over reverse through the disk tier, without tangents     9 37
    forward over reverse through the host tier                       31 74 83 131
    a typed key in the disk tier; `jax.checkpoint` around it         143; 78 139
    a field with a callback of t; with a Brownian path               10; 16
    `HalfSolver` around a Runge-Kutta solver                         14 42
    an event that looks at the solver                                6 60
    a leaf that no derivative reads, seen by a callback              13 19 29
    a controller that leaves gaps after FSAL steps                   54 80 96 156
    `max_steps` of 2**31 or more                                     18 67 155
    a caller that asks what kind of adjoint it has                   84 112
    a check of checkify in the field; in a body                      12 160; 25
    a count that is a NumPy integer                                  1 2 7
"""

import dataclasses

import pytest

from adjoint.solve import accepted

from .programs import SEEDS, Program, check, draw, shrink
from .solve_programs import SolveProgram

pytestmark = pytest.mark.usefixtures("x64")

FAST = {1, 6, 9, 10, 12, 13, 14, 16, 25, 28, 31, 54, 67, 112, 143}
"""One that compiles soon for each of these."""


def test_a_seed_always_draws_the_same_program() -> None:
    """A failing seed can be run again, and what is printed can be pasted."""
    for seed in SEEDS:
        program = draw(seed)
        assert draw(seed) == program
        assert eval(repr(program), {type(program).__name__: type(program)}) == program


def test_shrinking_keeps_only_what_fails() -> None:
    """Every field that does not matter goes back to its default."""
    program = draw(0)
    assert isinstance(program, SolveProgram)
    found = shrink(dataclasses.replace(program, solver="Tsit5"), lambda p: getattr(p, "solver", "") == "Tsit5")
    assert found == SolveProgram(solver="Tsit5")


@pytest.mark.parametrize("seed", [pytest.param(k, marks=() if k in FAST else pytest.mark.slow) for k in SEEDS])
def test_a_random_program_gives_what_its_oracle_gives(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal to rounding, or refused as the table says, and nobody is shown what never was.

    Every third program replays rejected steps too, and every fourth is compiled without kernels.
    """
    if seed % 3 == 0:
        monkeypatch.setattr(accepted, "SMALLEST_RECORD_BYTES", 0)
    if seed % 4 == 0:
        monkeypatch.setenv("CKPT_TUNE_ONE_KERNEL", "0")
    program: Program = draw(seed)
    assert check(program) in ("right", "refused")
