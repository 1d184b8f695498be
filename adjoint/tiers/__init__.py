"""Where states go that the device has no room for: host memory, or files reached by calls of the host.

May import `adjoint.compat`.
"""
