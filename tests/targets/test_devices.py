"""A call that spans several devices that are not here: bytes of one of them, and what its loops exchange."""

import dataclasses
from pathlib import Path

import pytest

from autotune.machine.targets import find_targets
from autotune.measuring.runners import SubprocessRunner
from autotune.measuring.trial import Rung, RunSettings, Trial
from profiles import AdjointName, Status
from tests.targets.compiling import needs

PROBLEM = """
import diffrax
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec


def make(*, adjoint, devices=None, size=1_000_000, mixes=False):
    def loss(y0):
        field = lambda t, y, args: -jnp.sin(y) + (jnp.mean(y) if mixes else 0.0)
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(field), diffrax.Heun(), 0.0, 1.0, 0.01, y0, adjoint=adjoint, max_steps=128
        )
        return jnp.sum(solution.ys)

    mesh = Mesh(np.array(devices or jax.devices()[:1]), ("x",))
    split = NamedSharding(mesh, PartitionSpec("x"))
    return jax.jit(jax.grad(loss), out_shardings=split), (jax.ShapeDtypeStruct((size,), jnp.float32, sharding=split),)


def alone(*, adjoint):
    return make(adjoint=adjoint)
"""


def compiled(tmp_path: Path, count: int, *, factory: str = "make", **set_values):
    """Compile one count for so many H100s."""
    needs("gpu")
    path = tmp_path / "problem.py"
    path.write_text(PROBLEM)
    (target,) = find_targets(["h100-80gb"], count=count, environment={})
    trial = Trial(
        checkpoints=8, study="test", problem=f"{path}:{factory}", adjoint=AdjointName.OURS, rung=Rung.COMPILED,
        device=target.key, expected_steps=100, set_values=set_values,
        settings=RunSettings(target=target, timeout_seconds=300),
    )  # fmt: skip
    with SubprocessRunner() as runner:
        (row,) = runner.run([dataclasses.replace(trial)])
    return row


@pytest.mark.slow
def test_bytes_are_those_of_one_device_and_exchanges_are_counted(tmp_path: Path) -> None:
    """Four devices hold a quarter of the state each; a field that mixes them sums over all in every step."""
    whole, quarter = compiled(tmp_path, 1), compiled(tmp_path, 4)
    assert (whole.status, quarter.status) == (Status.OK, Status.OK), quarter.message
    assert quarter.device.count == 4
    assert quarter.mesh == "x=4"
    assert quarter.peak_bytes == pytest.approx(whole.peak_bytes / 4, rel=0.02)
    assert "no exchange in its loops" in quarter.message
    mixed = compiled(tmp_path, 4, mixes=True)
    assert mixed.status is Status.OK, mixed.message
    assert "all-reduce" in mixed.message


def test_a_factory_without_devices_is_told_what_to_add(tmp_path: Path) -> None:
    """One line that names the parameter."""
    row = compiled(tmp_path, 4, factory="alone")
    assert row.status is Status.FAILED
    assert "takes no parameter `devices`" in row.message.splitlines()[0]
