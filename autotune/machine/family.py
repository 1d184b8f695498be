"""A process with all that it starts: nothing of it outlives its end, or this process. No jax.

Between this process and the one that is wanted stands `autotune.machine.supervise`, where the system has what that
needs; on Windows the process is started as it is, and its children are looked for when it is ended.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

SUPERVISED = hasattr(os, "fork")
"""Whether a supervisor stands between."""

_END_SECONDS = 15.0
_SUPERVISOR = str(Path(__file__).with_name("supervise.py"))


class Family:
    """A process, what it starts, and pipes to its standard input, output and error."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        """Start it.

        Args:
            command: the program, by its full path, and its arguments.
            environment: what it starts in.
        """
        self._life: socket.socket | None = None
        self._number: int | None = None
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        text = {"text": True, "encoding": "utf-8", "errors": "replace"}
        if not SUPERVISED:
            self.process = subprocess.Popen(list(command), env=dict(environment), **pipes, **text)
            self._number = self.process.pid
            return
        self._life, theirs = socket.socketpair()
        with theirs:
            supervised = [sys.executable, "-I", "-S", _SUPERVISOR, str(theirs.fileno()), *command]
            self.process = subprocess.Popen(
                supervised, env=dict(environment), pass_fds=(theirs.fileno(),), start_new_session=True, **pipes, **text
            )
        self._life.setblocking(False)

    @property
    def alive(self) -> bool:
        """Whether the process runs still, or something that it started is being ended."""
        return self.process.poll() is None

    @property
    def number(self) -> int | None:
        """The process's number; None while it has not started."""
        if self._number is None and self._life is not None:
            with contextlib.suppress(OSError, ValueError):
                self._number = int(self._life.recv(64))
        return self._number

    def end(self) -> None:
        """End it, and everything that it has started, at once. May be called from any thread, and more than once."""
        if self.alive and SUPERVISED:
            if self._life is not None:
                with contextlib.suppress(OSError):
                    self._life.shutdown(socket.SHUT_RDWR)  # another thread may be using it; `close` frees it
            self._wait_or_kill()
        elif self.alive:
            _kill_tree(self.process.pid)
        self.process.wait()

    def _wait_or_kill(self) -> None:
        """Wait for the supervisor, which somebody may have stopped, or which a process that cannot end holds up."""
        number = self.number
        until = time.monotonic() + _END_SECONDS
        while self.alive and time.monotonic() < until:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(0.2)
            with contextlib.suppress(psutil.Error):
                if psutil.Process(self.process.pid).status() == psutil.STATUS_STOPPED:
                    self.process.send_signal(signal.SIGCONT)
        if self.alive:
            with contextlib.suppress(OSError):
                self.process.kill()
            if number is not None:
                with contextlib.suppress(OSError):
                    os.killpg(number, signal.SIGKILL)

    def close(self) -> None:
        """Give back what this process holds of it, once it has ended; its output streams are their readers'."""
        if self._life is not None:
            self._life.close()
        if self.process.stdin is not None:
            with contextlib.suppress(OSError):
                self.process.stdin.close()


def _kill_tree(number: int) -> None:
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(number)
        for one in (*process.children(recursive=True), process):
            with contextlib.suppress(psutil.Error):
                one.kill()
