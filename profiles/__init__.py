"""profiles: what was measured, where it is kept, and how it is shown. Never imports jax.

Public names stand in `__init__.pyi` and are loaded when they are first used: `import profiles` loads no pandas,
SQLAlchemy or Altair. Rooms, each of which may import those before it: `records`, `store`, `analysis`, `figures`,
`pages`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
