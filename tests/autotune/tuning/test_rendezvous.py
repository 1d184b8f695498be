"""Threads whose trials are measured in one call: each gets its own row, and none waits for one that left."""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from autotune.measuring.trial import Trial
from autotune.tuning.rendezvous import Rendezvous
from profiles import AdjointName, Measurement
from tests.autotune.rows import a_row


def trial(checkpoints: int) -> Trial:
    """A trial of a pretended problem."""
    return Trial(study="s", problem="m:make", adjoint=AdjointName.OURS, checkpoints=checkpoints)


class Runner:
    """Answers with a row for each trial, and keeps what it was asked at once."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.calls: list[list[int]] = []
        self.error = error

    def __call__(self, trials: Sequence[Trial]) -> list[Measurement]:
        """Answer, or raise."""
        self.calls.append([one.checkpoints for one in trials])
        if self.error is not None:
            raise self.error
        return [a_row(one.checkpoints, 0.5) for one in trials]


def test_each_thread_gets_the_row_of_its_own_trial_from_one_call() -> None:
    """Whatever the order in which they come."""
    runner = Runner()
    meeting = Rendezvous(3, runner)
    with ThreadPoolExecutor(3) as pool:
        rows = list(pool.map(lambda count: meeting.bring(trial(count)), (4, 16, 64)))
    assert [row.checkpoints for row in rows] == [4, 16, 64]
    assert [sorted(call) for call in runner.calls] == [[4, 16, 64]]
    meeting.check()


def test_a_thread_that_leaves_is_not_waited_for() -> None:
    """Before the others came, and as the last one."""
    early = Runner()
    meeting = Rendezvous(2, early)
    meeting.leave()
    assert early.calls == []
    assert meeting.bring(trial(4)).checkpoints == 4
    late = Runner()
    meeting = Rendezvous(2, late)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(meeting.bring, trial(8))
        while not meeting._trials:
            threading.Event().wait(0.001)
        assert late.calls == []
        meeting.leave()
        assert waiting.result(timeout=10).checkpoints == 8
    assert late.calls == [[8]]


def test_where_all_leave_nothing_is_measured() -> None:
    """No trial, no call."""
    runner = Runner()
    meeting = Rendezvous(2, runner)
    meeting.leave()
    meeting.leave()
    assert runner.calls == []
    meeting.check()


@pytest.mark.parametrize("error", [RuntimeError("broke"), KeyboardInterrupt()])
def test_what_measuring_raises_is_raised_in_every_thread_and_when_asked(error: BaseException) -> None:
    """An interrupt too."""
    meeting = Rendezvous(2, Runner(error))
    with ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(meeting.bring, trial(count)) for count in (4, 8)]
        for one in waiting:
            assert one.exception(timeout=10) is error
    with pytest.raises(type(error)):
        meeting.check()
