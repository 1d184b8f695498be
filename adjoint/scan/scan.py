"""The checkpointed scan as its users call it: arguments checked, `f` traced by JAX's own scan, the loop bound."""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.lax as lax
import jax.tree_util as jtu

from ..compat import TracedScan, trace_scan
from ..loop.observe import observer, report_steps
from ..loop.placement import NEVER
from ..loop.primitive import loop_p
from ..loop.program import tracing_body, within_body
from ..theory.limits import Count, asked_for, count_and_room, integer
from ..tiers.tiers import TierName, TierOptions, tier_options
from ..traced.analysis import is_inexact
from .scanned import Scanned

Carry = TypeVar("Carry")
X = TypeVar("X")
Y = TypeVar("Y")


def checkpointed_scan(
    f: Callable[[Carry, X], tuple[Carry, Y]],
    init: Carry,
    xs: X | None = None,
    length: int | None = None,
    *,
    reverse: bool = False,
    unroll: int | bool = 1,
    checkpoints: Count | None = None,
    checkpoint_bytes: int | str | None = None,
    expected_steps: Any = None,
    tier: TierName | None = None,
    windows: int | None = None,
    tier_bytes: int | None = None,
    directory: str | None = None,
    transfer_cost: float = 1.0,
) -> tuple[Carry, Y]:
    """Scan a function over leading array axes as `jax.lax.scan`, holding a fixed number of its states for the gradient.

    The same arguments, results and errors, which are JAX's own. The backward pass recomputes what was not held, by the
    optimal schedule for this length. Rows of `xs` are read one by one and their cotangents written one by one; `ys`
    exist once, in no checkpoint. Some of the bytes of `checkpoints` states go to the tapes of blocks of steps, where so
    fewer steps are executed than with states alone. Where they suffice for the tapes of all steps, and where there is a
    checkpoint for every step, the gradient is that of `jax.lax.scan`.

    Forward mode and all nestings with one reverse pass go through it, as through `adjoint.checkpointed_while_loop`.

    Args:
        f: takes the carry and a row of `xs`; returns the carry and a row of `ys`.
        init: the carry, any PyTree of arrays.
        xs: any PyTree of arrays with the same leading axis, or None.
        length: steps; needed where `xs` has no arrays.
        reverse: begin with the last row.
        unroll: as `jax.lax.scan` takes it. It counts where nothing is recomputed: without a gradient, and with
            everything held.
        checkpoints: as many states of the carry as the backward pass may hold bytes of, the initial one included, at
            least 1. "all", or as many as steps: hold what the derivative of every step needs, as `jax.lax.scan` does,
            which may be more than the states. None: `default_checkpoints(length)`, or "all" where that takes at most 64
            KiB.
        checkpoint_bytes: in the place of `checkpoints`, what they may take: bytes, or a text such as "2GiB". A state is
            that of the scan which is differentiated: under `grad` of `jax.vmap` that of the whole batch, under
            `jax.vmap` of `grad` that of one lane; under `jax.shard_map` that of one shard.
        expected_steps: not read, for the length is known. It is there so that what was tuned can be handed on:
            `checkpointed_scan(..., checkpoints=adjoint.checkpoints, expected_steps=adjoint.expected_steps)`.
        tier: hold first states of windows in "host" memory or in a file on "disk"; this and the following are as in
            `adjoint.checkpointed_while_loop`.
        windows: states that the tier may hold at once.
        tier_bytes: bytes that the tier may hold at once.
        directory: where the file of `tier="disk"` lies.
        transfer_cost: seconds of handing over and fetching one state over those of one step.

    Returns:
        The final carry, and rows of what `f` returned beside it, stacked.

    Raises:
        TypeError: as `jax.lax.scan`: `f` changes the type of the carry or returns no pair.
        ValueError: as `jax.lax.scan`: lengths that disagree, or none; and for fewer than one checkpoint, bytes for less
            than one, or a tier that cannot be had.
    """
    asked = asked_for(checkpoints, checkpoint_bytes)
    options = tier_options(tier, windows, tier_bytes, directory, transfer_cost)
    if expected_steps is not None and not isinstance(expected_steps, jax.Array):
        integer("expected_steps", expected_steps)
    watched = observer() is not None and not within_body.get()
    if asked == "all" and not watched:
        return lax.scan(f, init, xs, length, reverse, unroll)
    leaves, treedef = jtu.tree_flatten((init, xs))
    trees: list[Any] = []

    def flat(*leaves):
        init, xs = jtu.tree_unflatten(treedef, leaves)
        with tracing_body():
            found = lax.scan(f, init, xs, length, reverse, unroll)
        outputs, tree = jtu.tree_flatten(found)
        trees.append(tree)
        return outputs

    scan, plain = trace_scan(flat, leaves)
    outputs = plain() if scan is None or scan.length == 0 else scan.finish(_run(scan, asked, options, watched))
    return jtu.tree_unflatten(trees[0], outputs)


def _run(scan: TracedScan, asked: Any, windows: TierOptions | None, watched: bool) -> list[Any]:
    """Run a traced scan; returns the carry and ys."""
    scanned = Scanned(
        step=scan.step,
        rows=(False,) * scan.consts + (True,) * scan.rows,
        length=scan.length,
        reverse=scan.reverse,
        unroll=scan.unroll,
    )
    if scan.length >= NEVER:
        raise ValueError(f"Steps are counted in 32 bits; a checkpointed scan cannot make {scan.length} of them.")
    checkpoints, room = count_and_room(asked, scan.length)
    count = min(checkpoints, scan.length)
    program = scanned.program(
        checkpoints=count,
        checkpoint_bytes=room,
        chosen=asked is not None,
        nested=within_body.get(),
        windows=None if count >= scan.length else windows,
    )
    operands = scanned.operands(scan.operands)
    watcher = observer()
    if watched and watcher is not None:
        operands = [lax.stop_gradient(x) if is_inexact(jax.typeof(x)) else x for x in operands]
        report_steps(watcher, scan.length, scan.length)
    return loop_p.bind(*operands, program=program)[1:]
