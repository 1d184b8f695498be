"""Compile a traced call for a device that is not here, and read what XLA plans for that device's memory.

XLA's compilers for GPU and TPU run without the device; `memory_analysis()` of what they make is their own plan of its
memory. It is not the device's last word: autotuning is off without one, so that the workspace of a matrix product may
differ. Nothing is run, and nothing can be: a program that calls Python has no backend to call it from.

Runs in a process of its own that has the compilers on its search path (`autotune.measuring.worker_process`).
"""

import collections
import contextlib
import dataclasses
import functools
import re
from collections.abc import Iterator
from typing import Any

import diffrax
import jax
from jax.experimental import topologies
from jax.extend import core as jex_core
from jax.sharding import SingleDeviceSharding

import adjoint
from autotune.errors import AutotuneError, one_line
from autotune.machine.compilers import TPU
from autotune.machine.targets import Target
from autotune.problem.program import Executable, Traced, compiled_executable
from autotune.problem.traced import inner_jaxprs

_EXCHANGE = re.compile(
    r" (all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter)(?:-start)?(?=\()"
)  # fmt: skip
"""What devices exchange, by its name in an optimised program; a `-done` belongs to its `-start`."""
_PLATFORMS = {"gpu": "cuda", "tpu": "tpu"}


@contextlib.contextmanager
def silent_progress_meters() -> Iterator[None]:
    """Make Diffrax's progress meters show nothing inside: each step of theirs calls Python."""
    meters, methods = (diffrax.TextProgressMeter, diffrax.TqdmProgressMeter), ("init", "step", "close")
    loud = {(meter, method): vars(meter)[method] for meter in meters for method in methods}
    try:
        for meter, method in loud:
            type.__setattr__(meter, method, getattr(diffrax.NoProgressMeter, method))
        yield
    finally:
        for (meter, method), function in loud.items():
            type.__setattr__(meter, method, function)


@functools.cache
def target_devices(target: Target) -> tuple[Any, ...]:
    """Return JAX's handles of a target's devices, which can be compiled for and nothing else.

    Raises:
        AutotuneError: the compiler does not know such a device.
    """
    try:
        if target.compilers == TPU:
            options = {"chip_config_name": target.chip_config} if target.chip_config else {}
            if target.count == 1:
                options["chips_per_host_bounds"] = (1, 1, 1)  # pyright: ignore[reportArgumentType]
            found = topologies.get_topology_desc(platform="tpu", topology_name=target.topology, **options)
        else:
            found = topologies.get_topology_desc(
                platform="cuda", target_config=target.config, topology=target.topology
            )  # fmt: skip
    except Exception as error:  # compilers raise errors of their own kinds
        raise AutotuneError(f"the compilers refuse {target.name} as a target: {one_line(error)}") from error
    return tuple(found.devices[: target.count])


def compile_for(traced: Traced, target: Target) -> Executable:
    """Compile a traced call for a target. XLA's own errors pass through, as in `compile_traced`.

    Raises:
        AutotuneError: the program calls Python while it runs, or the compiler does not know the target.
    """
    if called := next(_callbacks(traced.jaxpr.jaxpr), None):
        raise AutotuneError(
            f"the program calls Python while it runs ({called}), which cannot be compiled for {target.name} "
            "without the device; take the callback out of fn"
        )
    devices, platforms = target_devices(target), (_PLATFORMS[target.compilers],)
    if target.count > 1:
        compiled = traced.lower(lowering_platforms=platforms).compile()
        made = compiled_executable(compiled, traced, compiled_for=target.compilers)
        return dataclasses.replace(made, note=f"on {made.mesh or 'one device'}: {collectives(compiled.as_text())}")
    place = SingleDeviceSharding(devices[0])
    donated = [k for k, given in enumerate(traced.donated) if given]
    flat = jax.jit(jex_core.jaxpr_as_fun(traced.jaxpr), in_shardings=place, out_shardings=place, donate_argnums=donated)
    inputs = [jax.ShapeDtypeStruct(aval.shape, aval.dtype) for aval in traced.jaxpr.in_avals]
    # A plain `lower` would look for a backend of that platform.
    compiled = flat.trace(*inputs).lower(lowering_platforms=platforms).compile()
    return compiled_executable(compiled, traced, compiled_for=target.compilers)


def collectives(text: str) -> str:
    """Count, in the text of an optimised program, what devices exchange in every pass of its loops.

    An exchange in a loop inside a loop is counted once: how often it runs is not known before the program does.
    """
    bodies = set(re.findall(r"body=%?([\w.\-]+)", text))
    found: collections.Counter[str] = collections.Counter()
    for block in re.split(r"\n(?=%?[\w.\-]+ [^\n]*\{\n)", text):
        name = re.match(r"%?([\w.\-]+) ", block)
        if name is not None and name[1] in bodies:
            found.update(_EXCHANGE.findall(block))
    counted = ", ".join(f"{count} {name}" for name, count in sorted(found.items()))
    return f"in its loops {counted}" if counted else "no exchange in its loops"


def _callbacks(jaxpr: Any) -> Iterator[str]:
    for equation in jaxpr.eqns:
        name = equation.primitive.name
        if "callback" in name or name == adjoint.HOST_CALL:
            yield name
        for inner in inner_jaxprs(equation):
            yield from _callbacks(inner)
