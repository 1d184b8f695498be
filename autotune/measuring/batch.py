"""Take a batch of trials through compile, first call and interleaved timing. Plain values, no jax.

Trials of one batch are compiled and called once each, by rising counts (so that each sets a new peak where peaks cannot
be reset), and then timed in rounds: in every round each trial once, the order shuffled anew. A slow minute of the
machine thus falls on all of them alike. Every sample is kept. Rounds go on while they cost next to nothing, since the
shorter a call, the larger the jitter beside it; and they end early where they cost minutes.
"""

import dataclasses
import random
from collections.abc import Sequence
from typing import Any, Protocol

from autotune.measuring.rows import blank_row
from autotune.measuring.trial import Rung, Trial
from profiles import AdjointName, Measurement, Status

CHEAP_SECONDS, MOST_ROUNDS = 0.5, 25
"""Rounds go on until the samples of a batch took so many seconds in all, up to so many rounds."""
DEAR_SECONDS, FEWEST_ROUNDS = 10.0, 2
"""Rounds end where the samples of a batch took so many seconds in all, from so many rounds on."""

Failure = dict[str, Any]
"""`status` and `message` of a trial that failed, as fields of a row."""


class Executor(Protocol):
    """Whoever runs the phases of one trial; `slot` names the trial within its batch."""

    def compile(self, slot: int, trial: Trial) -> tuple[Measurement, bool] | Failure:
        """Compile; the row so far and whether there is anything to call."""
        ...

    def call(self, slot: int, trial: Trial) -> tuple[Measurement, bool] | Failure:
        """Call once, watching memory; the row so far and whether there is anything to time."""
        ...

    def time(self, slot: int, trial: Trial) -> float | Failure:
        """Take one timing sample, in seconds."""
        ...


def run_batch(trials: Sequence[Trial], executor: Executor) -> list[Measurement]:
    """Measure trials; one row each, in their order, whatever happens to them."""
    rows: dict[int, Measurement] = {}
    called: list[int] = []
    for slot in sorted(range(len(trials)), key=lambda slot: trials[slot].checkpoints):
        trial = trials[slot]
        if smaller := _ran_out_below(slot, trials, rows):
            message = f"not run: {smaller} checkpoints of the same program ran out of memory"
            rows[slot] = dataclasses.replace(blank_row(trial), status=Status.OUT_OF_MEMORY, message=message)
            continue
        rows[slot], goes_on = _phase(executor.compile(slot, trial), blank_row(trial))
        if not goes_on or trial.rung is not Rung.RUN:
            continue
        rows[slot], goes_on = _phase(executor.call(slot, trial), rows[slot])
        called += [slot] if goes_on else []
    _time_in_rounds(called, trials, executor, rows)
    return [rows[slot] for slot in range(len(trials))]


def _phase(answer: tuple[Measurement, bool] | Failure, before: Measurement) -> tuple[Measurement, bool]:
    """Take a phase's answer, or lay its failure over the row from before it."""
    if isinstance(answer, dict):
        return dataclasses.replace(before, **answer), False
    return answer


def _ran_out_below(slot: int, trials: Sequence[Trial], rows: dict[int, Measurement]) -> int | None:
    """Find a smaller count of the same program that ran out of memory; ours never needs less at a larger count."""
    mine = trials[slot]
    if mine.adjoint is not AdjointName.OURS:
        return None
    for other, row in rows.items():
        theirs = trials[other]
        same = dataclasses.replace(theirs, checkpoints=mine.checkpoints, repeat=mine.repeat) == mine
        if same and theirs.checkpoints < mine.checkpoints and row.status is Status.OUT_OF_MEMORY:
            return theirs.checkpoints
    return None


def _time_in_rounds(
    slots: Sequence[int], trials: Sequence[Trial], executor: Executor, rows: dict[int, Measurement]
) -> None:
    """Time trials in shuffled rounds, writing samples and failures into `rows`."""
    samples: dict[int, list[float]] = {slot: [] for slot in slots}
    failed: set[int] = set()
    order = random.Random(trials[0].seed if trials else 0)
    for turn in range(MOST_ROUNDS):
        taken = sum(map(sum, samples.values()))
        left = [slot for slot in slots if taken < CHEAP_SECONDS or turn < trials[slot].rounds]
        left = [slot for slot in left if slot not in failed]
        if not left or (turn >= FEWEST_ROUNDS and taken > DEAR_SECONDS):
            break
        order.shuffle(left)
        for slot in left:
            answer = executor.time(slot, trials[slot])
            if isinstance(answer, dict):
                failed.add(slot)
                rows[slot] = dataclasses.replace(rows[slot], **answer)
            else:
                samples[slot].append(answer)
    for slot in slots:
        rows[slot] = dataclasses.replace(rows[slot], run_seconds=tuple(samples[slot]))
