"""Write the Optuna study of a profile: a view for people, rebuilt from the store's rows and never read by a tune.

Every row is a trial: its point as parameters, seconds and bytes as objectives, the bytes beyond the budget as a
constraint, what else is known of it as user attributes. A row that was compiled only is a pruned trial, one that ended
otherwise than well a failed one.

Optuna takes about 20 ms to add a trial to an SQLite database, half a minute for a large sweep. So it makes the study
and its tables, and the trials that it has checked are written into these in one go; tests read them back through
Optuna. The whole is made in memory and put in the place of the old file in one step, so that nothing that ends a tune
leaves half a study. Known inefficiency: Optuna makes its tables through a migration tool, which takes half a second.
"""

import contextlib
import dataclasses
import datetime as dt
import json
import os
import re
import sqlite3
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from autotune.errors import AutotuneError
from autotune.measuring.rows import WHY_NOTE, trial_key
from autotune.tuning.prepare import Prepared, Store
from profiles import (
    Literal,
    Measurement,
    Scalar,
    Status,
    digest,
    file_of,
    parse_url,
    profile_id,
    profile_key,
    url_of_file,
    user_folder,
    without_password,
)

OBJECTIVES = ("run_seconds", "peak_bytes")
"""Both are minimised, in this order."""
_DIRECTIONS = [optuna.study.StudyDirection.MINIMIZE] * len(OBJECTIVES)
BUDGET = "budget"
"""Name of the constraint: by how many bytes a trial exceeds the budget."""
_MOST_EXACT = 2**53
"""Optuna's tables hold a number as a double: beyond this they would round an integer."""
_LONGEST_SECONDS = 1e6
"""More than this no trial is said to have taken: times that are wrong must not leave the calendar."""
_FORGOTTEN_SECONDS = 3600.0
"""A temporary file of this age is what a killed process left."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class StudyView:
    """What is written: the rows, at least one, why they were measured (by `trial_key`), and the budget if any."""

    name: str
    rows: Sequence[Measurement]
    whys: Mapping[str, str] = dataclasses.field(default_factory=dict)
    budget_bytes: int | None = None


def study_path(store_url: str, name: str) -> Path | None:
    """Choose the file of a study: beside an SQLite store, in the user's data folder for a server; None in memory."""
    url = parse_url(store_url)
    if (file := file_of(url)) is not None:
        folder = Path(f"{file.absolute()}.studies")
    elif url.get_backend_name() == "sqlite":
        return None
    else:
        of_store = digest(without_password(store_url))[:8]
        folder = user_folder("data") / "studies" / of_store
    return folder / f"{re.sub(r'[^A-Za-z0-9_.-]+', '-', name)}.db"


def write_study_of(prepared: Prepared, store: Store) -> str | None:
    """Write the study of a tune's profile from what the store holds now.

    Returns:
        The study's URL; None where the store is in memory, or holds no row of the profile.

    Raises:
        AutotuneError: the study could not be written.
        ProfilesError: the store could not be read.
    """
    path = study_path(store.url, prepared.study)
    profile = profile_key(next(iter(prepared.keys.values())), prepared.device.key, prepared.request.adjoint)
    rows = [row for row in store.measurements(problem_name=prepared.name) if profile_id(row) == profile]
    if path is None or not rows:
        return None
    whys, budget = store.notes(WHY_NOTE), prepared.budget.bytes
    return write_view(StudyView(name=prepared.study, rows=rows, whys=whys, budget_bytes=budget), path)


def write_view(view: StudyView, path: Path) -> str:
    """Write a study to an SQLite file, in the place of one that is there.

    Returns:
        The URL under which Optuna and its dashboard open it.

    Raises:
        AutotuneError: it could not be written; what was there before is as it was.
    """
    try:
        with contextlib.closing(sqlite3.connect(":memory:")) as connection:
            _make(view, connection)
            _put_in_place(connection, path)
    except (OSError, sqlite3.Error) as error:
        raise AutotuneError(f"the Optuna study {path} could not be written: {error}") from error
    return url_of_file(path)


def _make(view: StudyView, connection: sqlite3.Connection) -> None:
    """Make the study and its trials in a database that is empty."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage = optuna.storages.RDBStorage("sqlite://", engine_kwargs={"creator": lambda: connection})
    study = optuna.create_study(study_name=view.name, storage=storage, directions=_DIRECTIONS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.set_metric_names(list(OBJECTIVES))
    newest = view.rows[-1]
    study.set_user_attr("problem", newest.problem.name)
    study.set_user_attr("device", newest.device.kind)
    study.set_user_attr("adjoint", str(newest.adjoint))
    study.set_user_attr("budget_bytes", view.budget_bytes)
    study.set_user_attr("about", "a view of what ckpt-tune has stored, written anew by every tune")
    storage.remove_session()
    _insert(connection, trials_of(view))


def _insert(connection: sqlite3.Connection, trials: Sequence[FrozenTrial]) -> None:
    """Write checked trials into the tables of the only study in a database."""
    (study_id,) = connection.execute("SELECT study_id FROM studies").fetchone()
    rows: dict[str, list[tuple[Any, ...]]] = {
        "trials (trial_id, number, study_id, state, datetime_start, datetime_complete)": [],
        "trial_values (trial_id, objective, value, value_type)": [],
        "trial_params (trial_id, param_name, param_value, distribution_json)": [],
        "trial_user_attributes (trial_id, key, value_json)": [],
        "trial_system_attributes (trial_id, key, value_json)": [],
    }
    own, values, params, user, system = rows.values()
    for number, trial in enumerate(trials):
        at = number + 1
        times = (trial.datetime_start, trial.datetime_complete)
        own.append((at, number, study_id, trial.state.name, *(time and time.isoformat(" ") for time in times)))
        values += [(at, which, value, "FINITE") for which, value in enumerate(trial.values or ())]
        for name, value in trial.params.items():
            distribution = trial.distributions[name]
            text = optuna.distributions.distribution_to_json(distribution)
            params.append((at, name, distribution.to_internal_repr(value), text))
        user += [(at, key, json.dumps(value)) for key, value in trial.user_attrs.items()]
        system += [(at, key, json.dumps(value)) for key, value in trial.system_attrs.items()]
    for table, listed in rows.items():
        marks = ", ".join("?" * (table.count(",") + 1))
        connection.executemany(f"INSERT INTO {table} VALUES ({marks})", listed)
    connection.commit()


def _put_in_place(connection: sqlite3.Connection, path: Path) -> None:
    """Write a database to a file of its own, then put that in the place of the old one."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    for left in path.parent.glob(f".{path.name}.*"):
        with contextlib.suppress(OSError):  # another process may do the same now
            if time.time() - left.stat().st_mtime > _FORGOTTEN_SECONDS:
                left.unlink()
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}")
    try:
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        with contextlib.closing(sqlite3.connect(temporary)) as file:
            file.execute("PRAGMA journal_mode=OFF")  # nobody sees the file before it is whole
            connection.backup(file)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def trials_of(view: StudyView) -> list[FrozenTrial]:
    """Write rows as trials, oldest first."""
    rows = sorted(view.rows, key=lambda row: (row.measured_at, row.key))
    dimensions = {name: _dimension(name, values) for name, values in _listed(map(_params, rows)).items()}
    return [_trial(row, view, dimensions) for row in rows]


def _params(row: Measurement) -> dict[str, Scalar]:
    """Name the point of a row; what its problem does not take is left out."""
    found: dict[str, Scalar] = {"checkpoints": row.checkpoints}
    found |= {} if row.horizon is None else {"horizon": row.horizon}
    found |= {} if row.tolerance is None else {"tolerance": row.tolerance}
    found |= {f"set:{key}": value for key, value in row.set_values.items()}
    return {**found, "xla_flags": row.xla_flags, "tier": row.tier.name if row.tier else "device"}


def _listed(points: Iterable[Mapping[str, Scalar]]) -> dict[str, list[Scalar]]:
    """List the values of each parameter, each once; 1, 1.0 and True are three."""
    found: dict[str, dict[Any, Scalar]] = {}
    for point in points:
        for name, value in point.items():
            found.setdefault(name, {})[type(value), value] = value
    return {name: list(values.values()) for name, values in found.items()}


def _dimension(name: str, values: Sequence[Scalar]) -> tuple[BaseDistribution, Callable[[Any], Any]]:
    """Choose a parameter's distribution, and how its values are written.

    Numbers make a range. Anything else makes a list of choices: by their texts where Optuna knows no such values, or
    would take one for another.
    """
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    exact = [value for value in numbers if abs(value) <= _MOST_EXACT]
    distinct = len(set(values)) == len(values)
    if len(exact) == len(values) and distinct:
        log = name in ("checkpoints", "tolerance") and min(exact) > 0
        whole = [value for value in exact if isinstance(value, int)]
        if len(whole) == len(exact):
            return IntDistribution(min(whole), max(whole), log=log), _as_it_is
        return FloatDistribution(min(exact), max(exact), log=log), float
    as_text = not distinct or any(isinstance(value, Literal) for value in values)
    write = repr if as_text else _as_it_is
    return CategoricalDistribution([write(value) for value in values]), write


def _as_it_is(value: Any) -> Any:
    return value


def _trial(
    row: Measurement, view: StudyView, dimensions: Mapping[str, tuple[BaseDistribution, Callable[[Any], Any]]]
) -> FrozenTrial:
    """Write one row."""
    params = _params(row)
    seconds, peak = row.run_median_seconds, row.peak_bytes
    well = row.status is Status.OK
    values = [seconds, float(peak)] if well and seconds is not None and peak is not None else None
    unfinished = TrialState.PRUNED if well else TrialState.FAIL
    excess = None if view.budget_bytes is None or peak is None else float(peak - view.budget_bytes)
    trial = optuna.create_trial(
        state=TrialState.COMPLETE if values else unfinished,
        values=values,
        params={name: dimensions[name][1](value) for name, value in params.items()},
        distributions={name: dimensions[name][0] for name in params},
        user_attrs=_attributes(row, view.whys),
        constraints=None if excess is None else {BUDGET: excess},
        # The dashboard (0.21) knows constraints as a list, which Optuna 5 reads too.
        system_attrs=None if excess is None else {"constraints": [excess]},
    )
    took = (row.trace_seconds or 0.0) + (row.compile_seconds or 0.0) + sum(row.run_seconds)
    trial.datetime_complete = row.measured_at.astimezone().replace(tzinfo=None)  # local and naive, as Optuna's are
    trial.datetime_start = trial.datetime_complete - dt.timedelta(seconds=min(max(took, 0.0), _LONGEST_SECONDS))
    return trial


def _attributes(row: Measurement, whys: Mapping[str, str]) -> dict[str, Any]:
    """List what else is known of a row, and leave out what is not."""
    found = {
        "status": str(row.status),
        "message": row.message or None,
        "evidence": "run" if row.run_seconds else str(row.peak_source or "none"),
        "why": whys.get(trial_key(row)),
        "steps": row.steps,
        "expected_steps": row.expected_steps,
        "recompute_factor": row.recompute_factor,
        "peak_bytes": row.peak_bytes,
        "windows": row.tier.windows if row.tier else None,
        "measured_at": row.measured_at.isoformat(timespec="seconds"),
        "key": row.key,
    }
    return {name: value for name, value in found.items() if value is not None}
