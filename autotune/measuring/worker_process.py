"""One worker process as its parent holds it: started in its environment, sent requests, watched, ended. No jax."""

import collections
import contextlib
import json
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Mapping
from typing import IO, Any

import psutil

from autotune.errors import AutotuneError, ProblemChangedError
from autotune.machine.cache import compilation_cache
from autotune.machine.compilers import search_path
from autotune.machine.family import Family
from autotune.machine.host import host_memory, oom_kills
from autotune.machine.targets import ENVIRONMENT, Target
from autotune.measuring.trial import RunSettings
from profiles import Status

START_SECONDS = 120.0
"""How long a worker may take to start jax, on any machine."""

_POLL_SECONDS = 0.2
_STDERR_LINES = 200
_CLOSE_SECONDS = 2.0
_OUT_OF_MEMORY_WORDS = ("std::bad_alloc", "out of memory", "memory allocation", "cannot allocate memory", "memoryerror")


class WorkerEndedError(Exception):
    """The worker ended, or was ended, before it answered. `status` and the text go into the trial's row."""

    def __init__(self, status: Status, message: str):
        super().__init__(message)
        self.status = status


class WorkerBugError(RuntimeError):
    """The worker raised something that is not the user's error; the text is its traceback."""


def worker_environment(settings: RunSettings, base: Mapping[str, str]) -> dict[str, str]:
    """Build the environment in which a worker starts.

    What the user chose on the command line holds always. `EQX_ON_ERROR=nan` (a host callback would keep programs out
    of the compilation cache), allocation on demand (so that what is measured is what is used) and the cache hold
    unless `settings.own_environment`.
    """
    made = dict(base)
    if settings.target is not None:
        return _environment_of_target(settings, settings.target, made)
    if settings.platform == "gpu":
        made.pop("JAX_PLATFORMS", None)  # jax prefers an accelerator, whichever; a list must be there to the last item
    elif settings.platform is not None:
        made["JAX_PLATFORMS"] = settings.platform if settings.platform == "cpu" else f"{settings.platform},cpu"
    if settings.x64:
        made["JAX_ENABLE_X64"] = "1"
    if settings.xla_flags:
        made["XLA_FLAGS"] = f"{made.get('XLA_FLAGS', '')} {settings.xla_flags}".strip()
    if not settings.own_environment:
        made["EQX_ON_ERROR"] = "nan"
        made["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
        made["JAX_COMPILATION_CACHE_DIR"] = str(compilation_cache(base))
        made.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")
    return made


def _environment_of_target(settings: RunSettings, target: Target, made: dict[str, str]) -> dict[str, str]:
    """Build the environment in which programs are compiled for a device that is not here, and no other is touched."""
    for name, value in ENVIRONMENT[target.compilers].items():
        made[name] = f"{made.get(name, '')} {value}".strip() if name == "XLA_FLAGS" else value
    if settings.xla_flags:
        made["XLA_FLAGS"] = f"{made.get('XLA_FLAGS', '')} {settings.xla_flags}".strip()
    made["JAX_PLATFORMS"] = "cpu"
    made["EQX_ON_ERROR"] = "nan"
    made["TF_CPP_MIN_LOG_LEVEL"] = "3"
    if folder := search_path(target.compilers, made):
        made["PYTHONPATH"] = os.pathsep.join(filter(None, (str(folder), made.get("PYTHONPATH", ""))))
    if settings.x64:
        made["JAX_ENABLE_X64"] = "1"
    made.pop("JAX_COMPILATION_CACHE_DIR", None)  # the store keeps what was planned; nothing else is worth keeping
    return made


class WorkerProcess:
    """A running worker. Not thread-safe: one request at a time."""

    def __init__(self, settings: RunSettings, *, environment: Mapping[str, str] | None = None):
        """Start the process.

        Args:
            settings: what must be fixed before jax starts.
            environment: the user's; this process's where None.
        """
        self.settings = settings
        self.resident_bytes = 0
        self.requests = 0
        self._greeted = False
        self._busy = False
        self._largest_bytes = 0
        self._kills_before = oom_kills()
        command = [sys.executable, "-P", "-m", "autotune.measuring.worker", "--device", str(settings.device)]
        command += ["--platform", settings.platform] if settings.platform else []
        limit = settings.memory_limit_bytes
        command += ["--memory-limit", str(limit)] if limit is not None else []
        if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
            with contextlib.suppress(OSError):  # jax would make it for everybody to read
                compilation_cache(os.environ).mkdir(mode=0o700, parents=True, exist_ok=True)
        self._family = Family(command, worker_environment(settings, os.environ if environment is None else environment))
        self._process = self._family.process
        self._replies: queue.Queue[str | None] = queue.Queue()
        self._stderr: collections.deque[str | None] = collections.deque(maxlen=_STDERR_LINES)
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        # The threads hold the queue and the list, never this object, which would otherwise not be collected.
        reading = (self._process.stdout, self._replies.put), (self._process.stderr, self._stderr.append)
        threading.Thread(target=_read_lines, args=reading[0], daemon=True).start()
        self._stderr_reader = threading.Thread(target=_read_lines, args=reading[1], daemon=True)
        self._stderr_reader.start()
        self._finalizer = weakref.finalize(self, _end, self._family)

    @property
    def alive(self) -> bool:
        """Whether the process still runs."""
        return self._family.alive

    def ask(self, op: str, *, timeout_seconds: float | None = None, **request: Any) -> Any:
        """Send a request and wait for its answer.

        Raises:
            AutotuneError: the user's code, or what was asked, is at fault.
            WorkerBugError: the worker is at fault.
            WorkerEndedError: the process ended or took longer than `timeout_seconds`; it is gone then.
        """
        if not self._greeted and op != "hello":
            # Starting jax is not part of any trial, so it has a limit of its own.
            self._greeted = True
            self.ask("hello", timeout_seconds=START_SECONDS)
        self.requests += 1
        self._busy = True
        line = json.dumps({"id": self.requests, "op": op, **request})
        try:
            assert self._process.stdin is not None
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
        except OSError:
            raise self._ended(op) from None
        reply = self._wait(op, timeout_seconds)
        self._busy = False
        if "error" in reply:
            error = reply["error"]
            if error["trace"] is not None and any(word in error["trace"].lower() for word in _OUT_OF_MEMORY_WORDS):
                self.kill()  # what it could not allocate may be missing later
                raise WorkerEndedError(Status.OUT_OF_MEMORY, f"{_DOING.get(op, op)}: {error['message']}")
            if error["trace"] is not None:
                raise WorkerBugError(error["trace"])
            kind = ProblemChangedError if error.get("changed") else AutotuneError
            raise kind(error["message"], frames=tuple(error["frames"]))
        self.resident_bytes = reply.get("resident_bytes") or self.resident_bytes
        return reply["ok"]

    def _wait(self, op: str, timeout_seconds: float | None) -> dict[str, Any]:
        """Wait for the reply to the last request; what else arrives was written by the user's code."""
        deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        while True:
            left = _POLL_SECONDS if deadline is None else min(_POLL_SECONDS, deadline - time.monotonic())
            try:
                line = self._replies.get(timeout=max(left, 0.0))
            except queue.Empty:
                self._watch()
                if deadline is not None and time.monotonic() >= deadline:
                    self.kill()
                    message = f"{_DOING.get(op, op)} took longer than {timeout_seconds:g} s; the worker was ended"
                    raise WorkerEndedError(Status.TIMED_OUT, message) from None
                if self.alive or not self._replies.empty():
                    continue
                line = None  # something that is not of this process's family holds the pipe
            if line is None:
                raise self._ended(op)
            if (reply := _reply(line, self.requests)) is not None:
                return reply
            self._stderr.append(line)

    def _watch(self) -> None:
        number = self._family.number
        with contextlib.suppress(psutil.Error):
            if number is not None:
                self._largest_bytes = max(self._largest_bytes, psutil.Process(number).memory_info().rss)

    def _said(self) -> list[str]:
        """Return the last lines that the worker wrote to standard error."""
        return [line for line in self._stderr if line is not None]

    def _ended(self, op: str) -> WorkerEndedError:
        """Find out why the process is gone; one that only closed its replies is ended."""
        try:
            code = self._process.wait(_CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            doing = _DOING.get(op, op)
            return WorkerEndedError(Status.FAILED, f"{doing}: the process closed the pipe on which it answers")
        self._stderr_reader.join(timeout=1.0)
        spoken = (line.strip() for line in reversed(self._said()) if not _STACK_LINE.match(line))
        last = next(filter(None, spoken), "")
        doing = _DOING.get(op, op)
        if code in (-signal.SIGKILL, 128 + signal.SIGKILL):
            return self._killed(doing)
        limit = self.settings.memory_limit_bytes
        if code == -signal.SIGABRT and limit is not None:
            # Libraries abort where a thread or a buffer is refused; under a limit that is what it is.
            message = f"{doing}: the process aborted under its memory limit of {limit} bytes: {last[:300]}"
            return WorkerEndedError(Status.OUT_OF_MEMORY, message)
        if any(word in line.lower() for line in self._said() for word in _OUT_OF_MEMORY_WORDS):
            return WorkerEndedError(Status.OUT_OF_MEMORY, f"{doing}: the process ran out of memory: {last[:300]}")
        how = f"died of {signal.Signals(-code).name}" if code < 0 else f"ended with exit status {code}"
        said = f"; its last words: {last[:300]}" if last else ""
        return WorkerEndedError(Status.FAILED, f"{doing}: the process {how}{said}")

    def _killed(self, doing: str) -> WorkerEndedError:
        """Distinguish the kernel's out-of-memory kill from somebody else's kill -9, by what the kernel counted.

        Out of memory unless the kernel counts such kills, counted none, and the process was small: other guards
        (systemd-oomd, a batch system) kill large processes and are counted nowhere.
        """
        kills = oom_kills()
        counted_none = kills is not None and self._kills_before is not None and kills <= self._kills_before
        if counted_none and self._largest_bytes < host_memory().capacity_bytes / 4:
            return WorkerEndedError(
                Status.FAILED,
                f"{doing}: the process was killed (signal 9) while it held {self._largest_bytes} bytes; "
                "the kernel counted no out-of-memory kill, so somebody or the program itself did it",
            )
        return WorkerEndedError(
            Status.OUT_OF_MEMORY,
            f"{doing}: the process was killed (signal 9) while memory ran out; it held {self._largest_bytes} bytes",
        )

    def kill(self) -> None:
        """End the process, and whatever it has started, at once."""
        self._family.end()

    def close(self) -> None:
        """Let an idle process end by closing its input; end at once one that is busy, or that does not end."""
        if self.alive and not self._busy:
            with contextlib.suppress(OSError):
                assert self._process.stdin is not None
                self._process.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_CLOSE_SECONDS)
        self._finalizer()


_STACK_LINE = re.compile(r"\s*(@\s|\*\*\*|0x)")
"""A line of the stack that a crash handler prints, which says nothing to the user."""

_DOING = {
    "hello": "starting jax", "drop": "forgetting programs",
    "compile": "tracing and compiling", "call": "the first call", "time": "a timed call",
    "observe": "counting steps", "costs": "counting operations", "key": "fingerprinting",
    "device": "reading the device",
}  # fmt: skip


def _reply(line: str, number: int) -> dict[str, Any] | None:
    """Read the reply to a request; None where it is none. What was written before it without a line end is cut off."""
    start = line.rfind(f'{{"id": {number}, ')
    if start < 0:
        return None
    try:
        found = json.loads(line[start:])
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and ("ok" in found or "error" in found) else None


def _read_lines(stream: IO[str], put: Any) -> None:
    with contextlib.suppress(ValueError, OSError), stream:
        for line in stream:
            put(line)
    put(None)


def _end(family: Family) -> None:
    family.end()
    family.close()
