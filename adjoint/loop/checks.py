"""Checks of `jax.experimental.checkify` inside a loop: its errors become part of the carry.

A loop that is differentiated first is plain JAX by the time checkify sees it. Here is what remains: a loop that is
checked first and then, perhaps, differentiated. The backward pass then replays the body without its checks, whose
errors nobody differentiates.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import checkify

from ..compat import Jaxpr, call, trace
from .program import Program, groups, ignoring


def _unchecked(jaxpr: Jaxpr | None, enabled: Any) -> Jaxpr | None:
    """Return a function without its checks."""
    if jaxpr is None:
        return None
    checked = checkify.checkify(lambda *args: call(jaxpr, *args), errors=enabled)
    return trace(lambda *args: checked(*args)[1], jaxpr.in_avals)


def without_checks(program: Program, enabled: Any) -> Program:
    """Return a loop without the checks inside it."""
    return dataclasses.replace(
        program,
        **{name: _unchecked(getattr(program, name), enabled) for name in ("cond", "body", "predict", "rebuild")},
        findings={},
        counted=None,
    )


def checked(
    bind: Callable[..., list[Any]], operands: Sequence[Any], program: Program, enabled: Any
) -> tuple[list[Any], list[Any]]:
    """Bind a loop whose carry holds the errors of its checks too.

    Args:
        bind: takes operands and `program`, a loop; returns its outputs.
        operands: of the loop.
        program: the loop, with checks inside.
        enabled: which errors are looked for, as `jax.experimental.checkify.checkify` takes them.

    Returns:
        The errors found, and the outputs of the loop itself.
    """
    cond_consts, body_consts, predict_consts, expected, state, buffers = groups(operands, program.sizes)

    def going(cond_consts, carry):
        call(program.cond, *cond_consts, *carry)

    def step(error, cond_consts, body_consts, carry):
        """Make one step and look at the condition after it, behind the errors so far."""
        if error is not None:
            checkify.check_error(error)
        after = call(program.body, *body_consts, *carry)
        going(cond_consts, after)
        return after

    one_step = checkify.checkify(step, errors=enabled)
    carry = [*state, *buffers]
    first, _ = checkify.checkify(going, errors=enabled)(cond_consts, carry)
    found, _ = jax.eval_shape(lambda *args: one_step(None, *args), cond_consts, body_consts, carry)
    structs, treedef = jax.tree_util.tree_flatten(found)
    plain = without_checks(program, enabled)
    if not structs:
        return [first], bind(*operands, program=plain)
    trees = []

    def body(*args):
        cond_consts, body_consts, state, errors, buffers = groups(
            args, (program.cond_consts, program.body_consts, program.state, len(structs), program.buffers)
        )
        before = jax.tree_util.tree_unflatten(treedef, errors)
        error, after = one_step(before, cond_consts, body_consts, state + buffers)
        leaves, tree = jax.tree_util.tree_flatten(error)
        trees.append(tree)
        return [*after[: program.state], *leaves, *after[program.state :]]

    of_cond, of_body = program.cond.in_avals[: program.cond_consts], program.body.in_avals
    ahead = program.body_consts + program.state
    wider = dataclasses.replace(
        plain,
        cond=ignoring(plain.cond, program.cond_consts + program.state, structs),
        body=trace(body, [*of_cond, *of_body[:ahead], *structs, *of_body[ahead:]]),
        predict=ignoring(plain.predict, program.predict_consts + program.state, structs),
        # The body reads the condition's consts too.
        rebuild=ignoring(ignoring(plain.rebuild, ahead, structs), 0, of_cond),
        body_consts=program.cond_consts + program.body_consts,
        state=program.state + len(structs),
        derived=(*program.derived, *[False] * len(structs)),
    )
    none = [jnp.zeros(x.shape, x.dtype) for x in structs]
    given = [*cond_consts, *cond_consts, *body_consts, *predict_consts, *expected, *state, *none, *buffers]
    outputs = bind(*given, program=wider)
    state, errors, buffers = groups(outputs, (program.state, len(structs), program.buffers))
    return [first, jax.tree_util.tree_unflatten(trees[-1], errors)], [*state, *buffers]
