"""The checkpointed scan: a loop of known length over rows of arrays, which it reads and writes one by one.

May import `adjoint.compat`, `theory`, `tiers`, `traced` and `loop`.
"""
