"""The catalogue of devices: sources for every figure, and the user's own entries."""

import tomllib
from pathlib import Path

import pytest

import profiles
from profiles import Device, DeviceError, DeviceKey, find_devices, load_devices


def test_every_device_states_its_memory_its_source_and_its_names():
    """No figure without a document that holds it, no name or JAX kind that means two devices."""
    devices = load_devices()
    assert len(devices) >= 20
    for name, device in devices.items():
        assert device.name == name
        assert device.memory_bytes >= 8 * 10**9
        assert len(device.source) > 10
        assert "http" not in device.source
        assert device.platform in ("gpu", "tpu")
        assert device.kinds
        assert device.price_per_hour is None
    names = [name for device in devices.values() for name in (device.name, *device.aliases)]
    assert len(set(names)) == len(names)
    kinds = [kind for device in devices.values() for kind in device.kinds]
    assert len(set(kinds)) == len(kinds)


def test_sizes_in_names_are_the_sizes_of_the_devices():
    """A name that ends in `-NNgb` has that much memory, read as 10^9 bytes."""
    for name, device in load_devices().items():
        if name.endswith("gb"):
            assert device.memory_bytes == int(name.rsplit("-", 1)[1].removesuffix("gb")) * 10**9


def test_the_catalogue_names_the_devices_that_the_issue_asks_for():
    """The devices of the example can be planned for, by name or by alias, in the order asked for."""
    found = find_devices(["a100-40gb", "h100-80gb", "L4", "tpu-v5e"], load_devices())
    assert [device.name for device in found] == ["a100-40gb", "h100-80gb", "l4-24gb", "tpu-v5e"]


def test_an_unknown_device_offers_near_names():
    """A slip of the pen is answered with what was probably meant, and with how to add a device."""
    with pytest.raises(DeviceError, match=r"a100-80gb.*TOML"):
        find_devices(["a100-80g"], load_devices())


def test_a_users_file_adds_devices_and_changes_some_figures(tmp_path: Path):
    """A new device joins; of a known one only what the file says changes."""
    path = tmp_path / "mine.toml"
    path.write_text(
        '[my-box]\nmemory_gib = 22.5\nkind = "My GPU"\nsource = "nvidia-smi"\nprice_per_hour = 0.5\ncurrency = "EUR"\n'
        "[a100-40gb]\nprice_per_hour = 2\nrelative_speed = 3\n[l4-24gb]\nmemory_bytes = 5\n"
    )
    devices = load_devices(path)
    shipped = load_devices()
    assert devices["my-box"].memory_bytes == int(22.5 * 2**30)
    assert devices["my-box"].kinds == ("My GPU",)
    assert (devices["my-box"].price_per_hour, devices["my-box"].currency) == (0.5, "EUR")
    assert devices["a100-40gb"].memory_bytes == shipped["a100-40gb"].memory_bytes
    assert (devices["a100-40gb"].price_per_hour, devices["a100-40gb"].relative_speed) == (2, 3)
    assert devices["l4-24gb"].memory_bytes == 5
    assert {name: d for name, d in devices.items() if name not in ("my-box", "a100-40gb", "l4-24gb")} == {
        name: d for name, d in shipped.items() if name not in ("a100-40gb", "l4-24gb")
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[x]\n", "needs one of memory_gb"),
        ("[x]\nmemory_gb = 1\nmemory_gib = 1\n", "found memory_gb, memory_gib"),
        ("[x]\nmemory_gb = 0\n", "above 0"),
        ("[x]\nmemory_gb = true\n", "above 0"),
        ('[x]\nmemory_gb = "8"\n', "above 0"),
        ("[x]\nmemory_gb = inf\n", "above 0"),
        ("[x]\nmemory_gb = 1\nprice_per_hour = -1\n", "price_per_hour"),
        ("[x]\nmemory_gb = 1\nprise_per_hour = 1\n", "unknown key prise_per_hour"),
        ("[x]\nmemory_gb = 1\nkind = [1]\n", "list of texts"),
        ("[x]\nmemory_gb = 1\ncurrency = 1\n", "must be a text"),
        ("x = 1\n", "is a table"),
        ("[x\n", "not TOML"),
    ],
)
def test_a_wrong_entry_is_named_with_its_file(tmp_path: Path, text: str, said: str):
    """The file and what is wrong stand in one line."""
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(DeviceError, match=said) as error:
        load_devices(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_file_is_said(tmp_path: Path):
    """A path that cannot be read is named."""
    with pytest.raises(DeviceError, match=r"none\.toml"):
        load_devices(tmp_path / "none.toml")


def test_a_profile_is_recognised_as_measured_on_a_device():
    """JAX's name of the device or its name here, one device only."""
    device = Device(name="l4-24gb", memory_bytes=1, kinds=("NVIDIA L4",))
    assert device.is_measured_by(DeviceKey(platform="gpu", kind="nvidia l4"))
    assert not device.is_measured_by(DeviceKey(platform="gpu", kind="NVIDIA L4", count=2))
    assert not device.is_measured_by(DeviceKey(platform="gpu", kind="NVIDIA L40S"))


def test_the_shipped_catalogue_is_plain_toml_beside_the_package():
    """The file that users copy from can be read by itself."""
    text = (Path(profiles.__file__).parent / "devices.toml").read_text(encoding="utf-8")
    assert set(tomllib.loads(text)) == set(load_devices())
