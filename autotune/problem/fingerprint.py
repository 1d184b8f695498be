"""Which problem this is, by named components, so that a stored profile can be matched and a mismatch explained.

The components:

    program    digest of the traced program's skeleton, whatever the count: the primitives in order, with the dtypes
               and ranks of what they make, loops and branches nested. Horizon and data are abstracted: no sizes, no
               numbers; and the probe adjoint stands in for the adjoint, so neither whose it is nor its version matters
    source     digest of the source of the factory's module and of the modules that it imported from its own folder,
               without comments, docstrings and layout
    set        the `--set` values, as text
    shapes     dtypes and shapes of the arguments, those dimensions that follow the horizon written as `*`
    x64        whether 64-bit types are on
    versions   those of jax, jaxlib, equinox and diffrax

They are the same in every process on every machine with the same versions of these packages and of Python.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp

from autotune.errors import AutotuneError
from autotune.machine.device import versions
from autotune.problem.loading import Call, Problem
from autotune.problem.probe_adjoint import ProbeAdjoint, ignore_steps, watching
from autotune.problem.program import trace, trace_cheaply
from autotune.problem.sources import normalised_sources
from autotune.problem.traced import inner_jaxprs
from profiles import ProblemKey, digest

_ERROR_CHECK = "branched_error_if_impl"
_VERSIONED = ("jax", "jaxlib", "equinox", "diffrax")


def problem_key(
    problem: Problem,
    *,
    horizon: int | float | None = None,
    tolerance: float | None = None,
    shapes_only: bool = False,
) -> ProblemKey:
    """Fingerprint a problem; the module's header defines the components.

    Args:
        problem: the loaded problem.
        horizon: any horizon that the factory takes; the key does not depend on it, unless the factory writes a
            different program for it.
        tolerance: likewise.
        shapes_only: take shapes in the place of the factory's arrays where it lets that be; the key is the same.

    Raises:
        AutotuneError: the factory or the function that it made raised.
    """
    probe = ProbeAdjoint()
    with watching(ignore_steps):
        if shapes_only:
            call, traced = trace_cheaply(lambda few: problem.make(probe, horizon, tolerance, shapes_only=few))
        else:
            call = problem.make(probe, horizon, tolerance)
            traced = trace(call)
        skeleton = list(_skeleton(traced.jaxpr.jaxpr))
    found = versions()
    return ProblemKey(
        name=problem.name,
        components={
            "program": digest(skeleton),
            "source": digest(normalised_sources(problem.path, problem.loaded)),
            "set": " ".join(f"{key}={value!r}" for key, value in sorted(problem.set_values.items())),
            "shapes": _shapes(problem, call, horizon, tolerance, shapes_only),
            "x64": str(jnp.result_type(float) == jnp.float64),
            "versions": " ".join(f"{name} {found.get(name, 'none')}" for name in _VERSIONED),
        },
    )


def _skeleton(jaxpr: Any) -> Iterator[Any]:
    """Walk a jaxpr: per equation its primitive, what it makes, and the skeletons inside it."""
    for equation in jaxpr.eqns:
        # What a check of Equinox's turns into depends on EQX_ON_ERROR, which differs between a worker and its user.
        if equation.params.get("name") == _ERROR_CHECK:
            continue
        made = [_kind(variable.aval) for variable in equation.outvars]
        yield [equation.primitive.name, made, [list(_skeleton(inner)) for inner in inner_jaxprs(equation)]]


def _kind(aval: Any) -> str:
    return f"{getattr(aval, 'dtype', 'token')}/{len(getattr(aval, 'shape', ()))}"


def _shapes(
    problem: Problem, call: Call, horizon: int | float | None, tolerance: float | None, shapes_only: bool
) -> str:
    here = _leaves(call)
    if horizon is None:
        return " ".join(f"{dtype}[{','.join(map(str, shape))}]" for dtype, shape in here)
    there = _elsewhere(problem, horizon, tolerance, shapes_only) or here
    if [(dtype, len(shape)) for dtype, shape in here] != [(dtype, len(shape)) for dtype, shape in there]:
        return " ".join(f"{dtype}/{len(shape)}" for dtype, shape in here)
    texts = []
    for (dtype, shape), (_, other) in zip(here, there, strict=True):
        dims = ",".join(str(a) if a == b else "*" for a, b in zip(shape, other, strict=True))
        texts.append(f"{dtype}[{dims}]")
    return " ".join(texts)


def _elsewhere(
    problem: Problem, horizon: int | float, tolerance: float | None, shapes_only: bool
) -> list[tuple[str, tuple[int, ...]]] | None:
    """Give the arguments' dtypes and shapes at another horizon, the first that the factory takes; None for none.

    Half is tried first, being cheaper; its arrays are dropped at once.
    """
    half = horizon // 2 if isinstance(horizon, int) else horizon / 2
    for other in (half, 2 * horizon):
        for few in (True, False) if shapes_only else (False,):
            if other > 0:
                with contextlib.suppress(AutotuneError):
                    return _leaves(problem.make(ProbeAdjoint(), other, tolerance, shapes_only=few))
    return None


def _leaves(call: Call) -> list[tuple[str, tuple[int, ...]]]:
    arrays = [leaf for leaf in jax.tree.leaves(call.args) if hasattr(leaf, "shape") and hasattr(leaf, "dtype")]
    return [(str(leaf.dtype), tuple(leaf.shape)) for leaf in arrays]
