"""Reading devices: the real CPU, and accelerators as their backends and driver tools report them."""

import json
import os
import types

import jax
import jax.numpy as jnp
import pytest

from autotune import AutotuneError
from autotune.machine import device as _device
from autotune.machine.device import (
    DeviceInfo,
    Nvidia,
    OtherProcess,
    allocator_text,
    device_info,
    live_buffers,
    smallest,
)

GIB = 2**30

SMI = {
    "--query-gpu": (
        "0, GPU-aaa, 550.54, 81920, 71680, Disabled\n1, GPU-bbb, 550.54, 81920, 1024, Disabled\n"
    ),
    "--query-compute-apps": f"GPU-aaa, 4242, 10240\nGPU-bbb, 7, 500\nGPU-aaa, {os.getpid()}, 300\n",
}  # fmt: skip


def fake_smi(answers):
    """Answer as nvidia-smi would."""

    def ask(arguments):
        (query,) = [a for a in arguments if a.startswith("--query")]
        return answers.get(query.partition("=")[0])

    return Nvidia(ask=ask)


class FakeDevice:
    """An accelerator that reports what it is given."""

    platform = "gpu"
    device_kind = "NVIDIA H100 80GB HBM3"
    id = 0
    local_hardware_id = 0
    client = types.SimpleNamespace(platform_version="PJRT C API\ncuda 12080")

    def __init__(self, statistics):
        self._statistics = statistics

    def memory_stats(self):
        """What the backend keeps."""
        if isinstance(self._statistics, Exception):
            raise self._statistics
        return self._statistics


@pytest.fixture
def accelerator(monkeypatch):
    """Let jax find a pretended accelerator."""

    def pretend(statistics, visible=None):
        device = FakeDevice(statistics)
        monkeypatch.setattr(jax, "local_devices", lambda backend=None: [device])
        monkeypatch.setattr(jax, "live_arrays", lambda platform=None: [])
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        if visible is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        return device

    return pretend


STATS = {"bytes_in_use": 2 * GIB, "peak_bytes_in_use": 5 * GIB, "bytes_limit": 60 * GIB, "pool_bytes": 4 * GIB}


def test_the_cpu_reports_the_hosts_figures_and_says_what_it_cannot_tell():
    """On the CPU there are no statistics; the host's free memory stands, and that is said."""
    info = device_info("cpu")
    assert info.platform == "cpu"
    assert info.free_bytes == pytest.approx(info.host.free_bytes, rel=0.2)
    assert info.limit_bytes == info.host.capacity_bytes
    assert any("no memory statistics" in text for text in info.unknown)
    assert info.key.platform == "cpu"
    assert info.key.kind == info.kind != "cpu"
    assert {"jax", "diffrax", "python"} <= set(info.versions)


def test_the_report_is_json():
    """Everything shown can be printed as JSON."""
    assert json.loads(json.dumps(device_info("cpu").to_json()))["platform"] == "cpu"


def test_live_buffers_are_counted_once_and_by_shape():
    """Two references and an alias of one buffer are one buffer; two buffers of one shape are two."""
    device = jax.devices("cpu")[0]
    before = {(b.shape, b.dtype): b.count for b in live_buffers(device)}
    first, second = jnp.full((317, 5), 1.0), jnp.full((317, 5), 2.0)
    alias = jax.device_put(first, device)
    again = first
    found = {(b.shape, b.dtype): b for b in live_buffers(device)}[(317, 5), "float32"]
    assert found.count - before.get(((317, 5), "float32"), 0) == 2
    assert found.total_bytes == 2 * 317 * 5 * 4
    del second, alias, again


def test_an_accelerators_free_memory_counts_its_pool_and_other_processes(accelerator):
    """The pool's unused rest is ours; what another process holds is not."""
    accelerator(STATS)
    info = device_info(nvidia=fake_smi(SMI))
    assert info.kind == "NVIDIA H100 80GB HBM3"
    assert info.total_bytes == 80 * GIB
    assert info.limit_bytes == 60 * GIB
    assert info.in_use_bytes == 2 * GIB
    assert info.free_bytes == 58 * GIB  # the limit binds: 70 GiB free on the card and 2 GiB in the pool
    assert info.other_processes == (OtherProcess(pid=4242, used_bytes=10 * GIB),)
    assert info.driver == "550.54"
    assert info.key.memory_bytes == 80 * GIB


def test_a_card_that_others_fill_leaves_what_the_driver_says(accelerator):
    """bytes_limit is a promise to this process, not memory that is there."""
    accelerator(STATS, visible="1")
    assert device_info(nvidia=fake_smi(SMI)).free_bytes == 1 * GIB + 2 * GIB


@pytest.mark.parametrize("visible", ["GPU-bbb", "1", "GPU-bb"])
def test_visible_devices_are_followed_by_index_and_uuid(accelerator, visible):
    """CUDA's device 0 is the first that CUDA_VISIBLE_DEVICES names."""
    accelerator(STATS, visible=visible)
    assert [p.pid for p in device_info(nvidia=fake_smi(SMI)).other_processes] == [7]


def test_a_mig_slice_is_not_taken_for_the_whole_card(accelerator):
    """Under MIG the driver's totals are the card's; the slice's limit is the backend's."""
    accelerator({"bytes_in_use": 0, "bytes_limit": 9 * GIB}, visible="MIG-123")
    smi = {"--query-gpu": "0, GPU-aaa, 550.54, 81920, 71680, Enabled\n"}
    info = device_info(nvidia=fake_smi(smi))
    assert info.mig == "enabled"
    assert info.total_bytes == info.limit_bytes == info.free_bytes == 9 * GIB


@pytest.mark.parametrize("statistics", [None, {}, RuntimeError("unimplemented")])
def test_a_backend_that_tells_nothing_is_unknown_and_never_zero(accelerator, statistics):
    """No statistics: limits are None, and the reasons are listed."""
    accelerator(statistics)
    info = device_info(nvidia=fake_smi({}))
    assert info.limit_bytes is None
    assert info.free_bytes is None
    assert info.in_use_bytes is None
    assert len(info.unknown) == 3


def test_an_absent_driver_tool_is_no_error(accelerator):
    """ROCm and TPU hosts have no nvidia-smi; the backend's own figures stand."""
    accelerator(STATS)
    info = device_info(nvidia=fake_smi({}))
    assert info.free_bytes == 58 * GIB
    assert info.driver == "PJRT C API, cuda 12080"


def test_unreadable_figures_of_the_driver_tool_are_unknown(accelerator):
    """Some cards report [N/A]."""
    accelerator(STATS)
    info = device_info(nvidia=fake_smi({"--query-gpu": "0, GPU-a, 1, [N/A], [N/A], [N/A]\n"}))
    assert info.total_bytes == 60 * GIB
    assert info.free_bytes == 58 * GIB


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({}, "default, preallocated, fraction 0.75"),
        ({"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}, "default, grows on demand, fraction 0.75"),
        (
            {"XLA_CLIENT_MEM_FRACTION": ".5", "XLA_PYTHON_CLIENT_MEM_FRACTION": ".9"},
            "default, preallocated, fraction .5",
        ),
        ({"XLA_PYTHON_CLIENT_MEM_FRACTION": ".9"}, "default, preallocated, fraction .9"),
        ({"XLA_PYTHON_CLIENT_ALLOCATOR": "platform"}, "platform (no pool)"),
        ({"XLA_PYTHON_CLIENT_ALLOCATOR": "cuda_async"}, "cuda_async, preallocated, fraction 0.75"),
    ],
)  # fmt: skip
def test_allocator_settings_are_read_from_the_environment(environment, said):
    """The newer name of the memory fraction wins over the deprecated one."""
    assert allocator_text("gpu", environment) == said
    assert allocator_text("cpu", environment) == ""


def test_unknown_platforms_and_devices_are_named_with_what_is_there():
    """Both sides stand in the error."""
    with pytest.raises(AutotuneError, match="no platform 'tpu' here; jax finds cpu"):
        device_info("tpu")
    with pytest.raises(AutotuneError, match=r"no device 99 on platform 'cpu'; there are 0: "):
        device_info("cpu", 99)


def test_of_several_devices_the_fullest_counts():
    """A call that spans devices needs room on each."""
    host = device_info("cpu").host
    infos = [
        DeviceInfo(
            platform="gpu", kind="k", index=i, count=3, total_bytes=9, limit_bytes=9, in_use_bytes=0, free_bytes=free,
            host=host,
        )
        for i, free in enumerate([5, None, 3])
    ]  # fmt: skip
    assert smallest(infos).index == 2


def test_the_environment_is_shown_where_it_is_set(monkeypatch):
    """Only variables that change what a device gives, and only those that are set."""
    monkeypatch.setenv("XLA_FLAGS", os.environ.get("XLA_FLAGS", "") or "--xla_cpu_enable_fast_math=false")
    monkeypatch.setenv("UNRELATED_SECRET", "x")
    shown = device_info("cpu").environment
    assert "XLA_FLAGS" in shown
    assert set(shown) <= set(_device.ENVIRONMENT)
