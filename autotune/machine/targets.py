"""Devices that are not here, as XLA's compilers are told of them. Plain values, no jax.

A GPU is described by the figures of the catalogue, as a `GpuTargetConfigProto` in text form; a TPU by the name of its
topology, which libtpu knows by heart. What JAX may take of the device's memory is part of a target: of a GPU the share
that it preallocates, of a TPU what libtpu itself calls available.
"""

import dataclasses
import os
from collections.abc import Iterable, Mapping

from autotune.errors import AutotuneError
from autotune.machine.compilers import GPU, TPU
from profiles import PREALLOCATED_SHARE, Device, DeviceKey, find_devices, load_devices

_FRACTIONS = ("XLA_CLIENT_MEM_FRACTION", "XLA_PYTHON_CLIENT_MEM_FRACTION")
_CUDA_MAJOR = 13
"""The runtime that the compilers of `autotune.machine.compilers` belong to; without one XLA refuses to compile."""

ENVIRONMENT: Mapping[str, Mapping[str, str]] = {
    # Autotuning runs kernels, so it needs a device; and a device that is here is not to be touched.
    GPU: {"CUDA_VISIBLE_DEVICES": "-1", "XLA_FLAGS": "--xla_gpu_enable_triton_gemm=false --xla_gpu_autotune_level=0"},
    # Without the first three libtpu asks a metadata server which TPU this is; without the last only one process at a
    # time may load it.
    TPU: {
        "TPU_SKIP_MDS_QUERY": "1",
        "TPU_ACCELERATOR_TYPE": "v5litepod-1",
        "TPU_WORKER_HOSTNAMES": "localhost",
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    },
}
"""What a process that compiles for a kind of target has in its environment, beside the compilers' folder."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A device to compile for. `compilers` is which it takes, `gpu` or `tpu`; `count` devices take part in a call.

    `config` is XLA's description of a GPU, `topology` and `chip_config` name a TPU. `kinds` are JAX's names of such a
    device, `memory_bytes` are all of one, and `available_bytes` what JAX may take of them.
    """

    name: str
    compilers: str
    kinds: tuple[str, ...]
    memory_bytes: int
    available_bytes: int
    available_note: str
    topology: str
    chip_config: str = ""
    config: str = ""
    count: int = 1

    @property
    def key(self) -> DeviceKey:
        """The key under which programs that were compiled for it are stored."""
        return DeviceKey(
            platform=self.compilers, kind=self.kinds[0], count=self.count, memory_bytes=self.memory_bytes, planned=True
        )


def find_targets(
    names: Iterable[str], *, count: int = 1, environment: Mapping[str, str] = os.environ
) -> tuple[Target, ...]:
    """Look targets up by their names in the catalogue of devices.

    Raises:
        AutotuneError: XLA does not compile for one of them; the text says why.
        DeviceError: a name is not in the catalogue.
    """
    found = find_devices(dict.fromkeys(name for name in names if name.strip()), load_devices())
    if not found:
        raise AutotuneError("--target names no device; `ckpt-tune device --catalogue` lists them")
    return tuple(target_of(device, count=count, environment=environment) for device in found)


def target_of(device: Device, *, count: int = 1, environment: Mapping[str, str] = os.environ) -> Target:
    """Describe a device of the catalogue as something to compile for.

    Raises:
        AutotuneError: XLA does not compile for it, or not for so many of it.
    """
    if not device.is_compiled_for:
        why = device.carried_over or "its catalogue entry has neither compute_capability nor topology"
        raise AutotuneError(f"nothing is compiled for {device.name}: {why}; `ckpt-tune plan` carries bytes over to it")
    share = memory_share(environment)
    available = device.available_bytes(share)
    if device.hardware.topology:
        return Target(
            name=device.name, compilers=TPU, kinds=device.kinds, memory_bytes=device.memory_bytes,
            available_bytes=available, available_note="what libtpu leaves of the device's memory",
            topology=_tpu_topology(device, count), chip_config=device.hardware.chip_config, count=count,
        )  # fmt: skip
    return Target(
        name=device.name, compilers=GPU, kinds=device.kinds, memory_bytes=device.memory_bytes,
        available_bytes=available, topology=f"1x1x{count}", config=_gpu_config(device), count=count,
        available_note=f"the share of {share:g} that it preallocates (XLA_CLIENT_MEM_FRACTION)",
    )  # fmt: skip


def memory_share(environment: Mapping[str, str]) -> float:
    """Read the share of a GPU's memory that JAX takes, from the variables that set it.

    Raises:
        AutotuneError: a variable holds no share.
    """
    for name in _FRACTIONS:
        if text := environment.get(name):
            try:
                share = float(text)
            except ValueError:
                share = 0.0
            if not 0 < share <= 1:
                raise AutotuneError(f"{name}={text!r} is not a share of a device's memory; set 0.9, or unset it")
            return share
    return PREALLOCATED_SHARE


_SLICES = {1: (1, 1), 2: (1, 2), 4: (2, 2), 8: (2, 4), 16: (4, 4), 32: (4, 8), 64: (8, 8)}
_CUBES = {1: (1, 1, 1), 2: (1, 1, 2), 4: (2, 2, 1), 8: (2, 2, 2), 16: (2, 2, 4), 32: (2, 4, 4), 64: (4, 4, 4)}


def _tpu_topology(device: Device, count: int) -> str:
    """Name the topology with so many devices: v5e and v6e lie in a plane, the others in space."""
    name, colon, shape = device.hardware.topology.partition(":")
    if count == 1:
        return device.hardware.topology
    chips = _SLICES if shape.count("x") == 1 else _CUBES
    each = 2 if name == "tpu7x" else 1
    if count % each or count // each not in chips:
        sizes = ", ".join(str(size * each) for size in chips)
        raise AutotuneError(f"{count} devices of {device.name} make no slice; give one of {sizes}")
    return name + colon + "x".join(map(str, chips[count // each]))


def _gpu_config(device: Device) -> str:
    """Write a GPU in the fields of XLA's GpuTargetConfigProto."""
    chip = device.hardware
    major, minor = chip.compute_capability.split(".")
    assert chip.clock is not None
    registers = 65536
    return f"""
gpu_device_info {{
  threads_per_block_limit: 1024 threads_per_warp: 32 shared_memory_per_block: 49152
  shared_memory_per_core: {chip.shared_memory} shared_memory_per_block_optin: {chip.shared_memory_per_block}
  threads_per_core_limit: {chip.threads_per_core} core_count: {chip.cores} fpus_per_core: {chip.lanes_per_core}
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  memory_bandwidth: {chip.bandwidth} l2_cache_size: {chip.cache} clock_rate_ghz: {chip.clock / 1e9}
  device_memory_size: {device.memory_bytes} cuda_compute_capability {{ major: {major} minor: {minor} }}
  registers_per_core_limit: {registers} registers_per_block_limit: {registers}
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 7 }}
runtime_version {{ major: {_CUDA_MAJOR} minor: 0 patch: 0 }}
device_description_str: "{device.kinds[0]}"
"""
