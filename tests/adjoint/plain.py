"""Oracles for the loop: the same while loop as a masked `jax.lax.scan`, differentiated by JAX alone."""

from collections.abc import Callable
from typing import Any

import jax
import jax.lax as lax
import jax.numpy as jnp
import numpy as np

BOUND = 24
"""Passes of the plain loop where no bound is given: more than any test of it makes."""


def plain_while_loop(
    cond_fun: Callable[[Any], Any],
    body_fun: Callable[[Any], Any],
    init_val: Any,
    *,
    max_steps: int | None = None,
    **ignored: Any,
) -> Any:
    """Run a while loop as a scan of fixed length; passes after the end are computed and thrown away.

    Takes the arguments of `checkpointed_while_loop`, those on checkpoints and buffers being of no use here. Stands for
    it under every transformation; the body must stay finite after the condition has become false.
    """
    assert set(ignored) <= {"checkpoints", "expected_steps", "buffers"}, ignored
    init_val = jax.tree.map(jnp.array, init_val)

    def step(carry: Any, _: None) -> tuple[Any, None]:
        going = cond_fun(carry)
        new = body_fun(carry)
        return jax.tree.map(lambda a, b: jnp.where(going, jnp.asarray(a, b.dtype), b), new, carry), None

    return lax.scan(step, init_val, None, length=max_steps if max_steps in range(1000) else BOUND)[0]


def assert_close(found: Any, expected: Any, relative: float = 1e-12, name: str = "", *, smallest: float = 0.0) -> None:
    """Assert that two trees agree leaf by leaf, relative to the largest finite entry of each expected leaf.

    A leaf whose entries are all below `smallest` is compared relative to that: it may be what is left when larger
    numbers cancel.
    """
    found_leaves, found_structure = jax.tree.flatten_with_path(found)
    expected_leaves, expected_structure = jax.tree.flatten_with_path(expected)
    assert found_structure == expected_structure
    for (path, a), (_, b) in zip(found_leaves, expected_leaves, strict=True):
        where = name + jax.tree_util.keystr(path)
        if jnp.issubdtype(jnp.asarray(a).dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        a, b = np.asarray(a), np.asarray(b)
        assert a.dtype == b.dtype, f"{where}: {a.dtype} against {b.dtype}"
        assert a.shape == b.shape, f"{where}: {a.shape} against {b.shape}"
        if np.issubdtype(a.dtype, np.inexact):
            scale = np.abs(b[np.isfinite(b)]).max(initial=smallest)
            np.testing.assert_allclose(a, b, rtol=0, atol=relative * scale, err_msg=where)
        else:
            np.testing.assert_array_equal(a, b, err_msg=where)
