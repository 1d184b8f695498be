"""What dies on a cluster, and what becomes of the tune: nothing lost, nothing doubled, nothing left running.

Scheduler, workers and tuner are processes, and are killed as such; trials are arithmetic.
"""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from profiles import Measurement, Status, open_store
from tests.autotune.cluster import COUNTS, Cluster, until

pytest.importorskip("distributed", reason="the extra `cluster` is not installed")
pytestmark = [
    pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's"),
    pytest.mark.slow,  # real processes, killed: on a busy machine their starts take as long as what is waited for
]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """A scheduler without workers."""
    made = Cluster(tmp_path)
    try:
        yield made
    finally:
        made.close()
    assert made.left() == []


def rows_of(cluster: Cluster) -> dict[tuple[float | int | None, int], list[Measurement]]:
    """Read the rows of the sweep by horizon and count, final runs left out."""
    found: dict[tuple[float | int | None, int], list[Measurement]] = {}
    with open_store(store_of(cluster)) as store:
        for row in store.measurements():
            if not row.study.endswith("/verified"):
                found.setdefault((row.horizon, row.checkpoints), []).append(row)
    return found


def store_of(cluster: Cluster) -> str:
    """Name the store of a test."""
    return str(cluster.folder / "profiles.db")


def assert_whole(cluster: Cluster, *horizons: float, failed: tuple[int, ...] = ()) -> None:
    """Each count has one row in each batch, and was timed unless it had to fail."""
    rows = rows_of(cluster)
    assert set(rows) == {(horizon, count) for horizon in horizons for count in COUNTS}
    for (_, count), found in rows.items():
        assert len({row.repeat for row in found}) == len(found)
        assert {row.status for row in found} == {Status.FAILED if count in failed else Status.OK}


def test_a_trial_whose_worker_is_killed_is_measured_once_more(cluster: Cluster) -> None:
    """By the worker that is left; one that joins meanwhile is used, and every row stands once."""
    cluster.hold(6)
    workers = [cluster.worker(), cluster.worker()]
    tune = cluster.tune(store_of(cluster))
    killed = cluster.begun(6, 1)
    cluster.kill(killed)
    assert cluster.begun(6, 2) in {worker.pid for worker in workers} - {killed}
    joined = cluster.worker()
    cluster.hold(4)
    again = cluster.tune(store_of(cluster), horizon=20)
    assert cluster.begun(4, 2) == joined.pid
    for count in (4, 6):
        cluster.let_go(count)
    for one in (tune, again):
        assert one.wait(30) == 0, cluster.said(one)
    assert_whole(cluster, 10, 20)


def test_a_trial_over_which_two_workers_die_is_a_row_that_says_so(cluster: Cluster) -> None:
    """It is not tried for ever, and the others are measured."""
    cluster.hold(6)
    tune = cluster.tune(store_of(cluster))
    for times in (1, 2):
        cluster.worker()
        cluster.kill(cluster.begun(6, times))
    cluster.worker()
    until(lambda: (10, 6) in rows_of(cluster))
    assert tune.wait(30) == 0, cluster.said(tune)
    assert_whole(cluster, 10, failed=(6,))
    (row,) = rows_of(cluster)[10, 6]
    assert row.message.startswith("2 workers died while they measured it: tcp://127.0.0.1:")
    assert row.host == "127.0.0.1"


def test_a_killed_scheduler_ends_the_tune_in_a_line_and_the_same_command_goes_on(cluster: Cluster) -> None:
    """Workers find the scheduler that is started anew, and no row is measured twice."""
    cluster.hold(16)
    worker = cluster.worker()
    tune = cluster.tune(store_of(cluster))
    cluster.begun(16)
    cluster.kill(cluster.scheduler.pid)
    assert tune.wait(30) == 1
    last = cluster.said(tune).splitlines()[-1]
    assert last.startswith("ckpt-tune: the scheduler tcp://127.0.0.1")
    assert "the same command goes on from there" in last
    assert "Traceback" not in cluster.said(tune)
    until(lambda: cluster.children() == [])
    cluster.let_go(16)
    cluster.start_scheduler()
    again = cluster.tune(store_of(cluster))
    assert again.wait(40) == 0, cluster.said(again)
    assert_whole(cluster, 10)
    assert worker.poll() is None


def test_a_scheduler_that_is_stopped_ends_the_tune_too(cluster: Cluster) -> None:
    """Nobody waits for ever for what does not answer."""
    cluster.hold(16)
    cluster.worker()
    tune = cluster.tune(store_of(cluster))
    cluster.begun(16)
    cluster.scheduler.send_signal(signal.SIGSTOP)
    try:
        assert tune.wait(40) == 1
        assert "the same command goes on from there" in cluster.said(tune).splitlines()[-1]
    finally:
        cluster.scheduler.send_signal(signal.SIGCONT)
        cluster.let_go(16)


def test_a_killed_tuner_leaves_nothing_behind_and_its_workers_measure_for_the_next(cluster: Cluster) -> None:
    """The process beside its trial is gone in a moment; what a worker leaves in good order is measured again."""
    cluster.hold(4)
    worker = cluster.worker()
    tune = cluster.tune(store_of(cluster))
    cluster.begun(4)
    assert cluster.children() != []
    cluster.kill(tune.pid)
    until(lambda: cluster.children() == [], 10)
    assert worker.poll() is None
    again = cluster.tune(store_of(cluster))
    for times in (2, 3):  # twice a worker leaves in mid-trial, which is nobody's fault
        cluster.end(cluster.begun(4, times))
        cluster.worker()
    cluster.begun(4, 4)
    cluster.let_go(4)
    assert again.wait(30) == 0, cluster.said(again)
    assert_whole(cluster, 10)


def test_two_tunes_of_one_problem_share_a_cluster_and_a_store(cluster: Cluster) -> None:
    """The second says whom it waits for, and measures nothing again; one of another horizon does not wait."""
    cluster.hold(2)
    cluster.worker()
    first = cluster.tune(store_of(cluster))
    cluster.begun(2)
    cluster.worker()
    second = cluster.tune(store_of(cluster))
    until(lambda: "waiting for its rows" in cluster.said(second))
    assert f"process {first.pid} on" in cluster.said(second)
    other = cluster.tune(store_of(cluster), horizon=20)
    cluster.begun(2, 2)
    cluster.let_go(2)
    for tune in (first, second, other):
        assert tune.wait(30) == 0, cluster.said(tune)
    assert_whole(cluster, 10, 20)
    assert len(list(cluster.folder.glob("begun-6-*"))) == len(rows_of(cluster)[10, 6]) + len(rows_of(cluster)[20, 6])
