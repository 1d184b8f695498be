"""Our adjoint in `diffrax.diffeqsolve`, held to Diffrax: the same solutions, the same gradients, the same errors.

Two oracles. Every run: `diffrax.ForwardMode`, whose derivative along a random direction the gradient must reproduce.
Slow runs: `diffrax.RecursiveCheckpointAdjoint`, whose gradient it must reproduce entry by entry.
"""

import dataclasses
import itertools
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import adjoint

from . import solves
from .plain import assert_close
from .solves import Cell

pytestmark = [
    pytest.mark.usefixtures("x64"),
    # Said by Diffrax of solvers that converge to neither, of which some cells are made on purpose.
    pytest.mark.filterwarnings("ignore:.*is not marked as converging to either the It"),
]

TOLERANCE = 1e-9
"""Relative to the largest entry; states that are computed again by another program differ by rounding."""

ENDED = [diffrax.RESULTS.successful._value, diffrax.RESULTS.event_occurred._value]

EVERY_RUN = [
    Cell(method="Euler", controller="listed", save="both ends", moving="everything"),
    Cell(method="Heun", controller="integral", save="every other step", event="boolean"),
    Cell(method="Tsit5", controller="integral", save="times", moving="everything", throw=True),
    Cell(method="Bosh3", controller="clipped", save="several", event="coarse crossing"),
    Cell(method="Ralston", controller="constant", save="dense", moving="everything"),
    Cell(method="Heun CDE", controller="constant", save="steps"),
    Cell(method="Bosh3", controller="proportional", save="states", event="crossing", moving="everything"),
    Cell(method="Kvaerno3", controller="integral", save="function", moving="start"),
    Cell(method="ReversibleHeun", controller="constant", save="times", max_steps=None, event="upward or late"),
    Cell(method="Midpoint", controller="integral", save="end", checkpoints=40),
    Cell(method="ItoMilstein", controller="constant", save="steps", checkpoints=None),
    Cell(method="Heun", controller="integral", save="steps", max_steps=5),
]


DECIDED_BY_ROUNDING = {("Dopri8", "proportional"), ("Tsit5 CDE", "proportional")}
"""Pairs where the error of the first step, which this controller chooses very small, is rounding alone: it decides the
next step, so that two programs of the same method make different steps."""


def rotated() -> list[Cell]:
    """Pair every method with every controller, and turn the other choices like wheels with each pair."""
    cells = []
    wheels: dict[str, list[Any]] = {
        "save": list(solves.SAVES),
        "event": list(solves.EVENTS),
        "moving": list(solves.MOVING),
        "checkpoints": [3, 1, 40, 6],
    }
    # Wheels of 9, 5, 3 and 4 places, each turned by one, come back to where they were after 180 turns only.
    turns = [tuple(wheel[k % len(wheel)] for wheel in wheels.values()) for k in range(180)]
    k = 0
    for method, controller in itertools.product(solves.METHODS, solves.CONTROLLERS):
        if controller in solves.ADAPTIVE and not solves.METHODS[method].adaptive:
            continue
        if (method, controller) in DECIDED_BY_ROUNDING:
            continue
        while True:
            cell = Cell(method=method, controller=controller, **dict(zip(wheels, turns[k % 180], strict=True)))
            k += 1
            if cell.possible:
                cells.append(cell)
                break
    return cells


def ours(cell: Cell) -> Any:
    """Our adjoint with the checkpoints of a cell."""
    return adjoint.RecursiveCheckpointAdjoint(checkpoints=cell.checkpoints)


def gradient(cell: Cell, with_adjoint: Any) -> Any:
    """Compile and run: loss, all that the solve returns, and the gradient."""
    moving, fixed = cell.inputs()

    @jax.jit
    def compiled(moving: Any, fixed: Any) -> Any:
        value_and_gradient = jax.value_and_grad(lambda moving: cell.solve(with_adjoint, moving, fixed), has_aux=True)
        return value_and_gradient(moving)

    return compiled(moving, fixed)


def along(cell: Cell) -> tuple[Any, Any, Any]:
    """Compile and run with `ForwardMode`: all that the solve returns, a random direction, the slope along it."""
    moving, fixed = cell.inputs()
    rng = np.random.default_rng(7)
    direction = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape)), moving)

    @jax.jit
    def compiled(moving: Any, fixed: Any, direction: Any) -> Any:
        solve = lambda moving: cell.solve(diffrax.ForwardMode(), moving, fixed)
        value, slope, seen = jax.jvp(solve, (moving,), (direction,), has_aux=True)
        return (value, seen), slope

    seen, slope = compiled(moving, fixed, direction)
    return seen, direction, slope


def check_slope(cell: Cell, with_adjoint: Any) -> None:
    """Assert that the gradient's slope is that of forward mode, and that both solve alike."""
    found, gradients = gradient(cell, with_adjoint)
    expected, direction, slope = along(cell)
    assert_close(found, expected, relative=TOLERANCE)
    result = found[1][1][1]
    assert (result == diffrax.RESULTS.max_steps_reached._value) == (cell.max_steps == 5)
    assert (result in ENDED) == (cell.max_steps != 5)
    products = [g * d for g, d in zip(jax.tree.leaves(gradients), jax.tree.leaves(direction), strict=True)]
    total, size = (float(sum(jnp.sum(f(x)) for x in products)) for f in (lambda x: x, jnp.abs))
    assert size > 1e-3
    assert abs(total - float(slope)) <= 10 * TOLERANCE * size


@pytest.mark.parametrize("cell", EVERY_RUN, ids=str)
def test_the_gradient_has_the_slope_of_forward_mode(cell: Cell) -> None:
    """A covering choice of solvers, controllers, saves, events and differentiated inputs."""
    check_slope(cell, ours(cell))


@pytest.mark.slow
@pytest.mark.parametrize("cell", [*EVERY_RUN, *rotated()], ids=str)
def test_the_gradient_is_that_of_diffrax(cell: Cell) -> None:
    """The same solution and every entry of the gradient, for every method with every controller."""
    theirs = diffrax.RecursiveCheckpointAdjoint(checkpoints=cell.checkpoints)
    assert_close(gradient(cell, ours(cell)), gradient(cell, theirs), relative=TOLERANCE, smallest=1e-6)


def test_the_choice_of_every_run_meets_every_controller_save_and_event() -> None:
    """The covering choice leaves no controller and no kind of saving out, and none of its cells is impossible."""
    assert {cell.controller for cell in EVERY_RUN} == set(solves.CONTROLLERS)
    assert {cell.save for cell in EVERY_RUN} == set(solves.SAVES)
    assert {cell.moving for cell in EVERY_RUN} == set(solves.MOVING)
    assert {cell.event for cell in EVERY_RUN} == set(solves.EVENTS)
    assert all(cell.possible for cell in EVERY_RUN)


#
# Going on from a solve
#


def two_halves(with_adjoint: Any, start: Any, weight: Any) -> Any:
    """Solve to the middle, then on from there with the states that the first solve left."""

    def half(t0: float, t1: float, y0: Any, **states: Any) -> Any:
        return diffrax.diffeqsolve(
            diffrax.ODETerm(lambda t, y, weight: jnp.tanh(weight * y) + jnp.cos(3 * t)),
            diffrax.Bosh3(),
            t0,
            t1,
            None,
            y0,
            args=weight,
            saveat=diffrax.SaveAt(t1=True, solver_state=True, controller_state=True, made_jump=True),
            stepsize_controller=diffrax.PIDController(rtol=1e-3, atol=1e-5),
            adjoint=with_adjoint,
            max_steps=30,
            **states,
        )

    first: Any = half(0.0, 0.5, start)
    second = half(
        0.5,
        1.0,
        first.ys[0],
        solver_state=first.solver_state,
        controller_state=first.controller_state,
        made_jump=first.made_jump,
    )
    return jnp.sum(second.ys * jnp.array([1.0, -2.0])), second.stats


def test_states_that_one_solve_leaves_carry_gradients_into_the_next() -> None:
    """`solver_state`, `controller_state`, `made_jump` are passed on; the gradient goes through the solver's state."""
    args = jnp.asarray(solves.START), jnp.asarray(0.8)

    def slope(*args: Any) -> Any:
        return jax.jvp(lambda *args: two_halves(diffrax.ForwardMode(), *args), args, (jnp.ones(2), jnp.ones(())), True)

    with_ours = adjoint.RecursiveCheckpointAdjoint(checkpoints=3)
    found = jax.jit(jax.value_and_grad(lambda *args: two_halves(with_ours, *args), argnums=(0, 1), has_aux=True))(*args)
    (value, stats), gradients = found
    expected_value, expected_slope, expected_stats = jax.jit(slope)(*args)
    assert_close(value, expected_value, relative=TOLERANCE)
    assert_close(stats, expected_stats)
    total = sum(jnp.sum(x) for x in gradients)
    np.testing.assert_allclose(total, expected_slope, rtol=10 * TOLERANCE)


#
# Predictions
#


def count_field_calls(expected_steps: Any, dt0s: list[float]) -> list[tuple[int, int]]:
    """Take gradients of Euler solves over the unit interval; return steps and calls of the vector field for each."""
    calls: list[int] = []

    def field(t: Any, y: Any, args: Any) -> Any:
        jax.debug.callback(lambda: calls.append(1))
        return -args * y

    @jax.jit
    def compiled(args: Any, dt0: Any) -> Any:
        def loss(args: Any) -> Any:
            with_ours = adjoint.RecursiveCheckpointAdjoint(checkpoints=4, expected_steps=expected_steps)
            solution = diffrax.diffeqsolve(
                diffrax.ODETerm(field), diffrax.Euler(), 0.0, 1.0, dt0, 1.0, args=args, adjoint=with_ours, throw=False
            )
            assert solution.ys is not None
            return solution.ys[0], solution.stats["num_steps"]

        return jax.grad(loss, has_aux=True)(args)

    counts = []
    for dt0 in dt0s:
        calls.clear()
        gradient, steps = compiled(0.7, dt0)
        jax.effects_barrier()
        expected = -int(steps) * dt0 * (1 - 0.7 * dt0) ** (int(steps) - 1)
        assert float(gradient) == pytest.approx(expected, rel=0.2)
        counts.append((int(steps), len(calls)))
    return counts


def test_constant_steps_are_counted_while_the_program_runs() -> None:
    """Without a prediction the field is called as if the number of steps had been known."""
    for steps, calls in count_field_calls(None, [0.1, 1 / 3, 0.03, 1.0, 0.0095, 1 / 160]):
        assert calls == adjoint.executed_steps(steps, 4, steps), steps


def test_a_prediction_of_the_user_goes_before_the_count() -> None:
    """`expected_steps` is taken as it is."""
    for steps, calls in count_field_calls(17, [0.1, 0.03]):
        assert calls == adjoint.executed_steps(steps, 4, 17), steps


def test_a_traced_prediction_is_no_new_compile_and_changes_no_bit() -> None:
    """One compiled gradient, several values of `expected_steps`: the same bytes."""
    traces = []

    @jax.jit
    def compiled(weight: Any, expected_steps: Any) -> Any:
        traces.append(1)

        def loss(weight: Any) -> Any:
            solution = diffrax.diffeqsolve(
                diffrax.ODETerm(lambda t, y, w: jnp.tanh(w * y) + jnp.cos(3 * t)),
                diffrax.Bosh3(),
                0.0,
                1.0,
                0.4,
                jnp.asarray(solves.START),
                args=weight,
                stepsize_controller=diffrax.PIDController(rtol=1e-4, atol=1e-6),
                adjoint=adjoint.RecursiveCheckpointAdjoint(checkpoints=3, expected_steps=expected_steps),
                max_steps=50,
            )
            assert solution.ys is not None
            return jnp.sum(solution.ys), solution.stats["num_accepted_steps"]

        return jax.value_and_grad(loss, has_aux=True)(weight)

    first = compiled(0.8, 0)
    accepted = int(first[0][1])
    assert accepted > 5
    for expected_steps in (accepted, accepted // 2, 3 * accepted, 10**6):
        again = compiled(0.8, expected_steps)
        for one, other in zip(jax.tree.leaves(first), jax.tree.leaves(again), strict=True):
            np.testing.assert_array_equal(one, other)
    assert len(traces) == 1


#
# Beyond gradients
#


def simple_solve(with_adjoint: Any, rate: Any, **arguments: Any) -> Any:
    """Solve y' = -rate y with a few Heun steps."""
    term = arguments.pop("term", diffrax.ODETerm(lambda t, y, args: -args * y))
    settings: dict[str, Any] = {"max_steps": 20, **arguments}
    return diffrax.diffeqsolve(term, diffrax.Heun(), 0.0, 1.0, 0.1, 1.0, args=rate, adjoint=with_adjoint, **settings)


def test_it_stands_beside_the_adjoints_of_diffrax() -> None:
    """It is a subclass of Diffrax's class of the same name, and has its argument first."""
    with_ours = adjoint.RecursiveCheckpointAdjoint(5)
    assert isinstance(with_ours, diffrax.RecursiveCheckpointAdjoint)
    assert [f.name for f in dataclasses.fields(with_ours)][:2] == ["checkpoints", "expected_steps"]
    assert (with_ours.checkpoints, with_ours.expected_steps) == (5, None)
    assert adjoint.RecursiveCheckpointAdjoint().checkpoints is None


def test_without_bound_and_checkpoints_it_solves_but_does_not_differentiate() -> None:
    """max_steps=None and checkpoints=None: forward as usual, a RuntimeError that names both cures on `grad`."""
    with_ours = adjoint.RecursiveCheckpointAdjoint()
    solution = simple_solve(with_ours, 0.7, max_steps=None)
    np.testing.assert_allclose(solution.ys[0], np.exp(-0.7), rtol=1e-3)
    with pytest.raises(RuntimeError, match=r"max_steps=\.\.\.(?s:.*)checkpoints=\.\.\."):
        jax.grad(lambda rate: simple_solve(with_ours, rate, max_steps=None).ys[0])(0.7)


def test_an_unsafe_brownian_path_is_refused() -> None:
    """Its noise cannot be drawn twice; the message names what to use."""
    path = diffrax.UnsafeBrownianPath(shape=(), key=jax.random.key(0))
    term = diffrax.MultiTerm(diffrax.ODETerm(lambda t, y, args: -y), diffrax.ControlTerm(lambda t, y, args: 0.1, path))
    with pytest.raises(ValueError, match=r"UnsafeBrownianPath"):
        simple_solve(adjoint.RecursiveCheckpointAdjoint(), 0.7, term=term)


def test_fewer_than_one_checkpoint_is_refused() -> None:
    """The message repeats the number."""
    with pytest.raises(ValueError, match=r"at least one checkpoint.*0"):
        simple_solve(adjoint.RecursiveCheckpointAdjoint(checkpoints=0), 0.7)


def test_reaching_the_bound_is_an_error_at_run_time() -> None:
    """With throw=True, too few steps raise Diffrax's own error, differentiated or not."""
    with_ours = adjoint.RecursiveCheckpointAdjoint(checkpoints=3)
    with pytest.raises(Exception, match="maximum number of solver steps"):
        jax.block_until_ready(jax.grad(lambda rate: simple_solve(with_ours, rate, max_steps=4).ys[0])(0.7))


def test_a_progress_meter_reports(capfd: pytest.CaptureFixture[str]) -> None:
    """`TextProgressMeter` prints up to 100 % while a differentiated solve runs."""
    with_ours = adjoint.RecursiveCheckpointAdjoint(checkpoints=3)
    meter = diffrax.TextProgressMeter(minimum_increase=0.25)
    jax.block_until_ready(
        jax.jit(jax.grad(lambda rate: simple_solve(with_ours, rate, progress_meter=meter).ys[0]))(0.7)
    )
    jax.effects_barrier()
    assert "100.00%" in capfd.readouterr().out


def test_the_hessian_of_a_solve_is_that_of_forward_over_forward() -> None:
    """Forward over reverse through the solve and its stage loops."""

    def loss(with_adjoint: Any, x: Any) -> Any:
        term = diffrax.ODETerm(lambda t, y, x: jnp.tanh(x[0] * y) + x[1] * jnp.cos(3 * t))
        return simple_solve(with_adjoint, x, term=term).ys[0] ** 2

    x = jnp.array([0.8, -0.4])
    with_ours = adjoint.RecursiveCheckpointAdjoint(checkpoints=3)
    found = jax.jit(jax.jacfwd(jax.grad(lambda x: loss(with_ours, x))))(x)
    expected = jax.jit(jax.jacfwd(jax.jacfwd(lambda x: loss(diffrax.ForwardMode(), x))))(x)
    assert_close(found, expected, relative=TOLERANCE)
