"""Programs compiled by jax alone for a device that is not here, in a process of its own."""

import functools
import json
import os
import subprocess
import sys

import pytest

from autotune.errors import AutotuneError
from autotune.machine.compilers import search_path
from tests.conftest import REPOSITORY

SCRIPT = REPOSITORY / "scripts" / "validation" / "plain_compile.py"


def needs(kind: str) -> None:
    """Skip a test where the compilers for a kind of device are not installed."""
    try:
        search_path(kind)
    except AutotuneError as error:
        pytest.skip(str(error))


@functools.cache
def _answers(kind: str, requests: str) -> list[dict]:
    path = os.pathsep.join((*filter(None, (str(search_path(kind) or ""),)), str(REPOSITORY)))
    done = subprocess.run(
        [sys.executable, str(SCRIPT), kind], input=requests, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": path}, timeout=800,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def plainly_compiled(kind: str, requests: list[dict]) -> list[dict]:
    """Compile requests once in this session; an answer is what `memory_analysis()` says, or the compiler's error."""
    needs(kind)
    return _answers(kind, json.dumps(requests))
