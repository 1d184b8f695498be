"""The figures of messages about memory that ran out, in the forms that XLA and NumPy give them."""

import pytest

from autotune.machine.exhausted import Exhausted, read_exhausted

GIB = 2**30
FORMS = {
    "CPU": ("RESOURCE_EXHAUSTED: Out of memory allocating 70368744177664 bytes.", Exhausted(asked_bytes=2**46)),
    "GPU": (
        "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 4770354232 bytes.\n"
        "BufferAssignment OOM Debugging.\n"
        "             parameter allocation:  372.76MiB\n                 total allocation:   14.44GiB\n",
        Exhausted(asked_bytes=4770354232),
    ),
    "GPU, rounded": (
        "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 3.25GiB.",
        Exhausted(asked_bytes=13 * GIB // 4),
    ),
    "GPU, one buffer": (
        "RESOURCE_EXHAUSTED: Failed to allocate request for 6.27GiB (6727663616B) on device ordinal 0",
        Exhausted(asked_bytes=6727663616),
    ),
    "TPU, compiling": (
        "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space hbm. "
        "Used 22.00G of 15.50G hbm. Exceeded hbm capacity by 6.50G.\n\n"
        "Total hbm usage >= 22.52G:\n    reserved  530.00M",
        Exhausted(asked_bytes=22 * GIB, limit_bytes=31 * GIB // 2, planned=True),
    ),
    "TPU, loading": (
        "RESOURCE_EXHAUSTED: Error loading program: Attempting to reserve 5.75G at the bottom of memory. "
        "That was not possible. There are 3.25G free, 0B reserved, and 3.25G reservable.",
        Exhausted(asked_bytes=23 * GIB // 4, free_bytes=13 * GIB // 4),
    ),
    "TPU, one buffer": (
        "RESOURCE_EXHAUSTED: Error allocating device buffer: Attempting to allocate 1.50G. That was not possible. "
        "There are 512.0M free.; (0x0x0_HBM0)",
        Exhausted(asked_bytes=3 * GIB // 2, free_bytes=GIB // 2),
    ),
    "NumPy": ("Unable to allocate 2.00 TiB for an array with shape (2,)", Exhausted(asked_bytes=2**41)),
    "no figures": ("RESOURCE_EXHAUSTED: too many programs", Exhausted()),
}


@pytest.mark.parametrize("form", FORMS)
def test_the_figures_of_each_form_are_read(form: str) -> None:
    """Bytes, exact where they are written exactly; what a message does not say is None."""
    text, expected = FORMS[form]
    assert read_exhausted(text) == expected
