"""A block of steps as the backward pass of a scan sees it: replayed, or taped step by step and reversed.

The tape of a step is what its pullback holds, less what is there anyway: what depends on closed-over values alone is
computed once a block, and rows of xs are read again.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.lax as lax
import jax.numpy as jnp
import jax.tree_util as jtu

from ..compat import Jaxpr, call, pruned, trace
from ..loop.placement import INT
from ..loop.program import Program, groups
from ..loop.sweeps import store
from ..loop.tape import Flagged, Needed, Tape
from ..tiers.tiers import sizes_of
from ..traced.analysis import pick, reached_inputs, scatter
from ..traced.places import rows, zeros


def row(array: Any, place: Any) -> Any:
    """Return one row of an array."""
    return lax.dynamic_index_in_dim(array, place, 0, keepdims=False, allow_negative_indices=False)


def with_row(array: Any, value: Any, place: Any) -> Any:
    """Write one row of an array."""
    return lax.dynamic_update_index_in_dim(array, value, place, 0, allow_negative_indices=False)


FIXED, TAPED = -1, -2


class _Taped(NamedTuple):
    """A step of a scan, forward with its tape and backward from it.

    `forward` gives the needed carry after the step and the `taped` values, which are kept for each step; `fixed` gives
    the values that depend on no row and no carry. `backward` takes the values that the pullback reads, in their order,
    and cotangents of the flagged carry and rows of ys; it gives those of the flagged closed-over values and rows, and
    of the flagged carry. `sources` says where each value comes from: FIXED, TAPED, or the number of the rows which it
    is. Functions come with flags of the inputs of the step that they read.
    """

    forward: tuple[Jaxpr, Sequence[bool]]
    fixed: tuple[Jaxpr, Sequence[bool]]
    backward: Jaxpr
    sources: tuple[int, ...]
    taped: list[Any]


def _taped(program: Program, flags: Flagged, needed: Needed) -> _Taped:
    key = "taped", flags, needed
    if key not in program.findings:
        step, backward = _pulled_back(program, flags, needed)
        program.findings[key] = _sorted_by_source(program, needed, step, backward)
    return program.findings[key]


def _pulled_back(program: Program, flags: Flagged, needed: Needed) -> tuple[Jaxpr, Jaxpr]:
    """Trace a step with what its pullback reads: the needed carry after it and these values; and the pullback of them.

    What the pullback does not read for the flagged cotangents is left out.
    """
    step = program.counted.step
    moves, ends = flags.consts + flags.state[1:], flags.state[1:] + flags.buffers
    carried = needed.state[1:]
    trees: list[Any] = []

    def forward(*args):
        def along(*moving):
            outputs = call(step, *scatter(moving, moves, args))
            return pick(outputs, ends), pick(outputs[: len(carried)], carried)

        _, pullback, after = jax.vjp(along, *pick(args, moves), has_aux=True)
        values, tree = jtu.tree_flatten(pullback)
        trees.append(tree)
        return [*after, *values]

    both = trace(forward, step.in_avals)
    values = both.out_avals[sum(carried) :]
    cotangents = pick(step.out_avals, ends)

    def backward(*args):
        given, of_outputs = groups(args, (len(values), len(cotangents)))
        return jtu.tree_unflatten(trees[-1], given)(of_outputs)

    whole = trace(backward, [*values, *cotangents])
    inner, read = pruned(whole, [True] * len(whole.out_avals))
    read_values = read[: len(values)]

    def reading(*args):
        given = scatter(args, [*read_values, *[True] * len(cotangents)], [None] * len(read))
        return call(inner, *pick(given, read))

    needed_of_both, used = pruned(both, [*[True] * sum(carried), *read_values])

    def taking_all(*args):
        return call(needed_of_both, *pick(args, used))

    return trace(taking_all, step.in_avals), trace(reading, [*pick(values, read_values), *cotangents])


def _sorted_by_source(program: Program, needed: Needed, step: Jaxpr, backward: Jaxpr) -> _Taped:
    of_rows = program.counted.rows
    carried = sum(needed.state[1:])
    inputs, outputs = step.jaxpr.invars, step.jaxpr.outvars
    moving = [*of_rows, *[True] * (len(inputs) - len(of_rows))]
    sources = []
    for k in range(carried, len(outputs)):
        reached = reached_inputs(step, tuple(n == k for n in range(len(outputs))))
        if not step.effects and not any(pick(reached, moving)):
            sources.append(FIXED)
        else:
            same = (n for n, (x, is_row) in enumerate(zip(inputs, of_rows, strict=False)) if is_row and x is outputs[k])
            sources.append(next(same, TAPED))
    kept = [source == TAPED for source in sources]
    return _Taped(
        forward=pruned(step, [*[True] * carried, *kept]),
        fixed=pruned(step, [*[False] * carried, *(source == FIXED for source in sources)]),
        backward=backward,
        sources=tuple(sources),
        taped=pick(step.out_avals[carried:], kept),
    )


def tape_bytes(program: Program, flags: Flagged, needed: Needed) -> int:
    """Count the bytes of the tape of one step."""
    return sum(sizes_of(_taped(program, flags, needed).taped))


@dataclasses.dataclass(frozen=True)
class BlockTape(Tape):
    """A block of steps: a visited step of a scan. As `adjoint.loop.tape.Tape` otherwise."""

    def replay(self, consts: Sequence[Any], state: Sequence[Any]) -> list[Any]:
        """Run a whole block on the needed state. The last block, which may be shorter, is never replayed."""
        once = super().replay
        block = self.program.counted.block
        if block == 1:
            return once(consts, state)

        def body(carry):
            left, state = carry
            return left - 1, once(consts, state)

        return lax.while_loop(lambda carry: carry[0] > 0, body, (INT(block), list(state)))[1]

    def push(self, consts: Sequence[Any], state: Sequence[Any], tangents: Any) -> tuple[list[Any], tuple[list, list]]:
        """Carry the needed state and tangents over a block; see `Tape.push`."""
        once = super().push
        of_consts = tangents[2]
        if self.program.counted.block == 1:
            return once(consts, state, tangents)

        def body(carry):
            left, state, moved = carry
            state, moved = once(consts, state, (*moved, of_consts))
            return left - 1, state, moved

        init = self._steps_from(state[0]), list(state), tuple(tangents[:2])
        return lax.while_loop(lambda carry: carry[0] > 0, body, init)[1:]

    def transpose(self, consts: Sequence[Any], state: Sequence[Any], cotangents: Any) -> tuple[list, list, list]:
        """Carry cotangents over a block; those of closed-over values accumulate, those of rows of xs are written.

        Args:
            consts: closed-over values, and xs.
            state: the counter, and what is needed of the carry, where the block begins.
            cotangents: of the flagged carry; of the flagged ys, which are only read; of the flagged closed-over values
                and xs.
        """
        scan, flags = self.program.counted, self.flags
        taped = _taped(self.program, flags, self.needed)
        of_state, of_ys, of_consts = cotangents
        first, carry = state[0], list(state[1:])
        of_rows = pick(scan.rows, flags.consts)

        def evaluate(function, place, carry):
            jaxpr, read = function
            whole = scatter(carry, self.needed.state[1:], [None] * scan.carry)
            return call(jaxpr, *pick(scan.inputs(consts, place, whole), read))

        # With none there is nothing to run, not even for its effects.
        fixed = evaluate(taped.fixed, scan.place(first), carry) if FIXED in taped.sources else []

        def back(place, kept, of_state, of_consts):
            given = {FIXED: iter(fixed), TAPED: iter(kept)}
            values = [next(given[k]) if k in given else row(consts[k], place) for k in taped.sources]
            found = call(taped.backward, *values, *of_state, *(row(ct, place) for ct in of_ys))
            of_inputs, of_state = groups(found, (len(of_consts), len(of_state)))
            return of_state, [
                with_row(total, ct, place) if is_row else total + ct
                for total, ct, is_row in zip(of_consts, of_inputs, of_rows, strict=True)
            ]

        if scan.block == 1:
            kept = evaluate(taped.forward, scan.place(first), carry)[len(carry) :]
            of_state, of_consts = back(scan.place(first), kept, of_state, of_consts)
            return of_state, list(of_ys), of_consts

        count = self._steps_from(first)

        def tape_one(state):
            k, carry, tapes = state
            outputs = evaluate(taped.forward, scan.place(first + k), carry)
            return k + 1, outputs[: len(carry)], store(tapes, outputs[len(carry) :], k)

        # Tied to the block at hand: room that is the same for every block is made once, and copied for each.
        none, _ = lax.optimization_barrier((list(map(zeros, taped.taped)), first))
        empty = [rows(x, scan.block) for x in none]
        _, _, tapes = lax.while_loop(lambda state: state[0] < count, tape_one, (INT(0), carry, empty))

        def back_one(state):
            k, *rest = state
            kept = [row(tape, k - 1) for tape in tapes]
            return k - 1, *back(scan.place(first + k - 1), kept, *rest)

        init = count, list(of_state), list(of_consts)
        _, of_state, of_consts = lax.while_loop(lambda state: state[0] > 0, back_one, init)
        return of_state, list(of_ys), of_consts

    def _steps_from(self, first: Any) -> Any:
        """Return how many steps the block has that begins at step `first`."""
        scan = self.program.counted
        if scan.length % scan.block == 0:
            return INT(scan.block)
        return jnp.minimum(scan.length - first, scan.block)
