"""Probing with few measurements: what is asked of the runner, and what the laws then say."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotune._rows import blank_row
from autotune._survey import MOST_COMPILES, MOST_TIMED, survey, timed_counts
from autotune._trial import Rung, Trial
from profiles._records import AdjointName, Measurement, Status

SLOPE = 1_000_000


class Machine:
    """A runner whose bytes and seconds follow formulas; it writes down what it is asked."""

    def __init__(self, total, *, fails=()):
        self.total = total
        self.fails = fails
        self.asked = []

    def run(self, trials) -> list[Measurement]:
        """Answer each trial from the formulas."""
        return [self._answer(trial) for trial in trials]

    def close(self) -> None:
        """Nothing was started."""

    def _answer(self, trial):
        self.asked.append((trial.rung, trial.checkpoints))
        row = blank_row(trial)
        if trial.checkpoints in self.fails:
            return dataclasses.replace(row, status=Status.FAILED, message="broke")
        if trial.rung is Rung.TRACED:
            return dataclasses.replace(row, peak_bytes=12_345 + SLOPE * trial.checkpoints)
        row = dataclasses.replace(row, compiled_bytes=self.total(trial.checkpoints))
        if trial.rung is Rung.COMPILED:
            return row
        assert row.executed_steps is not None
        assert row.steps is not None
        seconds = 1e-3 * (row.executed_steps - row.steps) + 4e-3 * row.steps
        return dataclasses.replace(row, run_seconds=(seconds,) * 3)

    def counts(self, rung):
        """The counts that were asked for on a rung."""
        return [count for asked, count in self.asked if asked is rung]


def template(**changes):
    """What all trials have in common."""
    base = Trial(
        study="s", problem="m:make", adjoint=AdjointName.OURS, checkpoints=1, steps=200, accepted=200,
        expected_steps=200,
    )  # fmt: skip
    return dataclasses.replace(base, **changes)


def line(count):
    """A program whose bytes are a line in the count."""
    return 50_000_000 + SLOPE * count


def kinked(count):
    """One with a phase that needs no checkpoints."""
    return max(90_000_000, line(count))


@pytest.mark.parametrize("total", [line, kinked])
def test_a_probe_makes_few_measurements_and_predicts_the_rest(total):
    """At most three compiles and four timed counts; bytes and seconds of every other count within a per cent."""
    machine = Machine(total)
    found = survey(machine, template(), bounds=(1, 200))
    assert len(machine.counts(Rung.COMPILED)) <= MOST_COMPILES
    assert len(machine.counts(Rung.RUN)) <= MOST_TIMED
    assert found.bytes.per_checkpoint_bytes == SLOPE
    assert found.seconds is not None
    for count in (1, 2, 7, 30, 45, 100, 150, 200):
        said = found.bytes.at(count)
        assert said is not None
        assert said.likely == pytest.approx(total(count), rel=0.01)
    assert found.seconds.at(500, 200).likely == pytest.approx(1e-3 * 500 + 4e-3 * 200, rel=0.01)
    assert len(found.rows) == len(machine.asked) - len(machine.counts(Rung.TRACED))


def test_memory_alone_times_nothing():
    """`objective="memory"` costs no run."""
    machine = Machine(line)
    found = survey(machine, template(), bounds=(1, 200), timed=0)
    assert found.seconds is None
    assert machine.counts(Rung.RUN) == []


def test_a_contradicted_law_costs_one_more_compile():
    """A total above the chord, which no maximum of lines is, is looked at once more than three times."""
    jump = lambda count: line(count) + (30_000_000 if count > 10 else 0)
    machine = Machine(jump)
    survey(machine, template(), bounds=(1, 200), timed=0)
    assert len(machine.counts(Rung.COMPILED)) == MOST_COMPILES + 1


def test_a_compile_that_fails_ends_the_probe_and_is_a_row():
    """What is known stays, and what is said beside it is said to be extrapolated."""
    machine = Machine(line, fails=(200,))
    found = survey(machine, template(), bounds=(1, 200), timed=0)
    assert [(row.checkpoints, row.status) for row in found.rows] == [(200, Status.FAILED), (1, Status.OK)]
    assert found.bytes.is_extrapolated(10)
    nothing = survey(Machine(line, fails=(1, 200)), template(), bounds=(1, 200), timed=0)
    assert nothing.bytes.at(10) is None


def test_horizons_with_as_many_steps_are_not_timed_apart():
    """A shorter horizon that takes as long to solve parts nothing."""
    machine = Machine(line)
    found = survey(machine, template(), bounds=(1, 200), shorter=template(steps=190, expected_steps=190, horizon=1))
    assert {row.horizon for row in found.rows} == {None}


@given(st.integers(1, 400), st.integers(1, 3000), st.integers(0, 4))
def test_timed_counts_are_within_bounds_and_no_more_than_asked(highest, steps, most):
    """Also for very short and very long solves."""
    work = template(steps=steps, accepted=steps, expected_steps=steps)
    law = survey(Machine(line), work, bounds=(1, highest), timed=0).bytes
    counts = timed_counts(work, law, bounds=(1, highest), budget_bytes=None, most=most)
    assert len(counts) <= most
    assert all(1 <= count <= highest for count in counts)
    assert counts == sorted(set(counts))


def test_counts_beyond_the_budget_are_not_timed():
    """They could not be chosen."""
    law = survey(Machine(line), template(), bounds=(1, 200), timed=0).bytes
    counts = timed_counts(template(), law, bounds=(1, 200), budget_bytes=line(60), most=4)
    assert counts
    assert max(counts) <= 60
    assert timed_counts(template(), law, bounds=(1, 200), budget_bytes=1000, most=4) == []


def test_another_number_of_steps_parts_the_constant():
    """One of the four timed counts is timed at the shorter horizon."""
    machine = Machine(line)
    shorter = template(steps=100, accepted=100, expected_steps=100, horizon=1)
    found = survey(machine, template(), bounds=(1, 200), shorter=shorter)
    timed = [row for row in found.rows if row.run_seconds]
    assert len(timed) == MOST_TIMED
    assert sorted(row.steps or 0 for row in timed) == [100, 200, 200, 200]


def test_diffrax_is_timed_only_where_it_was_compiled():
    """Nothing is interpolated for an adjoint whose bytes are not monotone."""
    machine = Machine(line)
    survey(machine, template(adjoint=AdjointName.DIFFRAX, expected_steps=None), bounds=(1, 200))
    assert set(machine.counts(Rung.RUN)) <= set(machine.counts(Rung.COMPILED))
