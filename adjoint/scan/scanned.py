"""A scan as a loop: rows of xs are read by its counter, rows of ys are written to buffers.

To the rooms below it is a `Program` like any other, whose closed-over values end with xs, whose state begins with the
counter, and whose buffers are ys. `Scanned` adds what follows from knowing the rows and the length: arrays of rows keep
their leading axis under `jax.vmap`; a reversed step reads and writes rows of cotangents, where a closed-over array that
is indexed would cost an array of its size at each step; and steps are taped in blocks (`adjoint.theory.blocks`).
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.lax as lax

from ..compat import Jaxpr, call, trace
from ..loop import sweeps
from ..loop.placement import INT
from ..loop.program import SMALL_BYTES, Program, groups
from ..loop.tape import Flagged, Needed, needed
from ..theory.blocks import divide
from ..tiers.tiers import TierOptions, sizes_of
from ..traced.analysis import Flags, pick, scatter
from ..traced.batching import batch_jaxpr, batched_outputs, with_lanes
from ..traced.places import batched_struct_of, rows, zeros
from .blocks import BlockTape, row, tape_bytes, with_row


class _Blocks(sweeps.Visited):
    """What the backward pass of a scan visits: its blocks."""

    def position(self, step: Any, state: Sequence[Any]) -> Any:
        """Return which block a state lies in, from the counter."""
        del step
        block = self.program.counted.block
        return state[0] if block == 1 else lax.div(state[0], INT(block))

    def count(self, step: Any, record: list[Any]) -> Any:
        """Return how many blocks there are."""
        del step, record
        return INT(self.program.counted.blocks)


@dataclasses.dataclass(frozen=True, eq=False)
class Scanned:
    """What is known of a scan.

    Attributes:
        step: takes closed-over values and rows, and the carry; returns the carry and rows of ys.
        rows: which of the closed-over values and rows are rows.
        length: steps, at least 1.
        reverse: whether it begins with the last row.
        unroll: as `jax.lax.scan` takes it.
        block: steps that are taped together.
    """

    step: Jaxpr
    rows: Flags
    length: int
    reverse: bool
    unroll: int
    block: int = 1

    @property
    def blocks(self) -> int:
        """The number of blocks."""
        return -(-self.length // self.block)

    @property
    def carry(self) -> int:
        """How many leaves the carry has."""
        return len(self.step.in_avals) - len(self.rows)

    def place(self, counter: Any) -> Any:
        """Return which row a step reads and writes."""
        return self.length - 1 - counter if self.reverse else counter

    def inputs(self, consts: Sequence[Any], place: Any, carry: Sequence[Any]) -> list[Any]:
        """Return the inputs of a step that reads the rows at `place`."""
        return [*(row(x, place) if of_rows else x for x, of_rows in zip(consts, self.rows, strict=True)), *carry]

    def program(
        self,
        *,
        checkpoints: int,
        checkpoint_bytes: int | None,
        chosen: bool,
        nested: bool,
        windows: TierOptions | None,
    ) -> Program:
        """Return the scan as a loop whose operands are closed-over values with xs, the length, 0, the carry and ys."""
        consts, carry = len(self.rows), self.carry
        of_consts, of_carry = groups(self.step.in_avals, (consts, carry))
        of_ys = self.step.out_avals[carry:]

        def body(*args):
            closed_over, (counter,), state, ys = groups(args, (consts, 1, carry, len(of_ys)))
            place = self.place(counter)
            outputs = call(self.step, *self.inputs(closed_over, place, state))
            written = [with_row(y, value, place) for y, value in zip(ys, outputs[carry:], strict=True)]
            return [counter + 1, *outputs[:carry], *written]

        given = [self._stacked(a) if of_rows else a for a, of_rows in zip(of_consts, self.rows, strict=True)]
        after = [jax.ShapeDtypeStruct((), INT), *of_carry, *map(self._stacked, of_ys)]
        return Program(
            cond=trace(lambda counter, *_: [counter < self.length], after),
            body=trace(body, [*given, *after]),
            predict=None,
            rebuild=None,
            cond_consts=0,
            body_consts=consts,
            predict_consts=0,
            state=1 + carry,
            buffers=len(of_ys),
            derived=(False,) * (1 + carry),
            checkpoints=checkpoints,
            checkpoint_bytes=checkpoint_bytes,
            chosen=chosen,
            max_steps=self.length,
            exact=True,
            nested=nested,
            windows=windows,
            counted=self,
        )

    def operands(self, given: Sequence[Any]) -> list[Any]:
        """Return the operands of the loop, from closed-over values, xs and the carry."""
        consts, carry = groups(given, (len(self.rows), self.carry))
        ys = [rows(zeros(a), self.length) for a in self.step.out_avals[self.carry :]]
        return [*consts, INT(self.length), INT(0), *carry, *ys]

    def _stacked(self, aval: Any) -> Any:
        return batched_struct_of(aval, self.length)

    def run(self, program: Program, args: Sequence[Any]) -> list[Any]:
        """Run the scan; as `adjoint.loop.counted.Counted`, like all that follow."""
        given = sweeps.operands_of(program, args)

        def step(state, xs):
            consts = scatter(xs, self.rows, given.body_consts)
            outputs = call(self.step, *consts, *state)
            return outputs[: self.carry], outputs[self.carry :]

        xs = pick(given.body_consts, self.rows)
        state, ys = lax.scan(step, given.state[1:], xs, self.length, reverse=self.reverse, unroll=self.unroll)
        return [INT(self.length), *state, *ys]

    def lanes_at(self, program: Program) -> tuple[list[int], list[int]]:
        """Leave rows first, so that each is one piece of memory."""
        carry = [*[0] * program.state, *[1] * program.buffers]
        return [*map(int, self.rows), 0, *carry], carry

    def batched(
        self, axis: Any, args: Sequence[Any], flags: Sequence[bool], program: Program
    ) -> tuple[list[Any], Program, list[bool]]:
        """Map the step; what no lane changes on its own stays unbatched."""
        sizes = len(self.rows), 2, self.carry, program.buffers
        consts_f, counting_f, carry_f, ys_f = groups(flags, sizes)
        consts, counting, carry, ys = groups(args, sizes)
        now = list(carry_f)
        while True:
            outputs_f = batched_outputs(self.step, axis, [*consts_f, *carry_f])
            wider = [a or b for a, b in zip(carry_f, outputs_f[: self.carry], strict=True)]
            if wider == carry_f:
                break
            carry_f = wider
        wide_f = [a or b for a, b in zip(ys_f, outputs_f[self.carry :], strict=True)]
        step = batch_jaxpr(self.step, axis, [*consts_f, *carry_f], [*carry_f, *wide_f])
        batched = dataclasses.replace(self, step=step).program(
            checkpoints=program.checkpoints,
            checkpoint_bytes=program.checkpoint_bytes,
            chosen=program.chosen,
            nested=program.nested,
            windows=program.windows,
        )
        # Every lane has the same length.
        counting = [x[0] if f else x for x, f in zip(counting, counting_f, strict=True)]
        carry = [
            with_lanes(x, 0, axis.size) if f and not had else x for x, f, had in zip(carry, carry_f, now, strict=True)
        ]
        ys = [with_lanes(x, 1, axis.size) if f and not had else x for x, f, had in zip(ys, wide_f, ys_f, strict=True)]
        return [*consts, *counting, *carry, *ys], batched, [False, *carry_f, *wide_f]

    def taken(self, given: Flagged) -> Flagged:
        """Clear the flags of ys: every row is written over what was there."""
        return dataclasses.replace(given, buffers=(False,) * len(given.buffers))

    def with_tangents(self, moving: Flagged) -> "Scanned":
        """Push the step forward; tangents stand behind what they are of."""
        consts, carry = self.rows, self.carry
        of_consts, of_carry = groups(self.step.in_avals, (len(consts), carry))
        inputs = [of_consts, pick(of_consts, moving.consts), of_carry, pick(of_carry, moving.state[1:])]
        moves = moving.consts + moving.state[1:]

        def step(*args):
            closed, of_closed, state, of_state = groups(args, [*map(len, inputs)])
            fixed = [*closed, *state]

            def along(*moving):
                return call(self.step, *scatter(moving, moves, fixed))

            outputs, found = jax.jvp(along, tuple(pick(fixed, moves)), (*of_closed, *of_state))
            after, ys = outputs[:carry], outputs[carry:]
            return [*after, *pick(found[:carry], moving.state[1:]), *ys, *pick(found[carry:], moving.buffers)]

        traced = trace(step, [x for group in inputs for x in group])
        return dataclasses.replace(self, step=traced, rows=(*consts, *pick(consts, moving.consts)))

    def keeps_tapes(self, program: Program, moving: Flagged) -> bool:
        """Return whether all tapes take no more than what may be held, or every step has a checkpoint."""
        if program.windows is not None:
            return False
        if program.checkpoint_bytes is None and program.chosen and program.checkpoints >= self.length:
            return True
        keep = needed(program, moving)
        state = state_bytes(program, keep)
        try:
            tapes = self.length * tape_bytes(program, moving, with_counter(keep))
        except Exception:  # what cannot be transposed may be pushed forward all the same
            return False
        if program.checkpoint_bytes is not None:
            return tapes <= program.checkpoint_bytes
        if not program.chosen and max(tapes, self.length * state) <= SMALL_BYTES:
            return True
        return program.checkpoints >= self.length or tapes <= program.checkpoints * state

    def arrange(
        self, program: Program, primals: Sequence[Any], moving: Flagged, keep: Needed
    ) -> tuple[Program, list[Any], sweeps.Visited, Needed]:
        """Divide what may be held between states and tapes."""
        state = state_bytes(program, keep)
        keep = with_counter(keep)
        program = program.with_room(state)
        if program.windows is None:
            tape = tape_bytes(program, moving, keep) / max(state, 1)
            block, held = divide(self.length, program.checkpoints, tape)
            scanned = dataclasses.replace(self, block=block)
            program = dataclasses.replace(program, counted=scanned, checkpoints=held)
        operands = list(primals)
        operands[program.body_consts] = INT(program.counted.blocks)
        return program, operands, _Blocks(program, keep.stored), keep

    def tape(self, program: Program, flags: Flagged, needed: Needed, buffers: Sequence[Any] | None) -> BlockTape:
        """Return a block of steps as the backward pass needs it."""
        return BlockTape(program, flags, needed, buffers)


def state_bytes(program: Program, keep: Needed) -> int:
    """Count the bytes of a checkpoint, the counter left out."""
    return sum(sizes_of(pick(program.body.out_avals[1 : program.state], keep.stored[1:])))


def with_counter(keep: Needed) -> Needed:
    """Return what is needed with the counter, by which blocks find their rows."""
    return dataclasses.replace(keep, state=(True, *keep.state[1:]), stored=(True, *keep.stored[1:]))
