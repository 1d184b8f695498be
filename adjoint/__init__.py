"""The JAX side of ckpt-tune: schedule theory, a checkpointed while loop, a scan and a Diffrax adjoint built on it.

Public names stand in `__init__.pyi` and are loaded when they are first used, so that the theory (plain integers)
loads no JAX. Rooms, each of which may import those before it: `theory`, `tiers`, `traced`, `loop`,
`scan`, `solve`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
