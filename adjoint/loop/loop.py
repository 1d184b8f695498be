"""The checkpointed while loop as its users call it: arguments checked, functions traced, the loop bound."""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from ..theory.limits import Count, asked_for, count_and_room, integer
from ..tiers.tiers import TierName, TierOptions, tier_options
from .placement import NEVER
from .primitive import bind_loop
from .program import Derived, Loop, trace_loop

T = TypeVar("T")


def checkpointed_while_loop(
    cond_fun: Callable[[T], Any],
    body_fun: Callable[[T], T],
    init_val: T,
    *,
    checkpoints: Count | None = None,
    checkpoint_bytes: int | str | None = None,
    max_steps: int | None = None,
    expected_steps: Any = None,
    buffers: Callable[[T], Any] | None = None,
    tier: TierName | None = None,
    windows: int | None = None,
    tier_bytes: int | None = None,
    directory: str | None = None,
    transfer_cost: float = 1.0,
) -> T:
    """Run a while loop that can be differentiated in reverse mode, holding a fixed number of its states.

    As `jax.lax.while_loop`; gradients with respect to `init_val` and to everything that the functions close over. The
    backward pass recomputes the states that were not held, by the binomial schedule of Griewank and Walther (2000).
    Forward mode (`jax.jvp`, `jax.jacfwd`, `jax.linearize`) is one loop with tangents, which stores nothing. Both nest,
    with at most one reverse pass among them: for Hessians forward over reverse, or reverse over forward.
    Stands in for `equinox.internal.while_loop(kind="checkpointed")`.

    Args:
        cond_fun: takes the carry, returns a boolean scalar: whether to make another step.
        body_fun: takes the carry, returns one of the same structure, shapes and dtypes.
        init_val: the carry, any PyTree of arrays and Python scalars.
        checkpoints: states held at once, the initial state included, at least 1. Each costs the bytes of the carry's
            changing leaves, buffers apart. "all": one for each of `max_steps`. None: `default_checkpoints(max_steps)`,
            or one for every step where all states together take at most 64 KiB.
        checkpoint_bytes: in the place of `checkpoints`, what all of them may take: bytes, or a text such as "2GiB". As
            many are held as fit, at most `max_steps`. A state is that of the loop which is differentiated: under
            `grad` of `jax.vmap` that of the whole batch, under `jax.vmap` of `grad` that of one lane, so that all
            lanes together take as many times the bytes; under `jax.shard_map` that of one shard.
        max_steps: bound on the number of steps, None for none. Needed where no checkpoints are named, and for "all".
            Steps are counted in 32 bits, so one of 2**31 or more is none.
        expected_steps: a prediction of how many steps will be made, an int or a traced integer scalar (a new value is
            no new compile; under `vmap` the largest over the lanes counts). It never changes the result, only where
            checkpoints are placed: being right saves the last few to 35 % of the steps, being wrong costs time only.
        buffers: takes the carry, returns the nodes of it that are write-only buffers: no location may be written twice,
            none may be read before it is written (neither is checked, and gradients would be wrong). They are kept
            once, not in every checkpoint.
        tier: cut the loop into windows whose first states live elsewhere: "host" memory (GPU and TPU) or a file on
            "disk". None for none. The gradient is the same; each window is reversed with all `checkpoints`.
        windows: states that the tier may hold at once, at least 1; this or `tier_bytes` goes with a tier.
        tier_bytes: bytes that the tier may hold at once, at least one state.
        directory: where the file of `tier="disk"` lies. It has no name there and is gone with the process. Its space is
            reserved when the first state is handed over.
        transfer_cost: seconds of handing over and fetching one state over those of one step; the larger, the fewer
            windows.

    Returns:
        The final carry.

    Raises:
        ValueError: fewer than one checkpoint, or bytes for less than one; neither checkpoints nor `max_steps`;
            `max_steps` not an integer or negative; a body that changes the carry's structure, shapes or dtypes; a tier
            that cannot be had.
        NotImplementedError: on reverse over reverse; with `tier="disk"`, on `vmap` of `grad` (`grad` of `vmap` works)
            and on forward over reverse (reverse over forward works).
    """
    return checkpointed_loop(
        cond_fun,
        body_fun,
        init_val,
        limits=(asked_for(checkpoints, checkpoint_bytes), max_steps, expected_steps),
        buffers=buffers,
        windows=tier_options(tier, windows, tier_bytes, directory, transfer_cost),
    )


def checkpointed_loop(
    cond_fun: Callable[[T], Any],
    body_fun: Callable[[T], T],
    init_val: T,
    *,
    limits: tuple[Any, int | None, Any],
    buffers: Callable[[T], Any] | None,
    predict: Callable[[T], Any] | None = None,
    derived: Derived | None = None,
    exact: bool = False,
    windows: TierOptions | None = None,
    bind: Callable[[Loop], Any] | None = None,
) -> T:
    """Run `checkpointed_while_loop` with a prediction that is revised on the way.

    Args:
        cond_fun: as there.
        body_fun: as there.
        init_val: as there.
        limits: how many states may be held (`adjoint.theory.limits.asked_for`), max_steps and expected_steps, as there.
        buffers: as there.
        predict: takes the carry (buffers not to be read), returns how many steps it now looks as if the loop will make
            in all, an integer scalar, 0 where that is not known yet. None for never.
        derived: leaves that checkpoints need not hold; None for none.
        exact: whether `expected_steps` is right but for rounding.
        windows: the tier for first states of windows, None for none.
        bind: runs the traced loop and returns the final carry; `bind_loop` where it is None.

    Returns:
        The final carry.

    Raises:
        ValueError: as there.
    """
    asked, max_steps, expected_steps = limits
    chosen = asked is not None
    checkpoints, max_steps, room = _checked(asked, max_steps)
    if max_steps == 0:
        return jax.tree_util.tree_map(jnp.array, init_val)
    if max_steps is not None:
        checkpoints = min(checkpoints, max_steps)
    loop = trace_loop(
        cond_fun,
        body_fun,
        init_val,
        buffers=buffers,
        predict=predict,
        derived=derived,
        limits=(checkpoints, max_steps, expected_steps),
        exact=exact,
        chosen=chosen,
        windows=windows,
        checkpoint_bytes=room,
    )
    return (bind_loop if bind is None else bind)(loop)


def _checked(asked: Any, max_steps: Any) -> tuple[int, int | None, int | None]:
    """Check the user's limits.

    Returns:
        The count of checkpoints, the bound on steps, None where there is none, and the bytes that decide the count,
        None where it was given.
    """
    if max_steps is not None:
        max_steps = integer("max_steps", max_steps)
        if max_steps < 0:
            raise ValueError(f"`max_steps` must be at least 0, got {max_steps}.")
    checkpoints, room = count_and_room(asked, max_steps)
    # Steps are counted in 32 bits; no loop gets so far as a bound beyond them.
    return checkpoints, max_steps if max_steps is None or max_steps < NEVER else None, room
