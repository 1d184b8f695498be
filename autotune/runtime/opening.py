"""The store of a training process, which goes on whatever is wrong with its store. No jax."""

import contextlib
import logging
from collections.abc import Iterator

from profiles import ProfilesError, ProfileStore, StoreNameError, open_store

logger = logging.getLogger("autotune")


@contextlib.contextmanager
def opened_if_readable(url: str | None) -> Iterator[ProfileStore | None]:
    """Open the store, to read only where it cannot be written, not at all where it cannot be read.

    A training does not end because of its store: what is wrong there is said in one warning, and done without.

    Raises:
        StoreNameError: the name is none of a store.
    """
    opened = None
    for read_only in (False, True):
        try:
            opened = open_store(url, read_only=read_only, on_damage=_Once())
            break
        except StoreNameError:
            raise
        except ProfilesError as error:
            if read_only:
                logger.warning("the store cannot be opened, and is done without: %s", error)
            else:
                logger.info("the store cannot be opened for writing: %s", error)
    try:
        yield opened
    finally:
        if opened is not None:
            opened.close()


class _Once:
    """Warns of the first damage that it is told of."""

    def __init__(self) -> None:
        self._told = False

    def __call__(self, what: str) -> None:
        if not self._told:
            self._told = True
            logger.warning("%s; it is passed over, and so is whatever else cannot be read there", what)
