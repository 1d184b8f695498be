"""The adjoint for Diffrax: its own solve, driven by our loop; only accepted steps are replayed where that is proven.

May import every other room of `adjoint`, and Diffrax.
"""
