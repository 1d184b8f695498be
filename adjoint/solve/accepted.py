"""The replay of an adaptive Diffrax solve: its accepted steps, with the times that they had.

The replay runs Diffrax's own step, saving and event code under a controller that reads the record: no error is
compared and no step size chosen, so the compiler drops what they need. Gradients are those of the whole solve, because
Diffrax differentiates neither acceptance nor the step size factor; where a controller does otherwise, or the times
themselves are differentiated, `adjoint.loop.recorded` finds out and replays every pass.

The last pass of a solve may be a rejected one, if an event or `max_steps` ends it. It is replayed as such.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import diffrax
import equinox as eqx
import jax.numpy as jnp
import jax.tree_util as jtu

from ..loop.placement import INT, NEVER
from ..loop.primitive import bind_loop
from ..loop.program import SMALL_BYTES, Derived, Loop, trace_loop
from ..loop.recorded import Recorded, Replay, bind_recorded
from ..loop.sweeps import index
from ..theory.limits import Room
from ..theory.schedule import default_checkpoints
from .compat import solve_loop

SMALLEST_RECORD_BYTES = 2 * 1024
"""A record of up to so many bytes is kept whatever the size of the state ..."""
LARGEST_RECORD_SHARE = 0.125
"""... a larger one where it is at most this share of the checkpoints' bytes."""


class _Times(NamedTuple):
    """The record as the replay's body reads it; see `adjoint.loop.recorded.Recorded`.

    `starts` and `jumps` are None where each step begins where the one before ended.
    """

    stops: Any
    starts: Any
    jumps: Any
    entries: Any
    accepted: Any
    end: Any


class _Recalled(diffrax.AbstractStepSizeController):
    """A controller that follows the record: its state is (keep the step?, where the next one begins)."""

    jumps: bool = eqx.field(static=True)

    def wrap(self, direction: Any) -> Any:
        """Return itself: recorded times have their direction already."""
        del direction
        return self

    def init(self, *args: Any, **kwargs: Any) -> Any:
        """Refuse: a replay begins where its solve did, so this is never called."""
        raise NotImplementedError

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
        """Accept or reject as recorded."""
        del t0, y0, y1_candidate, args, y_error, error_order
        keep, after = controller_state
        # The next step's end and jump are read from the record when it begins.
        return keep, after, t1, jnp.array(False) if self.jumps else False, controller_state, diffrax.RESULTS.successful


class _Body(Exception):
    """The body of a loop on its way out of the function that was about to run it."""


def _body_of(run: Callable[..., Any]) -> Callable[[Any], Any]:
    def caught(cond_fun, body_fun, init_val, **kwargs):
        del cond_fun, init_val, kwargs
        raise _Body(body_fun)

    try:
        run(outer_while_loop=caught)
    except _Body as found:
        return found.args[0]
    raise AssertionError("Diffrax did not run its loop")


def shown(event: Any, own: dict[str, Any]) -> Any:
    """Hand the conditions of an event the user's own arguments, where the solve was given others in their place.

    Args:
        event: a `diffrax.Event`, or None.
        own: the user's arguments of the conditions by name, `solver` and `stepsize_controller`.
    """
    if event is None:
        return None

    def seeing(condition: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *args, **kwargs: condition(*args, **{**kwargs, **own})

    conditions = jtu.tree_map(seeing, event.cond_fn, is_leaf=callable)
    return diffrax.Event(conditions, event.root_finder, event.direction)


GAPLESS = frozenset([diffrax.ConstantStepSize, diffrax.StepTo, diffrax.PIDController])
"""Controllers with which each step begins where the one before ended. Only Diffrax's own are known to be such."""


def leaves_no_gap(controller: Any) -> bool:
    """Return whether each step begins where the one before ended, or after a jump that the controller reports.

    Then the last slope of a step is the first of the next.
    """
    while type(controller) is diffrax.ClipStepSizeController:
        controller = controller.controller
    return type(controller) in GAPLESS


def _may_jump(state: Any, solve: dict[str, Any]) -> bool:
    """Return whether a step may follow a jump; where none does, Diffrax knows it while tracing, as the replay must."""

    def adapted(state: Any, args: Any) -> Any:
        order = solve["solver"].error_order(solve["terms"])
        return solve["stepsize_controller"].adapt_step_size(
            state.tprev, state.tnext, state.y, state.y, args, state.y, order, state.controller_state
        )

    try:
        _, _, _, made_jump, _, _ = eqx.filter_eval_shape(adapted, state, solve["args"])
    except Exception:  # a controller of the user's own, called out of turn: then a jump is recorded for every step
        return True
    return type(state.made_jump) is not bool or type(made_jump) is not bool


def adapts(controller: Any) -> bool:
    """Return whether a controller may reject a step: Diffrax's with fixed steps never do."""
    return not isinstance(controller, diffrax.ConstantStepSize | diffrax.StepTo)


def accepted_steps_from(state: Any, controller: Any, max_steps: int | None) -> int | None:
    """Compute from how many checkpoints on a solve is replayed by its accepted steps alone, under no `jax.vmap`.

    From there on the record of their times is small enough beside the checkpoints.

    Args:
        state: the solve's initial state, Diffrax's; shapes and dtypes are all that counts.
        controller: its step size controller.
        max_steps: bound on the passes, None for none.

    Returns:
        The count, at least 1; None for never: steps are fixed, or there is no place for a record.
    """
    if not adapts(controller) or max_steps is None or not 0 < max_steps < NEVER:
        return None
    times = max_steps * _entry_bytes(state, controller)
    held = _held_bytes(state)
    if times <= SMALLEST_RECORD_BYTES:
        return 1
    return math.ceil(times / (LARGEST_RECORD_SHARE * held)) if held else None


def fits(state: Any, controller: Any, asked: Any, max_steps: int | None) -> bool:
    """Return whether a solve may reject steps, and the record of the others is small enough beside the checkpoints.

    Args:
        state: the solve's initial state.
        controller: its step size controller.
        asked: how many states may be held (`adjoint.theory.limits.asked_for`).
        max_steps: bound on the passes, None for none: then there is no place for a record.
    """
    least = accepted_steps_from(state, controller, max_steps)
    if least is None or max_steps is None:
        return False
    if isinstance(asked, Room):
        return asked.room_bytes // max(_held_bytes(state), 1) >= least
    if asked is None:
        small = max_steps * (_held_bytes(state) + _entry_bytes(state, controller)) <= SMALL_BYTES
        return small or default_checkpoints(max_steps) >= least
    return asked == "all" or asked >= least


def _held_bytes(state: Any) -> int:
    return sum(jnp.size(x) * jnp.result_type(x).itemsize for x in jtu.tree_leaves(state.y))


def _entry_bytes(state: Any, controller: Any) -> int:
    """Return what the record takes for a pass: where the step ended, else where it began too, and whether it jumped."""
    time = jnp.result_type(state.tprev).itemsize
    return time if _continues(controller) else 2 * time + 1


def _continues(controller: Any) -> bool:
    """Return whether each step is known to begin where the one before ended."""
    return type(controller) is diffrax.PIDController


def bind_accepted(
    loop: Loop,
    *,
    state: Any,
    buffers: Callable[[Any], Any],
    solve: dict[str, Any],
    predict: Callable[[Any], Any] | None,
    derived: Derived | None,
) -> Any:
    """Run a traced solve, replaying only its accepted steps where that gives the same gradient.

    Args:
        loop: the solve's loop, whose carry is `state`.
        state: the state that the loop begins with.
        buffers: the nodes of a state that are write-only.
        solve: what `solve_loop` was given.
        predict: state to the accepted steps it now looks as if the solve will make, int32; None for never.
        derived: leaves of the state that checkpoints need not hold.

    Returns:
        The final state.
    """
    at = jtu.tree_unflatten(jtu.tree_structure(state), loop.places())
    if {at.tprev.kind, at.tnext.kind, at.num_accepted_steps.kind, at.num_steps.kind} != {"state"}:
        return bind_loop(loop)  # no such solver is known
    gaps = not _continues(solve["stepsize_controller"])
    jumps = gaps and _may_jump(state, solve)
    program = loop.program
    max_steps = program.max_steps
    assert max_steps is not None
    time = jnp.zeros((max_steps,), jnp.result_type(state.tprev))
    times = _Times(
        time,
        time if gaps else None,
        jnp.zeros((max_steps,), bool) if jumps else None,
        INT(0),
        jnp.array(state.num_accepted_steps),
        jnp.array(state.tprev),
    )
    recalled = {**solve, "stepsize_controller": _Recalled(jumps), "progress_meter": diffrax.NoProgressMeter()}

    def replaying(state: Any, instruction: tuple[Any, Any] | None = None) -> Any:
        """Put what `_Recalled` reads in the place of the controller's state, and no progress meter's."""
        return eqx.tree_at(
            lambda s: (s.controller_state, s.progress_meter_state),
            state,
            (instruction, None),
            is_leaf=lambda x: x is None,
        )

    first = replaying(state, (jnp.array(True), jnp.array(state.tprev)))
    step = _body_of(functools.partial(solve_loop, **{**recalled, "init_state": first}))

    def body(carry):
        k, state, times = carry
        keep, stop = k < times.accepted.astype(INT), index(times.stops, k)
        if gaps:
            following = index(times.starts, jnp.minimum(k + 1, max_steps - 1))
            after = jnp.where(k + 1 < times.entries, following, times.end)
            began = index(times.starts, k), stop, index(times.jumps, k) if jumps else state.made_jump
            state = eqx.tree_at(lambda s: (s.tprev, s.tnext, s.made_jump), state, began)
        else:
            after = jnp.where(keep, stop, state.tprev)
            state = eqx.tree_at(lambda s: s.tnext, state, stop)
        state = step(replaying(state, (keep, after)))
        return k + 1, replaying(state), times

    replayed = trace_loop(
        lambda carry: carry[0] < carry[2].entries,
        body,
        (INT(0), replaying(state), times),
        buffers=lambda carry: buffers(carry[1]),
        predict=None if predict is None else lambda carry: predict(carry[1]),
        derived=None
        if derived is None
        else Derived(lambda carry: derived.select(carry[1]), lambda carry: derived.rebuild(carry[1])),
        limits=(program.checkpoints, max_steps, None),
        exact=False,
        chosen=program.chosen,
        windows=program.windows,
        checkpoint_bytes=program.checkpoint_bytes,
    )
    recorded = len(jtu.tree_leaves(times))
    partners = [None, *jtu.tree_leaves(replaying(at)), *[None] * recorded]
    there = replayed.places()
    assert all(place.kind == "fixed" for place in there[-recorded:])
    # Fixed leaves are the last of the body's consts.
    firsts = replayed.program.body_consts - sum(place.kind == "fixed" for place in there)
    record = [firsts + place.index for place in there[-recorded:]]
    jumped = [at.made_jump.index] if jumps else []
    replay = Replay(
        program=replayed.program,
        counter=at.num_accepted_steps.index,
        passes=at.num_steps.index,
        times=(at.tprev.index, at.tnext.index, *jumped),
        leaves=(at.tnext.index, *([at.tprev.index] if gaps else []), *jumped),
        state=tuple(mine for mine, place in zip(partners, there, strict=True) if place.kind == "state"),
        buffers=tuple(mine for mine, place in zip(partners, there, strict=True) if place.kind == "buffer"),
        consts=Recorded(tuple(record[:-3]), *record[-3:]),
    )
    return bind_recorded(loop, replayed, replay)
