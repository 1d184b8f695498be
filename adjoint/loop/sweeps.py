"""The forward loops as plain JAX: running, and running while placing checkpoints.

They are written for what XLA makes of them. Stored states live in one array per leaf, written in place and never
re-sorted (the newest checkpoints are the only ones ever taken back, so slots stay in the order of steps). A recomputed
step is the plain body. A state is stored by a loop of zero or one passes, not by a conditional, because XLA copies
what passes through a conditional and does not copy what passes through a loop.

Known inefficiency: slots are zeroed before they are used.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import jax.lax as lax
import jax.numpy as jnp

from ..compat import call
from ..traced.analysis import Flags, pick
from ..traced.places import rows
from . import placement as placing
from .placement import INT, NEVER, Aim
from .program import Program, groups

T = TypeVar("T")

update = lax.dynamic_update_index_in_dim


def index(xs: Any, place: Any) -> Any:
    """Return one entry of an array."""
    return lax.dynamic_index_in_dim(xs, place, 0, keepdims=False)


class Operands(NamedTuple):
    """The operands of a loop by group, as `Program.sizes`."""

    cond_consts: list[Any]
    body_consts: list[Any]
    predict_consts: list[Any]
    expected: Any
    state: list[Any]
    buffers: list[Any]


def operands_of(program: Program, args: Sequence[Any]) -> Operands:
    """Cut flat operands into their groups."""
    cond_consts, body_consts, predict_consts, (expected,), state, buffers = groups(args, program.sizes)
    # JAX may hand a rule Python scalars in the place of small constants.
    avals = program.body.out_avals
    carry = [jnp.asarray(x, a.dtype) for x, a in zip([*state, *buffers], avals, strict=True)]
    state, buffers = carry[: program.state], carry[program.state :]
    return Operands(cond_consts, body_consts, predict_consts, jnp.asarray(expected, INT), state, buffers)


class Stored(NamedTuple):
    """What the forward sweep leaves for the backward one.

    `count` is the number of steps taken, `top` the rank of the newest checkpoint, `steps` (checkpoints,) the step of
    each, `slots` the stored leaves, each (checkpoints, *leaf.shape). `tier` stands for what lies elsewhere, empty
    without windows (`adjoint.loop.windows`).
    """

    count: Any
    top: Any
    steps: Any
    slots: list[Any]
    tier: list[Any]


def running(program: Program, given: Operands, step: Any, state: Sequence[Any], buffers: Sequence[Any]) -> Any:
    """Return whether the loop makes another step."""
    (going,) = call(program.cond, *given.cond_consts, *state, *buffers)
    return going if program.max_steps is None else going & (step < program.max_steps)


def passes(program: Program, given: Operands, state: Sequence[Any], buffers: Sequence[Any]) -> tuple[list, list]:
    """Make one step; returns the state and buffers after it."""
    outputs = call(program.body, *given.body_consts, *state, *buffers)
    return outputs[: program.state], outputs[program.state :]


def run(program: Program, args: Sequence[Any]) -> tuple[Any, list[Any]]:
    """Run the loop without storing anything.

    Args:
        program: the loop.
        args: its operands.

    Returns:
        The number of steps, int32; final state and buffers.
    """
    given = operands_of(program, args)

    def cond(carry):
        return running(program, given, *carry)

    def body(carry):
        step, state, buffers = carry
        return step + 1, *passes(program, given, state, buffers)

    count, state, buffers = lax.while_loop(cond, body, (INT(0), given.state, given.buffers))
    return count, [*state, *buffers]


def empty_slots(program: Program, held: Sequence[Any]) -> list[Any]:
    """Return room for as many states as there are checkpoints, the first of them there: a solve may make no step."""
    return store([rows(x, program.checkpoints) for x in held], held, INT(0))


def store(slots: Sequence[Any], values: Sequence[Any], slot: Any) -> list[Any]:
    """Write one state into slots."""
    return [update(xs, x, slot, 0) for xs, x in zip(slots, values, strict=True)]


def load(slots: Sequence[Any], slot: Any) -> list[Any]:
    """Read one state from slots."""
    return [index(xs, slot) for xs in slots]


def store_if(pred: Any, arrays: list[Any], values: list[Any], slot: Any) -> list[Any]:
    """Write `values` into `arrays` at `slot` where `pred`."""
    return once_if(pred, lambda arrays: store(arrays, values, slot), arrays)


def once_if(pred: Any, fun: Callable[[T], T], carry: T) -> T:
    """Apply a function where `pred`: a loop of at most one pass, so that nothing is copied."""

    def once(carry):
        return jnp.zeros_like(carry[0]), fun(carry[1])

    return lax.while_loop(lambda carry: carry[0], once, (pred, carry))[1]


class Visited:
    """What the backward pass will visit of a loop, and what a checkpoint holds of it: here every pass, as it is.

    A subclass may leave passes out (`adjoint.loop.recorded`). It keeps a record, a list of arrays that each pass may
    write.
    """

    def __init__(self, program: Program, stored: Flags) -> None:
        """Visit every pass, and hold the flagged leaves of the state."""
        self.program = program
        self.stored = stored
        self.predicts = program.predict is not None

    def estimate(self, given: Operands, state: Sequence[Any]) -> Any:
        """Predict how many steps will be visited in all; only called where `predicts`."""
        assert self.program.predict is not None
        return call(self.program.predict, *given.predict_consts, *state)[0]

    def record(self) -> list[Any]:
        """Return the record before the first pass."""
        return []

    def note(self, record: list[Any], before: Sequence[Any], after: Sequence[Any]) -> list[Any]:
        """Write into the record what will be needed of a pass, from the states before and after it."""
        del before, after
        return record

    def position(self, step: Any, state: Sequence[Any]) -> Any:
        """Return which visited step a state stands at the beginning of, after `step` passes."""
        del state
        return step

    def count(self, step: Any, record: list[Any]) -> Any:
        """Return how many steps will be visited, after the last of `step` passes."""
        del record
        return step

    def held(self, position: Any, state: Sequence[Any]) -> list[Any]:
        """Return what a checkpoint holds of a state."""
        del position
        return pick(state, self.stored)


class Forward(NamedTuple):
    """A loop on its way: passes made, the record of them, state and buffers."""

    step: Any
    record: list[Any]
    state: Sequence[Any]
    buffers: Sequence[Any]


class _Storing(NamedTuple):
    """A forward sweep that places checkpoints.

    `aim` is what the placement aims at, `look` the position at which to predict again, `pending` whether the next
    position is to be stored, `steps` and `slots` what is held: the position of each checkpoint, and its state.
    """

    aim: Aim
    look: Any
    pending: Any
    steps: Any
    slots: list[Any]
    forward: Forward


def run_storing(program: Program, args: Sequence[Any], visited: Visited) -> tuple[list[Any], Stored, list[Any]]:
    """Run the loop and place checkpoints as it goes.

    Args:
        program: the loop.
        args: its operands.
        visited: which steps the backward pass will visit, and what a checkpoint holds.

    Returns:
        Final state and buffers; what was stored; the record.
    """
    given = operands_of(program, args)
    if program.stores_everything:
        return _run_storing_all(program, given, visited)
    checkpoints = program.checkpoints

    def body(carry):
        aim, look, pending, steps, slots, forward = carry
        slot = aim.top + pending.astype(INT)
        position = visited.position(forward.step, forward.state)
        held = visited.held(position, forward.state)
        steps, *slots = store_if(pending, [steps, *slots], [position, *held], slot)
        aim = _revise(program, given, visited, Aim(aim.target, slot), look, position, steps, forward.state)
        pause, pending = placing.following(aim, position, index(steps, aim.top), checkpoints)
        if visited.predicts:
            look = jnp.where(position >= look, placing.next_look(position, checkpoints), look)
            pause, pending = jnp.minimum(pause, look), pending & (pause <= look)
        return _Storing(aim, look, pending, steps, slots, advance(program, given, visited, pause, forward))

    aim = Aim(placing.first_target(expected_steps(program, given), checkpoints), INT(-1))
    steps = jnp.full((checkpoints,), NEVER, INT)
    slots = empty_slots(program, visited.held(INT(0), given.state))
    init = _Storing(aim, INT(0), jnp.array(True), steps, slots, beginning(given, visited))
    done = lax.while_loop(lambda carry: goes_on(program, given, carry.forward), body, init)
    count = visited.count(done.forward.step, done.forward.record)
    # Under vmap of grad a lane that has finished may have stored its last state while others went on.
    spent = index(done.steps, jnp.maximum(done.aim.top, 0)) >= count
    top = jnp.where(spent & (done.aim.top > 0), done.aim.top - 1, done.aim.top)
    final = [*done.forward.state, *done.forward.buffers]
    return final, Stored(count, top, done.steps, done.slots, []), done.forward.record


def beginning(given: Operands, visited: Visited) -> Forward:
    """Return a loop before its first pass."""
    return Forward(INT(0), visited.record(), given.state, given.buffers)


def goes_on(program: Program, given: Operands, forward: Forward) -> Any:
    """Return whether the loop makes another step."""
    return running(program, given, forward.step, forward.state, forward.buffers)


def expected_steps(program: Program, given: Operands) -> Any:
    """Return the prediction that a loop was given, at most its bound; 0 for none."""
    return given.expected if program.max_steps is None else jnp.minimum(given.expected, program.max_steps)


def advance(program: Program, given: Operands, visited: Visited, pause: Any, forward: Forward) -> Forward:
    """Make steps until the loop ends or stands at the position `pause`."""

    def ahead(forward):
        return (visited.position(forward.step, forward.state) < pause) & goes_on(program, given, forward)

    return lax.while_loop(ahead, lambda forward: _once(program, given, visited, forward), forward)


def _once(program: Program, given: Operands, visited: Visited, forward: Forward) -> Forward:
    after, buffers = passes(program, given, forward.state, forward.buffers)
    return Forward(forward.step + 1, visited.note(forward.record, forward.state, after), after, buffers)


def _revise(
    program: Program,
    given: Operands,
    visited: Visited,
    plan: Aim,
    look: Any,
    step: Any,
    steps: Any,
    state: Sequence[Any],
) -> Aim:
    """Move the target where it has been passed, or where the solve looks, from `look` on, longer or shorter."""
    if program.checkpoints == 1:
        # One checkpoint leaves no choice; an unreachable target saves the visits.
        return Aim(INT(NEVER), plan.top)
    target = jnp.where(step >= plan.target, placing.beyond(plan.target), plan.target)
    if program.exact:
        return Aim(target, plan.top)
    if visited.predicts:
        estimate = lax.cond(step >= look, lambda: visited.estimate(given, state), lambda: INT(0))
        target = placing.predicted(plan, estimate, step, program.checkpoints)
    return lax.cond(target != plan.target, lambda p: placing.retarget(p, target, step, steps), lambda p: p, plan)


def _run_storing_all(program: Program, given: Operands, visited: Visited) -> tuple[list[Any], Stored, list[Any]]:
    def body(carry):
        slots, forward = carry
        position = visited.position(forward.step, forward.state)
        slots = store(slots, visited.held(position, forward.state), position)
        return slots, _once(program, given, visited, forward)

    init = empty_slots(program, visited.held(INT(0), given.state)), beginning(given, visited)
    slots, done = lax.while_loop(lambda carry: goes_on(program, given, carry[1]), body, init)
    count = visited.count(done.step, done.record)
    stored = Stored(count, count - 1, jnp.arange(program.checkpoints, dtype=INT), slots, [])
    return [*done.state, *done.buffers], stored, done.record
