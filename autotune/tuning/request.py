"""A request for a tune, as one record that the command line, the library and the workers share. No jax."""

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from autotune.machine.tiers import TierBudget
from autotune.measuring.trial import RunSettings
from autotune.search.space import Listed
from profiles import AdjointName, Tier

DEFAULT_TIMEOUT_SECONDS = 600.0
"""How long one phase of a trial (compiling, a call) may take before its worker is ended."""

DEFAULT_BUDGET = "auto"
"""All that the device has free, less the margin."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TuneRequest:
    """One tune: which problem, over which space, within which budget, measured how.

    `problem` is `FILE.py:factory`, `package.module:factory` or a factory that lies in a file. `budget` is bytes,
    `6GiB`, `80%` or `auto`. `exhaustive` runs the whole grid. `settings` hold platform, device, x64 and timeout.
    `workers` is how many units are measured at once.
    `tiers` are tried beside the device alone. `steps` stands for those of a problem whose steps cannot be observed;
    `forward_only` says that no gradient is meant.
    """

    problem: str | Callable[..., Any]
    budget: str | int = DEFAULT_BUDGET
    margin: float | None = None
    listed: Listed = dataclasses.field(default_factory=Listed)
    adjoint: AdjointName = AdjointName.OURS
    exhaustive: bool = False
    workers: int = 1
    seed: int = 0
    tiers: tuple[TierBudget, ...] = ()
    steps: int | None = None
    forward_only: bool = False
    settings: RunSettings = dataclasses.field(
        default_factory=lambda: RunSettings(timeout_seconds=DEFAULT_TIMEOUT_SECONDS)
    )

    def directory_of(self, tier: Tier | None) -> str | None:
        """Return where the file of a tier lies, None where it has none."""
        return next((one.directory for one in self.tiers if tier is not None and one.name == tier.name), None)

    def located(self) -> tuple[str, tuple[str, ...]]:
        """Name the problem so that any process finds it, and the folders that it needs on its search path.

        Raises:
            AutotuneError: the factory lies in no file that another process could load.
        """
        if not isinstance(self.problem, str):
            from autotune.problem.loading import load_problem

            loaded = load_problem(self.problem)
            return loaded.worker_spec(), loaded.search_path
        place, colon, factory = self.problem.rpartition(":")
        if colon and place.endswith(".py") and Path(place).expanduser().is_file():
            return f"{Path(place).expanduser().resolve()}:{factory}", ()
        return self.problem, (os.getcwd(),)
