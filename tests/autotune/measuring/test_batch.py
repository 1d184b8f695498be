"""How a batch of trials is taken through its phases, with an executor that only pretends."""

import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotune.measuring import batch
from autotune.measuring.batch import run_batch
from autotune.measuring.rows import blank_row
from autotune.measuring.trial import Rung, Trial
from profiles import AdjointName, Measurement, Status

FAILED = {"status": Status.FAILED, "message": "broke"}
OOM = {"status": Status.OUT_OF_MEMORY, "message": "RESOURCE_EXHAUSTED"}


def trial(checkpoints, **changes):
    """A trial of a pretended problem."""
    return Trial(study="s", problem="m:make", adjoint=AdjointName.OURS, checkpoints=checkpoints, **changes)


class Pretender:
    """Writes down what it is asked; `breaks` says which phase of which count fails, and how."""

    def __init__(self, **breaks):
        self.breaks = breaks
        self.log = []

    def _phase(self, phase, trial):
        self.log.append((phase, trial.checkpoints))
        return self.breaks.get(f"{phase}{trial.checkpoints}")

    def compile(self, slot, trial) -> tuple[Measurement, bool] | dict:
        """Compile: 1000 bytes a checkpoint."""
        row = dataclasses.replace(blank_row(trial), peak_bytes=1000 * trial.checkpoints)
        return self._phase("compile", trial) or (row, trial.rung is Rung.RUN)

    def call(self, slot, trial) -> tuple[Measurement, bool] | dict:
        """Call."""
        row = dataclasses.replace(blank_row(trial), peak_bytes=1000 * trial.checkpoints, run_bytes=7)
        return self._phase("call", trial) or (row, True)

    def time(self, slot, trial) -> float | dict:
        """Time: as many seconds as there were requests."""
        return self._phase("time", trial) or float(len(self.log))


@pytest.fixture(autouse=True)
def as_many_rounds_as_asked(monkeypatch):
    """Whatever a pretended second costs; two tests say what it changes."""
    monkeypatch.setattr(batch, "CHEAP_SECONDS", 0.0)
    monkeypatch.setattr(batch, "DEAR_SECONDS", math.inf)


def test_rounds_go_on_while_they_cost_next_to_nothing(monkeypatch):
    """The samples take 3, 4, 5, … seconds: 12 after three of them; and no longer than the most rounds."""
    monkeypatch.setattr(batch, "CHEAP_SECONDS", 12.0)
    (row,) = run_batch([trial(1, rounds=1)], Pretender())
    assert row.run_seconds == (3.0, 4.0, 5.0)
    monkeypatch.setattr(batch, "CHEAP_SECONDS", math.inf)
    (row,) = run_batch([trial(1, rounds=1)], Pretender())
    assert len(row.run_seconds) == batch.MOST_ROUNDS


def test_rounds_end_where_they_cost_minutes_but_not_before_the_second(monkeypatch):
    """The first sample alone takes three seconds."""
    monkeypatch.setattr(batch, "DEAR_SECONDS", 1.0)
    (row,) = run_batch([trial(1, rounds=9)], Pretender())
    assert len(row.run_seconds) == batch.FEWEST_ROUNDS


def test_trials_are_called_by_rising_count_and_answered_in_their_order():
    """Where peaks cannot be reset, each call must set a new one; the caller gets rows as it asked."""
    pretender = Pretender()
    rows = run_batch([trial(9), trial(2), trial(5)], pretender)
    assert [row.checkpoints for row in rows] == [9, 2, 5]
    assert [entry for entry in pretender.log if entry[0] == "call"] == [("call", 2), ("call", 5), ("call", 9)]


@given(st.lists(st.integers(1, 50), min_size=1, max_size=6, unique=True), st.integers(1, 6), st.integers(0, 99))
def test_every_round_times_every_trial_once_and_every_sample_is_kept(counts, rounds, seed):
    """Rounds interleave the trials, so that a slow minute falls on all of them."""
    pretender = Pretender()
    rows = run_batch([trial(c, rounds=rounds, seed=seed) for c in counts], pretender)
    timed = [count for phase, count in pretender.log if phase == "time"]
    for turn in range(rounds):
        assert sorted(timed[turn * len(counts) : (turn + 1) * len(counts)]) == sorted(counts)
    assert all(len(row.run_seconds) == rounds for row in rows)
    assert len({seconds for row in rows for seconds in row.run_seconds}) == rounds * len(counts)


def test_the_order_within_rounds_is_shuffled_and_repeatable():
    """The seed decides, so a sweep can be repeated; rounds differ from each other."""

    def orders(seed):
        pretender = Pretender()
        run_batch([trial(c, rounds=8, seed=seed) for c in range(1, 7)], pretender)
        timed = [count for phase, count in pretender.log if phase == "time"]
        return [tuple(timed[i : i + 6]) for i in range(0, 48, 6)]

    assert orders(1) == orders(1) != orders(2)
    assert len(set(orders(1))) > 1


def test_trials_with_fewer_rounds_stop_earlier():
    """Each trial gets as many samples as it asked for."""
    rows = run_batch([trial(1, rounds=2), trial(2, rounds=5)], Pretender())
    assert [len(row.run_seconds) for row in rows] == [2, 5]


@pytest.mark.parametrize("phase", ["compile", "call", "time"])
def test_a_failure_in_any_phase_is_a_row_and_the_others_go_on(phase):
    """One bad trial costs itself only."""
    rows = run_batch([trial(1, rounds=3), trial(2, rounds=3), trial(3, rounds=3)], Pretender(**{f"{phase}2": FAILED}))
    assert [row.status for row in rows] == [Status.OK, Status.FAILED, Status.OK]
    assert rows[1].message == "broke"
    assert [len(row.run_seconds) for row in rows] == [3, 0, 3]


def test_samples_taken_before_a_failure_are_kept():
    """They are measurements all the same."""

    class BreaksLater(Pretender):
        def time(self, slot, trial) -> float | dict:
            return FAILED if len(self.log) > 4 else super().time(slot, trial)

    (row,) = run_batch([trial(1, rounds=9)], BreaksLater())
    assert row.status is Status.FAILED
    assert len(row.run_seconds) == 3


def test_what_was_compiled_stands_when_the_call_fails():
    """Compiled bytes of a trial that ran out of memory are what the next choice is made from."""
    (row,) = run_batch([trial(4)], Pretender(call4=OOM))
    assert row.status is Status.OUT_OF_MEMORY
    assert row.peak_bytes == 4000


def test_out_of_memory_rules_out_larger_counts_of_our_adjoint_unrun():
    """Ours never needs less at a larger count; the row names the count that failed."""
    pretender = Pretender(call3=OOM)
    rows = run_batch([trial(8), trial(3), trial(2)], pretender)
    assert [row.status for row in rows] == [Status.OUT_OF_MEMORY, Status.OUT_OF_MEMORY, Status.OK]
    assert rows[0].message == "not run: 3 checkpoints of the same program ran out of memory"
    assert ("compile", 8) not in pretender.log


@pytest.mark.parametrize("change", [{"adjoint": AdjointName.DIFFRAX}, {"horizon": 5}, {"set_values": {"a": 1}}])
def test_out_of_memory_rules_out_nothing_of_another_program_or_of_diffrax(change):
    """Diffrax's bytes are not monotone, and another horizon is another program."""
    smaller, larger = trial(3), dataclasses.replace(trial(8), **change)
    if "adjoint" in change:
        smaller = dataclasses.replace(smaller, **change)
    rows = run_batch([smaller, larger], Pretender(call3=OOM))
    assert [row.status for row in rows] == [Status.OUT_OF_MEMORY, Status.OK]


def test_compile_only_trials_are_neither_called_nor_timed():
    """A rung is how far a trial goes."""
    pretender = Pretender()
    run_batch([trial(1, rung=Rung.COMPILED), trial(2)], pretender)
    assert ("call", 1) not in pretender.log
    assert ("call", 2) in pretender.log


def test_no_trials_are_no_rows():
    """An empty batch is done at once."""
    assert run_batch([], Pretender()) == []
