"""What bytes are made of, on problems whose parts are known by construction."""

from pathlib import Path

import pytest

from autotune._composition import composition
from autotune._measure import measure
from autotune._parts import Composition, decode_composition
from autotune._problem import load_problem
from autotune._trial import Rung, Trial
from autotune._wire import encode
from profiles._records import AdjointName, DeviceKey, ProblemKey

DECAY = Path(__file__).parent.parent / "assets/problems/decay.py"


def parts_of(adjoint, checkpoints, width):
    """Compile and part."""
    problem = load_problem(f"{DECAY}:make", set_values={"width": width, "adaptive": False})
    row = measure(problem, Trial(
        study="s", problem="p", adjoint=adjoint, checkpoints=checkpoints, horizon=2, rung=Rung.COMPILED,
        key=ProblemKey(name="p", components={}), device=DeviceKey(platform="cpu", kind="k"),
    ))  # fmt: skip
    found = composition(problem, row)
    assert found is not None
    return found


@pytest.mark.parametrize("adjoint", list(AdjointName))
def test_the_parts_are_the_total_and_name_what_is_known(adjoint):
    """Sixty-four checkpoints of a state of 400 floats; weights of 400 x 400 are argument and output."""
    found = parts_of(adjoint, 64, 400)
    weights, state = 400 * 400 * 4, 400 * 4
    parts = (
        found.argument_bytes, found.output_bytes, found.constant_bytes, found.checkpoint_bytes,
        found.accumulator_bytes, found.per_example_bytes, found.rest_bytes,
    )  # fmt: skip
    assert sum(parts) == found.total_bytes
    assert all(part >= 0 for part in parts)
    assert found.argument_bytes == weights + state
    assert found.output_bytes >= weights
    assert found.checkpoint_bytes == pytest.approx(64 * state, rel=0.05)
    assert 0 < found.checkpoint_share < 0.5
    assert found.advice


def whole(**changes):
    """A composition made by hand."""
    base = dict.fromkeys(Composition.__dataclass_fields__, 0) | {"total_bytes": 100, "largest_rest": ("f32[3]",)}
    return Composition(**{**base, **changes})


def test_where_checkpoints_dominate_no_other_advice_is_given():
    """The count is the thing to change then."""
    assert whole(checkpoint_bytes=60, rest_bytes=40).advice == ""


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ("argument_bytes", "donate"), ("output_bytes", "SaveAt"), ("constant_bytes", "pass them as arguments"),
        ("accumulator_bytes", "differentiate fewer"), ("per_example_bytes", "per example"),
        ("rest_bytes", "smaller batches"),
    ],
)  # fmt: skip
def test_the_advice_is_about_the_largest_part(part, said):
    """What takes the most is what to change instead of the count."""
    assert said in whole(**{part: 70, "checkpoint_bytes": 30}).advice


def test_a_row_without_a_total_has_no_parts():
    """Unknown is not divided."""
    problem = load_problem(f"{DECAY}:make")
    row = measure(problem, Trial(
        study="s", problem="p", adjoint=AdjointName.DIFFRAX, checkpoints=2, rung=Rung.TRACED,
        key=ProblemKey(name="p", components={}), device=DeviceKey(platform="cpu", kind="k"),
    ))  # fmt: skip
    assert composition(problem, row) is None


def test_a_composition_survives_the_wire():
    """A worker makes it, its parent shows it."""
    assert decode_composition(encode(whole())) == whole()
