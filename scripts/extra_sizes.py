"""Say how large an installation is, and what each extra adds to it, as installed in this environment.

Every distribution that is needed is counted once, with the bytes of its files on disk; markers are taken as true where
they name no extra, so a platform's own parts may be missing here.

    .venv/bin/python scripts/extra_sizes.py
"""

import argparse
import csv
import importlib.metadata
import re
import sys

PROJECT = "ckpt-tune"
EXTRAS = ("postgresql", "parquet", "cluster", "serve", "examples", "docs")


def canonical(name: str) -> str:
    """Write a distribution's name as an index does."""
    return re.sub(r"[-_.]+", "-", name).lower()


def needed(name: str, extras: frozenset[str], found: set[str]) -> set[str]:
    """Collect a distribution and everything below it that is installed."""
    try:
        requirements = importlib.metadata.requires(name) or []
    except importlib.metadata.PackageNotFoundError:
        return found
    found.add(canonical(name))
    for text in requirements:
        match = re.match(r"([\w.-]+)\s*(?:\[([\w., -]+)\])?", text)
        marker = re.search(r"extra\s*==\s*['\"]([\w-]+)['\"]", text)
        if match is None or (marker is not None and marker.group(1) not in extras):
            continue
        below = frozenset(part.strip() for part in (match.group(2) or "").split(",") if part.strip())
        if canonical(match.group(1)) not in found or below:
            known = found | {canonical(match.group(1))}
            found |= needed(match.group(1), below, known if below else found)
    return found


def size_bytes(name: str) -> int:
    """Add up the files of a distribution."""
    files = importlib.metadata.files(name) or []
    return sum(path.stat().st_size for file in files if (path := file.locate()).exists())  # pyright: ignore[reportAttributeAccessIssue]


def main() -> None:
    """Print one row for the installation itself, and one for each extra."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    base = needed(PROJECT, frozenset(), set())
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(("extra", "distributions", "megabytes"))
    writer.writerow(("", len(base), round(sum(map(size_bytes, base)) / 1e6)))
    defined = importlib.metadata.metadata(PROJECT).get_all("Provides-Extra") or []
    for extra in (one for one in EXTRAS if one in defined):
        more = needed(PROJECT, frozenset({extra}), set()) - base
        writer.writerow((extra, len(more), round(sum(map(size_bytes, more)) / 1e6)))


if __name__ == "__main__":
    main()
