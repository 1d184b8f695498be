"""What the surroundings do to a command: closed, full and old-fashioned outputs, no home, a folder that is gone."""

import os
import pathlib
import shutil
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotune.cli.streams import visible
from profiles import open_store, quoted_cell, unquoted_cell
from tests.conftest import REPOSITORY
from tests.profiles.makers import a_measurement

pytestmark = pytest.mark.skipif(os.name == "nt", reason="shells and devices of POSIX systems")


@pytest.fixture
def store(tmp_path: pathlib.Path) -> str:
    """A store whose profile has a name that no old encoding can write, and that a terminal would obey."""
    path = tmp_path / "a.db"
    with open_store(str(path)) as opened:
        opened.put(a_measurement(name="Größe≤\x1b[2J\x9b31m\u202e:make", message="=cmd", host="\x1b]0;mine\x07"))
        opened.put(a_measurement(name="plain:make"))
    return str(path)


def shell(line: str, store: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Run a line of shell, in which `tune` is the command, and STORE its store."""
    line = line.replace("tune ", f"{sys.executable} -m autotune.cli ", 1).replace("STORE", f"--store {store}")
    surroundings = {**os.environ, "PYTHONPATH": str(REPOSITORY), "PYTHONSAFEPATH": "1", **environment}
    surroundings = {name: value for name, value in surroundings.items() if value != "(unset)"}
    return subprocess.run(["bash", "-c", line], capture_output=True, env=surroundings, check=False, timeout=120)


def one_line(done: subprocess.CompletedProcess[bytes], code: int, said: str) -> None:
    """Hold a command to its exit code and to one line that says why."""
    text = done.stderr.decode("utf-8", "replace")
    assert "Traceback" not in text
    assert done.returncode == code, text
    assert said in text
    assert len(text.strip().splitlines()) == 1, text


@pytest.mark.parametrize(
    ("encoding", "format"), [("ascii", "json"), ("latin-1", "table"), ("cp1252", "json"), ("utf-8", "json")]
)
def test_every_encoding_can_be_written(store: str, encoding: str, format: str) -> None:
    """What an encoding has not is an escape; nothing that a terminal would obey comes through."""
    done = shell(f"tune profiles list STORE --format {format}", store, PYTHONIOENCODING=encoding, PYTHONUTF8="0")
    assert done.returncode == 0, done.stderr
    assert b"Traceback" not in done.stderr
    text = done.stdout.decode(encoding)
    assert not any(sign in text for sign in "\x1b\x9b\x07\u202e")
    if format == "json":
        import json

        names = [profile["problem"] for profile in json.loads(text)["profiles"]]
        assert "Größe≤\x1b[2J\x9b31m\u202e:make" in names


def test_a_full_output_is_one_line(store: str) -> None:
    """No space left on the device behind standard output."""
    one_line(shell("tune profiles list STORE --format json >/dev/full", store), 1, "No space left on device")


def test_a_closed_output_is_one_line(store: str) -> None:
    """There is nowhere to print to."""
    one_line(shell("tune profiles list STORE >&-", store), 1, "standard output is closed")


def test_a_closed_standard_error_is_no_matter(store: str) -> None:
    """Data is printed all the same."""
    done = shell("tune profiles list STORE --format csv 2>&-", store)
    assert done.returncode == 0
    assert b"plain:make" in done.stdout


def test_a_reader_that_reads_no_further_is_no_error(store: str) -> None:
    """`| head -0` closes the pipe at once."""
    done = shell("tune profiles show plain:make STORE --format json | head -c 0; exit ${PIPESTATUS[0]}", store)
    assert done.returncode == 0
    assert done.stderr == b""


def test_a_working_folder_that_is_gone_is_one_line(store: str, tmp_path: pathlib.Path) -> None:
    """Its name cannot be found any more."""
    gone = tmp_path / "gone"
    gone.mkdir()
    done = shell(f"cd {gone} && rmdir {gone} && tune profiles list STORE", store)
    one_line(done, 1, "the folder in which the command runs cannot be read")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs a user without an entry")
def test_a_user_without_a_home_is_told_so() -> None:
    """No HOME, and no entry for the user: nothing is made in a folder called "~"."""
    python = os.path.realpath(sys.executable)
    code = "import os, sys; os.setgid(54321); os.setuid(54321); "
    code += "from profiles import default_url, StoreError\ntry: default_url()\nexcept StoreError as e: print(e)"
    done = subprocess.run(
        [python, "-c", code], capture_output=True, text=True, check=False, cwd="/",
        env={"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join([str(REPOSITORY), *sys.path])},
    )  # fmt: skip
    if "Permission" in done.stderr or "ModuleNotFound" in done.stderr:
        pytest.skip("another user cannot read this Python")
    assert "no home folder is known" in done.stdout


def test_an_argument_that_is_no_utf8_is_one_line(store: str) -> None:
    """It is repeated with an escape in its place."""
    one_line(shell("tune profiles show $'\\xff\\xfe' STORE", store), 1, "no profile is named")
    one_line(shell("tune profiles list --store $'/nowhere/\\xff.db'", store), 1, "does not exist")


@pytest.mark.parametrize("text", [b"\xff\xfe", b"tool = 3", b"a = [" * 9999])
def test_a_pyproject_of_any_kind_is_no_traceback(store: str, tmp_path: pathlib.Path, text: bytes) -> None:
    """It is passed over where it says nothing to us, and one line where it cannot be read."""
    (tmp_path / "pyproject.toml").write_bytes(text)
    done = shell(f"cd {tmp_path}; tune profiles list STORE", store)
    assert b"Traceback" not in done.stderr
    assert done.returncode in (0, 1)


@pytest.mark.parametrize("out", ["/dev/null/x.csv", "FOLDER/x.csv"])
def test_a_place_that_cannot_be_written_is_one_line(store: str, out: str, tmp_path: pathlib.Path) -> None:
    """A file and a report alike."""
    (tmp_path / "x.csv").mkdir()
    out = out.replace("FOLDER", str(tmp_path))
    one_line(shell(f"tune profiles export plain:make {out} STORE", store), 1, "cannot write")
    if not out.startswith(str(tmp_path)):
        done = shell(f"tune report plain:make --out {out} STORE", store)
        assert b"Traceback" not in done.stderr
        assert done.returncode == 1
    shutil.rmtree(tmp_path / "x.csv")


@given(st.text())
def test_what_is_shown_holds_nothing_that_a_terminal_obeys(text: str) -> None:
    """And all else is as it was."""
    shown = visible(text)
    assert not any((ord(c) < 32 and c not in "\t\n") or 127 <= ord(c) < 160 for c in shown)
    if text.isprintable():
        assert shown == text


@given(st.text() | st.from_regex(r"'{0,3}[=+\-@\t\r].{0,5}", fullmatch=True))
def test_a_cell_is_no_formula_and_comes_back_as_it_was(text: str) -> None:
    """Whatever stands in front of it already."""
    assert quoted_cell(text)[:1] not in set("=+-@\t\r")
    assert unquoted_cell(quoted_cell(text)) == text
