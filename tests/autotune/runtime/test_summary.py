"""A choice as one flat dict: plain values only, whatever it is made from."""

import dataclasses
import json

import pytest

import autotune
from adjoint import RecursiveCheckpointAdjoint
from autotune import AutotuneError
from profiles import Case, Tier, read_values
from tests.autotune.runtime.test_monitor import choice_of


def test_it_is_flat_and_every_value_is_a_number_or_a_word() -> None:
    """What a logger's column can hold, with `set_values` by their keys and without what is not known."""
    said = choice_of().recommendation
    case = dataclasses.replace(said.case, set_values=tuple(read_values({"batch": 64, "widths": (8, 8)}).items()))
    flat = autotune.summary(dataclasses.replace(said, case=case, tier=Tier(name="host", windows=9)))
    assert {type(value) for value in flat.values()} <= {int, float, str, bool}
    assert json.loads(json.dumps(flat)) == flat
    assert flat["checkpoints"] == 45
    assert flat["peak_bytes"] == 5_500_000
    assert flat["peak_evidence"] == "measured"
    assert (flat["set.batch"], flat["set.widths"]) == (64, "(8, 8)")
    assert (flat["tier"], flat["windows"]) == ("host", 9)
    assert "smallest_bytes" not in flat
    assert isinstance(case, Case)


def test_a_choice_and_its_adjoint_say_the_same_and_where_it_came_from() -> None:
    """The adjoint that a training has at hand is enough; a prefix stands before every key."""
    choice = choice_of()
    flat = autotune.summary(choice.adjoint, prefix="ckpt/")
    assert flat == autotune.summary(choice, prefix="ckpt/")
    assert flat["ckpt/problem"] == "p:make"
    assert flat["ckpt/source"] == "profile"
    assert set(autotune.summary(choice.recommendation, prefix="ckpt/")) == set(flat) - {"ckpt/problem", "ckpt/source"}


def test_an_adjoint_made_by_hand_is_refused() -> None:
    """Nothing is known of it; the line says what would do."""
    with pytest.raises(AutotuneError, match="summary of RecursiveCheckpointAdjoint: nothing is known"):
        autotune.summary(RecursiveCheckpointAdjoint(checkpoints=3))
