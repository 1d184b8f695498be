"""Whatever Diffrax's adjoint takes, ours takes; and the user's own functions see what they see with Diffrax's."""

import functools
from collections.abc import Callable
from typing import Any

import diffrax
import equinox as eqx
import equinox.internal as eqxi
import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
import pytest

import adjoint
from adjoint.solve.accepted import leaves_no_gap

from .plain import assert_close

pytestmark = pytest.mark.usefixtures("x64")
START = np.array([0.4, -0.7])
CONSTANT, ADAPTIVE = diffrax.ConstantStepSize(), diffrax.PIDController(rtol=1e-4, atol=1e-6)
SIDES = {"ours": adjoint.RecursiveCheckpointAdjoint, "theirs": diffrax.RecursiveCheckpointAdjoint}


def smooth(t: Any, y: Any, rate: Any) -> Any:
    """A vector field that is arithmetic."""
    return jnp.sin(rate * y) + jnp.cos(t) * rate


def solved(y: Any, rate: Any, method: Any, field: Any = smooth, solver: Any = None, **options: Any) -> Any:
    """Solve, and sum what was saved."""
    asked: dict[str, Any] = {"stepsize_controller": CONSTANT, "max_steps": 500, **options}
    found = diffrax.diffeqsolve(
        diffrax.ODETerm(field), diffrax.Tsit5() if solver is None else solver, 0.0, 2.0, 0.1, y, rate, adjoint=method,
        **asked,
    )  # fmt: skip
    return jnp.sum(jnp.where(jnp.isfinite(found.ys), found.ys, 0)), found.ts


def both(run: Callable[[Any], Any]) -> list[Any]:
    """Run with either adjoint, at the same count."""
    return [run(side(checkpoints=4)) for side in SIDES.values()]


def gradient(method: Any, **options: Any) -> Any:
    """Value and gradient in the initial state and the rate."""
    run = jax.value_and_grad(functools.partial(solved, method=method, **options), (0, 1), has_aux=True)
    return jax.jit(run)(jnp.array(START), 1.3)


def test_a_count_may_be_an_integer_of_numpy() -> None:
    """In the loop and in a solve, as `np.arange` and tables give them."""
    found = gradient(adjoint.RecursiveCheckpointAdjoint(np.int64(4)))
    assert_close(found, gradient(adjoint.RecursiveCheckpointAdjoint(4)), 0)
    loop = functools.partial(adjoint.checkpointed_while_loop, checkpoints=np.int32(3), max_steps=np.int64(9))
    final = lambda y: loop(lambda c: c[0] < 7, lambda c: (c[0] + 1, jnp.sin(c[1])), (0, y))[1]
    assert np.isfinite(jax.grad(final)(0.3))


@pytest.mark.parametrize("most", [2**31 - 2, 2**31 - 1, 2**31, 3 * 10**9, 2**32, 2**63])
def test_a_bound_may_be_larger_than_32_bits(most: int) -> None:
    """The loop makes the steps that it would make without."""
    loop = functools.partial(adjoint.checkpointed_while_loop, checkpoints=3, max_steps=most)
    final = lambda y: loop(lambda c: c[0] < 5, lambda c: (c[0] + 1, 1.1 * c[1]), (0, y))
    assert int(final(1.0)[0]) == 5
    assert_close(jax.grad(lambda y: final(y)[1])(1.0), 1.1**5)


def test_a_solve_may_have_a_bound_larger_than_32_bits() -> None:
    """Constant and adaptive, value and gradient."""
    for controller in (CONSTANT, ADAPTIVE):
        bounded, large = (
            gradient(adjoint.RecursiveCheckpointAdjoint(4), stepsize_controller=controller, max_steps=most)
            for most in (500, 2**31 + 7)
        )
        assert_close(large, bounded, 1e-9)


HOST = jax.ShapeDtypeStruct((), jnp.float64)
NOISE = diffrax.VirtualBrownianTree(0.0, 2.1, tol=1e-3, shape=(2,), key=jax.random.key(0))
UNUSUAL: dict[str, Any] = {
    "a callback of the time": lambda t, y, w: (
        smooth(t, y, w) + jax.pure_callback(lambda t: np.sin(np.asarray(t)), HOST, t, vmap_method="sequential")
    ),
    "a callback of an argument": lambda t, y, w: (
        jnp.sin(y) + jax.pure_callback(lambda w: np.cos(np.asarray(w)), HOST, w, vmap_method="sequential")
    ),
    "a Brownian path as forcing": lambda t, y, w: smooth(t, y, w) + NOISE.evaluate(t),
    "a while loop": lambda t, y, w: jax.lax.while_loop(lambda x: x < 1, lambda x: x + 0.3, t) + smooth(t, y, w),
    "a check": lambda t, y, w: eqx.error_if(smooth(t, y, w), jnp.any(y > 1e6), "too large"),
}


FAST = ("a callback of the time", "a Brownian path as forcing")


@pytest.mark.parametrize("controller", [CONSTANT, ADAPTIVE], ids=["constant", "adaptive"])
@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n in FAST else pytest.mark.slow) for n in UNUSUAL])
def test_a_field_may_hold_what_cannot_be_differentiated(name: str, controller: Any) -> None:
    """Where nobody differentiates it: a forward solve, and the gradient in the initial state."""
    options = {"field": UNUSUAL[name], "stepsize_controller": controller, "solver": diffrax.Heun(), "max_steps": 4000}
    assert_close(*both(lambda method: jax.jit(functools.partial(solved, method=method, **options))(START, 1.3)), 1e-9)
    slope = lambda method: jax.jit(jax.grad(lambda y: solved(y, 1.3, method, **options)[0]))(jnp.array(START))
    assert_close(*both(slope), 1e-9)


@pytest.mark.parametrize("inner", [diffrax.Heun(), diffrax.Euler()], ids=lambda s: type(s).__name__)
def test_a_half_solver_wraps_any_other(inner: Any) -> None:
    """It says that it is an instance of what it wraps, without being one."""
    options = {"solver": diffrax.HalfSolver(inner), "stepsize_controller": ADAPTIVE, "max_steps": 4000}
    assert_close(*both(functools.partial(gradient, **options)), 1e-8)


class Gaps(diffrax.AbstractStepSizeController):
    """A controller that leaves out a piece of time after every third step, and does not say so."""

    def wrap(self, direction: Any) -> Any:
        """Go forward only."""
        del direction
        return self

    def init(self, terms: Any, t0: Any, t1: Any, y0: Any, dt0: Any, args: Any, func: Any, error_order: Any) -> Any:
        """Begin with a step of the size given."""
        del terms, t1, y0, args, func, error_order
        return t0 + dt0, jnp.array(0)

    def adapt_step_size(
        self,
        t0: Any,
        t1: Any,
        y0: Any,
        y1_candidate: Any,
        args: Any,
        y_error: Any,
        error_order: Any,
        controller_state: Any,
    ) -> Any:
        """Begin the next step where this one ends, or a little later."""
        del y0, y1_candidate, args, y_error, error_order
        start = t1 + jnp.where(controller_state % 3 == 2, 0.01, 0.0)
        return True, start, start + (t1 - t0), False, controller_state + 1, diffrax.RESULTS.successful


@pytest.mark.parametrize("solver", [diffrax.Tsit5(), diffrax.Bosh3(), diffrax.Heun()], ids=lambda s: type(s).__name__)
def test_a_controller_may_leave_gaps(solver: Any) -> None:
    """The last slope of a step is then not the first of the next, and is kept."""
    assert_close(*both(functools.partial(gradient, solver=solver, stepsize_controller=Gaps())), 1e-11)


def test_slopes_are_computed_again_for_the_controllers_of_diffrax_alone() -> None:
    """A subclass may do anything."""

    class Own(diffrax.PIDController):
        pass

    clipped = diffrax.ClipStepSizeController(ADAPTIVE, jump_ts=jnp.array([0.5]))
    assert all(map(leaves_no_gap, (CONSTANT, ADAPTIVE, diffrax.StepTo(jnp.array([0.0, 1.0])), clipped)))
    own = Own(rtol=1e-3, atol=1e-3)
    assert not any(map(leaves_no_gap, (own, Gaps(), diffrax.ClipStepSizeController(own, step_ts=jnp.array([0.5])))))


CONDITIONS: dict[str, Callable[..., Any]] = {
    "the class of the solver": lambda t, y, args, *, solver, **more: (
        y[0] > (0.6 if type(solver) is diffrax.Tsit5 else 9)
    ),
    "its tableau": lambda t, y, args, *, solver, **more: y[0] > 0.1 * solver.tableau.num_stages,
    "the controller": lambda t, y, args, *, stepsize_controller, **more: (
        y[0] > (0.6 if isinstance(stepsize_controller, diffrax.PIDController) else 0.8)
    ),
    "the terms": lambda t, y, args, *, terms, **more: terms.vf(t, y, args)[0] < 1.1,
}


@pytest.mark.parametrize("controller", [CONSTANT, ADAPTIVE], ids=["constant", "adaptive"])
@pytest.mark.parametrize("name", CONDITIONS)
def test_a_condition_is_shown_what_the_user_asked_for(name: str, controller: Any) -> None:
    """The solve ends where it does with Diffrax's adjoint, with the same gradient; a root is found there too."""
    condition = CONDITIONS[name]
    run = functools.partial(gradient, stepsize_controller=controller, event=diffrax.Event(condition))
    found, expected = both(run)
    assert expected[0][1][-1] < 2.0
    assert_close(found, expected, 1e-8)


def test_an_event_with_a_root_is_found_under_a_half_solver() -> None:
    """Time and gradient are those of Diffrax's adjoint."""
    event = diffrax.Event(lambda t, y, args, **more: y[0] - 0.9, optx.Newton(1e-8, 1e-8))
    options = {"solver": diffrax.HalfSolver(diffrax.Tsit5()), "stepsize_controller": ADAPTIVE, "event": event}
    assert_close(*both(functools.partial(gradient, **options)), 1e-8)


class Seen:
    """The values that callbacks saw, by where they stand."""

    def __init__(self) -> None:
        """Have seen nothing."""
        self.values: dict[str, list[np.ndarray]] = {}

    def look(self, place: str, *values: Any) -> None:
        """Note values while the program runs."""
        jax.debug.callback(functools.partial(self._note, place), *values)

    def _note(self, place: str, *values: Any) -> None:
        self.values.setdefault(place, []).append(np.concatenate([np.ravel(x) for x in values]))


def strangers(seen: list[np.ndarray], there: list[np.ndarray]) -> list[np.ndarray]:
    """List what was seen that is not there too, to rounding: a callback's thread may not know that x64 is enabled."""
    return [x for x in seen if np.min(np.max(np.abs(np.stack(there) - x), axis=1)) > 1e-6]


def watched(method: Any, options: dict[str, Any]) -> tuple[Any, dict[str, list[np.ndarray]]]:
    """Differentiate a solve whose functions all look at what they are given."""
    seen = Seen()

    def field(t: Any, y: Any, rate: Any) -> Any:
        seen.look("field", t, y)
        return smooth(t, y, rate)

    def condition(t: Any, y: Any, args: Any, **more: Any) -> Any:
        seen.look("condition", t, y)
        return y[0] - 1.5

    def saved(t: Any, y: Any, args: Any) -> Any:
        seen.look("saved", t, y)
        return 2 * y

    asked = {name: value(condition, saved) if callable(value) else value for name, value in options.items()}
    found = gradient(method, field=field, **asked)
    jax.block_until_ready(found)
    jax.effects_barrier()
    return found, seen.values


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"stepsize_controller": ADAPTIVE},
        {"stepsize_controller": ADAPTIVE, "event": lambda condition, saved: diffrax.Event(condition)},
        {"event": lambda condition, saved: diffrax.Event(condition)},
        {"saveat": lambda condition, saved: diffrax.SaveAt(ts=jnp.linspace(0, 2, 5), fn=saved)},
        {
            "stepsize_controller": ADAPTIVE,
            "saveat": lambda condition, saved: diffrax.SaveAt(steps=True, fn=saved),
            "max_steps": 50,
        },
    ],
    ids=["constant", "adaptive", "adaptive, event", "event", "saved times", "adaptive, saved steps"],
)
def test_functions_of_the_user_see_no_value_that_never_was(options: dict[str, Any]) -> None:
    """Forward and backward, what they are given is among what they are given with Diffrax's adjoint."""
    (found, seen), (expected, there) = both(functools.partial(watched, options=options))
    assert_close(found, expected, 1e-8)
    assert seen.keys() == there.keys()
    assert {place: strangers(values, there[place]) for place, values in seen.items()} == {place: [] for place in seen}


def observed(loop: Any, body: Any, look: Callable[[Seen], Any]) -> tuple[Any, Any]:
    """Differentiate a loop whose body looks at a leaf that no derivative reads."""
    seen = Seen()
    run = lambda x: loop(lambda c: c[0] < 9, body(seen), (0, x, 1.0), checkpoints=2, max_steps=16)[1]
    slope = jax.block_until_ready(jax.jit(jax.grad(run))(0.3))
    jax.effects_barrier()
    return slope, look(seen)


def looking(seen: Seen) -> Any:
    """A callback on the leaf."""

    def body(c: Any) -> Any:
        seen.look("leaf", c[2])
        return c[0] + 1, jnp.sin(c[1]), c[2] * 2.0

    return body


def looking_inside(seen: Seen) -> Any:
    """A callback in a while loop that goes on for as long as the leaf says: with a leaf of 0 it would never end."""

    def body(c: Any) -> Any:
        def again(left: Any) -> Any:
            seen.look("leaf", left)
            return left + c[2]

        jax.lax.while_loop(lambda left: left < 2 * c[2], again, 0.0)
        return c[0] + 1, jnp.sin(c[1]), c[2] * 2.0

    return body


def checking(seen: Seen) -> Any:
    """A check on the leaf, and a division by it."""

    def body(c: Any) -> Any:
        other = eqx.error_if(1.0 / c[2], c[2] < 0.5, "a value that never was")
        seen.look("leaf", other)
        return c[0] + 1, jnp.sin(c[1]), c[2] * 2.0

    return body


@pytest.mark.parametrize("body", [looking, looking_inside, checking], ids=lambda body: body.__name__)
def test_a_leaf_that_no_derivative_reads_has_its_value_in_the_backward_pass(body: Any) -> None:
    """It is kept and replayed where something with an effect reads it."""
    theirs = functools.partial(eqxi.while_loop, kind="checkpointed")
    (slope, seen), (expected, there) = (
        observed(loop, body, lambda seen: seen.values["leaf"]) for loop in (adjoint.checkpointed_while_loop, theirs)
    )
    assert_close(slope, expected, 1e-12)
    assert strangers(seen, there) == []


@pytest.mark.skipif(jax.__version_info__ < (0, 11), reason="jax 0.10 cannot check for leaks in any solve of Diffrax")
@pytest.mark.parametrize("solver", [diffrax.Tsit5(), diffrax.Bosh3(), diffrax.Heun()], ids=lambda s: type(s).__name__)
def test_no_tracer_outlives_its_trace(solver: Any) -> None:
    """Of an adaptive gradient; Diffrax's own adjoint leaks some."""
    with jax.checking_leaks():
        jax.grad(lambda y: solved(y, 1.3, adjoint.RecursiveCheckpointAdjoint(3), solver=solver)[0])(jnp.array(START))
        found = jax.grad(
            lambda y: solved(
                y, 1.3, adjoint.RecursiveCheckpointAdjoint(3), solver=solver, stepsize_controller=ADAPTIVE,
                max_steps=4000,
            )[0]
        )(jnp.array(START))  # fmt: skip
    assert np.all(np.isfinite(found))
