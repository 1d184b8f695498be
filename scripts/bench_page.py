"""Measure the report's page: bytes, seconds to make it, and seconds until a headless Chromium has drawn it.

    .venv/bin/python scripts/bench_page.py --out profiles/reference/page.csv

For each number of rows a sweep of made-up figures is laid out as a page and opened several times in one browser, from
the start of loading until the page says that all is drawn. Needs Chromium, and a checkout, whose tests drive it.
"""

import argparse
import csv
import platform
import statistics
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from profiles import Profile, render_page  # noqa: E402 # the checkout's own tests are imported below
from tests.profiles.makers import a_sweep  # noqa: E402
from tests.profiles.pages.browser import Browser, find_chromium  # noqa: E402

SWEEPS = {
    10: {"horizons": (100,), "tolerances": (1e-3,), "checkpoints": tuple(range(2, 22, 2))},
    1_000: {"horizons": (100, 200, 400, 800, 1600), "tolerances": (1e-3, 1e-6), "checkpoints": tuple(range(1, 101))},
    10_000: {
        "horizons": tuple(range(100, 1100, 100)),
        "tolerances": (1e-3, 1e-4, 1e-5, 1e-6),
        "checkpoints": tuple(range(1, 251)),
    },
}
"""Number of rows, and the sweep that has so many."""


def measure(rows: int, repeats: int, folder: Path) -> dict[str, object]:
    """Make the page of so many rows, and open it `repeats` times after once to warm up."""
    profile = Profile(name="made-up:make", measurements=tuple(a_sweep(**SWEEPS[rows])))
    assert len(profile.measurements) == rows
    render_page(profile)  # Vega's bundle is made once in a process
    start = time.perf_counter()
    text = render_page(profile, budget_bytes=60 * 2**20)
    made = time.perf_counter() - start
    page = folder / f"{rows}.html"
    page.write_text(text, encoding="utf-8")
    opened = []
    with Browser(folder / f"user-{rows}") as browser:
        for _ in range(repeats + 1):
            start = time.perf_counter()
            browser.open(page)
            opened.append(time.perf_counter() - start)
        said = browser.complaints()
        version = browser.call("Browser.getVersion")["product"]
    if said:
        raise SystemExit(f"bench_page: the page of {rows} rows complains: {said[0]}")
    return {
        "rows": rows,
        "page_bytes": len(text.encode()),
        "make_seconds": round(made, 3),
        "first_open_seconds": round(opened[0], 3),
        "open_seconds": " ".join(f"{sample:.3f}" for sample in opened[1:]),
        "open_median_seconds": round(statistics.median(opened[1:]), 3),
        "browser": version,
        "machine": f"{platform.machine()} {platform.system()}",
        "python": platform.python_version(),
        "altair": metadata.version("altair"),
        "vl_convert": metadata.version("vl-convert-python"),
    }


def main() -> int:
    """Measure each number of rows, and write the CSV."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--out", type=Path, default=Path("page.csv"), help="where the CSV goes")
    parser.add_argument("--repeats", type=int, default=5, help="timed openings of each page")
    options = parser.parse_args()
    if find_chromium() is None:
        print("bench_page: there is no Chromium here; install one (Debian's package is chromium)", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        found = [measure(rows, options.repeats, Path(folder)) for rows in SWEEPS]
    with options.out.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(found[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(found)
    for row in found:
        print("  ".join(f"{name}={value}" for name, value in list(row.items())[:6]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
