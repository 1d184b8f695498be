"""The adjoint for Diffrax: its own solve, driven by our loop."""

import functools
from typing import Any

import diffrax
import equinox as eqx
import jax.lax as lax
import jax.numpy as jnp
import jax.tree_util as jtu
from jaxtyping import Array, Int

from ._compat import forward_only_loop, nondifferentiable_backward, unvmap_any
from ._compat_diffrax import solve_loop, solve_progress, time_step
from ._loop import checkpointed_loop, checkpointed_while_loop
from ._placement import INT, NEVER
from ._program import Derived
from ._stages import written_out


class RecursiveCheckpointAdjoint(diffrax.AbstractAdjoint):
    """Differentiate a solve through its own steps, holding a fixed number of its states and recomputing the others.

    Stands in for `diffrax.RecursiveCheckpointAdjoint`: the same solvers, `SaveAt`, events, progress meters and SDEs,
    the same gradients; only the schedule, the memory and the time differ. Pass it as `diffrax.diffeqsolve(...,
    adjoint=...)`.

    Attributes:
        checkpoints: states held at once, the initial state included, at least 1. None:
            `default_checkpoints(max_steps)`, about sqrt(2 max_steps).
        expected_steps: a prediction of the number of steps that the backward pass will visit, an int or a traced
            integer scalar (a new value is no new compile). It never changes the result. None: for constant steps it is
            computed from t0, t1 and dt0 while the program runs; otherwise it is estimated as the solve goes on.

    Raises:
        ValueError: on solving, for `checkpoints` below 1, and for a term with an `UnsafeBrownianPath`, whose noise
            cannot be evaluated twice.
        RuntimeError: on differentiating, if both `checkpoints` and `diffeqsolve(..., max_steps=...)` are None.
        TypeError: on differentiating in forward mode.
    """

    checkpoints: int | None = None
    expected_steps: int | Int[Array, ""] | None = None

    def loop(
        self,
        *,
        terms: Any,
        saveat: Any,
        init_state: Any,
        max_steps: int | None,
        throw: bool,
        passed_solver_state: bool,
        passed_controller_state: bool,
        **kwargs: Any,
    ) -> Any:
        """Run the solve; called by `diffrax.diffeqsolve`."""
        del throw, passed_controller_state
        if _has_unsafe_path(terms):
            raise ValueError(
                "`adjoint=RecursiveCheckpointAdjoint()` does not support `UnsafeBrownianPath`, whose noise cannot be "
                "evaluated "
                "a second time. Use `VirtualBrownianTree`, or `adjoint=diffrax.ForwardMode()`."
            )
        written = written_out(kwargs["solver"], terms, kwargs["t0"], init_state.y, kwargs["args"])
        passed_state = init_state.solver_state
        if written is not None:
            kwargs["solver"] = written
            init_state = _with_slope(written, terms, init_state, kwargs, passed_solver_state)
        run = functools.partial(
            solve_loop, self, terms=terms, saveat=saveat, init_state=init_state, max_steps=max_steps, **kwargs
        )
        if self.checkpoints is None and max_steps is None:
            final_state, stats = run(inner_while_loop=forward_only_loop, outer_while_loop=forward_only_loop)
            message = (
                "Cannot reverse-mode autodifferentiate when using "
                "`diffeqsolve(..., max_steps=None, adjoint=RecursiveCheckpointAdjoint(checkpoints=None))`: JAX needs "
                "to know "
                "how much memory to allocate for the backward pass. Either bound the number of steps, "
                "`diffeqsolve(..., max_steps=...)`, or choose the number of checkpoints, "
                "`RecursiveCheckpointAdjoint(checkpoints=...)`."
            )
            return nondifferentiable_backward(final_state, msg=message, symbolic=True), stats
        expected, exact = self.expected_steps, False
        if expected is None:
            expected = _constant_steps(kwargs["stepsize_controller"], kwargs["t1"], init_state)
            exact = expected is not None and kwargs["event"] is None
        derived = None
        if written is not None and written.fsal and not passed_solver_state:
            derived = Derived(lambda state: state.solver_state, functools.partial(_slope, terms, kwargs["args"]))
        predict = functools.partial(_estimate, kwargs["t0"], kwargs["t1"]) if expected is None else None

        def outer(cond_fun, body_fun, init_val, *, max_steps, buffers):
            return checkpointed_loop(
                cond_fun,
                body_fun,
                init_val,
                limits=(self.checkpoints, max_steps, expected),
                buffers=buffers,
                exact=exact,
                predict=predict,
                derived=derived,
            )

        final_state, stats = run(inner_while_loop=checkpointed_while_loop, outer_while_loop=outer)
        if written is not None and written.fsal:
            first = passed_state[0] & (final_state.num_accepted_steps == 0)
            final_state = eqx.tree_at(lambda s: s.solver_state, final_state, (first, final_state.solver_state))
        return final_state, stats


def _with_slope(solver: Any, terms: Any, state: Any, kwargs: Any, passed: bool) -> Any:
    """Put the slope at the start where Diffrax has (first step?, last slope)."""
    if not solver.fsal:
        return state
    first, slope = state.solver_state
    if not passed:
        # A solve of no length makes no step: then nothing is evaluated, as with Diffrax.
        first = kwargs["t0"] < kwargs["t1"]
    slope = lax.cond(
        unvmap_any(first),
        lambda: jtu.tree_map(lambda new, old: jnp.where(first, new, old), _slope(terms, kwargs["args"], state), slope),
        lambda: slope,
    )
    return eqx.tree_at(lambda s: s.solver_state, state, slope)


def _slope(terms: Any, args: Any, state: Any) -> Any:
    """Evaluate the vector field where a solve's state stands: the first stage of the next step."""
    return terms.vf(time_step(state)[0], state.y, args)


def _has_unsafe_path(terms: Any) -> bool:
    leaves = jtu.tree_leaves(terms, is_leaf=lambda x: isinstance(x, diffrax.UnsafeBrownianPath))
    return any(isinstance(x, diffrax.UnsafeBrownianPath) for x in leaves)


def _estimate(t0: Any, t1: Any, state: Any) -> Any:
    """Estimate the steps of an adaptive solve from how far it has come and how large its steps are now; 0: cannot tell.

    Two estimates, by their geometric mean: the average so far, (t1 - t0) / (t - t0) times the steps made, which is
    right for step sizes that come and go, and the steps made plus (t1 - t) / dt, which follows a trend. Rejected steps
    are counted as often as they have been met.
    """
    made, accepted, time, step = solve_progress(state)
    passes = made.astype(jnp.float32)
    each = passes / jnp.maximum(accepted, 1).astype(jnp.float32)
    done, left = (time - t0).astype(jnp.float32), (t1 - time).astype(jnp.float32)
    average = passes * (done + left) / done
    # A step that has just collapsed, at a discontinuity say, tells little about the rest.
    trend = jnp.clip(passes + each * left / step.astype(jnp.float32), average / 2, average * 2)
    steps = lax.stop_gradient(jnp.sqrt(average * trend))
    known = (accepted >= 4) & jnp.isfinite(steps)
    return jnp.where(known, jnp.minimum(steps, NEVER // 4), 0).astype(INT)


def _constant_steps(controller: Any, t1: Any, init_state: Any) -> Any:
    """Compute the number of steps where the step size never changes; None where it may."""
    if isinstance(controller, diffrax.StepTo):
        return controller.ts.shape[0] - 1
    if type(controller) is not diffrax.ConstantStepSize:
        return None
    start, step = time_step(init_state)
    steps = lax.stop_gradient((t1 - start) / step)
    # Times are summed in floating point, so the count may be off by about 1e-4 of itself: rather a little too large,
    # which costs nothing, than one too small. A solve of no length has step 0.
    steps = jnp.where(jnp.isfinite(steps), jnp.ceil(steps - 1e-3), 0)
    counted = jnp.minimum(steps, NEVER // 2).astype(INT)
    return counted + (counted >> 14)
