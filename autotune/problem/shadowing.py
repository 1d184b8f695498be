"""Find out, before anything else of ours is imported, whether a file of the user's hides one of our packages."""

import importlib.util
from pathlib import Path

from autotune.errors import AutotuneError

OUR_ROOT = Path(__file__).resolve().parents[2]
OUR_NAMES = ("adjoint", "autotune", "profiles")


def check_own_packages() -> None:
    """Check that `import adjoint` and `import profiles` find ours.

    Raises:
        AutotuneError: a file or folder that comes earlier in the search path hides one; the text names both.
    """
    for name in OUR_NAMES:
        spec = importlib.util.find_spec(name)
        found = Path(spec.origin).resolve() if spec is not None and spec.origin else None
        if found is None or found.parent != OUR_ROOT / name:
            raise AutotuneError(
                f"`import {name}` finds {found or 'nothing'}, which hides ckpt-tune's own package {OUR_ROOT / name}; "
                "rename that file or folder"
            )
