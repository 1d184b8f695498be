"""Open a store to read from, without making or changing anything where it is there."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from profiles import ProfileStore, default_url, is_sqlite_file, open_store, parse_url


@contextlib.contextmanager
def reading(url: str | None) -> Iterator[ProfileStore]:
    """Open a store without changing it, where it is there."""
    with open_store(url, read_only=store_exists(url)) as store:
        yield store


def store_exists(url: str | None) -> bool:
    """Return whether a store may be opened to read only; one that is not there yet is made, and simply empty."""
    parsed = parse_url(url or default_url())
    return not is_sqlite_file(parsed) or Path(str(parsed.database)).exists()
