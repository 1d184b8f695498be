"""One step of a loop as the backward pass sees it: replayed plainly, transposed, or pushed forward with tangents."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.tree_util as jtu

from ..compat import Jaxpr, call, pruned, trace
from ..tiers.tiers import sizes_of
from ..traced.analysis import Flags, is_inexact, nonzero_cotangents, perturbed_outputs, pick, reached_inputs, scatter
from .observe import Pass
from .program import Program, groups

SMALL_DERIVED_BYTES = 2 * 1024
"""Where all checkpoints together hold no more of the derived leaves, these are held: computing them costs more."""


@dataclasses.dataclass(frozen=True)
class Flagged:
    """Flags for the closed-over values of the body, its state and its buffers."""

    consts: Flags
    state: Flags
    buffers: Flags

    @property
    def all(self) -> Flags:
        """The flags in the order of the body's inputs."""
        return self.consts + self.state + self.buffers

    @property
    def carry(self) -> Flags:
        """The flags in the order of the body's outputs."""
        return self.state + self.buffers


def _flagged(program: Program, flags: Sequence[bool]) -> Flagged:
    consts, state, buffers = groups(flags, (program.body_consts, program.state, program.buffers))
    return Flagged(tuple(consts), tuple(state), tuple(buffers))


def perturbed(program: Program, given: Flagged) -> Flagged:
    """Find which parts of the carry become perturbed as the loop runs: the fixed point of the body's tangents.

    Args:
        program: the loop.
        given: which closed-over values, initial states and initial buffers have a tangent.

    Returns:
        `given` with the state and buffers that become perturbed.
    """
    key = "perturbed", given
    if key not in program.findings:
        found = given
        while True:
            carry = perturbed_outputs(program.body, found.all)
            wider = tuple(a or b for a, b in zip(found.carry, carry, strict=True))
            if wider == found.carry:
                break
            found = _flagged(program, found.consts + wider)
        program.findings[key] = found
    return program.findings[key]


def with_cotangents(program: Program, tangents: Flagged, carry: Flags) -> Flagged:
    """Find which cotangents the backward pass has to carry: the fixed point of the body's transpose.

    Args:
        program: the loop.
        tangents: what is perturbed.
        carry: which final states and buffers have a cotangent.

    Returns:
        The consts that receive a cotangent, and the state and buffers that hold one at some step.
    """
    key = "cotangents", tangents, carry
    if key not in program.findings:
        live = tuple(a and b for a, b in zip(carry, tangents.carry, strict=True))
        while True:
            found = _flagged(program, nonzero_cotangents(program.body, tangents.all, live))
            wider = tuple(a or b for a, b in zip(live, found.carry, strict=True))
            if wider == live:
                break
            live = wider
        program.findings[key] = _flagged(program, found.consts + live)
    return program.findings[key]


@dataclasses.dataclass(frozen=True)
class Needed:
    """The parts of state and buffers that a replay or a reversed step reads; nothing else is kept.

    `stored` are the parts of the state that a checkpoint holds; `Program.rebuild` gives the others.
    """

    state: Flags
    buffers: Flags
    stored: Flags


def needed(program: Program, tangents: Flagged) -> Needed:
    """Find what must be kept for the backward pass.

    Args:
        program: the loop.
        tangents: what is perturbed.

    Returns:
        The leaves that the transposed body reads, and those that a replay of these reads, and so on.
    """
    key = "needed", tangents
    if key not in program.findings:
        sizes = program.body_consts, program.state, program.buffers

        def residuals(*args):
            def along(*inputs):
                return pick(call(program.body, *scatter(inputs, tangents.all, args)), tangents.carry)

            # Not transposed: which cotangents there will be is not known yet, and some may be refused.
            _, pullback = jax.vjp(along, *pick(args, tangents.all))
            return jtu.tree_leaves(pullback)

        jaxpr = trace(residuals, program.body.in_avals)
        _, state, buffers = groups(reached_inputs(jaxpr, (True,) * len(jaxpr.out_avals)), sizes)
        while True:
            reached = reached_inputs(program.body, (*state, *[False] * program.buffers))
            _, more, more_buffers = groups(reached, sizes)
            wider = [a or b for a, b in zip(state, more, strict=True)]
            buffers = [a or b for a, b in zip(buffers, more_buffers, strict=True)]
            if wider == state:
                if _derived_bytes(program, state) <= SMALL_DERIVED_BYTES:
                    stored = state
                    break
                wider = [a or b for a, b in zip(state, _read_by_rebuild(program, state), strict=True)]
                stored = [a and not b for a, b in zip(state, program.derived, strict=True)]
                if wider == state:
                    break
            state = wider
        program.findings[key] = Needed(tuple(state), tuple(buffers), tuple(stored))
    return program.findings[key]


def _derived_bytes(program: Program, state: Sequence[bool]) -> int:
    """Return what all checkpoints together take for the derived leaves among the flagged."""
    both = [a and b for a, b in zip(program.derived, state, strict=True)]
    return program.checkpoints * sum(sizes_of(pick(program.body.out_avals[: program.state], both)))


def _read_by_rebuild(program: Program, state: Sequence[bool]) -> list[bool]:
    """Find the state leaves from which the derived ones among the flagged are rebuilt."""
    if program.rebuild is None:
        return [False] * program.state
    return list(reached_inputs(program.rebuild, tuple(pick(state, program.derived)))[program.body_consts :])


def _parts(flags: Flagged) -> tuple[Flags, Flags, Flags]:
    return flags.consts, flags.state, flags.buffers


@dataclasses.dataclass(frozen=True)
class Tape:
    """One step as the backward pass needs it: run, transposed, and pushed forward.

    `flags` are the values that carry a cotangent (or tangent), `needed` the state that is replayed, `buffers` the
    needed buffers as the forward sweep left them.
    """

    program: Program
    flags: Flagged
    needed: Needed
    buffers: Sequence[Any] | None

    def stored(self, state: Sequence[Any]) -> list[Any]:
        """Pick what a checkpoint holds from the needed state."""
        return pick(state, pick(self.needed.stored, self.needed.state))

    def restore(self, consts: Sequence[Any], stored: Sequence[Any]) -> list[Any]:
        """Compute the needed state from what a checkpoint holds."""
        program, needed = self.program, self.needed
        if program.rebuild is None or needed.stored == needed.state:
            return list(stored)
        both = [a and b for a, b in zip(program.derived, needed.state, strict=True)]
        rebuild, read = self._pruned("restore", program.rebuild, pick(both, program.derived))
        held = scatter(stored, needed.stored, [None] * program.state)
        return pick(scatter(call(rebuild, *pick([*consts, *held], read)), both, held), needed.state)

    def replay(self, consts: Sequence[Any], state: Sequence[Any]) -> list[Any]:
        """Run a step forward on the needed state, and nothing else of it."""
        body, read = self._pruned("replay", self.program.body, (*self.needed.state, *[False] * self.program.buffers))
        return call(body, *pick(self._whole(consts, state), read))

    def transpose(self, consts: Sequence[Any], state: Sequence[Any], cotangents: Any) -> tuple[list, list, list]:
        """Carry cotangents of the flagged state, buffers and consts over one step; those of consts accumulate."""
        of_state, of_buffers, of_consts = cotangents
        program, flags = self.program, self.flags

        def transposed(*args):
            fixed, of_carry = groups(args, (len(program.body.in_avals), sum(flags.carry)))

            def along(*inputs):
                return pick(call(program.body, *scatter(inputs, flags.all, fixed)), flags.carry)

            return jax.vjp(along, *pick(fixed, flags.all))[1](of_carry)

        found = self._pruned_step("transpose", transposed, (consts, state), [*of_state, *of_buffers])
        new_consts, new_state, new_buffers = groups(found, [sum(f) for f in _parts(flags)])
        total = [a + b for a, b in zip(of_consts, new_consts, strict=True)]
        return new_state, new_buffers, total

    def push(self, consts: Sequence[Any], state: Sequence[Any], tangents: Any) -> tuple[list[Any], tuple[list, list]]:
        """Carry the needed state and the tangents of flagged state and buffers over one step."""
        of_state, of_buffers, of_consts = tangents
        program, flags = self.program, self.flags

        def pushed(*args):
            fixed, given = groups(args, (len(program.body.in_avals), sum(flags.all)))

            def along(*inputs):
                outputs = call(program.body, *scatter(inputs, flags.all, fixed))
                return pick(outputs, flags.carry), pick(outputs[: program.state], self.needed.state)

            _, moved, after = jax.jvp(along, tuple(pick(fixed, flags.all)), tuple(given), has_aux=True)
            return [*moved, *after]

        found = self._pruned_step("push", pushed, (consts, state), [*of_consts, *of_state, *of_buffers])
        of_state, of_buffers, after = groups(found, (sum(flags.state), sum(flags.buffers), sum(self.needed.state)))
        return after, (of_state, of_buffers)

    def passes(self) -> tuple[Pass, Pass]:
        """Return the replay of a step and its reversal as they are traced; `transpose` has been called before."""
        program = self.program
        replayed = self._pruned("replay", program.body, (*self.needed.state, *[False] * program.buffers))
        reversed_ = program.findings["transpose", self.flags, self.needed]
        moving = [position >= program.body_consts for position in range(len(program.body.in_avals))]
        moving += [True] * sum(self.flags.carry)
        return (
            Pass(kind="replay", jaxpr=replayed[0], moving=tuple(pick(moving[: len(replayed[1])], replayed[1]))),
            Pass(kind="reversal", jaxpr=reversed_[0], moving=tuple(pick(moving, reversed_[1]))),
        )

    def _whole(self, consts: Sequence[Any], state: Sequence[Any]) -> list[Any]:
        """Return the inputs of the body, None for those that are not needed."""
        whole = scatter(state, self.needed.state, [None] * self.program.state)
        return [*consts, *whole, *scatter(self.buffers or [], self.needed.buffers, [None] * self.program.buffers)]

    def _pruned(self, name: str, jaxpr: Jaxpr, outputs: Sequence[bool]) -> tuple[Jaxpr, list[bool]]:
        """Leave out of a function the outputs that are not flagged: what they need, no checkpoint holds."""
        key = name, self.flags, self.needed
        if key not in self.program.findings:
            self.program.findings[key] = pruned(jaxpr, outputs)
        return self.program.findings[key]

    def _pruned_step(self, name: str, step: Callable[..., Sequence[Any]], given: Any, moving: Sequence[Any]) -> list:
        """Evaluate a function of all inputs of the body and of cotangents or tangents, on those that it reads."""
        key = name, self.flags, self.needed
        if key not in self.program.findings:
            jaxpr = trace(step, [*self.program.body.in_avals, *moving])
            self.program.findings[key] = pruned(jaxpr, [True] * len(jaxpr.out_avals))
        jaxpr, read = self.program.findings[key]
        return call(jaxpr, *pick([*self._whole(*given), *moving], read))


def inexact_only(program: Program, flags: Sequence[bool]) -> Flagged:
    """Clear the flags of inputs that have no tangent space."""
    return _flagged(program, [f and is_inexact(a) for f, a in zip(flags, program.body.in_avals, strict=True)])
