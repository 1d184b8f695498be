"""At which numbers of checkpoints the compiled program takes another path. Plain integers; loads no JAX.

Between two such counts bytes and seconds follow the schedule; across one they may jump, by a factor of twenty where
steps are small. So whoever compares counts looks at both sides of each.
"""

FEW_SLOTS = 64
"""With more slots than this, no solve that fits 32 bits has a block of more than eight repetitions: the arithmetic of
all slots is cut into two parts from twice as many on."""
LARGEST_SUM = 2048
"""A sweep that adds up more elements than this is not one native function on the CPU."""


def switching_counts(max_steps: int | None = None, *, accepted_from: int | None = None) -> tuple[int, ...]:
    """List the counts at which our adjoint's program becomes another one, each the first of its path.

    Args:
        max_steps: the loop's bound, at least 1; None for none. With as many checkpoints every step has a slot of its
            own, and the program is two plain loops.
        accepted_from: from which count on an adaptive solve is replayed by its accepted steps
            (`adjoint.accepted_steps_from`); None where it never is.

    Returns:
        Rising counts above 1, at most `max_steps`.

    Raises:
        ValueError: for max_steps below 1.
    """
    if max_steps is not None and max_steps < 1:
        raise ValueError(f"max_steps must be at least 1, got {max_steps}.")
    inside = {2, 2 * FEW_SLOTS + 1, LARGEST_SUM + 1}
    inside |= {accepted_from} if accepted_from is not None else set()
    inside |= {max_steps} if max_steps is not None else set()
    return tuple(sorted(count for count in inside if count > 1 and (max_steps is None or count <= max_steps)))
