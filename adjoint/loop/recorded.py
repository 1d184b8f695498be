"""A loop whose backward pass visits only some of its passes, through another body.

An adaptive solve makes passes that are rejected, and spends part of every pass on error estimates and on choosing the
next step. Once it has run, none of that matters: the accepted steps with their times are the solution. So the forward
sweep records what each visited step began with, places checkpoints by visited steps, and the backward sweep replays
and transposes a body of its own, which reads the record (`adjoint.solve.accepted` makes it from Diffrax's).

The gradient is the same only where what is recorded is a constant of differentiation. That is decided when the loop is
differentiated, from its tangents (`_obstacle`); where it is not, the loop is differentiated as any other. So is a loop
under `jax.vmap`: its lanes accept at different passes, so their states at one visited step never exist together.
"""

import dataclasses
import functools
import logging
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.lax as lax
import jax.numpy as jnp

from ..compat import Primitive, ad, batching, call, let_checks_out, linearize_knowingly, mlir
from ..tiers.tiers import sizes_of
from ..traced.analysis import Flags, pick, scatter
from ..traced.select import select_if_batched
from . import sweeps
from . import windows as windowed
from .checks import checked, without_checks
from .forward import Linear, Pushed, pushed_p
from .placement import INT
from .primitive import (
    abstract_loop,
    batch_loop,
    bind_loop,
    differentiate,
    linear_part,
    observed,
    run_loop,
    tangents_along,
)
from .program import Loop, Place, Program
from .tangents import once, show_advance, zero_tangent
from .tape import Flagged, needed, perturbed

logger = logging.getLogger(__name__)

recorded_p = Primitive("checkpointed_while_recorded")
recorded_p.multiple_results = True


class Recorded(NamedTuple):
    """The consts of the replay's body that the forward sweep gives, by their positions.

    `arrays` (max_steps,) hold the recorded leaves, entry by visited step; `entries` the number of visited steps;
    `done` and `end` what the solve's counter and its first time are at the end.
    """

    arrays: tuple[int, ...]
    entries: int
    done: int
    end: int


@dataclasses.dataclass(frozen=True, eq=False)
class Replay:
    """How a replay follows from its solve; the parameter of our primitive.

    `counter` is the solve's state leaf that counts the visited steps completed, `passes` that which counts all passes;
    `times` are those that say when a step is made, `leaves` those of them that are recorded.
    Of each carry leaf of the replay, `state` and `buffers` give the place in the solve's loop, None for the number of
    the visited step itself. `consts` says which consts of the replay's body come from the record.
    """

    program: Program
    counter: int
    passes: int
    times: tuple[int, ...]
    leaves: tuple[int, ...]
    state: tuple[Place | None, ...]
    buffers: tuple[Place | None, ...]
    consts: Recorded


class _Accepted(sweeps.Visited):
    """The visited passes of a solve, and the record of them."""

    def __init__(self, solve: Program, replay: Replay, stored: Flags, given: sweeps.Operands) -> None:
        """Visit what `replay` does; `given` are the replay's operands."""
        super().__init__(replay.program, stored)
        self._solve = solve
        self._replay = replay
        self._given = given

    def estimate(self, given: sweeps.Operands, state: Sequence[Any]) -> Any:
        """Predict by the replay's own function, which counts visited steps."""
        del given
        assert self.program.predict is not None
        whole = self._replayed(self.position(None, state), state)
        return call(self.program.predict, *self._given.predict_consts, *whole)[0]

    def record(self) -> list[Any]:
        """Return empty arrays, and no visited step."""
        assert self._solve.max_steps is not None
        avals = [self._solve.body.out_avals[leaf] for leaf in self._replay.leaves]
        return [*(jnp.zeros((self._solve.max_steps, *a.shape), a.dtype) for a in avals), INT(0)]

    def note(self, record: list[Any], before: Sequence[Any], after: Sequence[Any]) -> list[Any]:
        """Write what the pass began with; a pass that follows a rejected one writes over it.

        Under vmap of grad a lane that has finished makes no pass while others do, and keeps its record.
        """
        position = self.position(None, before)
        passed = before[self._replay.passes] != after[self._replay.passes]
        arrays = []
        for array, leaf in zip(record[:-1], self._replay.leaves, strict=True):
            there = lax.dynamic_index_in_dim(array, position, 0, keepdims=False)
            value = select_if_batched(passed, before[leaf], there)
            arrays.append(lax.dynamic_update_index_in_dim(array, value, position, 0))
        return [*arrays, select_if_batched(passed, position + 1, record[-1])]

    def position(self, step: Any, state: Sequence[Any]) -> Any:
        """Return the number of visited steps completed."""
        del step
        return state[self._replay.counter].astype(INT)

    def count(self, step: Any, record: list[Any]) -> Any:
        """Return the number of entries; the last may be of a pass that was rejected."""
        del step
        return record[-1]

    def held(self, position: Any, state: Sequence[Any]) -> list[Any]:
        """Pick from the replay's state."""
        return pick(self._replayed(position, state), self.stored)

    def _replayed(self, position: Any, state: Sequence[Any]) -> list[Any]:
        """Return the state that the replay has where the solve has `state`."""
        return [
            position if place is None else state[place.index] if place.kind == "state" else first
            for place, first in zip(self._replay.state, self._given.state, strict=True)
        ]


def bind_recorded(solve: Loop, replayed: Loop, replay: Replay) -> Any:
    """Run a solve that is differentiated through its replay where that gives the same gradient.

    Args:
        solve: the loop.
        replayed: the loop over visited steps.
        replay: how it follows from `solve`.

    Returns:
        The final carry of `solve`.
    """
    if observed(solve):
        return bind_loop(solve)
    return solve.result(recorded_p.bind(*solve.operands, *replayed.operands, program=solve.program, replay=replay))


def _cut(values: Sequence[Any], program: Program) -> tuple[Sequence[Any], Sequence[Any]]:
    """Cut operands into those of the solve and those of its replay."""
    count = sum(program.sizes)
    return values[:count], values[count:]


def _run(*args: Any, program: Program, replay: Replay) -> list[Any]:
    del replay
    return run_loop(*_cut(args, program)[0], program=program)


def _abstract(*avals: Any, program: Program, replay: Replay) -> tuple[list[Any], Any]:
    del replay
    return abstract_loop(*_cut(avals, program)[0], program=program)


def _places(program: Program) -> list[Place]:
    """List the places of a loop's outputs, in their order."""
    return [*(Place("state", k) for k in range(program.state)), *(Place("buffer", k) for k in range(program.buffers))]


def _obstacle(program: Program, replay: Replay, moving: Flagged, moving_replay: Flagged) -> str | None:
    """Find why the replay's gradient may not be the solve's; None where it is.

    Args:
        program: the solve.
        replay: its replay.
        moving: what is perturbed as the solve runs.
        moving_replay: the same of the replay.
    """
    if any(moving.state[leaf] for leaf in replay.times):
        return "the times of its steps are differentiated"
    reached = {
        place for place, moves in zip((*replay.state, *replay.buffers), moving_replay.carry, strict=True) if moves
    }
    if any(moves and place not in reached for place, moves in zip(_places(program), moving.carry, strict=True)):
        return "what is differentiated is kept by its step size controller, or only by rejected steps"
    return None


_said: set[str] = set()


def _say_once(reason: str) -> None:
    if reason not in _said:
        _said.add(reason)
        logger.info("rejected steps of a solve are replayed too, since %s", reason)


def _jvp(
    primals: Sequence[Any], tangents: Sequence[Any], *, program: Program, replay: Replay
) -> tuple[list[Any], list[Any]]:
    solve_tangents, replay_tangents = _cut(tangents, program)
    along_solve, given = tangents_along(program, solve_tangents)
    moving = perturbed(program, given)
    if not any(moving.carry):
        outputs = recorded_p.bind(*primals, program=program, replay=replay)
        return outputs, [zero_tangent(x) for x in outputs]
    along, given_replay = tangents_along(replay.program, replay_tangents)
    moving_replay = perturbed(replay.program, given_replay)
    obstacle = _obstacle(program, replay, moving, moving_replay)
    if obstacle is not None:
        _say_once(obstacle)
        return differentiate(_cut(primals, program)[0], solve_tangents, program=program)
    how = Pushed(
        program=program,
        given=given,
        moving=moving,
        primitive=recorded_p,
        params={"program": program, "replay": replay},
        operands=len(primals),
        apart=functools.partial(_apart, program, replay, (moving, given_replay, moving_replay), sum(given.all)),
    )
    moved_in = [*pick(along_solve, given.all), *pick(along, given_replay.all)]
    outputs = pushed_p.bind(*primals, *moved_in, how=how)
    outputs, moved = outputs[: how.outputs], outputs[how.outputs :]
    return outputs, scatter(moved, moving.carry, [zero_tangent(x) for x in outputs])


def _apart(
    program: Program, replay: Replay, flags: tuple[Flagged, Flagged, Flagged], first: int, primals: Sequence[Any]
) -> tuple[list[Any], Linear]:
    """Run the solve and record it; returns the final carry, and what the replay's backward sweep is the transpose of.

    Args:
        program: the solve.
        replay: its replay.
        flags: what moves in the solve; which inputs of the replay have a tangent, and what moves in it.
        first: how many tangents the solve takes, before those of the replay.
        primals: operands of both.
    """
    moving, given_replay, moving_replay = flags
    solve_primals, replay_primals = _cut(primals, program)
    show_advance(program)
    keep = needed(replay.program, moving_replay)
    recorded = [program.body.out_avals[leaf] for leaf in replay.leaves]
    held = pick(replay.program.body.out_avals[: replay.program.state], keep.stored)
    step_bytes = sum(sizes_of([*held, *recorded]))
    program = program.with_room(step_bytes)
    replay = dataclasses.replace(replay, program=replay.program.with_room(step_bytes))
    given_operands = sweeps.operands_of(replay.program, replay_primals)
    visited = _Accepted(program, replay, keep.stored, given_operands)
    outputs, stored, record = windowed.run_storing(program, solve_primals, visited)
    outputs = once(outputs)
    state, buffers = outputs[: program.state], outputs[program.state :]
    consts = list(given_operands.body_consts)
    for index, array in zip(replay.consts.arrays, record[:-1], strict=True):
        consts[index] = array
    consts[replay.consts.entries] = record[-1]
    consts[replay.consts.done] = state[replay.counter]
    consts[replay.consts.end] = state[replay.times[0]]
    left = [
        buffers[place.index] if place is not None and place.kind == "buffer" else first_of_it
        for place, first_of_it in zip(replay.buffers, given_operands.buffers, strict=True)
    ]
    moved = pick([*replay.state, *replay.buffers], moving_replay.carry)
    order = [moved.index(place) for place in pick(_places(program), moving.carry)]
    kept = consts, stored, left
    flags_of_replay = given_replay, moving_replay, keep
    return outputs, linear_part(replay.program, kept, flags_of_replay, first=first, order=order)


def _batch(
    axis: Any, args: Sequence[Any], dims: Sequence[Any], *, program: Program, replay: Replay
) -> tuple[list[Any], list[Any]]:
    del replay
    return batch_loop(axis, _cut(args, program)[0], _cut(dims, program)[0], program=program)


recorded_p.def_impl(_run)
recorded_p.def_effectful_abstract_eval(_abstract)
mlir.register_lowering(recorded_p, mlir.lower_fun(_run, multiple_results=True), cacheable=False)
ad.primitive_jvps[recorded_p] = _jvp
linearize_knowingly(recorded_p)
batching.fancy_primitive_batchers[recorded_p] = _batch


def _check(*operands: Any, program: Program, replay: Replay, enabled: Any) -> tuple[list[Any], list[Any]]:
    of_solve, of_replay = _cut(operands, program)
    unchecked = dataclasses.replace(replay, program=without_checks(replay.program, enabled))

    def bind(*solve, program):
        return recorded_p.bind(*solve, *of_replay, program=program, replay=unchecked)

    return checked(bind, of_solve, program, enabled)


let_checks_out(recorded_p, _check)
