"""The paragraph on an exception that says that memory ran out: each of its figures from a device made by hand."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import pytest

import autotune
from adjoint import RecursiveCheckpointAdjoint
from autotune import DeviceInfo
from autotune.machine.device import LiveBuffer, OtherProcess
from autotune.machine.exhausted import Exhausted, read_exhausted
from autotune.machine.host import HostMemory
from autotune.runtime import explain
from tests.autotune.runtime.test_monitor import choice_of

MIB = 2**20
GPU = DeviceInfo(
    platform="gpu", kind="a card", index=0, count=1, total_bytes=16 * MIB, limit_bytes=12 * MIB, in_use_bytes=10 * MIB,
    free_bytes=2 * MIB, host=HostMemory(total_bytes=64 * MIB, available_bytes=32 * MIB, resident_bytes=MIB),
    live_buffers=(
        LiveBuffer(shape=(1024, 1024), dtype="float32", device=0, count=2, total_bytes=8 * MIB),
        LiveBuffer(shape=(512, 512), dtype="float32", device=0, count=1, total_bytes=MIB),
    ),
    other_processes=(OtherProcess(pid=4321, used_bytes=3 * MIB),),
    statistics={"peak_bytes_in_use": 11 * MIB, "largest_free_block_bytes": MIB},
)  # fmt: skip
ASKED = read_exhausted("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 5242880 bytes.")


def explained(chosen: object, said: Exhausted = ASKED, **device: object) -> str:
    """The paragraph for a device with changes."""
    return explain.explanation(said, chosen, dataclasses.replace(GPU, **device))


def test_it_says_what_was_predicted_heard_held_and_what_would_have_fitted() -> None:
    """45 checkpoints of 5.5 MB were predicted; 2 MiB and arguments of 0.5 MB are left."""
    text = explained(choice_of().adjoint)
    assert "\n" not in text
    assert "Predicted for 45 checkpoints: 5.25 MiB for one call of p:make at horizon 10" in text
    assert "(measured), within a budget of 9.54 MiB." in text
    assert "5 MiB more could not be had; 10 MiB of 12 MiB are in use, at most 11 MiB so far; " in text
    assert "the largest free block has 1 MiB." in text
    assert (
        "9 MiB in 3 live arrays of this process (2 of float32[1024, 1024], 8 MiB; 1 of float32[512, 512], 1 MiB)"
        in text
    )
    assert "3 MiB in process 4321." in text
    assert "That leaves 2.48 MiB for a call, its arguments included." in text
    assert 'budget="2282KiB" would have fitted: 11 checkpoints' in text
    # 0.9 (2 MiB + 500,000) bytes, of which 1 MB is the call's own and each checkpoint takes 100 kB.
    assert 0.9 * (2 * MIB + 500_000) >= 1_000_000 + 100_000 * 11


@pytest.mark.parametrize("form", ["adjoint", "choice", "recommendation"])
def test_an_adjoint_a_choice_and_a_recommendation_say_the_same_prediction(form: str) -> None:
    """Whatever a training has at hand; only a bare recommendation has no rows to choose again from."""
    choice = choice_of()
    chosen = {"adjoint": choice.adjoint, "choice": choice, "recommendation": choice.recommendation}[form]
    text = explained(chosen)
    assert "Predicted for 45 checkpoints: 5.25 MiB" in text
    assert ("11 checkpoints" in text) is (form != "recommendation")
    assert "would have fitted" in text


def test_of_an_adjoint_made_by_hand_nothing_was_predicted() -> None:
    """The device and the budget are said all the same."""
    text = explained(RecursiveCheckpointAdjoint(checkpoints=7))
    assert "Nothing was predicted of 7 checkpoints" in text
    assert "That leaves 2 MiB for a call" in text
    assert 'budget="1843KiB"' in text


def test_where_nothing_fits_the_smallest_is_named() -> None:
    """One checkpoint takes 1.1 MB; 0.1 MiB and the arguments are left."""
    text = explained(choice_of(), free_bytes=MIB // 10)
    assert "No count fits 532 KiB" in text
    assert "the smallest needs 1.81 MiB" in text


def test_memory_that_is_free_again_is_told_from_memory_that_is_missing() -> None:
    """Where more is free than was predicted, the budget goes down from the prediction."""
    text = explained(choice_of(), free_bytes=9 * MIB)
    assert "9.48 MiB are free for a call now, more than was predicted" in text
    assert 'budget="4833KiB"' in text


def test_a_program_refused_as_it_is_compiled_is_held_to_the_whole_device() -> None:
    """A TPU's compiler names what the program needs, and what there is."""
    said = read_exhausted("RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 12.00M of 2.00M hbm.")
    text = explained(choice_of(), said, free_bytes=None, in_use_bytes=None)
    assert "the program needs 12 MiB of 2 MiB, as it is compiled" in text
    assert "That leaves 2.48 MiB" in text


def test_a_device_that_reports_nothing_is_said_to_be_unknown() -> None:
    """No figure is made up."""
    text = explained(choice_of(), free_bytes=None, in_use_bytes=None, live_buffers=(), statistics={})
    assert "no live arrays of this process" in text
    assert "What is left for a call is unknown here" in text


def test_a_real_exception_of_this_backend_is_raised_on_with_one_note() -> None:
    """The CPU's allocator is asked for more than there is; nested explanations say it once."""
    held = jnp.ones((321, 123))
    with (
        pytest.raises(jax.errors.JaxRuntimeError, match="RESOURCE_EXHAUSTED") as caught,
        autotune.explain_memory(choice_of().adjoint),
        autotune.explain_memory(),
    ):
        jax.block_until_ready(jnp.zeros(2**44, jnp.int8) + held.shape[0])
    (note,) = [note for note in caught.value.__notes__ if "ckpt-tune" in note]
    assert note.startswith("ckpt-tune: memory ran out. Nothing was predicted")
    assert "16 TiB more could not be had" in note
    assert re.search(r"[1-9]\d* live arrays of this process", note)
    assert "the host has" in note


def test_other_exceptions_pass_without_a_note() -> None:
    """Only memory is explained."""
    with pytest.raises(ValueError, match="mine") as caught, autotune.explain_memory(choice_of()):
        raise ValueError("mine")
    assert not hasattr(caught.value, "__notes__")


def test_a_device_that_cannot_be_read_leaves_the_exception_what_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """An explanation that fails says so in its note, and the exception is the one that was raised."""

    def broken(device: int) -> None:
        raise RuntimeError("the driver is gone")

    monkeypatch.setattr(explain, "device_info", broken)
    with pytest.raises(MemoryError) as caught, autotune.explain_memory():
        raise MemoryError
    assert caught.value.__notes__ == [
        "ckpt-tune: memory ran out. It could not be explained further: RuntimeError: the driver is gone"
    ]
