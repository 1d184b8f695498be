"""What the compiler says of a program."""

from collections.abc import Callable
from typing import Any

import jax


def temporary_bytes(fun: Callable[..., Any], *structs: Any) -> int:
    """Compile a function for arguments of the given shapes and return its temporary bytes."""
    memory = jax.jit(fun).lower(*structs).compile().memory_analysis()
    assert memory is not None
    return memory.temp_size_in_bytes
