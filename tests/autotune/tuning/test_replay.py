"""A recorded sweep in the place of a device: what it answers of its rows, and what it refuses."""

import dataclasses
from pathlib import Path

import pytest

from autotune import AutotuneError
from autotune.machine.tiers import TierRequest
from autotune.measuring.runners import ProbeRequest
from autotune.tuning.lab import ReplayMachine, described_device, replay_rows
from autotune.tuning.request import TuneRequest
from profiles import DeviceKey, ProblemKey, Tier
from tests.autotune.rows import ROW, a_row

WIDE = {"set_values": {"w": 16}, "problem": ProblemKey(name="p:make", components={"set": "16"})}
ROWS = [
    a_row(4, 0.5, versions={"jax": "1"}),
    a_row(4, None, **WIDE, horizon=20, steps=2000, accepted=1800, rejected=200),
    a_row(8, 0.5, steps=None, accepted=None, horizon=30, versions={"jax": "2"}),
]


def question(**changes: object) -> ProbeRequest:
    """Ask at the recorded place."""
    return ProbeRequest(**{"problem": "p:make", "horizon": 10, "tolerance": 1e-3, **changes})


def test_the_device_is_the_recorded_one_with_the_newest_versions() -> None:
    """All of its memory counts as free."""
    device = DeviceKey(platform="gpu", kind="k", memory_bytes=100)
    rows = [dataclasses.replace(row, device=device) for row in ROWS]
    info = ReplayMachine(rows, "here").device_info()
    assert (info.platform, info.kind, info.total_bytes, info.limit_bytes, info.free_bytes) == (
        "gpu", "k", 100, 100, 100,
    )  # fmt: skip
    assert info.versions == {"jax": "2"}
    assert info.in_use_bytes is None
    assert described_device(DeviceKey(platform="cpu", kind="c")).free_bytes is None


def test_rows_of_one_device_are_needed() -> None:
    """What was found is said."""
    with pytest.raises(AutotuneError, match=r"one device's rows of this problem; here has nothing"):
        ReplayMachine([], "here")
    away = dataclasses.replace(ROW, device=DeviceKey(platform="cpu", kind="other"))
    with pytest.raises(AutotuneError, match="there has k, other"):
        ReplayMachine([ROW, away], "there")


def test_keys_are_those_of_the_same_values() -> None:
    """The newest of them; values that were not recorded are named."""
    newer = dataclasses.replace(ROW, problem=ProblemKey(name="p:make", components={"source": "new"}))
    machine = ReplayMachine([*ROWS, newer], "here")
    assert machine.problem_key(question(set_values={"w": 16})) == WIDE["problem"]
    assert machine.problem_key(question()) == newer.problem
    with pytest.raises(AutotuneError, match="nothing with w=9, z=1"):
        machine.problem_key(question(set_values={"w": 9, "z": 1}))
    with pytest.raises(AutotuneError, match="nothing with no --set values"):
        ReplayMachine(ROWS[1:2], "here").problem_key(question())


def test_steps_are_those_of_the_same_case() -> None:
    """A row without steps tells none; what was not recorded is a failure of that case alone."""
    machine = ReplayMachine(ROWS, "here")
    plain, wide, unknown, elsewhere = machine.observe_all(
        [
            question(),
            question(horizon=20, set_values={"w": 16}),
            question(horizon=30),
            question(horizon=10, tolerance=1e-5),
        ]
    )
    assert (plain.steps, plain.accepted, plain.rejected) == (1000, 1000, 0)
    assert (wide.steps, wide.accepted, wide.rejected) == (2000, 1800, 200)
    assert unknown.failure == "the recorded sweep holds no steps at horizon 30, tolerance 0.001"
    assert elsewhere.failure == "the recorded sweep holds no steps at horizon 10, tolerance 1e-05"
    bare = ReplayMachine([a_row(4, 0.5, accepted=None)], "here").observe_all([question()])[0]
    assert (bare.steps, bare.accepted) == (1000, 1000)


def test_tiers_are_those_of_the_same_values() -> None:
    """By name, the newest of them."""
    tiers = [Tier(name="host", windows=number) for number in (5, 9)]
    rows = [*ROWS, *(dataclasses.replace(ROW, tier=tier) for tier in tiers)]
    asked = TierRequest(name="host", windows=1, state_bytes=1, step_seconds=None, set_values={})
    assert ReplayMachine(rows, "here").tier(asked) == tiers[1]
    for other in ({"name": "disk"}, {"set_values": {"w": 16}}):
        with pytest.raises(AutotuneError, match="leave it out of --tiers"):
            ReplayMachine(rows, "here").tier(dataclasses.replace(asked, **other))


@pytest.mark.parametrize(
    ("problem", "name"),
    [
        ("p:make", "p:make"),
        ("folder/p.py:make", "p:make"),
        ("/abs/olute/p.py:make", "p:make"),
        ("package.p:make", "p:make"),
        ("package.p:make", "package.p:make"),
    ],
)
def test_recorded_rows_are_found_by_the_name_or_by_what_the_command_line_says(problem: str, name: str) -> None:
    """And those of other problems are not."""
    key = ProblemKey(name=name, components={})
    mine, other = (
        dataclasses.replace(ROW, problem=key),
        dataclasses.replace(ROW, problem=ProblemKey(name="q:make", components={})),
    )
    assert replay_rows([other, mine], problem) == [mine]


def test_a_problem_in_a_file_is_named_by_its_whole_path_and_a_module_by_the_folder_it_is_found_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that any process finds it."""
    (tmp_path / "m.py").touch()
    monkeypatch.chdir(tmp_path)
    assert TuneRequest(problem="m.py:make").located() == (f"{tmp_path.resolve()}/m.py:make", ())
    assert TuneRequest(problem="m:make").located() == ("m:make", (str(tmp_path),))
    assert TuneRequest(problem="gone.py:make").located() == ("gone.py:make", (str(tmp_path),))
