"""An explanation where memory runs out: what was predicted, what the device says, and what would have fitted."""

import contextlib
import dataclasses
import math
from collections.abc import Iterator
from typing import Any

from autotune.choosing.recommend import Fit, Recommendation
from autotune.errors import one_line
from autotune.machine.budget import DEFAULT_MARGIN
from autotune.machine.device import DeviceInfo, device_info
from autotune.machine.exhausted import Exhausted, read_exhausted
from autotune.measuring.measure import is_out_of_memory
from autotune.runtime.auto import AutoChoice, choice_of
from autotune.runtime.monitor import StepMonitor, choose_at, work_at
from profiles import format_bytes

SHOWN = 3
"""How many kinds of live arrays are named, the largest first."""
_FIRST_WORDS = "ckpt-tune: memory ran out."


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Prediction:
    """What was predicted of the call: of a choice at run time, of a recommendation, or nothing of a bare adjoint."""

    said: Recommendation | None
    choice: AutoChoice | None
    checkpoints: int | None

    @property
    def argument_bytes(self) -> int:
        """Bytes of the call's arguments, which are within its peak and held already."""
        return max((row.argument_bytes or 0 for row in self.choice.rows), default=0) if self.choice else 0


@contextlib.contextmanager
def explain_memory(chosen: Any = None, *, device: int | None = None) -> Iterator[None]:
    """Explain an exception that says that memory ran out; it is raised on, with one paragraph as a note on it.

        with autotune.explain_memory(adjoint):
            for batch in batches:
                model, loss = step(model, batch)
            jax.block_until_ready(loss)

    The paragraph says what was predicted, what the allocator said, what held the device at that moment, and the budget
    and the count that would have fitted. JAX computes while Python goes on, and raises where a result is waited for:
    wait for the last one inside. Other exceptions pass as they are, and nothing is read before one comes.

    Args:
        chosen: what the training runs with: an adjoint of `auto_adjoint`, an `AutoChoice`, a `StepMonitor`, or a
            `Recommendation`. Of another adjoint nothing was predicted, and the rest is said all the same.
        device: index of the device on jax's default platform; the first where None.
    """
    try:
        yield
    except Exception as error:
        if is_out_of_memory(error) and not any(_FIRST_WORDS in note for note in getattr(error, "__notes__", ())):
            error.add_note(_note(error, chosen, device or 0))
        raise


def _note(error: Exception, chosen: Any, device: int) -> str:
    """Write the paragraph; a device that cannot be read is said to be so, since an explanation must not raise."""
    try:
        return explanation(_exhausted(error), chosen, device_info(device=device))
    except Exception as failed:
        return f"{_FIRST_WORDS} It could not be explained further: {one_line(failed)}"


def _exhausted(error: BaseException) -> Exhausted:
    """Read the figures from the exception, or from what it wraps."""
    found = Exhausted()
    one: BaseException | None = error
    while one is not None and found == Exhausted():
        found = read_exhausted(str(one))
        one = one.__cause__ or one.__context__
    return found


def explanation(said: Exhausted, chosen: Any, info: DeviceInfo) -> str:
    """Write what is known about memory that ran out, as one paragraph.

    Args:
        said: the figures of the exception.
        chosen: as for `explain_memory`.
        info: the device at that moment.
    """
    predicted = _prediction(chosen)
    parts = [_predicted(predicted), _allocator(said, info), _held(info), _fitting(said, predicted, info)]
    return " ".join([_FIRST_WORDS, *filter(None, parts)])


def _prediction(chosen: Any) -> _Prediction:
    if isinstance(chosen, StepMonitor):
        chosen = chosen.choice
    choice = chosen if isinstance(chosen, AutoChoice) else choice_of(chosen)
    said = choice.recommendation if choice is not None else chosen if isinstance(chosen, Recommendation) else None
    count = said.checkpoints if said is not None else getattr(chosen, "checkpoints", None)
    return _Prediction(said=said, choice=choice, checkpoints=count if isinstance(count, int) else None)


def _predicted(prediction: _Prediction) -> str:
    count = "" if prediction.checkpoints is None else f"{prediction.checkpoints} checkpoints"
    said = prediction.said
    if said is None or said.peak_bytes is None:
        return f"Nothing was predicted{f' of {count}' if count else ''}: no choice of autotune's was handed over."
    name = f" of {prediction.choice.problem.name}" if prediction.choice else ""
    return (
        f"Predicted for {count}: {format_bytes(said.peak_bytes)} for one call{name} at {said.case} "
        f"({said.peak_evidence}), within a budget of {format_bytes(said.budget_bytes)}."
    )


def _allocator(said: Exhausted, info: DeviceInfo) -> str:
    """Say what the exception and the backend's statistics say."""
    heard = []
    if said.planned and said.asked_bytes and said.limit_bytes:
        heard.append(
            f"the program needs {format_bytes(said.asked_bytes)} of {format_bytes(said.limit_bytes)}, as it is compiled"
        )
    elif said.asked_bytes is not None:
        heard.append(f"{format_bytes(said.asked_bytes)} more could not be had")
    if said.free_bytes is not None:
        heard.append(f"{format_bytes(said.free_bytes)} were free")
    statistics = info.statistics
    if info.in_use_bytes is not None:
        of = f" of {format_bytes(info.limit_bytes)}" if info.limit_bytes else ""
        peak = statistics.get("peak_bytes_in_use")
        most = f", at most {format_bytes(peak)} so far" if peak else ""
        heard.append(f"{format_bytes(info.in_use_bytes)}{of} are in use{most}")
    elif info.platform == "cpu":
        host = info.host
        heard.append(f"the host has {format_bytes(host.free_bytes)} free of {format_bytes(host.capacity_bytes)}")
    if (largest := statistics.get("largest_free_block_bytes")) is not None:
        heard.append(f"the largest free block has {format_bytes(largest)}")
    return f"The allocator: {'; '.join(heard)}." if heard else ""


def _held(info: DeviceInfo) -> str:
    """Say what held the device: arrays of this process by size, other processes."""
    buffers, total = info.live_buffers, sum(one.total_bytes for one in info.live_buffers)
    heard = ["no live arrays of this process"]
    if buffers:
        named = [f"{one.count} of {one.dtype}{list(one.shape)}, {format_bytes(one.total_bytes)}" for one in buffers]
        more = f"; {len(named) - SHOWN} other kinds" if len(named) > SHOWN else ""
        count = sum(one.count for one in buffers)
        heard = [f"{format_bytes(total)} in {count} live arrays of this process ({'; '.join(named[:SHOWN])}{more})"]
    for one in info.other_processes:
        used = "an unknown number of bytes" if one.used_bytes is None else format_bytes(one.used_bytes)
        heard.append(f"{used} in process {one.pid}")
    return f"Held at that moment: {', '.join(heard)}."


def _fitting(said: Exhausted, predicted: _Prediction, info: DeviceInfo) -> str:
    """Say which budget would have fitted, and which count."""
    left = _left(said, predicted, info)
    if left is None:
        return "What is left for a call is unknown here; choose again with a smaller budget, in bytes."
    peak = predicted.said.peak_bytes if predicted.said is not None else None
    if peak is not None and left >= peak:
        begun = (
            f"{format_bytes(left)} are free for a call now, more than was predicted: "
            "something else took memory in that moment, or the call is not the one that was measured."
        )
        left = peak
    else:
        begun = f"That leaves {format_bytes(left)} for a call, its arguments included."
    budget = math.floor(left * (1 - DEFAULT_MARGIN))
    if budget <= 0:
        return f"{begun} Nothing fits that: free what is held, or shrink state or batch."
    return f"{begun} {_count_within(budget, predicted)}"


def _left(said: Exhausted, predicted: _Prediction, info: DeviceInfo) -> int | None:
    """Count the bytes that a call may have: what is free, and its arguments, which are held already."""
    known = [count for count in (info.free_bytes, said.free_bytes) if count is not None]
    if said.planned and said.limit_bytes is not None:
        known.append(said.limit_bytes)
    return min(known) + predicted.argument_bytes if known else None


def _count_within(budget: int, predicted: _Prediction) -> str:
    asked = f'budget="{_written(budget)}"'
    choice = predicted.choice
    if choice is None or not choice.recommendation.steps:
        return f"With a margin of {DEFAULT_MARGIN:.0%}, {asked} would have fitted; choose again with it."
    before = choice.recommendation
    again = choose_at(choice, work_at(choice, before.steps or 1, before.accepted or before.steps or 1), budget)
    if again.status is not Fit.OK:
        least = "unknown" if again.smallest_bytes is None else format_bytes(again.smallest_bytes)
        return (
            f"No count fits {format_bytes(budget)}, which is that less a margin of {DEFAULT_MARGIN:.0%}: "
            f"the smallest needs {least}. Free what is held, or shrink state or batch."
        )
    return (
        f"With a margin of {DEFAULT_MARGIN:.0%}, {asked} would have fitted: {again.checkpoints} checkpoints, "
        f"{format_bytes(again.peak_bytes or 0)}."
    )


def _written(count: int) -> str:
    """Write bytes as a budget that is no larger: whole MiB, KiB or bytes."""
    for unit, size in (("MiB", 2**20), ("KiB", 2**10)):
        if count >= 10 * size:
            return f"{count // size}{unit}"
    return str(count)
