"""Open a store to read from, without making or changing anything."""

import contextlib
from collections.abc import Iterator

from profiles import ProfileStore, StoreError, default_url, file_of, open_store, parse_url, without_password

IN_MEMORY = "sqlite://"
"""A store that is nowhere."""


@contextlib.contextmanager
def reading(url: str | None) -> Iterator[ProfileStore]:
    """Open a store without changing it; the default one, where nobody has made it yet, is empty.

    Raises:
        StoreError: it was named and is not there.
    """
    if url is None and not _exists(None):
        with open_store(IN_MEMORY) as store:
            store.place = without_password(default_url())
            yield store
        return
    with open_store(url, read_only=True) as store:
        yield store


@contextlib.contextmanager
def changing(url: str | None) -> Iterator[ProfileStore]:
    """Open a store that is there, to take something away from it.

    Raises:
        StoreError: it is not there.
    """
    if not _exists(url):
        raise StoreError(f"the store {without_password(url or default_url())} does not exist: nothing was changed")
    with open_store(url) as store:
        yield store


def _exists(url: str | None) -> bool:
    file = file_of(parse_url(url or default_url()))
    return file is None or file.exists()
