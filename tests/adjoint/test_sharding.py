"""Loops and solves over several devices: gradients equal, checkpoints split like the state, no collective of ours."""

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from tests.conftest import REPOSITORY

RIGHT = [
    *("loop:jit", "loop:explicit", "loop:shard_map", "loop:shard_map checked", "loop:in shard_map checked"),
    *("loop:jvp in shard_map checked", "loop:pmap", "until:shard_map checked", "solve:shard_map", "solve:pmap"),
]
SLOW = [
    *("loop:in shard_map", "loop:jvp in shard_map", "until:shard_map", "until:in shard_map checked", "until:pmap"),
    *("solve:jit", "solve:in shard_map", "solve:jvp in shard_map"),
    *(f"adaptive:{way}" for way in ("jit", "shard_map", "pmap")),
]
RAISING = {
    "solve:shard_map checked": "cond branches must have equal output types",
    "solve:explicit": "cond branches must have equal output types",
    "Diffrax:shard_map": "Closure-converted function called with different dynamic arguments",
}
"""Diffrax saves by a conditional of a result that lies somewhere and of zeros that do not, in `_save` of its
`_integrate.py`; its own adjoint closes over what differs from device to device."""
SPLIT_STACK = ["f64[5,128]"]


def outcomes(cases: list[str], home: Any) -> dict[str, Any]:
    """Run cases on eight virtual devices."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.adjoint.sharded", *cases],
        capture_output=True,
        text=True,
        check=False,
        cwd=REPOSITORY,
        env={
            "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
            "JAX_PLATFORMS": "cpu",
            "HOME": str(home),
            "PYTHONPATH": str(REPOSITORY),
            "PATH": os.environ["PATH"],
        },
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return {row.pop("case"): row for row in map(json.loads, done.stdout.splitlines())}


def assert_right(found: dict[str, Any], case: str) -> None:
    """Assert equal gradients, the scan's collectives and no others, and no stack that one device holds whole."""
    row = found[case]
    assert row.get("gap", 1.0) < 1e-12, row
    assert row["ours"] == row["plain"] or row["ours"] == [], row
    assert row["stacks"] in ([], SPLIT_STACK), row


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Run what every run tests, as one process."""
    return outcomes([*RIGHT, *RAISING], tmp_path_factory.mktemp("home"))


@pytest.mark.parametrize("case", RIGHT)
def test_a_gradient_over_devices_is_that_of_a_scan(found: dict[str, Any], case: str) -> None:
    """Spread by the compiler, by types, by `jax.shard_map` with its check and without, and by `jax.pmap`."""
    assert_right(found, case)


def test_the_checkpoints_are_split_like_the_state(found: dict[str, Any]) -> None:
    """So that the shapes above were looked for where there are any."""
    for way in ("jit", "explicit", "shard_map", "shard_map checked"):
        assert found[f"loop:{way}"]["stacks"] == SPLIT_STACK


@pytest.mark.parametrize("case", RAISING)
def test_what_stands_in_the_way_still_does(found: dict[str, Any], case: str) -> None:
    """Where this fails, Diffrax lets a solve through that it did not: README.md says that it does not."""
    row = found[case]
    assert RAISING[case] in row.get("error", "") + row.get("plain error", ""), row


@pytest.mark.slow
def test_more_programs_over_devices_are_those_of_a_scan(tmp_path: Any) -> None:
    """Loops that end at another pass on each device, adaptive solves, forward mode of solves."""
    rows = outcomes(SLOW, tmp_path)
    for case in SLOW:
        assert_right(rows, case)
