"""Host limits, read from files laid out as the kernel lays them out."""

import ctypes
import subprocess
import sys

import psutil
import pytest

from autotune.machine import host

GIB = 2**30


def lay(root, files):
    """Write files under a pretended root."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(str(text))
    return root


def test_version_2_groups_count_the_tightest_ancestor_and_free_the_file_cache(tmp_path):
    """A pod's limit above the container's own group binds; inactive file pages can be dropped."""
    lay(tmp_path, {
        "proc/self/cgroup": "0::/pod/box\n",
        "sys/fs/cgroup/pod/memory.max": 4 * GIB,
        "sys/fs/cgroup/pod/memory.current": 3 * GIB,
        "sys/fs/cgroup/pod/memory.stat": f"anon 5\ninactive_file {GIB}\n",
        "sys/fs/cgroup/pod/box/memory.max": "max\n",
        "sys/fs/cgroup/pod/box/memory.current": 2 * GIB,
    })  # fmt: skip
    assert host.tightest_cgroup(tmp_path, 64 * GIB) == (4 * GIB, 2 * GIB)


def test_version_1_groups_are_read_and_their_huge_number_is_no_limit(tmp_path):
    """The root group of version 1 has a limit near 2**63, which means none."""
    lay(tmp_path, {
        "proc/self/cgroup": "5:cpu:/x\n4:memory:/job\n0::/\n",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": 9223372036854771712,
        "sys/fs/cgroup/memory/memory.usage_in_bytes": 7,
        "sys/fs/cgroup/memory/job/memory.limit_in_bytes": 2 * GIB,
        "sys/fs/cgroup/memory/job/memory.usage_in_bytes": GIB,
        "sys/fs/cgroup/memory/job/memory.stat": "total_inactive_file 1000\n",
    })  # fmt: skip
    assert host.tightest_cgroup(tmp_path, 64 * GIB) == (2 * GIB, GIB - 1000)


def test_a_container_that_shows_its_group_at_the_root_is_read(tmp_path):
    """Docker mounts the group itself at /sys/fs/cgroup while /proc names the host's path."""
    lay(tmp_path, {
        "proc/self/cgroup": "0::/docker/abc\n",
        "sys/fs/cgroup/memory.max": GIB,
        "sys/fs/cgroup/memory.current": 100,
    })  # fmt: skip
    assert host.tightest_cgroup(tmp_path, 64 * GIB) == (GIB, 100)


def test_no_groups_limit_nothing(tmp_path):
    """A system without control groups (macOS, Windows) has no such limit."""
    assert host.tightest_cgroup(tmp_path, 64 * GIB) is None


def test_free_is_the_least_of_all_that_limits():
    """Available memory, the group's rest and the address space's rest all bind."""
    base = {"total_bytes": 100, "available_bytes": 50, "resident_bytes": 5}
    assert host.HostMemory(**base).free_bytes == 50
    grouped = host.HostMemory(**base, cgroup_limit_bytes=60, cgroup_used_bytes=40)
    assert (grouped.free_bytes, grouped.capacity_bytes) == (20, 60)
    addressed = host.HostMemory(**base, address_limit_bytes=30, address_used_bytes=25)
    assert (addressed.free_bytes, addressed.capacity_bytes) == (5, 30)
    full = host.HostMemory(**base, cgroup_limit_bytes=60, cgroup_used_bytes=70)
    assert full.free_bytes == 0


def test_this_host_agrees_with_psutil():
    """The real reading is within reason: total as psutil says, free at most available."""
    memory = host.host_memory()
    assert memory.total_bytes == psutil.virtual_memory().total
    assert 0 < memory.free_bytes <= memory.total_bytes


def test_kills_are_counted_over_the_host_and_the_group(tmp_path):
    """Both counters are there on a usual system; neither means unknown."""
    assert host.oom_kills(tmp_path) is None
    lay(tmp_path, {"proc/vmstat": "pgfault 3\noom_kill 2\n"})
    assert host.oom_kills(tmp_path) == 2
    lay(tmp_path, {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.events": "max 5\noom_kill 1\n"})
    assert host.oom_kills(tmp_path) == 3


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_the_resident_peak_can_be_reset_and_sees_a_large_allocation():
    """64 MiB that are touched and freed show in the peak after the reset, and not before."""
    if not host.reset_resident_peak():
        pytest.skip("this kernel has no /proc/self/clear_refs")
    before = host.resident_bytes()
    assert before is not None
    block = bytearray(64 * 2**20)
    ctypes.memset((ctypes.c_char * len(block)).from_buffer(block), 1, len(block))
    del block
    peak = host.resident_peak_bytes()
    assert peak is not None
    assert peak - before >= 60 * 2**20
    assert host.reset_resident_peak()
    again = host.resident_peak_bytes()
    assert again is not None
    assert again < peak - 30 * 2**20


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="RLIMIT_AS")
def test_an_address_space_limit_holds_and_is_read_back():
    """A process limited to 2 GiB cannot allocate 3, and knows its limit."""
    code = (
        "from autotune.machine import host\n"
        "assert host.limit_address_space(2 * 2**30) == ''\n"
        "assert host.host_memory().address_limit_bytes == 2 * 2**30\n"
        "assert host.host_memory().free_bytes < 2 * 2**30\n"
        "try:\n    bytearray(3 * 2**30)\nexcept MemoryError:\n    print('held')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "held"
