"""A loop as data: condition and body traced to jaxprs over flat arrays, what they close over as explicit inputs.

Leaves of the carry fall into three groups. *State* leaves change from pass to pass and are checkpointed. *Buffer*
leaves are write-only (`adjoint.checkpointed_while_loop`, `buffers`) and exist once. Leaves that the body returns
untouched leave the carry and become closed-over values, so that no checkpoint holds them. State leaves that a function
of the others gives (`Derived`) are carried but not stored either.
"""

import contextlib
import contextvars
import dataclasses
import difflib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import equinox as eqx
import jax.lax as lax
import jax.numpy as jnp
import jax.tree_util as jtu

from ..compat import (
    Buffer,
    Jaxpr,
    as_array,
    call,
    plain_struct_of,
    struct_of,
    trace,
    trace_hoisted,
    unvmap_any,
    unvmap_max,
)
from ..tiers.tiers import TierOptions
from ..traced.analysis import Flags, pick, scatter
from ..traced.casts import call_with_casts, casts_of
from ..traced.places import axes_of, varying
from ..traced.select import select_if_batched

within_body: contextvars.ContextVar[bool] = contextvars.ContextVar("adjoint_within_body", default=False)


SMALL_BYTES = 64 * 1024
"""Where no count is given and a solve's states all together are at most so large, all of them are held."""


MOST_CHECKPOINTS = 2**20
"""Checkpoints that bytes buy at most where nothing bounds the steps."""


@dataclasses.dataclass(frozen=True, eq=False)
class Program:
    """What a loop runs; the parameter of our primitives. Compared by identity.

    Inputs of `body`: body consts, state, buffers; outputs: state, buffers. Inputs of `cond`: cond consts, state,
    buffers; output: one unbatched boolean. Inputs of `predict`: predict consts, state; output: one int32, the
    predicted number of steps in all, 0 where it is not known yet. Inputs of `rebuild`: body consts, state with anything
    in the `derived` leaves; outputs: these leaves.
    """

    cond: Jaxpr
    body: Jaxpr
    predict: Jaxpr | None
    rebuild: Jaxpr | None
    cond_consts: int
    body_consts: int
    predict_consts: int
    state: int
    buffers: int
    derived: Flags
    """The state leaves that `rebuild` gives."""
    checkpoints: int
    chosen: bool
    """Somebody named the number of checkpoints."""
    max_steps: int | None
    exact: bool
    """The expected steps are right but for rounding: passing them takes no checkpoints back, which saves compiled
    code."""
    nested: bool
    """Traced inside the body of another of our loops, whose steps alone are watched."""
    windows: TierOptions | None
    """The tier that holds the first states of windows; None where everything is on the device."""
    checkpoint_bytes: int | None = None
    """What checkpoints may take together, where their number follows from it; None where a number was given."""
    counted: Any = None
    """What is known of a loop whose length is (`adjoint.loop.counted.Counted`), None for others."""
    findings: dict[Any, Any] = dataclasses.field(default_factory=dict, repr=False)
    """Answers of `adjoint.traced.analysis`, by question."""

    @property
    def sizes(self) -> tuple[int, ...]:
        """Lengths of the groups of operands: cond, body and predict consts, the expected steps, state, buffers."""
        return self.cond_consts, self.body_consts, self.predict_consts, 1, self.state, self.buffers

    @property
    def stores_everything(self) -> bool:
        """Whether every step has a slot of its own, so that nothing is ever recomputed."""
        return self.max_steps is not None and self.checkpoints >= self.max_steps

    def with_room(self, step_bytes: int) -> "Program":
        """Return the program with as many checkpoints as there is room for, where their number was not given.

        These are as many as `checkpoint_bytes` hold; or one for every step, where nobody chose a count and all of them
        are small.

        Args:
            step_bytes: what is held of one step.

        Raises:
            ValueError: `checkpoint_bytes` do not hold one.
        """
        if self.checkpoint_bytes is not None:
            return dataclasses.replace(self, checkpoints=self._fitting(self.checkpoint_bytes, step_bytes))
        if self.chosen or self.windows is not None or self.max_steps is None:
            return self
        small = self.max_steps * step_bytes <= SMALL_BYTES
        return dataclasses.replace(self, checkpoints=self.max_steps) if small else self

    def _fitting(self, room: int, step_bytes: int) -> int:
        if step_bytes > room:
            raise ValueError(
                f"`checkpoint_bytes={room}` holds no state: one takes {step_bytes} bytes. Ask for at least as many."
            )
        if step_bytes == 0:
            return 1 if self.max_steps is None else self.max_steps
        return min(room // step_bytes, MOST_CHECKPOINTS if self.max_steps is None else self.max_steps)


def groups(values: Sequence[Any], sizes: Sequence[int]) -> list[list[Any]]:
    """Cut a flat sequence into lists of the given lengths."""
    out, start = [], 0
    for size in sizes:
        out.append(list(values[start : start + size]))
        start += size
    return out


def ignoring(jaxpr: Jaxpr | None, before: int, structs: Sequence[Any]) -> Jaxpr | None:
    """Return a function that takes more inputs, behind its first so many, and does not read them; None for none."""
    if jaxpr is None:
        return None
    avals = jaxpr.in_avals
    given = [*avals[:before], *structs, *avals[before:]]
    return trace(lambda *args: call(jaxpr, *args[:before], *args[before + len(structs) :]), given)


@dataclasses.dataclass(frozen=True)
class Derived:
    """Leaves of a carry that are a function of its others at every step, so that no checkpoint holds them.

    `select` takes the carry and returns the nodes; `rebuild` takes the carry, these nodes not to be read, and returns
    what they hold.
    """

    select: Callable[[Any], Any]
    rebuild: Callable[[Any], Any]


@contextlib.contextmanager
def tracing_body() -> Iterator[None]:
    """Mark what is traced inside as part of the body of one of our loops."""
    token = within_body.set(True)
    try:
        yield
    finally:
        within_body.reset(token)


@dataclasses.dataclass(frozen=True)
class _Carry:
    """How a carry flattens: its tree and which of its leaves are buffers."""

    treedef: Any
    is_buffer: Flags

    def wrapped(self, leaves: Sequence[Any], pred: Any, tag: object) -> Any:
        marked = [Buffer(x, pred, tag, False) if b else x for x, b in zip(leaves, self.is_buffer, strict=True)]
        return jtu.tree_unflatten(self.treedef, marked)


def _selected_leaves(treedef: Any, select: Callable | None) -> Flags:
    """Find which leaves a function selects, by handing it a carry whose leaves are their own positions."""
    count = treedef.num_leaves
    if select is None:
        return (False,) * count

    def innermost(node):
        while isinstance(node, Buffer):
            node = node._array
        return node

    nodes = select(jtu.tree_unflatten(treedef, list(range(count))))
    chosen = jtu.tree_map(innermost, nodes, is_leaf=lambda node: isinstance(node, Buffer))
    indices = {leaf for leaf in jtu.tree_leaves(chosen) if isinstance(leaf, int)}
    return tuple(k in indices for k in range(count))


def _check_structure(expected: Any, found: Any) -> None:
    """Raise where the body returned something else than it was given, line by line as a difference."""
    if jtu.tree_structure(expected) == jtu.tree_structure(found) and all(
        plain_struct_of(a) == plain_struct_of(b)
        for a, b in zip(jtu.tree_leaves(expected), jtu.tree_leaves(found), strict=True)
    ):
        return
    before, after = (
        eqx.tree_pformat(jtu.tree_map(plain_struct_of, tree), struct_as_array=True).splitlines()
        for tree in (expected, found)
    )
    difference = "\n".join(line for line in difflib.ndiff(before, after) if not line.startswith("?"))
    raise ValueError(
        "`body_fun` must have the same input and output structure. Difference is:\n"
        + (difference or f"{jtu.tree_structure(expected)} against {jtu.tree_structure(found)}")
    )


def _body_on_leaves(cond_fun: Callable, body_fun: Callable, carry: _Carry, leaves: Sequence[Any]) -> list[Any]:
    """Run the user's body on flat leaves; lanes of a vmap that have finished keep their values."""
    # The condition only selects: nothing is differentiated through it.
    active = jnp.asarray(cond_fun(carry.wrapped([lax.stop_gradient(x) for x in leaves], jnp.array(True), None)))
    tag = object()

    def ours(node):
        return isinstance(node, Buffer) and node._tag is tag

    value = carry.wrapped(leaves, active, tag)
    with tracing_body():
        result = body_fun(value)
    bare = [jtu.tree_map(lambda x: x._array if ours(x) else x, tree, is_leaf=ours) for tree in (value, result)]
    if jtu.tree_structure(value, is_leaf=ours) != jtu.tree_structure(result, is_leaf=ours):
        _check_structure(*bare)
    result = jtu.tree_map(as_array, bare[1])
    _check_structure(bare[0], result)
    return [
        new if new is old or is_buffer else select_if_batched(active, new, old)
        for new, old, is_buffer in zip(jtu.tree_leaves(result), leaves, carry.is_buffer, strict=True)
    ]


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """A leaf of the carry: its kind, `fixed`, `state` or `buffer`, and its position among those of its kind."""

    kind: str
    index: int


@dataclasses.dataclass(frozen=True)
class Loop:
    """A traced loop with its operands, and how to put the result together again."""

    program: Program
    operands: list[Any]
    _carry: _Carry
    _moving: Flags
    _leaves: list[Any]

    def places(self) -> list[Place]:
        """Return where each leaf of the carry went."""
        counts = {"fixed": 0, "state": 0, "buffer": 0}
        found = []
        for moving, is_buffer in zip(self._moving, self._carry.is_buffer, strict=True):
            kind = "fixed" if not moving else "buffer" if is_buffer else "state"
            found.append(Place(kind, counts[kind]))
            counts[kind] += 1
        return found

    def result(self, outputs: Sequence[Any]) -> Any:
        """Rebuild the carry from the state and buffers that the loop returns."""
        changed = [b for b, m in zip(self._carry.is_buffer, self._moving, strict=True) if m]
        state, buffers = outputs[: self.program.state], outputs[self.program.state :]
        merged = scatter(buffers, changed, scatter(state, [not b for b in changed], changed))
        return jtu.tree_unflatten(self._carry.treedef, scatter(merged, self._moving, self._leaves))


def trace_loop(
    cond_fun: Callable[[Any], Any],
    body_fun: Callable[[Any], Any],
    init_val: Any,
    *,
    buffers: Callable[[Any], Any] | None,
    predict: Callable[[Any], Any] | None,
    derived: Derived | None,
    limits: tuple[int, int | None, Any],
    exact: bool,
    chosen: bool = True,
    windows: TierOptions | None = None,
    checkpoint_bytes: int | None = None,
) -> Loop:
    """Trace a loop.

    Args:
        cond_fun: carry to boolean.
        body_fun: carry to carry.
        init_val: the carry, any PyTree of arrays and scalars.
        buffers: carry to the nodes of it that are write-only buffers; None for none.
        predict: carry to int32, the steps it now looks as if the loop will take in all (0: not known
            yet); None for never.
        derived: leaves that need no place in a checkpoint; None for none.
        limits: checkpoints, max_steps, and the expected steps (integer, traced scalar or None).
        exact: whether the expected steps are right but for rounding.
        chosen: whether somebody named the number of checkpoints.
        windows: the tier for first states of windows, None for none.
        checkpoint_bytes: what checkpoints may take together, where their number follows from it; None elsewhere.

    Returns:
        The loop, ready to be bound.

    Raises:
        ValueError: if the body changes the structure, shapes or dtypes of the carry.
    """
    checkpoints, max_steps, expected_steps = limits
    leaves, treedef = jtu.tree_flatten(init_val)
    leaves = [as_array(x) for x in leaves]
    carry = _Carry(treedef, _selected_leaves(treedef, buffers))
    while True:
        structs = [struct_of(x) for x in leaves]
        first, closed_over = trace_hoisted(lambda *args: _body_on_leaves(cond_fun, body_fun, carry, args), structs)
        # Inside `jax.shard_map` what becomes different on each device is so from the beginning.
        wider = [axes_of(a) - axes_of(x) for a, x in zip(first.out_avals, leaves, strict=True)]
        if not any(wider):
            break
        leaves = [varying(x, axes) for x, axes in zip(leaves, wider, strict=True)]
    casts = casts_of(first, len(closed_over))
    if casts:
        # What is the same on every device is let vary once, before the loop, so that its cotangents are summed once.
        within, count = first, len(closed_over)
        cast = [varying(closed_over[k], axes) for k, axes in casts]
        first = trace(lambda *args: call_with_casts(within, casts, count, args), [*closed_over, *cast, *structs])
        closed_over = [*closed_over, *cast]
    inner = first.jaxpr
    moving = tuple(out is not given for out, given in zip(inner.outvars, inner.invars[len(closed_over) :], strict=True))
    fixed = [not m for m in moving]
    is_state = tuple(m and not b for m, b in zip(moving, carry.is_buffer, strict=True))
    is_derived = pick(_selected_leaves(treedef, None if derived is None else derived.select), is_state)
    is_moving_buffer = tuple(m and b for m, b in zip(moving, carry.is_buffer, strict=True))

    def ordered(args: Sequence[Any]) -> list[Any]:
        """Put (fixed leaves, state, buffers) back into the order of the carry."""
        held, state, write_only = groups(args, (sum(fixed), sum(is_state), sum(is_moving_buffer)))
        return scatter(
            held, fixed, scatter(state, is_state, scatter(write_only, is_moving_buffer, [None] * len(leaves)))
        )

    def body(*args):
        consts, rest = args[: len(closed_over)], args[len(closed_over) + len(rebuild_closed) :]
        outputs = call(first, *consts, *ordered(rest))
        return pick(outputs, is_state) + pick(outputs, is_moving_buffer)

    def cond(*args):
        done = jnp.array(True)
        out = unvmap_any(cond_fun(carry.wrapped(ordered(args), done, None)))
        return [out]

    def prediction(*args):
        assert predict is not None
        out = predict(carry.wrapped(ordered([*args, *moving_buffers]), jnp.array(True), None))
        return [unvmap_max(jnp.asarray(out, jnp.int32))]

    def rebuilding(*args):
        assert derived is not None
        nodes = derived.rebuild(carry.wrapped(ordered([*args, *moving_buffers]), jnp.array(True), None))
        return pick([as_array(x) for x in jtu.tree_leaves(nodes)], derived_and_moving)

    held, state, moving_buffers = pick(leaves, fixed), pick(leaves, is_state), pick(leaves, is_moving_buffer)
    derived_and_moving = pick(is_state, _selected_leaves(treedef, None if derived is None else derived.select))
    rebuild_jaxpr, rebuild_closed = None, []
    if any(is_derived):
        of_its_own, rebuild_closed = trace_hoisted(rebuilding, [*held, *state])
        rebuild_jaxpr = trace(
            lambda *args: call(of_its_own, *args[len(closed_over) :]), [*closed_over, *rebuild_closed, *held, *state]
        )
    body_jaxpr, none = trace_hoisted(body, [*closed_over, *rebuild_closed, *held, *state, *moving_buffers])
    assert not none
    cond_jaxpr, cond_closed = trace_hoisted(cond, [*held, *state, *moving_buffers])
    predict_jaxpr, predict_closed = (None, [])
    if predict is not None:
        predict_jaxpr, predict_closed = trace_hoisted(prediction, [*held, *state])
    # The fixed leaves follow what each function closes over.
    cond_consts = [*map(lax.stop_gradient, [*cond_closed, *held])]
    predict_consts = [*map(lax.stop_gradient, [*predict_closed, *held])] if predict_jaxpr is not None else []
    body_consts = [*closed_over, *rebuild_closed, *held]
    expected = unvmap_max(jnp.asarray(0 if expected_steps is None else expected_steps, jnp.int32))
    program = Program(
        cond=cond_jaxpr,
        body=body_jaxpr,
        predict=predict_jaxpr,
        rebuild=rebuild_jaxpr,
        cond_consts=len(cond_consts),
        body_consts=len(body_consts),
        predict_consts=len(predict_consts),
        state=len(state),
        buffers=len(moving_buffers),
        derived=tuple(is_derived),
        checkpoints=checkpoints,
        chosen=chosen,
        max_steps=max_steps,
        exact=exact,
        nested=within_body.get(),
        windows=None if max_steps is not None and checkpoints >= max_steps else windows,
        checkpoint_bytes=checkpoint_bytes,
    )
    operands = [*cond_consts, *body_consts, *predict_consts, expected, *state, *moving_buffers]
    return Loop(program, operands, carry, moving, leaves)
