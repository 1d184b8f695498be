"""What this machine is, what of it is free, and what a budget is there. No jax until the device is read.

May import `autotune.errors` and `autotune.adjoints`, as every room may.
"""
