"""What a loop of known length (`adjoint.loop.counted`) answers in its own way, and any other loop in the plain one."""

from collections.abc import Sequence
from typing import Any

from ..tiers.tiers import sizes_of
from ..traced.analysis import pick
from . import sweeps
from .program import Program
from .tape import Flagged, Needed, Tape


def arrange(
    program: Program, primals: Sequence[Any], moving: Flagged, keep: Needed
) -> tuple[Program, Sequence[Any], sweeps.Visited, Needed]:
    """Choose what is held, once it is known what moves: the program, its operands, what is visited and needed."""
    if program.counted is not None:
        return program.counted.arrange(program, primals, moving, keep)
    program = program.with_room(sum(sizes_of(pick(program.body.out_avals[: program.state], keep.stored))))
    return program, primals, sweeps.Visited(program, keep.stored), keep


def tape_of(program: Program, flags: Flagged, keep: Needed, buffers: Sequence[Any] | None) -> Tape:
    """Return one visited step as the backward pass needs it."""
    return (Tape if program.counted is None else program.counted.tape)(program, flags, keep, buffers)


def lanes_at(program: Program) -> tuple[list[int], list[int]]:
    """Return which axis of each operand, and of each leaf of the carry, is that of lanes, where it has one."""
    if program.counted is not None:
        return program.counted.lanes_at(program)
    return [0] * sum(program.sizes), [0] * (program.state + program.buffers)
