"""Programs that scan, for tests that run them with ours and with `jax.lax.scan`."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Cell(NamedTuple):
    """A step of a scan with something to differentiate: `f(weights)` is what is scanned."""

    f: Callable[[Any], Callable[[Any, Any], Any]]
    weights: Any
    init: Any
    xs: Callable[[int], Any]


def _recurrent(weights: Any) -> Any:
    def f(carry: Any, x: Any) -> Any:
        h = jnp.tanh(weights["w"] @ carry + weights["u"] * x)
        return h, h[:2] * x[0]

    return f


def _mixed(weights: Any) -> Any:
    """Leaves that do not move, integers, None, a leaf that is handed through, and one that becomes moved later."""

    def f(carry: Any, x: Any) -> Any:
        row, number = x["row"], x["number"]
        h = jnp.sin(carry["h"] * weights + row) + 0.1 * carry["late"]
        late = carry["late"] + jnp.where(number % 2 == 0, h.sum(), 0.0)
        after = {"h": h, "count": carry["count"] + number, "late": late, "same": carry["same"], "none": None}
        return after, {"copied": row, "made": (h * carry["same"]).sum(), "count": carry["count"], "none": None}

    return f


def _linear(weights: Any) -> Any:
    """Whose pullback needs no state."""

    def f(carry: Any, x: Any) -> Any:
        after = 0.9 * carry + x
        return after, weights * 2.0

    return f


def _without_rows(weights: Any) -> Any:
    def f(carry: Any, x: None) -> Any:
        assert x is None
        p, q = carry
        p = p - 0.1 * jnp.sin(q) * weights
        return (p, q + 0.1 * p), None

    return f


def _rows(*shape: int) -> Callable[[int], np.ndarray]:
    return lambda length: np.random.default_rng(length).normal(size=(length, *shape))


CELLS = {
    "recurrent": Cell(
        _recurrent, {"w": _rows(3)(3) * 0.7, "u": np.array([0.3, -1.0, 0.5])}, np.array([0.1, -0.4, 0.7]), _rows(3)
    ),
    "mixed": Cell(
        _mixed,
        np.array([1.1, -0.6]),
        {
            "h": np.array([0.3, 0.2]),
            "count": np.array(3),
            "late": np.array(0.0),
            "same": np.array([2.0, 0.5]),
            "none": None,
        },
        lambda length: {"row": _rows(2)(length), "number": np.arange(length), "none": None},
    ),
    "linear": Cell(_linear, np.array([0.2, 0.4]), np.array([1.0, -1.0]), _rows(2)),
    "without rows": Cell(_without_rows, np.array(1.3), (np.array(0.4), np.array(-0.9)), lambda length: None),
}


def outcome(scan: Any, cell: Cell, weights: Any, init: Any, xs: Any, **options: Any) -> Any:
    """Scan; returns a number that every differentiable output matters to, and all outputs."""
    carry, ys = scan(cell.f(weights), init, xs, **options)
    leaves = [x for x in jax.tree.leaves((carry, ys)) if jnp.issubdtype(x.dtype, jnp.floating)]
    weighed = [
        jnp.sum(jnp.sin(x * (k + 1)) * jnp.arange(1.0, x.size + 1).reshape(x.shape)) for k, x in enumerate(leaves)
    ]
    return sum(weighed), (carry, ys)


def gradients(scan: Any, cell: Cell, length: int, **options: Any) -> Any:
    """Return outputs and gradients with respect to weights, carry and xs, those of integers left out."""
    moving = {"weights": cell.weights, "init": cell.init, "xs": cell.xs(length)}
    leaves, treedef = jax.tree.flatten(moving)
    leaves = [jnp.asarray(x) for x in leaves]
    places = [k for k, x in enumerate(leaves) if jnp.issubdtype(x.dtype, jnp.floating)]

    def of(values: Any) -> Any:
        whole = list(leaves)
        for k, x in zip(places, values, strict=True):
            whole[k] = x
        given = jax.tree.unflatten(treedef, whole)
        return outcome(scan, cell, given["weights"], given["init"], given["xs"], length=length, **options)

    return jax.jit(jax.value_and_grad(of, has_aux=True))([leaves[k] for k in places])
