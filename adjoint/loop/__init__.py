"""The checkpointed while loop: a primitive of JAX, its sweeps forward and backward, and the function that users call.

May import `adjoint.compat`, `theory`, `tiers` and `traced`.
"""
