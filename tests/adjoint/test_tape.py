"""What the one reversed step keeps of its stages: a choice of bytes against seconds, never of gradients."""

import functools

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

import adjoint

from .plain import assert_close

BATCH, WIDTH = 32, 16
STEPS = 6


def _gradient(method, solver=None, controller=None):
    """Differentiate a solve of a batch under a network, whose activations are many times the state."""
    keys = jax.random.split(jax.random.key(0), 3)
    weights = [jax.random.normal(keys[0], (2, 8 * WIDTH)), jax.random.normal(keys[1], (8 * WIDTH, 2)) / 8]
    start = jax.random.normal(keys[2], (BATCH, 2))

    def field(t, y, weights):
        return jnp.sin(t) * jnp.tanh(jnp.tanh(y @ weights[0]) @ weights[1])

    def loss(weights, start):
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(field),
            diffrax.Tsit5() if solver is None else solver,
            0.0,
            1.0,
            1.0 / STEPS,
            start,
            args=weights,
            adjoint=method,
            stepsize_controller=diffrax.ConstantStepSize() if controller is None else controller,
            max_steps=40,
        )
        return jnp.sum(solution.ys**2)

    return jax.jit(jax.grad(loss, argnums=(0, 1))).lower(weights, start).compile(), (weights, start)


@functools.cache
def _of(tape):
    return _gradient(adjoint.RecursiveCheckpointAdjoint(3, tape=tape))


@pytest.mark.parametrize("tape", ["auto", "keep", "recompute"])
def test_gradients_are_those_of_diffrax(tape):
    """Each choice gives the gradient of another adjoint."""
    compiled, args = _of(tape)
    reference, _ = _gradient(diffrax.RecursiveCheckpointAdjoint(3))
    assert_close(compiled(*args), reference(*args), 1e-5)


def test_keeping_takes_the_bytes_that_recomputing_saves():
    """The choice is seen in the compiled bytes, by about the activations of the other stages."""
    # Six stages of 32 x 128 activations of 4 bytes are kept, where one is otherwise.
    keep, recompute, auto = (
        _of(tape)[0].memory_analysis().temp_size_in_bytes for tape in ("keep", "recompute", "auto")
    )
    assert keep - recompute >= 3 * BATCH * 8 * WIDTH * 4
    assert abs(auto - recompute) <= 4096


def test_a_large_field_that_is_kept_is_one_copy_in_the_program():
    """Keeping the stages of a long vector field loops over them plainly."""

    def long(t, y, args):
        for k in range(320):
            y = jnp.sin(y + k)
        return y

    def equations(tape):
        def loss(y):
            method = adjoint.RecursiveCheckpointAdjoint(3, tape=tape)
            term = diffrax.ODETerm(long)
            return diffrax.diffeqsolve(
                term, diffrax.Heun(), 0.0, 1.0, 0.25, y, adjoint=method, max_steps=8, saveat=diffrax.SaveAt(t1=True)
            ).ys.sum()

        return str(jax.make_jaxpr(loss)(jnp.ones(3))).count(" sin ")

    assert equations("keep") <= equations("recompute")


@pytest.mark.parametrize(
    "solver", [diffrax.ReversibleHeun(), diffrax.Bosh3(scan_kind="bounded")], ids=["own", "looped"]
)
def test_methods_without_a_choice_take_any(solver):
    """A method whose stages are not ours to keep gives the same program."""
    controller = diffrax.PIDController(1e-3, 1e-4)
    found = [
        compiled(*args)
        for compiled, args in (
            _gradient(adjoint.RecursiveCheckpointAdjoint(3, tape=tape), solver, controller)
            for tape in ("keep", "recompute")
        )
    ]
    assert_close(found[0], found[1], 0)


def test_what_is_no_tape_is_refused():
    """One line says what may be asked for."""
    with pytest.raises(ValueError, match=r"`tape` must be one of 'auto', 'keep', 'recompute', got 'all'"):
        _gradient(adjoint.RecursiveCheckpointAdjoint(3, tape="all"))


def test_the_choice_is_part_of_what_is_compiled():
    """Two choices are two programs to JAX."""
    kept = adjoint.RecursiveCheckpointAdjoint(3, tape="keep")
    assert jax.tree_util.tree_structure(kept) != jax.tree_util.tree_structure(adjoint.RecursiveCheckpointAdjoint(3))
    assert eqx.tree_equal(kept, adjoint.RecursiveCheckpointAdjoint(3, tape="keep"))
