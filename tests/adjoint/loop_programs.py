"""Random programs that run one of our loops: the record, what it stands for, and how one is drawn."""

import dataclasses
import functools
import random
from collections.abc import Callable
from typing import Any

import jax
import jax.lax as lax
import jax.numpy as jnp
import numpy as np
from jax.experimental import checkify

from .nestings import CHECKED, FORWARD, MODES, NESTINGS, SETTINGS, ask
from .parts import Log, hosted

CHECKPOINTS = (2, None, 1, 3, 5, 16, 40, "numpy 3")
EXPECTED = (None, 1, 11, 1000, "traced 9")
MAX_STEPS = (24, 12, 5, None, 2**31, 3 * 10**9)
STEPS = (11, 1, 0, 4)


@dataclasses.dataclass(frozen=True)
class Leaf:
    """A leaf of the carry: how it begins, how it goes on, and what the state reads of it; all of (y, w)."""

    start: Callable[[Any, Any], Any]
    advance: Callable[[Any, Any], Any]
    read: Callable[[Any], Any]
    relative: float = 1e-9
    """How far gradients may be off that pass through it."""


def _number(dtype: Any, relative: float) -> Leaf:
    """A differentiable number: a nonlinear recurrence in its own precision."""
    complex_ = jnp.issubdtype(dtype, jnp.complexfloating)
    turn = np.array(0.8 + 0.3j if complex_ else 0.8, dtype)
    return Leaf(
        lambda y, w: (y[0] * (1 + 0.5j) if complex_ else y[0]).astype(dtype),
        lambda x, y: jnp.sin(turn * x),
        lambda x: (x.real + x.imag if complex_ else x).astype(jnp.float64),
        relative,
    )


def _advance_key(key: Any, y: Any) -> Any:
    return jax.random.split(key)[0]


def _read_key(key: Any) -> Any:
    return jax.random.normal(jax.random.fold_in(key, 1), (), jnp.float64)


LEAVES: dict[str, Leaf] = {
    "float16": _number(jnp.float16, 0.1),
    "bfloat16": _number(jnp.bfloat16, 0.3),
    "float32": _number(jnp.float32, 1e-4),
    "float64": _number(jnp.float64, 1e-9),
    "complex64": _number(jnp.complex64, 1e-4),
    "complex128": _number(jnp.complex128, 1e-9),
    "int8": Leaf(lambda y, w: jnp.int8(3), lambda x, y: x * jnp.int8(3), lambda x: x.astype(float) / 100),
    "uint32": Leaf(lambda y, w: jnp.uint32(7), lambda x, y: x * jnp.uint32(5), lambda x: (x % 9).astype(float) / 9),
    "bool": Leaf(lambda y, w: y[0] > 0, lambda x, y: x ^ (y[1] > 0.1), lambda x: jnp.where(x, 0.3, -0.2)),
    "raw key": Leaf(lambda y, w: jax.random.PRNGKey(3), _advance_key, _read_key),
    "typed key": Leaf(lambda y, w: jax.random.key(5), _advance_key, _read_key),
    "empty": Leaf(lambda y, w: jnp.zeros((0, 3)), lambda x, y: jnp.sin(x), lambda x: jnp.sum(x)),
    "weak": Leaf(lambda y, w: 0.3, lambda x, y: jnp.cos(x), lambda x: x),
    "matrix": Leaf(lambda y, w: jnp.outer(y, y), lambda x, y: jnp.sin(x @ x), lambda x: x[0, 1]),
}


def plain(log: Log, k: Any, y: Any, dead: Any) -> Any:
    """Do nothing more."""
    return y


def show_dead(log: Log, k: Any, y: Any, dead: Any) -> Any:
    """Show a leaf that no derivative reads."""
    log.watch("dead", dead)
    return y


def loop_over_dead(log: Log, k: Any, y: Any, dead: Any) -> Any:
    """Run an inner loop with an effect over a leaf that no derivative reads."""

    def step(carry: Any) -> Any:
        log.watch("inner", carry[1])
        return carry[0] + 1, 2.0 * carry[1]

    lax.while_loop(lambda c: (c[1] < 9) & (c[0] < 40), step, (0, dead))
    return y


def show_state(log: Log, k: Any, y: Any, dead: Any) -> Any:
    """Show the step and the state."""
    log.watch("state", k, y)
    return y


def host_forcing(log: Log, k: Any, y: Any, dead: Any) -> Any:
    """Add a number that the host computes of the step."""
    return y + 0.1 * hosted(0.3 * k.astype(float))


def check_dead(log: Log, k: Any, y: Any, dead: Any) -> Any:
    """Check a leaf that no derivative reads, for whoever makes checks values."""
    checkify.check(dead > 0.5, "the body was shown a state that never was")
    return y


def divide_by_dead(log: Log, k: Any, y: Any, dead: Any) -> Any:
    """Compute what is finite for every state there is."""
    log.watch("quotient", lax.stop_gradient(dead / dead))
    return y


EXTRAS: dict[str, Callable[..., Any]] = {
    "plain": plain,
    "show dead": show_dead,
    "loop over dead": loop_over_dead,
    "show state": show_state,
    "host": host_forcing,
    "check dead": check_dead,
    "divide by dead": divide_by_dead,
    "inner loop": plain,
}


PAIRS: tuple[dict[str, Any], ...] = (
    {"tier": "disk", "nesting": "scan", "mode": "grad"},
    {"tier": "disk", "nesting": "map", "mode": "jacrev"},
    {"tier": "disk", "nesting": "vmap of scan", "mode": "value and grad"},
    {"tier": "disk", "mode": "hessian"},
    {"tier": "disk", "leaves": ("typed key",), "mode": "grad"},
    {"tier": "host", "mode": "hessian"},
    {"extra": "inner loop", "tier": "disk", "inner_tier": "host"},
    {"extra": "inner loop", "inner_tier": "disk"},
    {"extra": "check dead", "setting": "checkify"},
)
"""What has been found to meet badly, or might: drawn together more often than chance would."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoopProgram:
    """One loop by names from the tables, how it is nested, and what is asked; the defaults are the simplest."""

    leaves: tuple[str, ...] = ()
    extra: str = "plain"
    buffer: bool = False
    steps: int = 11
    until: bool = False
    """Whether the loop ends by a condition on the state."""
    nesting: str = "none"
    mode: str = "value"
    setting: str = "none"
    tier: str | None = None
    inner_tier: str | None = None
    """Of the loop inside, where there is one."""
    windows: int = 3
    checkpoints: int | str | None = 2
    max_steps: int | None = 24
    expected: int | str | None = None
    jitted: bool = True

    @property
    def possible(self) -> bool:
        """Whether the combination makes sense."""
        checks = self.setting in CHECKED or self.nesting == "checkify"
        bound = 24 if self.max_steps is None else self.max_steps
        return not (
            (self.max_steps is None and self.checkpoints is None)
            or (self.extra == "check dead") > checks
            or (self.nesting in FORWARD and self.mode != "value")
            or (self.buffer and bound > 100)
            or (self.max_steps is not None and self.max_steps > 100 and self.checkpoints is None)
            or (self.inner_tier is not None and self.extra != "inner loop")
            or (self.setting == "strict" and "weak" in self.leaves)
        )

    @property
    def relative(self) -> float:
        """How far numbers may be off the oracle's."""
        return max([1e-9, *(LEAVES[name].relative for name in self.leaves)])

    def run(self, loop: Callable[..., Any], inner: Callable[..., Any], log: Log, nudge: float = 0.0) -> Any:
        """Evaluate with a loop, and another for the one inside."""
        return ask(
            self.kernel(loop, inner, log),
            self.nesting,
            self.mode,
            setting=self.setting,
            jitted=self.jitted,
            nudge=nudge,
        )

    def kernel(self, loop: Callable[..., Any], inner: Callable[..., Any], log: Log) -> Callable[[Any, Any], Any]:
        """Make the innermost computation."""
        return functools.partial(self._loop, loop, inner, log)

    def _loop(self, loop: Callable[..., Any], inner: Callable[..., Any], log: Log, y: Any, w: Any) -> Any:
        leaves = [LEAVES[name] for name in self.leaves]
        limits = {
            "checkpoints": np.int64(3) if self.checkpoints == "numpy 3" else self.checkpoints,
            "max_steps": self.max_steps,
            "expected_steps": jnp.array(9) if self.expected == "traced 9" else self.expected,
        }

        def body(carry: Any) -> Any:
            k, y, dead, others, out = carry
            y = EXTRAS[self.extra](log, k, y, dead)
            y = jnp.sin(w * y) + 0.3 * jnp.roll(y, 1) + 0.01 * k.astype(float)
            if self.extra == "inner loop":
                turn = lambda c: (c[0] + 1, jnp.sin(w * c[1] + 0.2))
                y = 0.5 * y + 0.5 * inner(lambda c: c[0] < 3, turn, (0, y), checkpoints=2, max_steps=4)[1]
            others = [leaf.advance(x, y) for leaf, x in zip(leaves, others, strict=True)]
            for leaf, x in zip(leaves, others, strict=True):
                y = y + 0.2 * leaf.read(x)
            out = out if out is None else out.at[k].set(y)
            return k + 1, y, dead * 1.3, others, out

        def going(carry: Any) -> Any:
            going = carry[0] < self.steps
            return (
                going & (jnp.abs(carry[1][1] - 0.25) < 4) & (carry[0] < jnp.where(w > 1, 11, 7))
                if self.until
                else going
            )

        size = 24 if self.max_steps is None else self.max_steps
        buffer = jnp.zeros((size, 2)) if self.buffer else None
        init = jnp.array(0), y, jnp.ones(()), [leaf.start(y, w) for leaf in leaves], buffer
        buffers = {"buffers": lambda carry: carry[4]} if self.buffer else {}
        k, y, _, others, out = loop(going, body, init, **limits, **buffers)
        for leaf, x in zip(leaves, others, strict=True):
            y = y + jnp.array([0.3, -0.5]) * leaf.read(x)
        y = y if out is None else y + jnp.sum(jnp.cos(jnp.arange(float(size)))[:, None] * out, axis=0)
        return jnp.tanh(0.5 * y) + 0.01 * k.astype(float)


def draw(rng: random.Random) -> LoopProgram:
    """Draw a possible program."""

    def pick(choices: tuple, simplest: float) -> Any:
        return choices[0] if rng.random() < simplest else choices[int(rng.random() * len(choices))]

    while True:
        count = pick((1, 0, 2), 0.4)
        program = LoopProgram(
            leaves=tuple(pick(tuple(LEAVES), 0.0) for _ in range(count)),
            extra=pick(tuple(EXTRAS), 0.4),
            buffer=rng.random() < 0.2,
            steps=pick(STEPS, 0.7),
            until=rng.random() < 0.3,
            nesting=pick(tuple(NESTINGS), 0.15),
            mode=pick(tuple(MODES), 0.0),
            setting=pick(tuple(SETTINGS), 0.6),
            tier=pick((None, "host", "disk"), 0.1),
            inner_tier=pick((None, "host", "disk"), 0.9),
            windows=pick((3, 1, 2), 0.4),
            checkpoints=pick(CHECKPOINTS, 0.4),
            max_steps=pick(MAX_STEPS, 0.4),
            expected=pick(EXPECTED, 0.6),
            jitted=rng.random() < 0.85,
        )
        if rng.random() < 0.3:
            program = dataclasses.replace(program, **PAIRS[int(rng.random() * len(PAIRS))])
        if program.possible:
            return program
