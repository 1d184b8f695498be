"""autotune: measure a problem on a device, choose its checkpoint count, and use it.

Names are loaded when they are first used: `import autotune` loads no jax.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autotune._auto import AutoChoice as AutoChoice
    from autotune._auto import auto_adjoint as auto_adjoint
    from autotune._errors import AutotuneError as AutotuneError
    from autotune._library import recommend as recommend
    from autotune._library import tune as tune
    from autotune._monitor import AdjointSchedule as AdjointSchedule
    from autotune._monitor import StepMonitor as StepMonitor
    from autotune._recommend import Recommendation as Recommendation
    from autotune._tune import TuneResult as TuneResult

_HOMES = {
    "AdjointSchedule": "_monitor",
    "AutoChoice": "_auto",
    "AutotuneError": "_errors",
    "Recommendation": "_recommend",
    "StepMonitor": "_monitor",
    "TuneResult": "_tune",
    "auto_adjoint": "_auto",
    "recommend": "_library",
    "tune": "_library",
}

__all__ = [
    "AdjointSchedule",
    "AutoChoice",
    "AutotuneError",
    "Recommendation",
    "StepMonitor",
    "TuneResult",
    "auto_adjoint",
    "recommend",
    "tune",
]


def __getattr__(name: str) -> Any:
    """Load a public name from the module that defines it."""
    if name not in _HOMES:
        raise AttributeError(f"module 'autotune' has no public name {name!r}; public names: {', '.join(__all__)}")
    value = getattr(importlib.import_module(f"autotune.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names."""
    return sorted(_HOMES)
