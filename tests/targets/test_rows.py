"""What a tune for a target stores is what jax alone says of the same program, to the byte."""

import dataclasses
from pathlib import Path

import pytest

from autotune.machine.targets import find_targets
from autotune.measuring.runners import SubprocessRunner
from autotune.measuring.trial import Rung, RunSettings, Trial
from profiles import AdjointName, PeakSource, Status
from tests.targets.compiling import needs, plainly_compiled

SIZE = 100_000
COUNTS = (1, 2, 3, 5, 8, 13, 21, 34, 55, 89)

PROBLEM = """
import diffrax
import jax
import jax.numpy as jnp


def make(*, adjoint, size={size}, meter=False):
    def loss(y0):
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(lambda t, y, args: -jnp.sin(y)), diffrax.Tsit5(), 0.0, 1.0, 0.01, y0, adjoint=adjoint,
            stepsize_controller=diffrax.PIDController(rtol=1e-4, atol=1e-4), max_steps=4096,
            progress_meter=diffrax.TextProgressMeter() if meter else diffrax.NoProgressMeter(),
        )
        return jnp.sum(solution.ys)

    return jax.grad(loss), (jnp.ones(size),)


def calls(*, adjoint):
    fn, args = make(adjoint=adjoint, size=100)
    return lambda y: jax.pure_callback(lambda y: y, y, fn(y)), args
"""


def measured(tmp_path: Path, counts: tuple[int, ...], *, factory: str = "make", **settings):
    """Compile counts of the problem for an H100, as a tune does."""
    needs("gpu")
    path = tmp_path / "problem.py"
    path.write_text(PROBLEM.format(size=SIZE))
    (target,) = find_targets(["h100-80gb"], environment={})
    base = Trial(
        checkpoints=1, study="test", problem=f"{path}:{factory}", adjoint=AdjointName.OURS, rung=Rung.COMPILED,
        device=target.key, expected_steps=1000, settings=RunSettings(target=target, timeout_seconds=300), **settings,
    )  # fmt: skip
    with SubprocessRunner() as runner:
        return runner.run([dataclasses.replace(base, checkpoints=count) for count in counts])


@pytest.mark.parametrize(
    "counts", [pytest.param((8,), id="one"), pytest.param(COUNTS, id="ten", marks=pytest.mark.slow)]
)
def test_counts_are_stored_as_the_compiler_planned_them(tmp_path: Path, counts: tuple[int, ...]) -> None:
    """Temporaries, arguments, outputs, aliases and the peak: all equal, and the peak that counts follows from them."""
    rows = measured(tmp_path, counts)
    requests = [{"family": "elementwise", "size": SIZE, "adjoint": "ours", "checkpoints": count} for count in counts]
    for row, found in zip(rows, plainly_compiled("gpu", requests), strict=True):
        assert row.status is Status.OK, row.message
        assert row.device.planned
        assert row.peak_source is PeakSource.COMPILED
        assert row.run_seconds == ()
        assert row.temp_bytes == found["temp_size"]
        assert row.argument_bytes == found["argument_size"]
        assert row.output_bytes == found["output_size"]
        assert row.alias_bytes == found["alias_size"]
        assert row.compiled_peak_bytes == found["peak_memory"]
        allocated = found["temp_size"] + found["argument_size"] + found["output_size"] - found["alias_size"]
        assert row.peak_bytes == max(found["peak_memory"], allocated)


@pytest.mark.slow
def test_progress_meters_are_left_out_and_other_callbacks_are_refused_in_one_line(tmp_path: Path) -> None:
    """A meter changes no byte; a callback that remains cannot be compiled without the device, which the row says."""
    plain, metered = (measured(tmp_path, (8,), set_values={"meter": meter})[0] for meter in (False, True))
    assert metered.status is Status.OK, metered.message
    assert metered.temp_bytes == pytest.approx(plain.temp_bytes, abs=64)
    (refused,) = measured(tmp_path, (8,), factory="calls")
    assert refused.status is Status.FAILED
    assert "pure_callback" in refused.message.splitlines()[0]
    assert "h100-80gb" in refused.message.splitlines()[0]
