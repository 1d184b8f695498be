"""What our adjoint promises of a device's memory, held against XLA's own plans for an H100 and a TPU v5e."""

import jax
import pytest

from scripts.bench_families import FAMILIES
from tests.targets.compiling import plainly_compiled

SIZE = 10_000_000
STATE = 4 * SIZE
SLACK = 4096
"""What a program of ours may take more than Diffrax's at equal counts: records and indices."""
TILES = 144 * 1024
"""The same on a TPU v5e, where a solve of a few numbers with steps of an implicit solver takes the most beyond."""
RECORD = 8 * 4096
"""What a replay by accepted steps keeps besides: when each of at most 4,096 steps began, and how long it was."""
KINDS = [pytest.param("gpu", id="h100"), pytest.param("tpu", id="v5e", marks=pytest.mark.slow)]


def elementwise(**request) -> dict:
    """A request for the elementwise field under Tsit5 with step size control."""
    return {"family": "elementwise", "size": SIZE, "adjoint": "ours", **request}


COUNTS = [elementwise(checkpoints=count) for count in (8, 32, 128)]
DIFFRAX = [elementwise(checkpoints=count, adjoint="diffrax") for count in (8, 32)]
WINDOWS = [elementwise(checkpoints=8, windows=windows) for windows in (16, 64)]


def planned(kind: str, request: dict) -> dict:
    """The answer to one of the requests above, which are compiled together."""
    everything = [*COUNTS, *DIFFRAX, *WINDOWS]
    found = plainly_compiled(kind, everything)[everything.index(request)]
    assert "error" not in found, found
    return found


def device_bytes(found: dict) -> int:
    """All bytes on the device, as they are allocated."""
    return found["temp_size"] + found["argument_size"] + found["output_size"] - found["alias_size"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_checkpoint_costs_one_state(kind: str) -> None:
    """The peak is a line in the count whose slope is one state, to 2 %; a TPU packs few states more tightly."""
    peaks = [planned(kind, request)["peak_memory"] for request in COUNTS]
    assert (peaks[1] - peaks[0]) / 24 == pytest.approx(STATE, rel=0.02 if kind == "gpu" else 0.1)
    assert (peaks[2] - peaks[1]) / 96 == pytest.approx(STATE, rel=0.02)


@pytest.mark.parametrize("kind", KINDS)
def test_never_more_than_diffrax_at_equal_counts(kind: str) -> None:
    """Our peak is at most theirs and the slack."""
    for mine, theirs in zip(COUNTS, DIFFRAX, strict=False):
        assert planned(kind, mine)["peak_memory"] <= planned(kind, theirs)["peak_memory"] + SLACK


@pytest.mark.parametrize("kind", KINDS)
def test_the_host_tier_holds_the_windows_and_the_device_does_not(kind: str) -> None:
    """Bytes on the device do not grow with the windows; in host memory lie the windows' states and nothing else."""
    few, many = (planned(kind, request) for request in WINDOWS)
    assert device_bytes(many) <= device_bytes(few) + SLACK
    assert device_bytes(many) <= device_bytes(planned(kind, COUNTS[0])) + 4 * STATE
    for found, windows in ((few, 16), (many, 64)):
        assert found["host_temp_size"] == pytest.approx(windows * STATE, rel=1e-3)


def test_a_step_is_few_kernels() -> None:
    """On an H100 no innermost loop launches more than 25 kernels a pass, and a replayed step half of Diffrax's."""
    if jax.__version_info__ < (0, 12):
        pytest.skip(f"kernels are counted as jax 0.12 makes them, not {jax.__version__}")
    ours = planned("gpu", COUNTS[0])["bodies"]
    assert max(body["kernels"] for body in ours if not body["loops"]) <= 25
    theirs = max(body["kernels"] for body in planned("gpu", DIFFRAX[0])["bodies"])
    replay = [body["kernels"] for body in ours if not body["loops"] and body["kernels"] >= 6]
    assert min(replay) < theirs / 2


def _step(found: dict) -> dict:
    """The loop body with the most kernels: one step, taped or not."""
    return max(found["bodies"], key=lambda body: (body["kernels"], body["waits"]))


def test_an_executed_step_waits_for_the_host_once() -> None:
    """On an H100: at the condition of its own loop, where a step of Diffrax's meets a loop and a branch besides.

    What is done once for each checkpoint, around these loops, waits five times at most.
    """
    if jax.__version_info__ < (0, 12):
        pytest.skip(f"waits are counted as jax 0.12 makes them, not {jax.__version__}")
    ours = planned("gpu", COUNTS[0])["bodies"]
    assert all(body["waits"] == 1 for body in ours if not body["loops"])
    assert _step({"bodies": ours})["waits"] == 1
    assert max(body["waits"] for body in ours) <= 5
    assert _step(planned("gpu", DIFFRAX[0]))["waits"] >= 3


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["gpu", "tpu"])
@pytest.mark.parametrize("family", [family.name for family in FAMILIES])
def test_every_family_compiles_with_and_without_host_memory(kind: str, family: str) -> None:
    """Never more than Diffrax's at an equal count, the record of steps and a TPU's tiles; windows lie on the host."""
    counts = next(one.counts for one in FAMILIES if one.name == family)
    base = {"family": family, "checkpoints": counts[1]}
    requests = [base | {"adjoint": "ours"}, base | {"adjoint": "ours", "windows": 16}, base | {"adjoint": "diffrax"}]
    without, held, theirs = plainly_compiled(kind, requests)
    assert "error" not in without, without
    assert "error" not in held, held
    assert held["host_temp_size"] > 0
    recorded = RECORD if next(one.adaptive for one in FAMILIES if one.name == family) else 0
    figure = "temp_size" if kind == "gpu" else "peak_memory"  # a TPU's temporaries have gaps
    assert without[figure] <= theirs[figure] + (SLACK if kind == "gpu" else TILES) + recorded
