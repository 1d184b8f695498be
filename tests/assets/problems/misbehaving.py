"""Problems that break their process in every way that a sweep must survive."""

import ctypes
import os
import signal
import time

import jax
import jax.numpy as jnp
from decay import make as make_decay


def make(*, adjoint, how, at=0):
    """Behave at fewer than `at` checkpoints; from there on break as `how` says."""
    print("printed by the user's code")
    fn, args = make_decay(adjoint=adjoint, horizon=1, adaptive=False)
    if adjoint.checkpoints < at:
        return fn, args
    breaks = {
        "killed": lambda: os.kill(os.getpid(), signal.SIGKILL),
        "aborted": os.abort,
        "segfault": lambda: ctypes.string_at(0),
        "exit": lambda: os._exit(3),
        "hang": lambda: time.sleep(600),
        "raise": lambda: [][1],
    }
    if how == "huge":
        return (lambda x: jnp.sum(jnp.sort(jnp.outer(x, x), axis=0)) + fn(*args)[0]), (jnp.ones(60_000),)
    if how == "nan":
        return (lambda w, y: fn(w * jnp.nan, y)), args
    if how.startswith("call-"):
        broken = breaks[how.removeprefix("call-")]

        def failing(w, y):
            token = jax.pure_callback(lambda v: (broken(), v)[1], jax.ShapeDtypeStruct((), y.dtype), y[0])
            return fn(w, y + 0 * token)

        return failing, args

    def breaking(w, y):
        breaks[how]()
        return fn(w, y)

    return breaking, args
