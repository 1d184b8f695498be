"""Windows and tiers: held to plain scans, to exhaustive search over all windows, and to H-Revolve."""

import errno
import functools
import os
import shutil
from types import SimpleNamespace
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checkpoint_schedules import Copy, EndReverse, Forward, HRevolve, Move, StorageType
from hypothesis import given, settings
from hypothesis import strategies as st

import adjoint
from adjoint.loop.windows import plan_windows as traced_plan
from adjoint.theory.schedule import advances
from adjoint.tiers import disk as _disk

from .compiled import temporary_bytes
from .plain import assert_close

START = np.array([0.3, -0.8, 1.1])
WEIGHT = np.array([[0.9, -0.4, 0.2], [0.1, 0.8, -0.5], [-0.3, 0.6, 0.7]])
STEPS = 60
x64 = pytest.mark.usefixtures("x64")


@functools.cache
def least_advances(steps: int, windows: int, checkpoints: int) -> float:
    """Sum of the advances of so many windows, by exhaustive search."""
    if windows == 0:
        return 0 if steps == 0 else float("inf")
    return min(
        (least_advances(steps - n, windows - 1, checkpoints) + advances(n, checkpoints) for n in range(1, steps + 1)),
        default=float("inf"),
    )


@pytest.mark.parametrize("checkpoints", [1, 2, 3, 5])
@pytest.mark.parametrize("transfer_cost", [0.0, 0.5, 1.0, 4.0, 7.5])
def test_no_windows_cost_less_than_the_planned_ones(checkpoints: int, transfer_cost: float) -> None:
    """The plan costs what the cheapest of all windows costs, transfers included."""
    for steps in range(1, 32):
        for capacity in (1, 2, 5, 40):
            plan = adjoint.plan_windows(steps, checkpoints, capacity, transfer_cost)
            lengths = [plan.width + (k < plan.longer) for k in range(plan.windows - 1)] + [plan.last]
            assert sum(lengths) == steps
            found = steps - plan.last + sum(advances(n, checkpoints) for n in lengths)
            best = min(
                steps - last + least_advances(steps - last, k, checkpoints) + advances(last, checkpoints)
                + k * transfer_cost
                for k in range(min(capacity, steps - 1) + 1)
                for last in range(1, steps + 1)
            )  # fmt: skip
            assert found + (plan.windows - 1) * transfer_cost == pytest.approx(best)


def hrevolve_cost(steps: int, checkpoints: int, capacity: int, transfer_cost: float) -> float:
    """Steps run forward by the H-Revolve of `checkpoint_schedules`, and its transfers; uf = ub, which it may swap."""
    half = transfer_cost / 2
    cost = 0.0
    for action in HRevolve(steps, checkpoints, capacity, uf=1, ub=1, wd=half, rd=half):  # pyright: ignore[reportArgumentType]
        if isinstance(action, Forward):
            cost += min(action.n1, steps) - action.n0
            cost += half * (action.write_ics and action.storage == StorageType.DISK)
        elif isinstance(action, Copy | Move):
            cost += half * (action.from_storage == StorageType.DISK)
        elif isinstance(action, EndReverse):
            break
    return cost


@pytest.mark.parametrize(
    ("steps", "checkpoints", "capacity"), [(20, 2, 3), (40, 3, 4), (60, 3, 8), (100, 2, 40), (100, 3, 10), (200, 4, 12)]
)
def test_windows_cost_what_h_revolve_does(steps: int, checkpoints: int, capacity: int) -> None:
    """But for the last step, which our forward pass must run; H-Revolve fetches again where that is cheap: 5 % then."""
    for transfer_cost in (1.0, 4.0, 20.0):
        plan = adjoint.plan_windows(steps, checkpoints, capacity, transfer_cost)
        lengths = [plan.width + (k < plan.longer) for k in range(plan.windows - 1)] + [plan.last]
        ours = 2 * steps + 1 - plan.last + sum(advances(n, checkpoints) for n in lengths)
        ours += transfer_cost * (plan.windows - 1)
        theirs = hrevolve_cost(steps, checkpoints, capacity, transfer_cost)
        assert theirs <= ours
        assert ours <= (theirs + 1 if transfer_cost >= 4 else 1.05 * theirs)


@pytest.mark.parametrize(("checkpoints", "capacity", "transfer_cost"), [(1, 3, 1.0), (3, 7, 0.5), (16, 100, 2.0)])
def test_the_compiled_plan_is_the_theory(checkpoints: int, capacity: int, transfer_cost: float) -> None:
    """The loop's own arithmetic cuts a solve as the plain integers do."""
    steps = np.unique(np.concatenate([np.arange(1, 300), np.geomspace(300, 2e6 if checkpoints > 1 else 3e3, 100)]))
    steps = steps.astype(np.int32)
    plan = jax.jit(jax.vmap(lambda n: traced_plan(n, checkpoints, capacity, transfer_cost)))
    for n, width, longer, last in zip(steps, *map(np.asarray, plan(steps)), strict=True):
        theory = adjoint.plan_windows(int(n), checkpoints, capacity, transfer_cost)
        assert (width, longer, last) == (theory.width, theory.longer, theory.last), n


def loss(loop: Any, steps: Any, start: Any, weight: Any) -> Any:
    """Run a recurrent network; every step matters to every gradient."""

    def body(carry: Any) -> Any:
        step, y = carry
        return step + 1, jnp.tanh(weight @ y + 0.1 * jnp.sin(step.astype(y.dtype)))

    final = loop(lambda carry: carry[0] < steps, body, (jnp.array(0), start))[1]
    return jnp.sum(final * jnp.array([1.0, -2.0, 0.5]))


@functools.cache
def plain_gradients(steps: int) -> Any:
    """The same by a scan of `steps` steps."""

    def scanned(start: Any, weight: Any) -> Any:
        def body(y: Any, step: Any) -> Any:
            return jnp.tanh(weight @ y + 0.1 * jnp.sin(step.astype(y.dtype))), None

        return jnp.sum(jax.lax.scan(body, start, jnp.arange(steps))[0] * jnp.array([1.0, -2.0, 0.5]))

    return jax.grad(scanned, (0, 1))(START, WEIGHT)


@functools.cache
def program(checkpoints: int, windows: int, tier: Any, directory: str | None) -> Any:
    """Compile the gradient for any number of steps and any prediction."""

    def gradient(steps: Any, expected: Any) -> Any:
        loop = functools.partial(
            adjoint.checkpointed_while_loop, checkpoints=checkpoints, expected_steps=expected, tier=tier,
            windows=windows, directory=directory,
        )  # fmt: skip
        return jax.grad(functools.partial(loss, loop), (1, 2))(steps, START, WEIGHT)

    return jax.jit(gradient)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder for files, the same for all programs of this module."""
    return str(tmp_path_factory.mktemp("tier"))


@x64
@pytest.mark.parametrize(("checkpoints", "windows"), [(1, 1), (1, 4), (2, 3), (3, 5), (4, 100)])
@pytest.mark.parametrize("tier", ["host", "disk"])
@settings(max_examples=25, deadline=None)
@given(steps=st.integers(0, STEPS), expected=st.integers(0, 2 * STEPS))
def test_gradients_are_those_of_a_scan(
    checkpoints: int, windows: int, tier: str, directory: str, steps: int, expected: int
) -> None:
    """Whatever was predicted, however little the tier holds."""
    run = program(checkpoints, windows, tier, directory if tier == "disk" else None)
    assert_close(run(steps, expected), plain_gradients(steps))
    assert os.listdir(directory) == []


class Shelf(_disk.Shelf):
    """Counts what is handed over and fetched."""

    def __init__(self) -> None:
        """Begin at zero."""
        super().__init__()
        self.handed, self.fetched = 0, 0

    def write(self, *args: Any) -> None:
        """Count one more."""
        self.handed += 1
        super().write(*args)

    def read(self, *args: Any) -> Any:
        """Count one more."""
        self.fetched += 1
        return super().read(*args)


@x64
@pytest.mark.parametrize(("checkpoints", "windows"), [(2, 3), (3, 5), (4, 100)])
def test_a_window_is_handed_over_and_fetched_once(
    checkpoints: int, windows: int, directory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the right prediction there are as many transfers as planned windows, less the last; without, few more."""
    run = program(checkpoints, windows, "disk", directory)
    for steps in (1, 5, 23, 60):
        for expected in (steps, 0):
            shelf = Shelf()
            monkeypatch.setattr("adjoint.tiers.tiers.SHELF", shelf)
            jax.block_until_ready(run(steps, expected))
            jax.effects_barrier()
            starts = adjoint.place_windows(steps, checkpoints, windows, expected or None).starts
            assert shelf.fetched == len(starts) - 1
            assert shelf.handed >= shelf.fetched
            assert shelf.handed <= steps / (checkpoints + 1)
            if expected:
                assert shelf.handed == adjoint.plan_windows(steps, checkpoints, windows).windows - 1


@x64
@pytest.mark.parametrize("expected", [None, 40, 60, 75])
def test_the_counted_steps_are_those_of_the_theory(expected: int | None, directory: str) -> None:
    """`windowed_steps` says what the compiled loop executes."""
    calls = []

    def gradient(steps: Any) -> Any:
        def body(carry: Any) -> Any:
            jax.debug.callback(lambda: calls.append(1))
            return carry[0] + 1, jnp.sin(carry[1])

        def final(start: Any) -> Any:
            return adjoint.checkpointed_while_loop(
                lambda carry: carry[0] < steps, body, (0, start), checkpoints=3, tier="host", windows=4,
                expected_steps=expected,
            )[1]  # fmt: skip

        return jax.grad(final)(0.3)

    run = jax.jit(gradient)
    for steps in (1, 2, 9, 30, 60):
        calls.clear()
        jax.block_until_ready(run(steps))
        jax.effects_barrier()
        assert len(calls) == adjoint.windowed_steps(steps, 3, 4, expected)


def test_unforeseen_ends_cost_little() -> None:
    """Without a prediction a solve executes at most 1.35 times what it would with one, a bad prediction 1.6 times."""
    for checkpoints, windows in ((4, 8), (16, 64), (24, 1000)):
        for steps in (50, 333, 4_000, 77_777):
            best = adjoint.windowed_steps(steps, checkpoints, windows, steps)
            assert adjoint.windowed_steps(steps, checkpoints, windows) <= 1.35 * best
            for wrong in (0.5, 0.9, 1.1, 3.0):
                assert adjoint.windowed_steps(steps, checkpoints, windows, round(wrong * steps)) <= 1.6 * best


def batch_loss(tier: Any, start: Any, weight: Any) -> Any:
    """Mean over a batch whose lanes end at different steps."""
    loop = functools.partial(adjoint.checkpointed_while_loop, checkpoints=2, max_steps=STEPS, **tier)
    return jnp.mean(jax.vmap(lambda n, y: loss(loop, n, y, weight))(jnp.array([7, 30, 12]), start))


@x64
@pytest.mark.parametrize("tier", ["host", "disk"])
def test_a_mapped_solve_holds_the_states_of_all_lanes(tier: str, directory: str) -> None:
    """The gradient of a mean over lanes is that without windows; lane by lane too in host memory, not in a file."""
    options = {"tier": tier, "windows": 3} | ({"directory": directory} if tier == "disk" else {})
    starts = jnp.stack([START, 2 * START, -START])
    found = jax.jit(jax.grad(functools.partial(batch_loss, options), (0, 1)))(starts, WEIGHT)
    assert_close(found, jax.jit(jax.grad(functools.partial(batch_loss, {}), (0, 1)))(starts, WEIGHT))

    def lane_by_lane(options: Any) -> Any:
        loop = functools.partial(adjoint.checkpointed_while_loop, checkpoints=2, max_steps=STEPS, **options)
        return jax.vmap(jax.grad(lambda y, n: loss(loop, n, y, WEIGHT)))(starts, jnp.array([7, 30, 12]))

    if tier == "host":
        assert_close(lane_by_lane(options), lane_by_lane({}))
    else:
        with pytest.raises(NotImplementedError, match="Differentiate the mapped solve instead"):
            lane_by_lane(options)


@x64
@pytest.mark.parametrize("tier", ["host", "disk"])
def test_lanes_that_accept_at_different_passes_are_refused(tier: str, directory: str) -> None:
    """An adaptive solve differentiated lane by lane would hand over other states in each lane."""
    options: Any = {"tier": tier, "windows": 3} | ({"directory": directory} if tier == "disk" else {})

    def solve(y: Any) -> Any:
        found = diffrax.diffeqsolve(
            diffrax.ODETerm(lambda t, y, args: -y * jnp.cos(5 * t)), diffrax.Tsit5(), 0.0, 4.0, 0.05, y, max_steps=200,
            adjoint=adjoint.RecursiveCheckpointAdjoint(checkpoints=2, **options),
            stepsize_controller=diffrax.PIDController(rtol=1e-5, atol=1e-7),
        )  # fmt: skip
        assert found.ys is not None
        return jnp.sum(found.ys)

    with pytest.raises(NotImplementedError, match="Lanes would hand over their states at different steps"):
        jax.vmap(jax.grad(solve))(jnp.array([[1.0, 0.4], [2.0, 30.0]]))


@x64
def test_a_pullback_may_be_called_again(directory: str) -> None:
    """And under vmap over cotangents, as `jax.jacrev` does; a released file is asked for in vain, with a reason."""
    loop = functools.partial(
        adjoint.checkpointed_while_loop, checkpoints=2, tier="disk", windows=3, directory=directory
    )

    def final(y: Any) -> Any:
        return loop(lambda carry: carry[0] < 20, lambda c: (c[0] + 1, jnp.tanh(WEIGHT @ c[1])), (0, y))[1]

    def scanned(y: Any) -> Any:
        return jax.lax.scan(lambda y, _: (jnp.tanh(WEIGHT @ y), None), y, None, length=20)[0]

    _, pullback = jax.vjp(final, jnp.array(START))
    first, second = pullback(jnp.ones(3)), pullback(jnp.ones(3))
    assert_close(first, second)
    assert_close(jax.jacrev(final)(jnp.array(START)), jax.jacrev(scanned)(jnp.array(START)))
    assert adjoint.release_tiers() >= 1
    with pytest.raises(Exception, match="boundary states of this solve are gone"):
        jax.block_until_ready(pullback(jnp.ones(3)))


@x64
@pytest.mark.parametrize("controller", [diffrax.ConstantStepSize(), diffrax.PIDController(rtol=1e-5, atol=1e-7)])
def test_a_diffrax_solve_has_the_same_gradient(controller: Any, directory: str) -> None:
    """Constant and adaptive steps, saved values included."""

    def solve(method: Any, y: Any, rate: Any) -> Any:
        term = diffrax.ODETerm(lambda t, y, args: -args * y * jnp.cos(5 * t))
        saveat = diffrax.SaveAt(ts=jnp.linspace(0, 4, 7))
        found = diffrax.diffeqsolve(
            term, diffrax.Tsit5(), 0.0, 4.0, 0.05, y, rate, saveat=saveat, stepsize_controller=controller,
            adjoint=method, max_steps=200,
        )  # fmt: skip
        assert found.ys is not None
        return jnp.sum(found.ys**2)

    plain = diffrax.RecursiveCheckpointAdjoint(checkpoints=5)
    ours = adjoint.RecursiveCheckpointAdjoint(checkpoints=3, tier="disk", windows=6, directory=directory)
    found, expected = (
        jax.jit(jax.grad(functools.partial(solve, method), (0, 1)))(jnp.array([1.0, 0.4]), 0.7)
        for method in (ours, plain)
    )
    assert_close(found, expected, 1e-11)


@x64
@pytest.mark.parametrize("tiered", [False, True])
def test_no_types_are_promoted(tiered: bool, directory: str) -> None:
    """An adaptive solve in single precision is differentiated under strict promotion with 64-bit integers about."""
    options: Any = {"tier": "disk", "windows": 6, "directory": directory} if tiered else {}
    method = adjoint.RecursiveCheckpointAdjoint(checkpoints=3, **options)
    controller = diffrax.PIDController(rtol=1e-3, atol=1e-4)

    def solve(y: Any) -> Any:
        term, zero, one = diffrax.ODETerm(lambda t, y, args: -y), jnp.float32(0), jnp.float32(1)
        found = diffrax.diffeqsolve(
            term, diffrax.Tsit5(), zero, one, None, y, stepsize_controller=controller, adjoint=method, max_steps=50
        )
        assert found.ys is not None
        return jnp.sum(found.ys)

    with jax.numpy_dtype_promotion("strict"):
        np.testing.assert_allclose(jax.jit(jax.grad(solve))(jnp.ones(2, jnp.float32)), np.exp(-1), rtol=1e-3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tier": "tape", "windows": 3}, '"host" or "disk", got'),
        ({"tier": "host"}, "either `windows`"),
        ({"tier": "host", "windows": 3, "tier_bytes": 100}, "either `windows`"),
        ({"tier": "host", "windows": 0}, "at least 1, got 0"),
        ({"tier": "host", "tier_bytes": 3}, "less than one state, which takes 16 bytes"),
        ({"tier": "host", "windows": 3, "directory": "."}, "has none"),
        ({"tier": "disk", "windows": 3}, "needs `directory`"),
        ({"tier": "disk", "windows": 3, "directory": "/nowhere/at/all"}, "not a directory that can be written to"),
        ({"windows": 3}, "needs a tier"),
        ({"tier": "host", "windows": 3, "transfer_cost": -1.0}, "at least 0 steps"),
    ],
)
def test_bad_tiers_are_refused_in_one_line(options: Any, message: str) -> None:
    """What was asked for, what was found, before anything runs."""
    loop = functools.partial(adjoint.checkpointed_while_loop, checkpoints=2, **options)
    with pytest.raises(ValueError, match=message):
        jax.grad(lambda y: loss(loop, 5, y, jnp.asarray(WEIGHT, jnp.float32)))(jnp.asarray(START, jnp.float32))


def test_too_many_states_for_the_disk_are_refused_before_anything_runs(
    directory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The space that is free is looked at while the program is traced."""
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    loop = functools.partial(
        adjoint.checkpointed_while_loop, checkpoints=2, tier="disk", windows=20, directory=directory
    )
    with pytest.raises(ValueError, match=r"20 states of 64 bytes do not fit into .* where 1000 bytes are free"):
        jax.jit(jax.grad(lambda y: loss(loop, 5, y, jnp.asarray(WEIGHT, jnp.float32)))).lower(jnp.ones(3, jnp.float32))


@x64
def test_a_disk_that_fills_up_is_said(directory: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The space is reserved when the solve begins; the message has both figures, and nothing stays behind."""
    run = program(2, 3, "disk", directory)

    def full(*args: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(Exception, match=r"the disk tier needs \d+ bytes for 3 states .* bytes are free"):
        jax.block_until_ready(run(20, 20))
    monkeypatch.undo()
    assert os.listdir(directory) == []
    jax.block_until_ready(run(20, 20))


def _gradient_of_large_state(**options: Any) -> Any:
    loop = functools.partial(adjoint.checkpointed_while_loop, max_steps=400, expected_steps=400, **options)

    def final(y: Any) -> Any:
        return jnp.sum(loop(lambda c: c[0] < 400, lambda c: (c[0] + 1, c[1] + 0.1 * jnp.sin(c[1])), (0, y))[1])

    return jax.grad(final)


def test_the_disk_tier_lowers_the_compiled_bytes(directory: str) -> None:
    """With 8 states on the device and 20 on disk a program takes the bytes of the 8, and two states at most."""
    state = jax.ShapeDtypeStruct((50_000,), jnp.float32)
    alone = temporary_bytes(_gradient_of_large_state(checkpoints=8), state)
    tiered = temporary_bytes(
        _gradient_of_large_state(checkpoints=8, tier="disk", windows=20, directory=directory), state
    )
    assert tiered <= alone + 2 * 200_000 + 65_536


def test_the_host_tier_is_placed_in_host_memory_on_a_gpu() -> None:
    """The program for CUDA moves states to the host and back; a program without a tier does not."""
    state = jax.ShapeDtypeStruct((50_000,), jnp.float32)

    def lowered(**options: Any) -> str:
        traced = jax.jit(_gradient_of_large_state(checkpoints=8, **options)).trace(state)
        return traced.lower(lowering_platforms=("cuda",)).as_text()

    text = lowered(tier="host", windows=20)
    assert text.count("annotate_device_placement") >= 3
    assert "pinned_host" in text
    assert "annotate_device_placement" not in lowered()
