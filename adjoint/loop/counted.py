"""What a loop of known length does in its own way: run, be mapped, be differentiated; `adjoint.scan` has such a loop.

`Program.counted` holds it, and the rules in `adjoint.loop.primitive` ask it where it is there. Everything else (the
sweeps, tiers, forward mode, checks) sees an ordinary loop.
"""

from collections.abc import Sequence
from typing import Any, Protocol

from ..tiers.tiers import sizes_of
from ..traced.analysis import pick
from . import sweeps
from .program import Program
from .sweeps import Visited
from .tape import Flagged, Needed, Tape


class Counted(Protocol):
    """A loop of known length."""

    def run(self, program: "Program", args: Sequence[Any]) -> list[Any]:
        """Run the loop on its operands; returns the final state and buffers."""
        ...

    def lanes_at(self, program: "Program") -> tuple[list[int], list[int]]:
        """Return which axis of each operand, and of each leaf of the carry, is that of lanes, where it has one."""
        ...

    def batched(
        self, axis: Any, args: Sequence[Any], flags: Sequence[bool], program: "Program"
    ) -> tuple[list[Any], "Program", list[bool]]:
        """Make one loop over a whole batch.

        Args:
            axis: what is mapped, JAX's.
            args: operands, the axis of lanes where it belongs.
            flags: which of them have one.
            program: the loop of one lane.

        Returns:
            Operands, the loop, and which leaves of its carry have an axis of lanes.
        """
        ...

    def taken(self, given: "Flagged") -> "Flagged":
        """Clear the flags of tangents that reach nothing."""
        ...

    def with_tangents(self, moving: "Flagged") -> "Counted":
        """Return what is known of the loop whose carry holds tangents too (`adjoint.loop.forward.with_tangents`)."""
        ...

    def keeps_tapes(self, program: "Program", moving: "Flagged") -> bool:
        """Return whether the tapes of all steps are to be kept, so that nothing is executed twice."""
        ...

    def arrange(
        self, program: "Program", primals: Sequence[Any], moving: "Flagged", keep: "Needed"
    ) -> "tuple[Program, list[Any], Visited, Needed]":
        """Choose what is held, once it is known what moves.

        Returns:
            The program, its operands, what the backward pass visits, and what is needed, for the forward sweep.
        """
        ...

    def tape(self, program: "Program", flags: "Flagged", needed: "Needed", buffers: Sequence[Any] | None) -> "Tape":
        """Return one visited step as the backward pass needs it."""
        ...


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
