"""Measure one trial: trace it, compile it, run it. Failure is a status of the row, never an exception.

Peak bytes are the larger of what XLA plans and what was seen at run time; the row says which. What was seen is

    on a backend with statistics   the rise of `peak_bytes_in_use` over `bytes_in_use` before the call, where the call
                                   set a new peak (no JAX call resets it, so smaller trials come first), plus arguments
    on Linux, on the CPU           the rise of VmHWM over the resident memory before the call, where it exceeds 16 MiB
                                   (below that the figure says nothing), plus arguments
    elsewhere                      nothing: the compiled figure stands alone

Only the first call of a program is watched; the timed calls that follow cannot need more. But the first call in a
process also reads code from disk, starts threads and gives each its arena: 10 to 14 MB that are the process's and not
the program's. So where resident memory rose by more than XLA planned, a second call is watched, which pays for none of
that and still has its workspace. What the first call left behind for good counts where it exceeds what set-up takes.
"""

import dataclasses
import gc
import os
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from autotune.adjoints import make_adjoint
from autotune.errors import AutotuneError, from_user, one_line, text_of
from autotune.machine import host as _host
from autotune.machine.device import DeviceInfo, allocator_text, device_info
from autotune.machine.targets import Target
from autotune.measuring.rows import blank_row
from autotune.measuring.trial import Rung, Trial
from autotune.problem.fingerprint import problem_key
from autotune.problem.loading import Call, Problem
from autotune.problem.program import Executable, Traced, compile_traced, trace, trace_cheaply
from autotune.problem.traced import hands_over, traced_bytes
from profiles import Measurement, PeakSource, Status

RESIDENT_FLOOR_BYTES = 16 * 2**20
"""A rise of resident memory below this says nothing: allocator arenas and thread stacks are of that size."""

KEPT_ARGUMENT_BYTES = 256 * 2**20
"""Arguments larger than this are made afresh for each timing sample, so that several trials can wait side by side."""

SAMPLE_SECONDS = 0.005
"""Shorter calls are timed several at a time, so that a sample is longer than the jitter of clock and queue."""

SECOND_LOOK = 1.02
"""A second call is watched where the first seems to need this many times what XLA planned."""

LEAK_BYTES = 2**16
"""What may stay alive after a call unmentioned: constants that jax itself keeps."""

_WARM_UP_SECONDS = 0.1
_OUT_OF_MEMORY = "RESOURCE_EXHAUSTED"
_ON_ERROR = "EQX_ON_ERROR"


@dataclasses.dataclass(slots=True)
class CompiledTrial:
    """A compiled trial, ready to be called and timed. Holds the executable, so it is not a record.

    `call` is kept only where its arguments may be used again and are small: otherwise they are made afresh each time.
    """

    problem: Problem
    trial: Trial
    executable: Executable
    call: Call | None
    calls_per_sample: int = 1

    def arguments(self) -> tuple[Any, ...]:
        """Give the arguments of one call, on the device and ready."""
        call = self.call or _make(self.problem, self.trial)
        return jax.block_until_ready(_on_device(call.args))

    def time_once(self, clock: Callable[[], float] = time.perf_counter) -> float:
        """Take one timing sample: the mean of `calls_per_sample` calls back to back, all outputs waited for.

        Arguments are made beforehand and are not timed.

        Returns:
            Seconds per call.
        """
        args = self.arguments()
        start = clock()
        for _ in range(self.calls_per_sample):
            self.executable.run(args)
        return (clock() - start) / self.calls_per_sample


def measure(
    problem: Problem, trial: Trial, *, device: DeviceInfo | None = None, clock: Callable[[], float] = time.perf_counter
) -> Measurement:
    """Measure one trial in this process, as it is set up.

    Args:
        problem: the loaded problem; `trial.problem` is not looked at.
        trial: what to measure and how far (`trial.rung`); `trial.settings` are taken as being in force.
        device: the device, where it was read before.
        clock: gives seconds.

    Returns:
        One row, however the trial ended.
    """
    row, prepared = compile_trial(problem, trial, device=device)
    if prepared is None:
        return row
    row, ready = first_call(row, prepared)
    samples: list[float] = []
    try:
        for _ in range(trial.rounds if ready else 0):
            samples.append(prepared.time_once(clock))
    except Exception as error:
        row = dataclasses.replace(row, **failure(error))
    return dataclasses.replace(row, run_seconds=tuple(samples))


def compile_trial(
    problem: Problem, trial: Trial, *, device: DeviceInfo | None = None
) -> tuple[Measurement, CompiledTrial | None]:
    """Take a trial up to its compiled program.

    Returns:
        The row so far, and what to call next: None below the run rung, without data, and where the trial failed.
    """
    row = _blank(problem, trial, device)
    target = trial.settings.target
    try:
        if trial.key is None:
            key = problem_key(problem, horizon=trial.horizon, tolerance=trial.tolerance)
            row = dataclasses.replace(row, problem=key)
        start = time.perf_counter()
        if target is None:
            call = _make(problem, trial)
            start = time.perf_counter()
            traced = trace(call)
        else:
            call, traced = _traced_for_target(problem, trial)
        row = dataclasses.replace(row, trace_seconds=time.perf_counter() - start)
        if trial.tier is not None and not hands_over(traced.jaxpr):
            raise AutotuneError(
                f"the factory leaves the tier {trial.tier.name} unused: hand its adjoint to diffeqsolve, or tier, "
                "windows, directory and transfer_cost of it to checkpointed_while_loop"
            )
        if trial.rung is Rung.TRACED:
            return _with_traced(row, traced), None
        start = time.perf_counter()
        executable = _compiled(trial, traced, row.device.kind)
        row = dataclasses.replace(row, compile_seconds=time.perf_counter() - start, mesh=executable.mesh)
        row = _with_planned(row, executable)
        row = dataclasses.replace(row, message="; ".join(filter(None, (row.message, executable.note))))
        if trial.ends_compiled(row.compiled_bytes):
            return row, None
        if call.abstract:
            return dataclasses.replace(row, message="compiled only: the arguments have shapes and no data"), None
        return row, CompiledTrial(problem, trial, executable, call)
    except Exception as error:
        return dataclasses.replace(row, **failure(error)), None


def _traced_for_target(problem: Problem, trial: Trial) -> tuple[Call, Traced]:
    from autotune.problem.cross import silent_progress_meters  # here, since only a worker of a target needs it

    with silent_progress_meters():
        return trace_cheaply(lambda shapes_only: _make(problem, trial, shapes_only), portable=True)


def _compiled(trial: Trial, traced: Traced, kind: str) -> Executable:
    """Compile a traced trial, for its target where it has one; a tier that XLA cannot compile is refused."""
    target = trial.settings.target
    try:
        return compile_traced(traced) if target is None else _compiled_for(traced, target)
    except Exception as error:
        if trial.tier is None or isinstance(error, AutotuneError) or is_out_of_memory(error):
            raise
        raise AutotuneError(
            f"XLA of jax {jax.__version__} does not compile the tier {trial.tier.name} for {kind} in this program; "
            f"leave it out of --tiers, or take disk in its place ({one_line(error)})"
        ) from error


def _compiled_for(traced: Traced, target: Target) -> Executable:
    from autotune.problem.cross import compile_for

    return compile_for(traced, target)


def first_call(row: Measurement, prepared: CompiledTrial) -> tuple[Measurement, bool]:
    """Call a compiled trial once, watching memory, and check its outputs.

    Returns:
        The row with what was seen, and whether the trial can be timed.
    """
    try:
        if refusal := _cannot_hold(row):
            return dataclasses.replace(row, status=Status.OUT_OF_MEMORY, message=refusal), False
        return _watched_call(row, prepared)
    except Exception as error:
        return dataclasses.replace(row, **failure(error)), False


def _make(problem: Problem, trial: Trial, shapes_only: bool = False) -> Call:
    made = make_adjoint(trial.adjoint, trial.checkpoints, trial.expected_steps, trial.tier, trial.directory)
    target = trial.settings.target
    if target is None or target.count == 1:
        return problem.make(made, trial.horizon, trial.tolerance, shapes_only=shapes_only)
    from autotune.problem.cross import target_devices

    devices = target_devices(target)
    return problem.make(made, trial.horizon, trial.tolerance, devices=devices, shapes_only=shapes_only)


def _blank(problem: Problem, trial: Trial, device: DeviceInfo | None) -> Measurement:
    key = trial.device
    if key is None:
        key = (device or device_info(device=trial.settings.device)).key
    row = blank_row(trial, name=problem.name, device=key)
    return dataclasses.replace(row, allocator=allocator_text(jax.default_backend(), os.environ))


def _with_traced(row: Measurement, traced: Traced) -> Measurement:
    estimate = traced_bytes(traced.jaxpr)
    return dataclasses.replace(
        row, constant_bytes=estimate.constants, peak_bytes=estimate.upper, peak_source=PeakSource.TRACED,
        message=f"traced only: between {estimate.lower} and {estimate.upper} bytes",
    )  # fmt: skip


def _with_planned(row: Measurement, executable: Executable) -> Measurement:
    planned = executable.planned
    row = dataclasses.replace(
        row, temp_bytes=planned.temp, argument_bytes=planned.argument, output_bytes=planned.output,
        alias_bytes=planned.alias, constant_bytes=planned.constants, compiled_bytes=planned.total,
        peak_bytes=planned.total, peak_source=PeakSource.COMPILED if planned.total is not None else None,
        host_bytes=planned.host, compiled_peak_bytes=planned.peak if row.device.planned else None,
    )  # fmt: skip
    if planned.total is None:
        return dataclasses.replace(row, message="the backend does not say what the compiled program needs")
    return row


def _on_device(args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Put numpy arrays on the device, so that their copies count as arguments and not as the call's own rise."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf) if isinstance(leaf, np.ndarray) else leaf, args)


def _cannot_hold(row: Measurement) -> str:
    """Say why a program must not be run: the host would kill some process, not necessarily this one."""
    device = jax.local_devices()[0]
    if device.platform != "cpu" or row.compiled_bytes is None:
        return ""  # an accelerator's allocator refuses by itself, and this process survives it
    free = _host.host_memory().free_bytes + (row.argument_bytes or 0) + (row.constant_bytes or 0)
    if row.compiled_bytes <= free:
        return ""
    return f"not run: it needs {row.compiled_bytes} bytes and {free} are free on this host, its arguments included"


def _watched_call(row: Measurement, prepared: CompiledTrial) -> tuple[Measurement, bool]:
    """Call once, watching memory; check the outputs; find out whether the arguments can be used again."""
    args = prepared.arguments()
    watch = _Watch(jax.tree.leaves(args), row)
    start = time.perf_counter()
    outputs = prepared.executable.run(args)
    seconds = time.perf_counter() - start
    run_bytes = watch.run_bytes()
    complaint = _not_finite(outputs)
    kept = watch.kept_bytes(outputs)
    del outputs
    donates = any(isinstance(leaf, jax.Array) and leaf.is_deleted() for leaf in jax.tree.leaves(args))
    if donates or (row.argument_bytes or 0) > KEPT_ARGUMENT_BYTES:
        prepared.call = None
    if not donates:
        if seconds < _WARM_UP_SECONDS:  # the first call of a short program is mostly its first call
            start = time.perf_counter()
            prepared.executable.run(args)
            seconds = time.perf_counter() - start
        prepared.calls_per_sample = max(1, min(100, int(SAMPLE_SECONDS / max(seconds, 1e-6))))
    del args
    if run_bytes is not None and watch.resident and run_bytes > SECOND_LOOK * (row.compiled_bytes or 0):
        run_bytes = min(run_bytes, _watch_again(row, prepared, watch) or run_bytes)
    row = dataclasses.replace(row, run_bytes=run_bytes)
    if run_bytes is not None and run_bytes > (row.compiled_bytes or 0):
        row = dataclasses.replace(row, peak_bytes=run_bytes, peak_source=PeakSource.RUN)
    if complaint:
        return dataclasses.replace(row, status=Status.NOT_FINITE, message=complaint), False
    if kept > LEAK_BYTES:
        note = f"after the call {kept} bytes more stay alive than its outputs"
        row = dataclasses.replace(row, message="; ".join(filter(None, (row.message, note))))
    return row, True


def _watch_again(row: Measurement, prepared: CompiledTrial, first: "_Watch") -> int | None:
    """Watch a second call, which finds the process set up; see the module's header."""
    args = prepared.arguments()
    watch = _Watch(jax.tree.leaves(args), row)
    left = watch.anonymous_bytes - first.anonymous_bytes
    prepared.executable.run(args)
    rise = watch.rise_bytes()
    return None if rise is None else rise + (left if left > RESIDENT_FLOOR_BYTES else 0)


class _Watch:
    """Memory before a call, to be compared with memory after it."""

    def __init__(self, args: list[Any], row: Measurement) -> None:
        gc.collect()
        self._device = next(
            (next(iter(leaf.devices())) for leaf in args if isinstance(leaf, jax.Array)), jax.local_devices()[0]
        )
        self._resident_arguments = (row.argument_bytes or 0) + (row.constant_bytes or 0)
        self._live_before = _live_bytes()
        self._statistics = self._read()
        # Virtual devices of one host share its memory, so what is resident is no device's figure.
        self._reset = not self._statistics and not row.mesh and _host.reset_resident_peak()
        self._resident = _host.resident_bytes() if self._reset else None
        self.anonymous_bytes = (_host.anonymous_bytes() or 0) if self._reset else 0

    @property
    def resident(self) -> bool:
        """Whether resident memory is all that can be seen of a call."""
        return self._resident is not None

    def _read(self) -> dict[str, int]:
        try:
            return dict(self._device.memory_stats() or {})
        except Exception:  # backends without statistics raise errors of their own kinds
            return {}

    def run_bytes(self) -> int | None:
        """Return the bytes of the call, arguments included, as seen; None where they were not."""
        after = self._read()
        peak, peak_before = after.get("peak_bytes_in_use"), self._statistics.get("peak_bytes_in_use")
        if peak is not None and peak_before is not None:
            if peak <= peak_before:  # an earlier peak of this process hides this call's
                return None
            return peak - self._statistics.get("bytes_in_use", 0) + self._resident_arguments
        seen = self.rise_bytes()
        return seen if seen is not None and seen - self._resident_arguments > RESIDENT_FLOOR_BYTES else None

    def rise_bytes(self) -> int | None:
        """Return by how much resident memory rose, arguments included, however little; None where it was not seen."""
        peak = _host.resident_peak_bytes() if self._reset else None
        return None if peak is None or self._resident is None else peak - self._resident + self._resident_arguments

    def kept_bytes(self, outputs: Any) -> int:
        """Count the bytes that are alive after the call beyond those before it and its outputs."""
        of_outputs = sum(leaf.nbytes for leaf in jax.tree.leaves(outputs) if isinstance(leaf, jax.Array))
        return max(0, _live_bytes() - self._live_before - of_outputs)


def _live_bytes() -> int:
    return sum(array.nbytes for array in jax.live_arrays() if not array.is_deleted())


def _not_finite(outputs: Any) -> str:
    """Say which output holds NaN, or is a scalar and infinite; empty where none.

    Infinities in larger arrays pass: Diffrax pads what a solve did not reach with them.
    """
    for path, leaf in jax.tree_util.tree_leaves_with_path(outputs):
        if not isinstance(leaf, jax.Array) or not jnp.issubdtype(leaf.dtype, jnp.inexact):
            continue
        values = np.asarray(leaf)
        if np.isnan(values).any() or (values.ndim == 0 and not np.isfinite(values)):
            where = jax.tree_util.keystr(path) or "the output"
            what = f"{values}" if values.ndim == 0 else f"NaN in {int(np.isnan(values).sum())} of {values.size} values"
            solve = ", which is also how a failed solve looks in a worker" if os.environ.get(_ON_ERROR) == "nan" else ""
            return f"fn returned {what} in {where}{solve}"
    return ""


def failure(error: BaseException) -> dict[str, Any]:
    """Classify an exception: its status and message, as fields of a row."""
    if is_out_of_memory(error):
        return {"status": Status.OUT_OF_MEMORY, "message": one_line(error)}
    wrapped = from_user("fn raised while it ran", error) if isinstance(error, Exception) else error
    frames = wrapped.frames if isinstance(wrapped, AutotuneError) else ()
    return {"status": Status.FAILED, "message": "\n".join((str(wrapped), *frames))}


def is_out_of_memory(error: BaseException | None) -> bool:
    """Return whether an exception, or what it wraps, says that the device or the host ran out of memory."""
    while error is not None:
        text = text_of(error)
        if isinstance(error, MemoryError) or text.startswith(_OUT_OF_MEMORY) or "std::bad_alloc" in text:
            return True
        error = error.__cause__ or error.__context__
    return False
