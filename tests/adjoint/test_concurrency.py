"""Gradients of loops that run at once: threads, asynchronous dispatch, donated buffers, several devices."""

import concurrent.futures
import pathlib
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from .loop_programs import LoopProgram
from .nestings import weighed
from .parts import Log
from .plain import assert_close, plain_while_loop
from .programs import loop_of

pytestmark = pytest.mark.usefixtures("x64")

TIERS = (None, "host", "disk")
STARTS = [np.array([0.1 * k - 0.3, 0.2 + 0.05 * k]) for k in range(6)]
REPOSITORY = pathlib.Path(__file__).resolve().parents[2]


def gradient(loop: Callable[..., Any]) -> Callable[[Any], Any]:
    """Make the gradient of a loop that counts, by its start."""
    kernel = LoopProgram(leaves=("int8",)).kernel(loop, loop, Log())
    return lambda y: jax.grad(weighed(kernel))(y, jnp.asarray(1.3))


def expected() -> list[Any]:
    """Compute the gradients at every start by a plain scan."""
    plain = jax.jit(gradient(plain_while_loop))
    return [plain(y) for y in STARTS]


@pytest.mark.parametrize("tier", TIERS)
def test_gradients_taken_by_threads_at_once_are_right(tier: Any, tmp_path: pathlib.Path) -> None:
    """Four threads, one compiled gradient."""
    found = jax.jit(gradient(loop_of(tier, 2, str(tmp_path))))

    def in_a_thread(y: Any) -> Any:
        with jax.enable_x64(True):  # which holds for one thread only
            return jax.block_until_ready(found(y))

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        gradients = list(pool.map(in_a_thread, STARTS * 3))
    assert_close(gradients, expected() * 3, 1e-9)


@pytest.mark.parametrize("tier", TIERS)
def test_gradients_dispatched_before_any_is_waited_for_are_right(tier: Any, tmp_path: pathlib.Path) -> None:
    """As a training loop dispatches them."""
    found = jax.jit(gradient(loop_of(tier, 2, str(tmp_path))))
    assert_close([found(y) for y in STARTS * 3], expected() * 3, 1e-9)


@pytest.mark.parametrize("tier", TIERS)
def test_pullbacks_held_at_once_are_right_in_any_order(tier: Any, tmp_path: pathlib.Path) -> None:
    """Two solves, their pullbacks called the wrong way round, and again."""
    kernel = LoopProgram().kernel(loop_of(tier, 2, str(tmp_path)), plain_while_loop, Log())
    plain = LoopProgram().kernel(plain_while_loop, plain_while_loop, Log())
    w, cotangent = jnp.asarray(1.3), jnp.array([1.0, -0.6])
    pulls = [jax.vjp(kernel, jnp.asarray(y), w)[1] for y in STARTS[:2]]
    pulled = jax.jit(lambda y: jax.vjp(plain, y, w)[1](cotangent))
    wanted = [pulled(jnp.asarray(y)) for y in STARTS[:2]]
    for k in (1, 0, 1):
        assert_close(pulls[k](cotangent), wanted[k], 1e-9)


@pytest.mark.parametrize("tier", TIERS)
def test_a_gradient_with_donated_buffers_is_right(tier: Any, tmp_path: pathlib.Path) -> None:
    """The start's buffer is the gradient's."""
    found = jax.jit(gradient(loop_of(tier, 2, str(tmp_path))), donate_argnums=0)
    assert_close([found(jnp.array(y)) for y in STARTS], expected(), 1e-9)


@pytest.mark.parametrize("tier", [pytest.param(x, marks=() if x == "disk" else pytest.mark.slow) for x in TIERS])
@pytest.mark.parametrize("wanted", ["pmap", "shard_map", "sharded jit", "scan in pmap"])
def test_a_gradient_on_two_devices_is_right_or_refused(wanted: str, tier: Any, tmp_path: pathlib.Path) -> None:
    """Mapped and sharded over two virtual devices, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.adjoint.two_devices", wanted, tier or "none", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        cwd=REPOSITORY,
        timeout=300,
        env={
            "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
            "JAX_PLATFORMS": "cpu",
            "HOME": str(tmp_path),
            "PYTHONPATH": str(REPOSITORY),
        },
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    assert done.stdout.split() == ["right"]
