"""Sweeps as one native function: what XLA compiles that way it does, what it cannot is left alone, results are equal.

XLA aborts the process, or refuses to compile, where a kernel holds what it should not; so each operation that `_fits`
lets in is compiled here, at the largest sizes that it lets in.
"""

import functools
from collections.abc import Callable
from typing import Any

import diffrax
import jax
import jax.lax as lax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import checkify

import adjoint
from adjoint.traced import kernel
from adjoint.traced.kernel import in_one_kernel

pytestmark = [
    pytest.mark.usefixtures("x64"),
    pytest.mark.skipif(not kernel.tried_here(), reason="kernels have not been tried on this machine"),
]

KEY = jax.random.key(3)
MATRIX = np.linspace(0.1, 0.9, 12).reshape(3, 4)


def looped(fun: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Evaluate a function in a loop, on what changes with the passes."""

    def body(carry: Any) -> Any:
        k, x, total = carry
        total = total + jnp.sum(jnp.abs(fun(x))).astype(jnp.float64)
        return k + 1, (x + 0.01 * jnp.tanh(total)).astype(x.dtype), total

    return lambda x: lax.while_loop(lambda carry: carry[0] < 5, body, (jnp.int32(0), x, jnp.float64(0.0)))[1:]


def compile_(fun: Callable[..., Any], *args: Any) -> tuple[Any, int]:
    """Compile a function; return it and the number of kernels in it."""
    compiled = jax.jit(fun).lower(*args).compile()
    return compiled, str(compiled.as_text()).count("to_apply=%checkpointed_kernel")


def assert_kernels(fun: Callable[[Any], Any], x: Any, expected: int, rtol: float = 1e-12) -> None:
    """Compare a looped function in a kernel with the same without, and count kernels."""
    compiled, count = compile_(functools.partial(in_one_kernel, looped(fun)), x)
    for found, plain in zip(compiled(x), jax.jit(looped(fun))(x), strict=True):
        np.testing.assert_allclose(found, plain, rtol=rtol)
    assert count == expected


OPERATIONS: dict[str, Callable[[Any], Any]] = {
    "arithmetic": lambda x: (x + 1) * x / (x - 2) % 0.7,
    "powers": lambda x: x ** x[0] + jnp.sqrt(x) + jnp.cbrt(x) + lax.rsqrt(x) + x**3,
    "exponentials": lambda x: jnp.exp(x) + jnp.expm1(x) + jnp.log(x) + jnp.log1p(x) + jax.nn.sigmoid(x),
    "circular": lambda x: jnp.sin(x) + jnp.cos(x) + jnp.tan(x) + jnp.arctan2(x, x[0]) + jnp.arcsin(x),
    "arcs": lambda x: jnp.arccos(x) + jnp.arccosh(x + 1) + jnp.arctan(x),
    "hyperbolic": lambda x: jnp.sinh(x) + jnp.cosh(x) + jnp.tanh(x) + jnp.arcsinh(x) + jnp.arctanh(x),
    "special": lambda x: jax.scipy.special.erf(x) + jax.scipy.special.gammaln(x) + jax.scipy.special.digamma(x),
    "more special": lambda x: jax.scipy.special.erfc(x) + jax.scipy.special.zeta(x + 2, 1.5),
    "Bessel": lambda x: jax.scipy.special.i1e(x) + jax.scipy.special.i0e(x),
    "inverse error function": lambda x: jax.scipy.special.erfinv(x * 0.5),
    "incomplete gamma": lambda x: jax.scipy.special.gammainc(x, x),
    "rounding": lambda x: jnp.floor(x * 7) + jnp.ceil(x * 7) + jnp.round(x * 7) + jnp.sign(x - 0.5),
    "precision": lambda x: lax.reduce_precision(x, 8, 7),
    "neighbours": lambda x: jnp.nextafter(x, 1.0) - x,
    "complex": lambda x: jnp.abs(jnp.exp(1j * x) * x).real + jnp.angle(x + 1j) + jnp.conj(x + 1j).imag,
    "integers": lambda x: lax.population_count((x * 9).astype(jnp.int32)) + (x * 10).astype(int) // 3,
    "leading zeros": lambda x: lax.clz((x * 9).astype(jnp.int32)),
    "shifts": lambda x: ((x * 99).astype(int) << 2 >> 1) ^ 5 | 3 & ~(x * 9).astype(int),
    "logic": lambda x: jnp.where((x > 0.5) & (x < 0.8) | ~(x != 0.2), x, -x) + jnp.isfinite(x),
    "clip and select": lambda x: jnp.clip(x, 0.2, 0.6) + jnp.select([x > 0.5, x > 0.2], [x, 2 * x], 0.0),
    "bits": lambda x: lax.bitcast_convert_type(x, jnp.uint64) % 7,
    "half precision": lambda x: (x.astype(jnp.float16) * 2).sum() + (x.astype(jnp.bfloat16) * 3).sum(),
    "reductions": lambda x: jnp.max(x, 0) + jnp.prod(x) + jnp.sum(x) + jnp.any(x > 0.5) + jnp.argmax(x),
    "cumulative": lambda x: jnp.cumsum(x, 1) + jnp.cumprod(x, 0) + lax.cummax(x),
    "windows": lambda x: lax.reduce_window(x, -jnp.inf, lax.max, (2, 2), (1, 1), "SAME"),
    "shapes": lambda x: jnp.pad(x, 1)[1:, ::-1].T.reshape(4, 6) + jnp.concatenate([x, x[:1]]).T[:, :1],
    "rolled": lambda x: jnp.roll(x, 1) + jnp.tile(x[:1], (3, 1)),
    "slices": lambda x: lax.dynamic_slice(x, (jnp.argmax(x[:, 0]), 0), (2, 2)) + x[1:, ::2],
    "slice update": lambda x: lax.dynamic_update_slice(x, x[:1], (jnp.argmax(x[:, 0]), 0)),
    "gather": lambda x: x[jnp.array([2, 0]), :] + jnp.take(x, jnp.argmax(x[0]), axis=1)[0],
    "one write": lambda x: x.at[jnp.argmax(x[:, 0])].set(0.0).at[1, 2].add(x[0, 0]).at[7].max(0.5, mode="drop"),
    "random": lambda x: jax.random.normal(jax.random.fold_in(KEY, (x[0, 0] * 9).astype(int)), (4,)) + x[0],
    "interpolation": lambda x: jnp.interp(0.3, x[0], x[1]) + jnp.searchsorted(x[0], 0.3),
    "branches": lambda x: lax.cond(x[0, 0] > 0.5, jnp.sin, jnp.cos, x),
    "cases": lambda x: lax.switch(jnp.argmax(x[0]), [jnp.sin, jnp.cos, jnp.tan], x),
    "loops": lambda x: lax.fori_loop(0, 3, lambda _, y: y * 0.9, x) + lax.scan(lambda c, r: (c + r, c), x[0], x)[1],
    "mapped branch": lambda x: jax.vmap(lambda r: lax.cond(r[0] > 0.5, jnp.sum, jnp.max, r))(x),
    "networks": lambda x: jax.nn.softmax(x) + jax.nn.gelu(x) + jax.nn.softplus(x) + jax.nn.logsumexp(x),
    "matrix and vector": lambda x: (x @ x[0]) @ x + x[:, 0] @ x,
    "small matrices": lambda x: x @ x.T + jnp.einsum("bi,bij->bj", x, x[:, :, None] * x[:, None, :3]),
    "kernel within": lambda x: in_one_kernel(lambda y: lax.fori_loop(0, 2, lambda _, z: z * 0.5 + 1, y), x),
    "barrier": lambda x: lax.optimization_barrier(x * 2) + 1,
}  # fmt: skip


@pytest.mark.parametrize("name", OPERATIONS)
def test_what_is_let_in_compiles_and_is_the_same(name: str) -> None:
    """Every operation, at small sizes."""
    assert_kernels(OPERATIONS[name], MATRIX, 1)


REFUSED: dict[str, Callable[[Any], Any]] = {
    "sort": lambda x: jnp.sort(x, 1),
    "several writes": lambda x: x.at[jnp.array([0, 1])].set(0.5),
    "fourier": lambda x: jnp.fft.fft(x).real,
    "linear solve": lambda x: jnp.linalg.solve(x[:, :3] + jnp.eye(3), x[:, 0]),
    "convolution": lambda x: jnp.convolve(x[0], x[1]),
    "large product": lambda x: jnp.broadcast_to(x[0, 0], (16, 16)) @ jnp.broadcast_to(x[0, 0], (16, 16)),
    "large sum": lambda x: jnp.sum(jnp.sin(x[0, 0] + jnp.arange(4096.0))),
    "large array": lambda x: jnp.sin(x[0, 0] + jnp.arange(5000.0))[:3],
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_let_in_is_left_to_xla(name: str) -> None:
    """The program is the plain one."""
    assert_kernels(REFUSED[name], MATRIX, 0)


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "complex64", "int32"])
def test_the_largest_sums_and_products_compile(dtype: str) -> None:
    """At the limits: reductions, products with vectors, and small ones of matrices."""
    tolerance = 2e-2 if dtype == "bfloat16" else 1e-5
    size = {"float64": 2048, "complex64": 2048}.get(dtype, kernel.LARGEST_SUM)
    line = jnp.asarray(np.arange(size) % 3, dtype)
    square = line.reshape(32, -1)
    sums = lambda x: jnp.sum(square + x[0], 0)[:3] + jnp.sum(line + x[0]) + jnp.sum(square * x[0], 1)[:3]
    assert_kernels(lambda x: sums(x) + jnp.vdot(line + x[0], line), line[:3], 1, tolerance)
    wide = jnp.asarray(np.arange(kernel.LARGEST_MATRIX) % 3, dtype)
    for rows in (64, 2, 2048):
        matrix = wide.reshape(rows, -1)
        of_columns = lambda x, m=matrix: jnp.sum(m @ (x[0] + m[0]))
        of_rows = lambda x, m=matrix: jnp.sum((x[0] + m[:, 0]) @ m)
        assert_kernels(lambda x, a=of_columns, b=of_rows: a(x) * 0 + b(x) * 0 + x[0], line[:3], 1, tolerance)
    for shape in ((8, 2, 4), (8, 16, 8), (2, 100, 2), (3, 3, 3)):
        left, right = (jnp.asarray(np.arange(m * n).reshape(m, n) % 3, dtype) for m, n in (shape[:2], shape[1:]))
        assert_kernels(lambda x, a=left, b=right: (a + x[0]) @ b, line[:3], 1, tolerance)


def rolled(x: Any, passes: Any, weight: Any, unread: Any) -> Any:
    """Run a loop that reads all but one of its operands."""
    del unread
    return lax.while_loop(lambda c: c[0] < passes, lambda c: (c[0] + 1, jnp.sin(c[1]) * weight + x), (jnp.int32(0), x))


def test_constants_and_what_nothing_reads_do_no_harm() -> None:
    """XLA moves constants into what is called, so that arguments are read by nothing: it must not abort."""
    constants = jnp.int32(5), jnp.float64(0.5), jnp.ones(3)
    x = jnp.ones(4)
    expected = jax.jit(rolled)(x, *constants)
    for fun in (
        lambda: in_one_kernel(rolled, x, *constants),
        lambda: in_one_kernel(lambda: rolled(x, *constants)),
        lambda: in_one_kernel(rolled, x * 2 / 2, *constants),
    ):
        compiled, count = compile_(fun)
        assert count == 1
        for found, plain in zip(compiled(), expected, strict=True):
            np.testing.assert_array_equal(found, plain)
    same, _ = compile_(lambda x: in_one_kernel(lambda y: (y, jnp.ones(2)), x), x)
    np.testing.assert_array_equal(same(x)[0], x)


def spiral(t: Any, y: Any, p: Any) -> Any:
    """Turn and shrink."""
    del t
    return jnp.stack([-p * y[0] - y[1] ** 3, y[0] ** 3 - p * y[1]])


def loss(p: Any, y0: Any, **options: Any) -> Any:
    """Solve to 2."""
    controller = diffrax.PIDController(rtol=1e-6, atol=1e-6)
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(spiral), diffrax.Tsit5(), 0.0, 2.0, None, y0, p,
        adjoint=adjoint.RecursiveCheckpointAdjoint(), stepsize_controller=controller,
        saveat=diffrax.SaveAt(ts=jnp.linspace(0.0, 2.0, 5)), **options,
    )  # fmt: skip
    assert solution.ys is not None
    return jnp.sum(solution.ys**2)


P, Y0 = np.array(0.3), np.array([1.0, 0.5])


def test_the_gradient_of_a_solve_is_two_kernels() -> None:
    """Nothing is left of its loops in the program itself."""
    compiled, count = compile_(jax.grad(loss, argnums=(0, 1)), P, Y0)
    assert count == 2
    entry = compiled.as_text().split("ENTRY")[1]
    assert " while(" not in entry


def of_loop(p: Any, y0: Any) -> Any:
    """Run our loop plainly, for transformations."""
    step = lambda carry: (carry[0] + 1, carry[1] + 0.1 * spiral(0.0, carry[1], p))
    going = lambda carry: carry[0] < 9
    return jnp.sum(adjoint.checkpointed_while_loop(going, step, (0, y0), checkpoints=3)[1] ** 2)


def of_scan(p: Any, y0: Any) -> Any:
    """Do the same with JAX's own loop."""
    return jnp.sum(lax.scan(lambda y, _: (y + 0.1 * spiral(0.0, y, p), None), y0, length=9)[0] ** 2)


PS = np.array([0.1, 0.2, 0.4])
TRANSFORMED: dict[str, Callable[[Any], Any]] = {
    "gradient": lambda f: jax.grad(f, argnums=(0, 1))(P, Y0),
    "mapped gradients": lambda f: jax.vmap(jax.grad(f), (0, None))(PS, Y0),
    "gradient of a map": lambda f: jax.grad(lambda p: jnp.sum(jax.vmap(f, (0, None))(p, Y0)))(PS),
    "Hessian": lambda f: jax.jacfwd(jax.grad(f, argnums=1), argnums=1)(P, Y0),
    "scan of gradients": lambda f: lax.scan(lambda c, p: (c + jax.grad(f)(p, Y0), c), P, PS),
    "rematerialised": lambda f: jax.grad(jax.checkpoint(f))(P, Y0),
    "part of the outputs": lambda f: jax.vjp(f, P, Y0)[1](1.0)[0],
    "checked": lambda f: checkify.checkify(jax.grad(f), errors=checkify.float_checks)(P, Y0)[1],
}


@pytest.mark.parametrize("name", TRANSFORMED)
def test_transformations_go_through(name: str) -> None:
    """A kernel is mapped, pruned, checked and differentiated as what is in it; compared with a plain scan."""
    transform = TRANSFORMED[name]
    for run in (lambda f: transform(f), lambda f: jax.jit(lambda: transform(f))()):
        found, expected = map(jax.tree.leaves, (run(of_loop), run(of_scan)))
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-14)


def test_what_is_exported_holds_no_kernel() -> None:
    """A program that leaves this process may be compiled elsewhere."""
    exported = jax.export.export(jax.jit(jax.grad(of_loop)))(P, Y0)
    assert "checkpointed_kernel" not in exported.mlir_module()
    np.testing.assert_allclose(exported.call(P, Y0), jax.grad(of_scan)(P, Y0), rtol=1e-12)


@pytest.mark.parametrize(("asked", "version", "processor", "expected"), [
    ("", (0, 12, 0), "x86_64", True), ("", (0, 13, 0), "x86_64", False), ("", (0, 12, 0), "arm64", False),
    ("0", (0, 12, 0), "x86_64", False), ("1", (0, 13, 0), "arm64", True),
])  # fmt: skip
def test_only_what_was_tried_is_used(
    asked: str, version: tuple[int, ...], processor: str, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other versions and processors run the plain program, unless the user says otherwise."""
    monkeypatch.setenv("CKPT_TUNE_ONE_KERNEL", asked)
    monkeypatch.setattr("jaxlib.version.__version_info__", version)
    monkeypatch.setattr("platform.machine", lambda: processor)
    assert kernel.tried_here() is expected


def test_switched_off_the_program_is_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment variable takes effect without a new process."""
    monkeypatch.setenv("CKPT_TUNE_ONE_KERNEL", "0")
    _, count = compile_(jax.grad(of_loop), P, Y0)
    assert count == 0
