"""Steps that are taped together: how a loop of known length divides its bytes between states and tapes.

A step that is reversed by itself is evaluated once more for its tape. Where a run of `block` steps is reversed at
once, the evaluation that fetches its states leaves their tapes too, so that nothing is evaluated a third time: a scan
of about sqrt(n) blocks, each a `jax.checkpoint`, does so, and people write it by hand. Here blocks are what the
binomial schedule is made of: its steps are blocks, its checkpoints stand between them, and both share one budget. A
block of one step is the schedule of `adjoint.theory.schedule`; one block for everything keeps every tape.
"""

import math
from collections.abc import Iterator

from .schedule import executed_steps

FEW = 64
"""Blocks up to this size are all looked at; larger ones at a fiftieth apart."""


def block_steps(steps: int, checkpoints: int, block: int) -> int:
    """Count the body evaluations of a loop that is reversed block by block.

    Args:
        steps: steps of the loop, at least 1.
        checkpoints: states held between blocks, the initial one included, at least 1.
        block: steps that are taped together, at least 1; the last block may be shorter.

    Returns:
        2 * steps plus what is replayed, which is always whole blocks: the last one never is.
    """
    blocks = -(-steps // block)
    return 2 * steps + block * (executed_steps(blocks, min(checkpoints, blocks), blocks) - 2 * blocks)


def divide(steps: int, checkpoints: int, tape: float) -> tuple[int, int]:
    """Divide the bytes of some states between states and tapes, so that the fewest steps are executed.

    Args:
        steps: steps of the loop, at least 1.
        checkpoints: states that may be held at once, the initial one included, at least 1.
        tape: what the tape of a step takes, in states. That of the one step at hand is not counted.

    Returns:
        The steps of a block, and the states held between blocks. Of several equally good ones, the smallest in bytes.
    """
    best = None
    for block in _sizes(steps):
        tapes = math.ceil(tape * (block - 1))
        if tapes >= checkpoints:
            break
        held = min(checkpoints - tapes, -(-steps // block))
        cost = block_steps(steps, held, block), held + tapes
        if best is None or cost < best[0]:
            best = cost, (block, held)
    assert best is not None
    return best[1]


def _sizes(steps: int) -> Iterator[int]:
    size = 1
    while size <= steps:
        yield size
        size += 1 if size < FEW else size // 50
    if size - 1 != steps and steps >= FEW:
        yield steps
