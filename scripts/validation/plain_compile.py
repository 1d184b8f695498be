"""Compile programs for an H100 or a TPU v5e that is not here, by jax alone, in a process of its own.

    python scripts/validation/plain_compile.py gpu|tpu < requests.json > answers.json

A request is {"family", "checkpoints", "adjoint", "windows", "size"}; an answer what `memory_analysis()` says, the
number of kernels and of waits in the body of each loop of the optimised program, and the seconds; or {"error"}. It
needs the compilers on its search path (`ckpt-tune targets install`), and shares no code with what uses them in
`autotune`.
"""

import json
import os
import re
import sys
import time

KIND = sys.argv[1]
os.environ |= {"JAX_PLATFORMS": "cpu", "TF_CPP_MIN_LOG_LEVEL": "3", "EQX_ON_ERROR": "nan"}
if KIND == "tpu":
    os.environ |= {"TPU_SKIP_MDS_QUERY": "1", "TPU_ACCELERATOR_TYPE": "v5litepod-1"}
    os.environ |= {"TPU_WORKER_HOSTNAMES": "localhost", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}
else:
    os.environ |= {"CUDA_VISIBLE_DEVICES": "-1"}
    os.environ["XLA_FLAGS"] = "--xla_gpu_enable_triton_gemm=false --xla_gpu_autotune_level=0"

import diffrax  # noqa: E402  (what is set above has to be there before jax)
import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
from jax.experimental import topologies  # noqa: E402
from jax.sharding import SingleDeviceSharding  # noqa: E402

import adjoint  # noqa: E402

H100 = """
gpu_device_info {
  threads_per_block_limit: 1024 threads_per_warp: 32 shared_memory_per_block: 49152 shared_memory_per_core: 233472
  threads_per_core_limit: 2048 core_count: 132 fpus_per_core: 128 block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535 block_dim_limit_z: 65535 memory_bandwidth: 3350000000000 l2_cache_size: 52428800
  clock_rate_ghz: 1.98 device_memory_size: 80000000000 shared_memory_per_block_optin: 232448
  cuda_compute_capability { major: 9 minor: 0 } registers_per_core_limit: 65536 registers_per_block_limit: 65536
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 7 }
runtime_version { major: 13 minor: 0 patch: 0 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""
FIGURES = ("temp_size", "argument_size", "output_size", "alias_size", "host_temp_size", "peak_memory")
BODY = re.compile(r" while\(.*body=%?([\w.\-]+)")
KERNELS = re.compile(r" (fusion|custom-call|copy|sort|reduce|dot|convolution|dynamic-update-slice|dynamic-slice)\(")


def topology():
    """The device of this process."""
    if KIND == "tpu":
        return topologies.get_topology_desc(
            platform="tpu", topology_name="v5e:1x1", chips_per_host_bounds=(1, 1, 1)
        )  # fmt: skip
    return topologies.get_topology_desc(platform="cuda", target_config=H100, topology="1x1x1")


def elementwise(made, size):
    """An elementwise field under Tsit5 with step size control: `size` floats."""

    def loss(y0):
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(lambda t, y, args: -jnp.sin(y)), diffrax.Tsit5(), 0.0, 1.0, 0.01, y0, adjoint=made,
            stepsize_controller=diffrax.PIDController(rtol=1e-4, atol=1e-4), max_steps=4096,
        )  # fmt: skip
        return jnp.sum(solution.ys)

    return jax.grad(loss), (jax.ShapeDtypeStruct((size,), jnp.float32),)


def of_family(name, made):
    """One of the families of the benchmarks."""
    from scripts.bench_families import FAMILIES

    family = next(family for family in FAMILIES if family.name == name)
    structs = jax.eval_shape(family.make, jax.random.key(0))
    return jax.grad(family.build(made), argnums=(0, 1)), structs


def make_adjoint(request):
    """The adjoint of a request."""
    if request["adjoint"] == "diffrax":
        return diffrax.RecursiveCheckpointAdjoint(checkpoints=request["checkpoints"])
    held = {"tier": "host", "windows": request["windows"]} if request.get("windows") else {}
    return adjoint.RecursiveCheckpointAdjoint(checkpoints=request["checkpoints"], expected_steps=1000, **held)


def kernels(text):
    """Count, for every computation that is the body of a loop, the kernels in it, the loops inside, and its waits.

    A pass of a loop waits for the host where the number of passes is not known beforehand: a GPU's host reads the
    condition and launches the next pass. So it does at a conditional. `waits` counts the pass and what is in it.
    """
    bodies = {body: "known_trip_count" not in line for line in text.splitlines() for body in BODY.findall(line)}
    found = []
    for block in re.split(r"\n(?=%?[\w.\-]+ [^\n]*\{\n)", text):
        name = re.match(r"%?([\w.\-]+) ", block)
        if name and name[1] in bodies:
            lines = block.splitlines()[1:]
            inside = [bodies[body] for line in lines for body in BODY.findall(line)]
            branches = sum(" conditional(" in line for line in lines)
            launched = sum(bool(KERNELS.search(line)) for line in lines)
            waits = bodies[name[1]] + sum(inside) + branches
            found.append({"kernels": launched, "loops": len(inside), "waits": waits})
    return found


def answer(request, place):
    """Compile one request."""
    made = make_adjoint(request)
    if request["family"] == "elementwise":
        function, structs = elementwise(made, request["size"])
    else:
        function, structs = of_family(request["family"], made)
    start = time.perf_counter()
    try:
        traced = jax.jit(function, in_shardings=place, out_shardings=place).trace(*structs)
        compiled = traced.lower(lowering_platforms=("tpu" if KIND == "tpu" else "cuda",)).compile()
    except Exception as error:  # what the compiler says is the answer
        return {"error": f"{type(error).__name__}: {str(error)[:300]}"}
    analysis = compiled.memory_analysis()
    figures = {name: getattr(analysis, f"{name}_in_bytes") for name in FIGURES}
    return figures | {"bodies": kernels(compiled.as_text()), "seconds": time.perf_counter() - start}


def main():
    """Answer all requests."""
    place = SingleDeviceSharding(topology().devices[0])
    requests = json.load(sys.stdin)
    print(json.dumps([answer(request, place) for request in requests]))


if __name__ == "__main__":
    main()
