"""A loop with its tangents as one loop, and how that comes apart for the backward pass.

In forward mode a loop becomes `pushed_p`: one loop whose carry holds state and tangents (`with_tangents`), at the cost
of one pass over it. It is a loop as any other, so it can be pushed forward again, and reversed: forward over forward
and reverse over forward need nothing more.

Under `grad` JAX asks for the linear part, with the primals known and the tangents not. There `pushed_p` comes apart
(`_split`): the forward sweep is run, storing checkpoints, and what is linear is a primitive whose transpose is the
backward sweep. The same happens where it is transposed as it stands, which is what `jax.checkpoint` and
`jax.linear_transpose` do. `jax.linearize` without a transpose stores nothing: its linear function is `pushed_p` itself.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ..compat import (
    Primitive,
    ad,
    call,
    has_custom_vjp,
    linearize_knowingly,
    mlir,
    partial_evaluation,
    recomputed_in_remat,
    struct_of,
    to_be_transposed,
    trace,
)
from ..traced.analysis import pick, scatter
from ..traced.kernel import in_one_kernel
from . import sweeps
from .program import Program, groups, ignoring
from .tape import Flagged

pushed_p = Primitive("checkpointed_while_pushed")
pushed_p.multiple_results = True


@dataclasses.dataclass(frozen=True, eq=False)
class Linear:
    """The linear part of a loop that has run: a primitive of tangents and of what was kept, which can be transposed."""

    primitive: Any
    params: dict[str, Any]
    kept: Sequence[Any]
    first: int
    """It takes the tangents from this one on."""
    order: Sequence[int]
    """Which of its outputs is the tangent of each leaf that moves."""


@dataclasses.dataclass(frozen=True, eq=False)
class Pushed:
    """A loop that is run with tangents; the parameter of `pushed_p`.

    Its operands are those of `primitive`, whose first are the program's, and the tangents that are not zero, of which
    the first are those of the body's inputs flagged as `given`. Its outputs are the final carry, and the tangents of
    what is `moving` in it.
    """

    program: Program
    given: Flagged
    moving: Flagged
    primitive: Any
    """The loop without tangents, and ..."""
    params: dict[str, Any]
    """... its parameters."""
    operands: int
    """How many operands it has."""
    apart: Callable[[Sequence[Any]], tuple[list[Any], Linear]]
    """Runs the forward sweep on its operands; returns its outputs, and its linear part."""

    @property
    def outputs(self) -> int:
        """How many outputs the loop has without tangents."""
        return self.program.state + self.program.buffers

    def cut(self, values: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        """Pick the program's own operands, and the tangents of its body's inputs."""
        own = list(values[: sum(self.program.sizes)])
        return own, list(values[self.operands : self.operands + sum(self.given.all)])


def _counts(flags: Flagged) -> tuple[int, int, int]:
    return sum(flags.consts), sum(flags.state), sum(flags.buffers)


def with_tangents(program: Program, moving: Flagged) -> Program:
    """Return the loop whose carry holds a loop's carry and the tangents of what moves.

    Its checkpoints hold both, where it is differentiated itself. Condition and prediction do not read tangents.

    Args:
        program: the loop.
        moving: the consts that have a tangent, and the state and buffers that have one at some step.
    """
    key = "with tangents", moving
    if key not in program.findings:
        program.findings[key] = _with_tangents(program, moving)
    return program.findings[key]


def _with_tangents(program: Program, moving: Flagged) -> Program:
    of_consts, of_state, of_buffers = _counts(moving)
    consts, state, buffers = groups(program.body.in_avals, (program.body_consts, program.state, program.buffers))
    moved_consts, moved_state, moved_buffers = (
        [struct_of(a) for a in pick(avals, flags)]
        for avals, flags in ((consts, moving.consts), (state, moving.state), (buffers, moving.buffers))
    )
    inputs = [consts, moved_consts, state, moved_state, buffers, moved_buffers]

    def body(*args):
        consts, of_consts, state, of_state, buffers, of_buffers = groups(args, [*map(len, inputs)])
        fixed = [*consts, *state, *buffers]

        def along(*inputs):
            return call(program.body, *scatter(inputs, moving.all, fixed))

        outputs, found = jax.jvp(along, tuple(pick(fixed, moving.all)), (*of_consts, *of_state, *of_buffers))
        return _beside(program, moving, outputs, pick(found, moving.carry))

    pushed = trace(body, [x for group in inputs for x in group])
    if has_custom_vjp(pushed):
        raise TypeError(
            "Cannot differentiate in forward mode what has a `jax.custom_vjp` in the body of its loop. "
            "In a Diffrax solve it may be the solver's loop over its stages: give the solver `scan_kind='bounded'`, "
            "which keeps the stages of a reversed step, or use `adjoint=diffrax.ForwardMode()`."
        )
    seen = program.cond_consts + program.state
    cond = ignoring(program.cond, seen + program.buffers, moved_buffers)
    predict = program.predict
    return dataclasses.replace(
        program,
        cond=ignoring(cond, seen, moved_state),
        body=pushed,
        predict=None if predict is None else ignoring(predict, program.predict_consts + program.state, moved_state),
        rebuild=None,
        body_consts=program.body_consts + of_consts,
        state=program.state + of_state,
        buffers=program.buffers + of_buffers,
        derived=(False,) * (program.state + of_state),
        counted=None if program.counted is None else program.counted.with_tangents(moving),
        findings={},
    )


def _beside(program: Program, moving: Flagged, carry: Sequence[Any], tangents: Sequence[Any]) -> list[Any]:
    """Order a carry and its tangents as the loop with both has them."""
    state, buffers = groups(carry, (program.state, program.buffers))
    of_state, of_buffers = groups(tangents, _counts(moving)[1:])
    return [*state, *of_state, *buffers, *of_buffers]


def in_order(how: Pushed, carry: Sequence[Any]) -> list[Any]:
    """Order the carry of the loop with tangents as `pushed_p` gives it: carry first, then tangents."""
    program = how.program
    _, of_state, of_buffers = _counts(how.moving)
    state, moved_state, buffers, moved_buffers = groups(carry, (program.state, of_state, program.buffers, of_buffers))
    return [*state, *buffers, *moved_state, *moved_buffers]


def operands_with_tangents(how: Pushed, values: Sequence[Any], zero: Callable[[Any], Any]) -> list[Any]:
    """Order the operands of `pushed_p`, or what there is for each, as the loop with tangents has them.

    Args:
        how: the loop.
        values: one for each operand.
        zero: makes what stands for the tangent of state that moves later, from what stands for the state.
    """
    program, given, moving = how.program, how.given, how.moving
    own, tangents = how.cut(values)
    cond_consts, body_consts, predict_consts, expected, state, buffers = groups(own, program.sizes)
    of_consts, of_state, of_buffers = groups(tangents, _counts(given))

    def begin(values, tangents, given, moving):
        whole = scatter(tangents, given, [None] * len(given))
        return [zero(x) if t is None else t for x, t, moves in zip(values, whole, moving, strict=True) if moves]

    return [
        *cond_consts,
        *body_consts,
        *of_consts,
        *predict_consts,
        *expected,
        *state,
        *begin(state, of_state, given.state, moving.state),
        *buffers,
        *begin(buffers, of_buffers, given.buffers, moving.buffers),
    ]


#
# Running
#


def _run(*args: Any, how: Pushed) -> list[Any]:
    program = with_tangents(how.program, how.moving)
    operands = operands_with_tangents(how, args, jnp.zeros_like)
    return in_order(how, in_one_kernel(lambda *given: sweeps.run(program, given)[1], *operands))


def _abstract(*avals: Any, how: Pushed) -> tuple[list[Any], Any]:
    carry, effects = how.primitive.abstract_eval(*avals[: how.operands], **how.params)
    return [*carry, *(a.to_tangent_aval() for a in pick(carry, how.moving.carry))], effects


pushed_p.def_impl(_run)
pushed_p.def_effectful_abstract_eval(_abstract)
mlir.register_lowering(pushed_p, mlir.lower_fun(_run, multiple_results=True), cacheable=False)


#
# Coming apart
#


def _split(known: Sequence[Any], tracers: Sequence[Any], stage: Callable[..., Any], *, how: Pushed) -> list[Any]:
    """Partially evaluate: run what is known, and stage what is linear.

    Args:
        known: the operands that are known, None for the others.
        tracers: all operands.
        stage: binds a primitive, so that it is evaluated later where any operand is not known.
        how: the loop.
    """
    primals = known[: how.operands]
    if any(x is None for x in primals) or not any(x is None for x in known):
        return stage(pushed_p, *tracers, how=how)
    if not to_be_transposed():
        outputs = how.primitive.bind(*primals, **how.params)
        return [*outputs, *stage(pushed_p, *tracers, how=how)[how.outputs :]]
    outputs, linear = how.apart(primals)
    moved = stage(linear.primitive, *tracers[how.operands + linear.first :], *linear.kept, **linear.params)
    return [*outputs, *(moved[k] for k in linear.order)]


def _transpose(cotangents: Sequence[Any], *args: Any, how: Pushed) -> list[Any]:
    """Run the forward sweep, and then what its linear part has for a transpose."""
    none: list[Any] = [None] * len(args)
    primals = args[: how.operands]
    if any(ad.is_undefined_primal(x) for x in primals):
        refuse_transpose()
    given = cotangents[how.outputs :]
    if all(type(ct) is ad.Zero for ct in given):
        return none
    _, linear = how.apart(primals)
    avals, _ = linear.primitive.abstract_eval(**linear.params)
    whole = [ad.Zero(a) for a in avals]
    for k, ct in zip(linear.order, given, strict=True):
        whole[k] = ct
    before = how.operands + linear.first
    found = ad.primitive_transposes[linear.primitive](whole, *args[before:], *linear.kept, **linear.params)
    return [*none[:before], *found[: len(args) - before]]


def refuse_transpose(*args: Any, **params: Any) -> Any:
    """Refuse to transpose a loop in what it is not linear in, or whose tangents alone were mapped."""
    del args, params
    raise NotImplementedError(
        "A checkpointed loop that was pushed forward cannot be transposed here: its tangents were mapped by `jax.vmap` "
        "and its primals were not. Differentiate inside the `jax.vmap`, or map both."
    )


def _without_tangents(*, how: Pushed) -> tuple[int, int, Any, dict[str, Any]]:
    return how.operands, how.outputs, how.primitive, how.params


partial_evaluation(pushed_p, _split)
linearize_knowingly(pushed_p)
recomputed_in_remat(pushed_p, _without_tangents)
ad.primitive_transposes[pushed_p] = _transpose
