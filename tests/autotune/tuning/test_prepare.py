"""What is found out before the first trial, on a machine of arithmetic: keys, steps, budget, rows that hold."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import pytest

from autotune import AutotuneError
from autotune.errors import ProblemChangedError
from autotune.machine.device import DeviceInfo
from autotune.measuring.rows import VERIFIED
from autotune.measuring.runners import MOST_LANES, ProbeRequest
from autotune.measuring.trial import KeyPlace
from autotune.problem.steps import Observation, SiteSteps
from autotune.search.space import Listed
from autotune.tuning.prepare import (
    NOT_COUNTED,
    SMALL_LOOP_FLAG,
    STEPS_NOTE,
    Failure,
    Prepared,
    prepare,
    reuse,
    study_name,
)
from autotune.tuning.request import TuneRequest
from profiles import AdjointName, Case, ProblemKey, ProfileStore, open_store
from tests.autotune.fake_lab import FakeLab, lab
from tests.autotune.fake_machine import DEVICE, PROBLEM
from tests.autotune.rows import a_row


class Asked(FakeLab):
    """A lab that keeps its questions, and breaks or changes what the test names."""

    def __init__(self, **changes: Any) -> None:
        base = lab()
        super().__init__(base.steps, base.peak_bytes, base.seconds)
        self.keyed: list[ProbeRequest] = []
        self.counted: list[list[ProbeRequest]] = []
        self.broken: dict[int, Exception] = changes.get("broken", {})
        self.seen: dict[str, Any] = changes.get("seen", {})

    def problem_key(self, question: ProbeRequest) -> ProblemKey:
        """Fingerprint, or fail at a width."""
        self.keyed.append(question)
        width = question.set_values.get("width", 0)
        if width in self.broken:
            raise self.broken[width]
        return dataclasses.replace(self.key, components={**self.key.components, "set": f"{width}"})

    def observe_all(self, questions: Sequence[ProbeRequest]) -> list[Observation]:
        """Count, with the changes of the test."""
        self.counted.append(list(questions))
        return [dataclasses.replace(one, **self.seen) for one in super().observe_all(questions)]


@pytest.fixture
def store():
    """A store in memory."""
    with open_store("sqlite://") as opened:
        yield opened


def request(**changes: Any) -> TuneRequest:
    """A tune of two widths at three horizons."""
    listed = Listed(horizons=(5, 10, 20), set_values={"width": (8, 16)})
    return TuneRequest(**{"problem": "fake.module:make", "budget": "5MB", "listed": listed, **changes})


def ready(store: ProfileStore, machine: Asked, asked: TuneRequest | None = None) -> tuple[Prepared, list[str]]:
    """Prepare, and keep what was said."""
    said: list[str] = []
    return prepare(asked or request(), store, machine, said.append), said


def test_a_problem_is_fingerprinted_once_for_each_value_and_counted_once_for_each_case(store: ProfileStore) -> None:
    """Two at a time; the first case of each value tells whether a gradient is taken."""
    machine = Asked()
    prepared, said = ready(store, machine)
    assert [dict(one.set_values)["width"] for one in machine.keyed] == [8, 16]
    assert [len(batch) for batch in machine.counted] == [MOST_LANES] * 3 == [2, 2, 2]
    questions = [question for batch in machine.counted for question in batch]
    assert [one.adjoint for one in questions] == [AdjointName.OURS, None, None] * 2
    assert {one.key_place for one in questions} == {KeyPlace(horizon=5)}
    assert {one.key.components["set"] for one in questions if one.key} == {"8", "16"}
    assert said == [
        "reading fake.module:make",
        "reading fake.module:make",
        "counting steps at horizon 5, width=8 and horizon 10, width=8",
        "counting steps at horizon 20, width=8 and horizon 5, width=16",
        "counting steps at horizon 10, width=16 and horizon 20, width=16",
    ]
    assert [prepared.works[case].steps for case in prepared.cases] == [500, 1000, 2000] * 2
    assert prepared.budget.bytes == 5_000_000
    assert prepared.study == study_name(prepared.keys[(("width", 8),)], prepared.device.key, AdjointName.OURS)
    assert prepared.name == PROBLEM.name
    assert prepared.key_place((("width", 16),)) == KeyPlace(horizon=5)
    assert not prepared.failures


def test_steps_that_were_counted_are_read_from_the_notes(store: ProfileStore) -> None:
    """Of the same problem at the same place; another state of its code is counted anew."""
    first, _ = ready(store, Asked())
    again = Asked()
    second, said = ready(store, again)
    assert again.counted == []
    assert "counting" not in " ".join(said)
    assert second.observations == first.observations
    assert len(store.notes(STEPS_NOTE)) == 6
    edited = Asked()
    edited.key = dataclasses.replace(edited.key, components={**edited.key.components, "source": "new"})
    ready(store, edited)
    assert len(edited.counted) == 3


def test_a_note_from_before_gradients_were_looked_at_is_counted_again(store: ProfileStore) -> None:
    """Only where it is looked at: at the first case of each value."""
    ready(store, Asked(seen={"differentiated": None}))
    again = Asked()
    ready(store, again)
    assert [question.horizon for batch in again.counted for question in batch] == [5, 5]
    forward = Asked()
    ready(store, forward, request(forward_only=True))
    assert forward.counted == []


def test_a_value_at_which_the_problem_cannot_be_read_is_left_out_and_told(store: ProfileStore) -> None:
    """Its cases are failures, with the user's frames; the others go on."""
    machine = Asked(broken={8: AutotuneError("no width 8", frames=("  m.py:3",))})
    prepared, _ = ready(store, machine)
    assert {dict(case.set_values)["width"] for case in prepared.space.cases} == {16}
    assert prepared.failures == {
        Case(h, None, (("width", 8),)): Failure(message="no width 8", frames=("  m.py:3",)) for h in (5, 10, 20)
    }
    assert len(prepared.cases) == 6


def test_where_no_value_can_be_read_the_first_failure_is_the_error(store: ProfileStore) -> None:
    """A problem that was edited ends it at once."""
    with pytest.raises(AutotuneError, match="no width 8") as caught:
        ready(store, Asked(broken={8: AutotuneError("no width 8", frames=("f",)), 16: AutotuneError("no 16")}))
    assert caught.value.frames == ("f",)
    with pytest.raises(ProblemChangedError):
        ready(store, Asked(broken={16: ProblemChangedError("edited")}))


def test_a_case_that_fails_or_takes_no_steps_is_left_out(store: ProfileStore) -> None:
    """What was said there is kept, the frames apart; nothing is noted of it."""

    class Partly(Asked):
        def observe_all(self, questions: Sequence[ProbeRequest]) -> list[Observation]:
            """Fail at horizon 5, take no steps at 10."""
            found = []
            for one in super().observe_all(questions):
                if one.horizon == 5:
                    one = dataclasses.replace(one, sites=(), failure="broke\n  frame 1\n  frame 2")
                if one.horizon == 10:
                    one = dataclasses.replace(one, sites=())
                found.append(one)
            return found

    prepared, _ = ready(store, Partly(), request(listed=Listed(horizons=(5, 10, 20))))
    assert [case.horizon for case in prepared.space.cases] == [20]
    assert prepared.failures == {
        Case(5): Failure(message="broke", frames=("  frame 1", "  frame 2")),
        Case(10): Failure(message="fake:make took no steps at horizon 10; give a longer horizon"),
    }
    assert len(store.notes(STEPS_NOTE)) == 1


def test_arguments_without_data_have_no_steps_and_are_compiled_only(store: ProfileStore) -> None:
    """The note says why nothing was run."""
    prepared, _ = ready(store, Asked(seen={"sites": (), "note": "abstract"}))
    assert prepared.works == {}
    assert len(prepared.space.cells) == 6


def test_a_gradient_that_was_forgotten_is_refused_unless_it_is_meant(store: ProfileStore) -> None:
    """Then no step is visited backwards."""
    with pytest.raises(AutotuneError, match="add --forward-only to measure it as it is"):
        ready(store, Asked(seen={"differentiated": False}))
    prepared, _ = ready(store, Asked(seen={"differentiated": False}), request(forward_only=True))
    assert {work.reversed_steps for work in prepared.works.values()} == {0}


def test_steps_that_cannot_be_observed_are_those_that_the_user_says(store: ProfileStore) -> None:
    """And are asked for where they were not said."""
    hidden = {"reads_counts": True, "sites": (), "note": "hidden"}
    with pytest.raises(AutotuneError, match="say how many steps it takes with --steps N"):
        ready(store, Asked(seen=hidden))
    prepared, _ = ready(store, Asked(seen=hidden), request(steps=70))
    assert {work.steps for work in prepared.works.values()} == {70}
    assert {seen.sites for seen in prepared.observations.values()} == {(SiteSteps(site="--steps", steps=(70,)),)}


def test_a_budget_that_is_none_is_refused_before_anything_is_counted(store: ProfileStore) -> None:
    """No factory is called for it."""
    machine = Asked()
    with pytest.raises(AutotuneError, match="'lots' is not a number of bytes"):
        ready(store, machine, request(budget="lots"))
    assert machine.keyed == []


def test_the_margin_of_auto_is_learnt_from_rows_of_this_very_profile(store: ProfileStore) -> None:
    """Five rows ran with a fifth more than was compiled; those of another adjoint or device teach nothing."""
    prepared, _ = ready(store, Asked())
    key = prepared.keys[(("width", 8),)]
    taught = {"problem": key, "device": prepared.device.key, "compiled_bytes": 80, "run_bytes": 100}
    for number in range(5):
        store.put(a_row(4, 0.5, repeat=number, **{**taught, "adjoint": AdjointName.DIFFRAX}))
        store.put(a_row(4, 0.5, repeat=number, **{**taught, "device": dataclasses.replace(DEVICE, kind="other")}))
    plain, _ = ready(store, Asked(), request(budget="auto"))
    assert plain.budget.margin_bytes == pytest.approx(0.1 * (DEVICE.memory_bytes or 0), abs=1)
    for number in range(5):
        store.put(a_row(4, 0.5, repeat=number, **taught))
    learnt, _ = ready(store, Asked(), request(budget="auto"))
    assert learnt.budget.margin_bytes == pytest.approx(0.2 * (DEVICE.memory_bytes or 0), abs=1)


def test_rows_that_hold_today_are_reused_and_the_others_are_counted_by_their_reason(store: ProfileStore) -> None:
    """Final runs apart; another adjoint, another value and cases that could not be counted are no rows of this tune."""
    prepared, _ = ready(store, Asked())
    key = prepared.keys[(("width", 8),)]
    here = {"problem": key, "device": prepared.device.key, "set_values": {"width": 8}}
    good, final = a_row(4, 0.5, **here), a_row(4, 0.5, **here, study=f"s{VERIFIED}")
    old = dataclasses.replace(key, components={**key.components, "source": "old"})
    away = dataclasses.replace(DEVICE, kind="other")
    stale = [a_row(4, 0.5, **{**here, "problem": old}), a_row(8, 0.5, **{**here, "problem": old})]
    stale += [a_row(4, 0.5, **{**here, "device": away})]
    none = [
        a_row(4, 0.5, **here, adjoint=AdjointName.DIFFRAX),
        a_row(4, 0.5, **here, study=f"s{NOT_COUNTED}"),
        a_row(4, 0.5, **{**here, "set_values": {"width": 99}}),
        a_row(4, 0.5, **{**here, "set_values": {}}),
    ]
    found = reuse(prepared, [*none, *stale, final, good])
    assert (found.rows, found.verified) == ((good,), (final,))
    assert found.stale == {
        "source of the module: stored old, here s": 2,
        f"device: stored other, here {DEVICE.kind}": 1,
    }


def test_flags_that_are_chosen_here_are_none_and_those_that_pay_on_such_a_device(store: ProfileStore) -> None:
    """`auto` stands for both on a CPU, beside what was named; on other devices for none."""
    listed = Listed(xla_flags=("auto", "--mine"))
    prepared = prepare(request(listed=listed), store, lab(), lambda text: None)
    assert [cell.xla_flags for cell in prepared.space.cells] == ["", SMALL_LOOP_FLAG, "--mine"]

    class Elsewhere(FakeLab):
        def device_info(self) -> DeviceInfo:
            return dataclasses.replace(super().device_info(), platform="gpu")

    base = lab()
    machine = Elsewhere(base.steps, base.peak_bytes, base.seconds)
    prepared = prepare(request(listed=Listed(xla_flags=("auto",))), store, machine, lambda text: None)
    assert [cell.xla_flags for cell in prepared.space.cells] == [""]
