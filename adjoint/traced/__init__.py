"""Functions as traced programs: what depends on what, one more axis, and a whole one as one kernel on the CPU.

May import `adjoint.compat`.
"""
