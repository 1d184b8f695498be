"""Where a user's files lie when nothing else is said. No SQLAlchemy."""

import os
from pathlib import Path

import platformdirs

from profiles.errors import StoreNameError


def user_folder(kind: str) -> Path:
    """Return this user's folder for `data` or for what may be made anew (`cache`); it need not be there.

    Raises:
        StoreNameError: nobody knows where it is: HOME is not set and the system knows no such user.
    """
    find = {"data": platformdirs.user_data_dir, "cache": platformdirs.user_cache_dir}[kind]
    found = find("ckpt-tune", appauthor=False)
    if not os.path.isabs(found):  # the "~" that stands for the home folder was left as it is
        raise StoreNameError(
            f"no home folder is known for this user, in which {found} would lie: set HOME (or XDG_DATA_HOME and "
            "XDG_CACHE_HOME) to a folder of yours"
        )
    return Path(found)
