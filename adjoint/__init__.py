"""The JAX side of ckpt-tune: schedule theory, a checkpointed while loop, and a Diffrax adjoint built on it.

Public names are loaded when they are first used, so that the theory (plain integers) loads no JAX.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._diffrax import RecursiveCheckpointAdjoint as RecursiveCheckpointAdjoint
    from ._disk import release_tiers as release_tiers
    from ._host_call import HOST_CALL as HOST_CALL
    from ._loop import checkpointed_while_loop as checkpointed_while_loop
    from ._observe import observe_steps as observe_steps
    from ._schedule import default_checkpoints as default_checkpoints
    from ._schedule import executed_steps as executed_steps
    from ._schedule import optimal_steps as optimal_steps
    from ._schedule import placement as placement
    from ._schedule import repetition as repetition
    from ._schedule import schedule as schedule
    from ._schedule import schedule_tree as schedule_tree
    from ._transfer import transfer_seconds as transfer_seconds
    from ._window_schedule import place_windows as place_windows
    from ._window_schedule import plan_windows as plan_windows
    from ._window_schedule import windowed_steps as windowed_steps

_HOMES = {
    "HOST_CALL": "_host_call",
    "RecursiveCheckpointAdjoint": "_diffrax",
    "checkpointed_while_loop": "_loop",
    "default_checkpoints": "_schedule",
    "executed_steps": "_schedule",
    "observe_steps": "_observe",
    "optimal_steps": "_schedule",
    "placement": "_schedule",
    "place_windows": "_window_schedule",
    "plan_windows": "_window_schedule",
    "release_tiers": "_disk",
    "repetition": "_schedule",
    "schedule": "_schedule",
    "schedule_tree": "_schedule",
    "transfer_seconds": "_transfer",
    "windowed_steps": "_window_schedule",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; public names: {', '.join(__all__)}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
