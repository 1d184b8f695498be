"""Every name of another library that is not public, in one place; a test names them, so an upgrade breaks here, loudly.

From Equinox we take what its loops and Diffrax's loop body share with ours and must stay the same objects: the
write-only buffer class (`equinox.internal.buffer_at_set` and Diffrax's annotations look for exactly this class). JAX
merged `Jaxpr` and `ClosedJaxpr` in 0.11; nothing here depends on which.
"""

import contextvars
import inspect
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.core
import jax.extend.core
import jax.numpy as jnp
from equinox.internal import nondifferentiable_backward as nondifferentiable_backward
from equinox.internal import unvmap_any as unvmap_any
from equinox.internal import unvmap_max as unvmap_max
from equinox.internal import while_loop as _equinox_while_loop
from equinox.internal._loop.common import _Buffer
from jax._src.callback import _callback_op_sharding
from jax._src.checkify import checkify_jaxpr, error_checks
from jax._src.interpreters.ad import fallback_linearize_rule, primitive_linearizations
from jax._src.lax.lax import _convert_element_type
from jax._src.sharding_impls import ShardingContext
from jax.experimental import checkify
from jax.extend.core import Primitive as Primitive
from jax.interpreters import ad as ad
from jax.interpreters import batching as batching
from jax.interpreters import mlir as mlir
from jax.interpreters import partial_eval

Buffer = _Buffer
"""Equinox's write-only buffer."""
Jaxpr = Any
"""A closed jaxpr without constants: `.in_avals`, `.out_avals`, `.effects`, evaluated by `call`."""


def plain_struct_of(x: Any) -> jax.ShapeDtypeStruct:
    """Describe an array by shape and dtype alone, weak types made strong."""
    return jax.ShapeDtypeStruct(jnp.shape(x), jnp.result_type(x))


def struct_of(x: Any) -> Any:
    """Describe an array by shape and dtype, weak types made strong, and by where it lies where its type says so.

    Types do under explicit sharding, and inside `jax.shard_map`, where they name the axes along which a value varies.
    """
    if isinstance(x, jax.ShapeDtypeStruct):
        return x
    aval = type_of(x)
    if not placed(aval):
        return plain_struct_of(x)
    return jax.ShapeDtypeStruct(aval.shape, aval.dtype, sharding=aval.sharding, manual_axis_type=aval.mat)


def type_of(x: Any) -> Any:
    """Return a type, or that of an array; None for anything else."""
    return x if isinstance(x, jax.core.ShapedArray) else jax.typeof(x) if isinstance(x, jax.Array) else None


def placed(aval: Any) -> bool:
    """Return whether a type says where its values lie."""
    if aval is None or not hasattr(aval, "sharding"):
        return False
    return bool(aval.mat.varying) or bool(aval.sharding.mesh._any_axis_explicit)


def trace(fun: Callable[..., Sequence[Any]], structs: Sequence[Any]) -> Jaxpr:
    """Trace a function of flat arrays that closes over nothing.

    Args:
        fun: takes arrays like `structs`, returns a flat sequence of arrays.
        structs: arrays, or their shapes and dtypes.

    Returns:
        A closed jaxpr.
    """
    return jax.make_jaxpr(fun)(*map(struct_of, structs))


def trace_hoisted(fun: Callable[..., Sequence[Any]], structs: Sequence[Any]) -> tuple[Jaxpr, list[Any]]:
    """Trace a function of flat arrays and pull out the arrays that it closes over.

    Args:
        fun: takes arrays like `structs`, returns a flat sequence of arrays.
        structs: arrays, or their shapes and dtypes.

    Returns:
        A jaxpr that takes what `fun` closed over first and then its arguments, and those closed-over arrays.
    """
    first = jax.make_jaxpr(fun)(*map(struct_of, structs))
    consts = list(first.consts)
    count = len(consts)

    def explicit(*args):
        return jax.core.eval_jaxpr(first.jaxpr, args[:count], *args[count:])

    # Traced twice, because a jaxpr that keeps tracers of an outer transformation alive may not be a primitive's
    # parameter.
    return jax.make_jaxpr(explicit)(*map(struct_of, consts), *map(struct_of, structs)), consts


class TracedScan(NamedTuple):
    """A `jax.lax.scan` that was traced and not bound.

    `step` takes `consts` closed-over values, `rows` rows of xs and the carry, and returns the carry and rows of ys, all
    strongly typed. `operands` are the closed-over values, xs and the carry; `finish` makes of the final carry and the
    stacked ys what the function gave that was traced.
    """

    step: Jaxpr
    consts: int
    rows: int
    length: int
    reverse: bool
    unroll: int
    operands: list[Any]
    finish: Callable[[Sequence[Any]], list[Any]]


def trace_scan(fun: Callable[..., Sequence[Any]], args: Sequence[Any]) -> tuple[TracedScan | None, Callable[[], list]]:
    """Trace a function of flat arrays that calls `jax.lax.scan` once, whose checks and promotions are so JAX's own.

    Args:
        fun: takes `args`, returns a flat sequence of arrays.
        args: arrays.

    Returns:
        The scan, None where JAX made none of it; a function that evaluates all of it as it is.
    """
    whole = jax.make_jaxpr(fun)(*args)
    jaxpr, scan_p = whole.jaxpr, jax.extend.core.primitives.scan_p
    places = [k for k, eqn in enumerate(jaxpr.eqns) if eqn.primitive is scan_p]

    def plain():
        return jax.core.eval_jaxpr(jaxpr, whole.consts, *args)

    if len(places) != 1:
        return None, plain
    (place,) = places
    eqn = jaxpr.eqns[place]
    later = jaxpr.eqns[place + 1 :]
    read = dict.fromkeys(x for x in (*(x for e in later for x in e.invars), *jaxpr.outvars) if not hasattr(x, "val"))
    own = {x for e in jaxpr.eqns[place:] for x in e.outvars}
    kept = [x for x in read if x not in own]
    before = jaxpr.replace(eqns=jaxpr.eqns[:place], outvars=[*eqn.invars, *kept])
    found = jax.core.eval_jaxpr(before, whole.consts, *args)
    operands, values = found[: len(eqn.invars)], found[len(eqn.invars) :]
    used = [x in read for x in eqn.outvars]
    inputs = [x for x, there in zip(eqn.outvars, used, strict=True) if there]
    after = jaxpr.replace(constvars=[], invars=[*inputs, *kept], eqns=later)

    def finish(outputs):
        weak = [_as_weak_as(x, var.aval) for x, var in zip(outputs, eqn.outvars, strict=True)]
        return jax.core.eval_jaxpr(after, [], *(x for x, there in zip(weak, used, strict=True) if there), *values)

    params = eqn.params
    if "num_consts" in params:
        consts, carry = params["num_consts"], params["num_carry"]
    else:  # from JAX 0.12 on
        consts, carry = (len(part) for part in params["ft_in"].unpack()[:2])
    inner, rows = params["jaxpr"], len(operands) - consts - carry

    def rows_first(values):
        return [*values[:consts], *values[consts + carry :], *values[consts : consts + carry]]

    def step(*values):
        moved = [*values[:consts], *values[consts + rows :], *values[consts : consts + rows]]
        return [as_array(x) for x in call(inner, *moved)]

    traced = trace(step, rows_first(inner.in_avals))
    length, reverse, unroll = (params[name] for name in ("length", "reverse", "unroll"))
    return TracedScan(traced, consts, rows, length, reverse, unroll, rows_first(operands), finish), plain


def _as_weak_as(x: Any, aval: Any) -> Any:
    """Give an array the weak type that JAX would have given it."""
    return _convert_element_type(x, aval.dtype, weak_type=True) if aval.weak_type else x


def call(jaxpr: Jaxpr, *args: Any) -> list[Any]:
    """Evaluate a jaxpr.

    Args:
        jaxpr: from `trace` or `trace_hoisted`.
        *args: as many arrays as it takes.

    Returns:
        A flat list of arrays.
    """
    return list(jax.extend.core.jaxpr_as_fun(jaxpr)(*args))


def has_custom_vjp(jaxpr: Jaxpr) -> bool:
    """Return whether a function that was pushed forward has a `jax.custom_vjp` inside, which cannot be evaluated so."""
    inner = jaxpr.jaxpr
    nested = (
        x for eqn in inner.eqns for x in jax.tree_util.tree_leaves(eqn.params, is_leaf=lambda x: hasattr(x, "eqns"))
    )
    return any(eqn.primitive.name == "custom_lin" for eqn in inner.eqns) or any(
        has_custom_vjp(x) for x in nested if hasattr(x, "jaxpr") and hasattr(x, "in_avals")
    )


def pruned(jaxpr: Jaxpr, outputs: Sequence[bool]) -> tuple[Jaxpr, list[bool]]:
    """Leave out what the flagged outputs do not depend on; what has an effect stays.

    Args:
        jaxpr: from `trace`, without constants.
        outputs: a flag for each output.

    Returns:
        A jaxpr that takes the inputs still read and gives the flagged outputs; a flag for each input, whether it is.
    """
    inner, read = partial_eval.dce_jaxpr(jaxpr.jaxpr, list(outputs))
    return jax.extend.core.ClosedJaxpr(inner, jaxpr.consts), list(read)


def as_array(x: Any) -> Any:
    """Convert a leaf to a strongly typed array, as Equinox's loops do; an array that is one already is not touched."""
    if isinstance(x, jax.Array) and not jax.typeof(x).weak_type:
        return x
    # jnp.array, not asarray, which would keep the weak type: a Python scalar must not change dtype between two passes.
    return jnp.array(x)


def forward_only_loop(cond_fun: Any, body_fun: Any, init_val: Any, **kwargs: Any) -> Any:
    """Run Equinox's loop that has no reverse mode, for solves that cannot be differentiated."""
    kwargs.pop("checkpoints", None)
    return _equinox_while_loop(cond_fun, body_fun, init_val, kind="lax", **kwargs)


def emit_host_call(ctx: Any, function: Callable[..., Any], operands: Sequence[Any]) -> Any:
    """Lower a call of a Python function, on NumPy arrays; it runs as often as the compiled program gets there.

    Args:
        ctx: JAX's lowering context.
        function: takes NumPy arrays, returns a sequence of them.
        operands: MLIR values.

    Returns:
        MLIR values of the results.
    """
    sharding = _callback_op_sharding(ctx.module_context.axis_context, None, ctx.avals_out)
    results, _, _ = mlir.emit_python_callback(
        ctx,
        lambda *args: tuple(function(*args)),
        None,
        list(operands),
        ctx.avals_in,
        ctx.avals_out,
        has_side_effect=True,
        returns_token=False,
        sharding=sharding,
    )
    return results


def on_one_device(ctx: Any) -> bool:
    """Return whether what is lowered runs in this process, on one device."""
    module = ctx.module_context
    one = isinstance(module.axis_context, ShardingContext) and module.axis_context.num_devices == 1
    return one and not module.lowering_parameters.for_export


def dead_code_rule(primitive: Any, prune: Callable[..., tuple[list[bool], dict[str, Any]]]) -> None:
    """Let JAX leave out outputs of a primitive that nobody reads.

    Args:
        primitive: ours, without effects.
        prune: takes a flag for each output and the primitive's parameters; returns a flag for each input, and the
            parameters that change.
    """

    def rule(used: list[bool], *given: Any) -> tuple[list[bool], Any]:
        # JAX 0.12 hands on which inputs are live, too.
        eqn = given[-1]
        if not any(used):
            return [False] * len(eqn.invars), None
        if all(used):
            return [True] * len(eqn.invars), eqn
        read, changed = prune(used, **eqn.params)
        inputs = [x for x, there in zip(eqn.invars, read, strict=True) if there]
        outputs = [x for x, there in zip(eqn.outvars, used, strict=True) if there]
        return read, eqn.replace(invars=inputs, outvars=outputs, params={**eqn.params, **changed})

    partial_eval.dce_rules[primitive] = rule


DROPS_UNUSED_CARRY = jax.extend.core.primitives.while_p in partial_eval.dce_rules
"""Whether JAX leaves out what a while loop computes in vain (from 0.11 on)."""


def refuse_in_remat(primitive: Any, refuse: Callable[..., None]) -> None:
    """Let `jax.checkpoint` around a primitive that is differentiated call `refuse`, with the primitive's parameters."""

    def rule(saveable: Any, unknown: Any, instantiated: Any, eqn: Any) -> Any:
        del saveable, unknown
        refuse(**eqn.params)
        # As for a primitive without a rule: all of it is computed again.
        kept = [x for x, there in zip(eqn.invars, instantiated, strict=True) if not there and not hasattr(x, "val")]
        return None, eqn, [True] * len(eqn.outvars), [True] * len(eqn.outvars), kept

    partial_eval.partial_eval_jaxpr_custom_rules[primitive] = rule


_transposing: contextvars.ContextVar[bool] = contextvars.ContextVar("adjoint_transposing", default=True)


def to_be_transposed() -> bool:
    """Return whether what is linearised now is to be transposed: not for `jax.linearize` itself."""
    return _transposing.get()


def linearize_knowingly(primitive: Any) -> None:
    """Let `to_be_transposed` tell, while a primitive is linearised by its jvp rule, what for."""

    def rule(is_vjp: bool, nonzeros: Any, *primals: Any, **params: Any) -> Any:
        token = _transposing.set(is_vjp)
        try:
            return fallback_linearize_rule(primitive, is_vjp, nonzeros, *primals, **params)
        finally:
            _transposing.reset(token)

    primitive_linearizations[primitive] = rule


def partial_evaluation(primitive: Any, split: Callable[..., Sequence[Any]]) -> None:
    """Let a primitive be evaluated in part where some of its operands are not known yet.

    Args:
        primitive: ours.
        split: takes the operands that are known (None for the others), all operands, what binds a primitive with its
            operands and parameters for later, and the primitive's parameters; returns the outputs.
    """

    def rule(trace: Any, *tracers: Any, **params: Any) -> Any:
        def stage(primitive, *operands, **params):
            return trace.default_process_primitive(primitive, operands, params)

        return split([t.pval.get_known() for t in tracers], tracers, stage, **params)

    partial_eval.custom_partial_eval_rules[primitive] = rule


def recomputed_in_remat(primitive: Any, without_tangents: Callable[..., tuple[int, int, Any, dict[str, Any]]]) -> None:
    """Let `jax.checkpoint` evaluate a primitive without its tangents, and all of it again when they are known.

    Args:
        primitive: ours, whose last operands and outputs are tangents.
        without_tangents: takes its parameters; returns how many operands and outputs there are before the tangents, and
            the primitive that makes these of those, with its parameters.
    """

    def rule(saveable: Any, unknown: Any, instantiated: Any, eqn: Any) -> Any:
        operands, outputs, plain, params = without_tangents(**eqn.params)
        each = len(eqn.outvars)
        # A literal is there everywhere.
        needed = [x for x, there in zip(eqn.invars, instantiated, strict=True) if not there and not hasattr(x, "val")]
        if any(unknown[:operands]):
            return None, eqn, [True] * each, [True] * each, needed
        if not any(unknown):
            if eqn.effects or saveable(primitive, *(x.aval for x in eqn.invars), **eqn.params) is True:
                return eqn, None, [False] * each, [False] * each, []
            return eqn, eqn, [False] * each, [True] * each, needed
        known = eqn.replace(primitive=plain, invars=eqn.invars[:operands], outvars=eqn.outvars[:outputs], params=params)
        return known, eqn, [k >= outputs for k in range(each)], [True] * each, needed

    partial_eval.partial_eval_jaxpr_custom_rules[primitive] = rule


def let_checks_out(primitive: Any, rule: Callable[..., tuple[list[Any], list[Any]]]) -> None:
    """Let `jax.experimental.checkify` reach into a primitive.

    Args:
        primitive: ours.
        rule: takes which errors are looked for (a keyword, `enabled`), the operands and the primitive's parameters;
            returns what `jax.experimental.checkify.checkify` found inside, and the outputs.
    """

    def reach(*args: Any, **params: Any) -> Any:
        # JAX 0.12 hands on a context, first.
        *context, error, enabled = args[: 3 if _CHECKS_HAVE_CONTEXT else 2]
        found, outputs = rule(*args[len(context) + 2 :], enabled=enabled, **params)
        for one in found:
            leaves, treedef = jax.tree_util.tree_flatten(one)
            raising = jax.make_jaxpr(lambda *x, treedef=treedef: _raised(jax.tree_util.tree_unflatten(treedef, x)))
            error, _ = checkify_jaxpr(*context, raising(*leaves), enabled, error, *leaves)
        return error, outputs

    error_checks[primitive] = reach


_CHECKS_HAVE_CONTEXT = "ctx" in inspect.signature(checkify_jaxpr).parameters


def _raised(error: Any) -> tuple[()]:
    checkify.check_error(error)
    return ()
