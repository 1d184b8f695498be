"""Faults for tests: a line to a server that can be cut or held, and a tune by arithmetic in a process of its own."""

import contextlib
import os
import pathlib
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence

from tests.conftest import REPOSITORY

TUNE = """
import sys, time
sys.path.insert(0, {root!r})
from autotune.errors import AutotuneError
from autotune.search.space import Listed
from autotune.tuning.request import TuneRequest
from autotune.tuning.tune import run_tune
from profiles import ProfilesError, open_store
from tests.autotune.fake_lab import Heard, lab

class Slow(Heard):
    def started(self, trials):
        print("asked", *(trial.checkpoints for trial in trials), flush=True)
        time.sleep({pause})
    def say(self, text):
        print("said", text, flush=True)
    note = say

counts = tuple(map(int, sys.argv[2].split(",")))
request = TuneRequest(problem="fake.module:make", budget="5MB", exhaustive=True,
                      listed=Listed(counts=counts, horizons=(5, 10)))
try:
    with open_store(sys.argv[1]) as store:
        result = run_tune(request, store=store, machine=lab(), progress=Slow())
    print("done", len(result.rows), result.measured)
except (AutotuneError, ProfilesError) as error:
    print("error", error)
    sys.exit(1)
"""


def start_tune(
    store: str, counts: Sequence[int], folder: pathlib.Path, *, pause: float = 0.0, before: str = ""
) -> subprocess.Popen[str]:
    """Start a tune of two horizons by arithmetic, which says what it measures, in a process that runs a code before."""
    code = before + TUNE.format(root=str(REPOSITORY), pause=pause)
    words = [sys.executable, "-c", code, store, ",".join(map(str, counts))]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=own(folder, {}))


def own(folder: pathlib.Path, more: Mapping[str, str]) -> dict[str, str]:
    """Make an environment whose data, cache and locks lie in a folder."""
    places = {name: str(folder / name.lower()) for name in ("XDG_DATA_HOME", "XDG_CACHE_HOME")}
    return {**os.environ, **places, "PYTHONPATH": str(REPOSITORY), **more}


def _socket(end: object) -> socket.socket:
    assert isinstance(end, socket.socket)
    return end


class Line:
    """A line to a server: what connects to its port is connected to the server, until it is cut or held."""

    def __init__(self, host: str, port: int) -> None:
        """Listen on a port of its own."""
        self._server = host, port
        self._ends: set[socket.socket] = set()
        self._cut = self._held = self._over = False
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self.cuts = 0
        self._thread = threading.Thread(target=self._carry, daemon=True)
        self._thread.start()

    def cut(self) -> None:
        """Drop every connection, and take none."""
        self._cut = True

    def hold(self) -> None:
        """Keep connections and carry nothing, as a stopped server does."""
        self._held = True

    def mend(self) -> None:
        """Carry on."""
        self._cut = self._held = False

    def close(self) -> None:
        """Drop everything."""
        self._over = True
        self._thread.join()
        self._listening.close()

    def _carry(self) -> None:
        peers: dict[socket.socket, socket.socket] = {}
        while not self._over:
            if self._cut:
                self.cuts += len(peers) // 2
                for end in peers:
                    end.close()
                peers.clear()
            ready, _, _ = select.select([self._listening, *([] if self._held else peers)], [], [], 0.02)
            for end in list(map(_socket, ready)):
                if end is self._listening:
                    theirs, _ = end.accept()
                    if self._cut:
                        theirs.close()
                        continue
                    ours = socket.create_connection(self._server)
                    peers |= {theirs: ours, ours: theirs}
                elif end in peers:
                    data = b""
                    with contextlib.suppress(OSError):
                        data = end.recv(65536)
                    if data:
                        with contextlib.suppress(OSError):
                            peers[end].sendall(data)
                    else:
                        for one in (end, peers[end]):
                            one.close()
                            peers.pop(one, None)
        for end in peers:
            end.close()
