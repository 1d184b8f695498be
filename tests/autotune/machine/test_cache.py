"""The folder of compiled programs: whose it is, and how it is kept small."""

import os

import pytest

from autotune.machine import cache
from autotune.machine.cache import compilation_cache, prune


def fill(folder, sizes):
    """Write files of given sizes, the first used longest ago."""
    for age, (name, size) in enumerate(sizes.items()):
        path = folder / name
        path.write_bytes(b"x" * size)
        os.utime(path, (1000 + age, 1000 + age))


@pytest.fixture(autouse=True)
def no_folder_of_the_users(monkeypatch):
    """The tests' own environment may name one."""
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)


def test_the_files_used_longest_ago_go_first(tmp_path):
    """As many as needed, no more."""
    fill(tmp_path, {"oldest": 40, "middle": 40, "newest": 40})
    assert prune(tmp_path, 90) == 40
    assert {path.name for path in tmp_path.iterdir()} == {"middle", "newest"}
    assert prune(tmp_path, 90) == 0


def test_a_folder_that_is_not_there_is_no_error(tmp_path):
    """The first run has none."""
    assert prune(tmp_path / "absent", 1) == 0


def test_a_folder_that_the_user_named_is_used_and_never_pruned(tmp_path, monkeypatch):
    """It may hold programs of theirs that are not ours to remove."""
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path))
    fill(tmp_path, {"theirs": 100})
    assert compilation_cache(os.environ) == tmp_path
    assert prune(tmp_path, 1) == 0


def test_ours_is_apart_by_processor_model(monkeypatch):
    """A program compiled for one processor may end another's process."""
    here = compilation_cache({})
    monkeypatch.setattr(cache, "cpu_name", lambda: "another model")
    assert compilation_cache({}) != here
    assert compilation_cache({}).parent == here.parent
