"""How a computation may be nested in JAX's transformations, and what may be asked of it.

A kernel takes a vector of two and a scalar and returns a vector of two, so kernels chain: a scan may begin each where
the last one ended. A nesting makes a kernel of a kernel; a mode makes of a kernel, at a point, the numbers to compare.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.lax as lax
import jax.numpy as jnp
import numpy as np
from jax.experimental import checkify

Kernel = Callable[[Any, Any], Any]

POINT = np.array([0.4, -0.7]), np.array(1.3)
"""Where every program is evaluated."""
FACTORS = np.array([0.9, 1.1, 1.25])
"""What a loop around a kernel multiplies the scalar by, pass by pass."""
WEIGHTS = np.array([1.0, -0.6])


def two(f: Kernel) -> Kernel:
    """Evaluate twice, side by side."""
    return lambda y, w: f(y, w) - 0.5 * f(0.8 * y, 1.1 * w)


def python_loop(f: Kernel) -> Kernel:
    """Evaluate again where the last one ended."""

    def run(y: Any, w: Any) -> Any:
        for factor in FACTORS[:2]:
            y = f(y, w * factor)
        return y

    return run


def scan(f: Kernel) -> Kernel:
    """Chain kernels in a scan, and read every one's end."""

    def run(y: Any, w: Any) -> Any:
        def step(y: Any, factor: Any) -> Any:
            y = f(y, w * factor)
            return y, y

        return jnp.sum(lax.scan(step, y, jnp.asarray(FACTORS))[1], axis=0)

    return run


def mapped(f: Kernel) -> Kernel:
    """Evaluate one after the other by `lax.map`."""
    return lambda y, w: jnp.sum(lax.map(lambda factor: f(y * factor, w * factor), jnp.asarray(FACTORS)), axis=0)


def fori(f: Kernel) -> Kernel:
    """Chain kernels in a `fori_loop` that reads its counter."""
    return lambda y, w: lax.fori_loop(0, 3, lambda k, y: f(y, w * (1 + 0.1 * k)), y)


def cond(f: Kernel) -> Kernel:
    """Evaluate in one branch of a conditional on a value."""

    def run(y: Any, w: Any) -> Any:
        return lax.cond(w > 0, f, lambda y, w: jnp.sin(w * y), y, w) + lax.cond(w < 0, f, lambda y, w: w * y, y, w)

    return run


def vmap_states(f: Kernel) -> Kernel:
    """Map over the vector, sharing the scalar."""
    return lambda y, w: jnp.sum(jax.vmap(f, in_axes=(0, None))(FACTORS[:2, None] * y, w), axis=0)


def vmap_both(f: Kernel) -> Kernel:
    """Map over both."""
    return lambda y, w: jnp.sum(jax.vmap(f)(FACTORS[:2, None] * y, FACTORS[1:] * w), axis=0)


def scan_of_vmap(f: Kernel) -> Kernel:
    """Chain mapped kernels in a scan."""

    def run(y: Any, w: Any) -> Any:
        def step(ys: Any, factor: Any) -> Any:
            return jax.vmap(f, in_axes=(0, None))(ys, w * factor), None

        return jnp.sum(lax.scan(step, FACTORS[:2, None] * y, jnp.asarray(FACTORS))[0], axis=0)

    return run


def vmap_of_scan(f: Kernel) -> Kernel:
    """Map a scan."""
    return vmap_states(scan(f))


def custom(f: Kernel) -> Kernel:
    """Differentiate by a rule of the user's own, which pulls back through the kernel."""
    ruled = jax.custom_vjp(f)
    ruled.defvjp(lambda y, w: jax.vjp(f, y, w), lambda pullback, cotangent: pullback(2.0 * cotangent))
    return ruled


def gradient_steps(f: Kernel) -> Kernel:
    """Take the gradient inside a scan: training steps."""

    def run(y: Any, w: Any) -> Any:
        def step(y: Any, factor: Any) -> Any:
            slope = jax.grad(lambda y: jnp.sum(f(y, w * factor)))(y)
            return y - 0.1 * slope, slope

        return jnp.sum(lax.scan(step, y, jnp.asarray(FACTORS))[1], axis=0)

    return run


def gradient_while(f: Kernel) -> Kernel:
    """Take the gradient inside a while loop."""

    def run(y: Any, w: Any) -> Any:
        def step(carry: Any) -> Any:
            k, y = carry
            return k + 1, y - 0.1 * jax.grad(lambda y: jnp.sum(f(y, w)))(y)

        return lax.while_loop(lambda carry: carry[0] < 3, step, (0, y))[1]

    return run


def vmap_of_while(f: Kernel) -> Kernel:
    """Map a while loop whose lanes end at different passes, with the gradient inside."""

    def run(y: Any, w: Any) -> Any:
        def lane(y: Any, least: Any) -> Any:
            def step(carry: Any) -> Any:
                k, y = carry
                return k + 1, y - 0.1 * jax.grad(lambda y: jnp.sum(f(y, w)))(y)

            return lax.while_loop(lambda carry: carry[0] < least, step, (0, y))[1]

        return jnp.sum(jax.vmap(lane)(FACTORS[:2, None] * y, jnp.array([1, 3])), axis=0)

    return run


def checkified(f: Kernel) -> Kernel:
    """Make the checks inside values, inside of what is differentiated."""
    return lambda y, w: checkify.checkify(f, errors=checkify.user_checks | checkify.nan_checks)(y, w)[1]


NESTINGS: dict[str, Callable[[Kernel], Kernel]] = {
    "none": lambda f: f,
    "jit": lambda f: jax.jit(f),
    "two": two,
    "python loop": python_loop,
    "scan": scan,
    "map": mapped,
    "fori": fori,
    "cond": cond,
    "vmap": vmap_states,
    "vmap both": vmap_both,
    "scan of vmap": scan_of_vmap,
    "vmap of scan": vmap_of_scan,
    "custom_vjp": custom,
    "remat": lambda f: jax.checkpoint(f),
    "gradient steps": gradient_steps,
    "gradient while": gradient_while,
    "vmap of while": vmap_of_while,
    "checkify": checkified,
}
"""From the simplest on."""
FORWARD = {"gradient steps", "gradient while", "vmap of while"}
"""Nestings that take the gradient themselves and are not differentiated again."""


def weighed(f: Kernel) -> Kernel:
    """Make a scalar of the vector."""
    return lambda y, w: jnp.sum(WEIGHTS * f(y, w))


def pullback(f: Kernel, y: Any, w: Any) -> Any:
    """Call one pullback three times, once with zero."""
    value, pull = jax.vjp(f, y, w)
    return [value, *(pull(jnp.asarray(c)) for c in (WEIGHTS, 0 * WEIGHTS, WEIGHTS[::-1]))]


def lanes_of_gradients(f: Kernel, y: Any, w: Any) -> Any:
    """Map the gradient, each lane with its own of the shared scalar."""
    return jax.vmap(jax.grad(weighed(f), argnums=(0, 1)), in_axes=(0, None))(FACTORS[:2, None] * y, w)


MODES: dict[str, Callable[[Kernel, Any, Any], Any]] = {
    "value": lambda f, y, w: f(y, w),
    "grad": lambda f, y, w: jax.grad(weighed(f), argnums=(0, 1))(y, w),
    "value and grad": lambda f, y, w: jax.value_and_grad(weighed(f), argnums=(0, 1))(y, w),
    "jacrev": lambda f, y, w: jax.jacrev(f, argnums=(0, 1))(y, w),
    "hessian": lambda f, y, w: jax.jacfwd(jax.grad(weighed(f), argnums=(0, 1)), argnums=(0, 1))(y, w),
    "pullback": pullback,
    "vmap of grad": lanes_of_gradients,
}

FORWARD_MODES: dict[str, Callable[[Kernel, Any, Any], Any]] = {
    "jacfwd": lambda f, y, w: jax.jacfwd(f, argnums=(0, 1))(y, w),
    "reverse over forward": lambda f, y, w: jax.jacrev(jax.jacfwd(f, argnums=1), argnums=(0, 1))(y, w),
}
"""These no random program draws: a seed keeps its program."""


SETTINGS: dict[str, Callable[[], Any]] = {
    "none": contextlib.nullcontext,
    "leaks": jax.checking_leaks,
    "nans": lambda: jax.debug_nans(True),
    "checks": lambda: jax.enable_checks(True),
    "strict": lambda: jax.numpy_dtype_promotion("strict"),
    "checkify": contextlib.nullcontext,
    "checkify nan": contextlib.nullcontext,
}
CHECKED = {"checkify": checkify.user_checks, "checkify nan": checkify.nan_checks | checkify.user_checks}


@contextlib.contextmanager
def set_to(setting: str) -> Iterator[None]:
    """Run under a setting of JAX's."""
    with SETTINGS[setting]():
        yield


def ask(
    kernel: Kernel, nesting: str, mode: str, *, setting: str = "none", jitted: bool = True, nudge: float = 0.0
) -> Any:
    """Evaluate a kernel, nested, at the point.

    Args:
        kernel: the innermost computation.
        nesting: of `NESTINGS`.
        mode: of `MODES` or `FORWARD_MODES`.
        setting: of `SETTINGS`; those of checkify add whether an error was found.
        jitted: whether the whole is compiled as one.
        nudge: how far the point is moved, relatively.

    Returns:
        A tree of arrays.
    """
    f = NESTINGS[nesting](kernel)
    y, w = (jnp.asarray(x * (1 + nudge)) for x in POINT)
    whole = lambda y, w: (MODES | FORWARD_MODES)[mode](f, y, w)
    with set_to(setting):
        if setting in CHECKED:
            whole = checkify.checkify(whole, errors=CHECKED[setting])
        out = (jax.jit(whole) if jitted else whole)(y, w)
        if setting in CHECKED:
            error, out = out
            out = out, error.get() is None
        return jax.block_until_ready(out)
