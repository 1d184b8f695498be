"""The adjoint for Diffrax: its own solve, driven by our loop."""

import functools
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.lax as lax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
from jaxtyping import Array, Int

from ..compat import forward_only_loop, nondifferentiable_backward, unvmap_any
from ..loop.loop import checkpointed_loop, checkpointed_while_loop
from ..loop.placement import INT, NEVER
from ..loop.program import Derived
from ..theory.limits import Count, asked_for
from ..tiers.tiers import TierName, tier_options
from .accepted import adapts, bind_accepted, fits, leaves_no_gap, shown
from .compat import solve_loop, solve_progress, time_step
from .noise import Remembering, points, remembers
from .stages import TapeName, WrittenOut, arrange, checked_tape

FEWEST_ACCEPTED = 4
"""With fewer accepted steps than this, a solve says nothing about how many will follow."""
NEAR = 8.0
"""From this share of the whole on (an eighth), a solve's step sizes are taken to come and go about their mean."""


GROWING = 0.5
"""Below this trend, step sizes are taken to grow in proportion to time."""


def _plain_integer(value: Any) -> Any:
    """Turn a NumPy integer into Python's, which `eqx.filter_jit` does not trace."""
    return int(value) if isinstance(value, np.integer) else value


class RecursiveCheckpointAdjoint(diffrax.RecursiveCheckpointAdjoint):
    """An adjoint that differentiates a solve through its own steps, holding a fixed number of its states.

    The other states are recomputed. Stands in for `diffrax.RecursiveCheckpointAdjoint`, whose subclass it is: the same
    solvers, `SaveAt`, events, progress meters and SDEs, the same gradients; only the schedule, the memory and the time
    differ. Pass it as `diffrax.diffeqsolve(..., adjoint=...)`.

    An adaptive solve replays and differentiates its accepted steps only, without error estimates and step size control,
    where their times are constants of differentiation: t0, t1 and dt0 are not differentiated, and the controller passes
    no derivative on to them (Diffrax's own do not). Every pass is replayed otherwise; under `jax.vmap`, where lanes
    accept at different passes; with `max_steps=None`; and where the record of the times exceeds both 2 KiB and an
    eighth of the checkpoints (one time for each of `max_steps`). The log says so once (INFO).

    Forward mode (`jax.jvp`, `jax.jacfwd`, `jax.linearize`) is one solve with tangents, as with `diffrax.ForwardMode`.
    Both nest, with at most one reverse pass among them; reverse over forward replays every pass. A solver whose stages
    stay in Diffrax's own loop (implicit ones, large vector fields) needs `scan_kind="bounded"` for it.

    Attributes:
        checkpoints: states held at once, the initial state included, at least 1; "all" for one at each of `max_steps`.
            None: `default_checkpoints(max_steps)`, about sqrt(2 max_steps), or every state where `max_steps` of them
            take at most 64 KiB.
        checkpoint_bytes: in the place of `checkpoints`, what all of them may take: bytes, or a text such as "2GiB"; see
            `adjoint.checkpointed_while_loop`.
        expected_steps: a prediction of the number of accepted steps, an int or a traced integer scalar (a new value is
            no new compile). It never changes the result. None: for constant steps it is computed from t0, t1 and dt0
            while the program runs; otherwise it is estimated as the solve goes on.
        tier: cut the solve into windows whose first states live in "host" memory (GPU and TPU) or in a file on "disk";
            None for none. See `adjoint.checkpointed_while_loop`, also for the following.
        windows: states that the tier may hold at once; this or `tier_bytes`.
        tier_bytes: bytes that the tier may hold at once.
        directory: where the file of `tier="disk"` lies.
        transfer_cost: seconds of handing over and fetching one state over those of one step.
        tape: what the one step that is being reversed keeps of the stages of an explicit Runge-Kutta method. It costs
            bytes once, not for each checkpoint. "keep": everything, each stage is evaluated once; "recompute": each
            stage's state, stages are evaluated twice; "auto": everything where that takes no more than about what
            Diffrax's adjoint takes. Gradients agree to rounding. Other methods have no choice.

    Raises:
        ValueError: on solving, for `checkpoints` below 1 or bytes for less than one state, for an unknown `tape`, for a
            tier that cannot be had, and for a term with an `UnsafeBrownianPath`, whose noise cannot be evaluated twice.
        RuntimeError: on differentiating, if both `checkpoints` and `diffeqsolve(..., max_steps=...)` are None.
        TypeError: on forward mode with a solver whose loop over its stages has none.
        NotImplementedError: with a tier, on `vmap` of `grad` of an adaptive solve, and as
            `adjoint.checkpointed_while_loop`.
    """

    checkpoints: Count | None = eqx.field(default=None, converter=_plain_integer)
    expected_steps: int | Int[Array, ""] | None = None
    tier: TierName | None = eqx.field(default=None, static=True)
    windows: int | None = eqx.field(default=None, static=True)
    tier_bytes: int | None = eqx.field(default=None, static=True)
    directory: str | None = eqx.field(default=None, static=True)
    transfer_cost: float = eqx.field(default=1.0, static=True)
    tape: TapeName = eqx.field(default="auto", static=True)
    checkpoint_bytes: int | str | None = eqx.field(default=None, static=True)

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
                "`adjoint=RecursiveCheckpointAdjoint()` does not support `UnsafeBrownianPath`. "
                "Its noise cannot be evaluated a second time. "
                "Use `VirtualBrownianTree`, or `adjoint=diffrax.ForwardMode()`."
            )
        own = {"solver": kwargs["solver"], "stepsize_controller": kwargs["stepsize_controller"]}
        kwargs["solver"], last_slope = arrange(
            kwargs["solver"], terms, kwargs["t0"], init_state.y, kwargs["args"], checked_tape(self.tape)
        )
        kwargs["event"] = shown(kwargs["event"], own)
        written = kwargs["solver"] if isinstance(kwargs["solver"], WrittenOut) else None
        passed_state = init_state.solver_state
        if written is not None:
            init_state = _with_slope(written, terms, init_state, kwargs, passed_solver_state)
        noisy = remembers(kwargs["solver"], terms, kwargs["stepsize_controller"])
        if noisy:
            kwargs["solver"] = Remembering(kwargs["solver"])
            init_state = _with_noise(terms, init_state, kwargs["t1"])
        run = functools.partial(
            solve_loop, self, terms=terms, saveat=saveat, init_state=init_state, max_steps=max_steps, **kwargs
        )
        asked = asked_for(self.checkpoints, self.checkpoint_bytes)
        if asked is None and max_steps is None:
            final_state, stats = run(inner_while_loop=forward_only_loop, outer_while_loop=forward_only_loop)
            message = (
                "Cannot reverse-mode autodifferentiate when using `diffeqsolve(..., max_steps=None, "
                "adjoint=RecursiveCheckpointAdjoint(checkpoints=None))`. "
                "JAX needs to know how much memory to allocate for the backward pass. "
                "Either bound the number of steps, `diffeqsolve(..., max_steps=...)`, "
                "or choose the number of checkpoints, `RecursiveCheckpointAdjoint(checkpoints=...)`."
            )
            return nondifferentiable_backward(final_state, msg=message, symbolic=True), stats
        expected, exact = self.expected_steps, False
        if expected is None:
            expected = _constant_steps(kwargs["stepsize_controller"], kwargs["t1"], init_state)
            exact = expected is not None and kwargs["event"] is None
        if passed_solver_state or not leaves_no_gap(kwargs["stepsize_controller"]):
            last_slope = None
        derived = _derived(terms, kwargs["args"], last_slope, noisy)
        windows = tier_options(self.tier, self.windows, self.tier_bytes, self.directory, self.transfer_cost)
        adaptive = adapts(kwargs["stepsize_controller"])
        accepted = functools.partial(_estimate, kwargs["t0"], kwargs["t1"], max_steps)
        predict = functools.partial(_passes, accepted, expected) if adaptive else None

        def outer(cond_fun, body_fun, init_val, *, max_steps, buffers):
            bind = None
            if fits(init_val, own["stepsize_controller"], asked, max_steps):
                bind = functools.partial(
                    bind_accepted,
                    state=init_val,
                    buffers=buffers,
                    solve={"adjoint": self, "terms": terms, "saveat": saveat, "max_steps": max_steps, **kwargs}
                    | {"inner_while_loop": checkpointed_while_loop},
                    predict=accepted if expected is None else None,
                    derived=derived,
                )
            return checkpointed_loop(
                cond_fun,
                body_fun,
                init_val,
                limits=(asked, max_steps, expected),
                buffers=buffers,
                exact=exact,
                predict=predict,
                derived=derived,
                windows=windows,
                bind=bind,
            )

        final_state, stats = run(inner_while_loop=checkpointed_while_loop, outer_while_loop=outer)
        if noisy:
            final_state = eqx.tree_at(_solver_state, final_state, final_state.solver_state[0], is_leaf=_is_none)
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


def _with_noise(terms: Any, state: Any, t1: Any) -> Any:
    """Put where the Brownian paths stand beside the solver's state."""
    start = state.tprev
    # A solve of no length makes no step: then no path is evaluated, as with Diffrax.
    blank = lambda: jtu.tree_map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(lambda: points(terms, start)))
    stand = lax.cond(unvmap_any(start < t1), lambda: points(terms, start), blank)
    return eqx.tree_at(_solver_state, state, (state.solver_state, stand), is_leaf=_is_none)


def _derived(terms: Any, args: Any, last_slope: Any, noisy: bool) -> Derived | None:
    """Return what checkpoints need not hold: the slope at a state's time, and where the noise stands."""
    if last_slope is None and not noisy:
        return None

    def select(state):
        own, stand = state.solver_state if noisy else (state.solver_state, None)
        return None if last_slope is None else last_slope(own), stand

    def rebuild(state):
        slope = None if last_slope is None else _slope(terms, args, state)
        return slope, points(terms, time_step(state)[0]) if noisy else None

    return Derived(select, rebuild)


def _solver_state(state: Any) -> Any:
    return state.solver_state


def _is_none(x: Any) -> bool:
    return x is None


def _slope(terms: Any, args: Any, state: Any) -> Any:
    """Evaluate the vector field where a solve's state stands: the first stage of the next step."""
    return terms.vf(time_step(state)[0], state.y, args)


def _has_unsafe_path(terms: Any) -> bool:
    leaves = jtu.tree_leaves(terms, is_leaf=lambda x: isinstance(x, diffrax.UnsafeBrownianPath))
    return any(isinstance(x, diffrax.UnsafeBrownianPath) for x in leaves)


def _estimate(t0: Any, t1: Any, max_steps: int | None, state: Any) -> Any:
    """Estimate the accepted steps of an adaptive solve from how far it has come and how large its steps are now.

    With x = (t1 - t0) / (t - t0), made steps m and trend q = (t - t0) / (m dt), which is below 1 where steps grow: near
    the end (x <= `NEAR`) the geometric mean of m x, right for step sizes that come and go, and of m (1 + (x - 1) q),
    which follows the trend. What lies beyond counts x^q, as step sizes that grow like a power of time make it, or
    1 + q log x where they grow in proportion to time (q < `GROWING`): steps that grow over many magnitudes, as of stiff
    problems, do not make a count of many magnitudes.

    Returns:
        int32 scalar, 0 where nothing is known yet.
    """
    _, accepted, time, step = solve_progress(state)
    known = (accepted >= FEWEST_ACCEPTED) & (time > t0) & (step > 0)
    # Nothing is divided by zero, for `jax.experimental.checkify` would report it.
    made, done, step = (jnp.where(known, x, 1).astype(jnp.float32) for x in (accepted, time - t0, step))
    whole = (t1 - t0).astype(jnp.float32) / done
    near = jnp.minimum(whole, NEAR)
    trend = done / (made * step)
    # A step that has just collapsed, at a discontinuity say, says little about the rest.
    followed = jnp.clip(1 + (near - 1) * trend, near / 2, near * 2)
    far = whole / near
    beyond = jnp.where(trend < GROWING, 1 + trend * jnp.log(far), far ** jnp.minimum(trend, 1))
    steps = lax.stop_gradient(made * jnp.sqrt(near * followed) * beyond)
    most = NEVER // 8 if max_steps is None else min(max_steps, NEVER // 8)
    return jnp.where(known & jnp.isfinite(steps), jnp.minimum(steps, most), 0).astype(INT)


def _passes(estimate: Any, expected: Any, state: Any) -> Any:
    """Estimate all passes of an adaptive solve: rejected ones come as often as they have so far; 0: not known yet."""
    passes, accepted, _, _ = solve_progress(state)
    steps = jnp.asarray(estimate(state) if expected is None else expected, jnp.float32)
    each = passes.astype(jnp.float32) / jnp.maximum(accepted, 1).astype(jnp.float32)
    scaled = jnp.minimum(lax.stop_gradient(steps) * each, NEVER // 4)
    return jnp.where(accepted >= FEWEST_ACCEPTED, scaled, 0).astype(INT)


def _constant_steps(controller: Any, t1: Any, init_state: Any) -> Any:
    """Compute the number of steps where the step size never changes; None where it may."""
    if isinstance(controller, diffrax.StepTo):
        return controller.ts.shape[0] - 1
    if type(controller) is not diffrax.ConstantStepSize:
        return None
    start, step = time_step(init_state)
    # A solve of no length has step 0.
    steps = lax.stop_gradient((t1 - start) / jnp.where(step == 0, 1, step))
    # Times are summed in floating point, so the count may be off by about 1e-4 of itself: rather a little too large,
    # which costs nothing, than one too small.
    steps = jnp.where(jnp.isfinite(steps), jnp.ceil(steps - 1e-3), 0)
    counted = jnp.minimum(steps, NEVER // 2).astype(INT)
    return counted + (counted >> 14)
