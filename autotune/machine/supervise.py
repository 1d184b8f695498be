"""The process between a tuner and its worker: whatever the worker starts ends with it, and it ends with the tuner.

`python -I -S supervise.py LIFE COMMAND…` starts the command in a session of its own, hands it standard input, output
and error, writes its process number to the file descriptor LIFE, and waits. It ends everything that came from the
command as soon as the command ends, or as LIFE is closed at its other end, which happens by itself when the tuner is
killed, or as it finds that its parent is another process. Then it ends as the command did: with its exit status, or of
its signal.

On Linux it is the subreaper of all that the command starts, so that nothing gets away by a session or a fork of its
own, and the command gets a signal from the kernel should this process be killed. Elsewhere what has left the command's
process group stays. The standard library alone, and little of it: this starts in some 20 ms, and holds no lock that
user code could hold.
"""

import contextlib
import os
import select
import signal
import sys
import time

_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG
_SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER
_LOOK_SECONDS = 1.0
"""How often to look for the parent, whose end of LIFE a fork of it may hold open."""
_END_SECONDS = 10.0
"""How long to wait for killed processes; one that waits for a dead disk or driver cannot be ended."""


def main() -> None:
    """Start the command, wait for its end or the tuner's, and end everything."""
    life, command, parent = int(sys.argv[1]), sys.argv[2:], os.getppid()
    os.set_inheritable(life, False)
    # Its callback writes a byte for each signal, which `select` sees.
    heard, told = os.pipe()
    os.set_blocking(told, False)
    os.set_blocking(heard, False)
    signal.set_wakeup_fd(told, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    told_to_end: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda number, frame: told_to_end.append(number))
    _prctl(_SUBREAPER, 1)
    worker = _start(command, os.getpid())
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):  # so that a pipe ends when the command and its children have
        os.dup2(nothing, stream)
    with contextlib.suppress(OSError):  # the tuner may be gone already, which the next lines find out
        os.write(life, f"{worker}\n".encode())
    status = None
    while status is None:
        ready, _, _ = select.select([life, heard], [], [], _LOOK_SECONDS)
        if heard in ready:
            os.read(heard, 512)
        status = _reap()[0].get(worker)
        if status is None and (told_to_end or life in ready or os.getppid() != parent):
            break
    _end_like(_end_all(worker, status))


def _start(command: list[str], supervisor: int) -> int:
    worker = os.fork()
    if worker:
        return worker
    try:
        os.setsid()
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        # The kernel ties this to the thread that forked, and there is only one.
        _prctl(_DEATH_SIGNAL, signal.SIGKILL)
        if os.getppid() == supervisor:
            os.execv(command[0], command)
    finally:
        os._exit(127)


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(option, ctypes.c_ulong(value), 0, 0, 0)


def _reap() -> tuple[dict[int, int], bool]:
    """Take note of every child that has ended, and whether there are others."""
    ended: dict[int, int] = {}
    while True:
        try:
            child, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended, False
        if child == 0:
            return ended, True
        ended[child] = status


def _end_all(worker: int, status: int | None) -> int:
    """Kill the command's session and every descendant, until none is left; return how the command ended."""
    until = time.monotonic() + _END_SECONDS
    while time.monotonic() < until:
        _kill(-worker)
        # What is killed leaves its own children to this process, so that the next round finds them.
        for child in [worker] * (status is None) + _children():
            _kill(child)
        ended, others = _reap()
        status = ended.get(worker, status)
        if not others:
            break
        time.sleep(0.005)
    return 9 if status is None else status


def _children() -> list[int]:
    """List the children of this process that have not ended; none where the kernel does not tell."""
    found: list[int] = []
    own = str(os.getpid())
    try:
        numbers = [name for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        return found
    for name in numbers:
        try:
            with open(f"/proc/{name}/stat", encoding="utf-8", errors="replace") as file:
                state, parent = file.read().rpartition(")")[2].split()[:2]
        except (OSError, ValueError):
            continue
        if parent == own and state != "Z":
            found.append(int(name))
    return found


def _kill(process: int) -> None:
    with contextlib.suppress(OSError):  # it may have ended, or not be ours to end
        os.kill(process, signal.SIGKILL)


def _end_like(status: int) -> None:
    if not os.WIFSIGNALED(status):
        os._exit(os.WEXITSTATUS(status))
    import resource

    number = os.WTERMSIG(status)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # the command has left its own
    if number != signal.SIGKILL:
        signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [number])
    os.kill(os.getpid(), number)
    time.sleep(1.0)
    os._exit(128 + number)


if __name__ == "__main__":
    main()
