"""A served store whose service goes away: rows wait, what was read is still known, and all is delivered later."""

import logging
from pathlib import Path

import pytest

from autotune.serving.tokens import Right
from autotune.tuning.keeping import Keeping
from profiles import StoreError, open_store
from profiles.store import absence, served
from profiles.store.spool import spool_folder
from tests.autotune.serving.service import service
from tests.profiles.makers import a_measurement


@pytest.fixture(autouse=True)
def at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A data folder of this test, and no pauses."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setattr(served, "WAIT_SECONDS", (0.0,))
    monkeypatch.setattr(absence, "TRY_AGAIN_SECONDS", 0.0)


def test_rows_wait_while_the_service_is_away_and_are_delivered_when_it_is_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    """Each put returns; reading gives what was read before and what waits; one warning for each way."""
    caplog.set_level(logging.WARNING)
    url, first, second = str(tmp_path / "profiles.db"), a_measurement(), a_measurement(repeat=1, minutes=1)
    other = a_measurement(name="other:make")
    with service(url, tmp_path) as running:
        store = open_store(running.url(Right.WRITE))
        store.put(first)
        store.put_note("lease", "a", {"tune": 1})
        assert store.measurements(problem_name="spirals:make") == [first]
    store.put_all([second, other])
    store.put(second)
    store.put_note("choice", "b", 2)
    assert store.measurements(problem_name="spirals:make") == [first, second]
    assert store.get_note("lease", "a") == {"tune": 1}
    assert store.get_note("choice", "b") == 2
    with pytest.raises(StoreError, match="did not answer"):
        store.measurements(problem_name="never asked")
    with pytest.raises(StoreError):
        store.swap_note("lease", "a", {"tune": 1}, None)
    assert len(list(spool_folder().glob("*.jsonl"))) == 1
    assert running.tokens[Right.WRITE] not in next(spool_folder().glob("*.jsonl")).read_text()
    port = int(running.address.rpartition(":")[2])
    with service(url, tmp_path, port=port, tokens=running.tokens):
        assert store.measurements(problem_name="spirals:make") == [first, second]
        store.close()
    with open_store(url) as directly:
        assert {row.key for row in directly.measurements()} == {first.key, second.key, other.key}
        assert directly.get_note("choice", "b") == 2
    assert not list(spool_folder().glob("*.jsonl"))
    said = [record.getMessage() for record in caplog.records if record.name == "profiles.store.absence"]
    assert [("is away: rows wait" in line, "is back: 2 rows" in line) for line in said] == [
        (True, False),
        (False, True),
    ]


def test_what_one_process_left_behind_the_next_delivers(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    """The first says at its end where rows wait; who only reads delivers nothing, who writes does as it opens."""
    caplog.set_level(logging.WARNING)
    url = str(tmp_path / "profiles.db")
    with service(url, tmp_path) as running:
        store = open_store(running.url(Right.WRITE))
    store.put(a_measurement())
    store.close()
    assert "is still away: 1 rows wait in" in caplog.text
    port = int(running.address.rpartition(":")[2])
    with service(url, tmp_path, port=port, tokens=running.tokens):
        with open_store(running.url(Right.READ), read_only=True) as reader:
            assert reader.measurements() == []
        with open_store(running.url(Right.READ)) as reader:
            assert reader.measurements() == []
        with open_store(running.url(Right.WRITE)) as writer:
            assert writer.measurements() == [a_measurement()]


def test_a_store_that_never_answered_cannot_be_opened(tmp_path: Path):
    """Nothing is known of it, not even whether the token counts."""
    with pytest.raises(StoreError, match="did not answer"):
        open_store("http://127.0.0.1:1")
    assert not spool_folder().exists()


def test_a_tune_leaves_it_to_the_store_of_a_service_to_keep_rows(tmp_path: Path):
    """A row waits once, in the store's own spool, is among those that are read, and is delivered by its store."""
    url, row, said = str(tmp_path / "profiles.db"), a_measurement(), []
    with service(url, tmp_path) as running:
        store = open_store(running.url(Right.WRITE))
        kept = Keeping(store, said.append)
        assert kept.measurements(problem_name="spirals:make") == []
    kept.put(row)
    assert kept.measurements(problem_name="spirals:make") == [row]
    kept.finish()
    assert len(list(spool_folder().glob("*.jsonl"))) == 1
    with service(url, tmp_path, port=int(running.address.rpartition(":")[2]), tokens=running.tokens):
        assert kept.measurements(problem_name="spirals:make") == [row]
        store.close()
    assert not list(spool_folder().glob("*.jsonl"))
    assert said == []
