"""The queue that hands out trials between processes: an Optuna study in a scratch database, its making and joining.

The queue holds trials and who has taken them, nothing that a tune rests on: one is made for each tune and thrown away
after it. What a user opens is another study, `autotune.tuning.study_view`.
"""

import contextlib
import dataclasses
import os
import secrets
import socket
import time
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import optuna
import psutil
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.exc import IntegrityError, OperationalError, ProgrammingError, SQLAlchemyError

from autotune.errors import AutotuneError
from profiles import hide_passwords, without_password

HEARTBEAT_SECONDS = 5
GRACE_SECONDS = 20
"""A trial whose worker has been silent for this long is handed out again."""
RETRY_SECONDS = (0.1, 0.2, 0.5, 1.0, 2.0, 4.0)
"""How long to wait before each new try where another process makes the tables at the same time."""
_AT_ONCE = ("already exists", "unique", "locked", "duplicate key")
_OWN = "+"
"""Stands between the name of a plan and the digits of one tune's own study."""


@contextlib.contextmanager
def known_experimental() -> Iterator[None]:
    """Silence the warning that heartbeats are experimental in Optuna 5."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield


def scratch_url(store_url: str) -> str:
    """Name the database of the scratch study: a file beside an SQLite store, the same database on a server.

    Optuna's tables and the store's have different names, so one database holds both.
    """
    url = sa.make_url(store_url)
    if url.get_backend_name() != "sqlite":
        return store_url
    if url.database in (None, "", ":memory:"):
        return ""
    return f"sqlite:///{Path(str(url.database)).absolute()}.queue"


def open_scratch(url: str) -> optuna.storages.BaseStorage:
    """Open the scratch storage; in memory where `url` is empty, and then no other process can join.

    Raises:
        AutotuneError: the database cannot be opened.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if not url:
        return optuna.storages.InMemoryStorage()
    kwargs = {"connect_args": {"timeout": 60}} if url.startswith("sqlite") else {"pool_pre_ping": True}
    try:
        storage = _rdb_storage(url, kwargs)
    except (SQLAlchemyError, RuntimeError) as error:
        said = hide_passwords(" ".join(str(getattr(error, "orig", None) or error).split())[:300], [url])
        raise AutotuneError(
            f"the scratch database {without_password(url)} of the study cannot be opened: {said}"
        ) from error
    if url.startswith("sqlite"):
        _write_one_at_a_time(storage.engine)
    return storage


def _rdb_storage(url: str, engine_kwargs: dict[str, Any]) -> optuna.storages.RDBStorage:
    """Open Optuna's storage, again where another process makes its tables at the same moment."""
    waits = iter(RETRY_SECONDS)
    while True:
        try:
            with known_experimental():
                return optuna.storages.RDBStorage(
                    url,
                    engine_kwargs=engine_kwargs,
                    heartbeat_interval=HEARTBEAT_SECONDS,
                    grace_period=GRACE_SECONDS,
                    heartbeat_stale_trial_callback=optuna.storages.RetryHeartbeatStaleTrialCallback(max_retry=1),
                )
        except (IntegrityError, OperationalError, ProgrammingError) as error:
            wait = next(waits, None)
            if wait is None or not any(sign in str(error).lower() for sign in _AT_ONCE):
                raise
            time.sleep(wait)


def _let_go(storage: optuna.storages.BaseStorage) -> None:
    """Close every connection of a storage; one in memory has none."""
    if isinstance(storage, optuna.storages.RDBStorage):
        storage.remove_session()
        storage.engine.dispose()


def _write_one_at_a_time(engine: sa.Engine) -> None:
    """Take SQLite's write lock at the start of every transaction.

    Optuna claims a trial by reading its state and writing the next one, under `SELECT ... FOR UPDATE`. SQLite knows
    no such lock, so without this two workers claim the same trial.
    """
    engine.dispose()

    @event.listens_for(engine, "connect")
    def leave_transactions_to_sqlalchemy(connection: Any, _: Any) -> None:
        connection.isolation_level = None

    @event.listens_for(engine, "begin")
    def begin(connection: sa.Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")


@dataclasses.dataclass(frozen=True, slots=True)
class JoinedStudy:
    """An Optuna study and the storage that it lies in."""

    study: optuna.Study
    storage: optuna.storages.BaseStorage

    def close(self) -> None:
        """Let go of the connections that Optuna keeps to the database; it would leave them to the collector."""
        _let_go(self.storage)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class StudyPlan:
    """What a study is made of. `origin` is what a worker on another host needs to know, as JSON values."""

    name: str
    origin: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def make_study(url: str, plan: StudyPlan) -> JoinedStudy:
    """Make a scratch study for one tune, which no other tune shares; those of tunes that ended are thrown away.

    Its name is the plan's with a few digits behind.

    Raises:
        AutotuneError: the database cannot be opened.
    """
    storage = open_scratch(url)
    _throw_away(storage, plan.name)
    with known_experimental():
        study = optuna.create_study(
            study_name=f"{plan.name}{_OWN}{secrets.token_hex(3)}",
            storage=storage,
            sampler=optuna.samplers.RandomSampler(),  # asked for nothing: every trial is enqueued
        )
    study.set_user_attr("owner", {"host": socket.gethostname(), "pid": os.getpid()})
    study.set_user_attr("origin", dict(plan.origin))
    return JoinedStudy(study, storage)


def _throw_away(storage: optuna.storages.BaseStorage, name: str) -> None:
    """Delete the studies of a plan's name whose tunes have ended, or were killed on this host."""
    for old in _of_plan(storage, name):
        with contextlib.suppress(KeyError, SQLAlchemyError):  # another tune may do the same now
            attributes = optuna.load_study(study_name=old, storage=storage).user_attrs
            owner = attributes.get("owner", {})
            here = owner.get("host") == socket.gethostname()
            if attributes.get("closed") or not owner or (here and not psutil.pid_exists(owner["pid"])):
                optuna.delete_study(study_name=old, storage=storage)


def _of_plan(storage: optuna.storages.BaseStorage, name: str) -> list[str]:
    """List the studies of a plan's name, or the one of exactly this name."""
    return [old for old in optuna.get_all_study_names(storage) if old == name or old.startswith(f"{name}{_OWN}")]


def join_study(url: str, name: str) -> JoinedStudy:
    """Open a study that another process made, by its own name or by that of its problem's plan.

    Raises:
        AutotuneError: there is none of that name; the text lists those that there are.
    """
    storage = open_scratch(url)
    try:
        found = [optuna.load_study(study_name=one, storage=storage) for one in _of_plan(storage, name)]
        running = [study for study in found if not study.user_attrs.get("closed")]
        return JoinedStudy((running or found)[-1], storage)
    except (KeyError, IndexError):
        there = ", ".join(optuna.get_all_study_names(storage)) or "none"
        _let_go(storage)
        raise AutotuneError(
            f"no study {name!r} takes workers in this store; there is {there}. "
            "A study exists while `ckpt-tune tune` runs, which prints its name"
        ) from None
