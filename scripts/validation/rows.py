"""What the parts share: their command line, and a CSV whose every row says where it was measured."""

import argparse
import csv
import datetime as dt
import importlib.metadata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("jax", "jaxlib", "equinox", "diffrax")


def parser(description: str | None) -> argparse.ArgumentParser:
    """Make the command line that every part has."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--out", type=Path, required=True, help="folder for the CSV")
    made.add_argument("--platform", help="cpu, cuda, rocm or tpu")
    made.add_argument("--quick", action="store_true", help="small sizes and few counts")
    return made


def versions() -> dict[str, str]:
    """Read the versions of what decides a measurement."""
    return {package: importlib.metadata.version(package) for package in PACKAGES}


class Table:
    """A CSV on its way: each row is on the disk before the next is measured, and is printed as well."""

    def __init__(self, path: Path, provenance: Mapping[str, Any]) -> None:
        """Begin the file anew; `provenance` goes into every row, with the versions and the time."""
        self._path = path
        self._provenance = {**provenance, **versions()}
        self._columns: list[str] | None = None

    @property
    def platform(self) -> str:
        """Where the rows are measured."""
        return str(self._provenance["platform"])

    def add(self, **values: Any) -> None:
        """Write one row; all rows of a table have the columns of the first."""
        row = {**values, **self._provenance, "measured_at": dt.datetime.now(dt.UTC).isoformat(timespec="seconds")}
        if self._columns is None:
            self._columns = list(row)
            self._path.unlink(missing_ok=True)
        with self._path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self._columns)
            if file.tell() == 0:
                writer.writeheader()
            writer.writerow(row)
        shown = (
            f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}" for name, value in values.items()
        )
        print("  " + "  ".join(text for text in shown if not text.endswith(("=None", "="))), flush=True)
