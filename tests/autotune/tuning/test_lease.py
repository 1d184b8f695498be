"""Leases: one tune measures a case of a store, another one waits in a line, and nobody waits for the dead."""

import dataclasses
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from autotune.errors import AutotuneError
from autotune.measuring.errands import Owner
from autotune.tuning import lease
from autotune.tuning.lease import LEASE_NOTE, LIFE_NOTE, Leases
from profiles import Case, ProfileStore, open_store
from tests.conftest import REPOSITORY


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seconds become hundredths."""
    monkeypatch.setattr(lease, "BEAT_SECONDS", 0.05)
    monkeypatch.setattr(lease, "GRACE_SECONDS", 0.5)
    monkeypatch.setattr(lease, "POLL_SECONDS", 0.02)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ProfileStore]:
    """A store in a file."""
    with open_store(str(tmp_path / "profiles.db")) as opened:
        yield opened


def leases(store: ProfileStore, *horizons: float, note: Callable[[str], None] = lambda text: None) -> Leases:
    """The leases of a tune of some horizons."""
    return Leases(store, "study", [Case(horizon) for horizon in horizons], note=note)


def in_thread(taken: Leases) -> tuple[threading.Thread, threading.Event]:
    """Take leases in a thread, and give them back at once."""
    got = threading.Event()

    def take() -> None:
        with taken:
            got.set()

    thread = threading.Thread(target=take)
    thread.start()
    return thread, got


def test_who_wants_a_case_that_is_measured_waits_and_says_for_whom(store: ProfileStore) -> None:
    """In one line, once; longer than any grace, since the other one lives."""
    notes: list[str] = []
    with leases(store, 10, 20):
        thread, got = in_thread(leases(store, 20, 30, note=notes.append))
        assert not got.wait(1.0)
        (said,) = notes
        assert said.startswith(f"another tune (process {Owner.this().pid} on ")
        assert "measures horizon 20 on this store: waiting for its rows" in said
    assert got.wait(10)
    thread.join()


def test_other_cases_other_values_and_other_studies_do_not_wait(store: ProfileStore) -> None:
    """A job array over horizons runs side by side."""
    with leases(store, 10):
        for free in (
            leases(store, 20),
            Leases(store, "other", [Case(10)], note=print),
            Leases(store, "study", [Case(10, set_values=(("w", 8),))], note=print),
            Leases(store, "study", [Case(10, x64=True)], note=print),
        ):
            thread, got = in_thread(free)
            assert got.wait(10)
            thread.join()


def test_leases_leave_nothing_in_the_store(store: ProfileStore) -> None:
    """However the tune ends."""

    def broken() -> None:
        with leases(store, 10, 20):
            assert len(store.notes(LEASE_NOTE)) == 2
            assert len(store.notes(LIFE_NOTE)) == 1
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        broken()
    assert store.notes(LEASE_NOTE) == store.notes(LIFE_NOTE) == {}


def test_the_lease_of_a_killed_tune_of_this_host_is_taken_at_once(
    store: ProfileStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its process is known to be gone; nothing of it is left."""
    monkeypatch.setattr(lease, "GRACE_SECONDS", 1000.0)
    code = f"""
import os
from profiles import Case, open_store
from autotune.tuning.lease import Leases
with open_store({str(tmp_path / "profiles.db")!r}) as store, Leases(store, "study", [Case(10)], note=print):
    os.kill(os.getpid(), 9)
"""
    assert subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY).returncode == -9
    assert len(store.notes(LEASE_NOTE)) == 1
    thread, got = in_thread(leases(store, 10))
    assert got.wait(10)
    thread.join()
    assert store.notes(LEASE_NOTE) == store.notes(LIFE_NOTE) == {}


def elsewhere() -> dict[str, Any]:
    """A holder on another host, of which only its count can be seen."""
    return {"tune": "far", **dataclasses.asdict(dataclasses.replace(Owner.this(), place="node7"))}


def test_the_lease_of_a_tune_elsewhere_is_taken_when_its_count_stands_still(store: ProfileStore) -> None:
    """Not before; and dates, which hosts may not agree about, do not matter."""
    with leases(store, 10):
        (key,) = store.notes(LEASE_NOTE)
    store.put_note(LEASE_NOTE, key, elsewhere())
    store.put_note(LIFE_NOTE, "far", 0)
    thread, got = in_thread(leases(store, 10))
    for count in range(1, 11):
        store.put_note(LIFE_NOTE, "far", count)
        assert not got.wait(0.1)
    assert got.wait(10)
    thread.join()
    assert store.notes(LIFE_NOTE) == {}


def test_a_tune_that_was_stopped_for_too_long_stores_nothing_any_more(store: ProfileStore) -> None:
    """The line names who measures now; its leases, which are not its own any more, are left alone."""
    taken = leases(store, 10)
    with taken:
        taken.check()
        (key,) = store.notes(LEASE_NOTE)
        store.put_note(LEASE_NOTE, key, elsewhere())
        with pytest.raises(AutotuneError, match=r"another one \(process \d+ on node7\) measures horizon 10") as caught:
            taken.check()
        assert "\n" not in str(caught.value)
    assert store.notes(LEASE_NOTE) == {key: elsewhere()}


def test_many_tunes_at_once_hold_a_case_one_after_the_other(tmp_path: Path) -> None:
    """Never two, none for ever, each through a connection of its own."""
    holding, most = 0, 0
    lock = threading.Lock()

    def tune() -> None:
        nonlocal holding, most
        with open_store(str(tmp_path / "profiles.db")) as own, leases(own, 10, 20):
            with lock:
                holding += 1
                most = max(most, holding)
            time.sleep(0.02)
            with lock:
                holding -= 1

    threads = [threading.Thread(target=tune) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert most == 1


def test_a_store_in_memory_has_nobody_to_share_with() -> None:
    """So nothing is noted."""
    with open_store("sqlite://") as store, leases(store, 10) as taken:
        taken.check()
        assert store.notes(LEASE_NOTE) == {}
