"""autotune: measure a problem on a device, choose its checkpoint count, and use it.

Public names stand in `__init__.pyi` and are loaded when they are first used: `import autotune` loads no jax.
Rooms, each of which may import those before it: `machine`, `problem`, `measuring`, `model`, `search`, `choosing`,
`tuning`, `planning`, `runtime`, `serving`, `cli`.
"""

import lazy_loader

from .shadowing import check_own_packages as _check_own_packages

_check_own_packages()
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
