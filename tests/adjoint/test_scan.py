"""The checkpointed scan against `jax.lax.scan`: values, gradients, types, errors, and what is executed and held."""

import functools
import itertools
from typing import Any

import jax
import jax.lax as lax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import adjoint
from adjoint import checkpointed_scan
from adjoint.theory.blocks import block_steps, divide

from .compiled import temporary_bytes
from .plain import assert_close
from .scans import CELLS, gradients, outcome
from .test_counts import Counter

pytestmark = pytest.mark.usefixtures("x64")


def ours(checkpoints: Any = 2, **options: Any) -> Any:
    """Our scan with a count."""
    return functools.partial(checkpointed_scan, checkpoints=checkpoints, **options)


#
# Values and gradients
#


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize(("length", "checkpoints"), [(1, 1), (7, 2), (12, 5), (12, None)])
def test_a_scan_is_that_of_jax(name: str, length: int, checkpoints: Any) -> None:
    """Outputs and all gradients, forwards and backwards, with few checkpoints, the default, and all."""
    reverse = length % 2 == 1
    expected = gradients(lax.scan, CELLS[name], length, reverse=reverse)
    assert_close(gradients(ours(checkpoints), CELLS[name], length, reverse=reverse), expected, 1e-12)


@settings(max_examples=8)
@given(
    name=st.sampled_from(sorted(CELLS)),
    length=st.integers(1, 40),
    checkpoints=st.integers(1, 24),
    reverse=st.booleans(),
    unroll=st.integers(1, 3),
)
def test_any_length_count_and_direction(name: str, length: int, checkpoints: int, reverse: bool, unroll: int) -> None:
    """Lengths need no divisors, counts no powers of two."""
    options = {"reverse": reverse, "unroll": unroll}
    expected = gradients(lax.scan, CELLS[name], length, **options)
    assert_close(gradients(ours(checkpoints), CELLS[name], length, **options), expected, 1e-12)


def test_nothing_is_needed_of_a_scan_of_no_steps() -> None:
    """The carry is what it was, ys are empty, and so are gradients."""
    cell = CELLS["mixed"]
    assert_close(gradients(ours(), cell, 0), gradients(lax.scan, cell, 0), 1e-12)


def test_length_alone_says_how_many_steps() -> None:
    """As with `jax.lax.scan`, without xs or beside them."""

    def f(carry: Any, x: Any) -> Any:
        return carry * 1.5, carry

    found = checkpointed_scan(f, 1.0, length=6, checkpoints=2)
    assert_close(found, lax.scan(f, 1.0, length=6), 1e-15)
    assert_close(checkpointed_scan(f, 1.0, jnp.arange(4), checkpoints=2), lax.scan(f, 1.0, jnp.arange(4)), 1e-15)


def test_only_some_cotangents() -> None:
    """A last carry that nobody reads, ys of which one row is read, and nothing but integers."""
    cell = CELLS["recurrent"]
    xs = cell.xs(9)

    def of(scan: Any, pick: Any) -> Any:
        return jax.jit(jax.grad(lambda *args: pick(*scan(cell.f(args[0]), *args[1:])), argnums=(0, 1, 2)))(
            cell.weights, cell.init, xs
        )

    picks = [lambda carry, ys: carry[0], lambda carry, ys: ys[4, 1], lambda carry, ys: ys[-1].sum() * 0 + 1.0]
    for pick in picks:
        assert_close(of(ours(3), pick), of(lax.scan, pick), 1e-12, smallest=1e-9)


#
# Under other transformations
#


def _loss(scan: Any, weight: Any, init: Any, xs: Any) -> Any:
    def f(carry: Any, x: Any) -> Any:
        h, count = carry
        h = jnp.tanh(weight * h + x)
        return (h, count + 1), (h * weight, count)

    (h, count), (ys, counts) = scan(f, (init, 0), xs)
    return jnp.sum(h**2) + jnp.sum(jnp.sin(ys)) + 0.1 * jnp.sum(ys[0]) + count + counts.sum()


LANES = 3
AXES = [axes for axes in itertools.product((0, None), (0, None), (1, None)) if axes != (None, None, None)]


def _lanes(axes: Any) -> tuple[Any, Any, Any]:
    weight, init, xs = (np.random.default_rng(k).normal(size=(2,)) for k in range(3))
    xs = np.random.default_rng(3).normal(size=(9, LANES, 2) if axes[2] is not None else (9, 2))
    grown = [np.stack([x + 0.1 * k for k in range(LANES)]) for x in (weight, init)]
    weight, init = (new if mapped == 0 else x for new, x, mapped in zip(grown, (weight, init), axes[:2], strict=True))
    return jnp.asarray(weight), jnp.asarray(init), jnp.asarray(xs)


@pytest.mark.parametrize("axes", AXES)
def test_mapped_in_every_combination(axes: Any) -> None:
    """Closures, carries and xs, mapped or not: values, the gradient of all lanes, and each lane's own."""

    def every(scan: Any) -> Any:
        args = _lanes(axes)
        lanes = jax.vmap(functools.partial(_loss, scan), axes)
        own = jax.grad(functools.partial(_loss, scan), argnums=(0, 1, 2))
        whole = jax.grad(lambda *args: lanes(*args).sum(), argnums=(0, 1, 2))
        return jax.jit(lambda *args: (lanes(*args), whole(*args), jax.vmap(own, axes)(*args)))(*args)

    assert_close(every(ours(4)), every(lax.scan), 1e-12)


def _nested(outer: Any, inner: Any, weight: Any, init: Any, xs: Any) -> Any:
    def f(carry: Any, x: Any) -> Any:
        h, ys = inner(lambda c, x: (jnp.tanh(weight * c + x), c * weight), carry, xs)
        return h + x, ys.sum()

    h, ys = outer(f, init, xs[:4])
    return h.sum() + jnp.sin(ys).sum()


def _in_cond(scan: Any, *args: Any) -> Any:
    return lax.cond(args[1].sum() < 100, lambda: _loss(scan, *args), lambda: 0.0)


def _in_remat(scan: Any, *args: Any) -> Any:
    return jax.checkpoint(functools.partial(_loss, scan))(*args)


def _in_while(scan: Any, weight: Any, init: Any, xs: Any) -> Any:
    def body(carry: Any) -> Any:
        return carry[0] + 1, scan(lambda c, x: (jnp.tanh(weight * c + x), None), carry[1], xs)[0]

    return adjoint.checkpointed_while_loop(lambda c: c[0] < 3, body, (0, init), checkpoints=2)[1].sum()


NESTINGS = {
    "twice": lambda scan, *args: _nested(scan, scan, *args),
    "inside jax's": lambda scan, *args: _nested(lax.scan, scan, *args),
    "around jax's": lambda scan, *args: _nested(scan, lax.scan, *args),
    "cond": _in_cond,
    "remat": _in_remat,
    "while": _in_while,
}


@pytest.mark.parametrize("nesting", NESTINGS)
def test_nested_in_other_loops(nesting: str) -> None:
    """In scans, loops, branches and `jax.checkpoint`."""

    def of(scan: Any) -> Any:
        run = functools.partial(NESTINGS[nesting], scan)
        return jax.jit(jax.value_and_grad(run, argnums=(0, 1, 2)))(*_lanes((None, None, None)))

    assert_close(of(ours(3)), of(lax.scan), 1e-12)


@pytest.mark.parametrize("checkpoints", [2, 6, "all"])
def test_hessians_forward_over_reverse(checkpoints: Any) -> None:
    """By blocks of one step, of several, and with everything held."""
    weight, init, xs = _lanes((None, None, None))

    def hessian(scan: Any) -> Any:
        return jax.jit(jax.jacfwd(jax.grad(lambda w: _loss(scan, w, init, xs))))(weight)

    assert_close(hessian(ours(checkpoints)), hessian(lax.scan), 1e-12)


MODES: dict[str, Any] = {
    "forward": lambda f, args, along: jax.jvp(f, args, along),
    "forward over reverse": lambda f, args, along: jax.jvp(jax.grad(f, (0, 1, 2)), args, along),
    "reverse over forward": lambda f, args, along: jax.grad(lambda *x: jax.jvp(f, x, along)[1], (0, 1, 2))(*args),
    "forward over forward": lambda f, args, along: jax.jvp(lambda *x: jax.jvp(f, x, along)[1], args, along),
    "columns": lambda f, args, along: jax.jacfwd(f, (0, 1))(*args),
    "mapped": lambda f, args, along: jax.vmap(lambda *x: jax.jvp(f, x, x)[1], (None, None, 1))(
        *args[:2], jnp.stack([args[2], along[2]], axis=1)
    ),
}


@pytest.mark.parametrize("checkpoints", [4, "all"])
@pytest.mark.parametrize("mode", MODES)
def test_forward_mode_and_its_nestings(mode: str, checkpoints: Any) -> None:
    """With one reverse pass at most among them."""
    args = _lanes((None, None, None))
    along = tuple(x[::-1] + 0.1 for x in args)

    def of(scan: Any) -> Any:
        return jax.jit(lambda *args: MODES[mode](functools.partial(_loss, scan), args, along))(*args)

    assert_close(of(ours(checkpoints)), of(lax.scan), 1e-12)


def test_a_rule_of_its_own_for_the_step() -> None:
    """`jax.custom_vjp` inside `f`, whose backward pass is not the derivative, is obeyed."""

    @jax.custom_vjp
    def clipped(x: Any) -> Any:
        return jnp.sin(x)

    clipped.defvjp(lambda x: (jnp.sin(x), x), lambda x, ct: (jnp.clip(ct, -0.5, 0.5) * x,))

    def of(scan: Any) -> Any:
        def loss(init: Any, xs: Any) -> Any:
            carry, ys = scan(lambda c, x: (clipped(c + x), c), init, xs)
            return carry.sum() + (ys**2).sum()

        return jax.grad(loss, argnums=(0, 1))(jnp.array([0.3, 0.8]), jnp.linspace(0.0, 1.0, 9))

    assert_close(of(ours(4)), of(lax.scan), 1e-12)


#
# Types and errors
#


def test_types_are_those_of_jax() -> None:
    """Weak types, promotions of a weak carry, half precision, complex, booleans, keys; shapes of ys."""

    def f(carry: Any, x: Any) -> Any:
        weak, strong, half, wave, flag, key = carry
        key, draw = jax.random.split(key)
        noise = jax.random.normal(draw, (), jnp.float32)
        after = weak + x, strong * 2, half * jnp.bfloat16(0.5), wave * 1j, ~flag, key
        return after, (weak, 1.0, half, noise, flag, draw, wave.real.astype(jnp.float16))

    init = 1, jnp.float32(0.5), jnp.bfloat16(3), jnp.complex64(1 + 2j), jnp.array(True), jax.random.key(3)
    for xs in (jnp.arange(5.0, dtype=jnp.float32), jnp.arange(5)):
        expected = lax.scan(f, init, xs)
        found = checkpointed_scan(f, init, xs, checkpoints=2)
        types = [jax.tree.map(jax.typeof, tree) for tree in (found, expected)]
        assert types[0] == types[1]
        assert [x.weak_type for x in jax.tree.leaves(types[0])] == [x.weak_type for x in jax.tree.leaves(types[1])]
        assert_close(found, expected, 1e-7)


BAD = {
    "lengths disagree": (lambda c, x: (c, x), 0.0, (jnp.zeros(3), jnp.zeros(4)), None),
    "length disagrees": (lambda c, x: (c, x), 0.0, jnp.zeros(3), 4),
    "no length": (lambda c, x: (c, x), 0.0, None, None),
    "no axis": (lambda c, x: (c, x), 0.0, jnp.zeros(()), None),
    "no pair": (lambda c, x: (c, c, c), 0.0, jnp.zeros(3), None),
    "another type": (lambda c, x: (c.astype(jnp.int32), x), jnp.float32(0), jnp.zeros(3), None),
    "another shape": (lambda c, x: (jnp.stack([c, c]), x), jnp.float32(0), jnp.zeros(3), None),
    "another structure": (lambda c, x: ((c, c), x), 0.0, jnp.zeros(3), None),
    "no function": (3, 0.0, jnp.zeros(3), None),
}


@pytest.mark.parametrize("case", BAD)
def test_errors_are_those_of_jax(case: str) -> None:
    """Same kind, same words."""
    f, init, xs, length = BAD[case]
    with pytest.raises((TypeError, ValueError, IndexError)) as expected:
        lax.scan(f, init, xs, length)
    with pytest.raises(type(expected.value)) as found:
        checkpointed_scan(f, init, xs, length, checkpoints=2)
    assert str(found.value).splitlines()[0] == str(expected.value).splitlines()[0]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"checkpoints": 0}, "at least one checkpoint"),
        ({"checkpoints": 2.0}, "`checkpoints` must be an integer"),
        ({"checkpoints": "some"}, "`checkpoints` must be an integer"),
        ({"checkpoints": 2, "checkpoint_bytes": 100}, "Either `checkpoints` or `checkpoint_bytes`"),
        (
            {"checkpoint_bytes": "2 GiBs"},
            '`checkpoint_bytes` must be a number of bytes, at least 1, or a text such as "2Gi',
        ),
        ({"checkpoint_bytes": 0}, "`checkpoint_bytes` must be a number of bytes"),
        ({"expected_steps": "ten"}, "`expected_steps` must be"),
        ({"unroll": -1}, "`unroll` must be a `bool` or a non-negative `int`"),
        ({"tier": "tape"}, "`tier` must be"),
    ],
)
def test_our_own_arguments_are_checked(options: dict[str, Any], words: str) -> None:
    """One line that says what was found."""
    with pytest.raises(ValueError, match=words.replace("(", r"\(")):
        checkpointed_scan(lambda c, x: (c + x, x), 0.0, jnp.zeros(3), **options)


def test_bytes_for_less_than_a_state_are_refused_with_its_size() -> None:
    """The error says how many bytes would do."""

    def loss(x: Any) -> Any:
        return checkpointed_scan(lambda c, _: (jnp.sin(c), None), x, length=5, checkpoint_bytes=79)[0].sum()

    with pytest.raises(ValueError, match="one takes 80 bytes"):
        jax.grad(loss)(jnp.zeros(10))


#
# What is executed and held
#


def _counted(scan: Any, length: int) -> tuple[int, Any]:
    counter = Counter()

    def f(carry: Any, x: Any) -> Any:
        # Reads the carry, or it would be run once before the scan.
        jax.debug.callback(lambda _: counter(), carry)
        h = jnp.sin(carry + x)
        return h, h[0]

    def loss(init: Any, xs: Any) -> Any:
        carry, ys = scan(f, init, xs)
        return carry.sum() + jnp.sin(ys).sum()

    found = jax.jit(jax.grad(loss, argnums=(0, 1)))(jnp.array([0.1, 0.2]), jnp.linspace(-1.0, 1.0, length))
    jax.block_until_ready(found)
    jax.effects_barrier()
    return counter.calls, found


@pytest.mark.parametrize(("length", "checkpoints"), [(30, 1), (30, 2), (30, 4), (47, 9), (100, 30), (12, 12)])
def test_executed_steps_are_those_of_the_best_division(length: int, checkpoints: int) -> None:
    """Counted inside the compiled program: what theory says, never more than the binomial optimum with states alone."""
    calls, _ = _counted(ours(checkpoints), length)
    # The tape is the cosine, as large as the state.
    expected = length if checkpoints == length else block_steps(length, *reversed(divide(length, checkpoints, 1.0)))
    assert calls == expected
    assert calls <= adjoint.executed_steps(length, checkpoints, length)


def test_division_is_the_best_there_is() -> None:
    """Against a search over all blocks, for all small lengths."""
    for length, checkpoints, tape in itertools.product((1, 2, 5, 17, 40, 61), (1, 2, 3, 7, 20), (0.0, 0.5, 1.0, 3.0)):
        block, held = divide(length, checkpoints, tape)
        assert 1 <= held <= checkpoints
        assert held + tape * (block - 1) <= checkpoints
        every = [
            block_steps(length, checkpoints - int(np.ceil(tape * (b - 1))), b)
            for b in range(1, length + 1)
            if np.ceil(tape * (b - 1)) < checkpoints
        ]
        assert block_steps(length, held, block) == min(every)


def test_blocks_never_execute_more_than_states_alone() -> None:
    """One step a block is always among the choices; where nothing is taped, nothing is executed three times."""
    for length, checkpoints in itertools.product((1, 10, 1000, 123_457), (1, 5, 40, 1000)):
        alone = adjoint.executed_steps(length, min(checkpoints, length), length)
        assert block_steps(length, *reversed(divide(length, checkpoints, 1.0))) <= alone
        assert block_steps(length, *reversed(divide(length, checkpoints, 0.0))) == 2 * length


def _wide(scan: Any, floats: int, length: int) -> int:
    """Return temporary bytes of a gradient over rows as wide as the state."""

    def loss(weight: Any, init: Any, xs: Any) -> Any:
        carry, ys = scan(lambda c, x: (jnp.sin(weight * c + x), c.sum()), init, xs)
        return carry.sum() + jnp.sin(ys).sum()

    structs = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((), (floats,), (length, floats))]
    return temporary_bytes(jax.grad(loss, argnums=(0, 1)), *structs)


def test_a_count_costs_at_most_its_states() -> None:
    """Beside them are a few states at work, whatever the length, and nothing as large as xs."""
    state, length = 4 * 20_000, 600
    for checkpoints in (4, 50):
        assert _wide(ours(checkpoints), 20_000, length) < (checkpoints + 8) * state + 100 * length


def test_cotangents_of_rows_are_one_array() -> None:
    """The gradient with respect to xs costs its own size, and no second one."""
    length, floats = 200, 20_000

    def loss(xs: Any) -> Any:
        return ours(4)(lambda c, x: (jnp.sin(c + x), None), jnp.zeros(floats, jnp.float32), xs)[0].sum()

    text = jax.jit(jax.grad(loss)).lower(jax.ShapeDtypeStruct((length, floats), jnp.float32)).compile().as_text() or ""
    whole = f"f32[{length},{floats}]"
    computing = [line for line in text.splitlines() if f"= {whole}" in line and (" add(" in line or " copy(" in line)]
    assert not computing
    small = temporary_bytes(jax.grad(loss), jax.ShapeDtypeStruct((length, floats), jnp.float32))
    assert small < 20 * 4 * floats


def test_bytes_in_the_place_of_a_count() -> None:
    """As many states as fit, of the whole batch where a mapped scan is differentiated; all where all tapes fit."""
    length, floats, lanes = 300, 1000, 4
    state = 4 * floats

    def planned(scan: Any, mapped: bool) -> int:
        def loss(init: Any) -> Any:
            return scan(lambda c, _: (jnp.sin(jnp.cos(c) * c), None), init, length=length)[0].sum()

        shape = (lanes, floats) if mapped else (floats,)
        whole = (lambda x: jax.vmap(loss)(x).sum()) if mapped else loss
        return temporary_bytes(jax.grad(whole), jax.ShapeDtypeStruct(shape, jnp.float32))

    for mapped, each in ((False, state), (True, lanes * state)):
        by_bytes = planned(functools.partial(checkpointed_scan, checkpoint_bytes=20 * each + each // 2), mapped)
        assert by_bytes == planned(ours(20), mapped)
    assert planned(functools.partial(checkpointed_scan, checkpoint_bytes="1GiB"), False) == planned(lax.scan, False)


def test_steps_are_observed() -> None:
    """A tuner sees the length of an outermost scan, at the line of the user's file, and no gradient."""
    seen: list[tuple[str, int]] = []

    def loss(x: Any) -> Any:
        def f(carry: Any, x: Any) -> Any:
            return checkpointed_scan(lambda c, _: (jnp.sin(c), None), carry + x, length=3, checkpoints=2)

        return checkpointed_scan(f, x, jnp.arange(5.0), checkpoints="all")[0]

    with adjoint.observe_steps(lambda site, count, bound: seen.append((site, count, bound))):
        found = jax.jit(jax.grad(loss))(0.5)
        jax.block_until_ready(found)
        jax.effects_barrier()
    assert [counts for _, *counts in seen] == [[5, 5]]
    assert seen[0][0].startswith("test_scan.py:")
    assert found == 0


@pytest.mark.parametrize("tier", ["host", "disk"])
def test_tiers_hold_first_states_of_windows(tier: Any, tmp_path: Any) -> None:
    """The same gradients."""
    options = {"tier": tier, "windows": 3, "transfer_cost": 0.0}
    if tier == "disk":
        options["directory"] = str(tmp_path)
    cell = CELLS["mixed"]
    found = gradients(ours(2, **options), cell, 33)
    assert_close(found, gradients(lax.scan, cell, 33), 1e-12)


def test_outcome_is_what_is_differentiated() -> None:
    """Without a gradient nothing is stored, and the result is that of jax."""
    cell = CELLS["mixed"]
    args = cell.weights, cell.init, cell.xs(11)
    found, expected = (jax.jit(functools.partial(outcome, scan, cell))(*args) for scan in (ours(3), lax.scan))
    assert_close(found, expected, 1e-12)
