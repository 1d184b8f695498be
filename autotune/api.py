"""The library form of the commands `tune` and `recommend`; a profile as a study, and a choice as a flat dict."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

from autotune.choosing.recommend import Recommendation, RecommendRequest, recommend_from
from autotune.errors import AutotuneError
from autotune.machine.budget import resolve_budget
from autotune.measuring.executor import ExecutorMachine
from autotune.measuring.rows import WHY_NOTE
from autotune.measuring.trial import Trial
from autotune.runtime.auto import AutoChoice, choice_of
from autotune.tuning.lab import described_device, make_machine, make_machines
from autotune.tuning.prepare import study_name
from autotune.tuning.request import DEFAULT_BUDGET, TuneRequest
from autotune.tuning.study_view import StudyView, write_view
from autotune.tuning.tune import TuneResult, run_tune
from profiles import Measurement, Profile, open_store


class Silent:
    """A listener to a tune that says nothing."""

    def say(self, text: str) -> None:
        """Say nothing."""

    def note(self, text: str) -> None:
        """Say nothing."""

    def expect(self, trials: int, seconds: float | None) -> None:
        """Say nothing."""

    def started(self, trials: Sequence[Trial]) -> None:
        """Say nothing."""

    def finished(self, measurement: Measurement) -> None:
        """Say nothing."""


def tune(
    problem: str | Callable[..., Any],
    *,
    budget: str | int = DEFAULT_BUDGET,
    horizons: Sequence[int | float] = (),
    tolerances: Sequence[float] = (),
    set_values: Mapping[str, Sequence[Any]] | None = None,
    store: str | None = None,
    executor: Executor | None = None,
    request: TuneRequest | None = None,
    progress: bool | None = None,
) -> TuneResult:
    """Tune a problem, as `ckpt-tune tune` does.

    In a notebook the cell shows what runs, what is left and the best so far while it runs; elsewhere nothing is shown.

    Args:
        problem: the factory, or the command line's name for it.
        budget: bytes of one call: a number, "6GiB", "80%", or "auto".
        horizons: what to sweep; the factory's own where empty.
        tolerances: what to sweep; the factory's own where empty.
        set_values: further values to sweep, by the factory's parameter.
        store: SQLAlchemy URL or path; else CKPT_TUNE_STORE, else the user's data folder.
        executor: who measures, as many units at once as `request.workers` says; processes of this host where None.
            What it runs starts processes of its own for trials. The caller shuts it down.
        request: everything else (adjoint, margin, counts, device, seed, …); the arguments above are laid over it.
        progress: show progress in the notebook's cell; where this runs in one, if None.

    Raises:
        AutotuneError: the problem cannot be loaded or run, or the budget cannot be resolved.
    """
    asked = request or TuneRequest(problem=problem)
    listed = dataclasses.replace(
        asked.listed,
        horizons=tuple(horizons) or asked.listed.horizons,
        tolerances=tuple(tolerances) or asked.listed.tolerances,
        set_values={key: tuple(values) for key, values in (set_values or {}).items()} or asked.listed.set_values,
    )
    asked = dataclasses.replace(asked, problem=problem, budget=budget, listed=listed)
    _, search_path = asked.located()
    with open_store(store) as opened:
        if executor is not None:
            machine = ExecutorMachine(executor, asked.settings, search_path=search_path, size=asked.workers)
        elif asked.workers > 1:
            machine = make_machines(asked.settings, search_path=search_path, size=asked.workers)
        else:
            machine = make_machine(asked.settings, search_path=search_path)
        try:
            with _shown(progress) as listener:
                return run_tune(asked, store=opened, machine=machine, progress=listener)
        finally:
            machine.close()


@contextlib.contextmanager
def _shown(progress: bool | None) -> Iterator[Any]:
    """Give what listens to a tune: the cell of a notebook, or nothing."""
    from autotune.cli.notebook import NotebookProgress, in_notebook

    if not (in_notebook() if progress is None else progress):
        yield Silent()
        return
    with NotebookProgress() as shown:
        yield shown


def write_study(profile: str, path: str | Path, *, budget: str | int | None = None, store: str | None = None) -> str:
    """Write a stored profile as an Optuna study, as every tune does beside its store.

    Args:
        profile: its name in the store.
        path: the SQLite file to write; one that is there is replaced.
        budget: bytes of one call, as for `recommend`: what exceeds them is infeasible in the study. None for no budget.
        store: where the profile is.

    Returns:
        The URL for `optuna.load_study` and for `optuna-dashboard`.

    Raises:
        AutotuneError: the file could not be written.
        ProfilesError: there is no such profile.
    """
    with open_store(store) as opened:
        found, whys = opened.profile(profile), opened.notes(WHY_NOTE)
    rows = found.measurements
    resolved = None if budget is None else resolve_budget(budget, described_device(found.device), rows=rows).bytes
    name = study_name(found.newest.problem, found.device, found.adjoint)
    return write_view(StudyView(name=name, rows=rows, whys=whys, budget_bytes=resolved), Path(path))


def recommend(
    profile: str | Profile,
    *,
    budget: str | int,
    horizon: int | float | None = None,
    tolerance: float | None = None,
    store: str | None = None,
    allow_extrapolation: bool = False,
) -> tuple[Recommendation, ...]:
    """Recommend from a stored profile, taking it as it is: `ckpt-tune recommend --force`.

    Args:
        profile: a profile, or its name in the store.
        budget: bytes of one call; a share is one of the memory of the profile's device.
        horizon: at this one; at each measured one where None.
        tolerance: likewise.
        store: where the name is looked up.
        allow_extrapolation: answer beyond what was measured too.

    Raises:
        AutotuneError: the profile says nothing about that horizon, tolerance or budget.
        ProfilesError: there is no such profile.
    """
    if isinstance(profile, str):
        with open_store(store) as opened:
            profile = opened.profile(profile)
    resolved = resolve_budget(budget, described_device(profile.device), rows=profile.measurements)
    asked = RecommendRequest(
        budget_bytes=resolved.bytes,
        margin_bytes=resolved.margin_bytes,
        horizon=horizon,
        tolerance=tolerance,
        allow_extrapolation=allow_extrapolation,
    )
    return recommend_from(profile, asked)


def summary(chosen: Recommendation | AutoChoice | Any, *, prefix: str = "") -> dict[str, int | float | str | bool]:
    """Write a choice as one flat dict of plain values, which any experiment logger takes.

        wandb.config.update(autotune.summary(adjoint, prefix="ckpt_tune/"))
        mlflow.log_params(autotune.summary(recommendation))

    Keys are those of the JSON of `recommend`, those of `set_values` as `set.KEY`; what is not known has no key. Bytes
    and seconds are numbers, evidence and status are words.

    Args:
        chosen: a recommendation, an `AutoChoice`, or an adjoint of `auto_adjoint`.
        prefix: what every key begins with.

    Raises:
        AutotuneError: it is an adjoint that `auto_adjoint` did not make.
    """
    choice = chosen if isinstance(chosen, AutoChoice) else choice_of(chosen)
    extra = {} if choice is None else {"problem": choice.problem.name, "source": choice.source}
    said = chosen if choice is None else choice.recommendation
    if not isinstance(said, Recommendation):
        raise AutotuneError(
            f"summary of {type(chosen).__name__}: nothing is known of it; hand over a Recommendation, an AutoChoice, "
            "or the adjoint that auto_adjoint returned"
        )
    document = said.to_json()
    swept = {f"set.{key}": value for key, value in document.pop("set_values").items()}
    known = {key: value for key, value in {**extra, **document, **swept}.items() if value not in (None, "")}
    return {f"{prefix}{key}": _plain(value) for key, value in known.items()}


def _plain(value: Any) -> int | float | str | bool:
    """Keep numbers and truth values; write everything else, words of an enumeration too, as a text."""
    return value if type(value) in (int, float, bool) else str(value)
