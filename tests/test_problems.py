"""The shipped problems under scripts/problems: each is built, differentiated, and held to an independent gradient.

Oracles: Diffrax's `DirectAdjoint`, which differentiates the solver's own operations without any checkpoint, where
steps are adaptive; central finite differences along a random direction in float64, where steps are fixed.
"""

import importlib.util
import inspect
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from tests.conftest import REPOSITORY

PROBLEMS = REPOSITORY / "scripts" / "problems"
SMALL: dict[str, dict[str, Any]] = {
    "lynx_hare": {"horizon": 3, "tolerance": 1e-4, "members": 2, "width": 4},
    "spirals": {"horizon": 3.0, "tolerance": 1e-4, "batch": 2, "latent": 4, "width": 4},
    "reaction_diffusion": {"horizon": 12, "grid": 16},
    "neural_sde": {"horizon": 0.4, "batch": 3, "hidden": 4, "width": 4},
    "robertson": {"horizon": 10.0, "tolerance": 1e-4, "experiments": 2},
    "neural_cde": {"horizon": 8, "tolerance": 1e-3, "batch": 2, "hidden": 4, "width": 4},
    "recurrent": {"horizon": 12, "batch": 3, "hidden": 4},
    "heated_plate": {"horizon": 12, "grid": 12},
}
SLOW = pytest.mark.slow
ADAPTIVE = (
    "lynx_hare",
    "spirals",
    pytest.param("robertson", marks=SLOW),
    pytest.param("neural_cde", marks=SLOW),
)
SCANNED = ("recurrent", "heated_plate")
"""Problems of a scan, not of a solve."""
FIXED_STEPS = ("reaction_diffusion", "neural_sde", *SCANNED)


def load(name: str) -> ModuleType:
    """Import a problem's file as a user's own module would be."""
    spec = importlib.util.spec_from_file_location(f"shipped_{name}", PROBLEMS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def build(name: str, solve_adjoint: diffrax.AbstractAdjoint, **changed: Any) -> tuple[Callable, tuple]:
    """Make the small version of a problem."""
    return load(name).make(adjoint=solve_adjoint, **{**SMALL[name], **changed})


def evaluate(name: str, solve_adjoint: diffrax.AbstractAdjoint, **changed: Any) -> tuple[float, list[np.ndarray]]:
    """Return loss and gradient leaves of the small version."""
    fn, args = build(name, solve_adjoint, **changed)
    loss, gradient = eqx.filter_jit(fn)(*args)
    return float(loss), [np.asarray(leaf) for leaf in jax.tree.leaves(gradient)]


def test_every_problem_of_the_folder_is_tested() -> None:
    """A file that is added to the folder must join the table above."""
    assert {path.stem for path in PROBLEMS.glob("*.py")} == set(SMALL)


@pytest.mark.parametrize("name", SMALL)
def test_the_factory_keeps_the_contract_and_every_parameter_has_a_default(name: str) -> None:
    """`adjoint` is asked for by keyword; horizon and the rest can be left out; nothing unknown is asked."""
    parameters = inspect.signature(load(name).make).parameters
    assert parameters["adjoint"].default is inspect.Parameter.empty
    assert "horizon" in parameters
    for parameter in parameters.values():
        assert parameter.kind is inspect.Parameter.KEYWORD_ONLY
        assert parameter.name == "adjoint" or parameter.default is not inspect.Parameter.empty


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.usefixtures("x64")
def test_a_whole_and_a_floating_horizon_are_the_same_problem(name: str) -> None:
    """`--horizon 4` and `--horizon 4.` build arguments that are equal, leaf by leaf."""
    floating, whole = (build(name, diffrax.RecursiveCheckpointAdjoint(), horizon=value)[1] for value in (4.0, 4))
    floating, whole = (jax.tree.leaves(eqx.filter(args, eqx.is_inexact_array)) for args in (floating, whole))
    assert len(floating) == len(whole) > 0
    for left, right in zip(floating, whole, strict=True):
        np.testing.assert_array_equal(np.asarray(left), np.asarray(right))


@pytest.mark.parametrize("name", ADAPTIVE)
@pytest.mark.usefixtures("x64")
def test_the_gradient_of_an_adaptive_problem_is_that_of_the_solvers_own_operations(name: str) -> None:
    """Our adjoint with few checkpoints gives the gradient of `DirectAdjoint`, finite and not zero."""
    loss, gradient = evaluate(name, diffrax.RecursiveCheckpointAdjoint(checkpoints=3))
    direct_loss, direct = evaluate(name, diffrax.DirectAdjoint())
    assert np.isfinite(loss)
    assert loss == pytest.approx(direct_loss, rel=1e-9)
    assert max(np.abs(leaf).max() for leaf in direct) > 1e-6
    for ours, theirs in zip(gradient, direct, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", FIXED_STEPS)
@pytest.mark.usefixtures("x64")
def test_the_gradient_of_a_problem_of_fixed_steps_agrees_with_finite_differences(name: str) -> None:
    """Along a random direction the gradient's slope is the central difference of the loss."""
    fn, (model, *data) = build(name, diffrax.RecursiveCheckpointAdjoint(checkpoints=3))
    value_and_gradient = eqx.filter_jit(fn)
    _, gradient = value_and_gradient(model, *data)
    leaves, structure = jax.tree.flatten(eqx.filter(model, eqx.is_inexact_array))
    keys = jr.split(jr.key(7), len(leaves))
    direction = [jr.normal(key, leaf.shape, leaf.dtype) for key, leaf in zip(keys, leaves, strict=True)]

    def shifted(distance: float) -> float:
        moved = jax.tree.unflatten(structure, [distance * part for part in direction])
        return float(value_and_gradient(eqx.apply_updates(model, moved), *data)[0])

    slope = sum(float(jnp.vdot(*pair)) for pair in zip(jax.tree.leaves(gradient), direction, strict=True))
    difference = (shifted(1e-5) - shifted(-1e-5)) / 2e-5
    assert abs(difference) > 1e-4
    assert slope == pytest.approx(difference, rel=1e-5)


@pytest.mark.parametrize("name", [name if name == "robertson" else pytest.param(name, marks=SLOW) for name in SMALL])
def test_single_precision_gives_a_finite_gradient(name: str) -> None:
    """Without float64, as most users run, loss and gradient are finite."""
    loss, gradient = evaluate(name, diffrax.RecursiveCheckpointAdjoint(checkpoints=3))
    assert np.isfinite(loss)
    assert all(np.isfinite(leaf).all() for leaf in gradient)


def test_the_record_of_hare_and_lynx_is_the_published_one() -> None:
    """The table is read whole, in order; its sums and extremes are those of the published table."""
    years, populations = load("lynx_hare").record()
    np.testing.assert_array_equal(years, np.arange(21.0))
    np.testing.assert_allclose(populations.sum(axis=0), [715.7, 423.5], atol=1e-9)
    assert populations[:, 0].argmax() == 3
    assert populations[:, 1].argmax() == 4


@pytest.mark.parametrize("horizon", [0, 21, 25.5])
def test_years_outside_the_record_are_refused_with_both_sides(horizon: float) -> None:
    """The message names the horizon that was asked for and the years that the record holds."""
    with pytest.raises(ValueError, match=rf"horizon={horizon} years, but the record holds the years 1 to 20"):
        load("lynx_hare").make(adjoint=diffrax.RecursiveCheckpointAdjoint(), horizon=horizon)


def test_one_state_of_the_reaction_is_at_least_a_megabyte() -> None:
    """The default grid is large enough for memory figures to mean something."""
    _, (_, initial, _) = load("reaction_diffusion").make(adjoint=diffrax.RecursiveCheckpointAdjoint(), horizon=1)
    assert initial.nbytes >= 2**20
