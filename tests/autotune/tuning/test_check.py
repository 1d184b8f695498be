"""Whether a stored choice still holds: both sides named, by component."""

import dataclasses

import pytest

from autotune import AutotuneError
from autotune.machine.device import versions
from autotune.tuning import stored_choice
from autotune.tuning.request import TuneRequest
from autotune.tuning.tune import run_tune
from profiles import AdjointName, ProblemKey, ProfileStore, open_store
from tests.autotune.fake_lab import FakeLab, Heard, lab

KEY = ProblemKey(
    name="fake:make",
    components={
        "program": "p",
        "source": "s",
        "shapes": "float32[3] float32[7]",
        "versions": "jax 0.10.2 jaxlib 0.10.2",
    },
)


@pytest.fixture
def tuned():
    """A store in which the fake problem was tuned."""
    with open_store("sqlite://") as store:
        run_tune(TuneRequest(problem="fake:make", budget="5MB"), store=store, machine=lab(key=KEY), progress=Heard())
        yield store


def _reasons(store: ProfileStore, machine: FakeLab) -> tuple[str, ...]:
    (checked,) = stored_choice.check_problem("fake:make", adjoint=AdjointName.OURS, asked=machine, store=store)
    return checked.reasons


def test_an_unchanged_problem_holds(tuned: ProfileStore) -> None:
    """With the same code, device and versions there is no reason against the choice."""
    assert _reasons(tuned, lab(key=KEY)) == ()


@pytest.mark.parametrize(
    ("component", "now", "said"),
    [
        ("source", "t", "source of the module: stored s, here t"),
        ("program", "q", "traced program: stored p, here q"),
        ("shapes", "float32[3] float32[9]", "shapes: stored float32[7], here float32[9]"),
        ("versions", "jax 0.11.0 jaxlib 0.10.2", "jax: stored 0.10.2, here 0.11.0"),
    ],
)
def test_a_changed_component_is_named_with_both_sides(tuned: ProfileStore, component: str, now: str, said: str) -> None:
    """Each component that differs is said with what was stored and what is here; equal parts are left out."""
    changed = ProblemKey(name=KEY.name, components={**KEY.components, component: now})
    assert _reasons(tuned, lab(key=changed)) == (said,)


def test_another_version_of_ckpt_tune_makes_our_choices_stale(
    tuned: ProfileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What our adjoint needs follows our version, so a choice of another version does not hold."""
    from autotune.problem import differences

    monkeypatch.setattr(differences, "versions", lambda: {**versions(), "ckpt-tune": "9.9.9"})
    (reason,) = _reasons(tuned, lab(key=KEY))
    assert reason == f"ckpt-tune: stored {versions()['ckpt-tune']}, here 9.9.9"


def test_nothing_chosen_says_what_to_run() -> None:
    """A problem without a choice is an error that names the command."""
    with open_store("sqlite://") as store, pytest.raises(AutotuneError, match="ckpt-tune tune fake:make"):
        stored_choice.check_problem("fake:make", adjoint=AdjointName.OURS, asked=lab(key=KEY), store=store)


def test_a_choice_of_another_device_is_no_choice_here(tuned: ProfileStore) -> None:
    """Choices are per kind of device: on another one the problem has to be tuned first."""

    class Elsewhere(FakeLab):
        def device_info(self):
            return dataclasses.replace(super().device_info(), kind="other-cpu")

    base = lab(key=KEY)
    machine = Elsewhere(base.steps, base.peak_bytes, base.seconds, key=KEY)
    with pytest.raises(AutotuneError, match="other-cpu"):
        stored_choice.check_problem("fake:make", adjoint=AdjointName.OURS, asked=machine, store=tuned)
