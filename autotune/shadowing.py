"""Whether `adjoint`, `autotune` and `profiles` are ours: checked before anything else of ours is imported.

Other distributions ship packages of these names, and so do people's folders. A foreign package that comes earlier in
the search path hides ours; one that was installed into the same folder has written over our `__init__.py`. No jax, and
no more than three look-ups and three small files to read: `import autotune` does this every time.
"""

import importlib.util
import os

OUR_ROOT = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
"""The folder that holds the three packages."""
OUR_NAMES = ("adjoint", "autotune", "profiles")

_MARK = b"lazy_loader.attach_stub(__name__, __file__)"
"""A line of each `__init__.py` of ours."""


def check_own_packages() -> None:
    """Check that each of our three packages is ours.

    Raises:
        ForeignPackageError: one is not; the text names the file that is found in its place.
    """
    for name in OUR_NAMES:
        found = _file_of(name)
        ours = os.path.join(OUR_ROOT, name)
        if found is None or os.path.dirname(found) != ours:
            reason = f"which hides ckpt-tune's own package {ours}; rename that file or folder"
        elif not _is_marked(found):
            reason = "which another distribution has written over ckpt-tune's own; install ckpt-tune by itself"
        else:
            continue
        # Imported here alone: where all is well, nothing more is loaded.
        from autotune.errors import ForeignPackageError

        raise ForeignPackageError(f"`import {name}` finds {found or 'nothing'}{_shipped_by(name)}, {reason}")


def _file_of(name: str) -> str | None:
    """Name the file that an import of a package would run, or has run; None where there is none."""
    try:
        spec = importlib.util.find_spec(name)
    except ValueError:  # a module that somebody made by hand
        return None
    return os.path.realpath(spec.origin) if spec is not None and spec.origin else None


def _is_marked(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            return _MARK in file.read()
    except OSError:  # packages may lie in an archive
        return True


def _shipped_by(name: str) -> str:
    """Name the other distributions that ship a package, in brackets; empty where none is known."""
    import importlib.metadata

    shipped = {one for one in importlib.metadata.packages_distributions().get(name, ()) if one != "ckpt-tune"}
    return f" (shipped by the distribution {', '.join(sorted(shipped))})" if shipped else ""
