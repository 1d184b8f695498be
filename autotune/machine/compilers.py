"""XLA's compilers for GPU and TPU, kept apart from the user's environment. No jax.

Beside jax the plugins change what `jax.devices()` finds and prints, so they lie in a folder of ours, one for each
version of jax and Python, and only a process that compiles for a device that is not here has them on its search path.
"""

import dataclasses
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from autotune.errors import AutotuneError
from profiles import user_folder

GPU, TPU = "gpu", "tpu"
KINDS = (GPU, TPU)

VARIABLE = "CKPT_TUNE_TARGETS"
"""The environment variable that names the folder of compilers."""

_PLUGIN = {GPU: "jax-cuda13-plugin", TPU: "libtpu"}
"""What each kind is recognised by, and whose version has to fit jax's."""
_INSTALL_SECONDS = 1800.0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Compilers:
    """Compilers of one kind that are there: for which jax and Python, in which folder, how large."""

    kind: str
    jax: str
    python: str
    version: str
    folder: Path
    bytes: int

    @property
    def usable(self) -> bool:
        """Whether this Python with its jax can use them."""
        return (self.jax, self.python) == (_jax_version(), _python_version())


def root(environment: Mapping[str, str] = os.environ) -> Path:
    """Name the folder under which compilers lie: the user's own where CKPT_TUNE_TARGETS is set, else ours."""
    if environment.get(VARIABLE):
        return Path(environment[VARIABLE]).expanduser()
    return user_folder("data") / "targets"


def folder_of(kind: str, environment: Mapping[str, str] = os.environ) -> Path:
    """Name the folder of one kind, for this Python and its jax."""
    return root(environment) / f"jax-{_jax_version()}-py{_python_version()}" / kind


def installed(environment: Mapping[str, str] = os.environ) -> tuple[Compilers, ...]:
    """List the compilers that are there, for whatever jax."""
    found = []
    for path in sorted(root(environment).glob("jax-*-py*/*")):
        match = re.fullmatch(r"jax-(.+)-py(.+)", path.parent.name)
        version = _version_in(path, path.name) if path.name in KINDS else None
        if match is not None and version is not None:
            made = {"jax": match[1], "python": match[2], "version": version}
            found.append(Compilers(kind=path.name, folder=path, bytes=_size(path), **made))
    return tuple(found)


def search_path(kind: str, environment: Mapping[str, str] = os.environ) -> Path | None:
    """Return the folder that a process needs on its search path to compile for a kind of device.

    None where it needs none: an environment whose jax is the one for such devices has the compilers itself.

    Raises:
        AutotuneError: the compilers are not there, or are of another version than jax; the text has the command.
    """
    folder = folder_of(kind, environment)
    version = _version_in(folder, kind)
    if version is None and _in_environment(kind):
        return None
    if version is None:
        others = sorted({path.parent.name for path in root(environment).glob(f"jax-*-py*/{kind}")})
        there = f"; there are some for {', '.join(others)}" if others else ""
        raise AutotuneError(
            f"the compilers for {kind} are not installed for jax {_jax_version()} and Python {_python_version()}"
            f"{there}: run `ckpt-tune targets install {kind}`"
        )
    wanted = _wanted_version(kind)
    if not _matches(version, wanted):
        raise AutotuneError(
            f"{folder} holds {_PLUGIN[kind]} {version}, and jax {_jax_version()} needs {wanted}: "
            f"run `ckpt-tune targets install {kind}`"
        )
    return folder


def requirements(kind: str) -> list[str]:
    """List what pip is to install for a kind, in step with the installed jax.

    Raises:
        AutotuneError: this jax does not say which libtpu it goes with.
    """
    if kind == GPU:
        version = _jax_version()
        pair = [f"{name}=={version}" for name in ("jax-cuda13-plugin", "jax-cuda13-pjrt")]
        return [*pair, "nvidia-cuda-nvcc>=13,<14", "nvidia-nvvm>=13,<14"]
    return [f"libtpu=={_wanted_version(TPU)}"]


def install(kind: str, environment: Mapping[str, str] = os.environ) -> Compilers:
    """Install the compilers of a kind with pip; what was there before goes when the new ones are complete.

    Raises:
        AutotuneError: pip failed; its last line is in the text.
    """
    folder = folder_of(kind, environment)
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{kind}-", dir=folder.parent))
    # The version of pip may lack --target's newer friends; --no-deps, since jax itself is in the user's environment.
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(fresh)]
    try:
        done = subprocess.run(
            [*command, *requirements(kind)], capture_output=True, text=True, timeout=_INSTALL_SECONDS, check=False
        )  # fmt: skip
        if done.returncode or _version_in(fresh, kind) is None:
            said = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
            last = next((line for line in reversed(said) if line.startswith("ERROR")), said[-1] if said else "")
            raise AutotuneError(f"pip could not install the compilers for {kind}: {last[:300] or 'it said nothing'}")
        shutil.rmtree(folder, ignore_errors=True)
        fresh.rename(folder)
    except subprocess.TimeoutExpired:
        raise AutotuneError(
            f"pip took longer than {_INSTALL_SECONDS:g} s to install the compilers for {kind}"
        ) from None
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return next(one for one in installed(environment) if one.folder == folder)


def remove(kinds: Iterable[str], environment: Mapping[str, str] = os.environ) -> tuple[Compilers, ...]:
    """Remove the compilers of these kinds, for whatever jax; return what was removed."""
    wanted = set(kinds)
    gone = tuple(one for one in installed(environment) if one.kind in wanted)
    for one in gone:
        shutil.rmtree(one.folder)
        if not any(one.folder.parent.iterdir()):
            one.folder.parent.rmdir()
    return gone


def _in_environment(kind: str) -> bool:
    """Return whether the compilers of a kind are installed beside jax, in step with it."""
    try:
        return _matches(importlib.metadata.version(_PLUGIN[kind]), _wanted_version(kind))
    except (importlib.metadata.PackageNotFoundError, AutotuneError):
        return False


def _jax_version() -> str:
    return importlib.metadata.version("jax")


def _python_version() -> str:
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def _wanted_version(kind: str) -> str:
    """Return the version of the plugin that goes with the installed jax, `.*` at its end for any of a series."""
    if kind == GPU:
        return _jax_version()
    for line in importlib.metadata.requires("jax") or ():
        match = re.match(r"libtpu\s*==\s*([0-9.]+\*?)\s*;.*extra\s*==\s*['\"]tpu['\"]", line)
        if match:
            return match[1]
    raise AutotuneError(f"jax {_jax_version()} does not say which libtpu it goes with, so none can be chosen")


def _matches(version: str, wanted: str) -> bool:
    if wanted.endswith(".*"):
        return (version + ".").startswith(wanted[:-1])
    return version == wanted


def _version_in(folder: Path, kind: str) -> str | None:
    """Read the version of a kind's plugin in a folder from the metadata that pip left; None where it is not there."""
    stem = _PLUGIN[kind].replace("-", "_")
    for path in folder.glob(f"{stem}-*.dist-info"):
        return path.name.removeprefix(f"{stem}-").removesuffix(".dist-info")
    return None


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
