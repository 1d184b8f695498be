"""The matrix: nestings, what is asked, tiers and kinds of leaves, with a plain scan as oracle: right, or refused.

A cell is a program of `loop_programs` or `solve_programs`. Whether it is refused stands in `programs.REFUSALS`, and
holds both ways here: what the table names is refused, everything else is right.
"""

import itertools
from typing import Any

import pytest

from .loop_programs import LEAVES, LoopProgram
from .nestings import FORWARD, FORWARD_MODES, MODES, NESTINGS, SETTINGS
from .programs import check, refusals
from .solve_programs import SolveProgram

pytestmark = pytest.mark.usefixtures("x64")

EXACT = ("float64", "complex128", "int8", "uint32", "bool", "raw key", "typed key", "empty", "matrix")
ROUNDED = ("float16", "bfloat16", "float32", "complex64", "weak")
TIERS = (None, "host", "disk")
FAST_NESTINGS = ("none", "scan")


def cells() -> list[Any]:
    """List every nesting with every mode and tier, the carry holding leaves of many kinds; few of them are fast."""
    found = []
    for nesting, mode, tier, leaves in itertools.product(NESTINGS, MODES | FORWARD_MODES, TIERS, (EXACT, ROUNDED)):
        if nesting in FORWARD and mode != "value":
            continue
        # A file is what nestings have broken; without one few of them are looked at every time.
        few = leaves is EXACT and (
            (mode == "grad" and (tier == "disk" or nesting in FAST_NESTINGS))
            or (nesting in FORWARD and tier == "disk")
            or (mode == "hessian" and nesting == "none")
            or (mode == "reverse over forward" and (nesting, tier) in (("remat", "disk"), ("scan of vmap", None)))
        )
        program = LoopProgram(leaves=leaves, nesting=nesting, mode=mode, tier=tier)
        name = f"{nesting}-{mode}-{tier}-{'exact' if leaves is EXACT else 'rounded'}"
        found.append(pytest.param(program, id=name, marks=() if few else pytest.mark.slow))
    return found


def right_or_refused(program: LoopProgram | SolveProgram) -> None:
    """Assert that a cell is what the table says."""
    may = refusals(program)
    found = check(program)
    if any(refusal.always for refusal in may):
        assert found == "refused", program
    assert found == "right" or (may and found == "refused"), f"{program}: {found}"


@pytest.mark.parametrize("program", cells())
def test_every_nesting_and_mode_is_right_or_refused(program: LoopProgram) -> None:
    """With leaves of every kind in one carry."""
    right_or_refused(program)


def kinds() -> list[Any]:
    """List every kind of leaf by itself."""
    found = []
    for leaf, nesting, mode, tier in itertools.product(LEAVES, FAST_NESTINGS, ("grad", "jacrev", "hessian"), TIERS):
        few = leaf in ("typed key", "bfloat16", "empty") and nesting == "none" and mode == "grad"
        program = LoopProgram(leaves=(leaf,), nesting=nesting, mode=mode, tier=tier)
        found.append(pytest.param(program, id=f"{leaf}-{nesting}-{mode}-{tier}", marks=() if few else pytest.mark.slow))
    return found


@pytest.mark.parametrize("program", kinds())
def test_every_kind_of_leaf_is_right_or_refused(program: LoopProgram) -> None:
    """By itself, so that nothing hides it."""
    right_or_refused(program)


@pytest.mark.parametrize("inner", TIERS)
@pytest.mark.parametrize("outer", TIERS)
@pytest.mark.parametrize("mode", ["grad", pytest.param("hessian", marks=pytest.mark.slow)])
@pytest.mark.parametrize("nesting", ["none", pytest.param("scan", marks=pytest.mark.slow)])
def test_a_loop_in_a_loop_is_right_or_refused(nesting: str, mode: str, outer: Any, inner: Any) -> None:
    """Each with a tier of its own."""
    right_or_refused(LoopProgram(extra="inner loop", nesting=nesting, mode=mode, tier=outer, inner_tier=inner))


@pytest.mark.parametrize("tier", [None, pytest.param("host", marks=pytest.mark.slow), "disk"])
@pytest.mark.parametrize("setting", [name for name in SETTINGS if name != "none"])
@pytest.mark.parametrize("jitted", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_loop_under_a_setting_of_jax_is_right_or_refused(jitted: bool, setting: str, tier: Any) -> None:
    """Leak checks, NaN checks, internal checks, strict promotion and checkify."""
    right_or_refused(
        LoopProgram(extra="divide by dead", leaves=("bool",), mode="grad", setting=setting, tier=tier, jitted=jitted)
    )


@pytest.mark.parametrize(
    "setting", [pytest.param(x, marks=() if x in ("leaks", "checkify") else pytest.mark.slow) for x in SETTINGS]
)
@pytest.mark.parametrize("controller", ["constant", "integral"])
def test_a_solve_under_a_setting_of_jax_is_right(controller: str, setting: str) -> None:
    """With constant steps and adaptive ones."""
    right_or_refused(SolveProgram(solver="Tsit5", controller=controller, mode="grad", setting=setting))


def solves() -> list[Any]:
    """List adaptive solves in every nesting; of those without a tier and the disk one a few are fast."""
    found = []
    for nesting, mode, tier in itertools.product(
        NESTINGS, ("value", "grad", "jacrev", "hessian", *FORWARD_MODES), TIERS
    ):
        if nesting in FORWARD and mode != "value":
            continue
        few = nesting == "scan" and mode == "grad" and tier != "host"
        program = SolveProgram(solver="Tsit5", controller="integral", nesting=nesting, mode=mode, tier=tier)
        found.append(pytest.param(program, id=f"{nesting}-{mode}-{tier}", marks=() if few else pytest.mark.slow))
    return found


@pytest.mark.parametrize("program", solves())
def test_an_adaptive_solve_in_every_nesting_is_right_or_refused(program: SolveProgram) -> None:
    """Each begins where the last ended, as an ODE-RNN has them."""
    right_or_refused(program)
