"""The tiers by themselves: files that outlive nobody, states that are lent, what is kept how long, what it costs."""

import errno
import os
import pathlib
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import adjoint
from adjoint.tiers.disk import SHELF, DiskTierError, Shelf


def test_a_killed_process_leaves_no_file(tmp_path: pathlib.Path) -> None:
    """Its file has no name, so the system takes it back."""
    code = (
        "import os, signal, sys; from adjoint.tiers.disk import SHELF; import numpy as np\n"
        "number = SHELF.open(sys.argv[1], 4, [800]); SHELF.write(number, 1, [np.ones(100)])\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    ended = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("tier", ["host", "disk"])
def test_a_transfer_is_timed_and_leaves_nothing_behind(tier: Any, tmp_path: pathlib.Path) -> None:
    """A large state takes longer than a small one, and no file stays."""
    options = {"directory": tmp_path} if tier == "disk" else {}
    small, large = (adjoint.transfer_seconds(tier, size, **options) for size in (1, 2**24))
    assert 0 < small < large < 10
    assert os.listdir(tmp_path) == []


def test_a_transfer_to_a_tier_that_cannot_be_had_is_refused(tmp_path: pathlib.Path) -> None:
    """As the adjoint itself refuses it."""
    with pytest.raises(ValueError, match="not a directory that can be written to"):
        adjoint.transfer_seconds("disk", 8, directory=tmp_path / "gone")


def test_a_fetched_state_is_lent_and_stays_readable(tmp_path: pathlib.Path) -> None:
    """A view of the file holds while the next states are fetched, and when the file is closed under it."""
    number = SHELF.open(str(tmp_path), 3, [800])
    for slot in range(3):
        SHELF.write(number, slot, [np.full(100, float(slot))])
    structs = [((100,), np.dtype(float))]
    lent = [SHELF.read(number, slot, slot - 1, structs)[0] for slot in (2, 1, 0)]
    assert [float(view.sum()) for view in lent] == [200.0, 100.0, 0.0]
    SHELF.release()
    assert float(lent[0].sum()) == 200.0


@pytest.fixture
def shelf() -> Iterator[Shelf]:
    """A shelf of the test's own, cleared afterwards."""
    shelf = Shelf()
    yield shelf
    shelf.release()


STATE = [((100,), np.dtype(float))]


def keep(shelf: Shelf, directory: pathlib.Path, value: float, *, reverse: bool = True) -> int:
    """Keep one state of 100 numbers as a solve of its own, and fetch it where it is reversed."""
    number = shelf.open(str(directory), 1, [800])
    shelf.write(number, 0, [np.full(100, value)])
    if reverse:
        assert first_number(shelf, number) == value
    return number


def first_number(shelf: Shelf, number: int) -> float:
    """Reverse a solve of one state; returns the first number of it."""
    return float(shelf.read(number, 0, -1, STATE)[0][0])


def test_a_solve_may_be_reversed_again_while_there_is_space(shelf: Shelf, tmp_path: pathlib.Path) -> None:
    """As where JAX moves a solve out of a loop whose every pass reverses it, beside solves of the pass's own."""
    number = keep(shelf, tmp_path, 5.0)
    for k in range(50):
        keep(shelf, tmp_path, float(k))
        assert first_number(shelf, number) == 5.0


def test_reversed_solves_give_way_the_oldest_first(
    shelf: Shelf, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They keep an eighth of the free space, and the latest two; those that wait to be reversed keep theirs."""
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=8 * 4 * 4096))
    waiting = keep(shelf, tmp_path, 1.0, reverse=False)
    numbers = [keep(shelf, tmp_path, float(k)) for k in range(6)]
    assert first_number(shelf, numbers[1]) == 1.0
    keep(shelf, tmp_path, 9.0)
    for gone in (numbers[0], numbers[2]):
        with pytest.raises(DiskTierError, match="later solves took the space"):
            first_number(shelf, gone)
    assert [first_number(shelf, number) for number in (numbers[1], *numbers[3:])] == [1.0, 3.0, 4.0, 5.0]
    assert first_number(shelf, waiting) == 1.0


def test_a_full_disk_takes_the_space_of_reversed_solves(
    shelf: Shelf, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One after the other, and only they: with none left the solve is refused."""
    reversed_ones = [keep(shelf, tmp_path, float(k)) for k in range(3)]
    waiting = keep(shelf, tmp_path, 7.0, reverse=False)
    room = iter([False, False, True])
    reserve = os.posix_fallocate

    def reserved(*args: Any) -> None:
        if not next(room, False):
            raise OSError(errno.ENOSPC, "No space left on device")
        reserve(*args)

    monkeypatch.setattr(os, "posix_fallocate", reserved)
    number = keep(shelf, tmp_path, 8.0, reverse=False)
    with pytest.raises(DiskTierError, match="2 solves not yet reversed hold 8192 bytes there"):
        keep(shelf, tmp_path, 9.0)
    monkeypatch.undo()
    assert [first_number(shelf, one) for one in (waiting, number)] == [7.0, 8.0]
    for gone in reversed_ones:
        with pytest.raises(DiskTierError, match="are gone"):
            first_number(shelf, gone)


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="descriptors are counted in /proc")
def test_many_small_solves_share_a_file(shelf: Shelf, tmp_path: pathlib.Path) -> None:
    """A thousand of them, as a long scan has before its backward pass, take a few of the process's descriptors."""
    before = len(os.listdir("/proc/self/fd"))
    numbers = [keep(shelf, tmp_path, float(k), reverse=False) for k in range(1000)]
    assert len(os.listdir("/proc/self/fd")) <= before + 4
    assert [first_number(shelf, number) for number in numbers] == list(range(1000))
    assert shelf.release() == 1000
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_lent_state_outlives_its_solve(shelf: Shelf, tmp_path: pathlib.Path) -> None:
    """Its space in a file that others share is not given back under it."""
    keep(shelf, tmp_path, 1.0, reverse=False)
    number = keep(shelf, tmp_path, 2.0, reverse=False)
    lent = shelf.read(number, 0, -1, STATE)[0]
    shelf._give_back(number)
    assert lent.sum() == 200.0


ONE_CORE = """
import os, sys
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
import jax, jax.numpy as jnp
import adjoint
jax.config.update("jax_enable_x64", True)

def final(weight):
    body = lambda c: (c[0] + 1, jnp.sin(weight * c[1]) + 0.1 * weight)
    return adjoint.checkpointed_while_loop(lambda c: c[0] < 60, body, (0, jnp.full(2**15, 0.3)), checkpoints=2,
        max_steps=64, tier="disk", windows=10, directory=sys.argv[1])[1].sum()

run = jax.jit(jax.grad(final))
late = jax.jit(lambda k: 0 * jnp.sum(jnp.sin(jax.random.normal(jax.random.key(k), (2000, 2000)))) + 1.3)
print(*(float(run(late(k))) for k in range(3)))
"""


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs Linux to have one core only")
def test_one_core_is_enough(tmp_path: pathlib.Path) -> None:
    """States are handed over while the argument is still being computed, and nothing waits for itself."""
    ended = subprocess.run(
        [sys.executable, "-c", ONE_CORE, str(tmp_path)], check=True, capture_output=True, text=True, timeout=300
    )
    assert len(set(ended.stdout.split())) == 1
