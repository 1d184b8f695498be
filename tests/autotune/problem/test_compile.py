"""Reading what XLA plans, for every way in which users write `fn`."""

import json
import subprocess
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from autotune import AutotuneError
from autotune.adjoints import make_adjoint
from autotune.problem.loading import Call, load_problem
from autotune.problem.program import CompiledBytes, compile_traced, constant_bytes, trace
from profiles import AdjointName
from tests.conftest import REPOSITORY

USES = REPOSITORY / "tests/assets/problems/shapes_of_use.py"


def call_of(factory, **values):
    """Make a problem's call with Diffrax's adjoint."""
    return load_problem(f"{USES}:{factory}", set_values=values).make(make_adjoint(AdjointName.DIFFRAX, 3))


def compiled(call):
    """Trace and compile."""
    return compile_traced(trace(call))


@pytest.mark.parametrize("jit", ["jax", "eqx"])
def test_donated_arguments_are_counted_once(jit):
    """The user's own donation holds: the updated parameters take the place of the old ones."""
    call = call_of("make_donating", jit=jit)
    planned = compiled(call).planned
    weights = 256 * 256 * 4
    assert planned.alias is not None
    assert planned.alias >= weights
    assert planned.total is not None
    assert planned.total == planned.temp + planned.argument + planned.output - planned.alias + planned.constants


@pytest.mark.parametrize("jit", ["none", "jax", "eqx"])
def test_arrays_that_are_closed_over_are_counted(jit):
    """XLA counts them neither as arguments nor as temporaries; however the function is jitted, they are found once."""
    planned = compiled(call_of("make_closing_over", jit=jit)).planned
    data = 300 * 300 * 4
    assert data <= planned.constants < data + 2000
    assert planned.argument is not None
    assert planned.argument < 2000


def test_a_buffer_that_is_closed_over_twice_is_counted_once():
    """By its memory, not by its name."""
    data = jnp.ones(1000)
    same = data
    inner = jax.jit(lambda x: x + data)
    jaxpr = jax.make_jaxpr(lambda x: jnp.sum(inner(x) * same))(jnp.ones(1000))
    assert constant_bytes(jaxpr) == 4000


def test_static_arguments_of_the_users_jit_stay_static():
    """An executable does not take them; the call gives the same result as the user's own."""
    call = call_of("make_static")
    found = compiled(call).run(call.args)
    np.testing.assert_allclose(found, call.fn(*call.args), rtol=1e-6)


def test_modules_with_functions_inside_are_normal_arguments():
    """As `eqx.filter_jit` takes them; outputs that are no arrays are left out."""
    call = call_of("make_module")
    (value, _), gradient = compiled(call).run(call.args)
    (expected, activation), expected_gradient = call.fn(*call.args)
    assert callable(activation)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    np.testing.assert_allclose(gradient.layer.weight, expected_gradient.layer.weight, rtol=1e-5)


def test_a_problem_larger_than_this_machine_is_compiled_from_shapes():
    """Sixteen terabytes of state are planned for without being allocated."""
    planned = compiled(call_of("make_abstract", gib=4096)).planned
    assert planned.total is not None
    assert planned.total > 3 * 4096 * 2**30


def test_shapes_reach_a_function_jitted_by_equinox_with_its_donation_kept():
    """Equinox's own `lower` takes shapes for static values, so it is rebuilt."""
    fn = eqx.filter_jit(lambda scale, x: jnp.sin(x) * scale, donate="all-except-first")
    shapes = (jax.ShapeDtypeStruct((), jnp.float32), jax.ShapeDtypeStruct((5000,), jnp.float32))
    planned = compiled(Call(fn=fn, args=shapes, abstract=True)).planned
    assert planned.alias == 20_000


@pytest.mark.parametrize(
    "parts",
    [{"temp": None}, {"temp": 0}, {"argument": None}, {"output": None}],
)
def test_a_part_that_is_unknown_makes_the_total_unknown(parts):
    """A zero or None from a backend means that it does not tell; such a program never fits."""
    whole = {"temp": 5, "argument": 3, "output": 2, "alias": None, "constants": 1}
    assert CompiledBytes(**whole).total == 11
    assert CompiledBytes(**{**whole, **parts}).total is None


def test_an_error_while_tracing_shows_the_users_line():
    """The message is one line, and the frame is the user's."""

    def broken(x):
        return x @ jnp.ones(7)

    with pytest.raises(AutotuneError, match="fn raised while it was traced: TypeError") as caught:
        trace(Call(fn=broken, args=(jnp.ones(3),), abstract=False))
    assert "\n" not in str(caught.value)
    assert len(caught.value.frames) == 1
    assert "in broken" in caught.value.frames[0]


SHARDED = """
import json, jax, jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from autotune.problem.program import compile_traced, trace
from autotune.problem.loading import Call
import numpy as np
mesh = Mesh(np.array(jax.devices()), ("batch",))
x = jax.device_put(jnp.ones((8, 4096)), NamedSharding(mesh, PartitionSpec("batch")))
fn = lambda x: jax.grad(lambda y: jnp.sum(jnp.sin(y) ** 2))(x)
many = compile_traced(trace(Call(fn=fn, args=(x,), abstract=False)))
one = compile_traced(trace(Call(fn=fn, args=(jnp.ones((8, 4096)),), abstract=False)))
print(json.dumps([many.mesh, many.planned.argument, one.mesh, one.planned.argument]))
"""


def test_bytes_of_a_sharded_call_are_per_device_and_its_mesh_is_named():
    """Eight virtual devices hold an eighth each."""
    environment = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_PLATFORMS": "cpu", "PATH": ""}
    done = subprocess.run([sys.executable, "-c", SHARDED], capture_output=True, text=True, env=environment, check=True)
    mesh, sharded, single, whole = json.loads(done.stdout)
    assert mesh == "batch=8"
    assert single == ""
    assert sharded * 8 == whole
