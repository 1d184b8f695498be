"""How many steps a schedule executes and where it puts checkpoints and windows, in plain integers; loads no JAX.

Imports nothing of ours.
"""
