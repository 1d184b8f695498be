"""Trace and compile a problem's call the way its user would run it, and read the bytes that XLA plans for it.

`fn` may be a plain function (then it is compiled as `eqx.filter_jit` would), a `jax.jit` or an `eqx.filter_jit` object
(then its own `lower` is used, so donation and static arguments stay as the user wrote them).

Known inefficiency: an `eqx.filter_jit` object gives no jaxpr, so it is traced a second time for its constants; inner
jitted functions, among them `diffeqsolve`, come from JAX's own cache then.
"""

import dataclasses
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jax.extend import core as jex_core

from autotune.errors import from_user
from autotune.problem.loading import Call


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CompiledBytes:
    """What XLA plans for one call, per device, in bytes; None where the backend does not say.

    `constants` are the arrays that `fn` closes over: they occupy the device, and XLA counts them nowhere. `host` are
    buffers in host memory. `peak` is XLA's own figure of the most that is alive at once, constants included; on the
    CPU it is wrong. `compiled_for` is gpu or tpu where the program was compiled for a device that is not here.
    """

    temp: int | None
    argument: int | None
    output: int | None
    alias: int | None
    constants: int
    host: int | None = None
    peak: int | None = None
    compiled_for: str = ""

    @property
    def total(self) -> int | None:
        """`temp + argument + output - alias + constants`; None where a part is unknown, so that it never "fits".

        Compiled for an absent device, XLA's own peak counts, which knows the constants that are left. On a GPU the
        temporaries are one allocation, gaps included; libtpu packs them, and keeps small ones in a memory of their own.
        """
        if self.compiled_for and self.peak and not self.host:  # with buffers on the host, the peak is of both memories
            packed = self.compiled_for == "tpu"
            allocated = (self.temp or 0) + (self.argument or 0) + (self.output or 0) - (self.alias or 0)
            return self.peak if packed else max(self.peak, allocated)
        # A gradient of a solve always has temporaries: a zero there means a backend that does not report them.
        if not self.temp or self.argument is None or self.output is None:
            return None
        return self.temp + self.argument + self.output - (self.alias or 0) + self.constants


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Traced:
    """A traced call: its jaxpr, and how to go on to an executable.

    `arguments` picks, from the call's arguments, those that the executable takes. `donated` says of each input of the
    jaxpr whether the call gives it away, as far as that is known.
    """

    jaxpr: Any
    lower: Callable[..., Any]
    arguments: Callable[[tuple[Any, ...]], tuple[Any, ...]]
    donated: tuple[bool, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Executable:
    """A compiled call: `run` executes it on arguments and blocks until all outputs are there; `note` is for people."""

    run: Callable[[tuple[Any, ...]], Any]
    planned: CompiledBytes
    mesh: str
    note: str = ""


def _is_abstract_array(leaf: Any) -> bool:
    return eqx.is_array(leaf) or isinstance(leaf, jax.ShapeDtypeStruct)


def trace(call: Call, *, portable: bool = False) -> Traced:
    """Trace `fn(*args)`; what is `portable` can be lowered for another platform, and knows what is donated.

    Raises:
        AutotuneError: `fn` raised while it was traced; with the user's own frames.
    """
    fn = call.fn
    try:
        if callable(getattr(fn, "lower", None)):
            if callable(getattr(fn, "trace", None)):
                return _trace_jitted(call)
            return _trace_filter_jitted(call, portable)
        return _trace_plain(call, fn, donate_first=False, donate_rest=False)
    except Exception as error:
        raise from_user("fn raised while it was traced", error) from error


def trace_cheaply(make: Callable[[bool], Call], *, portable: bool = False) -> tuple[Call, Traced]:
    """Make a call and trace it, with shapes in the place of arrays where the factory lets that be.

    A factory may compute its data for minutes, and hold more of it than this machine can; for a trace shapes will do.
    Where it looks at its arrays, or hands them over in a closure, it is called as it is.

    Args:
        make: makes the call, from shapes only where its argument is true.
        portable: as for `trace`.

    Raises:
        AutotuneError: the factory or the function raised, called as they are.
    """
    try:
        call = make(True)
        return call, trace(call, portable=portable)
    except Exception:
        call = make(False)
        return call, trace(call, portable=portable)


def _trace_plain(call: Call, fn: Any, *, donate_first: bool, donate_rest: bool) -> Traced:
    """Trace as `eqx.filter_jit` does: arrays (those inside `fn` too) are traced, everything else is static."""
    _, static = eqx.partition((fn, call.args), _is_abstract_array)

    def flat(fn_arrays, first, rest):
        whole_fn, args = eqx.combine((fn_arrays, first + rest), static)
        return eqx.filter(whole_fn(*args), eqx.is_array)

    def split(args):
        arrays = eqx.filter(args, _is_abstract_array)
        return eqx.filter(fn, _is_abstract_array), arrays[:1], arrays[1:]

    donated = (1,) * donate_first + (2,) * donate_rest
    traced = jax.jit(flat, donate_argnums=donated).trace(*split(call.args))
    return Traced(jaxpr=traced.jaxpr, lower=traced.lower, arguments=split, donated=_donated(traced))


def _donated(traced: Any) -> tuple[bool, ...]:
    return tuple(bool(info.donated) for info in jax.tree.leaves(traced.args_info))


def _trace_jitted(call: Call) -> Traced:
    traced = call.fn.trace(*call.args)
    taken = len(traced.in_tree.children()[0].children())

    def arguments(args):
        if taken == len(args):
            return args
        # Static arguments are not handed to an executable; they are those without arrays.
        dynamic = tuple(arg for arg in args if any(map(_is_abstract_array, jax.tree.leaves(arg))))
        return dynamic if len(dynamic) == taken else args

    return Traced(jaxpr=traced.jaxpr, lower=traced.lower, arguments=arguments, donated=_donated(traced))


def _trace_filter_jitted(call: Call, portable: bool) -> Traced:
    fn = call.fn
    if call.abstract or portable:
        # Its `lower` takes shapes without data for static values, so it is rebuilt with the same donation.
        donate = {name: bool(getattr(fn, name, False)) for name in ("donate_first", "donate_rest")}
        return _trace_plain(call, getattr(fn, "__wrapped__", fn), **donate)
    jaxpr, _, _ = eqx.filter_make_jaxpr(fn)(*call.args)
    return Traced(jaxpr=jaxpr, lower=lambda: fn.lower(*call.args), arguments=lambda args: args)


def compile_call(call: Call) -> "Executable":
    """Trace and compile a call as a trial does."""
    return compile_traced(trace(call))


def compile_traced(traced: Traced) -> Executable:
    """Compile a traced call. XLA's own errors pass through: out of memory is recognised by their prefix."""
    with warnings.catch_warnings():
        # `eqx.filter_jit(donate="all")` means this warning not to be seen; its `lower` forgets that.
        warnings.filterwarnings("ignore", message="Some donated buffers were not usable")
        compiled = traced.lower().compile()
    return compiled_executable(compiled, traced)


def compiled_executable(compiled: Any, traced: Traced, *, compiled_for: str = "") -> Executable:
    """Wrap what `compile()` returned, with the bytes that were planned; `compiled_for` as in `CompiledBytes`."""
    stage = getattr(compiled, "compiled", compiled)  # Equinox wraps the jax.stages object

    def run(args):
        return jax.block_until_ready(compiled(*traced.arguments(args)))

    planned = _planned(stage, constant_bytes(traced.jaxpr), compiled_for)
    return Executable(run=run, planned=planned, mesh=_mesh(stage))


def _planned(stage: Any, constants: int, compiled_for: str) -> CompiledBytes:
    try:
        analysis = stage.memory_analysis()
    except Exception:  # backends without the analysis raise errors of their own kinds
        analysis = None
    found = {key: _bytes_of(analysis, key) for key in ("temp", "argument", "output", "alias")}
    host = [_bytes_of(analysis, f"host_{key}") for key in ("temp", "argument", "output", "alias")]
    held = [size for size in host[:3] if size]
    return CompiledBytes(
        **found, constants=constants, compiled_for=compiled_for,
        host=sum(held) - (host[3] or 0) if held else None,
        peak=getattr(analysis, "peak_memory_in_bytes", None),
    )  # fmt: skip


def _bytes_of(analysis: Any, name: str) -> int | None:
    return getattr(analysis, f"{name}_size_in_bytes", None)


def _mesh(stage: Any) -> str:
    """Name the devices that a call spans: empty for one, else the mesh's axes or the number of devices."""
    try:
        shardings = jax.tree.leaves(stage.input_shardings) + jax.tree.leaves(stage.output_shardings)
    except Exception:  # not every executable knows its shardings
        return ""
    widest = max(shardings, key=lambda sharding: len(sharding.device_set), default=None)
    if widest is None or len(widest.device_set) == 1:
        return ""
    mesh = getattr(widest, "mesh", None)
    axes = ",".join(f"{name}={size}" for name, size in mesh.shape.items()) if mesh is not None else ""
    return axes or f"{len(widest.device_set)} devices"


def constant_bytes(closed_jaxpr: Any) -> int:
    """Add up the arrays that a traced function closes over, each buffer once."""
    sizes: dict[int, int] = {}
    for constant in _constants(closed_jaxpr):
        sizes[_buffer_id(constant)] = int(constant.nbytes)
    return sum(sizes.values())


def _constants(closed_jaxpr: Any) -> Iterator[Any]:
    for constant in closed_jaxpr.consts:
        if isinstance(constant, jax.Array | np.ndarray):
            yield constant
    yield from _inner_constants(closed_jaxpr.jaxpr)


def _inner_constants(jaxpr: Any) -> Iterator[Any]:
    for equation in jaxpr.eqns:
        for variable in equation.invars:
            # Since 0.8 jax may keep a closed-over array as a literal of the equation that reads it.
            value = getattr(variable, "val", None)
            if isinstance(value, jax.Array | np.ndarray) and np.ndim(value) > 0:
                yield value
        for parameter in equation.params.values():
            for inner in parameter if isinstance(parameter, tuple | list) else (parameter,):
                if isinstance(inner, jex_core.ClosedJaxpr):
                    yield from _constants(inner)
                elif isinstance(inner, jex_core.Jaxpr):
                    yield from _inner_constants(inner)


def _buffer_id(array: Any) -> int:
    if isinstance(array, np.ndarray):
        return int(array.__array_interface__["data"][0])
    try:
        return array.unsafe_buffer_pointer()
    except Exception:  # sharded and key arrays have no single buffer
        return id(array)
