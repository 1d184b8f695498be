"""Measurements for tests: one made by hand, and a hypothesis strategy that draws any that may exist."""

import dataclasses
import datetime as dt
from typing import Any

from hypothesis import strategies as st

from profiles import AdjointName, DeviceKey, Measurement, PeakSource, ProblemKey, Status, Tier

MOMENT = dt.datetime(2026, 5, 4, 3, 2, 1, 654321, tzinfo=dt.UTC)


def a_measurement(**changes: Any) -> Measurement:
    """A complete row that ended well, with `changes`; `name`, `components`, `kind` and `minutes` are short cuts."""
    name = changes.pop("name", "spirals:make")
    components = changes.pop("components", {"source": "5eed", "program": "c0de"})
    kind = changes.pop("kind", "cpu")
    minutes = changes.pop("minutes", 0)
    base = Measurement(
        study="spirals",
        problem=ProblemKey(name=name, components=components),
        device=DeviceKey(platform="cpu" if kind == "cpu" else "gpu", kind=kind, memory_bytes=8 * 2**30),
        adjoint=AdjointName.OURS,
        checkpoints=8,
        horizon=100,
        tolerance=1e-3,
        steps=120,
        accepted=100,
        rejected=20,
        executed_steps=300,
        recompute_factor=2.5,
        compiled_bytes=3_000_000,
        peak_bytes=3_000_000,
        peak_source=PeakSource.COMPILED,
        compile_seconds=1.25,
        run_seconds=(0.11, 0.1, 0.12),
        versions={"jax": "0.10.2", "diffrax": "0.7.2"},
        host="desk",
        measured_at=MOMENT + dt.timedelta(minutes=minutes),
    )
    return dataclasses.replace(base, **changes)


# Text as it may come from people and from dying processes: newlines, quotes, separators, NUL, lone surrogates.
TEXT = st.text(max_size=30) | st.sampled_from(
    ["", "nan", "None", "0", "a,b", 'say "no"\r\nand\nleave', "</script>", "\x00", "\ud800", " ", "=1+1", "ü≤∂"]
)
COUNT = st.integers(0, 2**63 - 1) | st.sampled_from([0, 1, 2**53 + 1])
REAL = st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from([0.0, -0.0, 1e-300, 0.1])
SCALAR = st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False) | TEXT
TIMES = st.datetimes(min_value=dt.datetime(1970, 1, 2), max_value=dt.datetime(2100, 1, 1), timezones=st.timezones())


def measurements() -> st.SearchStrategy[Measurement]:
    """Draw any measurement that may exist, failures and unknown figures included."""
    counts = ["accepted", "rejected", "executed_steps", "temp_bytes", "argument_bytes", "output_bytes"]
    counts += ["alias_bytes", "constant_bytes", "compiled_bytes", "run_bytes", "peak_bytes", "expected_steps"]
    counts += ["host_bytes", "compiled_peak_bytes"]
    reals = ["recompute_factor", "trace_seconds", "compile_seconds"]
    texts = ["study", "xla_flags", "allocator", "mesh", "message", "host"]
    return st.builds(
        Measurement,
        problem=st.builds(ProblemKey, name=TEXT, components=st.dictionaries(TEXT, TEXT, max_size=3)),
        device=st.builds(
            DeviceKey,
            platform=TEXT,
            kind=TEXT,
            count=st.integers(1, 8),
            memory_bytes=st.none() | COUNT,
            planned=st.booleans(),
        ),
        adjoint=st.sampled_from(AdjointName),
        checkpoints=st.integers(1, 10**6),
        repeat=st.integers(0, 99),
        horizon=st.none() | st.integers(-(2**53), 2**53) | REAL,
        set_values=st.dictionaries(TEXT, SCALAR, max_size=3),
        x64=st.booleans(),
        tier=st.none()
        | st.builds(
            Tier,
            name=st.sampled_from(["host", "disk"]),
            windows=st.integers(1, 2**63 - 1),
            transfer_cost=st.floats(0, 1e300),
        ),
        run_seconds=st.lists(st.floats(0, exclude_min=True, allow_infinity=False), max_size=6),
        peak_source=st.none() | st.sampled_from(PeakSource),
        status=st.sampled_from(Status),
        versions=st.dictionaries(TEXT, TEXT, max_size=3),
        seed=st.none() | st.integers(-(2**63), 2**63 - 1),
        measured_at=TIMES,
        **{name: st.none() | COUNT for name in counts},
        steps=st.none() | st.integers(1, 2**63 - 1),
        tolerance=st.none() | REAL,
        **{name: st.none() | st.floats(0, exclude_min=True, allow_infinity=False) for name in reals},
        **dict.fromkeys(texts, TEXT),
    )


def same(one: Measurement, other: Measurement) -> bool:
    """Compare two rows to the last bit and type, where `==` would let 1 pass for 1.0 and -0.0 for 0.0."""
    return one == other and repr(one) == repr(other) and one.key == other.key


def a_sweep(
    *,
    horizons: tuple[int | float | None, ...] = (100, 200, 400),
    tolerances: tuple[float | None, ...] = (1e-3, 1e-6),
    checkpoints: tuple[int, ...] = (2, 4, 8, 16, 32, 64),
    state_bytes: int = 2**20,
    speed: float = 1.0,
    name: str = "spirals:make",
    kind: str = "cpu",
    adjoint: AdjointName = AdjointName.OURS,
) -> list[Measurement]:
    """A sweep as a tuner leaves it: more memory, less time up to a point; the largest count runs out of memory.

    The figures follow simple rules of the tests' own (steps grow with horizon and with the fourth root of the
    tolerance, recomputation falls with the root of the count), so that drawings look like real ones.
    """
    rows = []
    for i, horizon in enumerate(horizons):
        for j, tolerance in enumerate(tolerances):
            steps = int((horizon or 50) * ((tolerance or 1e-3) / 1e-3) ** -0.25)
            for k, count in enumerate(checkpoints):
                factor = 2.0 + 4.0 * (steps / (count * count)) ** 0.5 if count < steps else 2.0
                peak = 3 * state_bytes + 2 * state_bytes * count
                lost = count == max(checkpoints) and i == len(horizons) - 1
                median = speed * 1e-5 * steps * (factor + 0.02 * count)
                rows.append(
                    a_measurement(
                        name=name,
                        kind=kind,
                        adjoint=adjoint,
                        horizon=horizon,
                        tolerance=tolerance,
                        checkpoints=count,
                        expected_steps=steps,
                        steps=steps,
                        accepted=steps,
                        rejected=0,
                        executed_steps=int(steps * factor),
                        recompute_factor=factor,
                        compiled_bytes=peak,
                        peak_bytes=None if lost else peak,
                        peak_source=None if lost else PeakSource.COMPILED,
                        run_seconds=() if lost else (0.98 * median, median, 1.05 * median),
                        status=Status.OUT_OF_MEMORY if lost else Status.OK,
                        message='RESOURCE_EXHAUSTED: "out" of </script> memory' if lost else "",
                        minutes=k + 10 * (i * len(tolerances) + j),
                    )
                )
    return rows
