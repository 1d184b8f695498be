"""Loops and solves on eight virtual devices, in every way that JAX spreads a program, against a plain scan.

Run as `python -m tests.adjoint.sharded PROGRAM:WAY ...`, with eight devices by `XLA_FLAGS`. Prints a line of JSON for
every case: what came of it, and the collectives that stand in the compiled loops of ours and of the scan.
"""

import functools
import json
import re
import sys
from collections.abc import Callable
from typing import Any

import diffrax
import jax
import jax.lax as lax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import adjoint

DEVICES, WIDTH, STEPS, CHECKPOINTS = 8, 1024, 12, 5
SPLIT, WHOLE = PartitionSpec("x"), PartitionSpec()
Y, W = np.linspace(0.1, 1, WIDTH), np.array([0.9, 0.3])
Loss = Callable[[Any, Any], Any]


def step(y: Any, w: Any) -> Any:
    """One step of a map whose parameters every device has."""
    return jnp.sin(w[0] * y) + w[1]


def loop(y: Any, w: Any) -> Any:
    """Our loop."""
    final = adjoint.checkpointed_while_loop(
        lambda c: c[0] < STEPS, lambda c: (c[0] + 1, step(c[1], w)), (0, y), checkpoints=CHECKPOINTS
    )
    return jnp.sum(final[1])


def until(y: Any, w: Any) -> Any:
    """Our loop, which ends at a pass of its own on each device."""
    final = adjoint.checkpointed_while_loop(
        lambda c: c[0] < 4 + 8 * jnp.max(c[2]), lambda c: (c[0] + 1, step(c[1], w), c[2]), (0, y, y), checkpoints=3
    )
    return jnp.sum(final[1])


def scan(y: Any, w: Any) -> Any:
    """The same as `loop`, with everything stored."""
    return jnp.sum(lax.scan(lambda y, _: (step(y, w), None), y, None, length=STEPS)[0])


def masked(y: Any, w: Any) -> Any:
    """The same as `until` on a device's part, with passes beyond the end thrown away."""
    going = jnp.arange(STEPS) < 4 + 8 * jnp.max(y)
    return jnp.sum(lax.scan(lambda x, go: (jnp.where(go, step(x, w), x), None), y, going)[0])


def solve(y: Any, w: Any, *, with_adjoint: Any, adaptive: bool = False) -> Any:
    """A solve."""
    controller = diffrax.PIDController(rtol=1e-3, atol=1e-4) if adaptive else diffrax.ConstantStepSize()
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(lambda t, y, args: step(y, args)),
        diffrax.Heun(),
        0.0,
        1.0,
        0.1,
        y,
        w,
        adjoint=with_adjoint,
        stepsize_controller=controller,
        max_steps=16,
    )
    assert solution.ys is not None
    return jnp.sum(solution.ys)


OURS, DIRECT = adjoint.RecursiveCheckpointAdjoint(CHECKPOINTS), diffrax.DirectAdjoint()
THEIRS = diffrax.RecursiveCheckpointAdjoint(CHECKPOINTS)
PROGRAMS: dict[str, tuple[Loss, Loss]] = {
    "loop": (loop, scan),
    "until": (until, masked),
    "solve": (functools.partial(solve, with_adjoint=OURS), functools.partial(solve, with_adjoint=DIRECT)),
    "adaptive": (
        functools.partial(solve, with_adjoint=OURS, adaptive=True),
        functools.partial(solve, with_adjoint=DIRECT, adaptive=True),
    ),
    "Diffrax": (functools.partial(solve, with_adjoint=THEIRS), functools.partial(solve, with_adjoint=DIRECT)),
}


def gradient(f: Loss) -> Callable[..., Any]:
    """Differentiate in the state and the parameters."""
    return jax.grad(f, argnums=(0, 1))


def mesh(kind: AxisType) -> Any:
    """Make a mesh of all devices."""
    return jax.make_mesh((DEVICES,), ("x",), axis_types=(kind,))


def jit(f: Loss) -> tuple[Any, Any]:
    """Let the compiler spread the state."""
    shardings = NamedSharding(mesh(AxisType.Auto), SPLIT), NamedSharding(mesh(AxisType.Auto), WHOLE)
    return jax.jit(gradient(f), in_shardings=shardings), (Y, W)


def explicit(f: Loss) -> tuple[Any, Any]:
    """Have the types say where values lie; sets the mesh for good."""
    jax.set_mesh(mesh(AxisType.Explicit))
    return jax.jit(gradient(f)), (jax.device_put(Y, SPLIT), jax.device_put(W, WHOLE))


def around(f: Loss, *, check_vma: bool) -> tuple[Any, Any]:
    """Differentiate a mapped loss."""
    local = jax.shard_map(
        lambda y, w: f(y, w)[None],
        mesh=mesh(AxisType.Auto),
        in_specs=(SPLIT, WHOLE),
        out_specs=SPLIT,
        check_vma=check_vma,
    )
    return jax.jit(gradient(lambda y, w: jnp.sum(local(y, w)))), (Y, W)


def inside(f: Loss, *, check_vma: bool) -> tuple[Any, Any]:
    """Map a gradient; without the check the sum over devices is the caller's."""

    def local(y: Any, w: Any) -> Any:
        of_y, of_w = gradient(f)(y, w)
        return of_y, of_w if check_vma else lax.psum(of_w, "x")

    specs = (SPLIT, WHOLE)
    mapped = jax.shard_map(local, mesh=mesh(AxisType.Auto), in_specs=specs, out_specs=specs, check_vma=check_vma)
    return jax.jit(mapped), (Y, W)


def pushed(f: Loss, *, check_vma: bool) -> tuple[Any, Any]:
    """Map forward mode, and differentiate it."""

    def local(y: Any, w: Any) -> Any:
        return jax.jvp(f, (y, w), (jnp.cos(y), jnp.cos(w)))[1][None]

    mapped = jax.shard_map(
        local, mesh=mesh(AxisType.Auto), in_specs=(SPLIT, WHOLE), out_specs=SPLIT, check_vma=check_vma
    )
    return jax.jit(gradient(lambda y, w: jnp.sum(mapped(y, w)))), (Y, W)


def pmapped(f: Loss) -> tuple[Any, Any]:
    """Map a gradient by `jax.pmap`."""

    def run(y: Any, w: Any) -> Any:
        of_y, of_w = jax.pmap(gradient(f), in_axes=(0, None))(y.reshape(DEVICES, -1), w)
        return of_y.reshape(-1), jnp.sum(of_w, axis=0)

    return run, (Y, W)


WAYS: dict[str, Callable[[Loss], tuple[Any, Any]]] = {
    "jit": jit,
    "shard_map": functools.partial(around, check_vma=False),
    "shard_map checked": functools.partial(around, check_vma=True),
    "in shard_map": functools.partial(inside, check_vma=False),
    "in shard_map checked": functools.partial(inside, check_vma=True),
    "jvp in shard_map": functools.partial(pushed, check_vma=False),
    "jvp in shard_map checked": functools.partial(pushed, check_vma=True),
    "pmap": pmapped,
    "explicit": explicit,
}


def in_loops(run: Any, args: Any) -> list[str]:
    """List the collectives that the compiled program has inside of loops, and all the shapes of its checkpoints."""
    if not hasattr(run, "lower"):
        return []
    text = run.lower(*args).compile().as_text()
    called, inside = set(re.findall(r"body=%?([\w.\-]+)", text)), []
    for name, body in re.findall(r"^%?([\w.\-]+) \([^\n]*\{\n(.*?)^\}", text, re.MULTILINE | re.DOTALL):
        if name in called:
            inside += re.findall(r"= \S+ (all-reduce|all-gather|all-to-all|collective-permute)\(", body)
    return sorted(inside)


def stacks(run: Any, args: Any) -> list[str]:
    """List the shapes of stacked states in the compiled program, those of one device and those of all."""
    text = run.lower(*args).compile().as_text() if hasattr(run, "lower") else ""
    return sorted(set(re.findall(rf"f64\[{CHECKPOINTS},(?:{WIDTH}|{WIDTH // DEVICES})\]", text)))


def outcome(ours: Loss, plain: Loss, way: str) -> dict[str, Any]:
    """Run a case with both."""
    ran = []
    for which in (ours, plain):
        run, args = WAYS[way](which)
        try:
            ran.append((run, args, [np.asarray(x) for x in run(*args)]))
        except Exception as error:
            return {"error" if which is ours else "plain error": f"{type(error).__name__}: {error}"[:600]}
    (found, args, numbers), (expected, _, expected_numbers) = ran
    gap = max(np.abs(a - b).max() / np.abs(b).max() for a, b in zip(numbers, expected_numbers, strict=True))
    ours_in, plain_in = in_loops(found, args), in_loops(expected, args)
    return {"gap": gap, "ours": ours_in, "plain": plain_in, "stacks": stacks(found, args)}


def main(cases: list[str]) -> None:
    """Run the cases, those that set the mesh last."""
    assert len(jax.devices()) == DEVICES
    for case in sorted(cases, key=lambda case: case.endswith(":explicit")):
        name, way = case.split(":")
        print(json.dumps({"case": case, **outcome(*PROGRAMS[name], way)}), flush=True)


if __name__ == "__main__":
    with jax.enable_x64(True):
        main(sys.argv[1:])
