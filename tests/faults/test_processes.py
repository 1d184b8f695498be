"""What a measured problem starts ends with its worker, and the worker with its tuner, however either of them ends."""

import os
import pathlib
import signal
import subprocess
import sys
import textwrap
import time

import psutil
import pytest

from autotune.errors import AutotuneError
from autotune.machine import family as family_module
from autotune.machine.family import Family
from autotune.measuring.trial import RunSettings
from autotune.measuring.worker_process import WorkerEndedError, WorkerProcess
from profiles import Status
from tests.conftest import REPOSITORY

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="what the kernel of Linux promises")

STARTS = {
    "a child": "subprocess.Popen(['sleep', MARK])",
    "a child in a session of its own": "subprocess.Popen(['sleep', MARK], start_new_session=True)",
    "a child that ignores signals": "subprocess.Popen(['sh', '-c', f'trap \"\" TERM INT; sleep {MARK}; sleep {MARK}'])",
    "a fork": "os.fork() or os.execvp('sleep', ['sleep', MARK])",
    "a daemon": "os.fork() or (os.setsid(), os.fork() and os._exit(0), os.execvp('sleep', ['sleep', MARK]))",
    "a stopped child": "os.kill(subprocess.Popen(['sleep', MARK]).pid, signal.SIGSTOP)",
}
"""How user code may start a process that would run on; each is recognised by how long it wants to sleep."""

ENDS = {
    "normal": ("sys.stdin.read()", 0),
    "exit status": ("os._exit(3)", 3),
    "crash": ("os.kill(os.getpid(), signal.SIGSEGV)", -signal.SIGSEGV),
    "abort": ("os.abort()", -signal.SIGABRT),
    "kill": ("os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL),
}

HOLDS_THE_INTERPRETER = "import ctypes; ctypes.PyDLL(None).sleep(600)"


def sleepers(mark: str) -> list[psutil.Process]:
    """List the processes that sleep for a given time."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        words = process.info["cmdline"] or [""]
        if words[0] in ("sleep", "sh") and mark in words[-1] and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(process)
    return found


def wait_for(there, seconds: float = 20.0) -> None:
    """Wait until something is so."""
    until = time.monotonic() + seconds
    while not there():
        assert time.monotonic() < until, "it did not become so"
        time.sleep(0.02)


def command(mark: str, start: str, then: str) -> list[str]:
    """Write a program that starts something and then goes on."""
    code = f"import os, signal, subprocess, sys, time\nMARK = {mark!r}\n{start}\ntime.sleep(0.1)\n{then}"
    return [sys.executable, "-c", code]


@pytest.fixture
def mark(request: pytest.FixtureRequest) -> str:
    """A time to sleep that nobody else sleeps for."""
    return f"3{os.getpid()}{abs(hash(request.node.nodeid)) % 10**6:06d}"


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("start", STARTS)
def test_what_a_process_started_ends_with_it(mark: str, start: str, end: str) -> None:
    """Whether it ends well or not, its exit status comes through, and its pipes are closed."""
    then, code = ENDS[end]
    started = Family(command(mark, STARTS[start], f"print('there', flush=True); {then}"), os.environ)
    assert started.process.stdout is not None
    assert started.process.stderr is not None
    assert started.process.stdin is not None
    assert started.process.stdout.readline() == "there\n"
    started.process.stdin.close()
    assert started.process.wait(20) == code
    assert started.process.stdout.read() == ""
    assert not sleepers(mark)
    started.end()
    started.close()
    started.process.stdout.close()
    started.process.stderr.close()


@pytest.mark.parametrize("start", STARTS)
def test_a_process_that_is_ended_takes_all_along(mark: str, start: str) -> None:
    """Even while it holds the interpreter, and with a grandchild that holds its pipes."""
    with_child = Family(command(mark, STARTS[start], HOLDS_THE_INTERPRETER), os.environ)
    wait_for(lambda: sleepers(mark))
    number = with_child.number
    assert number is not None
    assert psutil.pid_exists(number)
    with_child.end()
    assert with_child.process.returncode == -signal.SIGKILL
    assert not sleepers(mark)
    assert not psutil.pid_exists(number)
    for stream in (with_child.process.stdout, with_child.process.stderr):
        assert stream is not None
        assert stream.read() == ""
        stream.close()
    with_child.close()


TUNER = """
import os, sys, time
sys.path.insert(0, {root!r})
from autotune.machine.family import Family
family = Family({command!r}, os.environ)
while family.number is None:
    time.sleep(0.01)
print(family.process.pid, family.number, flush=True)
if {fork}:
    os.fork() or time.sleep(3)
time.sleep(30)
"""


@pytest.mark.parametrize(
    "victim", ["tuner", "tuner with a fork", "supervisor", "tuner while the supervisor is stopped"]
)
def test_a_worker_that_holds_the_interpreter_ends_with_its_tuner(mark: str, victim: str) -> None:
    """Kill -9 gives nobody time to tidy up: the kernel's end of a pipe, or its signal, does."""
    code = TUNER.format(
        root=str(REPOSITORY), command=command(mark, STARTS["a child"], HOLDS_THE_INTERPRETER), fork="fork" in victim
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as tuner:
        assert tuner.stdout is not None
        supervisor, worker = map(int, tuner.stdout.readline().split())
        wait_for(lambda: sleepers(mark))
        if "stopped" in victim:
            os.kill(supervisor, signal.SIGSTOP)
        os.kill(supervisor if victim == "supervisor" else tuner.pid, signal.SIGKILL)
        if "stopped" in victim:
            os.kill(supervisor, signal.SIGCONT)
        wait_for(lambda: not psutil.pid_exists(worker) or psutil.Process(worker).status() == psutil.STATUS_ZOMBIE)
        if victim != "supervisor":  # without it nobody is left who knows of a grandchild
            wait_for(lambda: not sleepers(mark))
        tuner.kill()
    for left in sleepers(mark):
        left.kill()


def test_a_supervisor_that_is_told_to_end_takes_all_along(mark: str) -> None:
    """As a batch system tells every process of a job."""
    told = Family(command(mark, STARTS["a child in a session of its own"], HOLDS_THE_INTERPRETER), os.environ)
    wait_for(lambda: sleepers(mark))
    os.kill(told.process.pid, signal.SIGTERM)
    assert told.process.wait(20) == -signal.SIGKILL
    assert not sleepers(mark)
    told.close()
    for stream in (told.process.stdout, told.process.stderr):
        assert stream is not None
        stream.close()


def test_a_stopped_supervisor_does_not_keep_anybody_waiting(mark: str) -> None:
    """Whoever ends the family wakes it."""
    held = Family(command(mark, STARTS["a child"], HOLDS_THE_INTERPRETER), os.environ)
    wait_for(lambda: sleepers(mark))
    os.kill(held.process.pid, signal.SIGSTOP)
    held.end()
    assert not sleepers(mark)
    held.close()
    for stream in (held.process.stdout, held.process.stderr):
        assert stream is not None
        stream.close()


def problem(folder: pathlib.Path, text: str) -> str:
    """Write a problem whose import does something, and name it."""
    path = folder / "faulty.py"
    path.write_text(textwrap.dedent(text) + "\n\ndef make(*, adjoint):\n    return (lambda x: x), (1.0,)\n")
    return f"{path}:make"


@pytest.fixture(scope="module")
def workers():
    """Give a worker, a new one where the last one is gone, and end it."""
    started: list[WorkerProcess] = []

    def start() -> WorkerProcess:
        if not started or not started[-1].alive:
            started.append(WorkerProcess(RunSettings(platform="cpu")))
        return started[-1]

    yield start
    for worker in started:
        worker.close()


def ask_key(worker: WorkerProcess, name: str, seconds: float) -> object:
    """Load a problem and fingerprint it."""
    return worker.ask("key", problem=name, set_values={}, horizon=None, tolerance=None, timeout_seconds=seconds)


def test_a_problem_whose_child_holds_the_pipes_meets_its_time_out(workers, tmp_path: pathlib.Path, mark: str) -> None:
    """The limit holds, and child and worker are gone."""
    name = problem(
        tmp_path,
        f"import subprocess, time\nsubprocess.Popen(['sleep', '{mark}'], start_new_session=True)\ntime.sleep(600)",
    )
    worker = workers()
    worker.ask("hello")
    before = time.monotonic()
    with pytest.raises(WorkerEndedError, match="took longer than 1 s") as caught:
        ask_key(worker, name, 1.0)
    assert caught.value.status is Status.TIMED_OUT
    assert time.monotonic() - before < 60
    assert not sleepers(mark)


def test_a_worker_that_closes_its_pipes_is_no_hang(workers, tmp_path: pathlib.Path) -> None:
    """Code that closes every file descriptor, as daemons do."""
    worker = workers()
    worker.ask("hello")
    with pytest.raises(WorkerEndedError, match=r"closed the pipe on which it answers|ended with exit status"):
        ask_key(worker, problem(tmp_path, "import os, time\nos.closerange(3, 1000)\ntime.sleep(600)"), 60.0)


@pytest.mark.parametrize("asks", ["input()", "breakpoint()", "import sys; sys.stdin.read()[0]", "open(0).read()[0]"])
def test_nobody_is_asked_for_input(workers, tmp_path: pathlib.Path, asks: str) -> None:
    """Standard input is empty: the problem fails at once, and the line says why where that is to be known."""
    worker = workers()
    with pytest.raises(AutotuneError) as caught:
        ask_key(worker, problem(tmp_path, asks), 60.0)
    if asks in ("input()", "breakpoint()"):
        assert "Standard input is empty where a problem is measured" in str(caught.value)
    assert worker.alive


@pytest.mark.parametrize(
    "noise", ["no reply", '{"id": 2, "nothing": 1}', '{"id": 2, ', '{"id": 99, "ok": 1}', "no line end", "\\xff\\xfe"]
)
def test_noise_on_the_reply_pipe_is_no_reply(workers, tmp_path: pathlib.Path, noise: str) -> None:
    """What user code writes to a descriptor that it guessed is passed over."""
    end = "" if noise == "no line end" else "\\n"
    text = f"""
    import os
    for descriptor in range(3, 20):
        try:
            if os.readlink(f"/proc/self/fd/{{descriptor}}").startswith("pipe:"):
                os.write(descriptor, {noise!r}.encode("latin-1") + b"{end}")
        except OSError:
            pass
    """
    worker = workers()
    key = ask_key(worker, problem(tmp_path, text), 60.0)
    assert isinstance(key, dict)
    assert key["name"] == "faulty:make"


def test_an_endless_recursion_is_a_few_lines(workers, tmp_path: pathlib.Path) -> None:
    """Not one frame for each of a thousand calls."""
    with pytest.raises(AutotuneError, match="RecursionError") as caught:
        ask_key(workers(), problem(tmp_path, "def f():\n  f()\nf()"), 60.0)
    assert len("\n".join(caught.value.frames)) < 10_000
    assert any("more of your frames" in frame for frame in caught.value.frames)


def test_an_exception_without_a_text_is_a_line(workers, tmp_path: pathlib.Path) -> None:
    """Whatever its `__str__` raises."""
    text = "class Mute(Exception):\n  def __str__(self):\n    raise ValueError('no')\nraise Mute"
    with pytest.raises(AutotuneError, match="its text cannot be read"):
        ask_key(workers(), problem(tmp_path, text), 60.0)


def test_windows_ends_children_too(mark: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no supervisor can be, the tree is looked for."""
    monkeypatch.setattr(family_module, "SUPERVISED", False)
    plain = Family(command(mark, STARTS["a child"], "time.sleep(600)"), os.environ)
    wait_for(lambda: sleepers(mark))
    plain.end()
    wait_for(lambda: not sleepers(mark))
    plain.close()
    for stream in (plain.process.stdout, plain.process.stderr):
        assert stream is not None
        stream.close()
