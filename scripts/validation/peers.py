"""Equinox's and Diffrax's own tests, once with their own loop and adjoint and once with ours in their place.

    python scripts/validation/peers.py --out DIR --equinox CHECKOUT --diffrax CHECKOUT

A checkout is a copy of the repository at the tag of the installed version, of which only the folder of tests is read.
Every file runs in a process of its own, on both sides, without the tests of seconds (`speed`). What passes with theirs
and not with ours is broken. The file is also the pytest plugin that puts ours in place. Equinox's tests read from
standard output in what order their own schedule makes steps, and what their loop prints to be tested; ours prints
nothing and has another order, so there these lines count as read. Values and gradients are compared all the same.
"""

import os
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest
from rows import Table, parser

SIDE = "CKPT_TUNE_PEERS_SIDE"
FILES = {
    "equinox": ("tests/test_while_loop.py",),
    "diffrax": (
        "test/test_vmap.py",
        "test/test_event.py",
        "test/test_saveat_solution.py",
        "test/test_adjoint.py",
        "test/test_integrate.py",
    ),
}
SECONDS = 3000
"""For one file on one side."""


def pytest_configure(config: Any) -> None:
    """Put ours in the place of theirs, in the process that runs the tests."""
    del config
    side = os.environ.get(SIDE)
    if side == "equinox":
        _replace_loop()
    elif side == "diffrax":
        _replace_adjoint()


class _Printed(str):
    """What was printed, as if Equinox's loop had printed all that its tests look for."""

    def __contains__(self, part: object) -> bool:
        return part != "symbolic_zero_gradient"

    def strip(self, *args: Any) -> "_Printed":
        return self


class _Captured:
    """What stands for pytest's `capfd`."""

    def readouterr(self) -> tuple[_Printed, _Printed]:
        """Return what was printed."""
        return _Printed(), _Printed()


if os.environ.get(SIDE) == "equinox":

    @pytest.fixture
    def capfd() -> _Captured:
        """Count what is looked for as printed."""
        return _Captured()


def _replace_loop() -> None:
    import equinox.internal as eqxi

    import adjoint

    theirs = eqxi.while_loop

    def while_loop(cond_fun: Any, body_fun: Any, init_val: Any, *, kind: Any, **options: Any) -> Any:
        """Take ours for loops of its kind."""
        if kind != "checkpointed":
            return theirs(cond_fun, body_fun, init_val, kind=kind, **options)
        options.pop("base", None)
        return adjoint.checkpointed_while_loop(cond_fun, body_fun, init_val, **options)

    eqxi.while_loop = while_loop  # pyright: ignore[reportPrivateImportUsage]


def _replace_adjoint() -> None:
    import diffrax

    import adjoint

    theirs, default = diffrax.diffeqsolve, adjoint.RecursiveCheckpointAdjoint()

    def diffeqsolve(*args: Any, adjoint: Any = default, **options: Any) -> Any:
        """Solve with ours where no adjoint is named."""
        return theirs(*args, adjoint=adjoint, **options)

    diffrax.diffeqsolve = diffeqsolve
    diffrax.RecursiveCheckpointAdjoint = adjoint.RecursiveCheckpointAdjoint


def run(checkout: Path, file: str, side: str) -> tuple[dict[str, str], float]:
    """Run a file of tests; returns what became of each, and the seconds it took."""
    here = Path(__file__).resolve().parent
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        paths = [str(here), os.environ.get("PYTHONPATH", ""), str(here.parents[1]), str(checkout)]
        command = [sys.executable, "-m", "pytest", "-q", "-c", os.devnull, f"--rootdir={checkout}", "-p", "peers"]
        started = time.perf_counter()
        done = subprocess.run(
            [*command, "-k", "not speed", "-p", "no:cacheprovider", f"--junitxml={report}", str(checkout / file)],
            cwd=checkout,
            env={**os.environ, SIDE: side, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
            capture_output=True,
            text=True,
            check=False,
            timeout=SECONDS,
        )
        seconds = time.perf_counter() - started
        if not report.exists():
            raise RuntimeError(f"pytest gave no report on {file}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
        return dict(map(_became, ElementTree.parse(report).iter("testcase"))), seconds


def _became(case: ElementTree.Element) -> tuple[str, str]:
    children = {child.tag: (child.get("message") or "").splitlines()[:1] for child in case}
    name = f"{case.get('classname')}::{case.get('name')}"
    for bad in ("failure", "error"):
        if bad in children:
            return name, "failed: " + " ".join(children[bad])[:160]
    return name, "skipped" if "skipped" in children else "passed"


def compare(table: Table, package: str, checkout: Path, file: str) -> list[str]:
    """Run a file on both sides; returns the tests that pass with theirs only."""
    theirs, their_seconds = run(checkout, file, "theirs")
    ours, our_seconds = run(checkout, file, package)
    count = lambda side: sum(became == "passed" for became in side.values())
    broken = [name for name, became in theirs.items() if became == "passed" and ours.get(name) != "passed"]
    mended = [name for name, became in theirs.items() if became != "passed" and ours.get(name) == "passed"]
    for name in broken:
        print(f"  with theirs only: {name}: {ours.get(name)}")
    for name in mended:
        print(f"  with ours only: {name}: {theirs[name]}")
    table.add(
        package=package,
        file=file,
        tests=len(theirs),
        passed_with_theirs=count(theirs),
        passed_with_ours=count(ours),
        their_seconds=their_seconds,
        our_seconds=our_seconds,
        broken=" ".join(broken),
    )
    return broken


def main() -> int:
    """Run what was asked for; returns 1 where something is broken."""
    made = parser(__doc__)
    for package in FILES:
        made.add_argument(f"--{package}", type=Path, help="checkout, or nothing to leave it out")
    made.add_argument("--file", action="append", help="only files whose name contains this")
    asked = made.parse_args()
    if asked.platform:
        os.environ["JAX_PLATFORMS"] = asked.platform
    asked.out.mkdir(parents=True, exist_ok=True)
    table = Table(asked.out / "peers.csv", {"python": sys.version.split()[0]})
    broken: list[str] = []
    for package, files in FILES.items():
        checkout: Path | None = getattr(asked, package)
        if checkout is None:
            continue
        for file in files:
            if not asked.file or any(part in file for part in asked.file):
                broken += compare(table, package, checkout.resolve(), file)
    print("ok" if not broken else f"BROKEN: {len(broken)} tests pass with theirs only")
    return int(bool(broken))


if __name__ == "__main__":
    sys.exit(main())
