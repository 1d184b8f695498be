"""The lock on a device: held by one process at a time, and no way to another user's files."""

import logging
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from autotune import AutotuneError
from autotune.machine import lock
from autotune.machine.lock import device_lock, lock_folders

pytestmark = pytest.mark.skipif(not lock.HELD_HERE, reason="this system has no file locks")


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A runtime folder and a cache folder of this test's own."""
    folder = tmp_path / "run"
    folder.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return folder


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A file that nobody may touch."""
    path = tmp_path / "thesis.tex"
    path.write_text("ten years of work")
    return path


def test_a_lock_is_waited_for_by_another_process_and_ends_with_its_holder(runtime: Path) -> None:
    """While one process holds it another does not get it; after a kill it does."""
    code = (
        "import time\nfrom autotune.machine.lock import device_lock\n"
        "with device_lock('d'):\n print('held', flush=True)\n time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        import fcntl

        with (runtime / "ckpt-tune" / "d-0.lock").open("r+") as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        holder.kill()
    with device_lock("d"):
        pass


def test_folder_and_file_are_for_this_user_alone(runtime: Path) -> None:
    """0700 and 0600; a folder of ours that was open to others is closed to them."""
    (runtime / "ckpt-tune").mkdir(mode=0o777)
    (runtime / "ckpt-tune").chmod(0o777)
    with device_lock("d"):
        pass
    assert stat.S_IMODE((runtime / "ckpt-tune").stat().st_mode) == 0o700
    assert stat.S_IMODE((runtime / "ckpt-tune" / "d-0.lock").stat().st_mode) == 0o600


def test_a_link_in_the_place_of_the_file_is_refused_and_what_it_leads_to_is_whole(runtime: Path, victim: Path) -> None:
    """One line names the link; the victim's file is neither emptied nor opened."""
    (runtime / "ckpt-tune").mkdir(mode=0o700)
    (runtime / "ckpt-tune" / "d-0.lock").symlink_to(victim)
    with pytest.raises(AutotuneError, match="is a link") as caught, device_lock("d"):
        pass
    assert "\n" not in str(caught.value)
    assert victim.read_text() == "ten years of work"


def test_a_link_in_the_place_of_the_folder_is_refused(runtime: Path, victim: Path) -> None:
    """Nothing is made where it leads."""
    theirs = victim.parent / "theirs"
    theirs.mkdir()
    (runtime / "ckpt-tune").symlink_to(theirs)
    with pytest.raises(AutotuneError, match="is a link"), device_lock("d"):
        pass
    assert list(theirs.iterdir()) == []


def test_what_is_there_is_never_emptied(runtime: Path) -> None:
    """A plain file of ours in the lock's place keeps its contents."""
    (runtime / "ckpt-tune").mkdir(mode=0o700)
    path = runtime / "ckpt-tune" / "d-0.lock"
    path.write_text("kept")
    with device_lock("d"):
        pass
    assert path.read_text() == "kept"


def test_what_is_no_plain_file_is_refused(runtime: Path) -> None:
    """A pipe would be waited for."""
    (runtime / "ckpt-tune").mkdir(mode=0o700)
    os.mkfifo(runtime / "ckpt-tune" / "d-0.lock")
    with pytest.raises(AutotuneError, match="not a plain file"), device_lock("d"):
        pass


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can make another user's file")
@pytest.mark.parametrize("name", ["ckpt-tune", "ckpt-tune/d-0.lock"])
def test_what_belongs_to_another_user_is_refused_with_both_users(runtime: Path, name: str) -> None:
    """A folder or file that somebody else made cannot stand for a lock of ours."""
    (runtime / "ckpt-tune").mkdir(mode=0o700)
    (runtime / "ckpt-tune" / "d-0.lock").touch()
    os.chown(runtime / name, 65534, 65534)
    with pytest.raises(AutotuneError, match="belongs to user 65534, and this process to user 0"), device_lock("d"):
        pass


def test_a_runtime_folder_that_is_not_there_gives_way_to_the_cache_folder(
    tmp_path: Path, runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of ours lies in a folder that everybody shares."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "gone"))
    (only,) = lock_folders()
    assert only.is_relative_to(tmp_path / "cache")
    with device_lock("d"):
        assert (only / "d-0.lock").is_file()


def test_where_nothing_can_be_written_no_lock_is_held_and_it_is_said(
    tmp_path: Path, runtime: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A file in the way of both folders: the timing goes on, with one line."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "gone"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file" / "below"))
    with caplog.at_level(logging.WARNING, "autotune"), device_lock("d"):
        pass
    (line,) = caplog.messages
    assert line.startswith("timings of other processes on this device are not kept apart")


HOLDER = (
    "import sys, time\nfrom autotune.machine.lock import device_lock\n"
    "with device_lock('d', shared=sys.argv[1] == 'shared') as held:\n"
    " print('held', flush=True)\n sys.stdin.readline()\n print('lost' if held.lost else 'kept', flush=True)"
)


def _holder(kind: str = "alone") -> "subprocess.Popen[str]":
    held = subprocess.Popen(
        [sys.executable, "-c", HOLDER, kind], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert held.stdout is not None
    assert held.stdout.readline() == "held\n"
    return held


def test_a_wait_has_a_limit_and_names_the_holder(runtime: Path) -> None:
    """One line, with the holder's number and what it is."""
    with _holder() as holder:
        with (
            pytest.raises(
                lock.DeviceBusyError, match=rf"process {holder.pid} \(.*held the device for over 0.2 s"
            ) as caught,
            device_lock("d", seconds=0.2),
        ):
            pass
        assert "\n" not in str(caught.value)
        assert holder.communicate("go\n")[0] == "kept\n"


@pytest.mark.skipif(sys.platform != "linux", reason="where the kernel tells who holds a lock")
@pytest.mark.parametrize("kind", ["alone", "shared"])
def test_a_stopped_holder_loses_its_lock_and_finds_that_out(
    runtime: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two that wait for it both get on, one after the other; the stopped one knows when it goes on."""
    monkeypatch.setattr(lock, "STOPPED_SECONDS", 0.2)
    with _holder(kind) as holder:
        holder.send_signal(signal.SIGSTOP)
        inside: list[str] = []
        overlaps: list[int] = []

        def wait(name: str) -> None:
            with device_lock("d", seconds=20.0) as held:
                inside.append(name)
                overlaps.append(len(inside))
                time.sleep(0.1)
                assert not held.lost
                inside.remove(name)

        threads = [threading.Thread(target=wait, args=(str(k),)) for k in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert overlaps == [1, 1, 1, 1]
        holder.send_signal(signal.SIGCONT)
        assert holder.communicate("go\n")[0] == "lost\n"
    with device_lock("d", seconds=1.0) as held:
        assert not held.lost


def test_a_holder_that_only_works_keeps_its_lock(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is taken from a process that runs."""
    monkeypatch.setattr(lock, "STOPPED_SECONDS", 0.0)
    with _holder() as holder:
        with pytest.raises(lock.DeviceBusyError), device_lock("d", seconds=0.5):
            pass
        assert holder.communicate("go\n")[0] == "kept\n"
