"""The tiers by themselves: files that outlive nobody, states that are lent, and what a transfer costs."""

import os
import pathlib
import signal
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

import adjoint
from adjoint._disk import SHELF


def test_a_killed_process_leaves_no_file(tmp_path: pathlib.Path) -> None:
    """Its file has no name, so the system takes it back."""
    code = (
        "import os, signal, sys; from adjoint._disk import SHELF; import numpy as np\n"
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
    with pytest.raises(ValueError, match="no directory that can be written to"):
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
