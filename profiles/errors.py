"""The errors of this package: each is one clear line with what was requested, what was found, what to do."""

from collections.abc import Sequence


class ProfilesError(Exception):
    """Base of every error that this package raises for the user to correct; its text is one clear line."""


class RecordError(ProfilesError, ValueError):
    """A record was given a value that it cannot hold: naive time, negative bytes, a figure that is not finite."""


class StoreError(ProfilesError):
    """The store cannot be opened, read or written; nothing that was stored before is lost."""


class StoreNameError(StoreError):
    """What should name a store names none: no path, no URL of a database that can be reached from here."""


class StoreAwayError(StoreError):
    """The server behind the store does not answer now; it was asked again for a while, and may answer later."""


class StoreVersionError(StoreError):
    """The store was written by a newer version of ckpt-tune than this one."""


class NoSuchProfile(ProfilesError, LookupError):
    """No stored profile has the name."""


class AmbiguousProfile(ProfilesError, LookupError):
    """Several stored profiles answer to the name; `candidates` are the names that distinguish them."""

    def __init__(self, message: str, candidates: Sequence[str]) -> None:
        super().__init__(message)
        self.candidates = tuple(candidates)


class TableError(ProfilesError):
    """A file of measurements cannot be read or written as asked."""


class DeviceError(ProfilesError):
    """A device is not in the catalogue, or a catalogue file is wrong."""
