"""What every store must do, whatever database is behind it.

A backend's test module subclasses `SharedStoreContract` (`StoreContract` where only one object can see the data) and
provides the fixture `url`: the URL of an empty store.
"""

import concurrent.futures
import dataclasses
import subprocess
import sys
import threading

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from profiles import (
    AmbiguousProfile,
    DeviceKey,
    Measurement,
    NoSuchProfile,
    ProfileStore,
    Status,
    StoreError,
    open_store,
)
from tests.profiles.makers import a_measurement, measurements, same

# One store serves all examples (rows only join it), and one suite serves several classes.
SHARED = [HealthCheck.function_scoped_fixture, HealthCheck.differing_executors]

WRITER = """
import sys
sys.path.insert(0, {root!r})
from profiles import open_store
from tests.profiles.makers import a_measurement
with open_store({url!r}) as store:
    for repeat in range({rows}):
        store.put(a_measurement(study={study!r}, repeat=repeat))
        store.put(a_measurement(study="shared", repeat=repeat))
"""


class StoreContract:
    """Tests of one backend."""

    @pytest.fixture
    def url(self) -> str:
        """The URL of an empty store."""
        raise NotImplementedError

    @pytest.fixture
    def store(self, url: str):
        """An empty store, open."""
        with open_store(url) as store:
            yield store

    @settings(max_examples=40, deadline=None, suppress_health_check=SHARED)
    @given(row=measurements())
    def test_a_row_comes_back_exactly(self, store: ProfileStore, row: Measurement):
        """Whatever a measurement holds is read back to the last bit, type and character."""
        store.put(row)
        found = store.get(row.key)
        assert found is not None
        assert same(found, row)

    @settings(max_examples=10, deadline=None, suppress_health_check=SHARED)
    @given(rows=st.lists(measurements(), max_size=6))
    def test_many_rows_come_back_exactly(self, store: ProfileStore, rows: list[Measurement]):
        """Rows that were put at once are all there, the last of each key."""
        store.put_all(rows)
        last = {row.key: row for row in rows}
        there = {row.key: row for row in store.measurements()}
        assert all(same(there[key], row) for key, row in last.items())

    @settings(max_examples=15, deadline=None, suppress_health_check=SHARED)
    @given(rows=st.lists(measurements(), max_size=6))
    def test_profiles_are_summed_up_as_their_rows_are(self, store: ProfileStore, rows: list[Measurement]):
        """What a database counts is what the rows themselves say, in the same order."""
        store.put_all(rows)
        counted = [(s.qualified_name, s.id, s.cases, s.measurements, s.failed, s.newest) for s in store.summaries()]
        assert sorted(counted) == sorted(
            (
                profile.qualified_name,
                profile.id,
                len(profile.cases),
                len(profile.measurements),
                sum(row.status is not Status.OK for row in profile.measurements),
                profile.newest.measured_at,
            )
            for profile in store.profiles()
        )

    def test_putting_a_row_again_changes_nothing(self, store: ProfileStore):
        """A row put twice is there once: a kill between storing and telling others is harmless."""
        store.put(a_measurement())
        store.put(a_measurement())
        assert store.measurements() == [a_measurement()]

    def test_measuring_a_point_again_replaces_its_row(self, store: ProfileStore):
        """The row of a key is the one that was put last, failures included."""
        store.put(a_measurement(status=Status.FAILED, message="lost"))
        store.put(a_measurement(minutes=5))
        assert store.measurements() == [a_measurement(minutes=5)]

    def test_an_unknown_key_gives_none(self, store: ProfileStore):
        """`get` answers None, it does not raise."""
        assert store.get("nothing") is None

    def test_rows_are_narrowed_by_each_argument_and_come_oldest_first(self, store: ProfileStore):
        """Study, problem, device and status each select, alone and together."""
        a = a_measurement(study="a", minutes=3)
        b = a_measurement(study="b", name="other:make", minutes=2)
        c = a_measurement(study="a", kind="gpu", minutes=1, status=Status.OUT_OF_MEMORY)
        store.put_all([a, b, c])
        assert store.measurements() == [c, b, a]
        assert store.measurements(study="a") == [c, a]
        assert store.measurements(problem_name="other:make") == [b]
        assert store.measurements(device="gpu") == [c]
        assert store.measurements(status="ok") == [b, a]
        assert store.measurements(status=Status.OUT_OF_MEMORY, study="a") == [c]
        assert store.measurements(study="none") == []

    def test_more_rows_than_one_statement_holds_are_deleted(self, store: ProfileStore):
        """Deleting goes through in portions, counts what was there, and spares the rest."""
        rows = [a_measurement(repeat=repeat) for repeat in range(1200)]
        store.put_all([*rows, a_measurement(name="other:make")])
        assert store.delete([*(row.key for row in rows[:1100]), "unknown"]) == 1100
        assert store.delete(rows[1100:]) == 100
        assert [row.problem.name for row in store.measurements()] == ["other:make"]

    def test_all_or_nothing_when_a_batch_fails(self, store: ProfileStore):
        """Rows put at once are in one transaction: a bad one leaves none of them."""

        def rows():
            yield a_measurement()
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            store.put_all(rows())
        assert store.measurements() == []

    # --- profiles

    def test_rows_of_one_problem_device_and_adjoint_are_one_profile(self, store: ProfileStore):
        """Rows group by problem, device and adjoint, whatever study measured them."""
        rows = [a_measurement(study="a"), a_measurement(study="b", minutes=1)]
        store.put_all([*rows, a_measurement(kind="gpu"), a_measurement(adjoint="diffrax")])
        assert len(store.profiles()) == 3
        assert store.profile("spirals:make@cpu:ours").measurements == tuple(rows)

    def test_an_ambiguous_name_lists_names_that_are_not(self, store: ProfileStore):
        """Every candidate that the error lists finds one profile, each another."""
        store.put_all([a_measurement(), a_measurement(kind="gpu"), a_measurement(adjoint="diffrax")])
        with pytest.raises(AmbiguousProfile, match="3 profiles") as caught:
            store.profile("spirals:make")
        found = {store.profile(candidate).id for candidate in caught.value.candidates}
        assert len(found) == 3
        assert all(candidate in str(caught.value) for candidate in caught.value.candidates)

    def test_a_bare_name_means_what_was_measured_before_what_was_planned(self, store: ProfileStore):
        """Profiles of devices that are not here make no name ambiguous, and are found by their own names."""
        device = DeviceKey(platform="gpu", kind="NVIDIA L4", planned=True)
        measured, planned = a_measurement(), a_measurement(device=device, minutes=1)
        store.put_all([measured, planned])
        assert store.profile("spirals:make").measurements == (measured,)
        (name,) = (profile.qualified_name for profile in store.profiles() if profile.device.planned)
        assert store.profile(name).measurements == (planned,)
        assert store.profile("spirals:make@NVIDIA L4").measurements == (planned,)

    def test_a_bare_name_means_the_newest_state_of_the_code(self, store: ProfileStore):
        """After a change of the source the name answers with the new rows; the id still finds the old."""
        old, new = a_measurement(components={"source": "1"}), a_measurement(components={"source": "2"}, minutes=1)
        store.put_all([new, old])
        assert store.profile("spirals:make").measurements == (new,)
        old_id = next(profile.id for profile in store.profiles() if profile.measurements == (old,))
        assert store.profile(f"spirals:make#{old_id[:8]}").measurements == (old,)
        assert store.profile(f"#{old_id}").measurements == (old,)

    def test_an_unknown_name_lists_what_there_is(self, store: ProfileStore):
        """The error names the store and its profiles."""
        with pytest.raises(NoSuchProfile, match="holds nothing"):
            store.profile("x")
        store.put(a_measurement())
        with pytest.raises(NoSuchProfile, match="spirals:make"):
            store.profile("x")
        with pytest.raises(NoSuchProfile):
            store.profile("")

    def test_a_profile_can_be_renamed_found_and_deleted(self, store: ProfileStore):
        """A given name finds the profile, survives, and goes with it; rows and keys stay as they were."""
        store.put_all([a_measurement(), a_measurement(name="other:make")])
        profile = store.rename(store.profile("spirals:make"), "before")
        assert store.profile("before") == profile
        assert store.profile("before").measurements == (a_measurement(),)
        assert store.profile("spirals:make").name == "before"
        assert store.delete(profile) == 1
        assert store.notes("profile-name") == {}
        assert [p.name for p in store.profiles()] == ["other:make"]

    @pytest.mark.parametrize("name", ["", "  ", "a@b", "a#b", "other:make"])
    def test_a_name_that_would_mislead_is_refused(self, store: ProfileStore, name: str):
        """Empty names, names with separators, and names of other profiles are refused."""
        store.put_all([a_measurement(), a_measurement(name="other:make")])
        with pytest.raises(StoreError):
            store.rename(store.profile("spirals:make"), name)

    # --- notes

    @pytest.mark.parametrize("value", [None, 0, 1.5, "x\n'\"", [1, None], {"a": {"b": [True]}}])
    def test_a_note_comes_back(self, store: ProfileStore, value: object):
        """A JSON document is read back as it was, and replaced as a whole."""
        store.put_note("law", "k", "first")
        store.put_note("law", "k", value)
        assert store.get_note("law", "k") == value
        assert store.notes("law") == {"k": value}

    def test_a_note_is_swapped_only_for_the_one_that_is_named(self, store: ProfileStore):
        """In one step: from nothing, from one to another, and to nothing; whoever names another changes nothing."""
        assert not store.swap_note("a", "k", {"x": 1}, {"x": 2})
        assert store.swap_note("a", "k", None, {"x": 1, "y": [2]})
        assert not store.swap_note("a", "k", None, {"x": 3})
        assert not store.swap_note("a", "k", {"x": 1}, {"x": 3})
        assert store.get_note("a", "k") == {"x": 1, "y": [2]}
        assert store.swap_note("a", "k", {"y": [2], "x": 1}, 7)
        assert store.get_note("a", "k") == 7
        assert not store.swap_note("a", "other", 7, None)
        assert not store.swap_note("b", "k", 7, None)
        assert store.swap_note("a", "k", 7, None)
        assert store.get_note("a", "k") is None
        assert store.swap_note("a", "k", None, None)
        with pytest.raises(StoreError, match="must be JSON"):
            store.swap_note("a", "k", None, object())

    def test_notes_are_told_apart_by_kind_and_key(self, store: ProfileStore):
        """Kinds and keys are separate, keys of any length."""
        long = "k" * 1000
        store.put_note("a", long, 1)
        store.put_note("a", long + "x", 2)
        store.put_note("b", long, 3)
        assert [store.get_note("a", long), store.get_note("a", long + "x"), store.get_note("b", long)] == [1, 2, 3]

    def test_what_is_no_json_is_refused(self, store: ProfileStore):
        """A note that JSON cannot hold is refused with its kind."""
        with pytest.raises(StoreError, match="law"):
            store.put_note("law", "k", object())


class SharedStoreContract(StoreContract):
    """Tests of a backend that several connections and processes may open."""

    def test_of_many_that_swap_a_note_at_once_one_succeeds(self, store: ProfileStore):
        """Each round, whoever it is; the others see that they did not."""
        for number in range(5):
            start = threading.Barrier(4)

            def swap(mine: int, start: threading.Barrier = start, number: int = number) -> bool:
                start.wait(30)
                return store.swap_note("a", f"k{number}", None, mine)

            with concurrent.futures.ThreadPoolExecutor(4) as pool:
                done = list(pool.map(swap, range(4)))
            assert sum(done) == 1
            assert store.get_note("a", f"k{number}") == done.index(True)

    def test_another_connection_sees_what_was_put(self, store: ProfileStore, url: str):
        """What `put` returned from is in the database, not in this object."""
        store.put(a_measurement())
        with open_store(url) as other:
            assert other.measurements() == [a_measurement()]

    def test_processes_that_start_and_write_at_once_lose_nothing(self, url: str, tmp_path, request):
        """Four processes open an empty store at once and write their own and shared rows: all are there, once."""
        root = str(request.config.rootpath)
        writers = [
            subprocess.Popen(
                [sys.executable, "-c", WRITER.format(root=root, url=url, rows=12, study=f"writer{n}")],
                stderr=subprocess.PIPE,
                text=True,
            )
            for n in range(4)
        ]
        errors = [writer.communicate(timeout=120)[1] for writer in writers]
        assert [writer.returncode for writer in writers] == [0] * 4, errors
        with open_store(url) as store:
            for study in ("writer0", "writer1", "writer2", "writer3", "shared"):
                assert {row.repeat for row in store.measurements(study=study)} == set(range(12))
            assert len(store.measurements()) == 60

    def test_the_store_can_be_used_after_it_was_closed(self, store: ProfileStore):
        """Closing lets connections go; the next call connects anew."""
        store.put(a_measurement())
        store.close()
        assert store.measurements() == [a_measurement()]

    def test_reading_only_reads_and_refuses_to_write(self, store: ProfileStore, url: str):
        """A store that is opened to read only shows everything and refuses every write."""
        store.put(a_measurement())
        with open_store(url, read_only=True) as reader:
            assert reader.measurements() == [a_measurement()]
            for write in (
                lambda: reader.put(a_measurement()),
                lambda: reader.delete(["x"]),
                lambda: reader.put_note("a", "b", 1),
                lambda: reader.rename(reader.profile("spirals:make"), "x"),
            ):
                with pytest.raises(StoreError, match="read only"):
                    write()
        assert store.measurements() == [dataclasses.replace(a_measurement())]
