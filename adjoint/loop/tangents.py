"""What the rules of our primitives for tangents share."""

from collections.abc import Sequence
from typing import Any

import jax

from ..compat import Primitive, ad, batching, mlir, pruned
from ..traced.analysis import is_inexact, pick
from .observe import Pass, pass_observer
from .program import Program

_once_p = Primitive("checkpointed_while_reversed")
"""The identity, around what a sweep gives: it has tangents, and refuses to be transposed."""


def zero_tangent(x: Any) -> Any:
    """Return the symbolic zero of an array's tangent space."""
    return ad.Zero(jax.typeof(x).to_tangent_aval())


def show_advance(program: Program) -> None:
    """Show a step of the forward sweep to whoever observes passes."""
    shown = pass_observer()
    if shown is not None and not program.nested:
        jaxpr, read = pruned(program.body, (True,) * len(program.body.out_avals))
        moving = (False,) * program.body_consts + (True,) * (program.state + program.buffers)
        shown(Pass(kind="advance", jaxpr=jaxpr, moving=tuple(pick(moving, read))))


def once(outputs: Sequence[Any]) -> list[Any]:
    """Mark what a sweep gives: it has tangents, but its reversal is refused in words that say what to do."""
    return [_once_p.bind(x) if is_inexact(jax.typeof(x)) else x for x in outputs]


def _refuse_again(cotangent: Any, x: Any) -> Any:
    del cotangent, x
    raise NotImplementedError(
        "A checkpointed loop cannot be differentiated in reverse mode twice, `grad(grad(...))`. "
        "Its backward sweep is a loop without a bound. "
        "For a Hessian use forward over reverse, `jax.jacfwd(jax.grad(...))`; "
        "for its product with a vector `jax.jvp(jax.grad(...), (x,), (v,))`."
    )


_once_p.def_impl(lambda x: x)
_once_p.def_abstract_eval(lambda aval: aval)
mlir.register_lowering(_once_p, lambda ctx, x: [x])
ad.deflinear2(_once_p, _refuse_again)
batching.defvectorized(_once_p)
