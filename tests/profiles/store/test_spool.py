"""Rows that wait for a store: kept durably and privately, delivered once, whatever tears, kills or fills up."""

import os
import pathlib
import resource
import signal
import subprocess
import sys
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiles import Measurement, Spool, StoreError, open_store
from tests.conftest import REPOSITORY
from tests.profiles.makers import a_measurement, measurements, same

WRITER = """
import pathlib, sys
sys.path.insert(0, {root!r})
from profiles import Spool
from tests.profiles.makers import a_measurement
spool = Spool("postgresql://me:secret@host/db", folder=pathlib.Path({folder!r}))
for repeat in range(10**6):
    spool.append([a_measurement(study=sys.argv[1], repeat=repeat)])
    print(repeat, flush=True)
"""


@pytest.fixture
def spool(tmp_path: pathlib.Path) -> Spool:
    """An empty spool of a server's store."""
    return Spool("postgresql://me:secret@host/db", folder=tmp_path / "spool")


@given(rows=st.lists(measurements(), max_size=5))
def test_rows_come_back_exactly(tmp_path_factory: pytest.TempPathFactory, rows: list[Measurement]) -> None:
    """Whatever a measurement holds, to the last bit; of one key the row that came last."""
    kept = Spool("a.db", folder=tmp_path_factory.mktemp("spool"))
    for row in rows:
        kept.append([row])
    last = {row.key: row for row in rows}
    found = {row.key: row for row in kept.rows()}
    assert found.keys() == last.keys()
    assert all(same(found[key], row) for key, row in last.items())


def test_the_file_is_the_users_alone_and_holds_no_password(spool: Spool) -> None:
    """Folder 0700, file 0600, the store's name in it for people, its password not."""
    spool.append([a_measurement()])
    assert spool.path.stat().st_mode & 0o777 == 0o600
    assert spool.path.parent.stat().st_mode & 0o777 == 0o700
    assert "secret" not in spool.path.read_text()
    assert "host/db" in spool.path.read_text()


def test_delivered_rows_are_in_the_store_once_and_no_file_is_left(spool: Spool, tmp_path: pathlib.Path) -> None:
    """A row that is delivered again, since its kill came between, is there once."""
    rows = [a_measurement(repeat=k) for k in range(3)]
    with open_store(str(tmp_path / "a.db")) as store:
        store.put(rows[0])
        spool.append(rows)
        assert spool.deliver(store.put_all) == 3
        assert sorted(row.repeat for row in store.measurements()) == [0, 1, 2]
    assert not spool.path.exists()
    assert spool.deliver(lambda rows: pytest.fail("nothing waits")) == 0


def test_what_a_store_refuses_waits_on(spool: Spool) -> None:
    """The error passes through and every row is still there."""

    def refuse(rows: object) -> None:
        raise StoreError("away")

    spool.append([a_measurement()])
    with pytest.raises(StoreError, match="away"):
        spool.deliver(refuse)
    assert spool.rows() == [a_measurement()]


def test_rows_that_come_while_others_are_delivered_stay(spool: Spool) -> None:
    """Only what the store has taken is forgotten."""
    spool.append([a_measurement(repeat=1)])
    assert spool.deliver(lambda rows: spool.append([a_measurement(repeat=2)])) == 1
    assert spool.rows() == [a_measurement(repeat=2)]


@pytest.mark.parametrize("torn", ['{"row": {"stu', "\x00\x00\x00"])
def test_a_torn_line_takes_nothing_else_along(spool: Spool, torn: str) -> None:
    """What a kill or a crash of the machine tore is passed over, before and after it everything is read."""
    spool.append([a_measurement(repeat=1)])
    with spool.path.open("a") as file:
        file.write(torn)
    spool.append([a_measurement(repeat=2)])
    assert [row.repeat for row in spool.rows()] == [1, 2]
    taken: list[Measurement] = []
    assert spool.deliver(taken.extend) == 2
    assert not spool.path.exists()


def test_a_link_in_its_place_is_not_followed(spool: Spool, tmp_path: pathlib.Path) -> None:
    """Whoever may write to the folder could otherwise choose which file of ours grows."""
    spool.path.parent.mkdir(parents=True)
    spool.path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreError, match="cannot be written"):
        spool.append([a_measurement()])
    assert not (tmp_path / "elsewhere").exists()


def test_a_full_disk_leaves_no_half_a_row(spool: Spool) -> None:
    """An append that fails says so in one line, and what was there stays as it was."""
    spool.append([a_measurement(repeat=1)])
    before = spool.path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 100, limits[1]))
    try:
        with pytest.raises(StoreError, match="cannot be written: File too large"):
            spool.append([a_measurement(repeat=2)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert spool.path.read_bytes() == before


def test_killed_writers_lose_no_acknowledged_row(tmp_path: pathlib.Path) -> None:
    """Three processes append to one file and are killed in the midst of it, while another one delivers."""
    folder = tmp_path / "spool"
    code = WRITER.format(root=str(REPOSITORY), folder=str(folder))
    writers = [
        subprocess.Popen([sys.executable, "-c", code, str(k)], stdout=subprocess.PIPE, text=True) for k in range(3)
    ]
    spool = Spool("postgresql://me:secret@host/db", folder=folder)
    acknowledged: list[list[int]] = [[], [], []]

    def listen(k: int) -> None:
        assert writers[k].stdout is not None
        for line in writers[k].stdout:
            acknowledged[k] += [int(line)] if line.endswith("\n") else []

    threads = [threading.Thread(target=listen, args=(k,)) for k in range(3)]
    for thread in threads:
        thread.start()
    delivered: dict[str, Measurement] = {}
    while min(map(len, acknowledged)) < 20:
        spool.deliver(lambda rows: delivered.update({row.key: row for row in rows}))
    for writer in writers:
        os.kill(writer.pid, signal.SIGKILL)
        writer.wait()
    for thread in threads:
        thread.join()
    spool.deliver(lambda rows: delivered.update({row.key: row for row in rows}))
    found = {(row.study, row.repeat) for row in delivered.values()}
    assert {(str(k), repeat) for k in range(3) for repeat in acknowledged[k]} <= found
    assert not spool.path.exists()
    for writer in writers:
        assert writer.stdout is not None
        writer.stdout.close()
