"""Devices that are not here: what the compilers are told of them, and where the compilers lie."""

import re
import tomllib
from pathlib import Path

import pytest

from autotune.errors import AutotuneError
from autotune.machine import compilers
from autotune.machine.compilers import VARIABLE
from autotune.machine.targets import ENVIRONMENT, find_targets, target_of
from profiles import DeviceError, load_devices
from tests.conftest import REPOSITORY

FIGURES = {
    "compute_capability", "cores", "clock_ghz", "cache_mib", "shared_memory_kib", "shared_memory_per_block_kib",
    "threads_per_core", "lanes_per_core", "bandwidth_gb_per_second", "teraflops", "matrix_teraflops", "topology",
    "chip_config", "available_gib",
}  # fmt: skip


def entries() -> dict:
    """The shipped catalogue, as its file says it."""
    return tomllib.loads((REPOSITORY / "profiles" / "devices.toml").read_text())


def test_every_figure_of_every_device_has_a_source():
    """No figure of the hardware without a document that holds it, and no source of a figure that is not there."""
    for name, entry in entries().items():
        sourced = {key.strip() for keys in entry.get("sources", {}) for key in keys.split(",")}
        assert sourced == FIGURES & set(entry), name
        assert all(len(text) > 10 and "http" not in text for text in entry.get("sources", {}).values()), name


def test_every_device_says_how_it_is_known():
    """A device has what one of XLA's compilers needs, or says in words why its bytes are carried over; never both."""
    for name, device in load_devices().items():
        assert device.is_compiled_for != bool(device.carried_over), name
        if device.is_compiled_for:
            assert target_of(device).key.planned
        else:
            with pytest.raises(AutotuneError, match=re.escape(device.carried_over)):
                target_of(device)


def test_the_figures_of_a_gpu_agree_with_each_other():
    """Stated flops are cores times lanes times two times the clock, to 2 %: four figures of two sources."""
    checked = 0
    for name, entry in entries().items():
        if "cores" in entry:
            computed = entry["cores"] * entry["lanes_per_core"] * 2 * entry["clock_ghz"] / 1000
            assert computed == pytest.approx(entry["teraflops"], rel=0.02), name
            checked += 1
    assert checked >= 18


def test_a_target_knows_what_jax_may_take_of_it():
    """Of a GPU the preallocated share, as the environment sets it; of a TPU what libtpu leaves."""
    gpu, tpu = find_targets(["h100-80gb", "tpu-v5e"], environment={})
    assert gpu.available_bytes == 60 * 10**9
    assert tpu.available_bytes == int(15.75 * 2**30)
    (more,) = find_targets(["h100-80gb"], environment={"XLA_CLIENT_MEM_FRACTION": "0.9"})
    assert more.available_bytes == 72 * 10**9
    with pytest.raises(AutotuneError, match=r"XLA_CLIENT_MEM_FRACTION='many' is not a share"):
        find_targets(["h100-80gb"], environment={"XLA_CLIENT_MEM_FRACTION": "many"})


def test_the_description_of_a_gpu_holds_the_figures_of_the_catalogue():
    """What XLA is told of an L4 are the figures of its sheet, in whole units."""
    (target,) = find_targets(["l4"], environment={})
    for text in (
        "core_count: 58", "major: 8 minor: 9", "l2_cache_size: 50331648", "memory_bandwidth: 300000000000",
        "shared_memory_per_core: 102400", "device_memory_size: 24000000000", 'device_description_str: "NVIDIA L4"',
    ):  # fmt: skip
        assert text in target.config


def test_several_devices_make_a_slice_or_are_refused():
    """Eight v5e chips are a 2x4 slice, two TPU7x devices one chip; three are none, which is said."""
    assert find_targets(["tpu-v5e"], count=8)[0].topology == "v5e:2x4"
    assert find_targets(["tpu-v5p"], count=4)[0].topology == "v5p:2x2x1"
    assert find_targets(["tpu7x"], count=2)[0].topology == "tpu7x:1x1x1"
    assert find_targets(["h100-80gb"], count=4)[0].topology == "1x1x4"
    with pytest.raises(AutotuneError, match="3 devices of tpu-v5e make no slice"):
        find_targets(["tpu-v5e"], count=3)


@pytest.mark.parametrize(
    ("names", "error", "said"),
    [
        (["mi300x"], AutotuneError, "AMD"),
        (["v100-16gb"], AutotuneError, "7.0"),
        (["h200"], DeviceError, "h200-141gb"),
        ([""], AutotuneError, "names no device"),
    ],
)
def test_what_is_no_target_is_refused_in_one_line(names: list[str], error: type[Exception], said: str):
    """A device that XLA does not compile for, an unknown name, and nothing at all."""
    with pytest.raises(error, match=said) as caught:
        find_targets(names)
    assert "\n" not in str(caught.value)


def a_plugin(root: Path, kind: str, version: str, *, jax: str | None = None, python: str | None = None) -> Path:
    """Lay down what pip leaves of a plugin."""
    environment = {VARIABLE: str(root)}
    folder = compilers.folder_of(kind, environment)
    if jax is not None or python is not None:
        folder = root / f"jax-{jax}-py{python}" / kind
    stem = {"gpu": "jax_cuda13_plugin", "tpu": "libtpu"}[kind]
    (folder / f"{stem}-{version}.dist-info").mkdir(parents=True)
    (folder / "code.so").write_bytes(b"x" * 100)
    return folder


def test_missing_compilers_are_one_line_with_the_command(tmp_path: Path):
    """Where there are none, and where there are some for another jax only."""
    environment = {VARIABLE: str(tmp_path)}
    with pytest.raises(AutotuneError, match=r"run `ckpt-tune targets install gpu`$"):
        compilers.search_path("gpu", environment)
    a_plugin(tmp_path, "gpu", "0.1", jax="0.1", python="3.9")
    with pytest.raises(AutotuneError, match=r"there are some for jax-0.1-py3.9: run `ckpt-tune targets install gpu`"):
        compilers.search_path("gpu", environment)


def test_compilers_beside_jax_need_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Where jax itself is the one for such devices, in the same version, nothing has to be installed."""
    import jax

    installed = {"jax-cuda13-plugin": jax.__version__}
    real = compilers.importlib.metadata.version
    monkeypatch.setattr(compilers.importlib.metadata, "version", lambda name: installed.get(name) or real(name))
    assert compilers.search_path("gpu", {VARIABLE: str(tmp_path)}) is None
    installed["jax-cuda13-plugin"] = "0.1"
    with pytest.raises(AutotuneError, match="targets install gpu"):
        compilers.search_path("gpu", {VARIABLE: str(tmp_path)})


def test_compilers_of_another_version_are_refused_with_both_versions(tmp_path: Path):
    """A plugin that is older than jax would fail somewhere inside XLA."""
    a_plugin(tmp_path, "tpu", "0.0.7")
    with pytest.raises(AutotuneError, match=r"holds libtpu 0.0.7, and jax .* needs 0.0.\d+"):
        compilers.search_path("tpu", {VARIABLE: str(tmp_path)})


def test_compilers_are_listed_and_removed(tmp_path: Path):
    """The list says for which jax, in which version and how large; only the named kinds go."""
    environment = {VARIABLE: str(tmp_path)}
    mine = a_plugin(tmp_path, "gpu", "9.9")
    other = a_plugin(tmp_path, "tpu", "0.0.1", jax="0.1", python="3.9")
    found = {one.kind: one for one in compilers.installed(environment)}
    assert (found["gpu"].usable, found["gpu"].version, found["gpu"].bytes) == (True, "9.9", 100)
    assert (found["tpu"].usable, found["tpu"].jax, found["tpu"].python) == (False, "0.1", "3.9")
    assert [one.kind for one in compilers.remove(["tpu"], environment)] == ["tpu"]
    assert mine.is_dir()
    assert not other.parent.exists()


def test_what_pip_is_asked_for_is_in_step_with_jax():
    """Both halves of the CUDA plugin in jax's own version; libtpu as jax's extra names it."""
    import jax

    gpu = compilers.requirements("gpu")
    assert gpu[:2] == [f"jax-cuda13-plugin=={jax.__version__}", f"jax-cuda13-pjrt=={jax.__version__}"]
    assert re.fullmatch(r"libtpu==0\.0\.\d+\.\*", compilers.requirements("tpu")[0])


def test_a_failed_install_is_one_line_and_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Pip's last error is said, and the compilers that were there still are."""
    there = a_plugin(tmp_path, "tpu", "0.0.1")
    monkeypatch.setattr(compilers, "requirements", lambda kind: [str(tmp_path / "no such wheel.whl")])
    with pytest.raises(AutotuneError, match=r"pip could not install the compilers for tpu: ERROR") as caught:
        compilers.install("tpu", {VARIABLE: str(tmp_path)})
    assert "\n" not in str(caught.value)
    assert there.is_dir()
    assert [path.name for path in there.parent.iterdir()] == ["tpu"]


def test_no_environment_of_a_target_lets_an_accelerator_be_touched_or_a_network_be_asked():
    """CUDA sees no card; libtpu neither asks the metadata server nor needs its host's name."""
    assert ENVIRONMENT["gpu"]["CUDA_VISIBLE_DEVICES"] == "-1"
    assert ENVIRONMENT["tpu"]["TPU_SKIP_MDS_QUERY"] == "1"
