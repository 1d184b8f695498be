"""A small solve of 60 steps whose factory hands its adjoint on as it is, and one that drops the tier."""

import diffrax
import jax
import jax.numpy as jnp

import adjoint as package


def make(*, adjoint):
    """Differentiate a linear decay by its start."""

    def loss(y0):
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(lambda t, y, args: -y), diffrax.Euler(), 0.0, 6.0, 0.1, y0, adjoint=adjoint, max_steps=100
        )
        return jnp.sum(solution.ys)

    return jax.grad(loss), (jnp.ones(32),)


def make_without(*, adjoint):
    """Do the same on the device alone, whatever is asked for."""
    return make(adjoint=package.RecursiveCheckpointAdjoint(adjoint.checkpoints, adjoint.expected_steps))


def make_loop(*, adjoint):
    """Do the same in a plain loop, which takes the adjoint's settings one by one."""
    held = {name: getattr(adjoint, name) for name in ("tier", "windows", "directory", "transfer_cost")}

    def loss(y0):
        counts = {"checkpoints": adjoint.checkpoints, "expected_steps": adjoint.expected_steps}
        done = package.checkpointed_while_loop(
            lambda carry: carry[0] < 60, lambda carry: (carry[0] + 1, 0.9 * carry[1]), (0, y0), **counts, **held
        )
        return jnp.sum(done[1])

    return jax.grad(loss), (jnp.ones(32),)
